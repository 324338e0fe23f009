"""What each call takes: one struct a call. The names, types and defaults of the API stand here and nowhere
else; what a value may be beyond its type says `fields`."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from jobqueue.web.fields import INT32

NULL = Raw(b"null")
ABSENT = Raw(b"")
Duration = int | float | str
Priority = Annotated[int, Meta(ge=INT32[0], le=INT32[1])]


class Shape(Struct, gc=False, forbid_unknown_fields=True):
    """Unknown names are refused; `Call` then says which, and the nearest."""


class BackoffShape(Shape):
    """The curve of rests after failures: `base` × `factor` each time, at most `max`."""

    base: Duration = 10
    factor: float = 2.0
    max: Duration = "6h"
    jitter: float = 0.1


class PlainJob(Shape):
    """What most enqueues say. Decoded first; `JobShape` is what it may say in all."""

    type: str
    queue: str = "default"
    priority: Priority = 0
    payload: Raw = NULL


class JobShape(PlainJob):
    delay: Duration | None = None
    run_at: str | None = None
    expires_in: Duration | None = None
    lease_for: Duration | None = None
    max_attempts: int | UnsetType | None = UNSET
    backoff: list[Duration] | BackoffShape | None = None
    retain_for: Duration | None = None
    key: str | None = None
    unique_key: str | None = None
    unique_while: Literal["queued", "active", "exists"] | None = None
    on_conflict: Literal["ignore", "reject", "replace"] | None = None
    tags: list[str] | None = None
    headers: dict[str, str] | None = None


class EnqueueOptions(JobShape):
    """What the query of an enqueue may say besides."""

    atomic: bool = True


class ChangeShape(Shape):
    """A merge-patch: what is left out stays, `null` is the default again."""

    queue: str | UnsetType | None = UNSET
    type: str | UnsetType = UNSET
    priority: Priority | UnsetType | None = UNSET
    payload: Raw = ABSENT
    delay: Duration | UnsetType | None = UNSET
    run_at: str | UnsetType | None = UNSET
    expires_in: Duration | UnsetType | None = UNSET
    lease_for: Duration | UnsetType | None = UNSET
    max_attempts: int | UnsetType | None = UNSET
    backoff: list[Duration] | BackoffShape | UnsetType | None = UNSET
    retain_for: Duration | UnsetType | None = UNSET
    key: str | UnsetType | None = UNSET
    tags: list[str] | UnsetType | None = UNSET
    headers: dict[str, str] | UnsetType | None = UNSET


class DequeueShape(Shape):
    queues: list[str] | str | None = None
    queue: str | None = None
    wait: Duration = 0
    lease_for: Duration | None = None
    count: int | None = None
    consumer: str | None = None


class HolderShape(Shape):
    """What all calls of a job's holder take."""

    lease: str | None = None
    consumer: str | None = None


class ConcludeShape(HolderShape):
    result: Raw = ABSENT


class HeartbeatShape(HolderShape):
    lease_for: Duration | None = None
    progress: int | None = None
    message: str | None = None


class ReleaseShape(HolderShape):
    delay: Duration = 0


class ErrorShape(Shape):
    type: str | None = None
    message: str | None = None
    details: Raw = NULL


class FailShape(HolderShape):
    error: Raw = ABSENT
    retry: bool = True
    retry_in: Duration | None = None


class ConcludeItem(ConcludeShape, kw_only=True):
    """One of many in one request, as the three below: it says which job."""

    id: int


class HeartbeatItem(HeartbeatShape, kw_only=True):
    id: int


class ReleaseItem(ReleaseShape, kw_only=True):
    id: int


class FailItem(FailShape, kw_only=True):
    id: int


class WaitShape(Shape):
    wait: Duration = 0


class CancelShape(Shape):
    force: bool = False


class RateShape(Shape):
    """`count` starts in `per`; at most `burst` at once, by default `count`."""

    count: int
    per: Duration = 1
    burst: int | None = None


class KeyLimitsShape(Shape):
    max_in_progress: int | None = None
    rate: RateShape | None = None


class QueueShape(Shape):
    """A merge-patch of what is set for a queue: what is left out stays, `null` is the default again."""

    lease_for: Duration | UnsetType | None = UNSET
    max_attempts: int | UnsetType | None = UNSET
    backoff: list[Duration] | BackoffShape | UnsetType | None = UNSET
    retain_for: Duration | UnsetType | None = UNSET
    dead_letter: str | UnsetType | None = UNSET
    max_jobs: int | UnsetType | None = UNSET
    max_bytes: int | UnsetType | None = UNSET
    max_in_progress: int | UnsetType | None = UNSET
    rate: RateShape | UnsetType | None = UNSET
    key_limits: KeyLimitsShape | UnsetType | None = UNSET


class PauseShape(Shape, rename={"length": "for"}):
    length: Duration | None = None
    reason: str | None = None


class FilterShape(Shape):
    """Each a list, or text with commas."""

    status: list[str] | str | None = None
    type: list[str] | str | None = None
    tag: list[str] | str | None = None
    key: list[str] | str | None = None
    older_than: Duration | None = None


class CountShape(FilterShape):
    queue: list[str] | str | None = None


class ListShape(CountShape):
    payload: bool = False
    order: Literal["asc", "desc"] = "asc"
    limit: int = 100
    cursor: str | None = None


class QueuesShape(Shape):
    limit: int = 1000
    cursor: str | None = None


class PurgeShape(FilterShape):
    all: bool = False
    dry_run: bool = False


class RedriveShape(PurgeShape):
    limit: int | None = None


class NoShape(Shape):
    """For calls that take no option."""
