"""Records: how jobs, queues, keys and counters look in a store.

A row is a key and a body; the body is MessagePack, its fields in the order of the structs, ended by a
checksum over both. Keys: 0 the counters; above it a job at twice its id, and behind it, at the odd number,
its payload where that is large (so that a heartbeat does not write it anew); below it queues at even and
idempotency keys at odd numbers.
"""

from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

import msgspec

from jobqueue.model import Job, Pause, QueueSettings, RecordedAnswer

# Larger payloads have a row of their own.
PAYLOAD_ROW_ABOVE = 1024
COUNTERS = 0
_SUM = 4  # bytes
_encode = msgspec.msgpack.Encoder().encode

Row = tuple[int, bytes | None]


class Damaged(Exception):
    """A row is not what was written. `key`: which, if it is known."""

    def __init__(self, what: str, key: int | None = None) -> None:
        super().__init__(what)
        self.key = key


class Counters(NamedTuple):
    """`jobs`, `queues`: how many rows there are of each, so that a missing one is noticed."""

    first_id: int
    last_number: int
    jobs: int
    queues: int


class StoredQueue(NamedTuple):
    name: str
    settings: QueueSettings
    pause: Pause | None
    version: int


class StoredKey(NamedTuple):
    """An idempotency key; `answered.until` is a wall-clock instant."""

    owner: str
    key: str
    answered: RecordedAnswer


class StoredJob(NamedTuple):
    """`expires`, `due`: wall-clock milliseconds, where they count. `payload_row`: its payload has its own
    row."""

    expires: int | None
    due: int | None
    payload_row: bool
    job: Job


Stored = Counters | StoredQueue | StoredKey | StoredJob

_counters = msgspec.msgpack.Decoder(Counters).decode
_queue = msgspec.msgpack.Decoder(StoredQueue).decode
_key = msgspec.msgpack.Decoder(StoredKey).decode
_job = msgspec.msgpack.Decoder(StoredJob).decode


def with_checksum(key: int, body: bytes) -> bytes:
    """`body` and its checksum, which the key goes into, so that no body can pass for another row's."""
    return body + crc32(body, key & 0xFFFFFFFF).to_bytes(_SUM, "big")


def without_checksum(key: int, sealed: object) -> bytes:
    """Raises `Damaged`."""
    if not isinstance(sealed, bytes):  # a damaged page may say anything
        raise Damaged(f"{name_of(key)}: it has no body", key)
    body = sealed[:-_SUM]
    if crc32(body, key & 0xFFFFFFFF).to_bytes(_SUM, "big") != sealed[-_SUM:]:
        raise Damaged(f"{name_of(key)}: its checksum is wrong", key)
    return body


def name_of(key: int) -> str:
    """What the row at `key` is, for people."""
    if key == COUNTERS:
        return "the counters"
    if key > 0:
        return f"job {key >> 1}" if key & 1 == 0 else f"the payload of job {key >> 1}"
    return f"queue row {number_of(key)}" if key & 1 == 0 else f"idempotency key {number_of(key)}"


def number_of(key: int) -> int:
    """Of a queue's or an idempotency key's row."""
    return -key >> 1


def queue_key(number: int) -> int:
    return -2 * number


def answered_key(number: int) -> int:
    return -2 * number - 1


def put_counters(counters: Counters) -> Row:
    return COUNTERS, with_checksum(COUNTERS, _encode(counters))


def put_queue(number: int, queue: StoredQueue) -> Row:
    key = queue_key(number)
    return key, with_checksum(key, _encode(queue))


def put_answered(number: int, stored: StoredKey) -> Row:
    key = answered_key(number)
    return key, with_checksum(key, _encode(stored))


def put_job(job: Job, expires: int | None, due: int | None) -> bytes:
    """The body of a job's row: without its payload, where that has its own."""
    payload = job.payload
    if len(payload) <= PAYLOAD_ROW_ABOVE:
        body = _encode((expires, due, False, job))
    else:
        job.payload = b""
        body = _encode((expires, due, True, job))
        job.payload = payload
    return with_checksum(job.id << 1, body)


def put_payload(job: Job) -> Row:
    key = job.id << 1 | 1
    return key, with_checksum(key, job.payload)


class Reader:
    """Turns the rows of a store, by rising keys, into records. A job whose payload stands apart comes once
    that was read. Raises `Damaged`."""

    def __init__(self) -> None:
        self._waiting: StoredJob | None = None

    def read(self, rows: list[tuple[int, bytes]]) -> Iterator[tuple[int, Stored]]:
        for key, sealed in rows:
            body = without_checksum(key, sealed)
            if key > 0 and key & 1:
                yield key, self._with_payload(key, body)
                continue
            self._nobody_waits()
            try:
                stored = self._decode(key, body)
            except msgspec.MsgspecError as bad:
                raise Damaged(f"{name_of(key)}: it cannot be read: {bad}", key) from None
            if isinstance(stored, StoredJob) and stored.payload_row:
                self._waiting = stored
            else:
                yield key, stored

    def end(self) -> None:
        self._nobody_waits()

    def _decode(self, key: int, body: bytes) -> Stored:
        if key > 0:
            return _job(body)
        if key == COUNTERS:
            return _counters(body)
        return _key(body) if key & 1 else _queue(body)

    def _with_payload(self, key: int, body: bytes) -> StoredJob:
        stored, self._waiting = self._waiting, None
        if stored is None or stored.job.id != key >> 1:
            raise Damaged(f"{name_of(key)}: there is no such job", key)
        stored.job.payload = body
        return stored

    def _nobody_waits(self) -> None:
        if self._waiting is not None:
            key = self._waiting.job.id << 1
            self._waiting = None
            raise Damaged(f"{name_of(key)}: its payload is missing", key)
