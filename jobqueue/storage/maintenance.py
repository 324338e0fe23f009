"""Care: looking after a journal: verify, repair, back up, read."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jobqueue.clock import SystemClock, first_id_at
from jobqueue.model import Job
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.records import (
    COUNTERS,
    Counters,
    Damaged,
    Reader,
    Stored,
    StoredJob,
    StoredQueue,
    name_of,
    put_counters,
    without_checksum,
)  # fmt: skip
from jobqueue.storage.salvage import rows_in
from jobqueue.storage.sqlite import FILE, JournalError, Store, check_version, refuse_newer, sync_folder

_AT_ONCE = 1000


@dataclass
class Findings:
    """What is in a journal, and what is wrong with it, for people."""

    jobs: int = 0
    queues: int = 0
    keys: int = 0
    wrong: list[str] = field(default_factory=list)
    counters: Counters | None = None
    highest: int = 0  # of all ids and places seen

    def see(self, stored: Stored) -> None:
        if isinstance(stored, StoredJob):
            self.jobs += 1
            self.highest = max(self.highest, stored.job.id, stored.job.place)
        elif isinstance(stored, StoredQueue):
            self.queues += 1
        elif isinstance(stored, Counters):
            self.counters = stored
        else:
            self.keys += 1


def verify(folder: Path) -> Findings:
    """Reads everything; a running server does not mind. `JournalError` where there is no journal."""
    return _verify_file(folder / FILE)


def _verify_file(path: Path) -> Findings:
    found = Findings()
    with _reading(path) as db:
        try:
            found.wrong += [f"SQLite: {line}" for (line,) in db.execute("PRAGMA quick_check") if line != "ok"]
            # One transaction: what a running server writes meanwhile is not seen.
            db.execute("BEGIN")
            cursor = db.execute("SELECT key, body FROM record ORDER BY key")
            reader = Reader()
            while rows := cursor.fetchmany(_AT_ONCE):
                _see_each(reader, rows, found)
            with _noting(found):
                reader.end()
        except sqlite3.DatabaseError as bad:
            found.wrong.append(f"SQLite: {bad}")
    if found.counters is None:
        found.wrong.append("there are no counters")
    elif found.counters.jobs != found.jobs or found.counters.queues != found.queues:
        found.wrong.append(
            f"it holds {found.jobs:,} jobs and {found.queues:,} queues, and should hold "
            f"{found.counters.jobs:,} and {found.counters.queues:,}"
        )
    return found


def repair(path: str) -> Findings:
    """Saves what can be read into a new file; the old one stays beside it. No server may use the folder.
    Raises `JournalError`."""
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
    with contextlib.suppress(sqlite3.Error):
        db = sqlite3.connect(old, isolation_level=None)
        refuse_newer(db, old)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # brings in the log, where SQLite still can
        db.close()
    content = old.read_bytes()
    good: dict[int, bytes] = {}
    found = Findings()
    for key, sealed in rows_in(content):
        try:
            without_checksum(key, sealed)
            good[key] = sealed
        except Damaged as damaged:
            found.wrong.append(str(damaged))
    names = {name_of(key) for key in good}  # of rows that stand twice, once whole
    found.wrong = [line for line in found.wrong if line.partition(":")[0] not in names]
    kept = _whole(good, found)
    new = folder / "repaired"
    new.mkdir(mode=0o700, exist_ok=True)
    (new / FILE).unlink(missing_ok=True)
    store = Store(new)
    for start in range(0, len(kept), _AT_ONCE):
        store.commit(kept[start : start + _AT_ONCE])
    store.commit([put_counters(_counters_of(found))])
    store.close()
    aside = _aside(old)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            (folder / (FILE + suffix)).rename(str(aside) + suffix)
    # At no moment is there no journal: a server would begin an empty one.
    try:
        os.link(old, aside)
    except OSError:  # a file system without links
        shutil.copy2(old, aside)
        with aside.open("rb") as copy:
            os.fsync(copy.fileno())
    (new / FILE).replace(old)
    sync_folder(folder)
    new.rmdir()
    found.wrong.append(f"what could be read is saved; the damaged file is kept as {aside}")
    return found


def _whole(good: dict[int, bytes], found: Findings) -> list[tuple[int, bytes | None]]:
    """The rows that make whole records; `found` is told what they are, and which are not."""
    kept: list[tuple[int, bytes | None]] = []
    reader = Reader()
    for key in sorted(good):
        if key > 0 and key & 1 and key - 1 not in good:
            found.wrong.append(f"{name_of(key)}: there is no such job any more")
            continue
        before = found.jobs + found.queues + found.keys
        _see_each(reader, [(key, good[key])], found)
        if found.jobs + found.queues + found.keys > before:
            if key > 0 and key & 1:
                kept.append((key - 1, good[key - 1]))
            kept.append((key, good[key]))
    with _noting(found):
        reader.end()
    return kept


def _counters_of(found: Findings) -> Counters:
    """Ids that were given to forgotten jobs must not be given again."""
    before = found.counters
    if before is not None:
        gone = before.jobs - found.jobs
        if gone > 0:
            found.wrong.append(f"{gone:,} of {before.jobs:,} jobs are gone")
        return Counters(before.first_id, max(before.last_number, found.highest), found.jobs, found.queues)
    found.wrong.append("how many jobs there were is not known any more; ids go on from the clock")
    last = max(found.highest, first_id_at(SystemClock().wall()))
    return Counters(1, last, found.jobs, found.queues)


def back_up(folder: Path, to: Path) -> Findings:
    """A copy as of this moment, also while a server runs; then it is verified. `JournalError`."""
    with _reading(folder / FILE) as db:
        try:
            os.close(os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            copy = sqlite3.connect(to)
            db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            _raise_ids(copy)
            copy.close()
            descriptor = os.open(to, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        except OSError as bad:
            raise JournalError(f"cannot write {to}: {bad.strerror}") from None
        except sqlite3.Error as bad:
            raise JournalError(f"cannot back up to {to}: {bad}") from None
    return _verify_file(to)


def _raise_ids(copy: sqlite3.Connection) -> None:
    """Whoever goes back to the copy gives no id again that the server has given since."""
    for key, sealed in copy.execute("SELECT key, body FROM record WHERE key = ?", (COUNTERS,)).fetchall():
        with contextlib.suppress(Damaged):  # `verify` will say so
            for _, counters in Reader().read([(key, sealed)]):
                assert isinstance(counters, Counters)
                last = max(counters.last_number, first_id_at(SystemClock().wall()))
                row = put_counters(counters._replace(last_number=last))
                copy.execute("UPDATE record SET body = ? WHERE key = ?", (row[1], row[0]))
    copy.commit()


def jobs_in(folder: Path) -> Iterator[Job]:
    """By id; the ends of leases are wall-clock instants. Raises `JournalError` at the first damage."""
    with _reading(folder / FILE) as db:
        try:
            cursor = db.execute("SELECT key, body FROM record WHERE key > 0 ORDER BY key")
            reader = Reader()
            while rows := cursor.fetchmany(_AT_ONCE):
                for _, stored in reader.read(rows):
                    assert isinstance(stored, StoredJob)
                    if stored.expires is not None and stored.job.lease is not None:
                        stored.job.lease.expires = stored.expires
                    yield stored.job
            reader.end()
        except (sqlite3.DatabaseError, Damaged) as bad:
            raise JournalError(
                f"{folder / FILE} is damaged: {bad}. `./scripts/run.sh journal repair` saves the rest"
            ) from None


def _aside(old: Path) -> Path:
    number = 1
    while (path := old.with_name(f"{FILE}.damaged-{number}")).exists():
        number += 1
    return path


def _see_each(reader: Reader, rows: list[tuple[int, bytes]], found: Findings) -> None:
    for row in rows:
        for _ in range(2):  # once more, where it was the row before that turned out to be incomplete
            try:
                for _, stored in reader.read([row]):
                    found.see(stored)
                break
            except Damaged as damaged:
                found.wrong.append(str(damaged))
                if damaged.key == row[0]:
                    break


@contextlib.contextmanager
def _noting(found: Findings) -> Iterator[None]:
    try:
        yield
    except Damaged as damaged:
        found.wrong.append(str(damaged))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise JournalError(f"there is no journal at {path}")
    db = sqlite3.connect(path, isolation_level=None)
    try:
        check_version(db, path)
        yield db
    except sqlite3.DatabaseError as bad:
        raise JournalError(
            f"{path} is damaged: {bad}. `./scripts/run.sh journal repair` saves the rest"
        ) from None
    finally:
        db.close()
