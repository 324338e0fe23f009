"""Timers: what comes due and when. Leases and waits hang here.

Buckets of some milliseconds and a heap of bucket numbers: adding and dropping are O(1) on average. What was
dropped is gone at once, and a bucket that it leaves empty when the next one is made; numbers without a bucket
stay in the heap until they are more than half of it. (A heap with an entry for each timer would keep the dead
ones: at 20,000 jobs a second under five-minute leases, six million of them.) Times are milliseconds, all of
one clock.
"""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import chain, islice
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
# So many numbers without a bucket are not worth the work of making the heap anew.
_LEFT_OVER = 256


class Timers(Generic[T]):
    """`width`: milliseconds in a bucket. What is added may be anything hashable; it is due at `when`."""

    __slots__ = ("_buckets", "_front", "_newest", "_numbers", "_width", "count")

    def __init__(self, width: int = 100) -> None:
        self.count = 0
        self._width = width
        self._buckets: dict[int, dict[T, int]] = {}
        self._numbers: list[int] = []
        self._newest = 0  # the number of the bucket made last
        self._front: dict[T, int] = {}  # what `due` took out of a bucket, and nobody has dropped yet

    def __len__(self) -> int:
        return self.count

    def add(self, item: T, when: int) -> None:
        """An item may hang here once; to move it, drop it first."""
        number = when // self._width
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._open(number)
        bucket[item] = when
        self.count += 1

    def _open(self, number: int) -> dict[T, int]:
        newest = self._buckets.get(self._newest)
        if newest is not None and not newest:
            del self._buckets[self._newest]
        self._newest = number
        bucket: dict[T, int] = {}
        self._buckets[number] = bucket
        heappush(self._numbers, number)
        if len(self._numbers) > 2 * len(self._buckets) + _LEFT_OVER:
            self._numbers = list(self._buckets)
            heapify(self._numbers)
        return bucket

    def drop(self, item: T, when: int) -> None:
        """`when` as it was added; `KeyError` if it is not here."""
        if self._front and self._front.pop(item, None) is not None:
            self.count -= 1
            return
        number = when // self._width
        bucket = self._buckets[number]
        del bucket[item]
        if not bucket:
            if number == self._newest:  # it may well be used again
                bucket.clear()  # an emptied dict keeps the room that it had
            else:
                del self._buckets[number]
        self.count -= 1

    def let_go(self, item: T, now: int) -> None:
        """Drops one that `due` gave at `now`, if it still hangs here."""
        for hanging in (self._front, self._buckets.get(now // self._width)):
            if hanging and hanging.pop(item, None) is not None:
                self.count -= 1
                break

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
            bucket = self._buckets.get(number)
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
            heappop(self._numbers)
            self._buckets.pop(number, None)
        return []
