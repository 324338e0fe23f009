"""MoveTasks: the tasks that move messages out of dead-letter queues.

They are in memory only: a restart ends them, and they are not listed after it.
"""

import asyncio
from asyncio import Future
from functools import partial
from typing import Any, Final, Literal

from jobqueue.engine.api import EngineView
from jobqueue.errors import JobQueueError
from jobqueue.model import BulkResult, Filter
from jobqueue.steps import QUEUED, SCHEDULED
from jobqueue.web.access.identity import Principal
from jobqueue.web.context import Context
from jobqueue.web.sqs import queue_attributes
from jobqueue.web.sqs.errors import QUEUE_DOES_NOT_EXIST

Status = Literal["RUNNING", "COMPLETED", "CANCELLING", "CANCELLED", "FAILED"]
# Tasks that are listed for each queue, and queues with tasks that are remembered.
MOST_LISTED: Final = 10
_MOST_QUEUES = 1000
# Seconds between two steps of a task with a rate.
_STEP = 1.0


class MoveTask:
    """Moves what waits in the queue `source` to `target`, or without one back to where it died. With a `rate`
    at most so many messages a second, while the access token of the `caller` is valid. Times are
    milliseconds."""

    def __init__(
        self,
        handle: str,
        source: str,
        target: str | None,
        arns: tuple[str, str | None],
        rate: int | None,
        started: int,
        to_move: int,
        caller: Principal[Context] | None,
    ) -> None:
        self.handle = handle
        self.source = source
        self.source_arn, self.destination_arn = arns
        self.rate = rate
        self.started = started
        self.to_move = to_move
        self.moved = 0
        self.status: Status = "RUNNING"
        self.failure: str | None = None
        self._target = target
        self._caller = caller

    @property
    def running(self) -> bool:
        return self.status in ("RUNNING", "CANCELLING")

    def run(self, engine: EngineView) -> None:
        """Moves the next messages."""
        if self._target is not None and queue_attributes.read(engine.queue_settings(self._target)) is None:
            self.status, self.failure = "FAILED", QUEUE_DOES_NOT_EXIST.code
            return
        where = Filter(queues=frozenset({self.source}), statuses=frozenset({QUEUED, SCHEDULED}))
        result = engine.move_many(where, self._target, self.rate, False)
        if isinstance(result, Future):
            result.add_done_callback(partial(self._moved_later, engine))
        else:
            self._moved(engine, result)

    def cancel(self) -> None:
        if self.running:
            self.status = "CANCELLING"

    def _moved_later(self, engine: EngineView, done: "Future[BulkResult]") -> None:
        if not self._has_failed(done):
            self._moved(engine, done.result())

    def _has_failed(self, done: "Future[Any]") -> bool:
        """Ends the task if a call has failed. Returns whether it has."""
        failure = None if done.cancelled() else done.exception()
        failed = done.cancelled() or failure is not None
        if failed:
            self.status, self.failure = "FAILED", str(failure or "the server is stopping")
        return failed

    def _moved(self, engine: EngineView, result: BulkResult) -> None:
        self.moved += result.changed
        if result.refused is not None:
            self.status, self.failure = "FAILED", result.refused.detail
        elif self.status == "CANCELLING":
            self.status = "CANCELLED"
        elif self.rate is None or result.changed < self.rate:
            self.status = "COMPLETED"
        else:
            asyncio.get_running_loop().call_later(_STEP, self._go_on, engine)

    def _go_on(self, engine: EngineView) -> None:
        if self.status == "CANCELLING" or engine.stopping:
            self.status = "CANCELLED"
            return
        try:
            if self._caller is not None:
                self._caller.check(engine.wall_now())
            going_on = engine.run(partial(self.run, engine))
            if isinstance(going_on, Future):  # in a cluster the target is perhaps at another server
                going_on.add_done_callback(self._has_failed)
        except JobQueueError as refused:
            self.status, self.failure = "FAILED", refused.detail


class MoveTasks:
    """The last tasks of each queue, the newest first."""

    def __init__(self) -> None:
        self._by_source: dict[str, list[MoveTask]] = {}

    def of(self, source: str) -> list[MoveTask]:
        return self._by_source.get(source, [])

    def add(self, task: MoveTask) -> None:
        if len(self._by_source) >= _MOST_QUEUES and task.source not in self._by_source:
            del self._by_source[next(iter(self._by_source))]
        self._by_source[task.source] = [task, *self.of(task.source)[: MOST_LISTED - 1]]

    def find(self, handle: str) -> MoveTask | None:
        for tasks in self._by_source.values():
            for task in tasks:
                if task.handle == handle:
                    return task
        return None
