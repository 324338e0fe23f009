"""Timers: what comes due and when. Leases and waits hang here.

Buckets one tick wide and a heap of bucket numbers: adding and dropping are O(1), and what was dropped is
gone at once. (A heap with an entry for each timer would keep the dead ones: at 20,000 jobs a second under
five-minute leases, six million of them.) Times are monotonic milliseconds.
"""

from collections.abc import Hashable
from heapq import heappop, heappush
from itertools import chain, islice
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Timers(Generic[T]):
    """`width`: milliseconds in a bucket. What is added may be anything hashable; it is due at `when`."""

    __slots__ = ("_buckets", "_front", "_numbers", "_width", "count")

    def __init__(self, width: int = 100) -> None:
        self.count = 0
        self._width = width
        self._buckets: dict[int, dict[T, int]] = {}
        self._numbers: list[int] = []
        self._front: dict[T, int] = {}  # what `due` took out of a bucket, and nobody has dropped yet

    def __len__(self) -> int:
        return self.count

    def add(self, item: T, when: int) -> None:
        """An item may hang here once; to move it, drop it first."""
        number = when // self._width
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = {}
            heappush(self._numbers, number)
        bucket[item] = when
        self.count += 1

    def drop(self, item: T, when: int) -> None:
        """`when` as it was added; `KeyError` if it is not here."""
        if self._front and self._front.pop(item, None) is not None:
            self.count -= 1
            return
        bucket = self._buckets[when // self._width]
        del bucket[item]
        if not bucket:
            bucket.clear()  # an emptied dict keeps the room that it had
        self.count -= 1

    def some(self, limit: int) -> list[T]:
        """Up to `limit` of all that hang here, in no order."""
        return list(islice(chain(self._front, chain.from_iterable(self._buckets.values())), limit))

    def due(self, now: int, limit: int) -> list[T]:
        """Up to `limit` items with `when <= now`, out of the earliest bucket that has any; empty: nothing is
        due. They hang here until they are dropped, which whoever asks is to do."""
        if self._front:
            return list(self._front)
        last = now // self._width
        while self._numbers and self._numbers[0] <= last:
            number = self._numbers[0]
            bucket = self._buckets[number]
            if bucket:
                if number < last:
                    # Taken from the end: a dict that loses its first items is searched past all of them.
                    self._front = dict(bucket.popitem() for _ in range(min(limit, len(bucket))))
                    return list(self._front)
                found = []
                for item, when in bucket.items():  # no generator: compiled, it would be a list of all
                    if when <= now:
                        found.append(item)
                        if len(found) == limit:
                            break
                return found
            if number == last:
                break
            del self._buckets[heappop(self._numbers)]
        return []
