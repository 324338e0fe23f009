"""`jobqueue jobs`, `queues` and `openapi`: what is there."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, Final

import msgspec

from jobqueue.cli.arguments import (
    Parser,
    UsageError,
    add_connection,
    add_filters,
    add_output,
    filters,
    is_given,
    whole_number,
)
from jobqueue.cli.commands import Verb
from jobqueue.cli.output import put, put_lines, say
from jobqueue.cli.session import Session

# Jobs asked for at a time, and rows that a terminal gets unless --limit says otherwise.
_PAGE: Final = 1000
_ROWS: Final = 100


def _declare_jobs(parser: Parser) -> None:
    add = parser.add_argument
    add("-q", "--queue", metavar="A,B", help="jobs of these queues")
    add(
        "--limit", type=whole_number, metavar="N",
        help="at most this many jobs (a terminal: 100; a pipe: all)",
    )  # fmt: skip
    add("--newest", action="store_true", help="the newest first")
    add("--payload", action="store_true", help="with their payloads")
    add("--count", action="store_true", help="only how many there are")
    add_filters(parser)
    add_output(parser)
    add_connection(parser)


def _jobs(given: Namespace) -> int:
    asked: dict[str, Any] = {"queue": given.queue, **filters(given)}
    with Session(given) as session:
        if given.count:
            _refuse(given, "--count", "limit", "newest", "payload")
            count = session.client.jobs.count(**asked)
            put(session.last.body if given.json else f"{count}\n")
            return 0
        left = given.limit if given.limit is not None else _ROWS if session.table else None
        asked |= {"order": "desc" if given.newest else "asc", "payload": given.payload}
        cursor: str | None = None
        found: list[msgspec.Raw] = []
        while left is None or left > 0:
            limit = _PAGE if left is None else min(left, _PAGE)
            cursor = session.client.jobs.list(limit=limit, cursor=cursor, **asked).next
            page = session.items("jobs")
            left = None if left is None else left - len(page)
            if session.table:
                found += page
            else:
                put_lines(page)
            if cursor is None:
                break
        if session.table:
            from jobqueue.web.writers import text_tables

            put(text_tables.jobs(msgspec.json.encode({"jobs": found})))
            if cursor is not None:
                say("there may be more: --limit N shows more of them, --count counts them")
    return 0


def _refuse(given: Namespace, of: str, *names: str) -> None:
    """Raises `UsageError` for options that would have no effect."""
    for name in names:
        if is_given(given, name):
            raise UsageError(f"give --{name} or {of}, not both")


def _declare_queues(parser: Parser) -> None:
    parser.add_argument("queue", nargs="?", metavar="QUEUE", help="only this one, with its settings")
    parser.add_argument("--series", action="store_true", help="what happened in it in the last hours")
    parser.add_argument("--for", dest="for_", metavar="TIME", help="of --series: how much (1h; at most 6h)")
    parser.add_argument("--step", metavar="TIME", help="of --series: a multiple of 10s (1m)")
    parser.add_argument("--names", action="store_true", help="names only, one a line")
    add_output(parser)
    add_connection(parser)


def _queues(given: Namespace) -> int:
    if given.series and given.queue is None:
        raise UsageError("--series needs the name of a queue")
    if not given.series and (given.for_ or given.step):
        raise UsageError("--for and --step belong to --series")
    with Session(given) as session:
        if given.queue is not None:
            _refuse(given, "the name of a queue", "names")
            if given.series:
                session.client.queues.series(given.queue, for_=given.for_, step=given.step)
                if session.table:
                    from jobqueue.web.writers import text_tables

                    put(text_tables.series(session.last.body))
                else:
                    session.show()
                return 0
            session.client.queues.get(given.queue)
            session.show()
            return 0
        if given.names:
            for queue in session.client.queues.iterate():
                put(f"{queue.name}\n")
        else:
            session.put_pages("queues", lambda at: session.client.queues.list(cursor=at).next)
    return 0


def _declare_openapi(parser: Parser) -> None:
    add_connection(parser)


def _openapi(given: Namespace) -> int:
    given.json, given.text = True, False
    with Session(given) as session:
        session.client.server.openapi()
        session.show()
    return 0


JOBS: Final = Verb(_declare_jobs, _jobs)
QUEUES: Final = Verb(_declare_queues, _queues)
OPENAPI: Final = Verb(_declare_openapi, _openapi)
