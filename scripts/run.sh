#!/bin/sh
# Starts the server. Uses the python3 on the PATH if the pinned packages are installed there; otherwise makes .venv, and
# compiles the hot path if it can.
# Settings are JOBQUEUE_* in the environment. Arguments go to `python -m jobqueue`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"
# shellcheck source=scripts/compile.sh
. "$root/scripts/compile.sh"

package=$root
find_pinned python3 || {
    use_venv requirements.txt
    [ $# -gt 0 ] || use_compiled # other commands need no speed
}

unset JOBQUEUE_COMPILE  # the server would refuse it as an unknown setting
# -P: modules in the caller's folder must not be imported instead of ours.
export PYTHONPATH="$package${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -P -m jobqueue "$@"
