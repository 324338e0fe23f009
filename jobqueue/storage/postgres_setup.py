"""Setting up a PostgreSQL database before its shards are opened."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from jobqueue.storage.postgres_schema import Schema, check_schema, other_number, version_and_shards
from jobqueue.storage.postgres_session import connect, explained, load_driver, refuse_replica, shown
from jobqueue.storage.store import JournalError, Unavailable

T = TypeVar("T")
# Seconds between two tries.
_PAUSE = 0.25


def prepare_database(url: str, shards: int | None, patience: float) -> int:
    """Creates the schema in the database at `url` if it is missing, with that many `shards` (None: 1).
    Returns the number of shards. It is 1 for a schema of an older version, which the first store that is
    opened brings up to date. Waits up to `patience` seconds for a database that is away. Raises
    `JournalError` if the database cannot be used, or has another number of shards."""
    with ThreadPoolExecutor(1, "postgres") as helper:  # a loop may be running on this thread
        return helper.submit(asyncio.run, _patiently(partial(_prepare, url, shards), patience)).result()


def read_schema(url: str, patience: float) -> Schema:
    """Returns what the schema of a database says, which `prepare_database` has found to be there. Waits and
    raises as that does."""
    with ThreadPoolExecutor(1, "postgres") as helper:
        return helper.submit(asyncio.run, _patiently(partial(_read, url), patience)).result()


async def _patiently(attempt: Callable[[ModuleType], Awaitable[T]], patience: float) -> T:
    driver = load_driver()
    until = time.monotonic() + patience
    while True:
        try:
            return await attempt(driver)
        except Unavailable as away:
            if time.monotonic() > until:
                raise JournalError(str(away)) from away
            await asyncio.sleep(_PAUSE)


async def _prepare(url: str, shards: int | None, driver: ModuleType) -> int:
    where = shown(url)
    async with _connected(driver, url) as connection:
        version, there = await version_and_shards(connection, where)
        if version == 0:
            async with connection.transaction():
                return (await check_schema(connection, where, shards)).shards
        if shards not in (None, there):
            raise other_number(where, there, shards)
        return there


async def _read(url: str, driver: ModuleType) -> Schema:
    async with _connected(driver, url) as connection, connection.transaction():
        return await check_schema(connection, shown(url), None)


@asynccontextmanager
async def _connected(driver: ModuleType, url: str) -> AsyncIterator[Any]:
    """Gives a connection to a primary. Raises the errors of the `Store` contract."""
    where = shown(url)
    connection = await connect(driver, url, "jobqueue setup")
    try:
        await refuse_replica(connection, where)
        yield connection
    except BaseException as bad:
        raise explained(bad, driver.exceptions, where) from bad
    finally:
        connection.terminate()
