"""ReceiveMessage: jobs are leased, and shown as messages."""

from asyncio import Future
from base64 import b64encode
from functools import partial
from typing import Any, Final

import msgspec

from jobqueue.model import Delivery, DequeueRequest, Job, LeaseClaim
from jobqueue.web.http import Answer, Deferred, Response
from jobqueue.web.sqs import message_attributes, names, shapes
from jobqueue.web.sqs.call import Call
from jobqueue.web.sqs.errors import INVALID_ATTRIBUTE_NAME, SqsError, invalid
from jobqueue.web.sqs.queue_attributes import MOST_VISIBILITY, MOST_WAIT
from jobqueue.web.sqs.send import DEFAULT_TYPE, TYPE, deduplication_id
from jobqueue.web.sqs.shapes import Envelope, MessageAttribute

_SYSTEM: Final = frozenset(
    {
        "All",
        "SenderId",
        "SentTimestamp",
        "ApproximateReceiveCount",
        "ApproximateFirstReceiveTimestamp",
        "SequenceNumber",
        "MessageDeduplicationId",
        "MessageGroupId",
        "AWSTraceHeader",
        "DeadLetterQueueSourceArn",
    }
)
_NO_NAMES: Final[frozenset[str]] = frozenset()
_decode: Final = msgspec.json.Decoder(Envelope).decode


def receive_message(call: Call, asked: shapes.ReceiveMessage) -> Answer:
    queue = call.queue(asked.queue_url)
    count, wait, visibility = asked.max_number_of_messages, asked.wait_time_seconds, asked.visibility_timeout
    if count is not None and not 1 <= count <= 10:
        raise invalid(count, "MaxNumberOfMessages", "Must be between 1 and 10, if provided.")
    if wait is not None and not 0 <= wait <= MOST_WAIT:
        raise invalid(wait, "WaitTimeSeconds", "Must be >= 0 and <= 20, if provided.")
    if visibility is not None and not 0 <= visibility <= MOST_VISIBILITY:
        raise invalid(visibility, "VisibilityTimeout", "Must be >= 0 and <= 43200, if provided.")
    shown = _names(asked.message_system_attribute_names or asked.attribute_names)
    for name in shown:
        if name not in _SYSTEM and name not in _OF_QUEUES:
            raise SqsError(INVALID_ATTRIBUTE_NAME, f"Unknown Attribute {name[:100]}.")
    if wait is None:
        wait = queue.wait
    if visibility is None and queue.visibility == 0:
        visibility = 0
    settings = call.context.settings
    lease_for = min(visibility * 1000, settings.lease_max) if visibility else None
    request = DequeueRequest((queue.name,), lease_for, count or 1, by_run=queue.fifo)
    deliveries = call.engine.dequeue(request, min(wait * 1000, settings.wait_max))
    wanted = _names(asked.message_attribute_names)
    if not isinstance(deliveries, Future):
        return _shown(call, shown, wanted, visibility == 0, deliveries)
    # Not `then`: a client that hangs up when the jobs have just come must not keep them.
    return Deferred(deliveries, partial(_shown, call, shown, wanted, visibility == 0), wait > 0)


def _names(asked: list[str] | None) -> frozenset[str]:
    return frozenset(asked) if asked else _NO_NAMES


# Names of attributes of queues are taken, too, as clients send them for both.
_OF_QUEUES: Final = frozenset({"Policy", "VisibilityTimeout", "QueueArn", "FifoQueue", "CreatedTimestamp"})


def _shown(
    call: Call,
    system: frozenset[str],
    wanted: frozenset[str],
    at_once: bool,
    deliveries: list[Delivery],
) -> Response | Deferred:
    """Returns the answer with messages. `at_once`: their leases end with it. They count as received, and are
    there for the next receive."""
    messages = [_message(call, system, wanted, delivery) for delivery in deliveries]
    answer = call.answer({"Messages": messages} if messages else {})
    if not at_once or not deliveries:
        answer.on_undelivered = partial(call.engine.give_back, deliveries)
        return answer
    fail = call.engine.fail
    ended = call.engine.each(
        [partial(fail, LeaseClaim(job.id, lease.token, None), None, True, 0) for job, lease in deliveries]
    )
    return Deferred(ended, lambda _: answer) if isinstance(ended, Future) else answer


def _message(
    call: Call, system: frozenset[str], wanted: frozenset[str], delivery: Delivery
) -> dict[str, Any]:
    job, lease = delivery
    body = body_of(job.payload)
    found: dict[str, Any] = {
        "MessageId": names.message_id(job.id),
        "ReceiptHandle": names.receipt_handle(job.id, lease.token, job.queue),
        "MD5OfBody": message_attributes.md5_of(body.encode()),
        "Body": body,
    }
    if system:
        shown = _system_attributes(call, delivery)
        if "All" not in system:
            shown = {name: value for name, value in shown.items() if name in system}
        if shown:
            found["Attributes"] = shown
    if wanted and (attributes := message_attributes.chosen(_attributes(job), wanted)):
        found["MD5OfMessageAttributes"] = message_attributes.digest(attributes)
        found["MessageAttributes"] = attributes
    return found


def body_of(payload: bytes) -> str:
    """Returns a payload as text that both protocols can carry: what no text is, or has characters that XML
    has not, in base64."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return b64encode(payload).decode()
    return text if message_attributes.is_text(text) else b64encode(payload).decode()


def _envelope(job: Job) -> Envelope | None:
    options = job.extras.options if job.extras is not None else None
    return _decode(options.envelope) if options is not None and options.envelope is not None else None


def _attributes(job: Job) -> dict[str, MessageAttribute]:
    """Returns the attributes of a message. A job of another type than that of messages shows it in one."""
    envelope = _envelope(job)
    attributes = envelope.attributes if envelope is not None else {}
    if job.type != DEFAULT_TYPE and TYPE not in attributes:
        attributes = {**attributes, TYPE: MessageAttribute("String", job.type)}
    return attributes


def _system_attributes(call: Call, delivery: Delivery) -> dict[str, str]:
    job, lease = delivery
    trace = job.extras.trace if job.extras is not None else None
    options = job.extras.options if job.extras is not None else None
    first = trace.history[0].started_at if trace is not None and trace.history else lease.started_at
    found = {
        "SenderId": call.account,
        "SentTimestamp": str(job.created_at),
        "ApproximateReceiveCount": str(job.leases),
        "ApproximateFirstReceiveTimestamp": str(first),
    }
    if options is not None:
        if options.key is not None:
            found["MessageGroupId"] = options.key
        if options.unique_key is not None:
            found["MessageDeduplicationId"] = deduplication_id(options.unique_key)
    if names.is_fifo(job.queue):
        found["SequenceNumber"] = f"{job.id:020}"
    envelope = _envelope(job)
    if envelope is not None and envelope.trace is not None:
        found["AWSTraceHeader"] = envelope.trace
    if trace is not None and trace.dead_from is not None:
        found["DeadLetterQueueSourceArn"] = call.arn(trace.dead_from)
    return found
