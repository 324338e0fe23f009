"""Collector: Python's garbage collector, told when to run.

Left to itself a full collection comes when it likes, and with millions of jobs stops everything for seconds.
Here the young generations are collected often, which takes as long as little was made since; all of them now
and then, while there are few jobs: what has grown old in a circle is found by nothing else.
"""

import gc
from collections.abc import Callable

# How often the young generations are collected, in seconds: what that costs grows with what was made since
# the last time, and a hundred thousand jobs bring some 200 lists of a thousand slots. And every how many of
# those all are.
EVERY = 0.02
FULL_EVERY = 3000
# A job takes a full collection about 50 ns, so it stays below 5 ms.
FEW = 100_000


class Collector:
    """`jobs`: how many there are, the finished ones that are remembered too. `collect` is for a timer."""

    def __init__(self, jobs: Callable[[], int]) -> None:
        self._jobs = jobs
        self._turn = 0

    def settle(self) -> None:
        """What is there now stays: it is not looked at again."""
        gc.disable()
        gc.collect()
        gc.freeze()

    def collect(self) -> None:
        self._turn += 1
        if self._turn % FULL_EVERY == 0 and self._jobs() <= FEW:
            gc.collect()
        else:
            gc.collect(1)
