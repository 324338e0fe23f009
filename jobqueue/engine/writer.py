"""Writer: the one thread that writes to a store. The loop never waits for a disk."""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from jobqueue.buckets import Buckets
from jobqueue.engine.records import Row
from jobqueue.engine.store import Store

# How often it is looked whether there is space to give back, in seconds.
_LOOK_EVERY = 0.5
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 50_000)


class Writer(threading.Thread):
    """Writes one group after the other. `done` is called on the loop's thread, with what went wrong. Between
    groups it gives space back. `rows`, `seconds`: of the groups that are on disk; `pending`: rows that are
    not."""

    def __init__(
        self, store: Store, loop: asyncio.AbstractEventLoop, broke: Callable[[Exception], None]
    ) -> None:
        super().__init__(name="journal", daemon=True)
        self._store = store
        self._loop = loop
        self._broke = broke
        self._tasks: SimpleQueue[tuple[list[Row], Callable[[Exception | None], None]] | None] = SimpleQueue()
        self._unwritten: list[Row] = []
        self._failed: Exception | None = None
        self.rows = Buckets(_ROWS)
        self.seconds = Buckets(_SECONDS)
        self.pending = 0

    def write(self, rows: list[Row], done: Callable[[Exception | None], None]) -> None:
        self.pending = len(rows)
        self._tasks.put((rows, done))

    def run(self) -> None:
        look = False  # whether there is space to give back
        looked_at = 0.0
        while True:
            try:
                task = self._tasks.get(timeout=_LOOK_EVERY if look else None)
            except Empty:
                look = self._give_back()
                continue
            if task is None:
                return
            self._write(*task)
            look = self._failed is None
            if look and time.monotonic() - looked_at > _LOOK_EVERY:
                look = self._give_back()
                looked_at = time.monotonic()

    def _write(self, rows: list[Row], done: Callable[[Exception | None], None]) -> None:
        self._unwritten, self._failed = [], None
        began = time.monotonic()
        try:
            self._store.commit(rows)
        except Exception as failed:
            self._unwritten, self._failed = rows, failed
        else:
            self.seconds.add(time.monotonic() - began)
            self.rows.add(len(rows))
            self.pending = 0
        self._loop.call_soon_threadsafe(done, self._failed)

    def _give_back(self) -> bool:
        """While nothing is to be written; True if there is more to do."""
        try:
            while more := self._store.give_back():
                if not self._tasks.empty():
                    break
        except Exception as failed:
            self._failed = failed
            self._loop.call_soon_threadsafe(self._broke, failed)
            return False
        return more

    def stop(self) -> tuple[list[Row], Exception | None]:
        """Waits until all is written that was handed over. Answers the group that failed, and why."""
        self._tasks.put(None)
        self.join()
        return self._unwritten, self._failed
