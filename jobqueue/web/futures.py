"""Two calls of the engine, one after the other, as one Future that can be cancelled."""

from asyncio import Future
from collections.abc import Callable
from typing import Any, TypeVar

from jobqueue.engine.api import EngineView, MaybeFuture, refuse

T = TypeVar("T")
U = TypeVar("U")


def then(first: MaybeFuture[T], go_on: Callable[[T], MaybeFuture[U]]) -> MaybeFuture[U]:
    """Returns what `go_on` returns for the result of `first`: without a Future if `first` is there
    already.
    """
    return Chained(first, go_on) if isinstance(first, Future) else go_on(first)


async def reading(engine: EngineView, work: Callable[[], T]) -> T:
    """Returns what `work` reads from the engine, in a coroutine."""
    found = engine.run(work)
    return await found if isinstance(found, Future) else found


def under_way(future: "Future[Any]") -> "Future[Any]":
    """Returns the call of the engine that a Future waits for."""
    while isinstance(future, Chained):
        future = future.under_way
    return future


def without_result(call: MaybeFuture[Any]) -> MaybeFuture[None]:
    """Returns None once a call is done."""
    return Chained(call, _none) if isinstance(call, Future) else None


def _none(_: object) -> None:
    return None


class Chained(Future[U]):
    """The Future of two calls.

    Cancelling it cancels the call that is under way. If that call is done already, its outcome counts: it may
    hold a job that was delivered, which the front then returns.
    """

    def __init__(self, first: Future[T], go_on: Callable[[T], MaybeFuture[U]]) -> None:
        super().__init__(loop=first.get_loop())
        self.under_way: Future[Any] = first
        self._left = False  # by who waited, between the two calls
        self._go_on: Callable[[Any], MaybeFuture[U]] = go_on
        first.add_done_callback(self._first_done)

    def cancel(self, msg: object = None) -> bool:
        if self.under_way.done():
            self._left = True
            return False
        return self.under_way.cancel()

    def _first_done(self, first: "Future[Any]") -> None:
        if self._failed(first):
            return
        if self._left:
            super().cancel()
            return
        try:
            second = self._go_on(first.result())
        except Exception as error:
            refuse(self, error)
            return
        if isinstance(second, Future):
            self.under_way = second
            second.add_done_callback(self._second_done)
        else:
            self.set_result(second)

    def _second_done(self, second: "Future[Any]") -> None:
        if self._failed(second):
            return
        result = second.result()
        if isinstance(result, Future):  # of work that waited, and then called what takes time
            self.under_way = result
            result.add_done_callback(self._second_done)
        else:
            self.set_result(result)

    def _failed(self, call: "Future[Any]") -> bool:
        if call.cancelled():
            super().cancel()
            return True
        error = call.exception()
        if error is not None:
            refuse(self, error)
        return error is not None
