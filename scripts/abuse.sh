#!/bin/sh
# Attacks the real program, over both fronts, and prints a table: attack, figure that must hold, measured, verdict.
# Arguments go to `python -m tests.abuse`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"

use_venv tests/requirements.txt
cd "$root"
export PYTHONPATH="$root:$root/tests:$root/tests/server${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m tests.abuse "$@"
