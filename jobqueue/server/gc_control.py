"""GcControl: decides when Python's garbage collector runs.

Left to itself a full collection comes at any time, and with millions of jobs it stops everything for
seconds. Here the young generations are collected often, which takes only as long as few objects were made
since. Only a full collection finds old reference cycles, and it walks every object that the collector tracks:
queues, keys, lanes, waiters, connections; plain jobs are not tracked. So full collections come before there
are too many old objects, and those that survive are then frozen, that is, exempt from later collections:

    young ── collect(1) ──▶ old ── full collection, if many ──▶ frozen
                             ▲                                    │
                             └────────── few are left ────────────┘
"""

import asyncio
import gc
import time
from collections.abc import Callable

# Seconds between collections of the young generations. Their cost grows with what was made since the last
# one: a hundred thousand jobs a second bring some 200 lists of a thousand slots.
EVERY = 0.02
FULL_EVERY = 60.0
# The same while almost nothing is made (objects since the last collection), so that an idle server sleeps.
_RARELY = 0.1
_FEW_MADE = 100
# Old objects beyond which a full collection comes at once. Each takes up to 0.5 µs, so it stays near 10 ms.
FEW = 20_000
# Old objects beyond which there is none: they are frozen unseen.
TOO_MANY = 5 * FEW
# Seconds between counts of the old objects. A count takes a fifth of a full collection.
COUNT_EVERY = 5.0
# Jobs up to which it is worth counting what is frozen, and the longest pause between two such counts.
_FEW_JOBS = 1000
_LONGEST = 86_400.0


class GcControl:
    """Collects on the running loop from `start` to `stop`. `jobs`: returns the number of jobs, finished ones
    included. `full_at`, `count_at`: when the next full collection, and the next count of the old objects is
    due, in monotonic seconds."""

    def __init__(self, jobs: Callable[[], int]) -> None:
        now = time.monotonic()
        self.full_at = now + FULL_EVERY
        self.count_at = now + COUNT_EVERY
        self._jobs = jobs
        # Objects made and not freed since the last count. It counts as freed what was frozen, too, so it may
        # be too low.
        self._made = 0
        self._program = 0  # frozen objects of the program itself
        self._has_frozen = False  # others as well
        self._thaw_at = 0.0
        self._thaw_pause = FULL_EVERY
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._schedule(EVERY)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._run)

    def _run(self) -> None:
        self._schedule(EVERY if gc.get_count()[0] > _FEW_MADE else _RARELY)
        self.collect()

    def freeze(self) -> None:
        """Exempts everything that exists now from later collections."""
        gc.disable()
        gc.collect()
        gc.freeze()
        self._program = gc.get_freeze_count()

    def collect(self) -> None:
        now = time.monotonic()
        self._made += gc.get_count()[0]
        gc.collect(1)
        is_due = now >= self.full_at
        if not is_due and self._made < FEW and now < self.count_at:
            return
        self._made = 0
        self.count_at = now + COUNT_EVERY
        if is_due:
            self.full_at = now + FULL_EVERY
            if self._has_frozen and now >= self._thaw_at and self._jobs() <= _FEW_JOBS:
                self._thaw(now)
        old = len(gc.get_objects(2))
        if old > FEW or is_due:
            self._collect_all(old)

    def _collect_all(self, old: int) -> None:
        if old <= TOO_MANY:
            gc.collect()
        if old > FEW:
            gc.freeze()
            self._has_frozen = True

    def _thaw(self, now: float) -> None:
        """Collects what is frozen, the program itself included, if little else is left of it."""
        if gc.get_freeze_count() - self._program <= FEW:
            gc.unfreeze()
            self.freeze()
            self._has_frozen = False
            self._thaw_pause = FULL_EVERY
        else:
            self._thaw_pause = min(2 * self._thaw_pause, _LONGEST)
        self._thaw_at = now + self._thaw_pause
