"""The structs of jobs in answers."""

from msgspec import UNSET, Raw, Struct, UnsetType


class AttemptView(Struct, gc=False):
    attempt: int
    consumer: str | UnsetType
    started_at: str
    ended_at: str | UnsetType
    outcome: str
    error: Raw | UnsetType


class Forgotten(Struct, gc=False):
    """What is left of a forgotten job that an `Idempotency-Key` made."""

    id: int
    duplicate: bool = True


class _AnyJob(Struct, gc=False):
    """The first fields of all views of a job. Fields that do not apply are left out."""

    id: int
    lease: str | UnsetType
    status: str
    queue: str
    type: str
    priority: int
    attempts: int
    leases: int
    created_at: str
    started_at: str | UnsetType = UNSET
    finished_at: str | UnsetType = UNSET
    lease_expires_at: str | UnsetType = UNSET
    lease_for: int | float | UnsetType = UNSET
    consumer: str | UnsetType = UNSET


class JobView(_AnyJob, gc=False):
    """A job as clients see it."""

    cancel_requested: bool | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    run_at: str | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    dead_from: dict[str, str] | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    progress: int | UnsetType = UNSET
    message: str | UnsetType = UNSET
    max_attempts: int | UnsetType | None = UNSET
    backoff: list[int | float] | dict[str, int | float] | UnsetType = UNSET
    retain_for: int | float | UnsetType = UNSET
    key: str | UnsetType = UNSET
    unique_key: str | UnsetType = UNSET
    unique_while: str | UnsetType = UNSET
    on_conflict: str | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    headers: Raw | UnsetType = UNSET
    history: list[AttemptView] | UnsetType = UNSET
    result_encoding: str | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    content_type: str | UnsetType = UNSET
    payload_encoding: str | UnsetType = UNSET
    payload: Raw | UnsetType = UNSET


class PlainView(_AnyJob, gc=False):
    """The `JobView` of most jobs, with fewer fields: each field of a struct costs time, also if it is left
    out.
    """

    payload: Raw | UnsetType = UNSET
