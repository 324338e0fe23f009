"""Maintenance of a journal file: verify, repair, back up, list its jobs."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jobqueue.clock import SystemClock, first_id_at
from jobqueue.model import Job, Schedule
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.records import (
    COUNTERS,
    NEWEST,
    SCHEDULES,
    Counters,
    Damaged,
    Reader,
    Row,
    Stored,
    StoredJob,
    StoredQueue,
    StoredSchedule,
    name_of,
    needs_newest,
    put_counters,
    without_checksum,
)
from jobqueue.storage.salvage import rows_in
from jobqueue.storage.sqlite import FILE, SQLiteStore, check_version, refuse_newer, sync_folder
from jobqueue.storage.store import JournalError, damaged

_SLICE = 1000  # rows


@dataclass
class Findings:
    """What a journal holds, and what is wrong with it, in words for people."""

    jobs: int = 0
    queues: int = 0
    keys: int = 0
    schedules: int = 0
    newest: bool = False  # one of them needs the newest version of the format
    wrong: list[str] = field(default_factory=list)
    counters: Counters | None = None
    highest: int = 0  # id or place

    @property
    def records(self) -> int:
        return self.jobs + self.queues + self.keys + self.schedules

    def add(self, stored: Stored) -> None:
        if isinstance(stored, StoredJob):
            self.jobs += 1
            self.highest = max(self.highest, stored.job.id, stored.job.place)
            extras = stored.job.extras
            self.newest = self.newest or (extras is not None and needs_newest(extras.options))
        elif isinstance(stored, StoredQueue):
            self.queues += 1
            self.newest = self.newest or needs_newest(stored.settings)
        elif isinstance(stored, StoredSchedule):
            self.schedules += 1
            self.newest = self.newest or needs_newest(stored.plan.job.options)
        elif isinstance(stored, Counters):
            self.counters = stored
        else:
            self.keys += 1

    def count(self) -> None:
        """Notes what is missing by the counters, once everything was added."""
        counters = self.counters
        if counters is None:
            self.wrong.append("the counters are missing")
        elif counters.jobs != self.jobs or counters.queues != self.queues:
            self.wrong.append(
                f"it holds {self.jobs:,} jobs and {self.queues:,} queues instead of "
                f"{counters.jobs:,} and {counters.queues:,}"
            )
        elif counters.schedules != self.schedules:
            self.wrong.append(f"it holds {self.schedules:,} schedules instead of {counters.schedules:,}")


def verify(folder: Path) -> Findings:
    """Reads and checks the whole journal, also while a server is using it. Raises `JournalError` if there is
    none."""
    return _verify_file(folder / FILE)


def _verify_file(path: Path) -> Findings:
    found = Findings()
    with _reading(path) as db:
        try:
            found.wrong += [f"SQLite: {line}" for (line,) in db.execute("PRAGMA quick_check") if line != "ok"]
            # One transaction, so that changes of a running server are not seen.
            db.execute("BEGIN")
            cursor = db.execute("SELECT key, body FROM record ORDER BY key")
            reader = Reader()
            while rows := cursor.fetchmany(_SLICE):
                add_rows(reader, rows, found)
            with _noting_damage(found):
                reader.end()
        except sqlite3.DatabaseError as bad:
            found.wrong.append(f"SQLite: {bad}")
    found.count()
    return found


def repair(path: str) -> Findings:
    """Replaces a damaged journal by a new one with all that can be read, and keeps the damaged file beside
    it. No server may be using the directory. Raises `JournalError`."""
    folder = DataDir(path)
    try:
        return _repair(folder.path)
    except OSError as bad:
        raise JournalError(f"cannot repair the journal in {path}: {bad.strerror}") from None
    finally:
        folder.close()


def _repair(folder: Path) -> Findings:
    old = folder / FILE
    if not old.exists():
        raise JournalError(f"there is no journal at {old}")
    with contextlib.suppress(JournalError):
        found = _verify_file(old)
        if not found.wrong:
            return found
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(old, isolation_level=None)) as db,
    ):
        refuse_newer(db, old)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # copies the log into the file, if SQLite still can
    content = old.read_bytes()
    valid: dict[int, bytes] = {}
    found = Findings()
    for key, body in rows_in(content):
        try:
            without_checksum(key, body)
            valid[key] = body
        except Damaged as bad:
            found.wrong.append(str(bad))
    names = {name_of(key) for key in valid}  # a row may be found twice, once damaged and once valid
    found.wrong = [line for line in found.wrong if line.partition(":")[0] not in names]
    kept = _complete(valid, found)
    new = folder / "repaired"
    new.mkdir(mode=0o700, exist_ok=True)
    (new / FILE).unlink(missing_ok=True)
    store = SQLiteStore(new)
    if found.newest:
        kept.insert(0, (NEWEST, None))
    for start in range(0, len(kept), _SLICE):
        store.commit(kept[start : start + _SLICE])
    store.commit([put_counters(_counters_of(found))])
    store.close()
    damaged_file = _unused_name(old)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            (folder / (FILE + suffix)).rename(str(damaged_file) + suffix)
    # There must be a journal at any moment: a server would start an empty one.
    try:
        os.link(old, damaged_file)
    except OSError:  # a file system without links
        shutil.copy2(old, damaged_file)
        with damaged_file.open("rb") as copy:
            os.fsync(copy.fileno())
    (new / FILE).replace(old)
    sync_folder(folder)
    new.rmdir()
    found.wrong.append(f"saved what could be read; the damaged file is kept as {damaged_file}")
    return found


def _complete(valid: dict[int, bytes], found: Findings) -> list[Row]:
    """Returns the rows of complete records, and adds them to `found`, with what is wrong with the others."""
    kept: list[Row] = []
    reader = Reader()
    for key in sorted(valid):
        if key > 0 and key & 1 and key - 1 not in valid:
            found.wrong.append(f"{name_of(key)}: its job is missing")
            continue
        before = found.records
        add_rows(reader, [(key, valid[key])], found)
        if found.records > before:
            if (key > 0 and key & 1) or (key <= SCHEDULES and not key & 1):  # of two rows, the second
                kept.append((key - 1, valid[key - 1]))
            kept.append((key, valid[key]))
    with _noting_damage(found):
        reader.end()
    return kept


def _counters_of(found: Findings) -> Counters:
    """Returns the counters of a repaired journal. Ids of forgotten jobs must not be given out again."""
    before = found.counters
    if before is not None:
        lost = before.jobs - found.jobs
        if lost > 0:
            found.wrong.append(f"{lost:,} of {before.jobs:,} jobs are lost")
        if before.schedules > found.schedules:
            found.wrong.append(
                f"{before.schedules - found.schedules:,} of {before.schedules:,} schedules are lost"
            )
        last = max(before.last_number, found.highest)
        return Counters(before.first_id, last, found.jobs, found.queues, found.schedules)
    found.wrong.append("the number of jobs is unknown; new ids are derived from the clock")
    last = max(found.highest, first_id_at(SystemClock().wall()))
    return Counters(1, last, found.jobs, found.queues, found.schedules)


def back_up(folder: Path, to: Path) -> Findings:
    """Copies the journal to the new file `to`, also while a server is using it, and verifies the copy. Raises
    `JournalError`."""
    with _reading(folder / FILE) as db:
        try:
            os.close(os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            with contextlib.closing(sqlite3.connect(to)) as copy:
                db.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
                _raise_ids(copy)
            descriptor = os.open(to, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        except OSError as bad:
            raise JournalError(f"cannot write {to}: {bad.strerror}") from None
        except sqlite3.Error as bad:
            raise JournalError(f"cannot back up to {to}: {bad}") from None
    return _verify_file(to)


def _raise_ids(copy: sqlite3.Connection) -> None:
    """Raises the last number of a copy to the clock's, so that a server that starts from the copy reuses no
    id that was given out after the copy was made."""
    for key, body in copy.execute("SELECT key, body FROM record WHERE key = ?", (COUNTERS,)).fetchall():
        with contextlib.suppress(Damaged):  # `verify` reports it
            for _, counters in Reader().read([(key, body)]):
                assert isinstance(counters, Counters)
                last = max(counters.last_number, first_id_at(SystemClock().wall()))
                row = put_counters(counters._replace(last_number=last))
                copy.execute("UPDATE record SET body = ? WHERE key = ?", (row[1], row[0]))
    copy.commit()


def jobs_in(folder: Path) -> Iterator[Job]:
    """Yields all jobs by id. `lease.expires` is wall-clock milliseconds here. Raises `JournalError` at the
    first damaged row."""
    with _reading(folder / FILE) as db:
        try:
            cursor = db.execute("SELECT key, body FROM record WHERE key > 0 ORDER BY key")
            reader = Reader()
            while rows := cursor.fetchmany(_SLICE):
                for _, stored in reader.read(rows):
                    assert isinstance(stored, StoredJob)
                    if stored.expires is not None and stored.job.lease is not None:
                        stored.job.lease.expires = stored.expires
                    yield stored.job
            reader.end()
        except (sqlite3.DatabaseError, Damaged) as bad:
            raise damaged(folder / FILE, bad) from None


def schedules_in(folder: Path) -> Iterator[Schedule]:
    """Yields all schedules. Raises `JournalError` at the first damaged row."""
    with _reading(folder / FILE) as db:
        try:
            cursor = db.execute("SELECT key, body FROM record WHERE key <= ? ORDER BY key", (SCHEDULES,))
            reader = Reader()
            while rows := cursor.fetchmany(_SLICE):
                for _, stored in reader.read(rows):
                    assert isinstance(stored, StoredSchedule)
                    yield stored.schedule()
            reader.end()
        except (sqlite3.DatabaseError, Damaged) as bad:
            raise damaged(folder / FILE, bad) from None


def _unused_name(old: Path) -> Path:
    number = 1
    while (path := old.with_name(f"{FILE}.damaged-{number}")).exists():
        number += 1
    return path


def add_rows(reader: Reader, rows: list[tuple[int, bytes]], found: Findings) -> None:
    """Adds what the next rows hold to `found`, and what is wrong with them."""
    for row in rows:
        for _ in range(2):  # again, if the damage is that the row before this one is incomplete
            try:
                for _, stored in reader.read([row]):
                    found.add(stored)
                break
            except Damaged as bad:
                found.wrong.append(str(bad))
                if bad.key == row[0]:
                    break


@contextlib.contextmanager
def _noting_damage(found: Findings) -> Iterator[None]:
    try:
        yield
    except Damaged as bad:
        found.wrong.append(str(bad))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for reading. SQLite's errors become `JournalError`."""
    if not path.exists():
        raise JournalError(f"there is no journal at {path}")
    db = sqlite3.connect(path, isolation_level=None)
    try:
        check_version(db, path)
        yield db
    except sqlite3.DatabaseError as bad:
        raise damaged(path, bad) from None
    finally:
        db.close()
