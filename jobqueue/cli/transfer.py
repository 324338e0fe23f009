"""`jobqueue export` and `import`: jobs as lines, to keep them or to move them."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Final

import msgspec

from jobqueue.cli.arguments import Parser, add_connection, add_filters, add_output, filters
from jobqueue.cli.commands import Verb
from jobqueue.cli.output import put, say
from jobqueue.cli.session import Session
from jobqueue.errors import JobQueueError


def _declare_export(parser: Parser) -> None:
    parser.add_argument("queue", metavar="QUEUE", help="name of the queue; nothing is removed from it")
    add_filters(parser)
    add_connection(parser)


def _export(given: Namespace) -> int:
    given.json, given.text = True, False
    with Session(given) as session, session.client.queues.export(given.queue, **filters(given)) as lines:
        for line in lines:
            put(line + b"\n")
    return 0


def _declare_import(parser: Parser) -> None:
    parser.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="exported lines (standard input)"
    )
    add_output(parser)
    add_connection(parser)


def _import(given: Namespace) -> int:
    with Session(given) as session:
        try:
            if given.file == "-":
                done = session.client.queues.import_jobs(sys.stdin.buffer)
            else:
                with open(given.file, "rb") as file:
                    done = session.client.queues.import_jobs(file)
        except JobQueueError as error:
            if "line" in error.facts:
                say(f"line {error.facts['line']} was refused; the lines before it were imported")
            raise
        if session.table:
            put(f"imported {done.imported:,}, known before {done.known:,}\n")
        else:
            put(msgspec.json.encode(done) + b"\n")
    return 0


EXPORT: Final = Verb(_declare_export, _export)
IMPORT: Final = Verb(_declare_import, _import)
