"""The structs of requests, one for each call.

Names, types and defaults of the API are declared here only. `readers.fields` checks values beyond their
types; `_says` repeats that for the OpenAPI document, since the decoder does not read it.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from jobqueue.steps import STATUSES
from jobqueue.units import DURATION_HELP, DURATION_PATTERN, INSTANT_PATTERN
from jobqueue.web.schema.events import EVENT_NAMES
from jobqueue.web.schema.patterns import INT32, MEDIA_TYPE, QUEUE_NAME

NULL = Raw(b"null")
ABSENT = Raw(b"")


def _says(**schema: object) -> Meta:
    return Meta(extra_json_schema=schema)


def _text(most: int) -> Meta:
    return _says(minLength=1, maxLength=most, pattern=r"^[^\u0000-\u001f\u007f]*$")


def _whole(low: int, high: int) -> Meta:
    return _says(minimum=low, maximum=high)


def _length(title: str, least: float, **most: int) -> Meta:
    return _says(title=title, description=DURATION_HELP, minimum=least, pattern=DURATION_PATTERN, **most)


# A title makes it a schema of its own in the document. What the settings limit, the document says too.
Duration = Annotated[int | float | str, _length("Duration", 0, maximum=366 * 86_400)]
PositiveDuration = Annotated[int | float | str, _length("PositiveDuration", 0.001, maximum=366 * 86_400)]
LeaseFor = Annotated[int | float | str, _length("LeaseFor", 1)]
Wait = Annotated[int | float | str, _length("Wait", 0)]
Age = Annotated[int | float | str, _length("Age", 0, maximum=36_600 * 86_400)]
Instant = Annotated[
    str,
    _says(title="Instant", description="an instant with an offset, of the years 1970 to 9998",
          format="date-time", pattern=INSTANT_PATTERN),
]  # fmt: skip
QueueName = Annotated[str, _says(title="QueueName", pattern=f"^{QUEUE_NAME}$")]
Priority = Annotated[int, Meta(ge=INT32[0], le=INT32[1])]
Attempts = Annotated[int, _whole(1, 10_000)]
Count = Annotated[int, _whole(1, 2**53 - 1)]
Batch = Annotated[int, _says(title="Batch", minimum=1)]
Page = Annotated[int, _whole(1, 1000)]
Type = Annotated[str, _text(256)]
Key = Annotated[str, _text(256)]
Tags = Annotated[list[Annotated[str, _text(64)]], _says(maxItems=16)]
MediaType = Annotated[str, _says(minLength=3, maxLength=256, pattern=f"^{MEDIA_TYPE}$")]
Consumer = Annotated[str, _text(128)]
Lease = Annotated[str, _says(minLength=1, maxLength=64)]
Lengths = Annotated[list[Duration], _says(minItems=1, maxItems=100)]
Queues = Annotated[list[QueueName], _says(minItems=1, maxItems=1000)]
Choice = Annotated[list[Annotated[str, _says(minLength=1)]], _says(minItems=1, maxItems=100)]
Statuses = Annotated[list[Annotated[str, _says(enum=STATUSES)]], _says(minItems=1)]


class Shape(Struct, gc=False, forbid_unknown_fields=True):
    """A struct that refuses unknown names; `RequestDecoder` then reports which, and the nearest."""


class BackoffShape(Shape):
    """The delays between attempts: `base` × `factor` each time, at most `max`."""

    base: Duration = 10
    factor: Annotated[float, _says(minimum=1, maximum=100)] = 2.0
    max: Duration = "6h"
    jitter: Annotated[float, _says(minimum=0, maximum=1)] = 0.1


class PlainJob(Shape):
    """The fields of most enqueues, decoded first. `JobShape` has all fields."""

    type: Type
    queue: QueueName = "default"
    priority: Priority = 0
    payload: Raw = NULL


class JobShape(PlainJob):
    delay: Duration | None = None
    run_at: Instant | None = None
    expires_in: PositiveDuration | None = None
    lease_for: LeaseFor | None = None
    max_attempts: Attempts | UnsetType | None = UNSET
    backoff: Lengths | BackoffShape | None = None
    retain_for: Duration | None = None
    key: Key | None = None
    unique_key: Key | None = None
    unique_while: Literal["queued", "active", "exists"] | None = None
    on_conflict: Literal["ignore", "reject", "replace"] | None = None
    tags: Tags | None = None
    headers: dict[str, str] | None = None
    content_type: MediaType | None = None
    payload_encoding: Literal["base64"] | None = None


class EnqueueOptions(JobShape):
    """Further options in the query of an enqueue. `raw`: the body is the payload."""

    atomic: bool = True
    raw: bool = False


class ChangeShape(Shape):
    """A merge-patch: omitted fields stay, `null` restores the default; for `max_attempts` it means no
    limit.
    """

    queue: QueueName | UnsetType | None = UNSET
    type: Type | UnsetType = UNSET
    priority: Priority | UnsetType | None = UNSET
    payload: Raw = ABSENT
    delay: Duration | UnsetType | None = UNSET
    run_at: Instant | UnsetType | None = UNSET
    expires_in: PositiveDuration | UnsetType | None = UNSET
    lease_for: LeaseFor | UnsetType | None = UNSET
    max_attempts: Attempts | UnsetType | None = UNSET
    backoff: Lengths | BackoffShape | UnsetType | None = UNSET
    retain_for: Duration | UnsetType | None = UNSET
    key: Key | UnsetType | None = UNSET
    tags: Tags | UnsetType | None = UNSET
    headers: dict[str, str] | UnsetType | None = UNSET


class DequeueShape(Shape):
    queues: Queues | str | None = None
    queue: QueueName | None = None
    wait: Wait = 0
    lease_for: LeaseFor | None = None
    count: Batch | None = None
    consumer: Consumer | None = None
    raw: bool = False


class HolderShape(Shape):
    """The fields of all calls that claim a lease."""

    lease: Lease | None = None
    consumer: Consumer | None = None


class PlainConclude(HolderShape):
    """The fields of most concludes, decoded first. `ConcludeShape` has all fields."""

    result: Raw = ABSENT


class ConcludeShape(PlainConclude):
    """A conclude. `next`: dequeue afterwards; the other fields belong to that dequeue."""

    next: bool = False
    queues: Queues | str | None = None
    queue: QueueName | None = None
    wait: Wait | None = None
    lease_for: LeaseFor | None = None


class ConcludeOptions(ConcludeShape):
    """`raw`: the body is the result."""

    raw: bool = False


class HeartbeatShape(HolderShape):
    lease_for: LeaseFor | None = None
    progress: Annotated[int, _whole(0, 100)] | None = None
    message: Annotated[str, _says(maxLength=500)] | None = None


class ReleaseShape(HolderShape):
    delay: Duration = 0


class ErrorShape(Shape):
    type: str | None = None
    message: str | None = None
    details: Raw = NULL


_ERROR = _says(anyOf=[{"type": "string"}, {"$ref": "#/components/schemas/ErrorShape"}])


class FailShape(HolderShape):
    error: Annotated[Raw, _ERROR] = ABSENT
    retry: bool = True
    retry_in: Duration | None = None


class FailOptions(FailShape):
    """`raw`: the body is the error."""

    raw: bool = False


class ConcludeItem(PlainConclude, kw_only=True):
    """One item of a request for many, like the three below. It names its job."""

    id: int


class HeartbeatItem(HeartbeatShape, kw_only=True):
    id: int


class ReleaseItem(ReleaseShape, kw_only=True):
    id: int


class FailItem(FailShape, kw_only=True):
    id: int


class FaceShape(Shape, rename={"length": "for"}):
    """The format of an answer. `length` is that of a stream of events."""

    format: Literal["json", "text", "html", "events"] | None = None
    length: PositiveDuration | None = None


class WaitShape(FaceShape):
    wait: Wait = 0


class CancelShape(Shape):
    force: bool = False


class RateShape(Shape):
    """`count` starts in `per`, at most `burst` at once; the default of `burst` is `count`."""

    count: Count
    per: PositiveDuration = 1
    burst: Count | None = None


class KeyLimitsShape(Shape):
    max_in_progress: Count | None = None
    rate: RateShape | None = None


class QueueShape(Shape):
    """A merge-patch of a queue's settings: omitted fields stay, `null` restores the default."""

    lease_for: LeaseFor | UnsetType | None = UNSET
    max_attempts: Attempts | UnsetType | None = UNSET
    backoff: Lengths | BackoffShape | UnsetType | None = UNSET
    retain_for: Duration | UnsetType | None = UNSET
    dead_letter: QueueName | UnsetType | None = UNSET
    max_jobs: Count | UnsetType | None = UNSET
    max_bytes: Count | UnsetType | None = UNSET
    max_in_progress: Count | UnsetType | None = UNSET
    rate: RateShape | UnsetType | None = UNSET
    key_limits: KeyLimitsShape | UnsetType | None = UNSET


