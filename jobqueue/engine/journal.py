"""JournalEngine: a MemoryEngine whose changes are on disk before anybody hears of them.

The core says which records changed (`changed`); at the end of the loop pass a group of them is encoded and
handed to one writing thread. All groups that have come while that one synced go in its next commit: no timer,
and the more there is to do the larger the commits. Answers, deliveries and outcomes wait with the group that
holds what they tell of.

                     loop's thread                                   writing thread
    verb ─▶ core ─▶ dirty records, held answers ─▶ close: rows ─────▶ Store.commit
                     (the next groups gather)                            │
    answers leave ◀───────────────── written ◀───────────────────────────┘

Plain looks may be ahead of the disk, and so may refusals. Heartbeats go along, and nobody waits for them.
"""

import asyncio
import logging
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from msgspec import UNSET

from jobqueue.clock import Clock
from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.restore import Restoration
from jobqueue.engine.api import MaybeFuture
from jobqueue.engine.memory import MemoryEngine
from jobqueue.engine.ticker import Ticker
from jobqueue.engine.wait_future import WaitFuture, nothing
from jobqueue.errors import DiskFull, JobForgotten, JobQueueError, Overloaded, Stopping
from jobqueue.model import (
    Change,
    Delivery,
    DequeueRequest,
    EngineStats,
    ExistingJob,
    IdempotencyKey,
    ImportItem,
    ImportResult,
    Job,
    JournalStats,
    NewJob,
    RecordedAnswer,
)
from jobqueue.settings import Settings
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.records import Counters, Damaged, Reader, Row, StoredJob, StoredKey, StoredQueue
from jobqueue.storage.row_builder import RowBuilder
from jobqueue.storage.sqlite import JournalError, NoSpace, RetryableError, Store
from jobqueue.storage.writer import Writer

T = TypeVar("T")
# Futures, and what they will be answered.
_Held: TypeAlias = list[tuple[Future[Any], object]]
_log = logging.getLogger("jobqueue")
# What may be on its way to the disk; beyond it new jobs are refused.
MOST_RECORDS = 50_000
MOST_BYTES = 64 << 20
# Read from the store between two looks at the sockets: rows, bytes.
_LOADED_AT_ONCE = (400, 1 << 20)
# Free space below which new jobs are refused, and above which they are taken again.
LOW = 8 << 20
ENOUGH = 3 * LOW


