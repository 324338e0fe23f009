#!/bin/sh
# Runs the benchmarks. Arguments go to `python -m tests.bench`; CI runs it with `--quick`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/tool.sh
. "$root/scripts/tool.sh"
run_tool tests.bench "$@"
