"""SendMessage and SendMessageBatch: messages become jobs."""

from asyncio import Future
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from re import compile
from typing import Any, Final

import msgspec

from jobqueue.engine.api import MaybeFuture
from jobqueue.errors import InvalidField, JobQueueError
from jobqueue.model import Backoff, ExistingJob, Job, NewJob, Options
from jobqueue.web.futures import Chained, then
from jobqueue.web.schema import requests
from jobqueue.web.schema.kinds import kind_of
from jobqueue.web.sqs import batches, message_attributes, names, shapes
from jobqueue.web.sqs.call import Call, SqsQueue
from jobqueue.web.sqs.errors import (
    BATCH_TOO_LONG,
    INVALID_PARAMETER,
    SqsError,
    invalid,
    message_too_long,
    missing,
)
from jobqueue.web.sqs.queue_attributes import MOST_BYTES, MOST_DELAY
from jobqueue.web.sqs.shapes import Envelope, MessageAttribute

# The attribute of a message that is the type of its job, and the type of one without.
TYPE: Final = "jobqueue.type"
DEFAULT_TYPE: Final = "sqs"
TEXT: Final = "text/plain"
# How long a deduplication id is remembered, in milliseconds.
WINDOW: Final = 300_000
_TRACE: Final = b"x-amzn-trace-id"
_FIFO_ID: Final = compile(r"[!-~]{1,128}")
_AT_ONCE: Final = Backoff(base=0, longest=0, jitter=0.0)  # a message that comes back does not rest
_type: Final = kind_of(requests.Type)
_encode: Final = msgspec.json.Encoder().encode


def send_message(call: Call, asked: shapes.Message) -> MaybeFuture[dict[str, Any]]:
    queue = call.queue(asked.queue_url)
    new = _job_of(call, queue, asked)
    known = _duplicate(call, queue, new)
    made: MaybeFuture[Job | ExistingJob]
    made = call.engine.enqueue(new) if known is None else call.engine.after_commit(known)
    if isinstance(made, Future):
        return Chained(made, partial(_sent, queue, asked))
    return _sent(queue, asked, made)


def send_message_batch(call: Call, asked: shapes.SendMessageBatch) -> MaybeFuture[dict[str, Any]]:
    queue = call.queue(asked.queue_url)
    entries = batches.check(asked.entries, "SendMessageBatchRequestEntry")
    if queue.fifo:
        for entry in entries:
            if not entry.message_group_id:
                raise SqsError(INVALID_PARAMETER, missing("MessageGroupId").detail)
            _check_fifo(queue, entry)
    total = sum(_size(entry) for entry in entries)
    if total > MOST_BYTES:
        raise SqsError(
            BATCH_TOO_LONG,
            f"Batch requests cannot be longer than {MOST_BYTES} bytes. You have sent {total} bytes.",
        )
    prepared: list[NewJob | Job | ExistingJob | JobQueueError] = []
    for entry in entries:
        try:
            new = _job_of(call, queue, entry)
            prepared.append(_duplicate(call, queue, new) or new)
        except JobQueueError as refused:
            prepared.append(refused)
    made = call.engine.enqueue_each([one for one in prepared if isinstance(one, NewJob)])
    return then(made, partial(_batch_sent, queue, entries, prepared))


def _batch_sent(
    queue: SqsQueue,
    entries: Sequence[shapes.Message],
    prepared: list[NewJob | Job | ExistingJob | JobQueueError],
    made: list[Job | ExistingJob | JobQueueError],
) -> dict[str, Any]:
    results = iter(made)
    successful, failures = [], []
    for entry, one in zip(entries, prepared, strict=True):
        result = next(results) if isinstance(one, NewJob) else one
        if isinstance(result, JobQueueError):
            failures.append(batches.failed(entry, result))
        else:
            successful.append({"Id": entry.id, **_sent(queue, entry, result)})
    return batches.outcome(successful, failures)


def _sent(queue: SqsQueue, asked: shapes.Message, made: Job | ExistingJob) -> dict[str, Any]:
    job = made if isinstance(made, Job) else made.job
    assert asked.message_body is not None
    found = {
        "MessageId": names.message_id(job.id),
        "MD5OfMessageBody": message_attributes.md5_of(asked.message_body.encode()),
    }
    if asked.message_attributes:
        found["MD5OfMessageAttributes"] = message_attributes.digest(asked.message_attributes)
    if asked.message_system_attributes:
        found["MD5OfMessageSystemAttributes"] = message_attributes.digest(asked.message_system_attributes)
    if queue.fifo:
        found["SequenceNumber"] = f"{job.id:020}"
    return found


def _size(asked: shapes.Message) -> int:
    return len((asked.message_body or "").encode()) + message_attributes.size(asked.message_attributes or {})


