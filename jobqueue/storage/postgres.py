"""PostgresStore: rows of a shard of a PostgreSQL database, written by one server at a time.

A group of changes is one statement. It locks the row of this server's session, and does nothing unless that
is alive: the fence. It also inserts the group's number, which tells later whether a commit counted whose
answer never came:

    commit(rows) ─▶ statement with number n ─▶ answer                         committed
                          │
                          └─▶ no answer: in doubt ─▶ connect again ─▶ the same statement with number n
                                                                        │            │
                                                     number n is there: it had counted  it counts now
                                                                        └─────┬──────┘
                                                            a group with number n + 1, then committed

The same statement again waits for the first one, if that is still running. The group after it makes sure
that what is acknowledged has also reached a synchronous replica: PostgreSQL shows a commit whose wait for the
replica was cut short. docs/postgresql.md says what is promised.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from jobqueue.clock import since_boot
from jobqueue.model import DatabaseStats, Member
from jobqueue.storage.postgres_session import (
    COMMAND,
    CONNECT,
    Place,
    PostgresSession,
    SessionLost,
    Silent,
    is_passing,
)
from jobqueue.storage.records import COUNTERS, Row
from jobqueue.storage.store import JournalError, Unavailable

T = TypeVar("T")
_log = logging.getLogger("jobqueue")
# Seconds in which the start waits for a database that cannot be reached, or for another server to end.
_START = 10.0
_START_PAUSE = 0.25
# A group may take a second longer for this many bytes.
_BYTES_PER_SECOND = 1 << 20
# Seconds between two queries for the size.
_SIZE_INTERVAL = 30.0
# The numbers of this many commits are kept.
NUMBERS = 64
_COMMIT = f"""
    WITH fence AS MATERIALIZED (
        SELECT shard FROM jobqueue.session WHERE id = $1 AND alive FOR SHARE
    ), noted AS (
        INSERT INTO jobqueue.done (session, number, counters) SELECT $1, $2, $3 FROM fence
    ), forgotten AS (
        DELETE FROM jobqueue.done USING fence WHERE session = $1 AND number = $2 - {NUMBERS}
    ), gone AS (
        DELETE FROM jobqueue.record USING fence WHERE record.shard = fence.shard AND key = ANY($4::bigint[])
    ), put AS (
        INSERT INTO jobqueue.record (shard, key, body)
        SELECT shard, key, body FROM fence, unnest($5::bigint[], $6::bytea[]) AS new (key, body)
        ON CONFLICT (shard, key) DO UPDATE SET body = excluded.body
    )
    SELECT count(*) FROM fence
"""
# A slice of rows by rising key, of so many rows, and of so many bytes and one row.
_LOAD = """
    SELECT key, body FROM (
        SELECT key, body, sum(length(body)) OVER (ORDER BY key) - length(body) AS before FROM (
            SELECT key, body FROM jobqueue.record WHERE shard = $5 AND key > $1 AND key < $2
            ORDER BY key LIMIT $3
        ) AS slice
    ) AS summed WHERE before < $4 ORDER BY key
"""
# Milliseconds by which the wall clock may differ from the database's before that is used instead.
_CLOCK_TOLERANCE = 1000
# Seconds between two beats, and for how long after a beat was sent no other server takes over.
BEAT = 0.5
_VALID = 2.0
# Seconds between two looks for the other servers.
_MEMBERS_INTERVAL = 2.0
_BEAT = """
    UPDATE jobqueue.session SET beat = beat + 1, beat_at = now() WHERE id = $1 AND alive AND owner
    RETURNING (extract(epoch FROM clock_timestamp()) * 1000)::bigint
"""
_MEMBERS = """
    SELECT id::text, owner, server, address, (extract(epoch FROM started_at) * 1000)::bigint,
        (extract(epoch FROM now() - beat_at) * 1000)::bigint
    FROM jobqueue.session
    WHERE alive AND (owner AND shard = $1 OR NOT owner AND beat_at > now() - interval '5 seconds')
    ORDER BY serial
