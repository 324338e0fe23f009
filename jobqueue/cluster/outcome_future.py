"""OutcomeFuture: the Future of an `Outcome`. It is not compiled: no compiled class can be a `Future`."""

import asyncio
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

from jobqueue.cluster.outcome import Outcome
from jobqueue.engine.api import refuse
from jobqueue.engine.wait_future import WaitFuture, nothing


class OutcomeFuture(WaitFuture[Any]):
    """`stop()` has the call end with what there is now."""

    def __init__(self, outcome: Outcome, stop: Callable[[], None]) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.outcome = outcome
        self.stop = stop
        self.withdraw = self._leave
        if outcome.done():
            self._end()
        else:
            outcome.when_done(self._end)

    def _leave(self) -> None:
        self.outcome.when_done(nothing)
        self.outcome.cancel()

    def _end(self) -> None:
        self.withdraw = self.stop = nothing
        result, error = self.outcome.take()
        if error is None:
            self.set_result(result)
        elif isinstance(error, CancelledError):
            super().cancel()
        else:
            refuse(self, error)
