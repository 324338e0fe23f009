"""The structs of requests, one for each call.

Names, types, kinds and defaults of the fields are declared here only. The kind of a field, see `kinds`, has
its check, its unit, its messages and its limits in the OpenAPI document.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Raw, Struct, UnsetType

from jobqueue.model import GROUPED_BY, SERIES_LENGTH, SERIES_STEP, OnConflict, Overrun, Reason, UniqueWhile
from jobqueue.steps import STATUSES
from jobqueue.web.schema import kinds
from jobqueue.web.schema.events import EVENT_NAMES
from jobqueue.web.schema.kinds import YEAR_MS, Kind, Values, duration, text, whole

NULL = Raw(b"null")
ABSENT = Raw(b"")
# Statuses as other queues call them.
_MEANT = {
    "pending": "queued", "waiting": "queued", "ready": "queued", "running": "in_progress",
    "active": "in_progress", "leased": "in_progress", "failed": "dead", "error": "dead", "errored": "dead",
    "done": "concluded", "completed": "concluded", "success": "concluded", "finished": "concluded",
    "delayed": "scheduled", "retrying": "scheduled", "canceled": "cancelled",
}  # fmt: skip

Duration = Annotated[int | float | str, kinds.DURATION.meta]
PositiveDuration = Annotated[int | float | str, kinds.POSITIVE_DURATION.meta]
LeaseFor = Annotated[int | float | str, duration("LeaseFor", 1000, setting="lease_max").meta]
RunFor = Annotated[int | float | str, duration("RunFor", 1000, YEAR_MS).meta]
Wait = Annotated[int | float | str, duration("Wait", 0, setting="wait_max").meta]
Age = Annotated[int | float | str, duration("Age", 0, 100 * YEAR_MS).meta]
Instant = Annotated[str, kinds.Instant("an instant with an offset").meta]
RunAt = Annotated[
    str,
    kinds.Instant(
        'an instant with an offset, such as "2026-11-24T03:14:15Z" (`date -Is` writes one; no bare number)',
        "for a length of time use delay",
    ).meta,
]  # fmt: skip
QueueName = Annotated[str, kinds.QUEUE_NAME.meta]
TokenName = Annotated[str, kinds.TOKEN_NAME.meta]
Priority = Annotated[int, kinds.PRIORITY.meta]
Attempts = Annotated[int, kinds.MAX_ATTEMPTS.meta]
Count = Annotated[int, kinds.COUNT.meta]
Burst = Annotated[int, kinds.BURST.meta]
Int31 = Annotated[int, whole(0, 2**31 - 1).meta]
Batch = Annotated[int, kinds.Whole("a whole number", 1, setting="max_batch", schema={"title": "Batch"}).meta]
Page = Annotated[int, whole(1, 1000).meta]
JobId = Annotated[int, Kind("the id of a job", in_query=False).meta]
Type = Annotated[str, text(256).meta]
Key = Annotated[str, text(256).meta]
Tags = Annotated[list[Annotated[str, kinds.TAG.meta]], kinds.Tags("a list of texts", high=16).meta]
MediaType = Annotated[
    str,
    kinds.Name(
        "the media type of a payload that is not JSON, such as image/jpeg",
        "a media type such as image/jpeg, at most 256 characters",
        # type/subtype and parameters (RFC 9110, 8.3), limited to characters that an HTTP header may hold.
        {"pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+/[A-Za-z0-9!#$%&'*+.^_`|~-]+( *;[ -~]*)?$",
         "minLength": 3, "maxLength": 256},
        in_query=False,
    ).meta,
]  # fmt: skip
Encoding = Annotated[Literal["base64"], kinds.OneOf("base64", in_query=False).meta]
Consumer = Annotated[str, text(128).meta]
Progress = Annotated[int | float, kinds.Percent("a number", 0, 100).meta]
Message = Annotated[str, kinds.MESSAGE.meta]
PauseReason = Annotated[str, text(500).meta]
Lease = Annotated[str, kinds.LEASE.meta]
Headers = Annotated[dict[str, str], kinds.Headers("an object of texts", in_query=False).meta]
Error = Annotated[
    Raw,
    kinds.Error(
        "text, or an object with type, message, details",
        schema={"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/ErrorShape"}]},
    ).meta,
]
# Beside lists of these there is an object, whose kind is the same.
Lengths = Annotated[
    list[Duration], kinds.Backoff('a list of durations, or {"base","factor","max","jitter"}', 1, 100).meta
]
Queues = Annotated[list[QueueName], kinds.QueueNames("a list of names, or text with commas", 1, 1000).meta]
Choice = Annotated[
    list[Annotated[str, Kind(low=1).meta]],
    Values("a list of texts, or text with commas", high=kinds.MAX_VALUES).meta,
]
Statuses = Annotated[
    list[Annotated[str, Kind(schema={"enum": STATUSES}).meta]],
    Values("a list of statuses, or text with commas", STATUSES, _MEANT).meta,
]
EventNames = Annotated[
    list[Annotated[str, Kind(schema={"enum": EVENT_NAMES}).meta]],
    Values("a list of names of events, or text with commas", EVENT_NAMES).meta,
]
GroupedBy = Annotated[
    list[Annotated[str, Kind(schema={"enum": GROUPED_BY}).meta]],
    Values("a list of fields, or text with commas", GROUPED_BY).meta,
]
Format = Literal["json", "text", "html"]
LiveFormat = Literal["json", "text", "html", "events"]
SeriesLength = Annotated[int | float | str, duration("SeriesLength", SERIES_STEP, SERIES_LENGTH).meta]
SeriesStep = Annotated[int | float | str, duration("SeriesStep", SERIES_STEP, SERIES_LENGTH).meta]
JobCursor = Annotated[str, kinds.Cursor("what `next` was", schema={"pattern": "^[0-9]{1,16}$"}).meta]
JobIds = Annotated[list[Count], kinds.JobIds("a list of ids, or text with commas", 1, 100).meta]


class Shape(Struct, gc=False, forbid_unknown_fields=True):
    """A struct that refuses unknown names; `RequestDecoder` then reports which, and the nearest."""


class BackoffShape(Shape):
    """The delays between attempts: `base` × `factor` each time, at most `max`."""

    base: Duration = 10
    factor: Annotated[float, kinds.FACTOR.meta] = 2.0
    max: Duration = "6h"
    jitter: Annotated[float, kinds.JITTER.meta] = 0.1


class PlainJob(Shape):
    """The fields of most enqueues, decoded first. `JobShape` has all fields."""

    type: Type
    queue: QueueName = "default"
    priority: Priority = 0
    payload: Raw = NULL


class PlainJobBeside(Shape):
    """The same where the query may name the queue and the priority."""

    type: Type
    queue: QueueName | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    payload: Raw = NULL


class JobShape(PlainJob):
    delay: Duration | None = None
    run_at: RunAt | None = None
    expires_in: PositiveDuration | None = None
    lease_for: LeaseFor | None = None
    max_run_for: RunFor | None = None
    max_attempts: Attempts | UnsetType | None = UNSET
    backoff: Lengths | BackoffShape | None = None
    retain_for: Duration | None = None
    key: Key | None = None
    unique_key: Key | None = None
    unique_while: UniqueWhile | None = None
    on_conflict: OnConflict | None = None
    tags: Tags | None = None
    headers: Headers | None = None
    content_type: MediaType | None = None
    payload_encoding: Encoding | None = None


# Set by the queue: at enqueue they are accepted and ignored, so that a fetched job can be enqueued again.
SET_BY_THE_QUEUE = frozenset(
    {"id", "status", "lease", "attempts", "leases", "created_at", "started_at", "finished_at", "consumer",
     "lease_expires_at", "result", "reason", "error", "history", "cancel_requested", "duplicate",
     "expires_at", "progress", "message", "etag", "origin", "dead_from", "result_encoding", "retrying"}
)  # fmt: skip


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
    run_at: RunAt | UnsetType | None = UNSET
    expires_in: PositiveDuration | UnsetType | None = UNSET
    lease_for: LeaseFor | UnsetType | None = UNSET
    max_run_for: RunFor | UnsetType | None = UNSET
    max_attempts: Attempts | UnsetType | None = UNSET
    backoff: Lengths | BackoffShape | UnsetType | None = UNSET
    retain_for: Duration | UnsetType | None = UNSET
    key: Key | UnsetType | None = UNSET
    tags: Tags | UnsetType | None = UNSET
    headers: Headers | UnsetType | None = UNSET


# Which of several queues is served first: the first one named, or that with the job of the highest priority.
QueueOrder = Literal["queues", "priority"]


class DequeueShape(Shape):
    queues: Queues | str | None = None
    queue: QueueName | None = None
    order: QueueOrder = "queues"
    wait: Wait = 0
    lease_for: LeaseFor | None = None
    count: Batch | None = None
    consumer: Consumer | None = None
    raw: bool = False


class DequeueJobShape(Shape):
    lease_for: LeaseFor | None = None
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
    order: QueueOrder | None = None
    wait: Wait | None = None
    lease_for: LeaseFor | None = None


class ConcludeOptions(ConcludeShape):
    """`raw`: the body is the result."""

    raw: bool = False


class HeartbeatShape(HolderShape):
    lease_for: LeaseFor | None = None
    progress: Progress | None = None
    message: Message | None = None


class ReleaseShape(HolderShape):
    delay: Duration = 0
    priority: Priority | None = None


class ErrorShape(Shape):
    type: str | None = None
    message: str | None = None
    details: Raw = NULL


class FailShape(HolderShape):
    error: Error = ABSENT
    retry: bool = True
    retry_in: Duration | None = None


class FailOptions(FailShape):
    """`raw`: the body is the error."""

    raw: bool = False


class ConcludeItem(PlainConclude, kw_only=True):
    """One item of a request for many, like the three below. It names its job."""

    id: JobId


class HeartbeatItem(HeartbeatShape, kw_only=True):
    id: JobId


class ReleaseItem(ReleaseShape, kw_only=True):
    id: JobId


class FailItem(FailShape, kw_only=True):
    id: JobId


class FormatShape(Shape, rename={"length": "for"}):
    """The format of an answer. `length` is that of a stream of events."""

    format: LiveFormat | None = None
    length: PositiveDuration | None = None


class QueueShownShape(FormatShape):
    """`until` is when the charts of a page end; None: now."""

    until: Instant | None = None


class WaitShape(FormatShape):
    wait: Wait = 0


class CancelShape(Shape):
    force: bool = False


class RateShape(Shape):
    """`count` starts in `per`, and after a quiet time `burst` more at once. The default of `burst` is a tenth
    of `count`, at least 1. 0: at most `count` in any `per`."""

    count: Count
    per: PositiveDuration = 1
    burst: Burst | None = None


Rate = Annotated[RateShape, kinds.RATE.meta]


class KeyLimitsShape(Shape):
    max_in_progress: Count | None = None
    rate: Rate | None = None
    ordered: bool = False
    batch: Annotated[int, kinds.KEY_BATCH.meta] = 1


KeyLimits = Annotated[
    KeyLimitsShape, kinds.KeyLimits('{"max_in_progress","rate","ordered","batch"}', in_query=False).meta
]


Attributes = Annotated[
    dict[str, Raw], kinds.Attributes("an object of up to 4,096 bytes", in_query=False).meta
]


class QueueShape(Shape):
    """A merge-patch of a queue's settings: omitted fields stay, `null` restores the default."""

    lease_for: LeaseFor | UnsetType | None = UNSET
    max_run_for: RunFor | UnsetType | None = UNSET
    max_attempts: Attempts | UnsetType | None = UNSET
    backoff: Lengths | BackoffShape | UnsetType | None = UNSET
    retain_for: Duration | UnsetType | None = UNSET
    dead_letter: QueueName | UnsetType | None = UNSET
    max_jobs: Count | UnsetType | None = UNSET
    max_bytes: Count | UnsetType | None = UNSET
    max_in_progress: Count | UnsetType | None = UNSET
    rate: Rate | UnsetType | None = UNSET
    key_limits: KeyLimits | UnsetType | None = UNSET
    fair_keys: bool | UnsetType | None = UNSET
    attributes: Attributes | UnsetType | None = UNSET


