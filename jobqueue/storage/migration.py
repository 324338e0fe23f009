"""Migration: copies a whole journal from one store to an empty one, with ids, leases, settings and schedules.

The counters are written last. A server refuses a store without them, so it never serves a part of a journal.
"""

from jobqueue.storage.maintenance import Findings, add_rows
from jobqueue.storage.records import COUNTERS, NEWEST, Damaged, Reader, Row
from jobqueue.storage.store import JournalError, Store, damaged

# The largest slice that is copied at once.
_MAX_ROWS = 1000
_MAX_BYTES = 4 << 20


def migrate(source: Store, target: Store) -> Findings:
    """Copies all rows of `source` to the empty `target`, and returns what they hold. Raises `JournalError`. A
    target that was begun is of no use then."""
    if any(target.load(1, 1)):
        raise JournalError(f"{target.location} is not empty: a journal is copied to an empty place only")
    found = Findings()
    reader = Reader()
    last: list[Row] = []
    for rows in source.load(_MAX_ROWS, _MAX_BYTES):
        add_rows(reader, rows, found)
        _refuse_damage(source, found)
        last += [row for row in rows if row[0] == COUNTERS]
        if others := [row for row in rows if row[0] != COUNTERS]:
            target.commit(others)
    try:
        reader.end()
    except Damaged as bad:
        found.wrong.append(str(bad))
    found.count()
    _refuse_damage(source, found)
    target.commit([(NEWEST, None), *last] if found.newest else last)
    return found


def _refuse_damage(source: Store, found: Findings) -> None:
    if found.wrong:
        raise damaged(source.location, found.wrong[0], remedy=source.remedy)
