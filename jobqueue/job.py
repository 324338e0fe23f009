"""Jobs and their leases: the records of which there are millions.

Compiled, they are native classes. A number is 8 bytes in the record itself (`i64`), and no object; reading a
field takes a few instructions; and the garbage collector does not track them (`acyclic`), since with millions
of jobs one collection would stop the program for seconds. So a record must never be part of a reference
cycle. In the sources they are plain classes, which it does track.

msgspec does not know them. `job_row` and `lease_row` give the fields as they are encoded, and
`jobqueue.job_rows` reads them. Times are as in `jobqueue.model`.
"""

from typing import TypeAlias

from jobqueue.job_parts import FAILED, Attempt, JobTrace, Options, Overrun
from jobqueue.native import i64, mypyc_attr
from jobqueue.steps import FAILS, QUEUED, SCHEDULED, STALE, Status, Step


@mypyc_attr(acyclic=True)
class Lease:
    """The right of one consumer to work on a job for a time. A job keeps its last lease after that ended."""

    __slots__ = (
        "attempt",
        "consumer",
        "ended_at",
        "ended_by",
        "ends",
        "expires",
        "granted",
        "length",
        "started_at",
        "token",
    )

    def __init__(
        self,
        token: str,
        consumer: str | None,
        started_at: i64,
        granted: i64,
        length: i64,
        expires: i64,
        attempt: i64 = 0,
        ended_at: int | None = None,
        ended_by: Step | None = None,
        ends: int | None = None,
    ) -> None:
        self.token = token  # the secret that the consumer sends to finish or extend it
        self.consumer = consumer  # the name that the consumer gave
        self.started_at = started_at
        # The length given by the dequeue; a heartbeat without a length sets it again.
        self.granted = granted
        self.length = length  # the length in force, set by the last heartbeat
        self.expires = expires
        self.attempt = attempt  # the number of the attempt, as charged
        self.ended_at = ended_at
        self.ended_by: Step | None = ended_by  # None: the lease is current
        # The end that no heartbeat moves, by `max_run_for`; monotonic milliseconds, as `expires`. None: there
        # is none, or the lease was lost before.
        self.ends = ends


@mypyc_attr(acyclic=True)
class JobExtras:
    """The fields that most queued jobs do not have. Created when first needed."""

    __slots__ = ("cancel_requested", "due", "finished_at", "options", "result", "run_at", "trace")

    def __init__(
        self,
        finished_at: int | None = None,
        result: bytes | None = None,
        cancel_requested: bool = False,
        run_at: int | None = None,
        due: int | None = None,
        options: Options | None = None,
        trace: JobTrace | None = None,
    ) -> None:
        self.finished_at = finished_at
        self.result = result  # JSON; or a zero byte, which no JSON begins with, and then any bytes
        self.cancel_requested = cancel_requested  # the consumer of the job in progress is asked to stop
        self.run_at = run_at  # when the job becomes ready; only while it is scheduled
        # The same on the monotonic clock; set for a delay, and then this one counts.
        self.due = due
        self.options = options
        self.trace = trace


@mypyc_attr(acyclic=True)
class Job:
    """One unit of work. Compiled, it takes 128 bytes, and its payload. `jobqueue.steps` draws its
    statuses."""

    __slots__ = (
        "attempts",
        "created_at",
        "extras",
        "id",
        "lease",
        "leases",
        "payload",
        "place",
        "priority",
        "queue",
        "status",
        "type",
        "version",
    )

    def __init__(
        self,
        id: i64,
        queue: str,
        type: str,
        priority: i64,
        payload: bytes,
        created_at: i64,
        place: i64,
        status: Status = QUEUED,
        attempts: i64 = 0,
        leases: i64 = 0,
        version: i64 = 0,
        lease: Lease | None = None,
        extras: JobExtras | None = None,
    ) -> None:
        self.id = id
        self.queue = queue
        self.type = type
        self.priority = priority  # a higher one is leased first
        # JSON on one line, as received; any bytes if its options have a content type.
        self.payload = payload
        self.created_at = created_at
        # The position among the jobs of its queue and priority: the lowest is leased first. A place is a
        # number of the same counter as ids. The job keeps it while it is leased, and when it comes back at
        # once. 0: it rests, or was never ready, and gets one when it is queued.
        self.place = place
        self.status: Status = status
        self.attempts = attempts  # a lease adds one, a release takes it off again, a redrive starts from 0
        self.leases = leases  # all leases it ever had
        self.version = version  # incremented by every step and change, but not by heartbeats
        self.lease = lease  # the current one, or the last one
        self.extras = extras

    def __repr__(self) -> str:
        return f"Job{job_row(self, self.payload)}"


# A job as it is delivered to a consumer, with its lease.
Delivery: TypeAlias = tuple[Job, Lease]


def with_extras(job: Job, extras: JobExtras) -> Job:
    """Returns a copy of a job with other extras."""
    return Job(
        job.id,
        job.queue,
        job.type,
        job.priority,
        job.payload,
        job.created_at,
        job.place,
        job.status,
        job.attempts,
        job.leases,
        job.version,
        job.lease,
        extras,
    )


def overran(lease: Lease) -> bool:
    """Returns whether a lease ended because the job ran for as long as its `max_run_for` allows."""
    return lease.ended_by == STALE and lease.ends is not None and lease.expires >= lease.ends


def retries(job: Job) -> bool:
    """Returns whether a job is scheduled because its last attempt failed. After a redrive it has none."""
    lease = job.lease
    return job.status == SCHEDULED and job.attempts > 0 and lease is not None and lease.ended_by in FAILED


def last_attempt(job: Job) -> Attempt:
    """Returns the attempt whose lease ended last, as a history keeps it."""
    lease = job.lease
    assert lease is not None
    trace = job.extras.trace if job.extras is not None else None
    error = trace.error if trace is not None and lease.ended_by in FAILS else None
    reason: Overrun | None = "max_run_for" if overran(lease) else None
    return Attempt(
        lease.attempt, lease.consumer, lease.started_at, lease.ended_at, lease.ended_by, error, reason
    )


def lease_row(lease: Lease) -> tuple[object, ...]:
    """Returns the fields of a lease in the order of `job_rows.LeaseRow`."""
    return (
        lease.token,
        lease.consumer,
        lease.started_at,
        lease.granted,
        lease.length,
        lease.expires,
        lease.attempt,
        lease.ended_at,
        lease.ended_by,
        lease.ends,
    )


def job_row(job: Job, payload: bytes) -> tuple[object, ...]:
    """Returns the fields of a job in the order of `job_rows.JobRow`, with `payload` in place of its own."""
    lease, extras = job.lease, job.extras
    more: tuple[object, ...] | None = None
    if extras is not None:
        more = (
            extras.finished_at,
            extras.result,
            extras.cancel_requested,
            extras.run_at,
            extras.due,
            extras.options,
            extras.trace,
        )
    return (
        job.id,
        job.queue,
        job.type,
        job.priority,
        payload,
        job.created_at,
        job.place,
        job.status,
        job.attempts,
        job.leases,
        job.version,
        None if lease is None else lease_row(lease),
        more,
    )