class PauseShape(Shape, rename={"length": "for"}):
    length: PositiveDuration | None = None
    reason: PauseReason | None = None


class FilterShape(Shape):
    """A filter. Each field is a list, or text with commas."""

    status: Statuses | str | None = None
    type: Choice | str | None = None
    tag: Choice | str | None = None
    key: Choice | str | None = None
    older_than: Age | None = None
    retrying: bool | None = None
    text: Key | None = None
    error: Key | None = None


class CountShape(FilterShape):
    queue: Choice | str | None = None


class GroupsShape(CountShape):
    """Without `by`: by type and error."""

    format: Format | None = None
    by: GroupedBy | str | None = None
    limit: Page = 100


class ListShape(CountShape):
    format: Format | None = None
    payload: bool = False
    order: Literal["asc", "desc"] = "asc"
    limit: Page = 100
    cursor: JobCursor | None = None


class QueuesShape(FormatShape):
    limit: Page = 1000
    cursor: QueueName | None = None


class ConsumersShape(Shape):
    format: Format | None = None
    limit: Page = 100


class TokensShape(Shape):
    format: Format | None = None
    limit: Page = 1000
    cursor: TokenName | None = None


class AuditShape(Shape):
    format: Format | None = None
    limit: Page = 100


class SeriesShape(Shape, rename={"length": "for"}):
    """The last `length` in steps of `step`, which is a multiple of 10 s."""

    format: Format | None = None
    length: SeriesLength = "1h"
    step: SeriesStep = "1m"


