"""`jobqueue pause`, `resume` and `set`: what is decided for a queue."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from jobqueue.cli.arguments import Parser, add_connection, add_output
from jobqueue.cli.changes import QUEUE_NAMES, changes_of_queue
from jobqueue.cli.commands import Verb
from jobqueue.cli.session import Session


def _declare_pause(parser: Parser) -> None:
    parser.add_argument("queue", metavar="QUEUE", help="name of the queue")
    parser.add_argument("--for", dest="for_", metavar="TIME", help="only so long, such as 10m")
    parser.add_argument("--reason", metavar="TEXT", help="shown with the queue")
    add_output(parser)
    add_connection(parser)


def _pause(given: Namespace) -> int:
    with Session(given) as session:
        session.client.queues.pause(given.queue, for_=given.for_, reason=given.reason)
        session.show()
    return 0


def _declare_resume(parser: Parser) -> None:
    parser.add_argument("queue", metavar="QUEUE", help="name of the queue")
    add_output(parser)
    add_connection(parser)


def _resume(given: Namespace) -> int:
    with Session(given) as session:
        session.client.queues.resume(given.queue)
        session.show()
    return 0


def _declare_set(parser: Parser) -> None:
    parser.epilog = (
        f"Names: {', '.join(QUEUE_NAMES)}. The value `default` is the default again; a rate is 100/1m."
    )
    parser.add_argument("queue", metavar="QUEUE", help="name of the queue")
    parser.add_argument(
        "changes", nargs="+", metavar="NAME=VALUE", help="such as max_in_progress=10 rate=100/1m"
    )
    add_output(parser)
    add_connection(parser)


def _set(given: Namespace) -> int:
    changes = changes_of_queue(given.changes)
    with Session(given) as session:
        session.client.queues.change(given.queue, **changes)
        session.show()
    return 0


PAUSE: Final = Verb(_declare_pause, _pause)
RESUME: Final = Verb(_declare_resume, _resume)
SET: Final = Verb(_declare_set, _set)
