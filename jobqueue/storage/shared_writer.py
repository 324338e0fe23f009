"""SharedWriter: the one thread that writes the shards of a server, and commits their groups together.

    shard 3 ─▶ group ─┐                                      ┌─▶ shard 3: written
    shard 5 ─▶ group ─┼─▶ one statement, each group under ───┼─▶ shard 5: written
    shard 9 ─▶ group ─┘   the fence and number of its shard  └─▶ shard 9: its fence is down: alone

What can go wrong is left to the store of each shard, over its own connection: after a failure its group is in
doubt there, and commits or finds that it had counted. So the promises of `storage/postgres.py` hold here, and
nothing is decided about a shard in the common statement but that its group counts.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Final

from jobqueue.clock import since_boot
from jobqueue.histogram import Histogram
from jobqueue.storage.postgres import BEAT, NUMBERS, PostgresStore
from jobqueue.storage.postgres_session import COMMAND, CONNECT, connect, load_driver
from jobqueue.storage.records import Row
from jobqueue.storage.store import RetryableError
from jobqueue.storage.writer import RETRY_DELAY, ROWS, SECONDS

# Seconds before the common connection is made again.
_AGAIN: Final = 1.0
# Seconds between two looks for sessions that it does not know.
_LOOK: Final = 0.2
# In place of rows: a channel joins; its store has done its work.
_JOINS: Final[list[Row]] = []
_WAKES: Final[list[Row]] = []
_COMMIT: Final = f"""
    WITH asked AS (
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) AS asked (session, number, counters)
    ), fence AS MATERIALIZED (
        SELECT id, shard FROM jobqueue.session WHERE id = ANY($1::uuid[]) AND alive FOR SHARE
    ), noted AS (
        INSERT INTO jobqueue.done (session, number, counters)
        SELECT session, number, counters FROM asked JOIN fence ON id = session
    ), forgotten AS (
        DELETE FROM jobqueue.done USING asked JOIN fence ON id = session
        WHERE done.session = asked.session AND done.number = asked.number - {NUMBERS}
    ), gone AS (
        DELETE FROM jobqueue.record USING fence, unnest($4::integer[], $5::bigint[]) AS old (shard, key)
        WHERE fence.shard = old.shard AND record.shard = old.shard AND record.key = old.key
    ), put AS (
        INSERT INTO jobqueue.record (shard, key, body)
        SELECT shard, key, body
        FROM unnest($6::integer[], $7::bigint[], $8::bytea[]) AS new (shard, key, body)
        JOIN fence USING (shard)
        ON CONFLICT (shard, key) DO UPDATE SET body = excluded.body
    )
    SELECT id FROM fence
"""
_BEAT: Final = """
    UPDATE jobqueue.session SET beat = beat + 1, beat_at = now()
    WHERE id = ANY($1::uuid[]) AND alive AND owner
    RETURNING id, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS wall
"""
_KNOWN: Final = """
    SELECT id, alive, (SELECT max(number) FROM jobqueue.done WHERE session = id) AS newest
    FROM jobqueue.session WHERE id = ANY($1::uuid[])
