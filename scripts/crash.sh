#!/bin/sh
# Runs the crash proof: kill -9, power cuts, damage, full and failing disks under load, checked against a ledger.
# Arguments go to `python -m tests.crash`; the test suite runs it with `--short`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/tool.sh
. "$root/scripts/tool.sh"
run_tool tests.crash "$@"
