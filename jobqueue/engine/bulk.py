"""BulkOperation: one pass over many jobs, in slices, so that the event loop is never blocked for long."""

import asyncio
from asyncio import Future
from collections.abc import Callable
from typing import TypeVar

from jobqueue.core.queue import JobQueue
from jobqueue.engine.api import MaybeFuture, refuse
from jobqueue.errors import JobQueueError
from jobqueue.model import BulkResult, Filter, Job

T = TypeVar("T")
# Limits of one slice: jobs examined, and jobs matched.
EXAMINED = 5000
_MATCHED = 300
_SAMPLE = 10  # ids in the result


class BulkOperation:
    """Calls `act(job, now)` for each job that matches `where`, for at most `limit` jobs. Jobs that are
    created after the start are left out. Without `act` matching jobs are only counted. The operation ends at
    the first job that `act` refuses with a `JobQueueError`."""

    def __init__(
        self,
        queue: JobQueue,
        where: Filter,
        act: Callable[[Job, int], object] | None,
        limit: int | None,
        now: Callable[[], int],
    ) -> None:
        self._queue = queue
        self._where = where
        self._act = act
        self._jobs_left = limit
        self._now = now
        self._after: int = 0  # the last id examined
        self._last_id = queue.state.last_number
        self._result = BulkResult(0, 0, [])

    def run(self, convert: Callable[[BulkResult], T]) -> MaybeFuture[T]:
        """Returns `convert(result)`: at once if one slice is enough, otherwise as a Future, with one slice in
        each pass of the loop. Cancelling the Future stops the operation."""
        if self._run_slice():
            return convert(self._result)
        loop = asyncio.get_running_loop()
        future: Future[T] = loop.create_future()

        def proceed() -> None:
            if future.cancelled():
                return
            try:
                if self._run_slice():
                    future.set_result(convert(self._result))
                else:
                    loop.call_soon(proceed)
            except Exception as bug:
                refuse(future, bug)

        loop.call_soon(proceed)
        return future

    def _run_slice(self) -> bool:
        """True if the operation is complete."""
        limit = _MATCHED if self._jobs_left is None else min(self._jobs_left, _MATCHED)
        now = self._now()
        jobs, after = self._queue.scan(self._where, self._after, True, now, limit, EXAMINED)
        matched, changed, sample, refused = self._result
        for job in jobs:
            if job.id > self._last_id:
                after = None
                break
            if self._queue.state.find(job.id) is None:
                continue  # forgotten, to make room for one that was cancelled in this slice
            matched += 1
            if len(sample) < _SAMPLE:
                sample.append(job.id)
            if self._act is not None:
                try:
                    self._act(job, now)
                except JobQueueError as error:
                    refused, after = error, None
                    break
                changed += 1
        if changed:
            self._queue.match(now)
        self._result = BulkResult(matched, changed, sample, refused)
        if self._jobs_left is not None:
            self._jobs_left -= len(jobs)
        self._after = after or 0
        return after is None or after >= self._last_id or self._jobs_left == 0
