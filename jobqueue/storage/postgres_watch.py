"""Watching the owners of the shards of a database, and the servers that take part: each server counts up a
beat, and looks at the beats of the others.

No clocks are compared. An owner is replaced

- at once, if its session has ended, or its process has gone and was on this machine;
- when its beat stood still while this server committed `_STILL` beats of its own. If the database hangs, so
  do the beats of all servers, and nobody is replaced;
- when its connection was gone for `_GONE` such beats. By then it no longer answers from memory, if it lives.

By the same rules a server that takes part counts as gone.
"""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from jobqueue.model import Member
from jobqueue.storage.postgres_schema import other_number, version_and_shards
from jobqueue.storage.postgres_session import (
    CHANNEL,
    CONNECT,
    LOCK,
    Place,
    Silent,
    add_session,
    explained,
    load_driver,
    machine,
    shown,
)
from jobqueue.storage.store import JournalError

# Seconds between two looks.
INTERVAL = 0.5
_TOLERANCE = 0.001
_STILL = 6
_GONE = 5
_BEAT = """
    UPDATE jobqueue.session SET beat = beat + 1, beat_at = now() WHERE id = $1 AND alive RETURNING 1
"""
_END = "UPDATE jobqueue.session SET alive = false WHERE id = $1"
# The connection of an owner holds the lock of its shard, and that of a watch is called after its session. A
# schema of version 2 has no column `shard`.
_NAME = "jobqueue standby "
_SESSIONS = f"""
    WITH held AS MATERIALIZED (
        SELECT objid::bigint - {LOCK} AS shard FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = 0
        AND datname = current_database()
    ), named AS MATERIALIZED (
        SELECT application_name AS name FROM pg_stat_activity WHERE datname = current_database()
    ), living AS (
        SELECT session.*, coalesce((to_jsonb(session) ->> 'shard')::bigint, 0) AS its_shard
        FROM jobqueue.session WHERE alive
    )
    SELECT id, owner, its_shard::integer AS shard, beat, address,
        (extract(epoch FROM started_at) * 1000)::bigint AS started_at,
        (extract(epoch FROM now() - beat_at) * 1000)::bigint AS age, secret, server, machine, process,
        CASE WHEN owner THEN its_shard IN (SELECT shard FROM held)
        ELSE '{_NAME}' || id IN (SELECT name FROM named) END AS connected
    FROM living ORDER BY serial
"""


class Found(NamedTuple):
    """What a look found of a shard. `owner`: where its owner is reached; None if there is none, or it is not
    known. `whose`: a text that names the owner. `replace`: False if there is an owner; else whom to replace,
    or True if there is nobody."""

    owner: Place | None
    whose: str
    replace: Silent | bool


class _Pulse:
    """What the looks so far have shown of a session: for how many of them its beat stood still, and its
    connection was gone."""

    def __init__(self, gone: int = 0) -> None:
        self._beat: int | None = None
        self._still, self._gone = 0, gone

    def stopped(self, row: Any, counts: bool) -> bool:
        """Returns whether the session has stopped, by its row as of this look. `counts`: this look comes an
        interval after the last one that did."""
        beat, connected = row["beat"], row["connected"]
        self._still = self._still + counts if beat is not None and beat == self._beat else 0
        # Beats of an owner may come over another connection than the one that holds the lock of its shard.
        beats = row["owner"] and self._beat is not None and beat != self._beat
        self._gone = 0 if connected or beats else self._gone + counts
        self._beat = beat
        return self._still >= _STILL or self._gone >= _GONE or (not connected and _has_ended(row))


