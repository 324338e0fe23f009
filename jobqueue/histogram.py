"""Buckets: how many values were at most so large, and what they came to; Prometheus calls it a histogram."""

from bisect import bisect_left
from collections.abc import Sequence

_HALVE_AT = 4096
# After so much one in eight is sample enough.
_YOUNG = 256


class Histogram:
    """`bounds` rise; what is above the last one has a bucket of its own."""

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

    def below(self) -> list[tuple[str, float]]:
        """Each bound, and "+Inf"; how many values were at most that."""
        below = 0
        buckets: list[tuple[str, float]] = []
        names = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        for name, count in zip(names, self._counts, strict=True):
            below += count
            buckets.append((name, below))
        return buckets


class DecayingHistogram:
    """`skip`: which to leave out: a job whose id has one of these bits. `quantile` is right to a quarter.
    `all_counts` and `all_ms` forget nothing: how many fell into each bucket since the beginning, and how long
    those took together; where some are left out, as estimated from the others."""

    __slots__ = ("_counts", "_total", "all_counts", "all_ms", "skip")

    def __init__(self) -> None:
        self.all_counts: dict[int, int] = {}
        self.all_ms = 0
        self._counts: dict[int, int] = {}  # by bucket; most queues fill few
        self._total = 0
        self.skip = 0

    def add(self, ms: int) -> None:
        """`ms` milliseconds; below 0, after a jump of a clock, counts as 0."""
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
        self.skip = 7 if self._total > _YOUNG else 0

    def below(self, bounds: Sequence[int]) -> list[int]:
        """How many took at most each of `bounds` milliseconds, which rise; and last, how many there were."""
        left = sorted(self.all_counts.items(), reverse=True)
        counts, total = [], 0
        for bound in bounds:
            while left and _upper(left[-1][0]) <= bound:
                total += left.pop()[1]
            counts.append(total)
        return [*counts, total + sum(count for _, count in left)]

    def quantile(self, share: float) -> int | None:
        """Milliseconds that the given share of what was added did not exceed; None: nothing was."""
        if not self._total:
            return None
        left, bucket = share * self._total, 0
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                break
        return _upper(bucket)


def _upper(bucket: int) -> int:
    """The longest time that falls into a bucket."""
    if bucket < 4:
        return bucket
    doubling, quarter = divmod(bucket, 4)
    return ((4 + quarter + 1) << (doubling - 1)) - 1
