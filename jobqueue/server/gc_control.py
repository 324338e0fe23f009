"""Collector: Python's garbage collector, told when to run.

Left to itself a full collection comes when it likes, and with millions of jobs stops everything for seconds.
Here the young generations are collected often, which takes as long as little was made since; all of them now
and then, while there are few jobs: what has grown old in a circle is found by nothing else.
"""

import asyncio
import gc
import time
from collections.abc import Callable

# How often the young generations are collected, in seconds: what that costs grows with what was made since
# the last time, and a hundred thousand jobs bring some 200 lists of a thousand slots. And how often all are.
EVERY = 0.02
FULL_EVERY = 60.0
# How often the young are while almost nothing is made (objects since the last time): an idle server sleeps.
_RARELY = 0.1
_FEW_MADE = 100
# A job takes a full collection about 50 ns, so it stays below 5 ms.
FEW = 100_000


class GcControl:
    """`jobs`: how many there are, the finished ones that are remembered too. Works on the running loop, from
    `start` to `stop`."""

    def __init__(self, jobs: Callable[[], int]) -> None:
        self._jobs = jobs
        self.full_at = time.monotonic() + FULL_EVERY
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._next(EVERY)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _next(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._again)

    def _again(self) -> None:
        self._next(EVERY if gc.get_count()[0] > _FEW_MADE else _RARELY)
        self.collect()

    def freeze(self) -> None:
        """What is there now stays: it is not looked at again."""
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
