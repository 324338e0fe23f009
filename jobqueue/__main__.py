"""`python -m jobqueue`: starts the server, makes access tokens, maintains the journal."""

import json
import os
import signal
import sys

from jobqueue.settings import PREFIX, Settings
from jobqueue.version import VERSION


def main() -> int:
    """Runs the command on the command line. Returns its exit status."""
    arguments = sys.argv[1:]
    if arguments:  # these commands print, and their reader may stop early (`| head`)
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
        from jobqueue.server.journal_cli import main as maintain

        return maintain(arguments[1:], os.environ)
    if arguments:
        print(
            f"jobqueue: unknown argument {arguments[0]}; without arguments it serves, --help shows what else",
            file=sys.stderr,
        )
        return 2
    from jobqueue.server.main import main as serve

    return serve(os.environ)


def _token(arguments: list[str]) -> int:
    """Makes an access token. Without arguments prints it. With a name, and comma-separated rights and
    queues if wanted, prints its lines for the tokens file on stdout, and the token itself on stderr."""
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
            raise ValueError("give a name, then rights, then queues; several are separated by commas")
        token_of(name, table, {DEFAULT_TOKEN})
    except ValueError as bad:
        print(f"usage: token [NAME [RIGHTS [QUEUES]]]: {bad}", file=sys.stderr)
        return 2
    print(f'["{name}"]')
    for field, value in table.items():
        print(f"{field} = {json.dumps(value)}")
    print(f"access token of {name}, shown only once: {token}", file=sys.stderr)
    return 0


def _help() -> str:
    lines = [
        f"jobqueue {VERSION}: a job queue with an HTTP API", "",
        "Usage:", "",
        "  python -m jobqueue                           start the server",
        "  python -m jobqueue token [NAME [RIGHTS [QUEUES]]]",
        "                                               make an access token",
        "  python -m jobqueue journal verify|repair|dump|backup FILE",
        "                                               maintain the journal in JOBQUEUE_DATA", "",
        "Settings (environment variables), with their defaults in brackets:", "",
    ]  # fmt: skip
    for name, setting in Settings.declared.items():
        default = "" if setting.default is None else f" [{setting.default}]".replace("False", "false")
        lines.append(f"  {PREFIX + name.upper():27} {setting.meaning}{default}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
