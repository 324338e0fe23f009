#!/bin/sh
# Attacks the real program over both fronts, and prints a table: attack, figure that must hold, measured, verdict.
# Arguments go to `python -m tests.abuse`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/tool.sh
. "$root/scripts/tool.sh"
run_tool tests.abuse "$@"
