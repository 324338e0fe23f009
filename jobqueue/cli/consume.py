"""`jobqueue dequeue`, `conclude`, `fail` and `release`: a consumer by hand, or in a script."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Final

from msgspec import UNSET

from jobqueue.cli.arguments import Parser, add_connection, add_output, json_of, whole_number
from jobqueue.cli.commands import Verb
from jobqueue.cli.exit_status import NOTHING
from jobqueue.cli.output import say
from jobqueue.cli.session import Session


def _declare_dequeue(parser: Parser) -> None:
    add = parser.add_argument
    add("-q", "--queues", default="default", metavar="A,B", help="queues, the first one first (default)")
    add("--order", choices=("queues", "priority"), default="queues", help="priority: of any of the queues")
    add("-w", "--wait", default="0s", metavar="TIME", help="wait for a job, up to 60s (0s)")
    add("-l", "--lease-for", metavar="TIME", help="how long the job is yours (5m)")
    add("-n", "--name", metavar="NAME", help="name of the consumer")
    add_output(parser)
    add_connection(parser)


def _dequeue(given: Namespace) -> int:
    with Session(given) as session:
        job = session.client.jobs.dequeue(
            given.queues, order=given.order, wait=given.wait, lease_for=given.lease_for, consumer=given.name
        )
        if job is None:
            why = session.last.header("queue-state") or "empty"
            say(f"no job: {given.queues} is {why}" + ("" if given.wait == "0s" else f" after {given.wait}"))
            return NOTHING
        session.show()
    return 0


def _declare_held(parser: Parser) -> None:
    parser.add_argument("id", type=whole_number, metavar="ID", help="id of the job")
    parser.add_argument("--lease", metavar="LEASE", help="the lease that came with the job")
    parser.add_argument("-n", "--name", metavar="NAME", help="name of the consumer, if there is no lease")


def _declare_conclude(parser: Parser) -> None:
    _declare_held(parser)
    parser.add_argument("--result", metavar="JSON", help="result of the job; -: from standard input")
    add_output(parser)
    add_connection(parser)


def _conclude(given: Namespace) -> int:
    result = sys.stdin.buffer.read() if given.result == "-" else given.result
    with Session(given) as session:
        session.client.jobs.conclude(
            given.id, UNSET if result is None else json_of(result), lease=given.lease, consumer=given.name
        )
        session.show()
    return 0


def _declare_fail(parser: Parser) -> None:
    _declare_held(parser)
    parser.add_argument("--error", metavar="TEXT", help="what went wrong")
    parser.add_argument("--no-retry", action="store_true", help="dead at once")
    parser.add_argument("--retry-in", metavar="TIME", help="try again after this")
    add_output(parser)
    add_connection(parser)


def _fail(given: Namespace) -> int:
    with Session(given) as session:
        session.client.jobs.fail(
            given.id, given.error, retry=not given.no_retry, retry_in=given.retry_in,
            lease=given.lease, consumer=given.name,
        )  # fmt: skip
        session.show()
    return 0


def _declare_release(parser: Parser) -> None:
    _declare_held(parser)
    parser.add_argument("--delay", default="0s", metavar="TIME", help="not before this (0s)")
    parser.add_argument("--priority", type=whole_number, metavar="N", help="another priority of the job")
    add_output(parser)
    add_connection(parser)


def _release(given: Namespace) -> int:
    with Session(given) as session:
        session.client.jobs.release(
            given.id, delay=given.delay, priority=given.priority, lease=given.lease, consumer=given.name
        )
        session.show()
    return 0


DEQUEUE: Final = Verb(_declare_dequeue, _dequeue)
CONCLUDE: Final = Verb(_declare_conclude, _conclude)
FAIL: Final = Verb(_declare_fail, _fail)
RELEASE: Final = Verb(_declare_release, _release)
