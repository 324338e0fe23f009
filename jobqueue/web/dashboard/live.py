"""Tells an open page when to load its live parts again: server-sent events, at most one in each look.

A look compares a few counters, so an open page costs as much on a busy server as on an idle one; events of
single jobs (`/events`) would not. Pages that show the same share their looks.
"""

import time
from collections.abc import AsyncGenerator
from functools import partial

from jobqueue.errors import InvalidField, JobQueueError
from jobqueue.model import Schedule
from jobqueue.web.context import Context
from jobqueue.web.futures import reading
from jobqueue.web.http import EVENTS, Request, Stream
from jobqueue.web.operations.negotiation import MOST_QUEUES
from jobqueue.web.operations.replies import job_id, queue_of_path
from jobqueue.web.readers.decoder import query_pairs
from jobqueue.web.streams.flow import Wakeup

# Seconds between two looks, and after which a page is told even if no counter has changed: ages have.
LOOK = 0.5
AT_LEAST = 10.0
# About what a page costs, and each queue in it, in seconds. All looks, and all pages that are loaded again,
# take one part in so many of the time.
_PAGE, _ROW = 0.001, 0.0003
_SPARE = 40
# Looks that are shared; all are dropped when there are more.
_SHARED = 1000
_KINDS = ("job", "queue", "schedule", "list")
SCHEDULES, AUDIT, TOKENS = _LISTS = ("schedules", "audit", "tokens")
# Schedules that a look at their list compares. Of further ones a page is told after `AT_LEAST`.
_MOST_SCHEDULES = 1000
_HELLO = b"retry: 2000\n\n"
_CHANGED = b"event: changed\ndata:\n\n"


class Live:
    """All open pages of one server."""

    def __init__(self) -> None:
        # By caller and what is looked at: until when it is shared, and what was seen.
        self._seen: dict[tuple[str, str, str], tuple[float, int]] = {}
        self._open = 0

    def live(self, context: Context, request: Request) -> Stream:
        """Returns a stream for the page of a queue (`queue`), of a job (`job`), of a schedule (`schedule`),
        of a `list`, or of all queues."""
        asked = dict(query_pairs(request.query))
        kind, value = next(((one, asked[one]) for one in _KINDS if asked.get(one)), ("", ""))
        request.param = value
        if kind == "job":
            context.engine.get(job_id(value))  # the page of a job that does not exist is not kept up to date
        elif kind == "queue":
            queue_of_path(request)
            context.check_queue(value)
        elif kind == "schedule":
            context.engine.schedule(value)
        elif kind == "list" and value not in _LISTS:
            raise InvalidField(f"list: one of {', '.join(_LISTS)}", field="list")
        rest = Wakeup()
        return Stream(self._pieces(context, kind, value, rest), rest.end, rest.end, EVENTS)

    async def _pieces(
        self, context: Context, kind: str, value: str, rest: Wakeup
    ) -> AsyncGenerator[bytes, None]:
        engine, look = context.engine, partial(self._look, context, kind, value)
        cost = _PAGE + _ROW * await reading(engine, partial(_rows, context, kind, value))
        before, told = await reading(engine, look), time.monotonic()
        self._open += 1
        try:
            yield _HELLO
            while True:
                await rest.wait(LOOK)
                if rest.over:
                    return
                seen, now = await reading(engine, look), time.monotonic()
                due = seen != before and now - told >= self._open * cost * _SPARE
                if due or now - told >= max(AT_LEAST, self._open * cost * _SPARE):
                    before, told = seen, now
                    yield _CHANGED
        finally:
            self._open -= 1

    def _look(self, context: Context, kind: str, value: str) -> int:
        """Returns a number that is another one if what the page shows has changed."""
        key = (context.caller.name if context.caller is not None else "", kind, value)
        now = time.monotonic()
        shared = self._seen.get(key)
        if shared is not None and now < shared[0]:
            return shared[1]
        if len(self._seen) >= _SHARED:
            self._seen.clear()
        seen = _fingerprint(context, kind, value)
        after = time.monotonic()
        self._seen[key] = (after + max(LOOK / 2, (after - now) * _SPARE), seen)
        return seen


def _rows(context: Context, kind: str, value: str) -> int:
    """Returns about how many rows a page has that cost as much as one of a queue."""
    if not kind:
        return min(context.engine.stats().queues, MOST_QUEUES)
    return len(_schedules(context)) if value == SCHEDULES and kind == "list" else 1


def _schedules(context: Context) -> list[Schedule]:
    return context.engine.schedules(None, None, None, _MOST_SCHEDULES)


def _fingerprint(context: Context, kind: str, value: str) -> int:
    engine = context.engine
    if kind == "list":
        if value == SCHEDULES:
            return hash(tuple(map(_of_schedule, _schedules(context))))
        return context.server.audit.total if value == AUDIT else 0
    if kind == "schedule":
        try:
            return _of_schedule(engine.schedule(value))
        except JobQueueError:  # it was deleted
            return 0
    if kind == "queue":
        view = engine.queue(value)
        return hash((*view.totals.values(), *view.jobs.values(), view.version, view.consumers_waiting))
    if kind == "job":
        try:
            job = engine.get(int(value))
        except JobQueueError:  # it was forgotten, or moved to a queue that the caller may not use
            return 0
        lease = job.lease
        return hash((job.version, job.status, lease.token if lease is not None else ""))
    stats = engine.stats()
    return hash((*stats.totals.values(), *stats.jobs.values(), stats.queues, stats.consumers_waiting))


def _of_schedule(schedule: Schedule) -> int:
    last = schedule.history[-1] if schedule.history else None
    return hash((schedule.plan.name, schedule.version, schedule.next_at, schedule.blocked, last))
