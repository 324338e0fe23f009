"""Store: rows on disk, in one SQLite file. Knows no jobs: a row is a key and a body.

A group of changes is one statement in a transaction of its own, so that the writing thread takes the
interpreter's lock twice a group and not twice a row. `commit` is called by one thread at a time.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobqueue.errors import JobQueueError

VERSION = 1
FILE = "journal.sqlite"
# So that `file` and others can tell what it is: "jobq".
_APPLICATION = 0x6A6F6271
# Rows in one statement: as few statements as there are sizes, and few rows put in twice to fill one.
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_MOST = _SIZES[-1]
# The log, which is written anew from its beginning once it was brought into the file. It has its size from
# the start: to sync a file that grows costs several times as much as one that does not.
_LOG = 8 << 20
# What a group and a row of it take in the log besides their bytes, about: whole pages are written.
_A_GROUP = 8192
_A_ROW = 400
# How long another program's lock is waited for, in milliseconds.
_PATIENCE = 5000
# Free pages given back to the system at once, and how many may stay.
_GIVE_BACK = 256
_KEEP_FREE = 1024
_SCHEMA = f"""
    BEGIN;
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {VERSION};
    CREATE TABLE record (key INTEGER PRIMARY KEY, body BLOB NOT NULL);
    -- A row put in without a body takes the row of that key away.
    CREATE TRIGGER gone BEFORE INSERT ON record WHEN NEW.body IS NULL BEGIN
        DELETE FROM record WHERE key = NEW.key;
        SELECT RAISE(IGNORE);
    END;
    COMMIT;
