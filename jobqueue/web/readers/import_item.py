"""Import items: the history of a job that another queue exported."""

from collections.abc import Callable
from typing import Final

from msgspec import UNSET

from jobqueue.errors import InvalidField
from jobqueue.model import Attempt, ImportedHistory, ImportItem, JobTrace, NewJob, Options
from jobqueue.steps import CANCELLED, CONCLUDED, DEAD, STATUSES, Status, Step
from jobqueue.units import parse_instant
from jobqueue.web.readers import fields
from jobqueue.web.readers.job_error import optional_error
from jobqueue.web.schema import requests

# What an export has unless other statuses are asked for, and an import takes: work to do, and what failed.
MOVABLE: Final[frozenset[Status]] = frozenset(STATUSES) - {CONCLUDED, CANCELLED}
_HISTORY = 20
_MOST = 2**31 - 1
_STEPS: dict[str, Step] = {
    "concluded": "conclude", "failed": "fail", "stale": "stale", "released": "release", "cancelled": "cancel",
}  # fmt: skip


def import_item(
    asked: requests.ImportShape, new: NewJob, max_depth: int, wall: Callable[[], int]
) -> ImportItem:
    """Returns the item of an exported job. One that was leased becomes queued. Raises `BadInput`."""
    if asked.status is not None and asked.status not in MOVABLE:
        raise InvalidField(
            f"status: what is {asked.status[:40]} is not imported; of {', '.join(sorted(MOVABLE))}",
            field="status",
        )
    if asked.expires_at is not None:
        new.options = new.options or Options()
        new.options.expires_at = _instant(asked.expires_at, "expires_at")
    created = wall() if asked.created_at is None else _instant(asked.created_at, "created_at")
    died = None
    if asked.status == DEAD:
        died = wall() if asked.finished_at is None else _instant(asked.finished_at, "finished_at")
    past = ImportedHistory(
        min(created, wall()), fields.whole(asked.attempts, "attempts", 0, _MOST),
        fields.whole(asked.leases, "leases", 0, _MOST), _trace(asked, max_depth), died,
    )  # fmt: skip
    origin = None if asked.origin is None else fields.label(asked.origin, "origin", 128)
    return ImportItem(new, past, origin)


def _trace(asked: requests.ImportShape, max_depth: int) -> JobTrace | None:
    if len(history := asked.history or ()) > _HISTORY:
        raise InvalidField(f"history: at most {_HISTORY} attempts", field="history", limit=_HISTORY)
    trace = JobTrace(reason=asked.reason, error=optional_error(bytes(asked.error), max_depth))
    if asked.dead_from is not None:
        trace.dead_from = fields.queue_name(asked.dead_from.queue, "dead_from")
        trace.dead_from_reason = asked.dead_from.reason
    trace.history = tuple(
        Attempt(
            fields.whole(line.attempt, "history", 0, _MOST),
            None if line.consumer is None else fields.label(line.consumer, "history", 128),
            _instant(line.started_at, "history"),
            None if line.ended_at is None else _instant(line.ended_at, "history"),
            _STEPS[line.outcome],
            None if line.error is UNSET else optional_error(bytes(line.error), max_depth),
        )
        for line in history
    )
    known = trace.reason or trace.error or trace.history or trace.dead_from
    return trace if known else None


def _instant(text: str, field: str) -> int:
    try:
        return parse_instant(text)
    except InvalidField as bad:
        raise InvalidField(f"{field}: {bad.detail}", field=field) from None
