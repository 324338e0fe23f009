"""Several calls as one: their results in order, and a dequeue from several shards."""

import asyncio
import time
from asyncio import Future
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from jobqueue.cluster.shard import Shard
from jobqueue.engine.api import MaybeFuture, refuse
from jobqueue.engine.wait_future import WaitFuture, nothing
from jobqueue.errors import JobQueueError
from jobqueue.model import Delivery, DequeueRequest

T = TypeVar("T")
# Seconds after which a shard is asked again that ended a wait early.
_AGAIN: Final = 0.2
# Seconds after the end of a wait in which answers may still come.
_LATE: Final = 0.2


def gathered(
    calls: Iterable[Callable[[], MaybeFuture[Any]]],
    join: Callable[[list[Any]], Any] = lambda results: results,
) -> MaybeFuture[Any]:
    """Makes calls, and returns what `join` returns for their results. Fails with the first error; if that is
    raised at once, the calls that are under way are cancelled."""
    made: list[MaybeFuture[Any]] = []
    try:
        for each in calls:
            made.append(each())  # noqa: PERF401  # those before one that fails must be known
    except BaseException:
        for call in made:
            if isinstance(call, Future):
                call.cancel()
        raise
    if not any(isinstance(call, Future) for call in made):
        return join(made)
    return Gathered(made, join, False)


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
    return Gathered(results, join, True)


async def awaited(answer: MaybeFuture[T]) -> T:
    """Returns the result of a call, at once or when it is there."""
    return await answer if isinstance(answer, Future) else answer


class Gathered(Future[Any]):
    """The results of several calls. Cancelling it cancels those that are under way. `calls`: all of them, if
    one server may have answered them."""

    def __init__(
        self, calls: Sequence[MaybeFuture[Any]], join: Callable[[list[Any]], Any], keep_errors: bool
    ) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.calls = calls if keep_errors or len(calls) == 1 else ()
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
            refuse(self, error)
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
                refuse(self, bad)

    def cancel(self, msg: object = None) -> bool:
        for call in self._results:
            if isinstance(call, Future):
                call.cancel()
        return super().cancel(msg)


