"""Clocks: the source of time of an engine, in whole milliseconds."""

import time
from typing import Protocol

_2026_MS = 1_767_225_600_000


class Clock(Protocol):
    """A source of time. If it is `manual`, time is moved by its owner, and the engine starts no timer."""

    manual: bool

    def monotonic(self) -> int:
        """Returns a time that never decreases, whatever happens to the wall clock."""

    def wall(self) -> int:
        """Returns the milliseconds since 1970."""


class SystemClock:
    """The clocks of the operating system."""

    manual = False

    def monotonic(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall(self) -> int:
        return time.time_ns() // 1_000_000


def first_id_at(wall: int) -> int:
    """Returns the first id of a server that starts without jobs. It is above every id of an earlier run that
    gave less than a million a second, and below 2^53 until the year 2311."""
    return max((wall - _2026_MS) // 1000, 0) * 1_000_000 + 1
