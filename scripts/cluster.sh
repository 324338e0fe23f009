#!/bin/sh
# Servers on one PostgreSQL database under load: kill -9, rolling restarts, frozen servers, a database that restarts or
# hangs, old transactions, cut networks (as root), Patroni (if it is installed, with etcd). Arguments go to
# `python -m tests.cluster`; the test suite runs the first five scenes in their short form.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
# shellcheck source=scripts/tool.sh
. "$root/scripts/tool.sh"
run_tool tests.cluster "$@"
