"""Attributes of queues: their defaults and checks, how a queue keeps them, and the settings that follow.

A queue of SQS is one that has a record in its `attributes`, {"sqs": {…}}. What a setting of the queue says as
well, such as `lease_for`, is set with it, so that jobs are treated alike whoever takes them.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from jobqueue.model import INHERIT, KeyLimits, QueueSettings
from jobqueue.steps import IN_PROGRESS, QUEUED, SCHEDULED, Status
from jobqueue.web.readers.json_text import REFUSED
from jobqueue.web.sqs import names
from jobqueue.web.sqs.errors import INVALID_ATTRIBUTE_NAME, INVALID_ATTRIBUTE_VALUE, SqsError, invalid

_MEMBER = "sqs"
# The largest message, and batch of messages.
MOST_BYTES: Final = 1 << 20
# In seconds: the longest delay of a message, time that a receive waits, and time that a message is invisible.
MOST_DELAY: Final = 900
MOST_WAIT: Final = 20
MOST_VISIBILITY: Final = 43_200
# The most messages of one group that one receive takes, as SQS does.
_RUN = 10


class Number(NamedTuple):
    """An attribute that is a whole number."""

    default: int
    low: int
    high: int


_NUMBERS: Final = {
    "DelaySeconds": Number(0, 0, MOST_DELAY),
    "MaximumMessageSize": Number(MOST_BYTES, 1 << 10, MOST_BYTES),
    "MessageRetentionPeriod": Number(345_600, 1, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": Number(0, 0, MOST_WAIT),
    "VisibilityTimeout": Number(30, 0, MOST_VISIBILITY),
}
_KMS_REUSE = "KmsDataKeyReusePeriodSeconds"
_FLAGS = frozenset({"SqsManagedSseEnabled", "FifoQueue", "ContentBasedDeduplication"})
_WORDS = {
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
}
_OF_FIFO = {
    "FifoQueue": "true",
    "ContentBasedDeduplication": "false",
    "DeduplicationScope": "queue",
    "FifoThroughputLimit": "perQueue",
}
_DOCUMENTS = frozenset({"Policy", "RedrivePolicy", "RedriveAllowPolicy"})
_SETTABLE = frozenset(
    {*_NUMBERS, *_FLAGS, *_WORDS, *_DOCUMENTS, _KMS_REUSE, "KmsMasterKeyId"}
)  # fmt: skip
COUNTS: Final[dict[str, Status]] = {
    "ApproximateNumberOfMessages": QUEUED,
    "ApproximateNumberOfMessagesDelayed": SCHEDULED,
    "ApproximateNumberOfMessagesNotVisible": IN_PROGRESS,
}
_SHOWN = frozenset({*COUNTS, "CreatedTimestamp", "LastModifiedTimestamp", "QueueArn"})
KNOWN: Final = _SETTABLE | _SHOWN | {"All"}


class QueueRecord(Struct, omit_defaults=True):
    """What a queue of SQS keeps: what was set of its attributes, and its tags. Times are seconds."""

    created: int
    modified: int
    attributes: dict[str, str] = {}
    tags: dict[str, str] = {}

    def number(self, name: str) -> int:
        value = self.attributes.get(name)
        return _NUMBERS[name].default if value is None else int(value)

    @property
    def content_based(self) -> bool:
        return self.attributes.get("ContentBasedDeduplication") == "true"

    @property
    def by_group(self) -> bool:
        return self.attributes.get("DeduplicationScope") == "messageGroup"


class Redrive(NamedTuple):
    """A RedrivePolicy: the name of the dead-letter queue, and how often a message is received at most."""

    target: str
    receives: int


_decode = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_record = msgspec.json.Decoder(QueueRecord).decode
_encode = msgspec.json.Encoder().encode


def read(settings: QueueSettings) -> QueueRecord | None:
    """Returns the record of a queue; None: it is no queue of SQS."""
    if settings.attributes is None or b'"sqs"' not in settings.attributes:
        return None
    try:
        record = _decode(settings.attributes).get(_MEMBER)
        return None if record is None else _checked(_decode_record(record))
    except (msgspec.DecodeError, ValueError):
        return None  # a client of the HTTP API wrote something else there


def _checked(record: QueueRecord) -> QueueRecord:
    """Raises `ValueError` for numbers that are none."""
    for name in _NUMBERS:
        record.number(name)
    return record


def write(before: bytes | None, record: QueueRecord | None) -> bytes | None:
    """Returns the `attributes` of a queue with another record, or without one. Other members stay."""
    members: dict[str, Any] = dict(_decode(before)) if before is not None else {}
    members.pop(_MEMBER, None)
    if record is not None:
        members[_MEMBER] = record
    return _encode(members) if members else None


def settings_of(name: str, record: QueueRecord, before: bytes | None) -> dict[str, object]:
    """Returns the settings of the queue that follow from its record."""
    policy = redrive_policy(record.attributes.get("RedrivePolicy"))
    visibility = record.number("VisibilityTimeout")
    return {
        "attributes": write(before, record),
        "lease_for": visibility * 1000 or None,
        "max_attempts": policy.receives if policy is not None else None,
        "dead_letter": policy.target if policy is not None else None,
        "key_limits": KeyLimits(ordered=True, batch=_RUN) if names.is_fifo(name) else None,
    }


def without_record(before: bytes | None) -> dict[str, object]:
    """Returns the settings of a queue that is none of SQS any more."""
    return {
        "attributes": write(before, None),
        "lease_for": None,
        "max_attempts": INHERIT,
        "dead_letter": None,
        "key_limits": None,
    }


def effective(name: str, record: QueueRecord) -> dict[str, str]:
    """Returns the attributes of a queue with the defaults of those that were not set."""
    found = {each: str(number.default) for each, number in _NUMBERS.items()}
    if "KmsMasterKeyId" not in record.attributes:
        found["SqsManagedSseEnabled"] = "true"
    else:
        found[_KMS_REUSE] = "300"
    if names.is_fifo(name):
        found |= _OF_FIFO
    return found | record.attributes


def check(name: str, given: Mapping[str, str | None]) -> dict[str, str]:
    """Returns attributes that a client sets for the queue of this name; "": one that is unset. Raises
    `SqsError`."""
    fifo = names.is_fifo(name)
    found = {each.strip(): value or "" for each, value in given.items()}
    for each, value in found.items():
        if each in _WORDS and not fifo:
            raise SqsError(
                INVALID_ATTRIBUTE_NAME, f"You can specify the {each} only when FifoQueue is set to true."
            )
        if each not in _SETTABLE or (each in _OF_FIFO and not fifo):
            raise SqsError(INVALID_ATTRIBUTE_NAME, f"Unknown Attribute {each[:100]}.")
        _check_value(each, value, found)
        if each in _FLAGS:
            found[each] = value.lower()
        elif each == "RedrivePolicy" and value:
            found[each] = _with_number(value)
    return found


def _check_value(name: str, value: str, all: Mapping[str, str]) -> None:
    if name in _NUMBERS or name == _KMS_REUSE:
        limits = _NUMBERS.get(name) or Number(300, 60, 86_400)
        digits = value.isascii() and value.isdigit() and len(value) <= 9
        if not digits or not limits.low <= int(value) <= limits.high:
            raise _bad(name)
    elif name in _FLAGS:
        if value.lower() not in ("true", "false"):
            raise _bad(name)
        if name == "FifoQueue" and value.lower() == "false":
            raise _bad(name, " Reason: Modifying queue type is not supported.")
    elif name in _WORDS:
        if value not in _WORDS[name]:
            raise _bad(name)
        of_group = all.get("DeduplicationScope", "messageGroup") == "messageGroup"
        if name == "FifoThroughputLimit" and value == "perMessageGroupId" and not of_group:
            raise _bad(name)
    elif name == "RedrivePolicy":
        redrive_policy(value)
    elif name in _DOCUMENTS and value:
        document(name, value)


def _bad(name: str, reason: str = "") -> SqsError:
    return SqsError(INVALID_ATTRIBUTE_VALUE, f"Invalid value for the parameter {name}.{reason}")


def document(name: str, value: str) -> dict[str, Any]:
    """Decodes an attribute that holds a JSON object. Raises `SqsError`."""
    try:
        found = msgspec.json.decode(value)
    except REFUSED:
        found = None
    if not isinstance(found, dict):
        raise (
            invalid(value, name, "Redrive policy is not a valid JSON map.")
            if name != "Policy"
            else _bad(name)
        )
    return found


def redrive_policy(value: str | None) -> Redrive | None:
    """Returns what a RedrivePolicy says; None: there is none. Raises `SqsError`."""
    if not value:
        return None
    found = document("RedrivePolicy", value)
    arn, count = found.get("deadLetterTargetArn"), found.get("maxReceiveCount")
    if not arn:
        raise invalid(
            value,
            "RedrivePolicy",
            "Redrive policy does not contain mandatory attribute: deadLetterTargetArn.",
        )
    if count is None:
        raise invalid(
            value, "RedrivePolicy", "Redrive policy does not contain mandatory attribute: maxReceiveCount."
        )
    text = str(count)
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= 1000):
        raise invalid(
            value,
            "RedrivePolicy",
            f"Invalid value for maxReceiveCount: {text[:40]}, valid values are from 1 to 1000 both "
            "inclusive.",
        )
    target = names.queue_of_arn(str(arn))
    if target is None:
        raise invalid(value, "RedrivePolicy", "Invalid value for deadLetterTargetArn.")
    return Redrive(target, int(text))


def _with_number(policy: str) -> str:
    """Returns a RedrivePolicy in which the count is a number, as SQS shows it."""
    found = document("RedrivePolicy", policy)
    if not isinstance(found["maxReceiveCount"], str):
        return policy
    return _encode(found | {"maxReceiveCount": int(found["maxReceiveCount"])}).decode()


def may_redrive(policy: str | None, source: str) -> bool:
    """Tells whether a RedriveAllowPolicy of a dead-letter queue admits the queue `source`."""
    if not policy:
        return True
    found = document("RedriveAllowPolicy", policy)
    permission = found.get("redrivePermission", "allowAll")
    if permission == "byQueue":
        arns = found.get("sourceQueueArns")
        return isinstance(arns, list) and source in [names.queue_of_arn(str(arn)) for arn in arns]
    return bool(permission != "denyAll")
