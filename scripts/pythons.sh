#!/bin/sh
# Runs the quick suite on the sources with each Python from 3.11 to 3.14 that this machine has: on the PATH, in pyenv or in
# uv. One that it does not have is skipped by name. Each has an environment of its own, in .venv/pythons.
# `pythons.sh 3.12 3.13` runs these only. All other arguments go to pytest.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"

# find_version 3.N: prints the path of that Python, or fails.
find_version() {
    for found in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python "$(uv python find "$1" 2>/dev/null)"; do
        "$found" -c '
import ensurepip, sys, venv

assert "%d.%d" % sys.version_info[:2] == sys.argv[1]
print(sys.executable)
' "$1" 2>/dev/null && return
    done
    return 1
}

unset JOBQUEUE_COMPILE
export PYTHONPATH="$root"
cd "$root"
versions=
while case "${1:-}" in 3.*) true ;; *) false ;; esac; do
    versions="$versions $1"
    shift
done
pins=$(cat "$root/requirements.txt" "$root/scripts/requirements.txt" "$root/tests/requirements.txt")
results=
failed=0
for version in ${versions:-3.11 3.12 3.13 3.14}; do
    if ! base=$(find_version "$version"); then
        results="$results${newline}Python $version: skipped, it is not installed here"
        continue
    fi
    folder=$root/.venv/pythons/$version
    python=$folder/bin/python
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$pins" ]; then
        echo "making $folder with $base" >&2
        "$base" -I -m venv --clear "$folder"
        "$python" -I -m pip install --quiet --disable-pip-version-check --no-input -r "$root/tests/requirements.txt"
        printf '%s\n' "$pins" >"$folder/installed"
    fi
    echo "== $("$python" --version)" >&2
    result=passed
    "$python" -P -m pytest -q -n $((2 * $(getconf _NPROCESSORS_ONLN))) --dist worksteal "$@" || {
        result=FAILED
        failed=1
    }
    results="$results${newline}$("$python" --version): $result"
done
echo "${results#"$newline"}"
exit "$failed"
