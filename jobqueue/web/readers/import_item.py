"""Import items: the history of a job that another queue exported."""

from collections.abc import Callable
from typing import Final

from msgspec import UNSET

from jobqueue.errors import InvalidField
from jobqueue.model import Attempt, ImportedHistory, ImportItem, JobTrace, NewJob, Options
from jobqueue.steps import CANCELLED, CONCLUDED, DEAD, IN_PROGRESS, STATUSES, Status, Step
from jobqueue.web.readers.decoder import RequestDecoder
from jobqueue.web.readers.job_error import optional_error
from jobqueue.web.schema import requests

# What an export has unless other statuses are asked for, and an import takes: work to do, and what failed.
MOVABLE: Final[frozenset[Status]] = frozenset(STATUSES) - {CONCLUDED, CANCELLED}
_REPORTS = ("reason", "dead_from", "error", "progress", "message")
_STEPS: dict[str, Step] = {
    "concluded": "conclude", "failed": "fail", "stale": "stale", "released": "release", "cancelled": "cancel",
}  # fmt: skip
_attempts = RequestDecoder(requests.AttemptShape)


def import_item(
    call: RequestDecoder[requests.ImportShape],
    asked: requests.ImportShape,
    new: NewJob,
    max_depth: int,
    wall: Callable[[], int],
) -> ImportItem:
    """Returns the item of an exported job. One that was leased becomes queued. Raises `BadInput`.

    `call` has the kinds of the fields.
    """
    if asked.status is not None and asked.status not in MOVABLE:
        raise InvalidField(
            f"status: what is {asked.status[:40]} is not imported; of {', '.join(sorted(MOVABLE))}",
            field="status",
        )
    if asked.expires_at is not None:
        new.options = new.options or Options()
        new.options.expires_at = call.value(asked, "expires_at")
    now = wall()
    created = now if asked.created_at is None else call.value(asked, "created_at")
    died = None
    if asked.status == DEAD:
        died = now if asked.finished_at is None else call.value(asked, "finished_at")
    attempts, leases = call.values(asked, "attempts", "leases")
    trace = _trace(call, asked, max_depth)
    last = _last_attempt(call, asked, trace, now)
    known = trace.history or any(getattr(trace, name) is not None for name in _REPORTS)
    past = ImportedHistory(min(created, now), attempts, leases, trace if known else None, died, last)
    return ImportItem(new, past, call.value(asked, "origin"))


def _trace(
    call: RequestDecoder[requests.ImportShape], asked: requests.ImportShape, max_depth: int
) -> JobTrace:
    history = call.value(asked, "history") or ()
    trace = JobTrace(reason=asked.reason, error=optional_error(bytes(asked.error), max_depth)[0])
    if asked.dead_from is not None:
        trace.dead_from = call.parts["dead_from"].value(asked.dead_from, "queue", "dead_from")
        trace.dead_from_reason = asked.dead_from.reason
    trace.history = tuple(_attempt(line, max_depth) for line in history)
    trace.progress, trace.message = call.values(asked, "progress", "message")
    return trace


def _attempt(line: requests.AttemptShape, max_depth: int) -> Attempt:
    names = ("attempt", "consumer", "started_at", "ended_at")
    number, consumer, started_at, ended_at = _attempts.values(line, *names, field="history")
    error = None if line.error is UNSET else optional_error(bytes(line.error), max_depth)[0]
    return Attempt(number, consumer, started_at, ended_at, _STEPS[line.outcome], error, line.reason)


def _last_attempt(
    call: RequestDecoder[requests.ImportShape], asked: requests.ImportShape, trace: JobTrace, now: int
) -> Attempt | None:
    """Returns the last lease, by `started_at` and `consumer`; None if the job was never leased.

    It is the last line of the history, from which it is then removed, since a job keeps its last lease apart.
    A job that was running has no such line: its lease ends now.
    """
    consumer, started = call.values(asked, "consumer", "started_at")
    if started is None:
        return None
    line = trace.history[-1] if trace.history else None
    if line is None or asked.status == IN_PROGRESS or (line.started_at, line.consumer) != (started, consumer):
        return Attempt(asked.attempts, consumer, started, now, "stale", None)
    trace.history = trace.history[:-1]
    trace.error = line.error or trace.error  # the error of a last lease that failed is that of the job
    return line
