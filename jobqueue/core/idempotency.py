"""Idempotency keys: a request that was answered before is answered with what it made then.

A key is remembered for a day, and only the newest million of them; both bounds have names in `Limits`. The
ids of large batches are bounded too.
"""

from collections import OrderedDict

from jobqueue.model import RecordedAnswer

# Ids remembered for each key that may be, on average: 36 bytes each.
_IDS = 4


class IdempotencyKeys:
    """By owner and key, the oldest first. O(1) each."""

    __slots__ = ("_age", "_answered", "_ids", "_limit", "_pushed_out")

    def __init__(self, age: int, limit: int) -> None:
        self._age = age
        self._limit = limit
        self._ids = 0
        self._pushed_out = 0  # until when the last one would have been remembered that had to make room
        self._answered: OrderedDict[tuple[str, str], RecordedAnswer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answered)

    def window(self, now: int) -> int:
        """For how many milliseconds a key is remembered now: where there are too many, as long as the oldest
        one has been."""
        if len(self._answered) < self._limit and self._pushed_out <= now:
            return self._age
        oldest = next(iter(self._answered.values()), None)
        return 0 if oldest is None else max(self._age - (oldest.until - now), 0)

    def get(self, owner: str, key: str, now: int) -> RecordedAnswer | None:
        found = self._answered.get((owner, key))
        return found if found is not None and found.until > now else None

    def put(self, owner: str, key: str, digest: bytes, ids: tuple[int, ...], many: bool, now: int) -> None:
        before = self._answered.pop((owner, key), None)
        if before is not None:
            self._ids -= len(before.ids)
        self._answered[owner, key] = RecordedAnswer(digest, ids, many, now + self._age)
        self._ids += len(ids)
        while len(self._answered) > self._limit or self._ids > _IDS * self._limit:
            _, oldest = self._answered.popitem(last=False)
            self._ids -= len(oldest.ids)
            self._pushed_out = oldest.until

    def restore(self, owner: str, key: str, answered: RecordedAnswer) -> None:
        """Of an earlier run; the oldest first."""
        before = self._answered.pop((owner, key), None)
        if before is not None:  # the run ended before the older row was dropped
            self._ids -= len(before.ids)
        self._answered[owner, key] = answered
        self._ids += len(answered.ids)

    def forget_old(self, now: int, limit: int) -> bool:
        """Drops up to `limit` keys whose time is over; True if there may be more."""
        for _ in range(limit):
            first = next(iter(self._answered.items()), None)
            if first is None or first[1].until > now:
                return False
            del self._answered[first[0]]
            self._ids -= len(first[1].ids)
        return True
