#!/bin/sh
# Runs the quick suite on the sources. `--all` comes first and runs everything; then `--compiled` tests the compiled copy
# that run.sh serves. All other arguments go to pytest.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"
# shellcheck source=scripts/compile.sh
. "$root/scripts/compile.sh"

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
# A named test runs in this process. Whole suites run in two processes for each processor, since some tests wait, and a
# process without work takes some from the others, since some tests are long.
case "${1:-}" in
    '' | -q) set -- -n $((2 * $(getconf _NPROCESSORS_ONLN))) --dist worksteal "$@" ;;
esac
exec "$python" -P -m pytest "$@"
