"""A clock that is moved by hand."""

from datetime import datetime

from jobqueue.units import duration_ms

_START_WALL = 1_800_000_000_000  # 2027-01-15T08:00:00Z
_START_MONOTONIC = 1_000_000


class ManualClock:
    """A clock that stands still until it is moved. Pass it to `MemoryEngine(clock=…)`, and call
    `engine.tick()` after moving it.

    `start`: its first wall-clock time; 2027-01-15T08:00:00Z by default.
    """

    manual = True

    def __init__(self, start: datetime | None = None) -> None:
        self._monotonic = _START_MONOTONIC
        self._wall = _START_WALL if start is None else round(start.timestamp() * 1000)

    def monotonic(self) -> int:
        return self._monotonic

    def wall(self) -> int:
        return self._wall

    def advance(self, duration: float | str) -> None:
        """Moves both clocks forward by a duration: seconds, or a text such as "500ms", "5m" or "1h30m"."""
        self.advance_ms(duration_ms(duration))

    def advance_ms(self, ms: int) -> None:
        """Moves both clocks forward by whole milliseconds."""
        self._monotonic += ms
        self._wall += ms

    def wall_jump(self, seconds: float) -> None:
        """Moves only the wall clock, as an administrator may. A negative number sets it back."""
        self._wall += round(seconds * 1000)
