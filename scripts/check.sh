#!/bin/sh
# Lint, format, types. `--fix` first mends what can be mended.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"

use_venv tests/requirements.txt
cd "$root"
if [ "${1:-}" = --fix ]; then
    "$python" -m ruff check --fix-only .
    "$python" -m ruff format .
fi

failed=0
check() {
    echo "== $*"
    "$@" || failed=1
}
check "$python" -m ruff check .
check "$python" -m ruff format --check .
check "$python" -m mypy
if command -v shellcheck >/dev/null; then
    check shellcheck --external-sources scripts/*.sh .ci/run
else
    echo '== shellcheck: skipped, it is not installed'
fi
exit "$failed"
