"""Records: how jobs, queues, idempotency keys and counters are encoded as rows.

A row is a key and a body. The body is MessagePack, with fields in the order of the structs, followed by a
checksum of key and body. The key says what the row holds:

     0           the counters
     2 * id      a job
     2 * id + 1  its payload, if that is large, so that a heartbeat does not write it again
    -2 * n       a queue that has settings or a pause
    -2 * n - 1   an idempotency key
    SCHEDULES - 2 * n      the plan of a schedule
    SCHEDULES - 2 * n - 1  its progress, so that an instant does not write the plan again
    NEWEST      not stored: the file has to be of the newest version, see `needs_newest`
"""

from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

import msgspec

from jobqueue.job import job_row
from jobqueue.job_rows import JobRow, job_of
from jobqueue.model import Firing, Job, Options, Pause, Plan, QueueSettings, RecordedAnswer, Schedule

# Payloads of more bytes have a row of their own.
PAYLOAD_ROW_ABOVE = 1024
COUNTERS = 0
# Keys up to this are those of schedules. No other number gets that far.
SCHEDULES = -(1 << 62)
# A row that is not stored: with it the other rows need the newest version of the format.
NEWEST = -(1 << 63)
_CHECKSUM_BYTES = 4
_encode = msgspec.msgpack.Encoder().encode

Row = tuple[int, bytes | None]


class Damaged(Exception):
    """A row, or the set of rows, is not what was written. `key`: of the damaged row, if known."""

    def __init__(self, what: str, key: int | None = None) -> None:
        super().__init__(what)
        self.key = key


class Counters(NamedTuple):
    """Where ids begin, the last number given out, and the numbers of jobs, queues and schedules, which reveal
    missing rows."""

    first_id: int
    last_number: int
    jobs: int
    queues: int
    schedules: int = 0


class StoredQueue(NamedTuple):
    """A queue that has settings or a pause."""

    name: str
    settings: QueueSettings
    pause: Pause | None
    version: int


class StoredKey(NamedTuple):
    """An idempotency key. `answered.until` is wall-clock milliseconds here."""

    owner: str
    key: str
    answered: RecordedAnswer


class StoredJob(NamedTuple):
    """A job. `expires` (of its lease) and `due` are wall-clock milliseconds, or None if it is not in progress
    or not delayed. `payload_row`: the payload is in a row of its own."""

    expires: int | None
    due: int | None
    payload_row: bool
    job: Job


class _StoredRow(NamedTuple):
    """A `StoredJob` as it is encoded."""

    expires: int | None
    due: int | None
    payload_row: bool
    job: JobRow


class StoredProgress(NamedTuple):
    """The progress of a schedule."""

    created_at: int
    done_until: int
    version: int
    paused_at: int | None
    pause_reason: str | None
    history: tuple[Firing, ...]


class StoredSchedule(NamedTuple):
    """A schedule: the contents of its two rows."""

    plan: Plan
    progress: StoredProgress

    def schedule(self) -> Schedule:
        return Schedule(self.plan, *self.progress)


Stored = Counters | StoredQueue | StoredKey | StoredJob | StoredSchedule

_counters = msgspec.msgpack.Decoder(Counters).decode
_queue = msgspec.msgpack.Decoder(StoredQueue).decode
_key = msgspec.msgpack.Decoder(StoredKey).decode
_job = msgspec.msgpack.Decoder(_StoredRow).decode
_plan = msgspec.msgpack.Decoder(Plan).decode
_progress = msgspec.msgpack.Decoder(StoredProgress).decode


def needs_newest(record: QueueSettings | Options | None) -> bool:
    """Returns whether an older server would lose a part of `record`, or act against it. Then the file must be
    of the newest version, which an older server refuses."""
    if record is None or record.max_run_for is not None:
        return record is not None
    if isinstance(record, Options):
        return record.envelope is not None
    limits = record.key_limits
    return (
        record.attributes is not None
        or record.fair_keys
        or (limits is not None and (limits.ordered or limits.batch > 1))
    )


def with_checksum(key: int, body: bytes) -> bytes:
    """Returns `body` followed by its checksum. The key is part of the checksum, so that a body is valid in
    its own row only."""
    return body + crc32(body, key & 0xFFFFFFFF).to_bytes(_CHECKSUM_BYTES, "big")


def without_checksum(key: int, stored: object) -> bytes:
    """Returns the body without its checksum. Raises `Damaged` if the checksum does not match."""
    if not isinstance(stored, bytes):  # a damaged page may hold any type
        raise Damaged(f"{name_of(key)}: it has no body", key)
    body = stored[:-_CHECKSUM_BYTES]
    if crc32(body, key & 0xFFFFFFFF).to_bytes(_CHECKSUM_BYTES, "big") != stored[-_CHECKSUM_BYTES:]:
        raise Damaged(f"{name_of(key)}: its checksum is wrong", key)
    return body


