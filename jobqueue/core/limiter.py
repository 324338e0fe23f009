"""Gate: how many jobs may run at once, and how many may start in a time. One for a queue, one for each key.

A gate is asked when a job is to be handed out; while it is shut the line behind it stands aside, so that a
dequeue never looks at them. It opens when a lease ends, or at the instant that `next_at` says.
"""

from math import ceil
from typing import Literal

from jobqueue.model import Rate


class Limiter:
    """`most`: jobs in progress, None: any number. `key`: whose jobs; None: the whole queue's. `wakes_at`: the
    instant for which a timer hangs, if one does."""

    __slots__ = (
        "_filled_at", "_tokens", "in_progress", "key", "most", "queue", "rate", "wakes_at"
    )  # fmt: skip

    def __init__(self, queue: str, key: str | None, most: int | None, rate: Rate | None) -> None:
        self.queue = queue
        self.key = key
        self.in_progress = 0
        self.wakes_at: int | None = None
        self.rate: Rate | None = None
        self._tokens = 0.0
        self._filled_at: int | None = None
        self.limit(most, rate)

    def limit(self, most: int | None, rate: Rate | None) -> None:
        """A rate that stays what it was goes on from where it is."""
        self.most = most
        if rate != self.rate:
            self.rate = rate
            self._tokens = float(rate.burst) if rate is not None else 0.0
            self._filled_at = None

    def full_at(self, now: int) -> int:
        """When its rate has nothing to remember any more."""
        if self.rate is None:
            return now
        missing = self.rate.burst - self._fill(self.rate, now)
        return now + ceil(missing * self.rate.per / self.rate.count)

    def is_open(self, now: int) -> bool:
        return self.exhausted(now) is None

    def exhausted(self, now: int) -> Literal["most", "rate"] | None:
        """Which of its two limits is used up; None: it is open."""
        if self.most is not None and self.in_progress >= self.most:
            return "most"
        return None if self.rate is None or self._fill(self.rate, now) >= 1 else "rate"

    def next_at(self, now: int) -> int | None:
        """When it opens by itself; None: when a job in progress ends."""
        if self.rate is None or (self.most is not None and self.in_progress >= self.most):
            return None
        missing = 1 - self._fill(self.rate, now)
        return now + max(ceil(missing * self.rate.per / self.rate.count), 1)

    def enter(self, now: int) -> None:
        self.in_progress += 1
        if self.rate is not None:
            self._tokens = self._fill(self.rate, now) - 1

    def leave(self) -> bool:
        """True if that opened it."""
        self.in_progress -= 1
        return self.most is not None and self.in_progress == self.most - 1

    def _fill(self, rate: Rate, now: int) -> float:
        if self._filled_at is not None:
            grown = (now - self._filled_at) * rate.count / rate.per
            self._tokens = min(self._tokens + grown, float(rate.burst))
        self._filled_at = now
        return self._tokens