class JournalEngine(MemoryEngine):
    """`load` first. `on_failure` is called once, with the reason, if the store cannot be written: no request
    is taken from then on, and the process is to end."""

    def __init__(self, folder: DataDir, settings: Settings | None = None, clock: Clock | None = None) -> None:
        super().__init__(settings, clock)
        self.identity = folder.identity()
        self.durability = f"journal, sync {self.settings.sync}"
        self.refuses = "the server is reading its journal"
        self.on_failure: Callable[[str], None] = lambda reason: None
        self._folder = folder
        self._store = Store(folder.path, self.settings.sync)
        self._writer: Writer | None = None
        self._timer: Ticker | None = None
        self._is_broken = False  # nothing is written any more
        # the group that gathers; closed at the end of this loop pass, or not yet
        self._dirty: dict[Job | NamedQueue, None] = {}
        self._held: _Held = []
        self._gathered = 0  # bytes of the payloads of new jobs
        self._closing = False
        # groups on their way to the disk, the oldest first: rows, bytes gathered, who waits; and the sums
        self._groups: deque[tuple[int, int, _Held]] = deque()
        self._rows_out = self._bytes_out = 0
        # how it is: answers wait; several wait as one; no room
        self._waits = self.settings.sync != "interval"
        self._together = False
        self._full = False
        self._book = RowBuilder(self._queue.state)

    # -- the beginning ------------------------------------------------------------------------------

    async def load(self) -> int:
        """Fills the memory from the store, in slices, and lets requests in. Answers how many jobs there are.
        Raises `JournalError`."""
        self._loop = asyncio.get_running_loop()
        now = self._clock.monotonic()
        self._queue.state.set_wall_offset(self._clock.wall() - now)
        book, restoration = self._book, Restoration(self._queue.state, now)
        reader = Reader()
        keys: list[StoredKey] = []
        counters: Counters | None = None
        try:
            for rows in self._store.load(*_LOADED_AT_ONCE):
                for key, stored in reader.read(rows):
                    if isinstance(stored, StoredJob):
                        restoration.job(stored.job, stored.expires, stored.due)
                        book.job()
                    elif isinstance(stored, StoredQueue):
                        restoration.named(stored.name, stored.settings, stored.pause, stored.version)
                        book.named(key, stored.name)
                    elif isinstance(stored, StoredKey):
                        keys.append(stored)
                        book.key(key)
                    else:
                        counters = stored
                self.refuses = f"the server is reading its journal: {book.jobs:,} jobs so far"
                await asyncio.sleep(0)
            reader.end()
            if counters is None and not book.empty:
                raise Damaged("its counters are missing")
            if counters is not None:
                book.check(counters)
                restoration.numbers(counters.first_id, counters.last_number)
        except Damaged as damaged:
            raise JournalError(
                f"{self._store.path} is damaged: {damaged}. `./scripts/run.sh journal repair` saves the rest"
            ) from None
        for stored_key in reversed(keys):
            restoration.answered(*stored_key)
        restoration.end(self._clock.monotonic())
        self._queue.state.changed = self._dirty.setdefault
        book.close()
        self._writer = Writer(self._store, self._loop, self._written, self._held_up, self._broken)
        self._writer.start()
        if counters is None:
            self._wake()
        if not (self._waits or self._clock.manual):
            self._timer = Ticker(self._flush, self.settings.sync_interval)
            self._timer.start()
        more = True
        while more:  # what came due since the last run: it is done before anybody is served
            _, more = self._slice()
            await asyncio.sleep(0)
        if not self._is_broken:
            self.refuses = None
        self._now()  # from now on what is due comes to pass, whether anybody asks or not
        return book.jobs

    # -- the verbs ----------------------------------------------------------------------------------

    def enqueue(self, new: NewJob) -> MaybeFuture[Job | ExistingJob]:
        self._admit()
        made = super().enqueue(new)
        if isinstance(made, Job):
            self._gathered += len(made.payload)
        return self._hold(made)

    def enqueue_many(
        self, news: Sequence[NewJob], once: IdempotencyKey | None = None
    ) -> MaybeFuture[list[Job | ExistingJob]]:
        self._admit()
        return self._hold_all(super().enqueue_many(news, once))

    def enqueue_each(self, news: Sequence[NewJob]) -> MaybeFuture[list[Job | ExistingJob | JobQueueError]]:
        self._admit()
        return self._hold_all(super().enqueue_each(news))

    def import_jobs(self, arrivals: Sequence[ImportItem]) -> MaybeFuture[ImportResult]:
        self._admit()
        taken = super().import_jobs(arrivals)
        if isinstance(taken, ImportResult) and taken.imported:
            self._gathered += sum(len(arrival.new.payload) for arrival in arrivals)
        return self._hold(taken)

    def dequeue(self, want: DequeueRequest, wait: int = 0) -> MaybeFuture[list[Delivery]]:
        answer = super().dequeue(want, wait)
        if not answer or isinstance(answer, Future):
            return answer  # `_deliver` sees to those who wait
        if not self._must_wait():
            return answer
        held = WaitFuture[list[Delivery]](loop=self._loop)
        held.withdraw = partial(self.give_back, answer)
        self._hold_for(held, answer)
        return held

    def _deliver(self, waiting: WaitFuture[list[Delivery]], handed: list[Delivery]) -> None:
        if handed and self._waits:
            waiting.withdraw = partial(self.give_back, handed)
            self._hold_for(waiting, handed)
        else:
            super()._deliver(waiting, handed)

    def give_back(self, handed: Sequence[Delivery]) -> None:
        super().give_back(handed)
        self._flush()

    def conclude(
        self, id: int, token: str | None, consumer: str | None, result: bytes | None
    ) -> MaybeFuture[Job]:
        return self._hold(super().conclude(id, token, consumer, result))

    def each(self, calls: Sequence[Callable[[], MaybeFuture[Job]]]) -> MaybeFuture[list[Job | JobQueueError]]:
        self._together = True
        try:
            results = super().each(calls)
        finally:
            self._together = False
        return self._hold(results)

    def wait_for(self, id: int, wait: int) -> MaybeFuture[Job]:
        answer = super().wait_for(id, wait)
        return answer if not wait or isinstance(answer, Future) else self._hold(answer)

    def _deliver_outcome(self, waiting: WaitFuture[Job], job: Job) -> None:
        if self._waits:
            waiting.withdraw = nothing
            try:
                self._hold_for(waiting, self._queue.get(job.id))
            except JobForgotten as gone:  # it was purged
                self._hold_for(waiting, gone)
        else:
            super()._deliver_outcome(waiting, job)

    def change(self, id: int, change: Change, version: int | None = None) -> MaybeFuture[Job]:
        if change.payload is UNSET:
            return self._hold(super().change(id, change, version))
        self._admit()
        changed = super().change(id, change, version)
        self._gathered += len(change.payload)
        return self._hold(changed)

    def after_commit(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        return self._hold(answer)

    def _remember(self, once: IdempotencyKey, ids: tuple[int, ...], now: int) -> None:
        super()._remember(once, ids, now)
        until = self._queue.state.wall(now) + self._queue.state.limits.idempotency
        self._book.answered(once.owner, once.key, RecordedAnswer(once.digest, ids, once.many, until))

    def stats(self, within: Callable[[str], bool] | None = None) -> EngineStats:
        stats, writer = super().stats(within), self._writer
        if writer is None:
            return stats
        pending = self._rows_out + len(self._dirty)
        journal = JournalStats(writer.rows, writer.seconds, pending, self._store.size(), self._full)
        return stats._replace(journal=journal)

    def _slice(self) -> tuple[int, bool]:
        result = super()._slice()
        self._flush()
        self._look_for_room()
        return result

    def _look_for_room(self) -> None:
        """Refuses new jobs before there is no room for them, and takes them again once there is."""
        free = self._folder.free()
        if self._full:
            self._full = free < ENOUGH or not self._folder.keep_reserve()
        else:
            self._full = free < LOW

    # -- the group that gathers ---------------------------------------------------------------------

    def _admit(self) -> None:
        """Before anything changes. Raises `DiskFull`, `Overloaded`."""
        if self._full:
            raise DiskFull("the disk is almost full: nothing is put in; what is there can be finished")
        if self._behind() or self._gathered + self._bytes_out > MOST_BYTES:
            raise Overloaded("the disk does not keep up with what is put in", retry_after=1)

    def _hold_all(self, made: MaybeFuture[list[T]]) -> MaybeFuture[list[T]]:
        """Of what was put in, only new jobs are gathered: a refusal leaves nothing to write, and so nothing
        that would ever set the sum back."""
        assert isinstance(made, list)  # the core answers at once
        self._gathered += sum(len(one.payload) for one in made if isinstance(one, Job))
        return self._hold(made)

    def _hold(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        """`answer`, once what it tells of is on disk."""
        if not self._must_wait():
            return answer
        held: Future[T] = self._loop.create_future()
        if isinstance(answer, Future):  # it works; who waits for it may leave, and may not be ended
            held.add_done_callback(partial(_give_up, answer))
            answer.add_done_callback(partial(self._hold_done, held))
        else:
            self._hold_for(held, answer)
        return held

    def _must_wait(self) -> bool:
        return not self._together and (self._waits or self._behind())

    def _behind(self) -> bool:
        return len(self._dirty) + self._rows_out > MOST_RECORDS

    def _hold_done(self, held: Future[T], done: Future[T]) -> None:
        if not done.cancelled():
            self._hold_for(held, done.exception() or done.result())

    def _hold_for(self, held: Future[Any], answer: object) -> None:
        self._held.append((held, answer))
        if not self._closing:
            self._wake()

    def _flush(self) -> None:
        """Nobody may wait for what has changed, and yet it is to be written."""
        if self._dirty and not self._closing:
            self._wake()

    def _wake(self) -> None:
        """What else comes in this loop pass goes along."""
        self._closing = True
        self._loop.call_soon(self._close_group)

    def flush(self) -> None:
        if self._closing:
            self._close_group()

    def _close_group(self) -> None:
        if not self._closing:  # `flush` was earlier
            return
        self._closing = False
        if self._writer is None or self._is_broken:
            self._fail_held()
            return
        size, rows = self._gathered, self._gather()
        held, self._held = self._held, []
        if rows:
            self._groups.append((len(rows), size, held))
            self._rows_out += len(rows)
            self._bytes_out += size
            self._writer.write(rows)
        elif self._groups:
            self._groups[-1][2].extend(held)  # what they tell of may be on its way
        else:
            self._answer(held)

    def _gather(self) -> list[Row]:
        rows = self._book.rows(self._dirty)
        self._dirty.clear()
        self._gathered = 0
        return rows

    def _written(self, groups: int) -> None:
        """So many more are on disk."""
        for _ in range(min(groups, len(self._groups))):
            rows, size, held = self._groups.popleft()
            self._rows_out -= rows
            self._bytes_out -= size
            self._answer(held)

    def _held_up(self, why: RetryableError) -> None:
        if isinstance(why, NoSpace):
            self._full = True
            self._folder.use_reserve()

    def _answer(self, held: _Held) -> None:
        for future, answer in held:
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _broken(self, why: Exception) -> None:
        """Nothing that is on its way is acknowledged, and the file is not trusted any more."""
        first, self._is_broken = not self._is_broken, True
        self.refuses = "the server could not write its journal, and ends"
        if self._ticker is not None:
            self._ticker.stop()
        self.stop_waiting()
        self._fail_held()
        if first:
            self.on_failure(str(why))

    def _fail_held(self) -> None:
        for future, _ in self._take_held():
            if not future.done():
                future.set_exception(
                    Stopping(
                        "the server could not write its journal, and ends; whether this was done will be "
                        "known when it is back",
                        retry_after=5,
                    )
                )

    def _take_held(self) -> _Held:
        """Of all groups, in order; nothing is on its way any more."""
        held = [one for group in self._groups for one in group[2]] + self._held
        self._groups.clear()
        self._held = []
        self._rows_out = self._bytes_out = 0
        return held

    # -- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """What is still gathered is written, and the file is closed. Blocks until then."""
        super().close()
        if self._timer is not None:
            self._timer.stop()
        writer, self._writer = self._writer, None
        self._queue.state.changed = None
        if writer is not None:
            unwritten, failed = writer.stop()
            if failed is None or isinstance(failed, RetryableError):
                self._write_rest(unwritten + self._gather())
            else:
                self._broken(failed)
        self._store.close()
        self._folder.close()

    def _write_rest(self, rows: list[Row]) -> None:
        try:
            if rows:
                self._store.commit(rows)
            self._answer(self._take_held())
        except RetryableError as failed:
            _log.error("the last changes could not be written, and nobody has heard of them: %s", failed)
        except Exception as failed:
            self._broken(failed)


def _give_up(work: Future[Any], held: Future[Any]) -> None:
    if held.cancelled():
        work.cancel()
