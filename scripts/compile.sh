# shellcheck shell=sh
# Makes and finds the compiled copy of the package, .venv/compiled; sets $package. Sourced after venv.sh, with $root set to
# the repository. All output goes to stderr.

: "${root:?}"

# look_for_compiled: sets $package, the folder to import jobqueue from: the compiled copy if it was made from these sources,
# else the repository. Fails if the copy has yet to be made, and can be: neither JOBQUEUE_COMPILE=0 is set nor is .venv
# somebody else's. $compiled/of has the checksum of the sources, and whether compiling them succeeded.
# shellcheck disable=SC2034  # the scripts that source this file use $package
look_for_compiled() {
    : "${python:?call use_venv first}"
    package=$root
    compiled=$root/.venv/compiled
    wanted=${JOBQUEUE_COMPILE:-1}
    [ "$wanted" != 0 ] || return 0
    sources=$(cd "$root" && find scripts/compile.py scripts/requirements.txt jobqueue -type f ! -name '*.pyc' |
        LC_ALL=C sort | xargs cat | cksum)
    case $(cat "$compiled/of" 2>/dev/null) in
        "$sources yes") package=$compiled ;;
        "$sources no") ;; # there is no compiler, or it has failed
        *) if [ -w "$root/.venv" ] && [ -w "$root" ]; then return 1; fi ;;
    esac
}

# use_compiled: sets $package as look_for_compiled does, after making the copy if it has yet to be made.
use_compiled() {
    look_for_compiled || {
        # Whatever fails here, the sources can still be served.
        compile_sources 9>"$root/.venv.lock" >&2 || echo 'serving the sources: they could not be compiled' >&2
        look_for_compiled || :
    }
}

# use_compiled_or_start: sets $package as look_for_compiled does. If the copy has yet to be made, starts that beside this
# process, which goes on with the sources. It ends with this process, also after an exec, and then leaves nothing behind.
use_compiled_or_start() {
    look_for_compiled || {
        if has_compiler; then
            echo 'serving the sources; the hot path is compiled meanwhile, and the next start uses that' >&2
            nice "$python" -I "$root/scripts/beside.py" $$ "$compiled.work" -- \
                /bin/sh "$root/scripts/run.sh" compile </dev/null >/dev/null 2>&1 &
        else
            use_compiled # takes a moment, and says why there will be no copy
        fi
    }
}

# compile_now: makes the copy, also if that has failed before. Succeeds if it is there afterwards.
compile_now() {
    JOBQUEUE_COMPILE=1
    look_for_compiled || :
    if [ "$package" = "$compiled" ]; then
        echo 'compiled already, from these sources' >&2
        return
    fi
    if ! [ -w "$root/.venv" ] || ! [ -w "$root" ]; then
        fail "may not write to $root/.venv: its owner has to run this"
    fi
    case $(cat "$compiled/of" 2>/dev/null) in "$sources no") rm -f "$compiled/of" ;; esac
    trap 'rm -rf "$compiled.work.$$"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    use_compiled
    [ "$package" = "$compiled" ]
}

compile_sources() {
    lock "$python"
    case $(cat "$compiled/of" 2>/dev/null) in "$sources "*) return ;; esac
    rm -rf "$compiled".work.* # left by a machine that was switched off
    work=$compiled.work.$$    # not that of another script, which may be waiting for the lock or removing its own
    mkdir -p "$work/new" "$work/tools" "$work/tmp"
    done=no
    if has_compiler; then
        echo 'compiling the hot path for this machine, once: about half a minute (JOBQUEUE_COMPILE=0 skips this)'
        # Descriptor 3 is for progress. Temporary files are where they are removed if this is ended.
        (
            export TMPDIR="$work/tmp"
            echo 'installing the compiler' >&3
            "$python" -I -m pip install --quiet --disable-pip-version-check --no-input --target "$work/tools" \
                -r "$root/scripts/requirements.txt" &&
                PYTHONPATH=$work/tools "$python" -P "$root/scripts/compile.py" "$work/new" 3
        ) 3>&1 >"$root/.venv/compiled.log" 2>&1 && done=yes || echo 'could not compile: .venv/compiled.log says why'
    else
        echo 'no C compiler, or no headers for this Python: serving the sources, which is a third slower'
    fi
    [ "$done" = yes ] || rm -rf "$work/new"/*
    echo "$sources $done" >"$work/new/of"
    rm -rf "$compiled"  # only now: a server may be running from it
    mv "$work/new" "$compiled"
    rm -rf "$work"
}

# On macOS `cc` always exists; without the command line tools it opens a window that offers to install them.
has_compiler() {
    "$python" -I -c '
import os, shutil, subprocess, sys, sysconfig

compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
header = os.path.join(sysconfig.get_path("include"), "Python.h")
there = shutil.which(compiler) and os.path.exists(header)
if there and sys.platform == "darwin":
    there = subprocess.run(["xcode-select", "-p"], capture_output=True).returncode == 0
sys.exit(not there)
'
}