"""


def _call_each(loop: asyncio.AbstractEventLoop, callbacks: Sequence[Callable[[], None]]) -> None:
    for callback in callbacks:
        loop.call_soon(callback)


class Channel:
    """The groups of one shard. It is used as a `Writer` is, whose contract it has."""

    def __init__(
        self,
        writer: "SharedWriter",
        store: PostgresStore,
        loop: asyncio.AbstractEventLoop,
        on_written: Callable[[int], None],
        on_retry: Callable[[RetryableError], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.store = store
        self.rows = Histogram(ROWS)
        self.seconds = Histogram(SECONDS)
        self.arrived: list[list[Row]] = []  # groups that are not among those that are written next
        # Received and not on disk yet: the rows of this number of groups.
        self.waiting: list[Row] = []
        self.groups = 0
        self.stopping = False
        self.stopped = Event()
        self.failed = False
        self.error: Exception | None = None  # of the last try
        self.alone_until = 0.0  # its store has failed, and works by itself; monotonic
        self.busy = False  # its store works, on a thread of the pool
        # The store's own connection, which holds the lock of its shard, has worked since the common one was
        # lost.
        self.sure = True
        self.loop = loop
        self._writer = writer
        self._on_written = on_written
        self._on_retry = on_retry
        self._on_failure = on_failure

    def start(self) -> None:
        self._writer.add(self)

    def write(self, rows: list[Row], sync: bool = True) -> None:
        """Hands over a group. `sync`: the database decides about that."""
        self._writer.hand_over(self, rows)

    def stop(self) -> tuple[list[Row], Exception | None]:
        """Waits until all groups are written, or their last try has failed. Returns the rows that are not on
        disk, and why."""
        self._writer.hand_over(self, None)
        self.stopped.wait()
        return self.waiting, self.error

    def take_arrived(self) -> None:
        """Adds what has arrived to what is written next. Not while the store works by itself."""
        for rows in self.arrived:
            self.waiting += rows
            self.groups += 1
        self.arrived = []

    def fail(self, error: Exception) -> None:
        """Nothing is written any more."""
        self.error, self.failed = error, True
        self.loop.call_soon_threadsafe(self._on_failure, error)

    def written(self, count: int, began: float) -> Callable[[], None]:
        """The first `count` rows, which are all groups that had come by then, are on disk. Returns what is to
        be called on the loop."""
        self.error = None
        self.seconds.add(time.monotonic() - began)
        self.rows.add(count)
        groups, self.groups, self.waiting = self.groups, 0, []
        return partial(self._on_written, groups)

    def work_alone(self) -> None:
        """Writes what waits, or checks the store; on a thread of the pool."""
        had_failed = self.error is not None
        began, count = time.monotonic(), len(self.waiting)
        try:
            if self.groups:
                self.store.commit(self.waiting)
            else:
                self.store.check()
        except RetryableError as error:
            self.error = error
            self.loop.call_soon_threadsafe(self._on_retry, error)
        except Exception as error:
            self.fail(error)
        else:
            self.sure = True
            if self.groups:
                self.loop.call_soon_threadsafe(self.written(count, began))
            elif had_failed:
                self.error = None
                self.loop.call_soon_threadsafe(self._on_written, 0)


class SharedWriter(Thread):
    """`url`: of the database. It ends with `close`, which the last channel must have stopped before."""

    def __init__(self, url: str) -> None:
        super().__init__(name="journal", daemon=True)
        self._url = url
        self._driver = load_driver()
        self._arriving: SimpleQueue[tuple[Channel | None, list[Row] | None]] = SimpleQueue()
        self._channels: list[Channel] = []
        # Stores that work by themselves do so at once, and hold up no other.
        self._pool = ThreadPoolExecutor(64, "journal")
        self._connection: Any = None
        self._statement: Any = None
        self._known: set[Any] = set()  # sessions that were found there as they should be
        self._connect_at = self._look_at = 0.0
        self._bug: Exception | None = None  # with which the thread ended
        self._beaten_at = 0.0

    def channel(
        self,
        store: Any,
        loop: asyncio.AbstractEventLoop,
        on_written: Callable[[int], None],
        on_retry: Callable[[RetryableError], None],
        on_failure: Callable[[Exception], None],
    ) -> Channel:
        assert isinstance(store, PostgresStore)
        return Channel(self, store, loop, on_written, on_retry, on_failure)

    def add(self, channel: Channel) -> None:
        self._arriving.put((channel, _JOINS))

    def hand_over(self, channel: Channel, rows: list[Row] | None) -> None:
        """`rows`: a group; None: no more comes, and what has come is to be written."""
        if self._bug is not None:
            channel.fail(self._bug)
            channel.stopped.set()
        else:
            self._arriving.put((channel, rows))

    def close(self) -> None:
        self._arriving.put((None, None))
        self.join()

    # -- the thread ---------------------------------------------------------------------------------

    def run(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        try:
            while self._receive(BEAT / 2):
                self._turn()
        except Exception as bug:
            self._bug = bug
            for channel in self._channels:
                channel.fail(bug)
                channel.stopped.set()
        finally:
            self._drop()
            self._pool.shutdown()
            loop.close()

    def _turn(self) -> None:
        ready = []
        for channel in self._channels:
            if not channel.busy:
                channel.take_arrived()
                if channel.groups:
                    ready.append(channel)
        if ready:
            self._commit(ready)
        if since_boot() - self._beaten_at >= BEAT:
            self._beat()
        for channel in [each for each in self._channels if each.stopping and not each.busy]:
            if channel.error is not None or not (channel.groups or channel.arrived):
                channel.take_arrived()
                self._channels.remove(channel)
                channel.stopped.set()

    def _receive(self, timeout: float) -> bool:
        """Takes all that has arrived; waits for it. Returns False at the end."""
        try:
            arrived = self._arriving.get(timeout=timeout)
        except Empty:
            return True
        while True:
            channel, rows = arrived
            if channel is None:
                return False
            if rows is None:
                channel.stopping = True
            elif rows is _JOINS:
                self._channels.append(channel)
            elif rows is not _WAKES:
                channel.arrived.append(rows)
            if self._arriving.empty():
                return True
            arrived = self._arriving.get()

    # -- committing ---------------------------------------------------------------------------------

    def _commit(self, ready: Sequence[Channel]) -> None:
        now = time.monotonic()
        common = [each for each in ready if not each.failed and each.error is None and each.store.is_plain()]
        if common and self._connected(now):
            common = [each for each in common if each.store.session.id in self._known]
            self._commit_together(common)
        for channel in ready:
            if channel.groups:
                self._alone(channel, now)

    def _alone(self, channel: Channel, now: float) -> None:
        """Has the store of a channel work by itself, unless it failed just now."""
        if channel.busy or channel.failed or now < channel.alone_until:
            return
        channel.busy = True
        channel.alone_until = now + RETRY_DELAY if channel.error is not None else 0.0
        done = self._pool.submit(channel.work_alone)
        done.add_done_callback(lambda _: self._is_done(channel))

    def _is_done(self, channel: Channel) -> None:
        channel.busy = False
        self._arriving.put((channel, _WAKES))

    def _commit_together(self, channels: Sequence[Channel]) -> None:
        if not channels:
            return
        began = time.monotonic()
        parts = [each.store.next_group(each.waiting) for each in channels]
        gone_shards, gone, put_shards, put, bodies = [], [], [], [], []
        for channel, part in zip(channels, parts, strict=True):
            shard = channel.store.shard
            gone += part.gone
            gone_shards += [shard] * len(part.gone)
            put += part.keys
            put_shards += [shard] * len(part.keys)
            bodies += part.bodies
        sessions = [each.store.session.id for each in channels]
        numbers, counters = [part.number for part in parts], [part.counters for part in parts]
        try:
            found = self._loop.run_until_complete(
                self._statement.fetch(
                    sessions, numbers, counters, gone_shards, gone, put_shards, put, bodies,
                    timeout=COMMAND + sum(part.seconds for part in parts),
                )
            )  # fmt: skip
        except Exception:
            self._drop()
            for channel in channels:
                channel.store.is_in_doubt(len(channel.waiting))
            return
        counted = {row["id"] for row in found}
        written: list[Callable[[], None]] = []
        for channel, part in zip(channels, parts, strict=True):
            if channel.store.session.id in counted:
                channel.store.has_counted(part)
                written.append(channel.written(len(channel.waiting), began))
            else:
                self._known.discard(channel.store.session.id)  # its own store finds out why
        if written:  # told at once, since each call wakes the loop, which takes the interpreter from here
            loop = channels[0].loop
            loop.call_soon_threadsafe(_call_each, loop, written)

    def _beat(self) -> None:
        """Tells the other servers, and makes sure, that this one owns its shards."""
        now = time.monotonic()
        self._beaten_at = since_boot()
        rest = [each for each in self._channels if not each.busy and not each.failed]
        if self._connected(now):
            common = [each for each in rest if each.error is None and each.store.session.id in self._known]
            stores = {each.store.session.id: each.store for each in common}
            try:
                sent, before = since_boot(), time.time()
                beaten = self._loop.run_until_complete(
                    self._connection.fetch(_BEAT, list(stores), timeout=CONNECT)
                )
            except Exception:
                self._drop()
            else:
                middle = round((before + time.time()) * 500)
                for row in beaten:
                    stores.pop(row["id"]).has_beaten(sent, row["wall"] - middle)
                rest = [each for each in rest if each not in common or each.store.session.id in stores]
                if common:
                    self._measure(common[0])
        for channel in rest:
            self._alone(channel, now)

    def _measure(self, channel: Channel) -> None:
        """Has one store look how large the table of all is, when that is due."""
        if channel.store.is_to_measure():
            self._alone(channel, time.monotonic())

    # -- the common connection ----------------------------------------------------------------------

    def _connected(self, now: float) -> bool:
        """Returns whether there is a common connection, on which all sessions are as their stores know
        them."""
        try:
            if self._connection is None:
                if now < self._connect_at:
                    return False
                self._connect_at = now + _AGAIN
                self._loop.run_until_complete(self._connect())
            new = {each.store.session.id for each in self._channels if each.sure} - self._known
            if new and now >= self._look_at:
                self._look_at = now + _LOOK
                self._known |= self._loop.run_until_complete(self._good(new))
        except Exception:
            self._drop()
        return self._connection is not None

    async def _connect(self) -> None:
        connection = await connect(self._driver, self._url, "jobqueue commits")
        try:
            self._statement = await connection.prepare(_COMMIT)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    async def _good(self, sessions: Iterable[Any]) -> set[Any]:
        """Returns those of the sessions that this database knows, with all that was acknowledged in them: it
        might be in an older state than that of their stores."""
        stores = {each.store.session.id: each.store for each in self._channels}
        rows = await self._connection.fetch(_KNOWN, list(sessions), timeout=CONNECT)
        return {
            row["id"]
            for row in rows
            if row["alive"] and row["newest"] is not None and row["newest"] >= stores[row["id"]].acknowledged
        }

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._known.clear()
        for channel in self._channels:
            channel.sure = False
        if connection is not None:
            connection.terminate()
            self._loop.run_until_complete(asyncio.sleep(0))  # its transport closes
