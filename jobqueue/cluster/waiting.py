"""Work that waits in the middle, in greenlets.

The reads of an engine return at once, and operations are written so. Where a read has to ask another server,
the greenlet in which the operation runs stops until the answer is there, while the loop goes on:

    future = run(work)     work ─▶ engine.get(id) ─▶ wait(answer)   stops here
                                                       │  the loop goes on; `run` has returned a Future
                           work goes on  ◀──────────── answer

A greenlet that has done its work is kept for the next one: to make one takes 8 µs.
"""

import asyncio
import threading
from asyncio import CancelledError, Future
from collections.abc import Callable
from typing import Any, Final, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from jobqueue.cluster.outcome import Outcome
from jobqueue.engine.api import MaybeFuture, refuse

T = TypeVar("T")
# Greenlets that are kept while they have nothing to do.
_KEPT: Final = 100


class _Idle(threading.local):
    """The greenlets of a thread that have nothing to do."""

    def __init__(self) -> None:
        self.workers: list[_Worker] = []


class _Worker(greenlet):
    """Does one piece of work after the other. `done`: it has done the last one, which it was given by
    `switch`."""

    done = False
    _result: Any = None
    _error: BaseException | None = None

    def run(self, work: Callable[[], Any]) -> None:
        while True:
            try:
                self._result = work()
            except GreenletExit:  # nobody refers to it any more
                raise
            except BaseException as error:
                self._error = error
            self.done = True
            del work
            parent = self.parent
            assert parent is not None
            work = parent.switch()

    def outcome(self) -> tuple[Any, BaseException | None]:
        """Returns what the work has returned, and what it has raised. It may get other work then."""
        result, error = self._result, self._error
        self._result = self._error = None
        self.done = False
        workers = _idle.workers
        if len(workers) < _KEPT:
            workers.append(self)
        return result, error


_idle = _Idle()


def run(work: Callable[[], T]) -> MaybeFuture[T]:
    """Returns what `work` returns, or a Future of it if it has to wait. Raises what it raises before."""
    workers = _idle.workers
    worker = workers.pop() if workers else _Worker()
    worker.parent = getcurrent()
    waits_for = worker.switch(work)
    if not worker.done:
        return Working(worker, waits_for)
    result, error = worker.outcome()
    if error is None:
        return result  # type: ignore[no-any-return]
    try:
        raise error
    finally:
        del error  # which refers to this frame now


def inside() -> bool:
    """Returns whether this is called inside of `run`, so that `wait` may be called."""
    return getcurrent().parent is not None


def wait(answer: MaybeFuture[T]) -> T:
    """Returns the result of a Future, for which the work of `run` stops. Raises what it fails with."""
    if not isinstance(answer, Future):
        return answer
    if not answer.done():
        _stop_for(answer)
    return answer.result()


def wait_for_outcome(outcome: Outcome) -> Any:
    """The same for an `Outcome`."""
    if not outcome.done():
        _stop_for(outcome)
    return outcome.result()


def _stop_for(what: "Future[Any] | Outcome") -> None:
    parent = getcurrent().parent
    assert parent is not None, "this must be called inside of `run`"
    parent.switch(what)


class Working(Future[Any]):
    """The result of work that waits. `waits_for`: what it waits for, and in the end has waited for last.
    Cancelling it cancels that."""

    def __init__(self, worker: _Worker, waits_for: Future[Any] | Outcome) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._worker = worker
        self._wait_for(waits_for)

    def _wait_for(self, what: Future[Any] | Outcome) -> None:
        self.waits_for = what
        if isinstance(what, Outcome):
            what.when_done(self._go_on)
        else:
            what.add_done_callback(self._go_on)

    def _go_on(self, _: object = None) -> None:
        worker = self._worker
        worker.parent = getcurrent()
        waits_for = worker.switch()
        if not worker.done:
            self._wait_for(waits_for)
            return
        result, error = worker.outcome()
        if error is None:
            self.set_result(result)
        elif isinstance(error, CancelledError):
            super().cancel()
        else:
            refuse(self, error)

    def cancel(self, msg: object = None) -> bool:
        return self.waits_for.cancel()
