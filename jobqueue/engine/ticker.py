"""Ticker: a `PeriodicCallback` that changes of the wall clock do not delay."""

from tornado.ioloop import PeriodicCallback


class Ticker(PeriodicCallback):
    """Calls back one interval after the call before, whatever the wall clock says.

    Tornado computes the next call from the wall clock: if that is set back by an hour, a `PeriodicCallback`
    pauses for an hour. This class overrides a private method of the pinned Tornado; a test fails if that
    changes.
    """

    def _update_next(self, current_time: float) -> None:
        self._next_timeout = current_time + self.callback_time / 1000
