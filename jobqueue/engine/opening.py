"""Opening: engines on a store. An engine in memory is simply made."""

from collections.abc import Callable
from typing import Any

from jobqueue.clock import Clock, CorrectedClock
from jobqueue.engine.commit import GroupCommit
from jobqueue.engine.local import LocalEngine
from jobqueue.errors import SettingError
from jobqueue.settings import Settings, refuse_first_id
from jobqueue.shards import first_id_of
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.postgres import PostgresStore
from jobqueue.storage.postgres_session import Place, Silent
from jobqueue.storage.postgres_setup import prepare_database
from jobqueue.storage.sqlite import SQLiteStore
from jobqueue.storage.writer import Writer


def open_journal(
    data_dir: DataDir, settings: Settings | None = None, clock: Clock | None = None
) -> LocalEngine:
    """Returns an engine whose jobs are in the journal in `data_dir`, which the engine closes. Call `load`
    before any verb. Raises `JournalError`."""
    settings = settings or Settings()
    store = SQLiteStore(data_dir.path, settings.sync)
    commit = GroupCommit(store, data_dir, settings)
    return LocalEngine(settings, clock, commit, data_dir.identity(), data_dir.secret())


def prepare_shards(settings: Settings, patience: float = 10.0) -> int:
    """Returns the number of shards of the database of `settings`. If there is no schema it is created with as
    many as the settings say. Waits up to `patience` seconds for a database that is away. Raises
    `SettingError` if the settings do not fit that number, and `JournalError` if the database cannot be used,
    or has another number."""
    assert settings.data is not None
    shards = prepare_database(settings.data, settings.shards, patience)
    refuse_first_id(settings.first_id, shards)
    return shards


def check_sync(settings: Settings) -> None:
    """Raises `SettingError` for a setting that means nothing with a database."""
    if settings.sync != "always":
        raise SettingError(
            f"JOBQUEUE_SYNC={settings.sync} is for a journal on disk: with PostgreSQL leave it out; the "
            "database's synchronous_commit says when a change is safe"
        )
    if not settings.sync_leases:
        raise SettingError("JOBQUEUE_SYNC_LEASES is for a journal on disk: with PostgreSQL leave it out")


def open_database(
    url: str,
    settings: Settings | None = None,
    clock: Clock | None = None,
    patience: float = 10.0,
    place: Place | None = None,
    silent: Silent | None = None,
    shard: int = 0,
    shards: int = 1,
    make_writer: Callable[..., Any] = Writer,
) -> LocalEngine:
    """Returns an engine whose jobs are in a `shard`, out of `shards`, of the PostgreSQL database at `url`.
    Call `load` before any verb. Waits up to `patience` seconds for a database that is away, or whose shard
    another server is using. `place`: where the other servers reach this one. `silent`: the owner that it
    replaces. `make_writer`: that of a `SharedWriter`, where several engines are written together. Raises
    `SettingError`, and `JournalError` if the database cannot be used, or has another number of shards."""
    settings = settings or Settings()
    check_sync(settings)
    refuse_first_id(settings.first_id, shards)
    store = PostgresStore(url, patience, place, silent, shard, shards)
    clock = clock or CorrectedClock(store.clock_offset)
    commit = GroupCommit(store, None, settings, make_writer)
    first_id = first_id_of(shard, clock.wall()) if shards > 1 else None
    return LocalEngine(settings, clock, commit, store.identity(), store.secret(), first_id)
