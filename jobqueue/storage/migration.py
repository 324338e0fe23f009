"""Migration: copies a whole journal from one place to an empty one, with ids, leases, settings and schedules.

A place is one store, or the stores of all shards of a database. The counters are written last, when all
shards have everything else. A server refuses rows without counters, so it never serves a part of a journal.
"""

from collections.abc import Iterator, Sequence

from jobqueue.clock import SystemClock
from jobqueue.shards import first_id_of, shard_of_id, shard_of_queue
from jobqueue.storage.maintenance import Findings, add_rows
from jobqueue.storage.records import (
    COUNTERS,
    NEWEST,
    Counters,
    Damaged,
    Reader,
    Row,
    Stored,
    StoredJob,
    StoredKey,
    StoredQueue,
    StoredSchedule,
    answered_key,
    plan_key,
    progress_key,
    put_counters,
    queue_key,
    with_checksum,
    without_checksum,
)
from jobqueue.storage.store import JournalError, Store, damaged

# The largest slice that is copied at once.
_MAX_ROWS = 1000
_MAX_BYTES = 4 << 20
# The same for each of several shards.
_MAX_BYTES_OF_SHARD = 1 << 20


def refuse_numbers(where: str, sources: int, targets: int) -> None:
    """Raises `JournalError` if a journal in so many shards cannot be copied to so many. `where`: the source,
    for messages."""
    if sources > 1 and targets not in (1, sources):
        raise JournalError(
            f"{where} has {sources} shards: it can be copied to {sources} or to one, not to {targets}, since "
            "an id tells in which shard its job was made"
        )


def migrate(sources: Sequence[Store], targets: Sequence[Store]) -> Findings:
    """Copies all rows of `sources` to the empty `targets`, and returns what they hold. Raises `JournalError`.
    A target that was begun is of no use then."""
    refuse_numbers(sources[0].location, len(sources), len(targets))
    for target in targets:
        if any(target.load(1, 1)):
            raise JournalError(f"{target.location} is not empty: a journal is copied to an empty place only")
    found = Findings()
    if len(sources) == len(targets):
        last = [_copy(*pair, found) for pair in zip(sources, targets, strict=True)]
    else:
        last = _divide(sources, targets, found)
    if not any(last):
        raise damaged(sources[0].location, "the counters are missing", remedy=sources[0].remedy)
    for target, rows in zip(targets, last, strict=True):
        if rows:
            target.commit(rows)
    return found


def _copy(source: Store, target: Store, total: Findings) -> list[Row]:
    """Copies all rows but the last ones, which it returns; none if there are no rows."""
    found = Findings()
    reader = Reader()
    last: list[Row] = []
    for rows in source.load(_MAX_ROWS, _MAX_BYTES):
        add_rows(reader, rows, found)
        _refuse_damage(source, found)
        last += [row for row in rows if row[0] == COUNTERS]
        if others := [row for row in rows if row[0] != COUNTERS]:
            target.commit(others)
    if not (found.records or last):  # a shard in which nothing was ever done
        return []
    try:
        reader.end()
    except Damaged as bad:
        found.wrong.append(str(bad))
    found.count()
    _refuse_damage(source, found)
    _add(total, found)
    return [(NEWEST, None), *last] if found.newest else last


class _Part:
    """One of the stores among which rows are divided, with what it gets."""

    def __init__(self, target: Store) -> None:
        self._target = target
        self._rows: list[Row] = []
        self._bytes = 0
        self.jobs = self.queues = self.schedules = self.keys = 0

    def put(self, *rows: Row) -> None:
        self._rows += rows
        self._bytes += sum(len(body or b"") for _, body in rows)

    def flush_if_large(self) -> None:
        if len(self._rows) >= _MAX_ROWS or self._bytes >= _MAX_BYTES_OF_SHARD:
            self.flush()

    def flush(self) -> None:
        """Commits what was put."""
        if self._rows:
            self._target.commit(self._rows)
            self._rows, self._bytes = [], 0


