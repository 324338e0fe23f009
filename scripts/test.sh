#!/bin/sh
# The quick suite, on the sources. `--all` first: all of it; `--compiled` then: on the compiled copy, as run.sh serves
# it. Whatever else goes to pytest.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"

use_venv tests/requirements.txt
if [ "${1:-}" = --all ]; then
    shift
    export TEST_ALL=1
fi
package=$root
if [ "${1:-}" = --compiled ]; then
    shift
    use_compiled
fi
unset JOBQUEUE_COMPILE
export PYTHONPATH="$package:$root"
cd "$root"
# A named test runs by itself; whole suites on all processors, two processes on each: some tests wait. Who has
# nothing left takes from the others: some tests are long.
case "${1:-}" in
    '' | -q) set -- -n $((2 * $(getconf _NPROCESSORS_ONLN))) --dist worksteal "$@" ;;
esac
exec "$python" -P -m pytest "$@"
