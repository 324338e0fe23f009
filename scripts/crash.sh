#!/bin/sh
# The crash proof: kill -9, power cuts, damage, full and failing disks under load, and a checked ledger of it all.
# Arguments go to `python -m tests.crash`; `--short` is what CI runs.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"

use_venv tests/requirements.txt
use_compiled
unset JOBQUEUE_COMPILE
cd "$root"
export PYTHONPATH="$package:$root"
exec "$python" -P -m tests.crash "$@"