class ShardsWatch:
    """The session of a server that takes part in a database with that many `shards`, whether it owns some or
    none. `servers`: the addresses of the servers that take part and live, this one included unless it has
    left, sorted; `members`: their figures as of the last look. `woken` is set when it is worth while to look
    before the next interval. `fits`: False if the last look found a newer schema, or another number of
    shards. The methods are to be called on a running loop."""

    def __init__(self, url: str, place: Place, shards: int) -> None:
        self._driver = load_driver()
        self._url = url
        self._place = place
        self._shards = shards
        self._id: UUID | None = None
        self._connection: Any = None
        self._pulses: dict[UUID, _Pulse] = {}
        self._counted_at = -INTERVAL
        self.woken = asyncio.Event()
        self.fits = True
        self._left = False
        self.members: list[Member] = []
        self.servers = [place.address]

    @property
    def location(self) -> str:
        return shown(self._url)

    async def look(self) -> list[Found]:
        """Returns what it finds of each shard. Raises `Unavailable` if the database does not answer, and
        `JournalError` if it cannot be used."""
        try:
            if self._connection is None or self._connection.is_closed():
                await self._connect()
            return await asyncio.wait_for(self._look(), CONNECT)
        except BaseException as bad:
            await self.close()
            self._pulses.clear()
            failed = explained(bad, self._driver.exceptions, self.location)
            if failed is bad:
                raise
            raise failed from bad

    async def _connect(self) -> None:
        self._connection = connection = await self._driver.connect(
            self._url, timeout=CONNECT, command_timeout=CONNECT,
            server_settings={"application_name": _name(self._id), "search_path": "pg_catalog"},
        )  # fmt: skip
        await connection.add_listener(CHANNEL, lambda *_: self.woken.set())

    async def _look(self) -> list[Found]:
        connection, self.fits = self._connection, False
        version, shards = await version_and_shards(connection, self.location)
        self.fits = version < 2 or shards == self._shards
        if version < 2:  # to be created, or an older server is the owner: opening it will tell
            return [Found(None, "a server of an older version", True)] * self._shards
        if not self.fits:
            raise other_number(self.location, shards, self._shards)
        if not self._left and (self._id is None or not await connection.fetchval(_BEAT, self._id)):
            await self._begin()
        return self._judge(await connection.fetch(_SESSIONS))

    async def _begin(self) -> None:
        self._id = uuid4()
        naming = "SELECT set_config('application_name', $1, false)"
        await self._connection.execute(naming, _name(self._id))
        await add_session(self._connection, self._id, self._place, False)

    def _counts(self) -> bool:
        """Returns whether this look counts: those after `woken` may come in quick succession."""
        now = time.monotonic()
        if now - self._counted_at < INTERVAL - _TOLERANCE:
            return False
        self._counted_at = now
        return True

    def _judge(self, rows: list[Any]) -> list[Found]:
        """Returns what the sessions that have not ended say of each shard, and lists the servers."""
        counts = self._counts()
        pulses, self._pulses = self._pulses, {}
        found = [Found(None, "", True)] * self._shards
        servers = set() if self._left else {self._place.address}
        for row in rows:
            if row["id"] == self._id:
                continue
            # A server that this one has never seen with a connection does not count.
            pulse = pulses.get(row["id"]) or _Pulse(0 if row["owner"] else _GONE)
            self._pulses[row["id"]] = pulse
            stopped = pulse.stopped(row, counts)
            if not row["owner"]:
                if not stopped:
                    servers.add(row["address"])
            elif row["shard"] < self._shards:
                place = Place(row["address"], row["secret"]) if row["address"] is not None else None
                silent = Silent(row["id"], row["beat"])
                found[row["shard"]] = Found(None if stopped else place, row["server"], stopped and silent)
        self.servers = sorted(servers)
        self.members = [
            self._member(row, found) for row in rows if not row["owner"] and row["address"] in servers
        ]
        return found

    def _member(self, row: Any, found: list[Found]) -> Member:
        """Returns a server that takes part, with the shards that it owns."""
        address = row["address"]
        shards = tuple(
            [
                index
                for index, one in enumerate(found)
                if one.owner is not None and one.owner.address == address
            ]
        )
        started = row["started_at"]
        return Member(
            str(row["id"]), bool(shards), row["server"], address, started, row["age"], shards=shards
        )

    async def leave(self) -> None:
        """Ends the session; what the looks find is still found. Never raises."""
        self._left = True
        if self._connection is not None and self._id is not None:
            with contextlib.suppress(Exception):  # the beat stands still in any case
                await self._connection.execute(_END, self._id, timeout=CONNECT)
                await self._connection.execute(f"NOTIFY {CHANNEL}", timeout=CONNECT)

    async def close(self, for_good: bool = False) -> None:
        """Closes the connection; `for_good` ends the session, too. Never raises."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if for_good and self._id is not None:
                await connection.execute(_END, self._id, timeout=CONNECT)
                self._id = None
                if self._shards > 1:
                    await connection.execute(f"NOTIFY {CHANNEL}", timeout=CONNECT)
            await connection.close(timeout=CONNECT)
        except Exception:
            connection.terminate()


class Watch:
    """What a server does while another one owns the only shard. `owner`: where the owner is reached; None if
    there is none, or it is not known. `whose`: a text that names it. `woken` as in `ShardsWatch`."""

    def __init__(self, url: str, place: Place) -> None:
        self._watch = ShardsWatch(url, place, 1)
        self.woken = self._watch.woken
        self.owner: Place | None = None
        self.whose = ""

    async def look(self) -> Silent | bool:
        """Returns False if there is an owner; else whom to replace, or True if there is nobody. Raises as
        `ShardsWatch.look`."""
        try:
            [found] = await self._watch.look()
        except JournalError:
            if not self._watch.fits:
                self.owner = None
            raise
        self.owner, self.whose = found.owner, found.whose or self.whose
        return found.replace

    async def close(self, for_good: bool = False) -> None:
        """Closes the connection; `for_good` ends the session, too. Never raises."""
        await self._watch.close(for_good)


def _name(session: UUID | None) -> str:
    """Returns the name of the connection of a session."""
    return f"{_NAME}{session}"


def _has_ended(found: Any) -> bool:
    """Returns whether the process of a session has ended. Certain only if it was on this machine."""
    if not found["machine"] or found["machine"] != machine():
        return False
    try:
        status = Path(f"/proc/{found['process']}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"  # nobody has asked for its exit status yet