def _job_of(call: Call, queue: SqsQueue, asked: shapes.Message) -> NewJob:
    """Returns the job of a message. Raises `SqsError`."""
    body = asked.message_body or ""
    attributes = asked.message_attributes or {}
    limit = min(queue.max_size, call.context.settings.max_body)
    message_attributes.check_body(body)
    payload = body.encode()
    size = len(payload) + message_attributes.size(attributes) if attributes else len(payload)
    if size > limit:
        raise message_too_long(limit)
    if attributes:
        message_attributes.check(attributes)
    system = asked.message_system_attributes
    trace = message_attributes.trace_of(system) if system else None
    if trace is None and (sent := call.headers.get(_TRACE)) is not None:
        text = sent.decode("latin-1")
        trace = text if message_attributes.is_text(text) else None
    options = Options(retain_for=0, content_type=TEXT, backoff=_AT_ONCE)
    if attributes or trace is not None:
        options.envelope = _encode(Envelope(attributes, trace))
    delay = _order(queue, asked, options, body)
    return NewJob(
        _type_of(attributes),
        queue.name,
        payload=payload,
        delay=delay * 1000,
        expires_in=queue.retention * 1000,
        options=options,
    )


def _type_of(attributes: dict[str, MessageAttribute]) -> str:
    given = attributes.get(TYPE)
    if given is None or given.string_value is None:
        return DEFAULT_TYPE
    try:
        checked: str = _type.check(given.string_value, TYPE)
    except InvalidField as bad:
        raise invalid(given.string_value, TYPE, bad.detail) from None
    return checked


def _order(queue: SqsQueue, asked: shapes.Message, options: Options, body: str) -> int:
    """Sets the key and the unique key of a message, and returns its delay in seconds. Raises `SqsError`."""
    group, deduplication, delay = asked.message_group_id, asked.message_deduplication_id, asked.delay_seconds
    if group is not None:
        _check_id(group, "MessageGroupId")
        options.key = group
    if delay is not None and not 0 <= delay <= MOST_DELAY:
        raise invalid(delay, "DelaySeconds", "DelaySeconds must be >= 0 and <= 900.")
    if deduplication is not None:
        _check_id(deduplication, "MessageDeduplicationId")
    if not queue.fifo:
        if deduplication is not None:
            raise invalid(
                deduplication,
                "MessageDeduplicationId",
                "The request includes a parameter that is not valid for this queue type.",
            )
        return queue.delay if delay is None else delay
    if delay:
        raise invalid(
            delay,
            "DelaySeconds",
            "The request include parameter that is not valid for this queue type.",
        )
    _check_fifo(queue, asked)
    if deduplication is None:
        deduplication = sha256(body.encode()).hexdigest()
    options.unique_key = f"{group}\n{deduplication}" if queue.record.by_group else deduplication
    options.unique_while = "exists"
    options.retain_for = WINDOW
    return queue.delay


def _check_fifo(queue: SqsQueue, asked: shapes.Message) -> None:
    """Raises `SqsError` if a message for a FIFO queue has no group, or nothing to deduplicate it by."""
    if not asked.message_group_id:
        raise missing("MessageGroupId")
    if not asked.message_deduplication_id and not queue.record.content_based:
        raise SqsError(
            INVALID_PARAMETER,
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId "
            "provided explicitly",
        )


def _check_id(value: str, name: str) -> None:
    if not _FIFO_ID.fullmatch(value):
        raise invalid(
            value,
            name,
            f"{name} can only include alphanumeric and punctuation characters. 1 to 128 in length.",
        )


def _duplicate(call: Call, queue: SqsQueue, new: NewJob) -> Job | ExistingJob | None:
    """Returns the message that `new` repeats within five minutes; None: it is a new one, or one that was sent
    in the same window as its owner.

    A unique key is of one window, the time since 1970 divided by five minutes. So a message that is older
    than five minutes keeps no other from being sent, and only the window before has to be looked at.
    """
    options = new.options
    if options is None or options.unique_key is None:
        return None
    key, now = options.unique_key, call.engine.wall_now()
    window = now // WINDOW
    options.unique_key = f"{key}@{window}"
    earlier = call.engine.unique_owner(queue.name, f"{key}@{window - 1}")
    return ExistingJob(earlier) if earlier is not None and earlier.created_at > now - WINDOW else None


def deduplication_id(unique_key: str) -> str:
    """Returns the id that a client sent, of the unique key of its job; the key itself if that is of a job of
    the HTTP API."""
    sent, _, window = unique_key.rpartition("@")
    return sent.rpartition("\n")[2] if sent and window.isdigit() else unique_key
