#!/bin/sh
# Checks lint, format and types. `--fix` first repairs what can be repaired.
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
# Checks the pinned packages for known vulnerabilities, if the package index provides them and answers at once.
index_has_vulnerabilities() {
    "$python" -c '
from urllib.request import urlopen

pin = open("requirements.txt").readline().strip().replace("==", "/")
urlopen(f"https://pypi.org/pypi/{pin}/json", timeout=2).read(1)
' 2>/dev/null
}
if index_has_vulnerabilities; then
    "$python" -m pip_audit --version >/dev/null 2>&1 ||
        "$python" -I -m pip install --quiet --disable-pip-version-check --no-input pip-audit==2.10.1
    check "$python" -m pip_audit --strict --disable-pip --no-deps --progress-spinner off -r requirements.txt
else
    echo '== pip-audit: skipped, the package index provides no vulnerabilities here'
fi
exit "$failed"