"""
# The last one only sees transactions of the same role, unless the role is in pg_read_all_stats.
_MEASURE = """
    SELECT pg_total_relation_size('jobqueue.record'), pg_stat_get_dead_tuples('jobqueue.record'::regclass), (
        SELECT coalesce(extract(epoch FROM max(now() - xact_start)), 0)::float8 FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    )
"""
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1


class Group(NamedTuple):
    """What one commit writes: its number, the counters after it, keys of rows that go, rows, and how many
    seconds more it may take for their size."""

    number: int
    counters: bytes | None
    gone: list[int]
    keys: list[int]
    bodies: list[bytes | None]
    seconds: float


class PostgresStore:
    """The journal of a `shard`, out of `shards`, in the database at `url`, whose schema is created if it is
    missing. Waits up to `patience` seconds for a database that is away, or whose shard another server is
    using. Raises `JournalError`, also if the database has another number of shards. The contract of each
    method is in `Store`; the size is that of all shards.

    `place`: where the other servers reach this one; None for a command. `silent`: the owner that this one
    replaces.
    """

    remedy = "restore a backup (docs/postgresql.md)"
    check_interval: float | None = BEAT

    def __init__(
        self,
        url: str,
        patience: float = _START,
        place: Place | None = None,
        silent: Silent | None = None,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        self.session = PostgresSession(url, place, shard, shards)
        self.shard = shard
        self._silent = silent
        self._beaten_at = 0.0  # seconds since the machine was started, when the last good beat was sent
        self._members: list[Member] = []
        self._members_at = 0.0
        self._clock_offset = 0
        # asyncpg needs a loop. It runs only while a method waits for it, on the thread of the caller.
        self._loop = asyncio.new_event_loop()
        self._helper = ThreadPoolExecutor(1, "postgres")
        self._statement: Any = None  # the prepared `_COMMIT` of the connection
        self._number = 0  # of the last commit that counted
        self.acknowledged = 0  # of the last one that `commit` returned for
        # Of the rows of a failed `commit`, which come again: so many counted, and so many more are in doubt.
        self._counted = 0
        self._in_doubt: int | None = None
        self._to_confirm = False  # a commit counted whose answer never came
        self._counters: bytes | None = None
        self._size, self._sized_at = 0, 0.0
        self._doubts, self._dead_rows, self._snapshot = 0, 0, 0.0
        try:
            self._run(self._open(patience))
        except BaseException:
            self._end_loop()
            raise

    @property
    def location(self) -> str:
        return self.session.location

    def identity(self) -> str:
        """Returns twelve hexadecimal digits that no other database has."""
        return self.session.identity

    def secret(self) -> bytes:
        """Returns 32 random bytes, the same ones for all servers of the database."""
        return bytes.fromhex(self.session.secret)

    def identify(self, identity: str) -> None:
        """Gives the database the identity of another place, whose journal it takes over."""
        setting = "UPDATE jobqueue.meta SET identity = $1"
        self._run(self._guarded(self.session.connection.execute(setting, identity)))
        self.session.identity = identity

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for `work`. Another thread runs it if a loop is running on this one."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._loop.run_until_complete(work)
        return self._helper.submit(self._loop.run_until_complete, work).result()

    async def _open(self, patience: float) -> None:
        until = time.monotonic() + patience
        while True:
            try:
                sent = since_boot()
                self._counters = await self.session.open(self._silent)
                self._beaten_at = sent
                await self._prepare()
                await self._beat()
                await self._measure()
                return
            except Unavailable as away:
                if time.monotonic() > until:
                    raise JournalError(str(away)) from away
                await asyncio.sleep(_START_PAUSE)

    # -- reading ------------------------------------------------------------------------------------

    def load(self, max_rows: int, max_bytes: int) -> Iterator[list[tuple[int, bytes]]]:
        yield from self._between(_LOWEST, COUNTERS, max_rows, max_bytes)
        if self._counters is not None:
            yield [(COUNTERS, self._counters)]
        yield from self._between(COUNTERS, _HIGHEST, max_rows, max_bytes)

    def _between(
        self, after: int, before: int, max_rows: int, max_bytes: int
    ) -> Iterator[list[tuple[int, bytes]]]:
        while rows := self._run(self._read(after, before, max_rows, max_bytes)):
            yield rows
            try:
                self._run(self._beat_if_due())
            except Unavailable as away:
                raise self._lost_while_reading(away) from away
            after = rows[-1][0]

    async def _read(self, *limits: int) -> list[tuple[int, bytes]]:
        errors = self.session.driver.exceptions
        try:
            return [
                (key, body) for key, body in await self.session.connection.fetch(_LOAD, *limits, self.shard)
            ]
        except (OSError, errors.InterfaceError, errors.InternalClientError) as bad:
            raise self._lost_while_reading(bad) from bad
        except errors.PostgresError as bad:
            if is_passing(bad):
                raise self._lost_while_reading(bad) from bad
            raise JournalError(f"{self.location} could not be read: {bad}") from bad

    def _lost_while_reading(self, bad: Exception) -> SessionLost:
        return SessionLost(f"{self.location} was lost while it was read: {bad}")

    # -- writing ------------------------------------------------------------------------------------

    def commit(self, rows: Sequence[Row], sync: bool = True) -> None:
        self._run(self._commit(rows))

    async def _commit(self, rows: Sequence[Row]) -> None:
        if self._in_doubt is not None:
            await self._send(rows, self._in_doubt)
        if self._to_confirm or self._counted < len(rows):
            await self._send(rows, len(rows) - self._counted)
        self._counted, self._to_confirm = 0, False
        self.acknowledged = self._number
        with contextlib.suppress(Unavailable):  # this group is committed; the next one tells
            await self._beat_if_due()
            await self._measure_again()

    async def _send(self, rows: Sequence[Row], count: int) -> None:
        """Commits the next `count` rows, those in doubt if there are any, under the next number."""
        part = self._group(rows[self._counted : self._counted + count])
        if self.session.connection is None:
            await self._reconnect()
        again, self._in_doubt = self._in_doubt is not None, count
        self._doubts += again
        try:
            alive = await self._guarded(
                self._execute(COMMAND + part.seconds, part.counters, part.gone, part.keys, part.bodies)
            )
        except self.session.driver.UniqueViolationError as known:
            if not (again and known.constraint_name == "done_pkey"):
                raise
            self._to_confirm = True
        else:
            if not alive:
                raise self.session.taken_over()
        self._in_doubt = None
        self._number += 1
        self._counted += count
        self._counters = part.counters

    def _group(self, rows: Sequence[Row]) -> Group:
        """Returns what the next commit writes."""
        # `records.NEWEST` has no body, and so is not stored.
        counters, bodies = self._counters, dict(rows)
        if COUNTERS in bodies:
            counters = bodies.pop(COUNTERS)
        gone = [key for key, body in bodies.items() if body is None]
        for key in gone:
            del bodies[key]
        seconds = sum(map(len, filter(None, bodies.values()))) / _BYTES_PER_SECOND
        return Group(self._number + 1, counters, gone, list(bodies), list(bodies.values()), seconds)

    async def _execute(self, seconds: float, *changes: object) -> Any:
        """Runs the prepared statement. Of a closed connection it raises when it is called, not when it is
        awaited."""
        return await self._statement.fetchval(self.session.id, self._number + 1, *changes, timeout=seconds)

    # -- written together with other shards ---------------------------------------------------------

    def is_plain(self) -> bool:
        """Returns whether the next group can be committed by a `SharedWriter`: nothing is in doubt, and the
        connection of this store is there to find out if something comes to be."""
        in_doubt = self._in_doubt is not None or self._to_confirm or self._counted > 0
        return not in_doubt and self.session.connection is not None

    def next_group(self, rows: Sequence[Row]) -> Group:
        return self._group(rows)

    def has_counted(self, group: Group) -> None:
        """A group was committed elsewhere."""
        self._number = self.acknowledged = group.number
        self._counters = group.counters

    def is_in_doubt(self, count: int) -> None:
        """A group of so many rows was sent elsewhere, without an answer. They come again, to `commit`."""
        self._in_doubt = count

    def has_beaten(self, sent: float, ahead: int) -> None:
        """A beat was confirmed elsewhere, by a database whose clock is that many milliseconds ahead."""
        self._beaten_at = sent
        self._compare_clocks(ahead)

    def is_to_measure(self) -> bool:
        return time.monotonic() - self._sized_at > _SIZE_INTERVAL

    # -- between commits ----------------------------------------------------------------------------

    def check(self) -> None:
        self._run(self._check())

    async def _check(self) -> None:
        if self.session.connection is None:
            await self._reconnect()
        await self._beat()
        await self._measure_again()

    async def _beat_if_due(self) -> None:
        if since_boot() - self._beaten_at >= BEAT:
            await self._beat()

    async def _beat(self) -> None:
        """Tells the other servers, and makes sure, that this one is the owner."""
        sent = since_boot()
        connection = self.session.connection
        before = time.time()
        wall = await self._guarded(connection.fetchval(_BEAT, self.session.id, timeout=CONNECT))
        if wall is None:
            raise self.session.taken_over()
        self._beaten_at = sent
        self._compare_clocks(wall - round((before + time.time()) * 500))
        if sent - self._members_at >= _MEMBERS_INTERVAL:
            members = await self._guarded(connection.fetch(_MEMBERS, self.shard, timeout=CONNECT))
            self._members = [self._with_history(Member(*member)) for member in members]
            self._members_at = sent

    def _with_history(self, member: Member) -> Member:
        """Adds to the row of this server which one was the owner before it."""
        if member.session != str(self.session.id):
            return member
        return member._replace(before=self.session.before, forced=self.session.forced)

    def _compare_clocks(self, ahead: int) -> None:
        """Servers that follow each other must agree on the time, or leases would end too early or too
        late."""
        if abs(ahead - self._clock_offset) > _CLOCK_TOLERANCE:
            self._clock_offset = ahead if abs(ahead) > _CLOCK_TOLERANCE else 0
            if self._clock_offset:
                _log.warning(
                    "the clock of this machine is %.1f s off that of the database, which is used",
                    -ahead / 1000,
                )

    def clock_offset(self) -> int:
        """Returns the milliseconds by which the wall clock of the database is ahead of this machine's, or 0
        if they hardly differ. May be called on any thread."""
        return self._clock_offset

    def members(self) -> Sequence[Member]:
        return self._members

    def database(self) -> DatabaseStats:
        return DatabaseStats(self._doubts, self._snapshot, self._dead_rows)

    def may_be_stale(self) -> bool:
        return since_boot() - self._beaten_at > _VALID

    async def _reconnect(self) -> None:
        await self.session.reconnect(self.acknowledged)
        await self._prepare()

    async def _prepare(self) -> None:
        self._statement = await self._guarded(self.session.connection.prepare(_COMMIT))

    async def _measure_again(self) -> None:
        if self.is_to_measure():
            await self._guarded(self._measure())

    async def _measure(self) -> None:
        measured = await self.session.connection.fetchrow(_MEASURE)
        self._size, self._dead_rows, self._snapshot = measured
        self._sized_at = time.monotonic()

    async def _guarded(self, work: Awaitable[T]) -> T:
        """Awaits something on the connection. After a failure that may pass, drops the connection and raises
        `Unavailable`; whether the command counted is unknown then."""
        errors = self.session.driver.exceptions
        try:
            return await work
        except errors.PostgresError as bad:
            if not is_passing(bad):
                raise
            self.session.drop()
            raise Unavailable(f"{self.location}: {bad}") from bad
        except (OSError, errors.InterfaceError, errors.InternalClientError) as bad:
            self.session.drop()
            reason = "it does not answer" if isinstance(bad, TimeoutError) else str(bad)
            raise Unavailable(f"{self.location}: {reason}") from bad

    # -- the rest -----------------------------------------------------------------------------------

    def release_space(self) -> bool:
        return False  # autovacuum does it

    def size(self) -> int:
        return self._size

    def close(self) -> None:
        self._run(self.session.close())
        self._end_loop()

    def _end_loop(self) -> None:
        self._helper.shutdown()
        self._loop.close()
