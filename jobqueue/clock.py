"""Clocks: where an engine reads time. Milliseconds, as integers."""

import time
from typing import Protocol

_2026_MS = 1_767_225_600_000


class Clock(Protocol):
    """`manual`: time moves by hand, so the engine must not start a timer."""

    manual: bool

    def monotonic(self) -> int:
        """Never goes back, unaffected by a jump of the wall clock."""

    def wall(self) -> int:
        """Since 1970."""


class SystemClock:
    manual = False

    def monotonic(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall(self) -> int:
        return time.time_ns() // 1_000_000


def first_id_at(wall: int) -> int:
    """Where a fresh memory begins to count: below 2^53 until the year 2311, and above whatever an earlier
    run gave at less than a million ids a second."""
    return max((wall - _2026_MS) // 1000, 0) * 1_000_000 + 1