class PauseShape(Shape, rename={"length": "for"}):
    length: PositiveDuration | None = None
    reason: Annotated[str, _text(500)] | None = None


class FilterShape(Shape):
    """A filter. Each field is a list, or text with commas."""

    status: Statuses | str | None = None
    type: Choice | str | None = None
    tag: Choice | str | None = None
    key: Choice | str | None = None
    older_than: Age | None = None


class CountShape(FilterShape):
    queue: Choice | str | None = None


class ListShape(CountShape):
    format: Literal["json", "text", "html"] | None = None
    payload: bool = False
    order: Literal["asc", "desc"] = "asc"
    limit: Page = 100
    cursor: Annotated[str, _says(pattern="^[0-9]{1,16}$")] | None = None


class QueuesShape(FaceShape):
    limit: Page = 1000
    cursor: QueueName | None = None


class PeekShape(Shape):
    payload: bool = False
    limit: Page = 10


class PurgeShape(FilterShape):
    all: bool = False
    dry_run: bool = False


class RedriveShape(PurgeShape):
    limit: Count | None = None


class StreamShape(Shape, rename={"length": "for"}):
    """A stream of jobs; without `length` it has no end."""

    queues: Queues | str | None = None
    queue: QueueName | None = None
    prefetch: Page = 1
    lease_for: LeaseFor | None = None
    consumer: Consumer | None = None
    length: PositiveDuration | None = None


