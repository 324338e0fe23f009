"""Jobs and leases as they are encoded, in a journal or between servers: arrays of their fields.

`jobqueue.job` has the records themselves, which msgspec does not know. `job_row` and `lease_row` there give
what is encoded; the structs here read it. A new field must be added at the end, here and there, and have a
default, so that older files can still be read.
"""

from msgspec import Struct

from jobqueue.job import Job, JobExtras, Lease
from jobqueue.job_parts import JobTrace, Options
from jobqueue.steps import QUEUED, Status, Step


class LeaseRow(Struct, gc=False, array_like=True):
    """The fields of a `Lease`."""

    token: str
    consumer: str | None
    started_at: int
    granted: int
    length: int
    expires: int
    attempt: int = 0
    ended_at: int | None = None
    ended_by: Step | None = None
    ends: int | None = None


class ExtrasRow(Struct, gc=False, array_like=True):
    """The fields of `JobExtras`."""

    finished_at: int | None = None
    result: bytes | None = None
    cancel_requested: bool = False
    run_at: int | None = None
    due: int | None = None
    options: Options | None = None
    trace: JobTrace | None = None


class JobRow(Struct, gc=False, array_like=True):
    """The fields of a `Job`."""

    id: int
    queue: str
    type: str
    priority: int
    payload: bytes
    created_at: int
    place: int
    status: Status = QUEUED
    attempts: int = 0
    leases: int = 0
    version: int = 0
    lease: LeaseRow | None = None
    extras: ExtrasRow | None = None


def lease_of(row: LeaseRow) -> Lease:
    """Returns the lease of a row that was read."""
    return Lease(
        row.token,
        row.consumer,
        row.started_at,
        row.granted,
        row.length,
        row.expires,
        row.attempt,
        row.ended_at,
        row.ended_by,
        row.ends,
    )


def job_of(row: JobRow) -> Job:
    """Returns the job of a row that was read."""
    more = row.extras
    return Job(
        row.id,
        row.queue,
        row.type,
        row.priority,
        row.payload,
        row.created_at,
        row.place,
        row.status,
        row.attempts,
        row.leases,
        row.version,
        None if row.lease is None else lease_of(row.lease),
        None
        if more is None
        else JobExtras(
            more.finished_at,
            more.result,
            more.cancel_requested,
            more.run_at,
            more.due,
            more.options,
            more.trace,
        ),
    )
