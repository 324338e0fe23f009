"""`python -m jobqueue` serves; settings come from the environment."""

import json
import os
import re
import signal
import sys

from jobqueue.settings import PREFIX, Settings
from jobqueue.version import VERSION


def main() -> int:
    """The exit status; see `jobqueue.server.program.main`."""
    arguments = sys.argv[1:]
    if arguments:  # it prints, into `head` perhaps
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if arguments in (["-h"], ["--help"]):
        print(_help())
        return 0
    if arguments in (["-V"], ["--version"]):
        print(f"jobqueue {VERSION}")
        return 0
    if arguments[:1] == ["token"]:
        return _token(arguments[1:])
    if arguments[:1] == ["journal"]:
        from jobqueue.server.journal_tool import main as look_after

        return look_after(arguments[1:], os.environ)
    if arguments:
        print(
            f"jobqueue: serves without arguments, settings are in the environment; not {arguments[0]}",
            file=sys.stderr,
        )
        return 2
    from jobqueue.server.program import main as serve

    return serve(os.environ)


def _token(arguments: list[str]) -> int:
    """`token`: prints a new one. `token NAME [RIGHT,…] [QUEUE,…]`: prints its lines for a file of tokens; the
    token itself goes to stderr."""
    from jobqueue.web.access.tokens import RIGHTS, digest_of, make_token

    token = make_token()
    if not arguments:
        print(token)
        return 0
    name, rights, queues = [*arguments, "", ""][:3]
    wanted = rights.split(",") if rights else list(RIGHTS[:3])
    if (
        len(arguments) > 3
        or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name)
        or not set(wanted) <= {*RIGHTS}
    ):
        wrong = f"; {min(bad)!r} is none" if (bad := {*wanted} - {*RIGHTS}) else ""
        print(f"usage: token [NAME [RIGHTS [QUEUES]]]; rights: {','.join(RIGHTS)}{wrong}", file=sys.stderr)
        return 2
    print(f'["{name}"]\ndigest = "{digest_of(token)}"\nrights = {json.dumps(wanted)}')
    if queues:
        print(f"queues = {json.dumps(queues.split(','))}")
    print(f"the token of {name}, shown once: {token}", file=sys.stderr)
    return 0


def _help() -> str:
    lines = [
        f"jobqueue {VERSION}: a job queue over HTTP. Without arguments it serves.", "",
        "  token [NAME [RIGHTS [QUEUES]]]              makes an access token",
        "  journal verify|repair|dump|backup FILE      looks after the journal in JOBQUEUE_DATA", "",
        "Settings, from the environment:", "",
    ]  # fmt: skip
    for name, setting in Settings.declared.items():
        default = "" if setting.default is None else f" [{setting.default}]".replace("False", "false")
        lines.append(f"  {PREFIX + name.upper():27} {setting.meaning}{default}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
