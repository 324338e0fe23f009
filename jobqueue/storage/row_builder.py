"""Book: what a store holds already, and the rows that bring it up to what a queue is now."""

from collections.abc import Iterable

from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.state import QueueState
from jobqueue.model import Job, QueueSettings, RecordedAnswer
from jobqueue.steps import IN_PROGRESS
from jobqueue.storage.records import (
    PAYLOAD_ROW_ABOVE,
    Counters,
    Damaged,
    Row,
    StoredKey,
    StoredQueue,
    answered_key,
    number_of,
    put_answered,
    put_counters,
    put_job,
    put_payload,
    put_queue,
    queue_key,
)  # fmt: skip

# Idempotency keys taken off the disk in one group.
_PRUNED = 200
_UNSET = QueueSettings()


class RowBuilder:
    """Of `queue`. While a store is read its rows are entered with `job`, `named`, `key` and `close`."""

    def __init__(self, queue: QueueState) -> None:
        self._queue = queue
        self.jobs = 0
        self._numbers: dict[str, int] = {}  # of the rows of queues
        self._first_key, self._last_key = 1, 0  # numbers of the rows of idempotency keys
        self._written = -1  # the last number given when the last rows were made
        self._counted = -1  # the one that the counters say
        self._answered: list[StoredKey] = []  # since then

    # -- what a store holds -------------------------------------------------------------------------

    def job(self) -> None:
        self.jobs += 1

    def named(self, key: int, name: str) -> None:
        self._numbers[name] = number_of(key)

    def key(self, key: int) -> None:
        """Keys come by rising keys of rows, which is by falling numbers."""
        self._first_key = number_of(key)
        self._last_key = max(self._last_key, self._first_key)

    @property
    def empty(self) -> bool:
        """Nothing was entered."""
        return not (self.jobs or self._numbers or self._last_key)

    def check(self, counters: Counters) -> None:
        """As many as there were; else `Damaged`."""
        self._counted = counters.last_number
        for found, counted, kind in (
            (self.jobs, counters.jobs, "jobs"), (len(self._numbers), counters.queues, "queues")
        ):  # fmt: skip
            if found != counted:
                raise Damaged(f"it holds {found:,} {kind}, and should hold {counted:,}")

    def close(self) -> None:
        """All was read, and the queue is as it was."""
        self._written = self._queue.last_number

    # -- what changes it ----------------------------------------------------------------------------

    def answered(self, owner: str, key: str, answered: RecordedAnswer) -> None:
        """A request under an idempotency key was answered."""
        self._answered.append(StoredKey(owner, key, answered))

    def rows(self, changed: Iterable[Job | NamedQueue]) -> list[Row]:
        """Of what has changed, as it is now."""
        rows: list[Row] = []
        queue = self._queue
        offset = queue.wall(0)
        find = queue.find
        written, payload_changed = self._written, queue.payload_changed
        for record in changed:
            if not isinstance(record, Job):
                self._put_queue(record, rows)
                continue
            id = record.id
            new = id > written
            payload_row = len(record.payload) > PAYLOAD_ROW_ABOVE
            if find(id) is not record:
                if not new:  # else it came and went within the group
                    self.jobs -= 1
                    rows.append((id << 1, None))
                    if payload_row or id in payload_changed:
                        rows.append((id << 1 | 1, None))
                continue
            if new:
                self.jobs += 1
            more = record.extras
            expires = record.lease.expires + offset if record.status is IN_PROGRESS and record.lease else None
            due = more.due + offset if more is not None and more.due is not None else None
            rows.append((id << 1, put_job(record, expires, due)))
            if payload_row and (new or id in payload_changed):
                rows.append(put_payload(record))
            elif payload_changed and id in payload_changed:
                rows.append((id << 1 | 1, None))
        payload_changed.clear()
        self._put_keys(rows)
        if rows or self._counted != queue.last_number:
            self._counted = queue.last_number
            counters = Counters(queue.first_id, queue.last_number, self.jobs, len(self._numbers))
            rows.append(put_counters(counters))
        self._written = queue.last_number
        return rows

    def _put_queue(self, queue: NamedQueue, rows: list[Row]) -> None:
        if queue.pause is None and queue.settings == _UNSET:
            if (number := self._numbers.pop(queue.name, None)) is not None:
                rows.append((queue_key(number), None))
        else:
            if (number := self._numbers.get(queue.name)) is None:
                number = self._numbers[queue.name] = max(self._numbers.values(), default=0) + 1
            stored = StoredQueue(queue.name, queue.settings, queue.pause, queue.version)
            rows.append(put_queue(number, stored))

    def _put_keys(self, rows: list[Row]) -> None:
        """New idempotency keys; and those that are not remembered any more go, the oldest first."""
        for stored in self._answered:
            self._last_key += 1
            rows.append(put_answered(self._last_key, stored))
        self._answered.clear()
        last = min(self._last_key - len(self._queue.idempotency), self._first_key + _PRUNED)
        rows.extend((answered_key(number), None) for number in range(self._first_key, last + 1))
        self._first_key = max(self._first_key, last + 1)