class EventsShape(Shape, rename={"length": "for"}):
    """A stream of events. Each field is a list, or text with commas; without `length` there is no end."""

    queue: Choice | str | None = None
    job: (
        Annotated[list[Annotated[int, _whole(1, 2**53 - 1)]], _says(minItems=1, maxItems=100)] | str | None
    ) = None
    event: Annotated[list[Annotated[str, _says(enum=EVENT_NAMES)]], _says(minItems=1)] | str | None = None
    length: PositiveDuration | None = None


class TopShape(Shape, rename={"length": "for"}):
    length: PositiveDuration | None = None


class AttemptShape(Shape):
    """One attempt in a job's history."""

    attempt: Annotated[int, _whole(0, 2**31 - 1)]
    started_at: Instant
    outcome: Literal["concluded", "failed", "stale", "released", "cancelled"]
    ended_at: Instant | None = None
    consumer: Consumer | None = None
    error: Annotated[Raw, _ERROR] | UnsetType = UNSET


class DeadFromShape(Shape):
    queue: QueueName
    reason: Literal["attempts", "no_retry", "expired"]


class ImportShape(JobShape):
    """A job as an export has it. `origin` identifies it across queues. The last fields are ignored."""

    origin: Annotated[str, _text(128)] | None = None
    status: Annotated[str, _says(enum=STATUSES)] | None = None
    attempts: Annotated[int, _whole(0, 2**31 - 1)] = 0
    leases: Annotated[int, _whole(0, 2**31 - 1)] = 0
    created_at: Instant | None = None
    finished_at: Instant | None = None
    expires_at: Instant | None = None
    reason: Literal["attempts", "no_retry", "expired"] | None = None
    error: Annotated[Raw, _ERROR] = ABSENT
    history: Annotated[list[AttemptShape], _says(maxItems=20)] | None = None
    dead_from: DeadFromShape | None = None
    id: Raw = NULL
    lease: Raw = NULL
    started_at: Raw = NULL
    lease_expires_at: Raw = NULL
    consumer: Raw = NULL
    cancel_requested: Raw = NULL
    duplicate: Raw = NULL
    result: Raw = NULL
    progress: Raw = NULL
    message: Raw = NULL
    etag: Raw = NULL


class NoShape(Shape):
    """The options of calls that take none."""
