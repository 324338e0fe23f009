"""The records that all layers share: jobs, leases, options, settings of queues, filters and views.

Units: a time named `…_at`, `until` or `at` is wall-clock milliseconds since 1970 unless its comment says
otherwise; `expires` and `due` are monotonic milliseconds; a length of time is milliseconds.

The records of jobs are structs that the garbage collector does not track (`gc=False`): with millions of jobs,
one collection would stop the program for seconds. Such a record must therefore never be part of a reference
cycle.

A journal stores the fields of a record in the order in which they are declared here (`array_like`). A new
field must be added at the end and have a default, so that older files can still be read.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from jobqueue.errors import JobQueueError
from jobqueue.histogram import DecayingHistogram, Histogram
from jobqueue.steps import QUEUED, Status, Step

# An int that is kept in millions of jobs, or in two fields of one. Typed as `int`, compiled code would create
# a new object of 32 bytes for each.
OneObject: TypeAlias = Any
# Why a job is dead: its attempts are exhausted, its consumer asked for no retry, or it expired.
Reason = Literal["attempts", "no_retry", "expired"]
# While a job is in one of these statuses it owns its unique key: scheduled and queued; those and in progress;
# or any, until it is forgotten.
UniqueWhile = Literal["queued", "active", "exists"]
# The action of an enqueue whose unique key is taken.
OnConflict = Literal["ignore", "reject", "replace"]

# The value of `max_attempts` that means: inherited from the queue, or from the server.
INHERIT: Final = -1


class Backoff(Struct, frozen=True, array_like=True):
    """How long a failed job waits for its next attempt.

    If there are `steps`, these are the waits after the first, second, … attempt, and the last one repeats.
    Otherwise the wait is `base` after the first attempt, `factor` times longer after each further one, and
    never more than `longest`.
    """

    base: int = 10_000
    factor: float = 2.0
    longest: int = 21_600_000
    jitter: float = 0.1  # the share by which a wait is randomly longer or shorter
    steps: tuple[int, ...] = ()


# -- jobs ------------------------------------------------------------------------------------------


class Lease(Struct, gc=False, eq=False, array_like=True):
    """The right of one consumer to work on a job for a time. A job keeps its last lease after that ended."""

    token: str  # the secret that the consumer sends to finish or extend it
    consumer: str | None  # the name that the consumer gave
    started_at: int
    granted: int  # the length given by the dequeue; a heartbeat without a length sets it again
    length: int  # the length in force, set by the last heartbeat
    expires: int
    attempt: int = 0  # the number of the attempt, as charged
    ended_at: int | None = None
    ended_by: Step | None = None  # None: the lease is current


class Attempt(Struct, gc=False, frozen=True, array_like=True):
    """A past attempt in the history of a job."""

    attempt: int
    consumer: str | None
    started_at: int
    ended_at: int | None
    outcome: Step | None  # the step that ended the lease
    error: bytes | None  # JSON


class Options(Struct, gc=False, eq=False, array_like=True):
    """The optional settings of a job. None: inherited from the queue, or not set."""

    lease_for: int | None = None
    max_attempts: int | None = INHERIT  # None: no limit
    backoff: Backoff | None = None
    retain_for: int | None = None  # how long the job is remembered after it finished
    expires_at: int | None = None  # when the job is buried if it is still scheduled or queued
    unique_key: str | None = None
    unique_while: UniqueWhile = "active"
    on_conflict: OnConflict = "ignore"
    key: str | None = None  # for the limits per key of its queue
    tags: tuple[str, ...] = ()
    headers: bytes | None = None  # a JSON object, as received
    content_type: str | None = None  # of a payload that is not JSON, as an HTTP header has it
    claim_seq: int = 0  # sequence number of its claim on the unique key; 0: none


class JobTrace(Struct, gc=False, eq=False, array_like=True):
    """The history of a job: its errors, its earlier attempts, and the reports of its consumers."""

    reason: Reason | None = None  # why it is dead
    dead_from: str | None = None  # the queue in which it died, if it went on to a dead-letter queue
    error: bytes | None = None  # the last one; JSON
    history: tuple[Attempt, ...] = ()  # the attempts before the last lease, the oldest first
    progress: int | None = None  # reported by the last heartbeat of the lease that gave one
    message: str | None = None  # the same
    dead_from_reason: Reason | None = None  # why it died there


class JobExtras(Struct, gc=False, eq=False, array_like=True):
    """The fields that most queued jobs do not have. Created when first needed."""

    finished_at: int | None = None
    result: bytes | None = None  # JSON; or a zero byte, which no JSON begins with, and then any bytes
    cancel_requested: bool = False  # the consumer of the job in progress is asked to stop
    run_at: int | None = None  # when the job becomes ready; only while it is scheduled
    due: int | None = None  # the same on the monotonic clock; set for a delay, and then this one counts
    options: Options | None = None
    trace: JobTrace | None = None

    @property
    def plain(self) -> bool:
        """Nothing is set except `finished_at`."""
        return self.options is None and self.trace is None and self.result is None and self.run_at is None


class Job(Struct, gc=False, eq=False, array_like=True):
    """One unit of work. It takes about 200 bytes, and its payload. `jobqueue.steps` draws its statuses."""

    id: int
    queue: str
    type: str
    priority: int  # a higher one is leased first
    payload: bytes  # JSON on one line, as received; any bytes if its options have a content type
    created_at: int
    # The position among the jobs of its queue and priority: the lowest is leased first. A place is a number
    # of the same counter as ids. The job keeps it while it is leased, and when it is released, stale or
    # retried. 0: it gets one when it is queued.
    place: int
    status: Status = QUEUED
    attempts: int = 0  # a lease adds one, a release takes it off again, a redrive starts from 0
    leases: int = 0  # all leases it ever had
    version: int = 0  # incremented by every step and change, but not by heartbeats
    lease: Lease | None = None  # the current one, or the last one
    extras: JobExtras | None = None


# A job as it is delivered to a consumer, with its lease.
Delivery = tuple[Job, Lease]


# -- requests --------------------------------------------------------------------------------------


class NewJob(Struct, gc=False):
    """A job to be enqueued. `delay` and `run_at` exclude each other."""

    type: str
    queue: str = "default"
    priority: int = 0
    payload: bytes = b"null"
    delay: int = 0
    run_at: int | None = None
    expires_in: int | None = None
    options: Options | None = None


class DequeueRequest(Struct, gc=False, eq=False):
    """A request for jobs."""

    queues: tuple[str, ...]  # in order: a later one is tried only when those before it have no ready job
    lease_for: int | None = None  # None: as the job or its queue says
    count: int | None = None  # the largest number of jobs; None: one
    consumer: str | None = None
    owner: str = ""  # the beginning of the lease tokens, which identifies the access token


class ImportedHistory(Struct, gc=False):
    """The history of a job on another server."""

    created_at: int
    attempts: int = 0
    leases: int = 0
    trace: JobTrace | None = None
    died_at: int | None = None  # None: it is not dead


class Change(Struct, gc=False):
    """New values for a job that is scheduled or queued. UNSET: unchanged."""

    queue: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    payload: bytes | UnsetType = UNSET
    delay: int | UnsetType | None = UNSET  # from now; None: ready at once
    run_at: int | UnsetType | None = UNSET  # None: ready at once
    expires_in: int | UnsetType | None = UNSET  # from now; None: never
    lease_for: int | UnsetType | None = UNSET
    max_attempts: int | UnsetType | None = UNSET
    backoff: Backoff | UnsetType | None = UNSET
    retain_for: int | UnsetType | None = UNSET
    key: str | UnsetType | None = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    headers: bytes | UnsetType | None = UNSET
    content_type: str | None = None  # of the new `payload`; it is not read without one


class ExistingJob(Struct, gc=False, frozen=True):
    """The answer to an enqueue whose unique key is taken: the job that owns it."""

    job: Job


# -- settings of a queue, filters ------------------------------------------------------------------


class Rate(Struct, frozen=True, gc=False, array_like=True):
    """A token bucket: `count` jobs may start in `per` milliseconds, up to `burst` of them at once."""

    count: int
    per: int
    burst: int


class KeyLimits(Struct, frozen=True, gc=False, array_like=True):
    """The limits of each key of a queue. None: no limit."""

    max_in_progress: int | None = None
    rate: Rate | None = None


class QueueSettings(Struct, frozen=True, gc=False, array_like=True):
    """The settings of one queue. None: inherited from the server, or no limit."""

    lease_for: int | None = None
    max_attempts: int | None = INHERIT  # None: no limit
    backoff: Backoff | None = None
    retain_for: int | None = None
    dead_letter: str | None = None  # the queue to which jobs go that die here
    max_jobs: int | None = None  # scheduled and queued
    max_bytes: int | None = None  # payloads of these
    max_in_progress: int | None = None
    rate: Rate | None = None
    key_limits: KeyLimits | None = None


class Pause(Struct, frozen=True, gc=False, array_like=True):
    """A pause of a queue, during which no job is leased."""

    at: int
    until: int | None  # None: until it is resumed
    reason: str | None


class Filter(Struct, gc=False, frozen=True):
    """Selects jobs. Each condition that is set must hold; within one, any of its values may match."""

    queues: frozenset[str] | None = None
    statuses: frozenset[Status] | None = None
    types: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    keys: frozenset[str] | None = None
    older_than: int | None = None  # the least time since the job was enqueued
    within: Callable[[str], bool] | None = None  # accepts the names of queues that may be read

    def matches(self, job: Job, wall: int) -> bool:
        """Returns whether `job` is selected. `wall` is the present wall-clock time."""
        if self.queues is not None and job.queue not in self.queues:
            return False
        if self.statuses is not None and job.status not in self.statuses:
            return False
        if self.types is not None and job.type not in self.types:
            return False
        if self.older_than is not None and job.created_at > wall - self.older_than:
            return False
        options = job.extras.options if job.extras is not None else None
        if self.tags is not None and (options is None or self.tags.isdisjoint(options.tags)):
            return False
        if self.keys is not None and (options is None or options.key not in self.keys):
            return False
        return self.within is None or self.within(job.queue)


# -- answers of the engine -------------------------------------------------------------------------


Code = Literal[
    "scheduled", "paused", "queue_limit", "rate_limit", "key_limit", "behind", "no_consumer", "running",
    "finished",
]  # fmt: skip
State = Literal["empty", "scheduled", "paused", "limited"]


class Cause(NamedTuple):
    """One reason why a job is not leased now."""

    code: Code
    until: int | None = None  # when it ends by itself
    name: str | None = (
        None  # the key of a limit, the consumer of the job, why a queue is paused or a job dead
    )
    # The size of a rate limit, the jobs in progress under another limit or in a queue without waiting
    # consumers, the jobs ahead, or the attempts.
    number: int = 0
    ago: int | None = None  # milliseconds since a consumer asked the queue for a job
    jobs: tuple[int, ...] = ()  # ids of some jobs that use up a limit


class Explanation(NamedTuple):
    """Why a job is not leased now."""

    job: Job
    ahead: int  # an upper bound for the number of queued jobs that are leased before it
    causes: list[Cause]


class QueueView(NamedTuple):
    """A description of one named queue."""

    name: str
    jobs: dict[Status, int]
    totals: dict[str, int]  # since the server started, by their names in the API
    oldest_age: int | None  # milliseconds since its oldest queued job was created
    consumers_waiting: int
    settings: QueueSettings
    pause: Pause | None
    version: int
    by_priority: dict[int, int]  # queued jobs, the highest priority first
    rates: tuple[float, float]  # jobs enqueued and dequeued a second
    waits: DecayingHistogram  # from enqueue to the first lease; the queue continues to change it
    runs: DecayingHistogram  # from the last lease to conclude; the same


class RecordedAnswer(Struct, gc=False, frozen=True, array_like=True):
    """The answer to a request with an `Idempotency-Key`."""

    digest: bytes  # of the query and the body of the request
    ids: tuple[int, ...]  # of the jobs in the answer
    many: bool  # the request was one for several jobs
    until: int  # the end of its retention, monotonic milliseconds


class BulkResult(NamedTuple):
    """The result of an operation on many jobs."""

    matched: int
    changed: int
    sample: list[int]  # ids of the first few that matched


class ImportItem(NamedTuple):
    """A job from another server."""

    new: NewJob
    past: ImportedHistory
    origin: str | None  # identifies the job there, so that it is imported only once; None: unknown


class ImportResult(NamedTuple):
    """The result of an import."""

    imported: int
    known: int  # items that were imported before, or whose unique key is taken
    refused: JobQueueError | None = None  # why the next item was refused; it and those after it are not done


class PriorAnswer(NamedTuple):
    """The answer to an earlier request with the same `Idempotency-Key`."""

    made: list[Job | int]  # its jobs as they are now, or the ids of those that are forgotten
    many: bool


class IdempotencyKey(NamedTuple):
    """The `Idempotency-Key` of a request."""

    owner: str  # the access token, as each has keys of its own
    key: str
    digest: bytes  # of the query and the body, to detect another request with the same key
    many: bool  # the request is one for several jobs


class JournalStats(NamedTuple):
    """Figures of the journal."""

    rows: Histogram  # rows of each group, which is one commit
    seconds: Histogram  # time until a group was on disk
    pending: int  # changes that are not on disk yet
    size: int  # bytes of the file and its log
    full: bool  # the disk is almost full, and new jobs are refused


class EngineStats(NamedTuple):
    """Figures of the whole engine. The times `tick_…` and `compaction_max` are milliseconds."""

    jobs: dict[Status, int]
    queues: int
    consumers_waiting: int
    ticks: int
    tick_last: float
    tick_max: float
    lanes: int
    slots: int
    empty_slots: int
    compactions: int
    compaction_max: float
    remembered: int  # finished jobs
    remembered_bytes: int
    idempotency_keys: int
    idempotency_window: int  # how long a key is remembered at present
    memory: int | None  # bytes of the process; None: the system does not report it
    memory_limit: int | None
    totals: dict[str, int]
    journal: JournalStats | None = None
