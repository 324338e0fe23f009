"""RowBuilder: knows what a store holds, and builds the rows that bring it up to date with a `JobQueue`."""

from collections.abc import Iterable
from typing import Final

from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.state import QueueState
from jobqueue.model import Job, Plan, RecordedAnswer, Schedule
from jobqueue.steps import IN_PROGRESS
from jobqueue.storage.records import (
    NEWEST,
    PAYLOAD_ROW_ABOVE,
    Counters,
    Damaged,
    Row,
    StoredKey,
    StoredQueue,
    answered_key,
    needs_newest,
    number_of,
    plan_key,
    progress_key,
    put_answered,
    put_counters,
    put_job,
    put_payload,
    put_plan,
    put_progress,
    put_queue,
    queue_key,
)

# Limit of expired idempotency keys that one group deletes.
_MAX_PRUNED: Final = 200


class RowBuilder:
    """Builds rows from `queue`. While a store is read, each of its rows is registered with `job`, `named`,
    `key` or `schedule`, and `close` comes last."""

    def __init__(self, queue: QueueState) -> None:
        self._queue = queue
        self.jobs = 0  # rows of jobs in the store
        self._queue_numbers: dict[str, int] = {}  # numbers of the rows of queues, by name
        self._first_key, self._last_key = 1, 0  # numbers of the rows of idempotency keys
        # The number of each schedule, and its plan as it is in the store.
        self._schedules: dict[str, tuple[int, Plan]] = {}
        self._last_schedule = 0
        self._newest = False  # rows were built that need the newest version of the format
        self._last_written = -1  # `last_number` of the queue when rows were last built
        self._last_counted = -1  # `last_number` in the counters row
        self._new_keys: list[StoredKey] = []  # remembered since rows were last built

    # -- what the store holds -----------------------------------------------------------------------

    def job(self) -> None:
        """Registers a job's row."""
        self.jobs += 1

    def named(self, key: int, name: str) -> None:
        """Registers a queue's row."""
        self._queue_numbers[name] = number_of(key)

    def key(self, key: int) -> None:
        """Registers the row of an idempotency key. Rows come by rising key, so by falling number."""
        self._first_key = number_of(key)
        self._last_key = max(self._last_key, self._first_key)

    def schedule(self, key: int, plan: Plan) -> None:
        """Registers the rows of a schedule. `key`: of its plan."""
        number = number_of(key)
        self._schedules[plan.name] = number, plan
        self._last_schedule = max(self._last_schedule, number)

    @property
    def empty(self) -> bool:
        """True if no row was registered."""
        return not (self.jobs or self._queue_numbers or self._last_key or self._schedules)

    @property
    def has_counters(self) -> bool:
        """False for a new store, until rows were built."""
        return self._last_counted >= 0

    def check(self, counters: Counters) -> None:
        """Raises `Damaged` if the store does not hold what its counters say."""
        self._last_counted = counters.last_number
        for rows, counted, kind in (
            (self.jobs, counters.jobs, "jobs"),
            (len(self._queue_numbers), counters.queues, "queues"),
            (len(self._schedules), counters.schedules, "schedules"),
        ):
            if rows != counted:
                raise Damaged(f"it holds {rows:,} {kind} instead of {counted:,}")

    def close(self) -> None:
        """Ends the registration: every row was read, and the queue is restored."""
        self._last_written = self._queue.last_number

    # -- what has changed ---------------------------------------------------------------------------

    def answered(self, owner: str, key: str, answered: RecordedAnswer) -> None:
        """Adds an idempotency key to the next rows. `answered.until`: wall-clock milliseconds."""
        self._new_keys.append(StoredKey(owner, key, answered))

    def rows(self, changed: Iterable[Job | NamedQueue | Schedule]) -> list[Row]:
        """Returns the rows for the records that have changed since the last call, as they are now."""
        rows: list[Row] = []
        queue = self._queue
        offset = queue.wall(0)
        find = queue.find
        written, payload_changed = self._last_written, queue.payload_changed
        for record in changed:
            if not isinstance(record, Job):
                if isinstance(record, Schedule):
                    self._put_schedule(record, rows)
                else:
                    self._put_queue(record, rows)
                continue
            id = record.id
            new = id > written
            payload_row = len(record.payload) > PAYLOAD_ROW_ABOVE
            if find(id) is not record:
                if not new:  # a job that was created and removed within one group has no row
                    self.jobs -= 1
                    rows.append((id << 1, None))
                    if payload_row or id in payload_changed:
                        rows.append((id << 1 | 1, None))
                continue
            if new:
                self.jobs += 1
            extras = record.extras
            expires = record.lease.expires + offset if record.status is IN_PROGRESS and record.lease else None
            due = extras.due + offset if extras is not None and extras.due is not None else None
            rows.append((id << 1, put_job(record, expires, due)))
            if extras is not None and not self._newest and needs_newest(extras.options):
                self._need_newest(rows)
            if payload_row and (new or id in payload_changed):
                rows.append(put_payload(record))
            elif payload_changed and id in payload_changed:
                rows.append((id << 1 | 1, None))
        payload_changed.clear()
        self._put_keys(rows)
        if rows or self._last_counted != queue.last_number:
            self._last_counted = queue.last_number
            counters = Counters(
                queue.first_id,
                queue.last_number,
                self.jobs,
                len(self._queue_numbers),
                len(self._schedules),
            )
            rows.append(put_counters(counters))
        self._last_written = queue.last_number
        return rows

    def _put_queue(self, queue: NamedQueue, rows: list[Row]) -> None:
        if not queue.configured:
            if (number := self._queue_numbers.pop(queue.name, None)) is not None:
                rows.append((queue_key(number), None))
        else:
            if (number := self._queue_numbers.get(queue.name)) is None:
                number = self._queue_numbers[queue.name] = max(self._queue_numbers.values(), default=0) + 1
            stored = StoredQueue(queue.name, queue.settings, queue.pause, queue.version)
            rows.append(put_queue(number, stored))
            if not self._newest and needs_newest(queue.settings):
                self._need_newest(rows)

    def _need_newest(self, rows: list[Row]) -> None:
        self._newest = True
        rows.append((NEWEST, None))

    def _put_schedule(self, schedule: Schedule, rows: list[Row]) -> None:
        name = schedule.plan.name
        stored = self._schedules.get(name)
        if self._queue.schedules.get(name) is not schedule:  # it was deleted; there may be another one by now
            if stored is not None:
                del self._schedules[name]
                rows += [(plan_key(stored[0]), None), (progress_key(stored[0]), None)]
            return
        if stored is None:
            self._last_schedule += 1
        number = self._last_schedule if stored is None else stored[0]
        if stored is None or stored[1] is not schedule.plan:
            self._schedules[name] = number, schedule.plan
            rows.append(put_plan(number, schedule.plan))
            if not self._newest and needs_newest(schedule.plan.job.options):
                self._need_newest(rows)
        rows.append(put_progress(number, schedule))

    def _put_keys(self, rows: list[Row]) -> None:
        """Adds the new idempotency keys, and deletes expired ones, the oldest first."""
        for stored in self._new_keys:
            self._last_key += 1
            rows.append(put_answered(self._last_key, stored))
        self._new_keys.clear()
        last = min(self._last_key - len(self._queue.idempotency), self._first_key + _MAX_PRUNED)
        rows.extend((answered_key(number), None) for number in range(self._first_key, last + 1))
        self._first_key = max(self._first_key, last + 1)
