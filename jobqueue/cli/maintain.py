"""`jobqueue token` and `jobqueue journal`: the server's own tools, on its own machine."""

from __future__ import annotations

import json
import os
import signal
import sys
from argparse import Namespace
from typing import Final

from jobqueue.cli.arguments import Parser, UsageError
from jobqueue.cli.commands import Verb


def _plain_pipe() -> None:
    """Lets the process end as others do when the reader of its output stops early."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _declare_token(parser: Parser) -> None:
    parser.description = (
        "Make an access token. Without a name, print it: it is for JOBQUEUE_ACCESS_TOKEN. With a name, print "
        "its lines for the tokens file, and the token itself on standard error."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the token")
    parser.add_argument("rights", nargs="?", metavar="RIGHTS", help="such as enqueue,read")
    parser.add_argument("queues", nargs="?", metavar="QUEUES", help="such as 'mail,mail-*' (all)")
    parser.add_argument(
        "--sqs",
        action="store_true",
        help="with a secret for AWS SDKs; NAME is their access key id, and the secret stays in the file",
    )


def _token(given: Namespace) -> int:
    from jobqueue.web.access.identity import DEFAULT_TOKEN
    from jobqueue.web.access.tokens import RIGHTS, digest_of, make_sqs_secret, make_token, token_of

    _plain_pipe()
    token = make_token()
    if given.name is None:
        if given.sqs:
            raise UsageError("token --sqs NAME [RIGHTS [QUEUES]]: a secret for AWS SDKs belongs to a name")
        print(token)
        return 0
    table: dict[str, object] = {
        "digest": digest_of(token),
        "rights": given.rights.split(",") if given.rights else list(RIGHTS[:3]),
    }
    if given.queues:
        table["queues"] = given.queues.split(",")
    if given.sqs:
        table["sqs_secret"] = make_sqs_secret()
    try:
        token_of(given.name, table, {DEFAULT_TOKEN})
    except ValueError as bad:
        raise UsageError(f"token [NAME [RIGHTS [QUEUES]]]: {bad}") from None
    print(f'["{given.name}"]')
    for field, value in table.items():
        print(f"{field} = {json.dumps(value)}")
    # Not by `say`: if nobody can read the token, that must be an error.
    print(f"access token of {given.name}, shown only once: {token}", file=sys.stderr)
    if given.sqs:
        print(
            f"for AWS SDKs: AWS_ACCESS_KEY_ID={given.name} AWS_SECRET_ACCESS_KEY={table['sqs_secret']}",
            file=sys.stderr,
        )
    return 0


TOKEN: Final = Verb(_declare_token, _token)


def _declare_journal(parser: Parser) -> None:
    parser.usage = (
        "jobqueue journal verify|repair|backup FILE [--data FOLDER]\n"
        "       jobqueue journal dump [schedules] [--data FOLDER]"
    )
    parser.add_argument("--data", metavar="FOLDER", help="folder of the journal (JOBQUEUE_DATA)")
    parser.add_argument(
        "arguments", nargs="*", metavar="COMMAND", help="verify, repair, dump, or backup FILE"
    )


def _journal(given: Namespace) -> int:
    from jobqueue.server.journal_cli import main

    _plain_pipe()
    environ = dict(os.environ)
    if given.data is not None:
        environ["JOBQUEUE_DATA"] = given.data
    return main(given.arguments, environ)


JOURNAL: Final = Verb(_declare_journal, _journal)


def _declare_migrate(parser: Parser) -> None:
    parser.description = (
        "Copy a whole journal, with ids, leases, settings and schedules, from a folder to an empty "
        "PostgreSQL database, or from a database to an empty folder or database. Stop the servers first. The "
        "source stays as it is."
    )
    parser.add_argument("source", metavar="FROM", help="where it is: as JOBQUEUE_DATA")
    parser.add_argument("target", metavar="TO", help="where it is to be: as JOBQUEUE_DATA")
    parser.add_argument(
        "--shards",
        metavar="N",
        help="number of shards of a database that is created by it (JOBQUEUE_SHARDS; else 1)",
    )


def _migrate(given: Namespace) -> int:
    from jobqueue.server.migrate_cli import main
    from jobqueue.settings import is_database

    shards = given.shards
    if shards is None and is_database(given.target):
        shards = os.environ.get("JOBQUEUE_SHARDS")
    return main(given.source, given.target, shards)


MIGRATE: Final = Verb(_declare_migrate, _migrate)