class PeekShape(Shape):
    payload: bool = False
    limit: Page = 10


class PurgeShape(FilterShape):
    all: bool = False
    dry_run: bool = False


class RedriveShape(PurgeShape):
    limit: Count | None = None


class CancelManyShape(RedriveShape):
    force: bool = False


class MoveShape(RedriveShape):
    """`to`: the queue to which the jobs go. `back`: each goes to the queue in which it died."""

    to: QueueName | None = None
    back: bool = False


class StreamShape(Shape, rename={"length": "for"}):
    """A stream of jobs; without `length` it has no end."""

    queues: Queues | str | None = None
    queue: QueueName | None = None
    order: QueueOrder = "queues"
    prefetch: Page = 1
    lease_for: LeaseFor | None = None
    consumer: Consumer | None = None
    length: PositiveDuration | None = None


class EventsShape(Shape, rename={"length": "for"}):
    """A stream of events. Each field is a list, or text with commas; without `length` there is no end."""

    queue: Choice | str | None = None
    job: JobIds | str | None = None
    event: EventNames | str | None = None
    length: PositiveDuration | None = None


class TopShape(Shape, rename={"length": "for"}):
    length: PositiveDuration | None = None


class AttemptShape(Shape):
    """One attempt in a job's history."""

    attempt: Int31
    started_at: Instant
    outcome: Literal["concluded", "failed", "stale", "released", "cancelled"]
    reason: Overrun | None = None
    ended_at: Instant | None = None
    consumer: Consumer | None = None
    error: Error | UnsetType = UNSET


