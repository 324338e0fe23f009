"""Buckets: how many values were at most so large, and what they came to; Prometheus calls it a histogram."""

from bisect import bisect_left
from collections.abc import Sequence


class Buckets:
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
