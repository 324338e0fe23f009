#!/bin/sh
# The crash proof: kill -9, power cuts, damage, full and failing disks under load, and a checked ledger of it all.
# Arguments go to `python -m tests.crash`; `--short` is what CI runs.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"

use_venv tests/requirements.txt
cd "$root"
exec "$python" -m tests.crash "$@"
