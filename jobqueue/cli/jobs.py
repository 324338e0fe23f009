"""`jobqueue cancel`, `retry`, `run-now`, `move` and `purge`: jobs by id, or in bulk after a dry run."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any, Final

from jobqueue.cli.arguments import (
    FILTERS,
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
from jobqueue.cli.exit_status import REFUSED
from jobqueue.cli.output import asks, put, say
from jobqueue.cli.session import Session
from jobqueue.client.models import BulkResult
from jobqueue.standard_streams import complain

# -- one job ----------------------------------------------------------------------------------------


def cancel(session: Session, id: int, force: bool) -> None:
    """Cancels a job, and prints it."""
    job = session.client.jobs.cancel(id, force=force)
    session.show()
    if job.status == "in_progress":
        say(f"job {id}: its consumer is asked to stop; --force takes the job away from it")


def retry(session: Session, id: int) -> None:
    """Puts a dead job back to work, and prints it."""
    session.client.jobs.redrive(id)
    session.show()


def run_now(session: Session, id: int) -> None:
    """Makes a scheduled job ready, and prints it."""
    session.client.jobs.change(id, delay=0)
    session.show()


# -- commands ---------------------------------------------------------------------------------------


def _declare_bulk(parser: Parser) -> None:
    add = parser.add_argument
    add("-q", "--queue", metavar="QUEUE", help="all jobs of this queue that match the filters")
    add("--all", action="store_true", help="instead of filters")
    add("--dry-run", action="store_true", help="only say what would be done")
    add("-y", "--yes", action="store_true", help="do not ask")
    add_filters(parser)
    add_output(parser)
    add_connection(parser)


def _declare_limited(parser: Parser) -> None:
    parser.add_argument("--limit", type=whole_number, metavar="N", help="at most this many jobs")
    _declare_bulk(parser)


def _declare_ids(parser: Parser) -> None:
    command = parser.prog
    parser.usage = f"{command} ID [ID …]\n       {command} -q QUEUE --all|FILTERS [--dry-run] [--yes]"
    parser.add_argument("ids", nargs="*", type=whole_number, metavar="ID", help="ids of jobs")
    _declare_limited(parser)


def _declare_cancel(parser: Parser) -> None:
    parser.add_argument("--force", action="store_true", help="also take jobs away from their consumers")
    _declare_ids(parser)


def _cancel(given: Namespace) -> int:
    def bulk(session: Session, asked: dict[str, Any]) -> BulkResult:
        return session.client.queues.cancel(given.queue, force=given.force, limit=given.limit, **asked)

    def one(session: Session, id: int) -> None:
        cancel(session, id, given.force)

    # Those in progress are asked to stop, unless --force takes them away.
    asks_consumers = not given.force and "in_progress" in (given.status or "")
    return _by_id_or_bulk(given, one, "cancelled or asked to stop" if asks_consumers else "cancelled", bulk)


def _retry(given: Namespace) -> int:
    def bulk(session: Session, asked: dict[str, Any]) -> BulkResult:
        return session.client.queues.redrive(given.queue, limit=given.limit, **asked)

    return _by_id_or_bulk(given, retry, "put back to work", bulk)


def _run_now(given: Namespace) -> int:
    def bulk(session: Session, asked: dict[str, Any]) -> BulkResult:
        return session.client.queues.run_now(given.queue, limit=given.limit, **asked)

    return _by_id_or_bulk(given, run_now, "made ready", bulk)


def _declare_move(parser: Parser) -> None:
    parser.usage = (
        "jobqueue move -q QUEUE --to QUEUE --all|FILTERS [--dry-run] [--yes]\n"
        "       jobqueue move -q QUEUE --back --all|FILTERS [--dry-run] [--yes]"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--to", metavar="QUEUE", help="the queue that gets the jobs")
    where.add_argument("--back", action="store_true", help="each job to the queue in which it died")
    _declare_limited(parser)


def _move(given: Namespace) -> int:
    if given.to is None and not given.back:
        raise UsageError("give --to QUEUE, or --back for jobs of a dead-letter queue")

    def bulk(session: Session, asked: dict[str, Any]) -> BulkResult:
        return session.client.queues.move(given.queue, given.to, back=given.back, limit=given.limit, **asked)

    return _bulk(given, "moved", bulk)


def _purge(given: Namespace) -> int:
    def bulk(session: Session, asked: dict[str, Any]) -> BulkResult:
        return session.client.queues.purge(given.queue, **asked)

    return _bulk(given, "removed", bulk)


# -- in bulk ----------------------------------------------------------------------------------------

# Makes a call on the jobs of a queue. Its arguments are `all`, `dry_run` and the filters.
_Call = Callable[[Session, dict[str, Any]], BulkResult]


def _by_id_or_bulk(given: Namespace, one: Callable[[Session, int], None], done: str, call: _Call) -> int:
    """Calls `one` with each id that was given, or `call` if there is none."""
    if not given.ids and given.queue is None:
        raise UsageError("give ids of jobs, or -q QUEUE and filters")
    if not given.ids:
        return _bulk(given, done, call)
    for name in ("queue", "all", "dry_run", "limit", *FILTERS):
        if is_given(given, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"give ids, or -q QUEUE and filters, not both; {option} is for the second")
    with Session(given) as session:
        for id in given.ids:
            one(session, id)
    return 0


def _bulk(given: Namespace, done: str, call: _Call) -> int:
    """Shows what a call would do, asks, and makes it. `done`: what becomes of the jobs."""
    if given.queue is None:
        raise UsageError("give -q QUEUE")
    if given.all == bool(filters(given)):
        raise UsageError("give filters, such as --status dead or --older-than 1d, or --all, not both")
    asked = {"all": given.all, **filters(given)}
    with Session(given) as session:
        if given.dry_run:
            found = call(session, {**asked, "dry_run": True})
            _report(session, f"{_jobs(found)} would be {done}", found)
            return 0
        if not given.yes:
            found = call(session, {**asked, "dry_run": True})
            if not found.matched:
                _report(session, f"no jobs to be {done}", found)
                return 0
            complain(f"{_jobs(found)} would be {done}")
            if not asks():
                raise UsageError("nothing was changed: add --yes to do it")
            complain(f"type {found.matched} to do it:")
            if sys.stdin.readline().strip().replace(",", "") != str(found.matched):
                say("nothing was changed")
                return REFUSED
        found = call(session, asked)
        _report(session, f"{_number(found.changed)} {done}", found)
    return 0


def _jobs(found: BulkResult) -> str:
    """Describes the jobs of a dry run."""
    some = ", ".join(map(str, found.sample[:5]))
    return _number(found.matched) + (f", such as {some}," if some else "")


def _number(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"


def _report(session: Session, text: str, found: BulkResult) -> None:
    if session.table:
        put(f"{text}\n")
    else:
        session.show()


CANCEL: Final = Verb(_declare_cancel, _cancel)
RETRY: Final = Verb(_declare_ids, _retry)
RUN_NOW: Final = Verb(_declare_ids, _run_now)
MOVE: Final = Verb(_declare_move, _move)
PURGE: Final = Verb(_declare_bulk, _purge)
