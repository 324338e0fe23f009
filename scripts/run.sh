#!/bin/sh
# Serves. Uses the python3 on the PATH where what requirements.txt pins is already there, else .venv, in which it
# compiles itself where it can.
# Settings: JOBQUEUE_* in the environment; arguments go to `python -m jobqueue`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"

package=$root
find_pinned python3 || {
    use_venv requirements.txt
    [ $# -gt 0 ] || use_compiled # to serve
}

unset JOBQUEUE_COMPILE  # no setting of the server's
# -P: what lies in the caller's folder must not be imported in place of our modules.
export PYTHONPATH="$package${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -P -m jobqueue "$@"
