#!/bin/sh
# Runs the benchmarks. Arguments go to `python -m tests.bench`; CI runs it with `--quick`.
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
exec "$python" -P -m tests.bench "$@"
