"""`jobqueue migrate FROM TO`: copies a journal from a folder to a PostgreSQL database, or back, or from one
database to another one."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jobqueue.errors import SettingError
from jobqueue.settings import Settings, is_database
from jobqueue.standard_streams import complain
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.migration import migrate, refuse_numbers
from jobqueue.storage.postgres import PostgresStore
from jobqueue.storage.postgres_session import shown
from jobqueue.storage.postgres_setup import prepare_database
from jobqueue.storage.sqlite import FILE, SQLiteStore
from jobqueue.storage.store import JournalError, RetryableError, Store

# Seconds in which a database that is away, or a server that ends, is waited for.
_PATIENCE = 10.0


def main(source: str, target: str, shards: object = None) -> int:
    """Copies the journal at `source` to the empty `target`: each a folder or the URL of a database, as
    JOBQUEUE_DATA has it. A target that is created gets that many `shards`. Returns the exit status: 0 it is
    copied, 1 it is not, 2 the number of shards is wrong."""
    try:
        number = None if shards is None else Settings(data=target, shards=shards).shards
        with ExitStack() as opened:
            if not is_database(source) and not (Path(source) / FILE).exists():
                raise JournalError(f"there is no journal in {source}")
            here, before = opened.enter_context(_opened(source))
            refuse_numbers(here[0].location, len(here), number or 1)
            there, after = opened.enter_context(_opened(target, number))
            found = migrate(here, there)
            after.identify(before.identity())
    except SettingError as bad:
        complain(f"jobqueue: {bad.detail}")
        return 2
    except JournalError as bad:
        complain(f"jobqueue: {bad.detail}")
        return 1
    except (OSError, RetryableError) as bad:
        complain(f"jobqueue: the journal could not be copied: {bad}; empty {_name(target)} and begin again")
        return 1
    print(
        f"copied to {_name(target)}: jobs {found.jobs:,}, queues with settings or a pause {found.queues:,}, "
        f"idempotency keys {found.keys:,}, schedules {found.schedules:,}"
    )
    sys.stdout.flush()
    return 0


def _name(place: str) -> str:
    return shown(place) if is_database(place) else place


@contextmanager
def _opened(
    place: str, shards: int | None = None
) -> Iterator[tuple[Sequence[Store], DataDir | PostgresStore]]:
    """The stores at `place`, one for each shard, which no server can use meanwhile, and what knows its
    identity."""
    if is_database(place):
        number = prepare_database(place, shards, _PATIENCE)
        with ExitStack() as closing:
            databases = []
            for shard in range(number):
                databases.append(PostgresStore(place, _PATIENCE, shard=shard, shards=number))
                closing.callback(databases[-1].close)
            yield databases, databases[0]
        return
    folder = DataDir(place)
    try:
        store = SQLiteStore(folder.path)
        try:
            yield [store], folder
        finally:
            store.close()
    finally:
        folder.close()
