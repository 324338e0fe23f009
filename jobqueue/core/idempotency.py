"""Idempotency keys: a repeated request gets the answer of the first one.

A key is remembered for a time, within a limit on their number; both are in `Limits`. The ids in the answers
are limited too, because one request may have made many jobs.
"""

from collections import OrderedDict

from jobqueue.model import RecordedAnswer

# How many ids may be remembered for each key, on average. An id takes 36 bytes.
_IDS = 4


class IdempotencyKeys:
    """The recorded answers by owner and key, the oldest first. All operations are O(1)."""

    __slots__ = ("_age", "_answered", "_ids", "_limit", "_pushed_out_until")

    def __init__(self, age: int, limit: int) -> None:
        self._age = age
        self._limit = limit
        self._ids = 0
        self._pushed_out_until = 0  # when the last key that was dropped for the limit would have expired
        self._answered: OrderedDict[tuple[str, str], RecordedAnswer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answered)

    def window(self, now: int) -> int:
        """Returns for how many milliseconds a key is remembered at present. While there are too many, this is
        the age of the oldest one."""
        if len(self._answered) < self._limit and self._pushed_out_until <= now:
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
            self._pushed_out_until = oldest.until

    def restore(self, owner: str, key: str, answered: RecordedAnswer) -> None:
        """Adds an answer of an earlier run. The oldest one must be added first."""
        before = self._answered.pop((owner, key), None)
        if before is not None:  # the run ended before it removed the older row
            self._ids -= len(before.ids)
        self._answered[owner, key] = answered
        self._ids += len(answered.ids)

    def forget_old(self, now: int, limit: int) -> bool:
        """Drops up to `limit` keys whose time is over. Returns whether there may be more."""
        for _ in range(limit):
            first = next(iter(self._answered.items()), None)
            if first is None or first[1].until > now:
                return False
            del self._answered[first[0]]
            self._ids -= len(first[1].ids)
        return True
