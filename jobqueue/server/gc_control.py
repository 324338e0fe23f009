"""GcControl: decides when Python's garbage collector runs.

Left to itself a full collection comes at any time, and with millions of jobs it stops everything for
seconds. Here the young generations are collected often, which takes only as long as few objects were made
since. A full collection runs now and then while there are few jobs; only it finds old reference cycles.
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
# Jobs up to which full collections run. Each takes about 50 ns of one, so it stays below 5 ms.
FEW = 100_000


class GcControl:
    """Collects on the running loop from `start` to `stop`. `jobs`: returns the number of jobs, finished ones
    included. `full_at`: when the next full collection is due, monotonic seconds."""

    def __init__(self, jobs: Callable[[], int]) -> None:
        self._jobs = jobs
        self.full_at = time.monotonic() + FULL_EVERY
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

    def collect(self) -> None:
        now = time.monotonic()
        if now >= self.full_at:
            self.full_at = now + FULL_EVERY
            if self._jobs() <= FEW:
                gc.collect()
                return
        gc.collect(1)