def name_of(key: int) -> str:
    """Names the row at `key` in messages."""
    if key == COUNTERS:
        return "the counters"
    if key > 0:
        return f"job {key >> 1}" if key & 1 == 0 else f"the payload of job {key >> 1}"
    if key <= SCHEDULES:
        return f"schedule {number_of(key)}" if key & 1 == 0 else f"the progress of schedule {number_of(key)}"
    return f"queue row {number_of(key)}" if key & 1 == 0 else f"idempotency key {number_of(key)}"


def number_of(key: int) -> int:
    """Returns the number n of the row of a queue, an idempotency key or a schedule."""
    return (SCHEDULES - key if key <= SCHEDULES else -key) >> 1


def queue_key(number: int) -> int:
    return -2 * number


def answered_key(number: int) -> int:
    return -2 * number - 1


def plan_key(number: int) -> int:
    return SCHEDULES - 2 * number


def progress_key(number: int) -> int:
    return SCHEDULES - 2 * number - 1


def _row(key: int, fields: object) -> Row:
    return key, with_checksum(key, _encode(fields))


def put_counters(counters: Counters) -> Row:
    # Without schedules as before: an older server reads that, too.
    return _row(COUNTERS, counters if counters.schedules else counters[:4])


def put_plan(number: int, plan: Plan) -> Row:
    return _row(plan_key(number), plan)


def put_progress(number: int, schedule: Schedule) -> Row:
    fields = StoredProgress(*[getattr(schedule, name) for name in StoredProgress._fields])
    return _row(progress_key(number), fields)


def put_queue(number: int, queue: StoredQueue) -> Row:
    return _row(queue_key(number), queue)


def put_answered(number: int, stored: StoredKey) -> Row:
    return _row(answered_key(number), stored)


def put_job(job: Job, expires: int | None, due: int | None) -> bytes:
    """Returns the body of a job's row, with the payload unless that has a row of its own. `expires`, `due`:
    wall-clock milliseconds or None."""
    payload = job.payload
    apart = len(payload) > PAYLOAD_ROW_ABOVE
    body = _encode((expires, due, apart, job_row(job, b"" if apart else payload)))
    return with_checksum(job.id << 1, body)


def put_payload(job: Job) -> Row:
    key = job.id << 1 | 1
    return key, with_checksum(key, job.payload)


class Reader:
    """Decodes the rows of a store, which must come by rising key; `end` follows the last of them. Raises
    `Damaged`."""

    def __init__(self) -> None:
        self._without_payload: StoredJob | None = None  # its payload is the next row
        self._progress: tuple[int, StoredProgress] | None = None  # with its key; its plan is the next row

    def read(self, rows: list[tuple[int, bytes]]) -> Iterator[tuple[int, Stored]]:
        """Yields each record with the key of its row. A job that has a payload row comes with that row's
        key, a schedule with that of its plan."""
        for key, stored_body in rows:
            body = without_checksum(key, stored_body)
            if key > 0 and key & 1:
                yield key, self._with_payload(key, body)
                continue
            self._check_payload_came()
            self._check_plan_came(key)
            try:
                if key <= SCHEDULES and key & 1:
                    self._progress = key, _progress(body)
                    continue
                stored = self._decode(key, body)
            except msgspec.MsgspecError as bad:
                raise Damaged(f"{name_of(key)}: it cannot be read: {bad}", key) from None
            if isinstance(stored, StoredJob) and stored.payload_row:
                self._without_payload = stored
            else:
                yield key, stored

    def end(self) -> None:
        """Checks that no payload and no plan is missing."""
        self._check_payload_came()
        self._check_plan_came(COUNTERS)

    def _decode(self, key: int, body: bytes) -> Stored:
        if key > 0:
            row = _job(body)
            return StoredJob(row.expires, row.due, row.payload_row, job_of(row.job))
        if key == COUNTERS:
            return _counters(body)
        if key <= SCHEDULES:
            return self._with_plan(key, body)
        return _key(body) if key & 1 else _queue(body)

    def _with_payload(self, key: int, body: bytes) -> StoredJob:
        stored, self._without_payload = self._without_payload, None
        if stored is None or stored.job.id != key >> 1:
            raise Damaged(f"{name_of(key)}: there is no such job", key)
        stored.job.payload = body
        return stored

    def _with_plan(self, key: int, body: bytes) -> StoredSchedule:
        found, self._progress = self._progress, None
        if found is None:
            raise Damaged(f"{name_of(key)}: its progress is missing", key)
        return StoredSchedule(_plan(body), found[1])

    def _check_plan_came(self, next_key: int) -> None:
        """Checks that the plan of a progress that was read is the row at `next_key`."""
        if self._progress is not None and self._progress[0] + 1 != next_key:
            key = self._progress[0]
            self._progress = None
            raise Damaged(f"{name_of(key)}: its plan is missing", key)

    def _check_payload_came(self) -> None:
        if self._without_payload is not None:
            key = self._without_payload.job.id << 1
            self._without_payload = None
            raise Damaged(f"{name_of(key)}: its payload is missing", key)
