"""`python -m jobqueue` serves; settings come from the environment."""

import os
import sys

from jobqueue.settings import PREFIX, Settings
from jobqueue.version import VERSION


def main() -> int:
    """The exit status; see `jobqueue.server.program.main`."""
    arguments = sys.argv[1:]
    if arguments in (["-h"], ["--help"]):
        print(_help())
        return 0
    if arguments in (["-V"], ["--version"]):
        print(f"jobqueue {VERSION}")
        return 0
    if arguments:
        print(
            f"jobqueue: takes no arguments, settings are in the environment; not {arguments[0]}",
            file=sys.stderr,
        )
        return 2
    from jobqueue.server.program import main as serve

    return serve(os.environ)


def _help() -> str:
    lines = [f"jobqueue {VERSION}: a job queue over HTTP. Settings, from the environment:", ""]
    for name, setting in Settings.declared.items():
        default = "" if setting.default is None else f" [{setting.default}]"
        lines.append(f"  {PREFIX + name.upper():27} {setting.meaning}{default}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