class DeadFromShape(Shape):
    queue: QueueName
    reason: Reason


History = Annotated[list[AttemptShape], kinds.History("a list of attempts", high=20, in_query=False).meta]
DeadFrom = Annotated[DeadFromShape, Kind('{"queue","reason"}', in_query=False).meta]


class ImportShape(JobShape):
    """A job as an export has it. `origin` identifies it across queues. The last fields are ignored."""

    origin: Annotated[str, text(128, "text, at most 128 characters").meta] | None = None
    status: Annotated[str, Kind(kinds.listed(STATUSES), schema={"enum": STATUSES}).meta] | None = None
    attempts: Int31 = 0
    leases: Int31 = 0
    created_at: Instant | None = None
    finished_at: Instant | None = None
    expires_at: Instant | None = None
    reason: Reason | None = None
    error: Error = ABSENT
    history: History | None = None
    dead_from: DeadFrom | None = None
    started_at: Instant | None = None
    consumer: Consumer | None = None
    progress: Progress | None = None
    message: Message | None = None
    id: Raw = NULL
    lease: Raw = NULL
    lease_expires_at: Raw = NULL
    cancel_requested: Raw = NULL
    duplicate: Raw = NULL
    result: Raw = NULL
    etag: Raw = NULL
    retrying: Raw = NULL


class NoShape(Shape):
    """The options of calls that take none."""
