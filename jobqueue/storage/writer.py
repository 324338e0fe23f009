"""Writer: the one thread that writes to a store. The loop never waits for a disk."""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from jobqueue.histogram import Histogram
from jobqueue.storage.records import Row
from jobqueue.storage.sqlite import RetryableError, Store

# How often it is looked whether there is space to give back, in seconds.
_LOOK_EVERY = 0.5
# How long until what could not be written just now is tried again, in seconds.
_AGAIN = 0.1
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 50_000)


class Writer(threading.Thread):
    """Writes the groups that it is given, in their order; all that have come by then go in one commit.
    Between commits it gives space back. On the loop's thread it says: `written(groups)`, so many more are on
    disk; `held_up(why)`, not now, it tries again; `broke(why)`, never again. `rows`, `seconds`: of the
    commits."""

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        written: Callable[[int], None],
        held_up: Callable[[RetryableError], None],
        broke: Callable[[Exception], None],
    ) -> None:
        super().__init__(name="journal", daemon=True)
        self._store = store
        self._loop = loop
        self._written = written
        self._held_up = held_up
        self._broke = broke
        self._tasks: SimpleQueue[list[Row] | None] = SimpleQueue()
        # received, and not on disk: rows of so many groups
        self._rows: list[Row] = []
        self._groups = 0
        self._stopping = False
        self._broken = False
        self._failed: Exception | None = None
        self.rows = Histogram(_ROWS)
        self.seconds = Histogram(_SECONDS)

    def write(self, rows: list[Row]) -> None:
        self._tasks.put(rows)

    def run(self) -> None:
        look = False  # whether there is space to give back
        looked_at = 0.0
        while not self._broken:
            if self._groups:  # they could not be written a moment ago
                time.sleep(_AGAIN)
                if not self._tasks.empty():
                    self._receive(None)
            elif not self._receive(_LOOK_EVERY if look else None):
                look = self._give_back()
                continue
            if self._groups:
                self._write()
            if self._stopping:
                return
            look = not self._groups
            if look and time.monotonic() - looked_at > _LOOK_EVERY:
                look = self._give_back()
                looked_at = time.monotonic()

    def _receive(self, timeout: float | None) -> bool:
        """Waits for a group and takes all that there are; False: none came in `timeout` seconds."""
        try:
            rows = self._tasks.get(timeout=timeout)
        except Empty:
            return False
        while rows is not None:
            self._rows += rows
            self._groups += 1
            if self._tasks.empty():
                return True
            rows = self._tasks.get()
        self._stopping = True
        return True

    def _write(self) -> None:
        began = time.monotonic()
        try:
            self._store.commit(self._rows)
        except RetryableError as failed:
            self._failed = failed
            self._loop.call_soon_threadsafe(self._held_up, failed)
        except Exception as failed:
            self._break(failed)
        else:
            self._failed = None
            self.seconds.add(time.monotonic() - began)
            self.rows.add(len(self._rows))
            groups, self._groups, self._rows = self._groups, 0, []
            self._loop.call_soon_threadsafe(self._written, groups)

    def _break(self, failed: Exception) -> None:
        self._failed = failed
        self._broken = True
        self._loop.call_soon_threadsafe(self._broke, failed)

    def _give_back(self) -> bool:
        """While nothing is to be written; True if there is more to do."""
        try:
            while more := self._store.give_back():
                if not self._tasks.empty():
                    break
        except Exception as failed:
            self._break(failed)
            return False
        return more

    def stop(self) -> tuple[list[Row], Exception | None]:
        """Waits until all is written that was handed over. Answers what could not be, and why."""
        self._tasks.put(None)
        self.join()
        return self._rows, self._failed
