"""Histograms: how many values were at most as large as each bound, and the sum of all values."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

# All counts are halved when there are this many values, so that old ones count for less and less.
_HALVE_AT: Final = 4096
# Beyond this many values, one in eight is enough.
_SAMPLE_ABOVE: Final = 256


class Histogram:
    """A histogram as Prometheus has it. `bounds` rise; values above the last one have a bucket of their own.
    `total` is the sum of the values."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, stands_for: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += stands_for
        self.total += value * stands_for

    @property
    def count(self) -> int:
        return sum(self._counts)

    def joined(self, others: Sequence["Histogram"]) -> "Histogram":
        """Returns a histogram of these values and those of `others`, which have the same bounds."""
        both = Histogram(self._bounds)
        for each in (self, *others):
            both._counts = [one + other for one, other in zip(both._counts, each._counts, strict=True)]
            both.total += each.total
        return both

    def below(self) -> list[tuple[str, float]]:
        """Returns each bound, and "+Inf" at the end, with the number of values that were at most that."""
        total = 0
        buckets: list[tuple[str, float]] = []
        names = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        for name, count in zip(names, self._counts, strict=True):
            total += count
            buckets.append((name, total))
        return buckets


class DecayingHistogram:
    """A histogram of times, with four buckets for each power of two. `quantile` prefers recent times.

    The caller leaves out jobs whose id has a bit in common with `skip`, and each value that it adds stands
    for `skip + 1`. `all_counts` and `all_ms` do not decay: they are the number of values in each bucket, and
    the sum of their milliseconds, since the beginning.
    """

    __slots__ = ("_counts", "_total", "all_counts", "all_ms", "skip")

    def __init__(self) -> None:
        self.all_counts: dict[int, int] = {}
        self.all_ms = 0
        self._counts: dict[int, int] = {}  # by bucket, as most queues use few
        self._total = 0
        self.skip = 0

    def add(self, ms: int) -> None:
        """Adds a time of `ms` milliseconds. A negative one, after a jump of the clock, counts as 0."""
        if ms < 0:
            ms = 0
        bits = ms.bit_length()
        bucket = ms if bits < 3 else (bits - 2) * 4 + (ms >> (bits - 3)) - 4
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        stands_for = self.skip + 1
        self.all_counts[bucket] = self.all_counts.get(bucket, 0) + stands_for
        self.all_ms += ms * stands_for
        self._total += 1
        if self._total >= _HALVE_AT:
            self._counts = {bucket: count // 2 for bucket, count in self._counts.items() if count > 1}
            self._total = sum(self._counts.values())
        self.skip = 7 if self._total > _SAMPLE_ABOVE else 0

    def below(self, bounds: Sequence[int]) -> list[int]:
        """Returns how many times were at most each of `bounds`, which are milliseconds and rise. The last
        item is the number of all times."""
        left = sorted(self.all_counts.items(), reverse=True)
        counts, total = [], 0
        for bound in bounds:
            while left and _upper(left[-1][0]) <= bound:
                total += left.pop()[1]
            counts.append(total)
        return [*counts, total + sum(count for _, count in left)]

    def quantile(self, share: float) -> int | None:
        """Returns the milliseconds that the given share of recent times did not exceed, at most a quarter too
        high; None if there are no times."""
        if not self._total:
            return None
        left, bucket = share * self._total, 0
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                break
        return _upper(bucket)


def _upper(bucket: int) -> int:
    """Returns the longest time that belongs to a bucket."""
    if bucket < 4:
        return bucket
    doubling, quarter = divmod(bucket, 4)
    return ((4 + quarter + 1) << (doubling - 1)) - 1
