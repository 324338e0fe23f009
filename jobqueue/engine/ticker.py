"""Ticker: a `PeriodicCallback` that the wall clock cannot hold up."""

from tornado.ioloop import PeriodicCallback


class Ticker(PeriodicCallback):
    """Tornado counts by the wall clock: when that is set back by an hour, a `PeriodicCallback` rests for one.
    Here the next call is one interval after this one, whatever the clock says. Overrides a private method of
    the pinned Tornado; a test fails if that changes."""

    def _update_next(self, current_time: float) -> None:
        self._next_timeout = current_time + self.callback_time / 1000
