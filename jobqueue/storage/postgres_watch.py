"""Watch: what a server does while another one is the owner: it counts up a beat, and looks at the owner's.

No clocks are compared. The owner is replaced

- at once, if its session has ended, or its process has gone and was on this machine;
- when its beat stood still while this server committed `_STILL` beats of its own. If the database hangs, so
  do the beats of all servers, and nobody is replaced;
- when its connection was gone for `_GONE` such beats. By then it no longer answers from memory, if it lives.
"""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

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

# Seconds between two looks.
INTERVAL = 0.5
_STILL = 6
_GONE = 5
_BEAT = """
    UPDATE jobqueue.session SET beat = beat + 1, beat_at = now() WHERE id = $1 AND alive RETURNING 1
"""
_OWNER = f"""
    SELECT id, beat, address, secret, server, machine, process, EXISTS (
        SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = 0 AND objid = {LOCK}
        AND datname = current_database()
    ) AS connected
    FROM jobqueue.session WHERE alive AND owner ORDER BY serial DESC LIMIT 1
"""


class Watch:
    """`owner`: where the owner is reached; None if there is none, or it is not known. `whose`: a text that
    names it. The methods are to be called on a running loop. `woken` is set when it is worth while to look
    before the next interval."""

    def __init__(self, url: str, place: Place) -> None:
        self._driver = load_driver()
        self._url = url
        self._place = place
        self._id: UUID | None = None
        self._connection: Any = None
        self.woken = asyncio.Event()
        self.owner: Place | None = None
        self.whose = ""
        self._seen: Silent | None = None
        # Looks since the owner's beat was another one, and since its connection was there.
        self._still = self._gone = 0

    @property
    def location(self) -> str:
        return shown(self._url)

    async def look(self) -> Silent | bool:
        """Returns False if there is an owner; else whom to replace, or True if there is nobody. Raises
        `Unavailable` if the database does not answer, and `JournalError` if it cannot be used."""
        try:
            if self._connection is None or self._connection.is_closed():
                await self._connect()
            return await asyncio.wait_for(self._look(), CONNECT)
        except BaseException as bad:
            await self.close()
            self._still = self._gone = 0
            failed = explained(bad, self._driver.exceptions, self.location)
            if failed is bad:
                raise
            raise failed from bad

    async def _connect(self) -> None:
        self._connection = connection = await self._driver.connect(
            self._url, timeout=CONNECT, command_timeout=CONNECT,
            server_settings={"application_name": "jobqueue standby", "search_path": "pg_catalog"},
        )  # fmt: skip
        await connection.add_listener(CHANNEL, lambda *_: self.woken.set())

    async def _look(self) -> Silent | bool:
        connection = self._connection
        self.owner = None
        version, shards = await version_and_shards(connection, self.location)
        if version < 2:
            self.whose = "a server of an older version"
            return True  # to be created, or an older server is the owner: opening it will tell
        if shards != 1:
            raise other_number(self.location, shards, 1)
        if self._id is None or not await connection.fetchval(_BEAT, self._id):
            self._id = uuid4()
            await add_session(connection, self._id, self._place, False)
        found = await connection.fetchrow(_OWNER)
        if found is None:
            return True
        seen = Silent(found["id"], found["beat"])
        self._still = self._still + 1 if seen == self._seen and seen.beat is not None else 0
        self._gone = 0 if found["connected"] else self._gone + 1
        self._seen, self.whose = seen, found["server"]
        if found["address"] is not None:
            self.owner = Place(found["address"], found["secret"])
        if self._still >= _STILL or self._gone >= _GONE or (self._gone and _has_ended(found)):
            self.owner = None
            return seen
        return False

    async def close(self, for_good: bool = False) -> None:
        """Closes the connection; `for_good` ends the session, too. Never raises."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if for_good and self._id is not None:
                ending = "UPDATE jobqueue.session SET alive = false WHERE id = $1"
                await connection.execute(ending, self._id, timeout=CONNECT)
                self._id = None
            await connection.close(timeout=CONNECT)
        except Exception:
            connection.terminate()


def _has_ended(found: Any) -> bool:
    """Returns whether the process of an owner has ended. Certain only if it was on this machine."""
    if not found["machine"] or found["machine"] != machine():
        return False
    try:
        status = Path(f"/proc/{found['process']}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"  # nobody has asked for its exit status yet
