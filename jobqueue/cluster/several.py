"""Several calls as one: their results in order, and a dequeue from several shards."""

import asyncio
import time
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from jobqueue.cluster.shard import Shard
from jobqueue.engine.api import MaybeFuture
from jobqueue.engine.wait_future import WaitFuture, nothing
from jobqueue.errors import JobQueueError
from jobqueue.model import Delivery, DequeueRequest


def gathered(
    calls: Sequence[MaybeFuture[Any]], join: Callable[[list[Any]], Any] = lambda results: results
) -> MaybeFuture[Any]:
    """Returns what `join` returns for the results of all calls. Fails with the first error."""
    if not any(isinstance(call, Future) for call in calls):
        return join(list(calls))
    return _Gathered(calls, join, False)


def outcomes(
    calls: Sequence[Callable[[], MaybeFuture[Any]]],
    join: Callable[[list[Any]], Any] = lambda results: results,
) -> MaybeFuture[Any]:
    """Makes calls, and returns what `join` returns for their results. That of a call that fails is its
    `JobQueueError`."""
    results: list[Any] = []
    for call in calls:
        try:
            results.append(call())
        except JobQueueError as refused:
            results.append(refused)
    if not any(isinstance(result, Future) for result in results):
        return join(results)
    return _Gathered(results, join, True)


class _Gathered(Future[Any]):
    """The results of several calls. Cancelling it cancels those that are under way."""

    def __init__(
        self, calls: Sequence[MaybeFuture[Any]], join: Callable[[list[Any]], Any], keep_errors: bool
    ) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._results: list[Any] = list(calls)
        self._join = join
        self._keep_errors = keep_errors
        self._left = 0
        for index, call in enumerate(calls):
            if isinstance(call, Future):
                self._left += 1
                call.add_done_callback(partial(self._one_done, index))

    def _one_done(self, index: int, call: Future[Any]) -> None:
        self._left -= 1
        if self.done():
            call.cancelled() or call.exception()  # it was seen
            return
        if call.cancelled():
            super().cancel()
            return
        error = call.exception()
        if error is not None and not (self._keep_errors and isinstance(error, JobQueueError)):
            self.set_exception(error)
            return
        result = self._results[index] = error or call.result()
        if isinstance(result, Future):  # of work that waited, and then called what takes time
            self._left += 1
            result.add_done_callback(partial(self._one_done, index))
            return
        if not self._left:
            try:
                self.set_result(self._join(self._results))
            except Exception as bad:
                self.set_exception(bad)

    def cancel(self, msg: object = None) -> bool:
        for call in self._results:
            if isinstance(call, Future):
                call.cancel()
        return super().cancel(msg)


class SeveralDequeue(WaitFuture[list[Delivery]]):
    """A dequeue from queues of several shards.

    Each is asked in order, without waiting. If none has a job, all are waited for, and the first one that
    delivers wins. What another one has delivered meanwhile goes back, its attempt uncounted.
    """

    def __init__(self, groups: list[tuple[Shard, list[str]]], request: DequeueRequest, wait: int) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._groups = groups
        self._request = request
        self._until = time.monotonic() + wait / 1000
        self._wait = wait
        self._asked = 0
        self._found: list[Delivery] = []
        self._under_way: dict[Future[list[Delivery]], Shard] = {}
        self.withdraw = self._leave
        self._ask_next()

    def _ask_next(self) -> None:
        most = self._request.count or 1
        while self._asked < len(self._groups) and len(self._found) < most:
            shard, queues = self._groups[self._asked]
            self._asked += 1
            request = replace(self._request, queues=tuple(queues))
            if self._request.count is not None:
                request.count = most - len(self._found)
            try:
                answer = shard.call("dequeue", request, 0)
            except JobQueueError as refused:
                self._refused(refused)
                return
            if isinstance(answer, Future):
                self._under_way[answer] = shard
                answer.add_done_callback(self._one_asked)
                return
            self._found += answer
        if self._found or not self._wait:
            self._end(self._found)
        else:
            self._wait_at_all()

    def _one_asked(self, answer: Future[list[Delivery]]) -> None:
        shard = self._under_way.pop(answer, None)
        if answer.cancelled():
            if not self.done():
                self._end(self._found)
            return
        if (error := answer.exception()) is not None:
            self._refused(error)
        elif self.done() and shard is not None:
            shard.give_back(answer.result())
        else:
            self._found += answer.result()
            self._ask_next()

    def _refused(self, error: BaseException) -> None:
        """One shard has no owner. What another one has given is delivered."""
        if self.done():
            return
        if self._found:
            self._end(self._found)
        else:
            self.withdraw = nothing
            self.set_exception(error)

    def _wait_at_all(self) -> None:
        queues: dict[int, list[str]] = {}
        shards = {shard.index: shard for shard, _ in self._groups}
        for shard, names in self._groups:
            queues.setdefault(shard.index, []).extend(names)
        wait = max(int((self._until - time.monotonic()) * 1000), 0)
        for index, names in queues.items():
            try:
                answer = shards[index].call("dequeue", replace(self._request, queues=tuple(names)), wait)
            except JobQueueError:
                continue
            if isinstance(answer, Future):
                self._under_way[answer] = shards[index]
                answer.add_done_callback(self._one_waited)
            else:
                self._take(shards[index], answer)
        if not self._under_way and not self.done():
            self._end([])

    def _one_waited(self, answer: Future[list[Delivery]]) -> None:
        shard = self._under_way.pop(answer, None)
        if not (answer.cancelled() or answer.exception()) and shard is not None:
            self._take(shard, answer.result())
        if not self._under_way and not self.done():
            self._end([])

    def _take(self, shard: Shard, deliveries: list[Delivery]) -> None:
        if not deliveries:
            return
        if self.done():
            shard.give_back(deliveries)
        else:
            self._end(deliveries)

    def _end(self, deliveries: list[Delivery]) -> None:
        self.withdraw = nothing
        self.set_result(deliveries)
        self._cancel_others()

    def _leave(self) -> None:
        for shard, _ in self._groups[: self._asked]:
            given = [one for one in self._found if one[0].queue in _names(self._groups, shard)]
            if given:
                shard.give_back(given)
        self._found = []
        self._cancel_others()

    def _cancel_others(self) -> None:
        for answer, shard in list(self._under_way.items()):
            if not answer.cancel() and answer.done() and not answer.cancelled() and not answer.exception():
                self._under_way.pop(answer, None)
                shard.give_back(answer.result())  # delivered in this very pass of the loop


def _names(groups: list[tuple[Shard, list[str]]], shard: Shard) -> set[str]:
    return {name for one, names in groups if one is shard for name in names}
