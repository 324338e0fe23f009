# shellcheck shell=sh
# Finds or makes the Python environment; sets $python. Sourced by the other scripts, with $root set to the repository.
# .venv belongs to these scripts. .venv/installed lists what was installed and is written last, so a .venv without it is
# incomplete and is made again. All output goes to stderr.

: "${root:?}"
newline='
'

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# find_pinned PYTHON: succeeds if exactly the packages pinned in requirements.txt are installed for PYTHON. Sets $python.
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

# use_venv FILE: sets $python to the one of .venv, after installing what FILE pins. FILE is requirements.txt, or a file
# that includes it.
use_venv() {
    python=$root/.venv/bin/python
    wanted=$1
    pins=$(cat "$root/requirements.txt")
    [ "$wanted" = requirements.txt ] || pins=$pins$newline$(cat "$root/scripts/requirements.txt" "$root/$wanted")
    is_in_step || is_as_pinned || {
        python=$root/.venv/bin/python
        find_base
        [ -w "$root" ] || fail "may not write to $root, where .venv is to be made: its owner has to run this once"
        bring_in_step 9>"$root/.venv.lock"
    } >&2
}

# Compares the first lines only: a .venv made for the tests is also good for serving.
is_in_step() {
    case $(cat "$root/.venv/installed" 2>/dev/null)$newline in
        "$pins$newline"*) works ;;
        *) false ;;
    esac
}

# A .venv that something else made, such as a service's installation, is good for serving if the packages are right.
is_as_pinned() {
    [ "$wanted" = requirements.txt ] && find_pinned "$root/.venv/bin/python"
}

# Fails after an upgrade or removal of the Python that .venv was made with.
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

# lock PYTHON: lets one script at a time change .venv. The lock is on descriptor 9, so it ends with this script, or with a
# pip that outlives it.
lock() {
    "$1" -I -c '
import fcntl

try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("another script is setting up .venv: waiting for it", flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)
' || echo 'cannot lock .venv: start no other script until this one has ended'
}

bring_in_step() {
    lock "$base"
    if is_in_step; then return; fi
    if ! [ -f "$root/.venv/installed" ] || ! works; then
        # It belongs to another checkout, whose packages would be gone.
        ! [ -L "$root/.venv" ] || fail "$root/.venv is a symbolic link, which is not cleared: remove it first"
        echo "making .venv with $("$base" --version)"
        "$base" -I -m venv --clear "$root/.venv" || fail 'could not make .venv'
    fi
    rm -f "$root/.venv/installed"
    echo "installing $wanted into .venv"
    "$python" -I -m pip install --quiet --disable-pip-version-check --no-input -r "$root/$wanted" ||
        fail 'could not install the pinned packages; is a package index reachable?'
    printf '%s\n' "$pins" >"$root/.venv/installed"
}
