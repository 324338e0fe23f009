"""Timers: what comes due and when: leases, waits, delays, ends of jobs, of pauses, of shut gates.

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

    __slots__ = ("_buckets", "_line", "_line_of", "_newest", "_numbers", "_width")

    def __init__(self, width: int = 100) -> None:
        self._width = width
        self._buckets: dict[int, dict[T, int]] = {}
        self._numbers: list[int] = []
        self._newest = 0  # the number of the bucket made last
        self._line: list[T] = []  # what `due` has still to give of the bucket `_line_of`, the last one first
        self._line_of = -1

    def __len__(self) -> int:
        """O(buckets)."""
        return sum(map(len, self._buckets.values()))

    def add(self, item: T, when: int) -> None:
        """An item may hang here once; to move it, drop it first."""
        number = when // self._width
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._open(number)
        bucket[item] = when

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
        number = when // self._width
        bucket = self._buckets[number]
        del bucket[item]
        if not bucket:
            if number == self._newest:  # it may well be used again
                bucket.clear()  # an emptied dict keeps the room that it had
            else:
                del self._buckets[number]

    def let_go(self, item: T, now: int) -> None:
        """Drops one that `due` gave at `now`, if it still hangs here."""
        for number in (self._line_of, now // self._width):
            if (bucket := self._buckets.get(number)) and bucket.pop(item, None) is not None:
                break

    def some(self, limit: int) -> list[T]:
        """Up to `limit` of all that hang here, in no order."""
        return list(islice(chain.from_iterable(self._buckets.values()), limit))

    def due(self, now: int, limit: int) -> list[T]:
        """Up to `limit` items with `when <= now`, out of the earliest bucket that has any, in the order in
        which they came there; empty: nothing is due. They hang here until they are dropped, which whoever
        asks is to do."""
        last = now // self._width
        while self._numbers and self._numbers[0] <= last:
            number = self._numbers[0]
            bucket = self._buckets.get(number)
            if bucket:
                if number < last:
                    return self._of_line(number, bucket, limit)
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

    def _of_line(self, number: int, bucket: dict[T, int], limit: int) -> list[T]:
        """Out of a bucket all of which is due. The line is kept from call to call: a dict that loses its
        first items is searched past all of them, each time."""
        line = self._line if self._line_of == number else []
        while line and line[-1] not in bucket:
            line.pop()
        if not line:
            line = list(bucket)
            line.reverse()
        self._line, self._line_of = line, number
        return [item for item in reversed(line[-limit:]) if item in bucket]
