"""Setting up a PostgreSQL database before its shards are opened."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

from jobqueue.storage.postgres_schema import check_schema, other_number, version_and_shards
from jobqueue.storage.postgres_session import connect, explained, load_driver, refuse_replica, shown
from jobqueue.storage.store import JournalError, Unavailable

# Seconds between two tries.
_PAUSE = 0.25


def prepare_database(url: str, shards: int | None, patience: float) -> int:
    """Creates the schema in the database at `url` if it is missing, with that many `shards` (None: 1).
    Returns the number of shards. It is 1 for a schema of an older version, which the first store that is
    opened brings up to date. Waits up to `patience` seconds for a database that is away. Raises
    `JournalError` if the database cannot be used, or has another number of shards."""
    with ThreadPoolExecutor(1, "postgres") as helper:  # a loop may be running on this thread
        return helper.submit(asyncio.run, _prepare(url, shards, patience)).result()


async def _prepare(url: str, shards: int | None, patience: float) -> int:
    driver = load_driver()
    until = time.monotonic() + patience
    while True:
        try:
            return await _try(driver, url, shards)
        except Unavailable as away:
            if time.monotonic() > until:
                raise JournalError(str(away)) from away
            await asyncio.sleep(_PAUSE)


async def _try(driver: ModuleType, url: str, shards: int | None) -> int:
    where = shown(url)
    connection = await connect(driver, url, "jobqueue setup")
    try:
        await refuse_replica(connection, where)
        version, there = await version_and_shards(connection, where)
        if version == 0:
            async with connection.transaction():
                return (await check_schema(connection, where, shards)).shards
        if shards not in (None, there):
            raise other_number(where, there, shards)
        return there
    except BaseException as bad:
        raise explained(bad, driver.exceptions, where) from bad
    finally:
        connection.terminate()
