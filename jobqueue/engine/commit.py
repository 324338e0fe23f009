"""Commit policies: when the answer to a change may leave the engine.

The engine makes every change in memory at once, and passes the answer through its policy. `NoCommit` returns
the answer as it is. `GroupCommit` holds it until the change is on disk:

                      event loop                                       writing thread
    verb ─▶ core ─▶ changed records, pending answers ─▶ group of rows ─▶ Store.commit
                      (the next group gathers)                             │
    answers leave ◀──────────────────── on_written ◀───────────────────────┘

The core reports each changed record. At the end of the loop pass the records are encoded as one group of
rows, and handed to the writer. All groups that arrive while a commit is being synced go into the next commit,
so there is no timer, and commits grow with the load.

Deliveries to waiting consumers, and outcomes, are held like answers. Plain reads and refusals may be ahead of
the disk. Heartbeats are written, but their answers are not held.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from asyncio import Future
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from jobqueue.clock import Clock
from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.queue import JobQueue
from jobqueue.engine.api import MaybeFuture, refuse
from jobqueue.engine.ticker import Ticker
from jobqueue.engine.wait_future import WaitFuture, nothing
from jobqueue.errors import DiskFull, OutcomeUnknown, Overloaded, Stopping
from jobqueue.model import Delivery, IdempotencyKey, Job, JournalStats, Member, RecordedAnswer, Schedule
from jobqueue.settings import Settings
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.disk_watch import DiskWatch
from jobqueue.storage.loader import load
from jobqueue.storage.records import Row
from jobqueue.storage.row_builder import RowBuilder
from jobqueue.storage.store import NoSpace, RetryableError, Store, Unavailable
from jobqueue.storage.writer import Writer

T = TypeVar("T")
# Futures, and the result or the exception that each of them will get.
_Pending: TypeAlias = list[tuple[Future[Any], object]]
_log: Final = logging.getLogger("jobqueue")
# Milliseconds that answers wait for a database that does not answer. Then they are 503.
HELD: Final = 5_000
# Limits of what is not on disk yet: changed records, and bytes of new payloads. Above them new jobs are
# refused.
MAX_RECORDS: Final = 50_000
MAX_BYTES = 64 << 20


class CommitPolicy(ABC):
    """What the engine asks of its policy. All calls are made on the loop's thread."""

    durability: str  # how the API describes it
    # True while the engine makes the calls of one batch: `hold` then returns each answer at once, since the
    # answer to the batch is held.
    batching: bool

    def attach(
        self,
        queue: JobQueue,
        give_back: Callable[[Sequence[Delivery]], None],
        on_failure: Callable[[Exception], None],
        on_held_up: Callable[[str | None], None],
    ) -> None:
        """Connects the policy to its engine. Called once, before anything else. The policy calls `give_back`
        with jobs that were not delivered, and `on_failure` once, with the error, when changes can no longer
        be made durable. It calls `on_held_up` with the reason when they cannot for now, and with None when
        they can again."""
        self._queue = queue
        self._give_back = give_back
        self._on_failure = on_failure
        self._on_held_up = on_held_up

    @abstractmethod
    def load(self, clock: Clock) -> Iterator[int]:
        """Restores the durable jobs in the queue and starts to record changes. Yields the number of jobs so
        far after each slice. Raises `JournalError`."""

    @abstractmethod
    def admit(self) -> None:
        """Called before a new payload is accepted. Raises `DiskFull` or `Overloaded`."""

    @abstractmethod
    def count_payloads(self, jobs: Sequence[object]) -> None:
        """Counts the payloads that were accepted with `jobs`. Anything but a `Job` is ignored: a request that
        was refused, or that found an existing job, leaves nothing to write."""

    @abstractmethod
    def remember(self, key: IdempotencyKey, ids: tuple[int, ...], now: int) -> None:
        """Records that the request under `key` created the jobs `ids` at `now` (monotonic milliseconds)."""

    @abstractmethod
    def hold(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        """Returns `answer`, or a Future of it that is done once all changes made until now are durable."""

    @abstractmethod
    def hold_new(self, answer: T) -> MaybeFuture[T]:
        """`hold` for the result of an enqueue, or a list of results. Counts their payloads."""

    @abstractmethod
    def hold_deliveries(self, deliveries: list[Delivery]) -> MaybeFuture[list[Delivery]]:
        """`hold` for jobs that a consumer gets. If the Future is cancelled the jobs are given back."""

    @abstractmethod
    def deliver(self, waiting: WaitFuture[list[Delivery]], deliveries: list[Delivery]) -> None:
        """Ends a wait for jobs. Without deliveries `waiting` is done at once. With deliveries it is done when
        they are durable; until then its cancellation gives them back."""

    @abstractmethod
    def resolve(self, waiting: WaitFuture[Job], outcome: Job | Exception) -> None:
        """Ends the wait for an outcome, once that is durable."""

    @abstractmethod
    def schedule(self) -> None:
        """Schedules a commit even if no answer waits for it."""

    @abstractmethod
    def flush(self) -> None:
        """Commits now what is scheduled for the end of this loop pass."""

    @abstractmethod
    def after_tick(self) -> None:
        """Called after each slice of a tick."""

    def may_be_stale(self) -> bool:
        """Returns whether another server may have changed jobs meanwhile, so that memory tells nothing."""
        return False

    def members(self) -> Sequence[Member]:
        """Returns the servers that share the database, this one included."""
        return ()

    @abstractmethod
    def stats(self) -> JournalStats | None:
        """Returns the figures of the journal, or None if there is none."""

    @abstractmethod
    def close(self) -> None:
        """Makes all changes durable, and answers what is held. Blocks until then."""


class NoCommit(CommitPolicy):
    """Answers at once: the jobs are in memory only."""

    def __init__(self) -> None:
        self.durability = "memory"
        self.batching = False

    def load(self, clock: Clock) -> Iterator[int]:
        return iter(())

    def admit(self) -> None:
        pass

    def count_payloads(self, jobs: Sequence[object]) -> None:
        pass

    def remember(self, key: IdempotencyKey, ids: tuple[int, ...], now: int) -> None:
        pass

    def hold(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        return answer

    def hold_new(self, answer: T) -> MaybeFuture[T]:
        return answer

    def hold_deliveries(self, deliveries: list[Delivery]) -> MaybeFuture[list[Delivery]]:
        return deliveries

    def deliver(self, waiting: WaitFuture[list[Delivery]], deliveries: list[Delivery]) -> None:
        _finish(waiting, deliveries)

    def resolve(self, waiting: WaitFuture[Job], outcome: Job | Exception) -> None:
        _finish(waiting, outcome)

    def schedule(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def after_tick(self) -> None:
        pass

    def stats(self) -> JournalStats | None:
        return None

    def close(self) -> None:
        pass


class _Group:
    """A group on its way to the disk, and the answers that wait for it."""

    __slots__ = ("payload_bytes", "pending", "rows")

    def __init__(self, rows: int, payload_bytes: int, pending: _Pending) -> None:
        self.rows = rows
        self.payload_bytes = payload_bytes
        self.pending = pending


class GroupCommit(CommitPolicy):
    """Commits groups of changes to `store`, and holds the answers until then.

    With `sync_leases=False` a group of nothing but leases is written, and not synced: a later group's sync is
    good enough. Answers are held until it is written.

    With `sync=interval` answers are not held unless the disk falls behind, and a commit follows each tick and
    each interval.

    `data_dir` is where the store is, or None for a database. A database may be away for a while, and the
    changes wait for it: after `HELD` without a commit the answers that are held become `OutcomeUnknown`, and
    the engine takes no requests until the database has all that had changed.

    `make_writer`: `Writer`, or what writes the groups of several engines together.
    """

    def __init__(
        self,
        store: Store,
        data_dir: DataDir | None,
        settings: Settings,
        make_writer: Callable[..., Any] = Writer,
    ) -> None:
        self.durability = "PostgreSQL" if data_dir is None else f"journal, sync {settings.sync}"
        self.batching = False
        self._store = store
        self._data_dir = data_dir
        self._sync_before_answer = settings.sync != "interval"
        self._sync_leases = settings.sync_leases
        self._interval = settings.sync_interval
        self._interval_ticker: Ticker | None = None
        self._make_writer = make_writer
        self._writer: Any = None  # what `make_writer` returns, or None
        self._failed = False  # nothing is written any more
        self._disk = DiskWatch(data_dir, store)
        # Of a database that does not answer: since when, by the monotonic clock; the reason that was logged;
        # and whether the engine was told.
        self._silent_since: int | None = None
        self._away: str | None = None
        self._held_up = False
        # The group that gathers. It is committed at the end of this loop pass, if that is scheduled.
        self._changed: dict[Job | NamedQueue | Schedule, None] = {}
        self._pending: _Pending = []
        self._payload_bytes = 0
        self._commit_scheduled = False
        self._must_sync = False  # the group has more than leases
        # Groups on their way to the disk, the oldest first, and their sums.
        self._in_flight: deque[_Group] = deque()
        self._rows_in_flight = self._bytes_in_flight = 0

    def load(self, clock: Clock) -> Iterator[int]:
        self._loop = asyncio.get_running_loop()
        self._now = clock.monotonic
        self._rows = RowBuilder(self._queue.state)
        yield from load(self._store, self._queue, self._rows, clock.monotonic)
        self._queue.state.changed = self._changed.setdefault
        self._writer = self._make_writer(
            self._store, self._loop, self._on_written, self._on_retry, self._fail
        )
        self._writer.start()
        self._disk.start()
        if not self._rows.has_counters:
            self._must_sync = True
            self._schedule()
        if not (self._sync_before_answer or clock.manual):
            self._interval_ticker = Ticker(self.schedule, self._interval)
            self._interval_ticker.start()

    # -- before a change ----------------------------------------------------------------------------

    def admit(self) -> None:
        if self._disk.full:
            raise DiskFull("the disk is almost full: the server refuses new jobs until there is more space")
        if self._is_behind() or self._payload_bytes + self._bytes_in_flight > MAX_BYTES:
            raise Overloaded("the disk cannot keep up with the new jobs; try again later", retry_after=1)

    def count_payloads(self, jobs: Sequence[object]) -> None:
        for job in jobs:
            if isinstance(job, Job):
                self._payload_bytes += len(job.payload)

    def remember(self, key: IdempotencyKey, ids: tuple[int, ...], now: int) -> None:
        until = self._queue.state.wall(now) + self._queue.state.limits.idempotency
        self._rows.answered(key.owner, key.key, RecordedAnswer(key.digest, ids, key.many, until))
        if not self._commit_scheduled:  # nothing else may have changed
            self._schedule()

    # -- holding answers ----------------------------------------------------------------------------

    def hold(self, answer: MaybeFuture[T]) -> MaybeFuture[T]:
        if not self._must_hold():
            return answer
        held: Future[T] = self._loop.create_future()
        if isinstance(answer, Future):  # an operation that has not ended; cancelling `held` stops it
            held.add_done_callback(partial(_cancel_too, answer))
            answer.add_done_callback(partial(self._hold_result, held))
        else:
            self._finish_later(held, answer)
        return held

    def hold_new(self, answer: T) -> MaybeFuture[T]:
        if isinstance(answer, Job):
            self._payload_bytes += len(answer.payload)
        elif isinstance(answer, list):
            self.count_payloads(answer)
        return self.hold(answer)

    def hold_deliveries(self, deliveries: list[Delivery]) -> MaybeFuture[list[Delivery]]:
        if not self._must_hold():
            return deliveries
        held: WaitFuture[list[Delivery]] = WaitFuture(loop=self._loop)
        held.withdraw = partial(self._give_back, deliveries)
        self._finish_later(held, deliveries, self._sync_leases)
        return held

    def deliver(self, waiting: WaitFuture[list[Delivery]], deliveries: list[Delivery]) -> None:
        if deliveries and self._sync_before_answer:
            waiting.withdraw = partial(self._give_back, deliveries)
            self._finish_later(waiting, deliveries, self._sync_leases)
        else:
            _finish(waiting, deliveries)

    def resolve(self, waiting: WaitFuture[Job], outcome: Job | Exception) -> None:
        if self._sync_before_answer:
            waiting.withdraw = nothing
            self._finish_later(waiting, outcome)
        else:
            _finish(waiting, outcome)

    def _must_hold(self) -> bool:
        return not self.batching and (self._sync_before_answer or self._is_behind())

    def _is_behind(self) -> bool:
        return len(self._changed) + self._rows_in_flight > MAX_RECORDS

    def _hold_result(self, held: Future[T], operation: Future[T]) -> None:
        if not operation.cancelled():
            self._finish_later(held, operation.exception() or operation.result())

    def _finish_later(self, held: Future[Any], answer: object, sync: bool = True) -> None:
        self._must_sync = self._must_sync or sync
        self._pending.append((held, answer))
        if not self._commit_scheduled:
            self._schedule()

    # -- committing ---------------------------------------------------------------------------------

    def schedule(self) -> None:
        if self._changed:
            self._must_sync = True
            if not self._commit_scheduled:
                self._schedule()

    def _schedule(self) -> None:
        """What else changes in this loop pass goes into the same group."""
        self._commit_scheduled = True
        self._loop.call_soon(self._commit_group)

    def flush(self) -> None:
        if self._commit_scheduled:
            self._commit_group()

    def after_tick(self) -> None:
        self.schedule()
        self._disk.look()
        if self._silent_since is not None and self._now() - self._silent_since >= HELD:
            self._end_holding()

    def _commit_group(self) -> None:
        if not self._commit_scheduled:  # `flush` was called before
            return
        self._commit_scheduled = False
        if self._writer is None or self._failed:
            self._fail_pending()
            return
        if self._held_up:  # it gathers until the database is back
            return
        payload_bytes, rows = self._payload_bytes, self._take_rows()
        pending, self._pending = self._pending, []
        sync, self._must_sync = self._must_sync, False
        if rows:
            self._in_flight.append(_Group(len(rows), payload_bytes, pending))
            self._rows_in_flight += len(rows)
            self._bytes_in_flight += payload_bytes
            self._writer.write(rows, sync)
            if self._data_dir is None and self._silent_since is None:
                self._silent_since = self._now()
        elif self._in_flight:  # the last group may hold what these answers tell of
            self._in_flight[-1].pending.extend(pending)
        else:
            _finish_all(pending)

    def _take_rows(self) -> list[Row]:
        rows = self._rows.rows(self._changed)
        self._changed.clear()
        self._payload_bytes = 0
        return rows

    def _on_written(self, groups: int) -> None:
        for _ in range(min(groups, len(self._in_flight))):
            group = self._in_flight.popleft()
            self._rows_in_flight -= group.rows
            self._bytes_in_flight -= group.payload_bytes
            _finish_all(group.pending)
        if self._data_dir is None:
            self._silent_since = self._now() if self._in_flight else None
            if self._away is not None:
                _log.info("the database is back: all changes are written")
                self._away = None
            if self._held_up and not self._in_flight:
                self._held_up = False
                self._schedule()
                self._on_held_up(None)

    def _on_retry(self, error: RetryableError) -> None:
        if isinstance(error, NoSpace):
            self._disk.report_no_space()
        elif isinstance(error, Unavailable):
            if self._silent_since is None:
                self._silent_since = self._now()
            if self._away is None:
                _log.warning("the database is away, and changes wait for it: %s", error)
                self._away = str(error)

    def _end_holding(self) -> None:
        """Has the engine take no requests, and refuses the answers that are held. Their changes are kept, and
        are written when the database is back."""
        reason = self._away or f"{self._store.location} does not answer"
        self._silent_since = self._now()  # what comes to be held from now on is refused next time
        self._held_up = True
        self._on_held_up(f"the database is away: {reason}")
        pending, self._pending = self._pending, []
        for group in self._in_flight:
            pending += group.pending
            group.pending = []
        for future, _ in pending:
            if not future.done():
                if isinstance(future, WaitFuture):  # jobs that were on their way go back
                    future.end()
                refuse(
                    future,
                    OutcomeUnknown(
                        "the database is away; whether this call took effect is known when it is back",
                        retry_after=1,
                    ),
                )

    def _fail(self, error: Exception) -> None:
        """The store failed for good: no group in flight is acknowledged, and nothing is written any more."""
        first, self._failed = not self._failed, True
        if first:
            self._on_failure(error)
        self._fail_pending()

    def _fail_pending(self) -> None:
        reason = "could not write its journal and is stopping" if self._failed else "has stopped"
        for future, _ in self._take_pending():
            if not future.done():
                refuse(
                    future,
                    Stopping(
                        f"the server {reason}; whether this call took effect is known when the server "
                        "is back",
                        retry_after=5,
                    ),
                )

    def _take_pending(self) -> _Pending:
        """Removes all groups, and returns their answers in order."""
        pending = [answer for group in self._in_flight for answer in group.pending] + self._pending
        self._in_flight.clear()
        self._pending = []
        self._rows_in_flight = self._bytes_in_flight = 0
        return pending

    # -- statistics, the end ------------------------------------------------------------------------

    def may_be_stale(self) -> bool:
        return self._store.may_be_stale()

    def members(self) -> Sequence[Member]:
        return self._store.members()

    def stats(self) -> JournalStats | None:
        writer = self._writer
        if writer is None:
            return None
        pending = self._rows_in_flight + len(self._changed)
        disk, behind = self._disk, self._is_behind()
        return JournalStats(
            writer.rows,
            writer.seconds,
            pending,
            disk.size,
            disk.full,
            behind,
            self._away,
            self._store.database(),
        )

    def close(self) -> None:
        if self._interval_ticker is not None:
            self._interval_ticker.stop()
        writer, self._writer = self._writer, None
        self._queue.state.changed = None
        if writer is not None:
            unwritten, error = writer.stop()
            if error is None or isinstance(error, RetryableError):
                self._commit_rest(unwritten + self._take_rows())
            else:
                self._fail(error)
        self._disk.stop()
        self._store.close()
        if self._data_dir is not None:
            self._data_dir.close()

    def _commit_rest(self, rows: list[Row]) -> None:
        try:
            if rows:
                self._store.commit(rows)
            _finish_all(self._take_pending())
        except RetryableError as error:
            _log.error("the last changes could not be written; none of them was acknowledged: %s", error)
        except Exception as error:
            self._fail(error)


def _finish(waiting: WaitFuture[Any], answer: object) -> None:
    """Ends a wait at once."""
    waiting.withdraw = nothing
    if isinstance(answer, Exception):
        refuse(waiting, answer)
    else:
        waiting.set_result(answer)


def _finish_all(pending: _Pending) -> None:
    for future, answer in pending:
        if future.done():
            continue
        if isinstance(answer, Exception):
            refuse(future, answer)
        else:
            future.set_result(answer)


def _cancel_too(operation: Future[Any], held: Future[Any]) -> None:
    if held.cancelled():
        operation.cancel()
