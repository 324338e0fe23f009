"""Sweep: one pass over many jobs, in slices, so that others have their turn."""

import asyncio
from asyncio import Future
from collections.abc import Callable
from typing import TypeVar

from jobqueue.core.queue import JobQueue
from jobqueue.engine.api import MaybeFuture
from jobqueue.model import BulkResult, Filter, Job

T = TypeVar("T")
# Jobs that one slice may examine, or change.
EXAMINED = 5000
_SWEPT = 300
_SAMPLE = 10


class BulkOperation:
    """One pass over the jobs there are now: does `act` to those that are `wanted`, up to `limit` of them."""

    def __init__(
        self,
        queue: JobQueue,
        wanted: Filter,
        act: Callable[[Job, int], object] | None,
        limit: int | None,
        now: Callable[[], int],
    ) -> None:
        self._queue = queue
        self._wanted = wanted
        self._act = act
        self._left = limit
        self._now = now
        self._after: int = 0
        self._last = queue.state.last_number
        self._result = BulkResult(0, 0, [])

    def run(self, render: Callable[[BulkResult], T]) -> MaybeFuture[T]:
        """What `render` makes of it: at once where one slice is enough, else a slice in each loop pass."""
        if self._slice():
            return render(self._result)
        loop = asyncio.get_running_loop()
        future: Future[T] = loop.create_future()

        def go_on() -> None:
            if future.cancelled():
                return
            try:
                if self._slice():
                    future.set_result(render(self._result))
                else:
                    loop.call_soon(go_on)
            except Exception as bug:
                future.set_exception(bug)

        loop.call_soon(go_on)
        return future

    def _slice(self) -> bool:
        """True when all is done."""
        most = _SWEPT if self._left is None else min(self._left, _SWEPT)
        now = self._now()
        jobs, after = self._queue.scan(self._wanted, self._after, True, now, most, EXAMINED)
        matched, changed, sample = self._result
        for job in jobs:
            if job.id > self._last:
                after = None
                break
            matched += 1
            if len(sample) < _SAMPLE:
                sample.append(job.id)
            if self._act is not None:
                self._act(job, now)
                changed += 1
        if changed:
            self._queue.match(now)
        self._result = BulkResult(matched, changed, sample)
        if self._left is not None:
            self._left -= len(jobs)
        self._after = after or 0
        return after is None or after >= self._last or self._left == 0