def _divide(sources: Sequence[Store], targets: Sequence[Store], total: Findings) -> list[list[Row]]:
    """Copies all rows but the last ones, which it returns for each target. Each goes to the shard of its
    queue, an idempotency key to that of its first job. All but jobs get new numbers."""
    parts = [_Part(target) for target in targets]
    counters: list[Counters] = []
    keys: list[tuple[StoredKey, tuple[int, bytes]]] = []
    shard_of_job: dict[int, int] = {}
    for source in sources:
        found = Findings()
        own: list[tuple[StoredKey, tuple[int, bytes]]] = []
        wanted: set[int] = set()
        for stored, rows in _records(source, found):
            if isinstance(stored, StoredJob):
                shard = shard_of_queue(stored.job.queue, len(parts))
                part = parts[shard]
                part.jobs += 1
                part.put(*rows)
                part.flush_if_large()
                if stored.job.id in wanted:
                    shard_of_job[stored.job.id] = shard
            elif isinstance(stored, Counters):  # before the first job, when nothing was written yet
                _refuse_ids_of_shards(source, stored, len(parts))
                counters.append(stored)
            elif isinstance(stored, StoredQueue):
                part = parts[shard_of_queue(stored.name, len(parts))]
                part.queues += 1
                part.put(_moved(rows[0], queue_key(part.queues)))
            elif isinstance(stored, StoredSchedule):
                part = parts[shard_of_queue(stored.plan.job.queue, len(parts))]
                part.schedules += 1
                number = part.schedules
                part.put(_moved(rows[0], progress_key(number)), _moved(rows[1], plan_key(number)))
            else:
                own.append((stored, rows[0]))
                wanted.update(stored.answered.ids[:1])
        keys += reversed(own)  # the newest one was read first
        _add(total, found)
    if len(sources) > 1:
        keys.sort(key=_until)
    for stored, row in keys:
        part = parts[shard_of_job.get(stored.answered.ids[0], 0) if stored.answered.ids else 0]
        part.keys += 1
        part.put(_moved(row, answered_key(part.keys)))
        part.flush_if_large()
    if not counters:
        return [[]]
    for part in parts:
        part.flush()
    newest: list[Row] = [(NEWEST, None)] if total.newest else []
    return [[*newest, put_counters(each)] for each in _counters_of(parts, counters)]


def _counters_of(parts: list[_Part], before: list[Counters]) -> Iterator[Counters]:
    first = min(each.first_id for each in before)
    last = max(each.last_number for each in before)
    for shard, part in enumerate(parts):
        if len(parts) > 1:
            last = first_id_of(shard, SystemClock().wall()) - 1
        yield Counters(first, last, part.jobs, part.queues, part.schedules)


def _refuse_ids_of_shards(source: Store, counters: Counters, targets: int) -> None:
    if targets > 1 and shard_of_id(counters.last_number) is not None:
        raise JournalError(
            f"{source.location} was in several shards before: its ids tell in which, so it cannot be divided "
            "again"
        )


def _records(source: Store, found: Findings) -> Iterator[tuple[Stored, list[tuple[int, bytes]]]]:
    """Yields each record with its rows. Adds to `found` what they hold. Raises `JournalError` if the source
    is damaged; a source without rows is not."""
    reader = Reader()
    rows: list[tuple[int, bytes]] = []
    try:
        for some in source.load(_MAX_ROWS, _MAX_BYTES):
            for row in some:
                rows.append(row)
                for _, stored in reader.read([row]):
                    found.add(stored)
                    yield stored, rows
                    rows = []
        reader.end()
    except Damaged as bad:
        raise damaged(source.location, bad, remedy=source.remedy) from None
    if found.records or found.counters is not None:
        found.count()
    _refuse_damage(source, found)


def _moved(row: tuple[int, bytes], key: int) -> Row:
    """Returns a row under another key, which is part of its checksum."""
    return key, with_checksum(key, without_checksum(*row))


def _until(one: tuple[StoredKey, tuple[int, bytes]]) -> int:
    return one[0].answered.until


def _add(total: Findings, found: Findings) -> None:
    total.jobs += found.jobs
    total.queues += found.queues
    total.keys += found.keys
    total.schedules += found.schedules
    total.newest = total.newest or found.newest


def _refuse_damage(source: Store, found: Findings) -> None:
    if found.wrong:
        raise damaged(source.location, found.wrong[0], remedy=source.remedy)
