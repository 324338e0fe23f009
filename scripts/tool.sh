# shellcheck shell=sh
# For scripts that run a module of the tests on the compiled package. Source it with `root` set.
# shellcheck disable=SC2154  # by whoever sources it

# shellcheck source=scripts/venv.sh
. "$root/scripts/venv.sh"
# shellcheck source=scripts/compile.sh
. "$root/scripts/compile.sh"

# run_tool MODULE ARGUMENT...: prepares the environment, and becomes `python -m MODULE ARGUMENT...`.
run_tool() {
    use_venv tests/requirements.txt
    use_compiled
    unset JOBQUEUE_COMPILE
    cd "$root" || exit
    export PYTHONPATH="$package:$root:$root/tests:$root/tests/server"
    exec "$python" -P -m "$@"
}
