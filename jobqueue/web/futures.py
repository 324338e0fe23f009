"""Chain: two calls of the engine, one after the other, as one Future that may be cancelled."""

from asyncio import Future
from collections.abc import Callable
from typing import Any, TypeVar

from jobqueue.engine.api import MaybeFuture

T = TypeVar("T")
U = TypeVar("U")


def then(first: MaybeFuture[T], go_on: Callable[[T], MaybeFuture[U]]) -> MaybeFuture[U]:
    """What `go_on` answers to what `first` is. If `first` is there already, the engine's own answer."""
    return Chained(first, go_on) if isinstance(first, Future) else go_on(first)


def under_way(future: "Future[Any]") -> "Future[Any]":
    """The call of the engine that is waited for."""
    while isinstance(future, Chained):
        future = future.under_way
    return future


class Chained(Future[U]):
    """Cancelling it cancels the call that is under way. Once that is done its outcome counts: a job that was
    handed over is in it, and whoever finds nobody to give it to must give it back."""

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
            self.set_exception(error)
            return
        if isinstance(second, Future):
            self.under_way = second
            second.add_done_callback(self._second_done)
        else:
            self.set_result(second)

    def _second_done(self, second: "Future[Any]") -> None:
        if not self._failed(second):
            self.set_result(second.result())

    def _failed(self, call: "Future[Any]") -> bool:
        if call.cancelled():
            super().cancel()
            return True
        error = call.exception()
        if error is not None:
            self.set_exception(error)
        return error is not None
