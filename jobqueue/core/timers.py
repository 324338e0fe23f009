"""Timers: items that become due at a time, such as leases, waits, delays, expiries and pauses.

The items are in buckets of some milliseconds, and a heap holds the numbers of the buckets:

    _numbers   [ 412  415  418 ]       bucket number = time // width
    _buckets   { 412: {item: time, …}, 415: {…}, 418: {…} }

Adding and dropping are O(1) on average. A dropped item is gone at once, and so is a bucket without items,
unless it is the newest one. The heap keeps the number of such a bucket until it gets to the top, or until
they are more than half of the heap. A heap with an entry for each item would keep the dropped items: at
20,000 jobs a second under leases of five minutes, six million of them. Times are milliseconds of one clock.

A bucket with very many items is in parts, so that no call goes through all of them: `_full` has the earlier
parts, in order, each with the time before which nothing in it is due; `_buckets` has the last part.
"""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import chain, islice
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)
# The most items of a part of a bucket.
_MOST: Final = 16_384
# The heap is rebuilt only if it has at least this many numbers without a bucket.
_OUTDATED: Final = 256


class FullPart(Generic[T]):
    """A part of a bucket to which nothing is added any more. Nothing in it is due before `earliest`."""

    __slots__ = ("earliest", "items")

    def __init__(self, items: dict[T, int]) -> None:
        self.items = items
        self.earliest = min(items.values())


class Timers(Generic[T]):
    """Items are anything hashable. `width` is the number of milliseconds in a bucket."""

    __slots__ = ("_buckets", "_full", "_newest", "_numbers", "_pending", "_pending_number", "_width")

    def __init__(self, width: int = 100) -> None:
        self._width = width
        self._buckets: dict[int, dict[T, int]] = {}
        self._full: dict[int, list[FullPart[T]]] = {}
        self._numbers: list[int] = []
        self._newest = 0  # the number of the bucket that was created last
        # The items of the bucket `_pending_number` that `due` has yet to return, in reverse order.
        self._pending: list[T] = []
        self._pending_number = -1

    def __len__(self) -> int:
        """Returns the number of items. O(buckets)."""
        full = sum([len(part.items) for parts in self._full.values() for part in parts])
        return full + sum(map(len, self._buckets.values()))

    def add(self, item: T, when: int) -> None:
        """Schedules `item`. To reschedule it, drop it first."""
        number = when // self._width
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._new_bucket(number)
        elif len(bucket) >= _MOST:
            self._full.setdefault(number, []).append(FullPart(bucket))
            bucket = self._buckets[number] = {}
        bucket[item] = when

    def _new_bucket(self, number: int) -> dict[T, int]:
        newest = self._buckets.get(self._newest)
        if newest is not None and not newest:
            del self._buckets[self._newest]
        self._newest = number
        bucket: dict[T, int] = {}
        self._buckets[number] = bucket
        heappush(self._numbers, number)
        if len(self._numbers) > 2 * len(self._buckets) + _OUTDATED:
            self._numbers = list(self._buckets)
            heapify(self._numbers)
        return bucket

    def drop(self, item: T, when: int) -> None:
        """Removes `item`, which was added with this `when`. Raises `KeyError` if it is not scheduled."""
        number = when // self._width
        bucket = self._buckets[number]
        if self._full and self._drop_from_full(item, number):
            return
        del bucket[item]
        if not bucket:
            self._empty(number, bucket)

    def _empty(self, number: int, bucket: dict[T, int]) -> None:
        """Ends the last part of a bucket, which has no items any more."""
        parts = self._full.get(number)
        if parts:
            self._buckets[number] = parts.pop().items
            if not parts:
                del self._full[number]
        elif number == self._newest:  # kept, as the next item is often for the same bucket
            bucket.clear()  # a dict that lost its last item by `del` keeps its full size
        else:
            del self._buckets[number]

    def _drop_from_full(self, item: T, number: int) -> bool:
        """Removes `item` if it is in an earlier part of a bucket."""
        parts = self._full.get(number, [])
        for index, part in enumerate(parts):
            if item in part.items:
                del part.items[item]
                if not part.items:
                    del parts[index]
                if not parts:
                    del self._full[number]
                return True
        return False

    def discard(self, item: T, now: int) -> None:
        """Removes an item that `due` returned at `now`, if it is still scheduled."""
        for number in (self._pending_number, now // self._width):
            if self._drop_from_full(item, number):
                break
            if (bucket := self._buckets.get(number)) and bucket.pop(item, None) is not None:
                if not bucket:
                    self._empty(number, bucket)
                break

    def some(self, limit: int) -> list[T]:
        """Returns up to `limit` of all items, in no order."""
        full = [part.items for parts in self._full.values() for part in parts]
        return list(islice(chain.from_iterable([*full, *self._buckets.values()]), limit))

    def earliest(self) -> int | None:
        """Returns the time of the item that becomes due first; None: there is none. O(one bucket)."""
        while self._numbers:
            number = self._numbers[0]
            bucket = self._buckets.get(number)
            if bucket:
                parts = [part.items for part in self._full.get(number, [])]
                return min([min(part.values()) for part in [*parts, bucket]])
            heappop(self._numbers)
            self._buckets.pop(number, None)
        return None

    def due(self, now: int, limit: int) -> list[T]:
        """Returns up to `limit` items with `when <= now`, from the earliest bucket that has any, in the order
        in which they were added. They stay scheduled, and the caller must drop each of them."""
        last = now // self._width
        while self._numbers and self._numbers[0] <= last:
            number = self._numbers[0]
            bucket = self._buckets.get(number)
            if bucket:
                parts = self._full.get(number, [])
                if number < last:
                    return self._next_pending(number, parts[0].items if parts else bucket, limit)
                for part in parts:
                    if part.earliest <= now:
                        if found := _due_in(part.items, now, limit):
                            return found
                        part.earliest = min(part.items.values())
                return _due_in(bucket, now, limit)
            heappop(self._numbers)
            self._buckets.pop(number, None)
        return []

    def _next_pending(self, number: int, bucket: dict[T, int], limit: int) -> list[T]:
        """Returns the next items of a bucket that is due as a whole. The list of them is kept between calls,
        because finding the first item of a dict that has lost its first ones means skipping all of those."""
        pending = self._pending if self._pending_number == number else []
        while pending and pending[-1] not in bucket:
            pending.pop()
        if not pending:
            pending = list(bucket)
            pending.reverse()
        self._pending, self._pending_number = pending, number
        return [item for item in reversed(pending[-limit:]) if item in bucket]


def _due_in(items: dict[T, int], now: int, limit: int) -> list[T]:
    found = []
    for item, when in items.items():  # not a generator: compiled code would list all items
        if when <= now:
            found.append(item)
            if len(found) == limit:
                break
    return found
