# shellcheck shell=sh
# Makes and finds the compiled copy of the package, .venv/compiled; sets $package. Sourced after venv.sh, with $root set to
# the repository. All output goes to stderr.

: "${root:?}"

# use_compiled: sets $package, the folder to import jobqueue from. This is the compiled copy; or the repository if there is
# no C compiler, if .venv is not writable, or if JOBQUEUE_COMPILE=0 is set. The copy is made again whenever the sources
# change: $compiled/of has the checksum of the sources, and whether compiling them succeeded.
# shellcheck disable=SC2034  # the scripts that source this file use $package
use_compiled() {
    : "${python:?call use_venv first}"
    package=$root
    compiled=$root/.venv/compiled
    wanted=${JOBQUEUE_COMPILE:-1}
    [ "$wanted" != 0 ] || return 0
    sources=$(cd "$root" && find scripts/compile.py scripts/requirements.txt jobqueue -type f ! -name '*.pyc' |
        LC_ALL=C sort | xargs cat | cksum)
    case $(cat "$compiled/of" 2>/dev/null) in
        "$sources yes" | "$sources no") ;;
        *)
            if ! [ -w "$root/.venv" ] || ! [ -w "$root" ]; then return 0; fi # its owner has to run this once
            # Whatever fails here, the sources can still be served.
            compile_sources 9>"$root/.venv.lock" >&2 || echo 'serving the sources: they could not be compiled' >&2
            ;;
    esac
    [ "$(cat "$compiled/of" 2>/dev/null)" != "$sources yes" ] || package=$compiled
}

compile_sources() {
    lock "$python"
    case $(cat "$compiled/of" 2>/dev/null) in "$sources "*) return ;; esac
    rm -rf "$compiled.new" "$compiled.tools"
    mkdir -p "$compiled.new"
    done=no
    if has_compiler; then
        echo 'compiling the hot path for this machine, once: about half a minute (JOBQUEUE_COMPILE=0 skips this)'
        {
            "$python" -I -m pip install --quiet --disable-pip-version-check --no-input --target "$compiled.tools" \
                -r "$root/scripts/requirements.txt" &&
                PYTHONPATH=$compiled.tools "$python" -P "$root/scripts/compile.py" "$compiled.new"
        } >"$root/.venv/compiled.log" 2>&1 && done=yes || echo 'could not compile: .venv/compiled.log says why'
    else
        echo 'no C compiler, or no headers for this Python: serving the sources, which is a third slower'
    fi
    rm -rf "$compiled.tools"
    [ "$done" = yes ] || rm -rf "$compiled.new"/*
    echo "$sources $done" >"$compiled.new/of"
    rm -rf "$compiled"  # only now: a server may be running from it
    mv "$compiled.new" "$compiled"
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