"""
_SYNCHRONOUS = {"always": "FULL", "interval": "FULL", "os": "NORMAL"}
_PUT = "INSERT OR REPLACE INTO record VALUES (?,?)"


class JournalError(JobQueueError):
    """The journal cannot be used as it is; the server does not start. One line, whatever SQLite found in a
    damaged file and quotes."""

    code = "journal"

    def __init__(self, detail: str) -> None:
        super().__init__("".join(each if each.isprintable() else "?" for each in detail))


class RetryableError(Exception):
    """Nothing of the group was written; the same group may be tried again: another program has locked the
    file, perhaps."""


class NoSpace(RetryableError):
    """The disk is full."""


class Store:
    """`sync`: always, interval or os; see the settings. Raises `JournalError`."""

    def __init__(self, folder: Path, sync: str = "always") -> None:
        self.path = folder / FILE
        self._logged = 0
        try:
            if not os.path.lexists(self.path):
                _make(self.path)
            _check_file(self.path)
            self._db = _connect(self.path)
            check_version(self._db, self.path)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[sync]}")
            self._db.execute("PRAGMA wal_autocheckpoint = 0")  # `commit` does it, and sees what goes wrong
            self._db.execute("PRAGMA cache_size = -16384")
            _make_log(self.path.with_name(FILE + "-wal"))
        except sqlite3.Error as bad:
            raise _unusable(self.path, bad) from None

    def load(self, rows: int, size: int) -> Iterator[list[tuple[int, bytes]]]:
        """Everything, by rising key, about so many rows, or bytes, at once. `JournalError`."""
        some: list[tuple[int, bytes]] = []
        left = size
        try:
            for row in self._db.execute("SELECT key, body FROM record ORDER BY key"):
                some.append(row)
                left -= len(row[1]) if isinstance(row[1], bytes) else 0
                if left <= 0 or len(some) == rows:
                    yield some
                    some, left = [], size
            yield some
        except sqlite3.Error as bad:
            raise _unusable(self.path, bad) from None

    def commit(self, rows: Sequence[tuple[int, bytes | None]]) -> None:
        """All of it or nothing, on disk when this returns; a body of None takes a row away. `RetryableError`:
        nothing was written. Any other `sqlite3.Error` or `OSError`: nobody knows what was."""
        try:
            if len(rows) <= _MOST:
                self._put(rows)
            else:
                self._db.execute("BEGIN")
                for start in range(0, len(rows), _MOST):
                    self._put(rows[start : start + _MOST])
                self._db.execute("COMMIT")
        except sqlite3.Error as bad:
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise _failure(bad) from bad
        self._logged += _A_GROUP + sum(_A_ROW + len(body or b"") for _, body in rows)
        if self._logged > _LOG * 3 // 4:
            self.tidy()

    def _put(self, rows: Sequence[tuple[int, bytes | None]]) -> None:
        size = next(size for size in _SIZES if size >= len(rows))
        values: list[int | bytes | None] = []
        for row in rows:
            values += row
        values += rows[-1] * (size - len(rows))
        self._db.execute(_PUT + ",(?,?)" * (size - 1), values)

    def tidy(self) -> None:
        """Brings the log into the file."""
        self._logged = 0
        log = self.path.with_name(FILE + "-wal")
        how = "TRUNCATE" if log.stat().st_size > 2 * _LOG else "PASSIVE"
        with self._quiet():
            self._db.execute("PRAGMA busy_timeout = 0")  # who reads for long is not waited for
            try:
                self._db.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {_PATIENCE}")
        if how == "TRUNCATE":
            with contextlib.suppress(JournalError):  # no room for all of it: then it grows as it is written
                _make_log(log)

    def size(self) -> int:
        """Bytes of the file and its log."""
        files = (self.path, self.path.with_name(FILE + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def give_back(self) -> bool:
        """Gives a little of the space back that nobody needs any more; True: there is more."""
        free, pages = self._number("freelist_count"), self._number("page_count")
        if free <= max(_KEEP_FREE, pages // 4):
            return False
        # As a script: it steps once a page, without a row to fetch, and `execute` stops after the first.
        with self._quiet():
            self._db.executescript(f"PRAGMA incremental_vacuum({_GIVE_BACK})")
        self._logged += _GIVE_BACK * 4096
        if self._logged > _LOG * 3 // 4:
            self.tidy()
        return True

    def _number(self, pragma: str) -> int:
        (number,) = self._db.execute(f"PRAGMA {pragma}").fetchone()
        return int(number)

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Where it cannot be done now, later will do."""
        try:
            yield
        except sqlite3.Error as bad:
            if not isinstance(failure := _failure(bad), RetryableError):
                raise failure from bad

    def close(self) -> None:
        """The log is brought into the file, if that can be done, and is gone then."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def check_version(db: sqlite3.Connection, path: Path) -> None:
    """`JournalError` for a file that is no journal, or a newer one."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION:
        raise JournalError(f"{path} is no journal of jobqueue")
    refuse_newer(db, path)


def refuse_newer(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise JournalError(
            f"{path} is of version {version}; this jobqueue reads versions up to {VERSION}: use a newer one"
        )


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=_PATIENCE / 1000, isolation_level=None, check_same_thread=False, cached_statements=64
    )


def _make(path: Path) -> None:
    """A new file. It gets its name once it is whole, so that an empty one is never taken for a new one."""
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
        raise JournalError(f"cannot make {path}: {bad.strerror}") from None


def _check_file(path: Path) -> None:
    """`JournalError` for what is no file of our own."""
    if path.is_symlink():
        raise JournalError(f"{path} is a symbolic link; the journal must be a file of its own")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NOFOLLOW))
    except OSError as bad:
        raise JournalError(f"cannot open {path}: {bad.strerror}") from None


def _make_log(path: Path) -> None:
    """As large as it will be. SQLite takes what is no frame of its own for the end of the log."""
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
    """So that the name of a new file survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(bad: sqlite3.Error) -> Exception:
    code = getattr(bad, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return NoSpace(str(bad))
    return RetryableError(str(bad)) if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) else bad


def _unusable(path: Path, bad: sqlite3.Error) -> JournalError:
    return JournalError(
        f"{path} is damaged or cannot be read: {bad}. `./scripts/run.sh journal repair` saves the rest"
    )
