"""Idempotency keys: a repeated request gets the answer of the first one.

A key is remembered for a time, within a limit on their number; both are in `Limits`. The ids in the answers
are limited too, because one request may have made many jobs.
"""

from collections import OrderedDict

from jobqueue.model import RecordedAnswer

# How many ids may be remembered for each key, on average. An id takes 36 bytes.
_IDS = 4
# The owner of the keys that remember the imports of callers without a name. That of a caller with one is
# this, a slash and the name. No access token has such a name.
IMPORTS = "/import"
# That of the keys that remember which sessions of the dashboard were ended early.
LOGOUTS = "/logout"


class IdempotencyKeys:
    """The recorded answers by owner and key, the oldest first. All operations are O(1).

    Those of an earlier run have a wall-clock `until`, since only that clock tells how much of their time is
    over. `wall_offset` is wall clock minus monotonic clock, in milliseconds.
    """

    __slots__ = (
        "_age",
        "_answered",
        "_ids",
        "_limit",
        "_pushed_out_until",
        "_restored",
        "dropped",
        "dropped_origins",
        "wall_offset",
    )

    def __init__(self, age: int, limit: int) -> None:
        self.wall_offset = 0
        self._age = age
        self._limit = limit
        # Keys that were dropped before their time since the start, and those of imported jobs.
        self.dropped = self.dropped_origins = 0
        self._ids = 0
        self._pushed_out_until = 0  # when the last key that was dropped for the limit would have expired
        self._restored: OrderedDict[tuple[str, str], RecordedAnswer] = OrderedDict()  # of an earlier run
        self._answered: OrderedDict[tuple[str, str], RecordedAnswer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._restored) + len(self._answered)

    def window(self, now: int) -> int:
        """Returns for how many milliseconds a key is remembered at present. While there are too many, this is
        the age of the oldest one."""
        if len(self) < self._limit and self._pushed_out_until <= now:
            return self._age
        oldest = self._oldest()
        return 0 if oldest is None else min(max(self._age - (oldest[1] - now), 0), self._age)

    def get(self, owner: str, key: str, now: int) -> RecordedAnswer | None:
        found = self._answered.get((owner, key))
        if found is not None:
            return found if found.until > now else None
        found = self._restored.get((owner, key))
        return found if found is not None and found.until > now + self.wall_offset else None

    def put(self, owner: str, key: str, digest: bytes, ids: tuple[int, ...], many: bool, now: int) -> None:
        self._drop(owner, key)
        self._answered[owner, key] = RecordedAnswer(digest, ids, many, now + self._age)
        self._ids += len(ids)
        while len(self) > self._limit or self._ids > _IDS * self._limit:
            oldest = self._oldest()
            assert oldest is not None
            self._pushed_out_until = oldest[1]
            self._drop(*oldest[0])
            if oldest[0][0].startswith(IMPORTS):
                self.dropped_origins += 1
            else:
                self.dropped += 1

    def restore(self, owner: str, key: str, answered: RecordedAnswer) -> None:
        """Adds an answer of an earlier run, with its wall-clock `until`. The oldest one must be added
        first."""
        self._drop(owner, key)  # the run ended before it removed the older row
        self._restored[owner, key] = answered
        self._ids += len(answered.ids)

    def forget_old(self, now: int, limit: int) -> bool:
        """Drops up to `limit` keys whose time is over. Returns whether there may be more."""
        return self._forget(self._restored, now + self.wall_offset, limit) or self._forget(
            self._answered, now, limit
        )

    def _forget(self, kept: OrderedDict[tuple[str, str], RecordedAnswer], now: int, limit: int) -> bool:
        for _ in range(limit):
            first = next(iter(kept.items()), None)
            if first is None or first[1].until > now:
                return False
            self._drop(*first[0])
        return True

    def _oldest(self) -> tuple[tuple[str, str], int] | None:
        """Returns the oldest key, and when it expires by the monotonic clock."""
        for key, answered in self._restored.items():
            return key, answered.until - self.wall_offset
        for key, answered in self._answered.items():
            return key, answered.until
        return None

    def _drop(self, owner: str, key: str) -> None:
        for kept in (self._restored, self._answered):
            if (before := kept.pop((owner, key), None)) is not None:
                self._ids -= len(before.ids)
