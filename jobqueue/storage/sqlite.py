"""SQLiteStore: rows in one SQLite file.

A group of changes is one statement in a transaction of its own, so that the writing thread takes the
interpreter's lock twice for each group, not twice for each row.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from jobqueue.model import Member
from jobqueue.storage.records import NEWEST, SCHEDULES, Row
from jobqueue.storage.store import REPAIR, JournalError, NoSpace, RetryableError, damaged

# 1: jobs, queues and idempotency keys. 2: schedules, too. 3: with what `records.needs_newest` names. A file
# gets a version with the first row that needs it.
VERSION = 3
_WITH_SCHEDULES = 2
FILE = "journal.sqlite"
# Lets `file` and other tools recognise a journal: "jobq".
_APPLICATION = 0x6A6F6271
# Rows in one statement. A group is padded to the next size by repeating its last row: a small number of
# statements to prepare, and few repeated rows.
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_MAX_ROWS = _SIZES[-1]
# Size of the write-ahead log, which starts from its beginning again after each checkpoint. It is allocated in
# advance: syncing a file that grows costs several times as much.
_LOG = 8 << 20
# Approximate overhead of a group and of a row in the log, in bytes: SQLite writes whole pages.
_GROUP_OVERHEAD = 8192
_ROW_OVERHEAD = 400
# How long to wait for another program's lock, in milliseconds.
_BUSY_TIMEOUT = 5000
# Free pages released in one slice, and how many may stay in the file.
_RELEASED_PAGES = 256
_KEPT_PAGES = 1024
_SCHEMA = f"""
    BEGIN;
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = 1;
    CREATE TABLE record (key INTEGER PRIMARY KEY, body BLOB NOT NULL);
    -- Inserting a row without a body deletes the row of that key.
    CREATE TRIGGER gone BEFORE INSERT ON record WHEN NEW.body IS NULL BEGIN
        DELETE FROM record WHERE key = NEW.key;
        SELECT RAISE(IGNORE);
    END;
    COMMIT;
