"""`python -m jobqueue` serves; settings come from the environment."""

import json
import os
import signal
import sys

from jobqueue.settings import PREFIX, Settings
from jobqueue.version import VERSION


def main() -> int:
    """The exit status; see `jobqueue.server.main.main`."""
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
        from jobqueue.server.journal_cli import main as look_after

        return look_after(arguments[1:], os.environ)
    if arguments:
        print(
            f"jobqueue: serves without arguments, settings are in the environment; not {arguments[0]} "
            "(--help says more)",
            file=sys.stderr,
        )
        return 2
    from jobqueue.server.main import main as serve

    return serve(os.environ)


def _token(arguments: list[str]) -> int:
    """`token`: prints a new one. `token NAME [RIGHT,…] [QUEUE,…]`: prints its lines for a file of tokens; the
    token itself goes to stderr."""
    from jobqueue.web.access.identity import DEFAULT_TOKEN
    from jobqueue.web.access.tokens import RIGHTS, digest_of, make_token, token_of

    token = make_token()
    if not arguments:
        print(token)
        return 0
    name, rights, queues = [*arguments, "", ""][:3]
    table: dict[str, object] = {
        "digest": digest_of(token), "rights": rights.split(",") if rights else list(RIGHTS[:3])
    }  # fmt: skip
    if queues:
        table["queues"] = queues.split(",")
    try:
        if len(arguments) > 3 or name.startswith("-"):
            raise ValueError("a name, rights with commas between them, queues with commas between them")
        token_of(name, table, {DEFAULT_TOKEN})
    except ValueError as bad:
        print(f"usage: token [NAME [RIGHTS [QUEUES]]]: {bad}", file=sys.stderr)
        return 2
    print(f'["{name}"]')
    for field, value in table.items():
        print(f"{field} = {json.dumps(value)}")
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
