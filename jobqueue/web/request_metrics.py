"""Counts the requests of each operation by status, and measures their durations.

This is on the way of every request, so it costs one addition. Of the requests of an operation that have the
same status the first few are timed, then one in 32.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from jobqueue.histogram import Histogram

# Seconds; the last bucket is for what took longer. Long-polls take as long as they wait.
BOUNDS: Final[tuple[float, ...]] = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0
)  # fmt: skip
# One in 32 is timed: those whose number has none of these bits.
SKIP: Final = 31
TIMED: Final = 256
UNKNOWN: Final = "none"
Operation: TypeAlias = Callable[..., Any] | None
_STATUSES: Final = 600


class RequestMetrics:
    """The counts of each operation by status.

    The key None counts requests that were refused before their operation was known. Code that counts inline
    calls `time` for every request whose number asks for it.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.counts: dict[Operation, list[int]] = {
            operation: [0] * _STATUSES for operation in (*operations, None)
        }
        self._times: dict[Operation, Histogram] = {}

    def count(self, operation: Operation, status: int, seconds: float = 0.0) -> None:
        counts = self.counts[operation]
        counts[status] = number = counts[status] + 1
        if not number & SKIP or number < TIMED:
            self.time(operation, number, seconds)

    def time(self, operation: Operation, number: int, seconds: float) -> None:
        """Adds the duration of the request that was counted as `number`."""
        times = self._times.get(operation)
        if times is None:
            times = self._times[operation] = Histogram(BOUNDS)
        times.add(seconds, 1 if number < TIMED else SKIP + 1)

    def answered(self) -> Iterator[tuple[str, int, int]]:
        """Yields operation, status and count."""
        for operation, counts in self.counts.items():
            for status, count in enumerate(counts):
                if count:
                    yield getattr(operation, "__name__", UNKNOWN), status, count

    def times(self) -> Iterator[tuple[str, Histogram]]:
        """Yields operation and the durations of its requests in seconds."""
        for operation, times in self._times.items():
            if operation is not None:
                yield operation.__name__, times