"""
_SYNCHRONOUS = {"always": "FULL", "interval": "FULL", "os": "NORMAL"}
_KEY_OF = itemgetter(0)
_PUT = "INSERT OR REPLACE INTO record VALUES (?,?)"


class SQLiteStore:
    """The journal file in `folder`, created if missing. `sync`: "always", "interval" or "os", as the setting.
    Raises `JournalError`. The contract of each method is in `Store`."""

    remedy = REPAIR
    check_interval: float | None = None

    def __init__(self, folder: Path, sync: str = "always") -> None:
        self.path = folder / FILE
        self._log_bytes = 0
        try:
            if not os.path.lexists(self.path):
                _create(self.path)
            _check_file(self.path)
            self._db = _connect(self.path)
            try:
                self._begin(sync)
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as bad:
            raise damaged(self.path, bad, certainly=False) from None

    def _begin(self, sync: str) -> None:
        check_version(self._db, self.path)
        self._version = self._number("user_version")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[sync]}")
        self._may_sync = self._syncs = sync != "os"
        self._db.execute("PRAGMA wal_autocheckpoint = 0")  # `commit` does it, and sees its errors
        self._db.execute("PRAGMA cache_size = -16384")
        _allocate_log(self.path.with_name(FILE + "-wal"))

    @property
    def location(self) -> str:
        return str(self.path)

    def load(self, max_rows: int, max_bytes: int) -> Iterator[list[tuple[int, bytes]]]:
        rows: list[tuple[int, bytes]] = []
        bytes_left = max_bytes
        try:
            for row in self._db.execute("SELECT key, body FROM record ORDER BY key"):
                rows.append(row)
                bytes_left -= len(row[1]) if isinstance(row[1], bytes) else 0
                if bytes_left <= 0 or len(rows) == max_rows:
                    yield rows
                    rows, bytes_left = [], max_bytes
            yield rows
        except sqlite3.Error as bad:
            raise damaged(self.path, bad, certainly=False) from None

    def commit(self, rows: Sequence[Row], sync: bool = True) -> None:
        try:
            if sync is not self._syncs and self._may_sync:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
                self._syncs = sync
            version, rows = self._version_with(rows)
            if len(rows) <= _MAX_ROWS and version == self._version:
                self._put(rows)
            else:
                self._db.execute("BEGIN")
                if version != self._version:
                    self._db.execute(f"PRAGMA user_version = {version}")
                for start in range(0, len(rows), _MAX_ROWS):
                    self._put(rows[start : start + _MAX_ROWS])
                self._db.execute("COMMIT")
                self._version = version
        except sqlite3.Error as bad:
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise _translate(bad) from bad
        self._log_bytes += _GROUP_OVERHEAD + sum(_ROW_OVERHEAD + len(body or b"") for _, body in rows)
        if self._log_bytes > _LOG * 3 // 4:
            self._checkpoint()

    def _version_with(self, rows: Sequence[Row]) -> tuple[int, Sequence[Row]]:
        """Returns the version of the file with these rows, and those of them that are stored."""
        lowest = min(rows, key=_KEY_OF)[0]
        if lowest == NEWEST:
            return VERSION, [row for row in rows if row[0] != NEWEST]
        return (max(self._version, _WITH_SCHEDULES) if lowest <= SCHEDULES else self._version), rows

    def _put(self, rows: Sequence[Row]) -> None:
        size = next(size for size in _SIZES if size >= len(rows))
        values: list[int | bytes | None] = []
        for row in rows:
            values += row
        values += rows[-1] * (size - len(rows))
        self._db.execute(_PUT + ",(?,?)" * (size - 1), values)

    def _checkpoint(self) -> None:
        """Copies the log into the database file."""
        self._log_bytes = 0
        log = self.path.with_name(FILE + "-wal")
        mode = "TRUNCATE" if log.stat().st_size > 2 * _LOG else "PASSIVE"
        with self._ignoring_retryable():
            self._db.execute("PRAGMA busy_timeout = 0")  # do not wait for a long reader
            try:
                self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}")
        if mode == "TRUNCATE":
            with contextlib.suppress(JournalError):  # the disk is full: the log grows as needed
                _allocate_log(log)

    def size(self) -> int:
        files = (self.path, self.path.with_name(FILE + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def members(self) -> Sequence[Member]:
        return ()

    def database(self) -> None:
        return None

    def may_be_stale(self) -> bool:
        return False  # the folder is locked

    def release_space(self) -> bool:
        free, pages = self._number("freelist_count"), self._number("page_count")
        if free <= max(_KEPT_PAGES, pages // 4):
            return False
        # As a script: the pragma steps once for each page, and `execute` would stop after the first.
        with self._ignoring_retryable():
            self._db.executescript(f"PRAGMA incremental_vacuum({_RELEASED_PAGES})")
        self._log_bytes += _RELEASED_PAGES * 4096
        if self._log_bytes > _LOG * 3 // 4:
            self._checkpoint()
        return True

    def check(self) -> None:
        pass  # a commit tells

    def _number(self, pragma: str) -> int:
        (number,) = self._db.execute(f"PRAGMA {pragma}").fetchone()
        return int(number)

    @contextlib.contextmanager
    def _ignoring_retryable(self) -> Iterator[None]:
        """For work that may as well be done later."""
        try:
            yield
        except sqlite3.Error as bad:
            if not isinstance(error := _translate(bad), RetryableError):
                raise error from bad

    def close(self) -> None:
        # The log is copied into the file if possible; SQLite then deletes it.
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def check_version(db: sqlite3.Connection, path: Path) -> None:
    """Raises `JournalError` for a file that is not a journal, or is of a newer version."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION:
        raise JournalError(f"{path} is not a journal of jobqueue")
    refuse_newer(db, path)


def refuse_newer(db: sqlite3.Connection, path: Path) -> None:
    """Raises `JournalError` for a journal of a newer version."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise JournalError(
            f"{path} is of version {version}; this jobqueue reads versions up to {VERSION}: use a newer one"
        )


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path,
        timeout=_BUSY_TIMEOUT / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )


def _create(path: Path) -> None:
    """Creates an empty journal. The file is renamed to `path` when it is complete, so that a crash never
    leaves an empty file under that name."""
    fresh = path.with_name(FILE + ".new")
    try:
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        db = _connect(fresh)
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.executescript(_SCHEMA)
        db.close()
        fresh.rename(path)
        sync_folder(path.parent)
    except OSError as bad:
        raise JournalError(f"cannot create {path}: {bad.strerror}") from None


def _check_file(path: Path) -> None:
    """Raises `JournalError` if `path` is a link, or cannot be opened for writing."""
    if path.is_symlink():
        raise JournalError(f"{path} is a symbolic link; the journal must be a regular file")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NOFOLLOW))
    except OSError as bad:
        raise JournalError(f"cannot open {path}: {bad.strerror}") from None


def _allocate_log(path: Path) -> None:
    """Extends the log to its full size with zeros, which SQLite takes for the end of the log."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size < _LOG:
                os.pwrite(descriptor, bytes(_LOG - size), size)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as bad:
        raise JournalError(f"cannot write {path}: {bad.strerror}") from None


def sync_folder(folder: Path) -> None:
    """Makes the names of new files in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _translate(bad: sqlite3.Error) -> Exception:
    """Returns the error of the `Store` contract, or `bad` itself where the outcome is unknown."""
    code = getattr(bad, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return NoSpace(str(bad))
    return RetryableError(str(bad)) if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) else bad
