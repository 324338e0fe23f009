"""The schema `jobqueue` of a PostgreSQL database: its tables, how it is created, and brought up to date.

meta     one row: the version of the schema, the identity of the queue, and the number of shards
secret   one row: random digits, with which an owner makes what later owners are to recognise
shard    where the rows of each shard were stored when it was last opened
session  one row for each run of a server. Only an `owner` that is `alive` may write, in its shard
done     the numbers of the last commits of a session, and the counters as of each
record   the rows of each shard, by key
"""

import os
from typing import Any, NamedTuple

from jobqueue.storage.store import JournalError

VERSION = 3
# The advisory lock under which the schema is created or changed, so that two servers do not both do it. It is
# the number before that of the lock of shard 0.
_CHANGING = 0x6A6F6270
# Seconds that one upgrade may take: it makes an index of all rows.
_UPGRADE = 600.0
_SCHEMA = """
    CREATE TABLE jobqueue.meta (version integer NOT NULL, identity text NOT NULL, place text NOT NULL);
    CREATE TABLE jobqueue.session (
        id uuid PRIMARY KEY,
        serial bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
        alive boolean NOT NULL DEFAULT true,
        server text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE jobqueue.done (
        session uuid NOT NULL, number bigint NOT NULL, counters bytea, PRIMARY KEY (session, number)
    );
    CREATE TABLE jobqueue.record (key bigint PRIMARY KEY, body bytea NOT NULL) WITH (
        fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0
    );
    ALTER TABLE jobqueue.record ALTER COLUMN body SET STORAGE EXTERNAL;
    INSERT INTO jobqueue.meta VALUES (1, $$IDENTITY$$, '');
"""
# Made where it is missing, without a new version: servers that do not know it are not concerned.
_SECRET = "CREATE TABLE jobqueue.secret (digits text NOT NULL)"
# `to_regclass` may not see yet what was created while this session waited for a lock.
_HAS_TABLE = "SELECT 1 FROM pg_tables WHERE schemaname = 'jobqueue' AND tablename = $1"
# Of a schema of any version.
_META = "SELECT version, coalesce((to_jsonb(meta) ->> 'shards')::integer, 1) FROM jobqueue.meta"
# What makes a schema of a version one of the next version.
_UPGRADES = {
    1: """
        ALTER TABLE jobqueue.session
            ADD COLUMN owner boolean NOT NULL DEFAULT true,
            ADD COLUMN beat bigint,
            ADD COLUMN beat_at timestamptz,
            ADD COLUMN machine text NOT NULL DEFAULT '',
            ADD COLUMN process integer NOT NULL DEFAULT 0,
            ADD COLUMN address text,
            ADD COLUMN secret text;
    """,
    2: """
        ALTER TABLE jobqueue.meta ADD COLUMN shards integer NOT NULL DEFAULT 1;
        ALTER TABLE jobqueue.session ADD COLUMN shard integer NOT NULL DEFAULT 0;
        ALTER TABLE jobqueue.record ADD COLUMN shard integer NOT NULL DEFAULT 0;
        ALTER TABLE jobqueue.record DROP CONSTRAINT record_pkey, ADD PRIMARY KEY (shard, key);
        CREATE TABLE jobqueue.shard (shard integer PRIMARY KEY, place text NOT NULL);
        INSERT INTO jobqueue.shard SELECT 0, place FROM jobqueue.meta;
        ALTER TABLE jobqueue.meta DROP COLUMN place;
    """,
}


class Schema(NamedTuple):
    """What a schema says of its database. `secret`: 64 hexadecimal digits."""

    identity: str
    secret: str
    shards: int


async def version_and_shards(connection: Any, where: str) -> tuple[int, int]:
    """Returns the version of the schema, 0 if there is none, and the number of shards. `where`: the database,
    for messages. Raises `JournalError` if the schema is newer."""
    if not await connection.fetchval(_HAS_TABLE, "meta"):
        return 0, 1
    version, shards = await connection.fetchrow(_META)
    if version > VERSION:
        raise newer_schema(where, version)
    return version, shards


async def check_schema(connection: Any, where: str, shards: int | None) -> Schema:
    """Creates the schema with that many shards (None: 1), or brings it up to date. To be called in a
    transaction. `where`: the database, for messages. Raises `JournalError`."""
    version, there = await version_and_shards(connection, where)
    if version < VERSION:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _CHANGING)
        version, there = await version_and_shards(connection, where)
    if version == 0:
        if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = 'jobqueue'"):
            await connection.execute("CREATE SCHEMA jobqueue")
        await connection.execute(_SCHEMA.replace("$$IDENTITY$$", f"'{os.urandom(6).hex()}'"))
    elif shards is not None and shards != there:
        raise other_number(where, there, shards)
    if version < VERSION:
        for older in range(version or 1, VERSION):
            await connection.execute(_UPGRADES[older], timeout=_UPGRADE)
        await connection.execute("UPDATE jobqueue.meta SET version = $1", VERSION)
    if version == 0 and shards is not None:
        there = shards
        await connection.execute("UPDATE jobqueue.meta SET shards = $1", shards)
    identity = await connection.fetchval("SELECT identity FROM jobqueue.meta")
    return Schema(identity, await _read_secret(connection), there)


async def _read_secret(connection: Any) -> str:
    """Returns the secret of the database, which is made if there is none."""
    if not await connection.fetchval(_HAS_TABLE, "secret"):
        await connection.execute(_SECRET)
    known: str | None = await connection.fetchval("SELECT digits FROM jobqueue.secret")
    if known is None:
        known = os.urandom(32).hex()
        await connection.execute("INSERT INTO jobqueue.secret VALUES ($1)", known)
    return known


def newer_schema(where: str, version: int) -> JournalError:
    return JournalError(
        f"the schema in {where} is of version {version}; this jobqueue knows versions up to {VERSION}: use a "
        "newer one"
    )


def other_number(where: str, there: int, asked: int) -> JournalError:
    return JournalError(
        f"{where} has {_shards(there)}, and was to be used with {asked}: the number is fixed when a database "
        "is created. Leave JOBQUEUE_SHARDS out, or copy the jobs into a new database with `jobqueue migrate`"
    )


def _shards(number: int) -> str:
    return "1 shard" if number == 1 else f"{number} shards"
