#!/bin/sh
# Attacks the real program over both fronts, and prints a table: attack, figure that must hold, measured, verdict.
# Arguments go to `python -m tests.abuse`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"
# shellcheck source=scripts/compile.sh
. "$root/scripts/compile.sh"

use_venv tests/requirements.txt
use_compiled
unset JOBQUEUE_COMPILE
cd "$root"
export PYTHONPATH="$package:$root:$root/tests:$root/tests/server"
exec "$python" -P -m tests.abuse "$@"
