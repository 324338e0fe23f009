#!/bin/sh
# Starts the server. Uses the python3 on the PATH if the pinned packages are installed there; otherwise makes .venv, and
# compiles the hot path if it can: while it serves the sources, for its next start.
# `run.sh compile` compiles it now.
# Settings are JOBQUEUE_* in the environment. Arguments are those of the command `jobqueue`: without any it serves.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"
# shellcheck source=scripts/compile.sh
. "$root/scripts/compile.sh"

[ $# -gt 0 ] || set -- serve
if [ "$1" = compile ]; then
    use_venv requirements.txt
    compile_now
    exit
fi
package=$root
find_pinned python3 || {
    use_venv requirements.txt
    [ "$1" != serve ] || use_compiled_or_start # other commands need no speed
}

# A HUP before the server answers signals must not end it. (It takes the signal although it is ignored here.)
[ "$1" != serve ] || trap '' HUP
# -P: modules in the caller's folder must not be imported instead of ours.
export PYTHONPATH="$package${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -P -m jobqueue "$@"