class SeveralDequeue(WaitFuture[list[Delivery]]):
    """A dequeue from queues of several shards.

    Each is asked in order, without waiting; one that has no owner at present comes last. If none has a job,
    all are waited for, and the first one that delivers wins. What another one has delivered meanwhile goes
    back, its attempt uncounted. A shard that cannot be asked does not keep the jobs of the others back.
    """

    def __init__(self, groups: list[tuple[Shard, list[str]]], request: DequeueRequest, wait: int) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        owned = [group for group in groups if group[0].has_owner]
        self._groups = owned + [group for group in groups if not group[0].has_owner]
        self._request = request
        self._until = time.monotonic() + wait / 1000
        self._wait = wait
        self._asked = 0
        self._answered = False  # at least one shard was asked
        self._failure: BaseException | None = None
        self._found: list[tuple[Shard, list[Delivery]]] = []
        self._under_way: dict[Future[list[Delivery]], Shard] = {}
        self._later: dict[object, asyncio.TimerHandle] = {}
        self._deadline: asyncio.TimerHandle | None = None
        self.withdraw = self._leave
        self._ask_next()

    def stop(self) -> None:
        """Ends the wait: the server stops."""
        if not self.done():
            self.end()
            self.set_result([])

    # -- in order -----------------------------------------------------------------------------------

    def _ask_next(self) -> None:
        most = self._request.count or 1
        while self._asked < len(self._groups):
            found = sum(len(part) for _, part in self._found)
            if found >= most:
                break
            shard, queues = self._groups[self._asked]
            if self._answered and not shard.has_owner:
                break
            self._asked += 1
            request = replace(self._request, queues=tuple(queues))
            if self._request.count is not None:
                request.count = most - found
            try:
                answer = shard.call("dequeue", request, 0)
            except JobQueueError as refused:
                self._failure = self._failure or refused
                continue
            if isinstance(answer, Future):
                self._under_way[answer] = shard
                answer.add_done_callback(self._one_asked)
                return
            self._add(shard, answer)
        if self._found:
            self._end([one for _, part in self._found for one in part])
        elif self._failure is not None and not self._answered:
            self.withdraw = nothing
            refuse(self, self._failure)
        elif not self._wait:
            self._end([])
        else:
            self._wait_at_all()

    def _add(self, shard: Shard, deliveries: list[Delivery]) -> None:
        self._answered = True
        if deliveries:
            self._found.append((shard, deliveries))

    def _one_asked(self, answer: Future[list[Delivery]]) -> None:
        shard = self._under_way.pop(answer, None)
        if shard is None or answer.cancelled():  # whoever called has left
            return
        error = answer.exception()
        if self.done():
            if error is None:
                shard.give_back(answer.result())
            return
        if error is None:
            self._add(shard, answer.result())
        elif isinstance(error, JobQueueError):
            self._failure = self._failure or error
        else:
            self.withdraw = nothing
            refuse(self, error)
            return
        self._ask_next()

    # -- all at once --------------------------------------------------------------------------------

    def _wait_at_all(self) -> None:
        queues: dict[int, list[str]] = {}
        shards = {shard.index: shard for shard, _ in self._groups}
        for shard, names in self._groups:
            queues.setdefault(shard.index, []).extend(names)
        left = max(self._until - time.monotonic(), 0)
        self._deadline = self.get_loop().call_later(left + _LATE, self._end_late)
        for index, names in queues.items():
            if self.done():
                return
            self._wait_at(shards[index], names)

    def _end_late(self) -> None:
        """A shard without an owner, or one whose owner does not answer, prolongs the wait no further."""
        if not self.done():
            self._end([])

    def _wait_at(self, shard: Shard, names: list[str]) -> None:
        wait = max(int((self._until - time.monotonic()) * 1000), 1)
        again = partial(self._wait_ended, shard, names)
        try:
            answer = shard.call("dequeue", replace(self._request, queues=tuple(names)), wait)
        except JobQueueError:
            again()
            return
        if isinstance(answer, Future):
            self._under_way[answer] = shard
            answer.add_done_callback(partial(self._one_waited, names))
        elif answer:
            self._end(answer)
        else:
            again()

    def _one_waited(self, names: list[str], answer: Future[list[Delivery]]) -> None:
        shard = self._under_way.pop(answer, None)
        if shard is None:
            return
        deliveries = [] if answer.cancelled() or answer.exception() is not None else answer.result()
        if self.done():
            if deliveries:
                shard.give_back(deliveries)
        elif deliveries:
            self._end(deliveries)
        else:
            self._wait_ended(shard, names)

    def _wait_ended(self, shard: Shard, names: list[str]) -> None:
        """A shard has given nothing. If that was early, it goes to another server, and is asked again."""
        if self._until - time.monotonic() > _AGAIN:
            key = object()
            again = partial(self._ask_again, key, shard, names)
            self._later[key] = self.get_loop().call_later(_AGAIN, again)
        elif not self._under_way and not self._later:
            self._end([])

    def _ask_again(self, key: object, shard: Shard, names: list[str]) -> None:
        del self._later[key]
        self._wait_at(shard, names)

    # -- the end ------------------------------------------------------------------------------------

    def _end(self, deliveries: list[Delivery]) -> None:
        self.withdraw = nothing
        self.set_result(deliveries)
        self._cancel_others()

    def _leave(self) -> None:
        for shard, deliveries in self._found:
            shard.give_back(deliveries)
        self._found = []
        self._cancel_others()

    def _cancel_others(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
        for answer, shard in list(self._under_way.items()):
            if not answer.cancel() and answer.done() and not answer.cancelled() and not answer.exception():
                self._under_way.pop(answer, None)
                shard.give_back(answer.result())  # delivered in this very pass of the loop
