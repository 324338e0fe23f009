"""Writer: the one thread that writes to a store, so that the event loop never waits for a disk."""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from jobqueue.histogram import Histogram
from jobqueue.storage.records import Row
from jobqueue.storage.store import RetryableError, Store

# Seconds between two checks for unused space, and before a group that could not be written is tried again.
_RELEASE_INTERVAL = 0.5
RETRY_DELAY = 0.1
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 50_000)


class Writer(threading.Thread):
    """Writes groups of rows in the order in which they were handed over.

    All groups that have arrived by the time a commit starts go into that commit. Between commits the thread
    releases unused space, or checks the store. It calls back on the loop's thread:

    `on_written(groups)`: that number of further groups is on disk. 0: a check that had failed succeeds again.
    `on_retry(error)`: nothing was written, or a check failed; the thread tries again.
    `on_failure(error)`: the store failed for good; the thread ends.

    `rows` and `seconds` are histograms of the commits: their size and their duration.
    """

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        on_written: Callable[[int], None],
        on_retry: Callable[[RetryableError], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        super().__init__(name="journal", daemon=True)
        self._store = store
        self._loop = loop
        self._on_written = on_written
        self._on_retry = on_retry
        self._on_failure = on_failure
        # Rows, and whether they are to be synced; None: stop.
        self._arriving: SimpleQueue[tuple[list[Row], bool] | None] = SimpleQueue()
        # Received and not on disk yet: the rows of this number of groups.
        self._rows: list[Row] = []
        self._groups = 0
        self._sync = False  # one of the groups is to be synced
        self._stopping = False
        self._failed = False
        self._error: Exception | None = None  # of the last commit
        self.rows = Histogram(ROWS)
        self.seconds = Histogram(SECONDS)

    def write(self, rows: list[Row], sync: bool = True) -> None:
        """Hands over a group. Returns at once. Without `sync` the sync of a later group is good enough."""
        self._arriving.put((rows, sync))

    def run(self) -> None:
        may_release = False  # there may be unused space
        released_at = 0.0
        while not self._failed:
            if self._groups:  # the last commit is to be tried again
                time.sleep(RETRY_DELAY)
                if not self._arriving.empty():
                    self._receive(None)
            elif not self._receive(_RELEASE_INTERVAL if may_release else self._store.check_interval):
                if may_release:
                    may_release = self._release_space()
                else:
                    self._check()
                continue
            if self._groups:
                self._commit()
            if self._stopping:
                return
            may_release = not self._groups
            if may_release and time.monotonic() - released_at > _RELEASE_INTERVAL:
                may_release = self._release_space()
                released_at = time.monotonic()

    def _receive(self, timeout: float | None) -> bool:
        """Waits for a group, and takes all that have arrived. False: none came within `timeout` seconds."""
        try:
            group = self._arriving.get(timeout=timeout)
        except Empty:
            return False
        while group is not None:
            self._rows += group[0]
            self._sync = self._sync or group[1]
            self._groups += 1
            if self._arriving.empty():
                return True
            group = self._arriving.get()
        self._stopping = True
        return True

    def _commit(self) -> None:
        began = time.monotonic()
        if self._succeeds(self._commit_rows):
            self.seconds.add(time.monotonic() - began)
            self.rows.add(len(self._rows))
            groups, self._groups, self._rows, self._sync = self._groups, 0, [], False
            self._loop.call_soon_threadsafe(self._on_written, groups)

    def _commit_rows(self) -> None:
        if self._sync:
            self._store.commit(self._rows)
        else:
            self._store.commit(self._rows, sync=False)

    def _check(self) -> None:
        had_failed = self._error is not None
        if self._succeeds(self._store.check) and had_failed:
            self._loop.call_soon_threadsafe(self._on_written, 0)

    def _succeeds(self, work: Callable[[], None]) -> bool:
        """Does a part of the store's work. Returns whether it succeeded; if not, the loop is told."""
        try:
            work()
        except RetryableError as error:
            self._error = error
            self._loop.call_soon_threadsafe(self._on_retry, error)
        except Exception as error:
            self._fail(error)
        else:
            self._error = None
            return True
        return False

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._failed = True
        self._loop.call_soon_threadsafe(self._on_failure, error)

    def _release_space(self) -> bool:
        """Releases space until a group arrives. True if there is more to release."""
        try:
            while more := self._store.release_space():
                if not self._arriving.empty():
                    break
        except Exception as error:
            self._fail(error)
            return False
        return more

    def stop(self) -> tuple[list[Row], Exception | None]:
        """Waits until all groups are written, or their last try has failed. Returns the rows that are not on
        disk, and why."""
        self._arriving.put(None)
        self.join()
        return self._rows, self._error
