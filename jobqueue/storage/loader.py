"""Loading: fills a `JobQueue` with the records of a store."""

from collections.abc import Callable, Iterator
from typing import Final

from jobqueue.core.queue import JobQueue
from jobqueue.core.restore import Restoration
from jobqueue.storage.records import (
    Counters,
    Damaged,
    Reader,
    StoredJob,
    StoredKey,
    StoredQueue,
    StoredSchedule,
)
from jobqueue.storage.row_builder import RowBuilder
from jobqueue.storage.store import Store, damaged

# The largest slice that is read at once.
_MAX_ROWS: Final = 400
_MAX_BYTES: Final = 1 << 20


def load(store: Store, queue: JobQueue, rows: RowBuilder, now: Callable[[], int]) -> Iterator[int]:
    """Restores the records of `store` in the empty `queue`, and registers their rows in `rows`.

    Yields the number of jobs so far after each slice; all is done when the iteration ends. `now` reads the
    monotonic clock, in milliseconds. Raises `JournalError` if the store is damaged.
    """
    restoration = Restoration(queue.state, now())
    reader = Reader()
    keys: list[StoredKey] = []
    counters: Counters | None = None
    try:
        for some in store.load(_MAX_ROWS, _MAX_BYTES):
            for key, stored in reader.read(some):
                if isinstance(stored, StoredJob):
                    restoration.job(stored.job, stored.expires, stored.due)
                    rows.job()
                elif isinstance(stored, StoredQueue):
                    restoration.named(stored.name, stored.settings, stored.pause, stored.version)
                    rows.named(key, stored.name)
                elif isinstance(stored, StoredKey):
                    keys.append(stored)
                    rows.key(key)
                elif isinstance(stored, StoredSchedule):
                    restoration.schedule(stored.schedule())
                    rows.schedule(key, stored.plan)
                else:
                    counters = stored
            yield rows.jobs
        reader.end()
        if counters is not None:
            rows.check(counters)
            restoration.numbers(counters.first_id, counters.last_number)
        elif not rows.empty:
            raise Damaged("its counters are missing")
    except Damaged as why:
        raise damaged(store.location, why, remedy=store.remedy) from None
    for stored_key in reversed(keys):  # the newest one was read first
        restoration.answered(*stored_key)
    restoration.end(now())
    rows.close()
