"""Work that waits in the middle, in greenlets.

The reads of an engine return at once, and operations are written so. Where a read has to ask another server,
the greenlet in which the operation runs stops until the answer is there, while the loop goes on:

    future = run(work)     work ─▶ engine.get(id) ─▶ wait(answer)   stops here
                                                       │  the loop goes on; `run` has returned a Future
                           work goes on  ◀──────────── answer
"""

from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from jobqueue.engine.api import MaybeFuture

T = TypeVar("T")


def run(work: Callable[[], T]) -> MaybeFuture[T]:
    """Returns what `work` returns, or a Future of it if it has to wait. Raises what it raises before."""
    worker = greenlet(work)
    result = worker.switch()
    return result if worker.dead else _Working(worker, result)


def inside() -> bool:
    """Returns whether this is called inside of `run`, so that `wait` may be called."""
    return getcurrent().parent is not None


def wait(answer: MaybeFuture[T]) -> T:
    """Returns the result of a Future, for which the work of `run` stops. Raises what it fails with."""
    if not isinstance(answer, Future):
        return answer
    if not answer.done():
        parent = getcurrent().parent
        assert parent is not None, "this must be called inside of `run`"
        parent.switch(answer)
    return answer.result()


class _Working(Future[Any]):
    """The result of work that waits. Cancelling it cancels what it waits for."""

    def __init__(self, worker: greenlet, waits_for: Future[Any]) -> None:
        super().__init__(loop=waits_for.get_loop())
        self._wait_for(worker, waits_for)

    def _wait_for(self, worker: greenlet, future: Future[Any]) -> None:
        self._waits_for = future
        future.add_done_callback(partial(self._go_on, worker))

    def _go_on(self, worker: greenlet, future: Future[Any]) -> None:
        worker.parent = getcurrent()
        try:
            result = worker.switch()
        except BaseException as error:
            if future.cancelled():
                super().cancel()
            elif isinstance(error, Exception):
                self.set_exception(error)
            else:
                raise
            return
        if worker.dead:
            self.set_result(result)
        else:
            self._wait_for(worker, result)

    def cancel(self, msg: object = None) -> bool:
        return self._waits_for.cancel()
