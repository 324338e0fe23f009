"""`jobqueue migrate FROM TO`: copies a journal from a folder to a PostgreSQL database, or back."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jobqueue.settings import is_database
from jobqueue.standard_streams import complain
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.migration import migrate
from jobqueue.storage.postgres import PostgresStore
from jobqueue.storage.postgres_session import shown
from jobqueue.storage.sqlite import FILE, SQLiteStore
from jobqueue.storage.store import JournalError, RetryableError, Store


def main(source: str, target: str) -> int:
    """Copies the journal at `source` to the empty `target`: each a folder or the URL of a database, as
    JOBQUEUE_DATA has it. Returns the exit status: 0 it is copied, 1 it is not."""
    try:
        with ExitStack() as opened:
            if not is_database(source) and not (Path(source) / FILE).exists():
                raise JournalError(f"there is no journal in {source}")
            here, before = opened.enter_context(_opened(source))
            there, after = opened.enter_context(_opened(target))
            found = migrate(here, there)
            after.identify(before.identity())
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
def _opened(place: str) -> Iterator[tuple[Store, DataDir | PostgresStore]]:
    """The store at `place`, which no server can use meanwhile, and what knows its identity."""
    if is_database(place):
        database = PostgresStore(place)
        try:
            yield database, database
        finally:
            database.close()
        return
    folder = DataDir(place)
    try:
        store = SQLiteStore(folder.path)
        try:
            yield store, folder
        finally:
            store.close()
    finally:
        folder.close()
