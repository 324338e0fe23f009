"""The command `jobqueue`, which is `python -m jobqueue` too. `jobqueue.cli` has its commands."""

import sys

from jobqueue.standard_streams import open_closed_streams


def main() -> int:
    """Runs the command on the command line. Returns its exit status."""
    open_closed_streams()
    arguments = sys.argv[1:]
    if arguments[:1] == ["serve"]:
        from jobqueue.server.signals import hold

        hold()  # the rest of the start takes a moment
    from jobqueue.cli.main import main as run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
