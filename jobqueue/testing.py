"""What the tests of an embedder need: a clock that is moved by hand."""

from jobqueue.units import duration_ms

_START_WALL = 1_800_000_000_000  # 2027-01-15T08:00:00Z
_START_MONOTONIC = 1_000_000


class ManualClock:
    """Stands still until told. For `MemoryEngine(clock=…)`; call `engine.tick()` after moving it."""

    manual = True

    def __init__(self) -> None:
        self._monotonic = _START_MONOTONIC
        self._wall = _START_WALL

    def monotonic(self) -> int:
        return self._monotonic

    def wall(self) -> int:
        return self._wall

    def advance(self, duration: float | str) -> None:
        """Both clocks go on: seconds, or "500ms", "5m", "1h30m"."""
        ms = duration_ms(duration)
        self._monotonic += ms
        self._wall += ms

    def wall_jump(self, seconds: float) -> None:
        """The wall clock alone jumps, back if negative: as when an administrator sets it."""
        self._wall += round(seconds * 1000)
