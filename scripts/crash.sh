#!/bin/sh
# Runs the crash proof: kill -9, power cuts, damage, full and failing disks under load, checked against a ledger.
# Arguments go to `python -m tests.crash`; the test suite runs it with `--short`.
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
export PYTHONPATH="$package:$root"
exec "$python" -P -m tests.crash "$@"
