"""Clocks: where an engine reads time. Milliseconds, as integers."""

import time
from typing import Protocol


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
