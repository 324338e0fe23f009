# shellcheck shell=sh
# Sourced by the scripts beside it, with $root set to the repository. Sets $python.
# .venv belongs to these scripts. What was installed is kept in .venv/installed, written last: a .venv without
# it is half-made and is made anew. All output goes to stderr.

: "${root:?}"
newline='
'

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# find_pinned PYTHON: succeeds where exactly what requirements.txt pins is installed for PYTHON.
find_pinned() {
    python=$("$1" -P -c '
import sys
from importlib.metadata import version

for line in open(sys.argv[1], encoding="utf-8"):
    requirement, _, marker = line.partition("#")[0].partition(";")
    if requirement.strip() and (not marker or eval(marker.strip(), {"sys_platform": sys.platform})):
        name, _, pin = requirement.strip().partition("==")
        if version(name) != pin:
            sys.exit(1)
print(sys.executable)
' "$root/requirements.txt" 2>/dev/null)
}

# use_venv FILE: takes the python of .venv, first bringing it in step with FILE: requirements.txt or one that holds it.
use_venv() {
    python=$root/.venv/bin/python
    wanted=$1
    pins=$(cat "$root/requirements.txt")
    [ "$wanted" = requirements.txt ] || pins=$pins$newline$(cat "$root/scripts/requirements.txt" "$root/$wanted")
    is_in_step || is_as_pinned || {
        python=$root/.venv/bin/python
        find_base
        [ -w "$root" ] || fail "may not write to $root, where .venv is to be made: let its owner run this once"
        bring_in_step 9>"$root/.venv.lock"
    } >&2
}

# The first lines decide: a .venv for the tests serves too.
is_in_step() {
    case $(cat "$root/.venv/installed" 2>/dev/null)$newline in
        "$pins$newline"*) works ;;
        *) false ;;
    esac
}

# One that somebody else has made, as a service's installation does: to serve it is good as it is.
is_as_pinned() {
    [ "$wanted" = requirements.txt ] && find_pinned "$root/.venv/bin/python"
}

# Not so after an upgrade or removal of the Python it was made with.
works() {
    "$python" -I -c 'import pip' 2>/dev/null
}

find_base() {
    base=
    for name in python3.11 python3 python python3.12 python3.13 python3.14; do
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
        base=$name
        if "$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then return; fi
    done
    [ -z "$base" ] || fail "$base has no venv or no ensurepip; on Debian and Ubuntu: apt install python3-venv"
    fail 'needs Python 3.11 or newer, and found none on the PATH'
}

# lock PYTHON: one script at a time. The lock is on descriptor 9, so it ends with this script and with any pip that
# outlives it.
lock() {
    "$1" -I -c '
import fcntl

try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("another script is setting up .venv: waiting for it", flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)
' || echo 'cannot lock .venv here: start no other script until this one is done'
}

bring_in_step() {
    lock "$base"
    if is_in_step; then return; fi
    if ! [ -f "$root/.venv/installed" ] || ! works; then
        echo "making .venv with $("$base" --version)"
        "$base" -I -m venv --clear "$root/.venv" || fail 'could not make .venv'
    fi
    rm -f "$root/.venv/installed"
    echo "installing $wanted into .venv"
    "$python" -I -m pip install --quiet --disable-pip-version-check --no-input -r "$root/$wanted" ||
        fail 'could not install what is pinned; is a package index within reach?'
    printf '%s\n' "$pins" >"$root/.venv/installed"
}

# use_compiled: sets $package, the folder that jobqueue is imported from: a copy in which what every request passes
# through is machine code; or the repository, where there is no C compiler, where .venv is not ours to write, or where
# JOBQUEUE_COMPILE=0 is set. The copy is made anew whenever the sources are others; $compiled/of says what it was made
# of, and whether it was.
# shellcheck disable=SC2034  # whoever calls it uses it
use_compiled() {
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
            # Whatever goes wrong, the sources can be served.
            compile_sources 9>"$root/.venv.lock" >&2 || echo 'it is not compiled' >&2
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
        echo 'compiling it for this machine, once: about half a minute (JOBQUEUE_COMPILE=0 leaves it out)'
        {
            "$python" -I -m pip install --quiet --disable-pip-version-check --no-input --target "$compiled.tools" \
                -r "$root/scripts/requirements.txt" &&
                PYTHONPATH=$compiled.tools "$python" -P "$root/scripts/compile.py" "$compiled.new"
        } >"$root/.venv/compiled.log" 2>&1 && done=yes || echo 'could not: .venv/compiled.log says why'
    else
        echo 'no C compiler, or no headers of this Python: it is not compiled, and a third slower'
    fi
    rm -rf "$compiled.tools"
    [ "$done" = yes ] || rm -rf "$compiled.new"/*
    echo "$sources $done" >"$compiled.new/of"
    rm -rf "$compiled"  # not before: a server may be running out of it
    mv "$compiled.new" "$compiled"
}

# On macOS `cc` is there always; without the command line tools it opens a window that offers them.
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
