"""Clocks: the source of time of an engine, in whole milliseconds."""

import time
from collections.abc import Callable
from typing import Final, Protocol

MS_2026: Final = 1_767_225_600_000
# Two readings at most this far apart count as one instant; how often to try for it.
_ONE_INSTANT_MS: Final = 10
_TRIES: Final = 5


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


class CorrectedClock:
    """The clocks of the operating system. To the wall clock `offset()` milliseconds are added."""

    manual = False

    def __init__(self, offset: Callable[[], int]) -> None:
        self._offset = offset

    def monotonic(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall(self) -> int:
        return time.time_ns() // 1_000_000 + self._offset()


def since_boot() -> float:
    """Returns the seconds since the machine was started, those in which it slept included where the system
    counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def read_both(clock: Clock) -> tuple[int, int]:
    """Returns the monotonic and the wall-clock time of one instant. If the process was paused between the two
    readings they would differ by the pause, which would look like a step of the wall clock."""
    monotonic, wall = clock.monotonic(), clock.wall()
    tries = _TRIES
    while tries and clock.monotonic() - monotonic > _ONE_INSTANT_MS:
        tries -= 1
        monotonic, wall = clock.monotonic(), clock.wall()
    return monotonic, wall


def first_id_at(wall: int) -> int:
    """Returns the first id of a server that starts without jobs. It is above every id of an earlier run that
    gave less than a million a second, and below 2^53 until the year 2311."""
    return max((wall - MS_2026) // 1000, 0) * 1_000_000 + 1
