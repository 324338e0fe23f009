"""Limiter: how many jobs may be in progress at once, and how many may start in a time.

A queue has at most one limiter, and so has each of its keys. It is asked before a job is leased. While it is
exhausted its `KeyGroup` is blocked, so that a dequeue does not examine those jobs. It has capacity again when
a lease ends, or at the time that `available_at` returns.
"""

from math import ceil
from typing import Literal

from jobqueue.model import Rate


class Limiter:
    """Counts the jobs in progress of one queue, or of one of its keys if `key` is not None, and keeps a token
    bucket for the rate. Without `max_in_progress` or `rate` there is no such limit. `wakes_at` is the time of
    its timer, if there is one. Times are monotonic milliseconds."""

    __slots__ = (
        "_filled_at",
        "_tokens",
        "in_progress",
        "key",
        "max_in_progress",
        "queue",
        "rate",
        "wakes_at",
    )

    def __init__(self, queue: str, key: str | None, max_in_progress: int | None, rate: Rate | None) -> None:
        self.queue = queue
        self.key = key
        self.in_progress = 0
        self.wakes_at: int | None = None
        self.rate: Rate | None = None
        self._tokens = 0.0
        self._filled_at: int | None = None  # None: never, and the bucket is full
        self.set_limits(max_in_progress, rate)

    def set_limits(self, max_in_progress: int | None, rate: Rate | None) -> None:
        """Sets both limits. An unchanged rate keeps its tokens; another one begins with a full bucket."""
        self.max_in_progress = max_in_progress
        if rate != self.rate:
            self.rate = rate
            self._tokens = float(rate.burst) if rate is not None else 0.0
            self._filled_at = None

    def exhausted(self, now: int) -> Literal["max_in_progress", "rate"] | None:
        """Returns the limit that is used up; None: a job may start."""
        if self.max_in_progress is not None and self.in_progress >= self.max_in_progress:
            return "max_in_progress"
        return None if self.rate is None or self._refill(self.rate, now) >= 1 else "rate"

    def available_at(self, now: int) -> int | None:
        """Returns when the next token is there; None: when a lease ends."""
        if self.rate is None or (
            self.max_in_progress is not None and self.in_progress >= self.max_in_progress
        ):
            return None
        missing = 1 - self._refill(self.rate, now)
        return now + max(ceil(missing * self.rate.per / self.rate.count), 1)

    def full_at(self, now: int) -> int:
        """Returns when the token bucket will be full again."""
        if self.rate is None:
            return now
        missing = self.rate.burst - self._refill(self.rate, now)
        return now + ceil(missing * self.rate.per / self.rate.count)

    def count_start(self, now: int) -> None:
        """Counts a job that has been leased, and takes a token."""
        self.in_progress += 1
        if self.rate is not None:
            self._tokens = self._refill(self.rate, now) - 1

    def count_end(self) -> bool:
        """Counts the end of a lease. Returns whether `max_in_progress` was used up until now."""
        self.in_progress -= 1
        return self.max_in_progress is not None and self.in_progress == self.max_in_progress - 1

    def _refill(self, rate: Rate, now: int) -> float:
        if self._filled_at is not None:
            added = (now - self._filled_at) * rate.count / rate.per
            self._tokens = min(self._tokens + added, float(rate.burst))
        self._filled_at = now
        return self._tokens
