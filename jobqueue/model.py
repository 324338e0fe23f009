"""The records that every layer shares: jobs, leases, options, settings of queues, filters, and views.

Times named `_at` are wall-clock milliseconds since 1970; `expires` and `due` are monotonic milliseconds;
lengths are milliseconds. The records are structs that the garbage collector need not track: with millions of
jobs a collection would otherwise stop the program for seconds. They must therefore never point back at
anything that points at them.

A journal keeps the records with their fields in the order in which they stand here (`array_like`): a new
field goes to the end of its record and has a default, so that older files can be read.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from jobqueue.errors import JobQueueError
from jobqueue.histogram import DecayingHistogram, Histogram
from jobqueue.steps import QUEUED, Status, Step

# An int that millions of jobs keep, or two fields of one: as `int` compiled code would make a new object for
# each, of 32 bytes.
OneObject: TypeAlias = Any
Reason = Literal["attempts", "no_retry", "expired"]
# How long a unique key is taken by the job that has it, and what becomes of another one that wants it.
UniqueWhile = Literal["queued", "active", "exists"]
OnConflict = Literal["ignore", "reject", "replace"]

# An attempt limit of its own that says: as the queue has it.
INHERIT: Final = -1


class Backoff(Struct, frozen=True, array_like=True):
    """How long a failed job rests before its next attempt: the lengths of `steps`, the last one repeating;
    or, where there are none, `base` × `factor` for each attempt after the first, at most `longest`. `jitter`:
    the share by which chance may lengthen or shorten a rest."""

    base: int = 10_000
    factor: float = 2.0
    longest: int = 21_600_000
    jitter: float = 0.1
    steps: tuple[int, ...] = ()


class Lease(Struct, gc=False, eq=False, array_like=True):
    """The time for which a job belongs to one consumer. A job keeps its last one after it ended."""

    token: str
    consumer: str | None
    started_at: int
    granted: int  # length as dequeued: what a heartbeat without a length asks for
    length: int  # length now in force, set by the last heartbeat
    expires: int
    attempt: int = 0
    ended_at: int | None = None
    ended_by: Step | None = None


class Attempt(Struct, gc=False, frozen=True, array_like=True):
    """One line of a job's history. `outcome`: the step that ended the lease."""

    attempt: int
    consumer: str | None
    started_at: int
    ended_at: int | None
    outcome: Step | None
    error: bytes | None


class Options(Struct, gc=False, eq=False, array_like=True):
    """What an enqueue may ask for besides; None: as the queue has it."""

    lease_for: int | None = None
    max_attempts: int | None = INHERIT  # None: never dead
    backoff: Backoff | None = None
    retain_for: int | None = None
    expires_at: int | None = None
    unique_key: str | None = None
    unique_while: UniqueWhile = "active"
    on_conflict: OnConflict = "ignore"
    key: str | None = None
    tags: tuple[str, ...] = ()
    headers: bytes | None = None  # a JSON object, as it came in
    content_type: str | None = None  # of a payload that is not JSON; a value of an HTTP header
    claim_seq: int = 0  # the how manieth claim of a unique key it was; 0: it has none


class JobTrace(Struct, gc=False, eq=False, array_like=True):
    """What went wrong with a job, and what its consumers said."""

    reason: Reason | None = None
    dead_from: str | None = None  # the queue in which it died, if that sent it on
    error: bytes | None = None  # JSON: the last one
    history: tuple[Attempt, ...] = ()  # attempts before the last lease
    progress: int | None = None
    message: str | None = None
    dead_from_reason: Reason | None = None


class JobExtras(Struct, gc=False, eq=False, array_like=True):
    """What most queued jobs do not have; made when first needed. `result`: JSON; or, behind a zero byte,
    which no JSON begins with, bytes that are no text."""

    finished_at: int | None = None
    result: bytes | None = None
    cancel_requested: bool = False
    run_at: int | None = None  # while scheduled: when it becomes ready
    due: int | None = None  # the same on the monotonic clock, if that is what counts
    options: Options | None = None
    trace: JobTrace | None = None

    @property
    def plain(self) -> bool:
        """Nothing but the times of an ordinary end."""
        return self.options is None and self.trace is None and self.result is None and self.run_at is None


class Job(Struct, gc=False, eq=False, array_like=True):
    """One unit of work. About 200 bytes, and its payload."""

    id: int
    queue: str
    type: str
    priority: int  # higher first
    payload: bytes  # JSON text as it came in, on one line; or any bytes, if its options have a content type
    created_at: int
    place: int  # where it stands among its priority; kept through lease, release, stale and retry
    status: Status = QUEUED
    attempts: int = 0  # charged: a release takes one off again
    leases: int = 0  # never falls
    version: int = 0  # raised by every move and change, not by heartbeats
    lease: Lease | None = None
    extras: JobExtras | None = None


class NewJob(Struct, gc=False):
    """What an enqueue may say of a job. Id, status and times are the queue's to give. `delay` milliseconds,
    `run_at` wall-clock milliseconds; not both."""

    type: str
    queue: str = "default"
    priority: int = 0
    payload: bytes = b"null"
    delay: int = 0
    run_at: int | None = None
    expires_in: int | None = None
    options: Options | None = None


class DequeueRequest(Struct, gc=False, eq=False):
    """What a dequeue asks for. `queues` in strict order; `count` at most so many, None: one;
    `lease_for` milliseconds, None: the job's own, or the default. `owner`: what the lease's token begins
    with, so that it tells who took it."""

    queues: tuple[str, ...]
    lease_for: int | None = None
    count: int | None = None
    consumer: str | None = None
    owner: str = ""


class ImportedHistory(Struct, gc=False):
    """What a job went through elsewhere. Times are wall-clock milliseconds. `died_at`: it is dead."""

    created_at: int
    attempts: int = 0
    leases: int = 0
    trace: JobTrace | None = None
    died_at: int | None = None


class ExistingJob(Struct, gc=False, frozen=True):
    """What an enqueue answers where a job with the same unique key was there before."""

    job: Job


class Change(Struct, gc=False):
    """What a waiting job becomes; UNSET: as it is. `delay` and `expires_in` milliseconds from now; None: at
    once, never."""

    queue: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    payload: bytes | UnsetType = UNSET
    delay: int | UnsetType | None = UNSET
    run_at: int | UnsetType | None = UNSET
    expires_in: int | UnsetType | None = UNSET
    lease_for: int | UnsetType | None = UNSET
    max_attempts: int | UnsetType | None = UNSET
    backoff: Backoff | UnsetType | None = UNSET
    retain_for: int | UnsetType | None = UNSET
    key: str | UnsetType | None = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    headers: bytes | UnsetType | None = UNSET
    content_type: str | None = None  # goes with `payload`


# A job as it was handed to a consumer, with the lease it was handed over under.
Delivery = tuple[Job, Lease]


# -- settings of a queue, filters ------------------------------------------------------------------


class Rate(Struct, frozen=True, gc=False, array_like=True):
    """`count` starts in `per` milliseconds; at most `burst` at once after a quiet time."""

    count: int
    per: int
    burst: int


class KeyLimits(Struct, frozen=True, gc=False, array_like=True):
    """For each key of a queue."""

    max_in_progress: int | None = None
    rate: Rate | None = None


class QueueSettings(Struct, frozen=True, gc=False, array_like=True):
    """What was set for one queue; None: as for all, or no limit. Lengths in milliseconds. `dead_letter`: the
    queue to which its dead jobs go."""

    lease_for: int | None = None
    max_attempts: int | None = INHERIT  # None: no limit
    backoff: Backoff | None = None
    retain_for: int | None = None
    dead_letter: str | None = None
    max_jobs: int | None = None
    max_bytes: int | None = None
    max_in_progress: int | None = None
    rate: Rate | None = None
    key_limits: KeyLimits | None = None


class Pause(Struct, frozen=True, gc=False, array_like=True):
    """Nothing is handed out. Wall-clock milliseconds; `until` None: until it is resumed."""

    at: int
    until: int | None
    reason: str | None


class Filter(Struct, gc=False, frozen=True):
    """Each part that is given must hold; within a part any of its values. `older_than`: enqueued so many
    milliseconds ago, or more. `within`: says of the name of a queue whether it may be looked into."""

    queues: frozenset[str] | None = None
    statuses: frozenset[Status] | None = None
    types: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    keys: frozenset[str] | None = None
    older_than: int | None = None
    within: Callable[[str], bool] | None = None

    def matches(self, job: Job, wall: int) -> bool:
        """`wall`: now, milliseconds."""
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


# -- what the engine answers -----------------------------------------------------------------------


Code = Literal[
    "scheduled", "paused", "queue_limit", "rate_limit", "key_limit", "behind", "no_consumer", "running",
    "finished",
]  # fmt: skip
State = Literal["empty", "scheduled", "paused", "limited"]


class Cause(NamedTuple):
    """One thing that keeps a job from being handed out. `until`: wall-clock milliseconds at which it ends by
    itself. `name`: the key of a limit, the consumer that runs the job, why a queue is paused or a job dead.
    `number`: the figure of a limit, the jobs ahead, the jobs of the queue in progress. `ago`: milliseconds
    since somebody asked the queue for a job. `jobs`: some that use the limit up."""

    code: Code
    until: int | None = None
    name: str | None = None
    number: int = 0
    ago: int | None = None
    jobs: tuple[int, ...] = ()


class Explanation(NamedTuple):
    """`ahead`: at most so many queued jobs are handed out before it."""

    job: Job
    ahead: int
    causes: list[Cause]


class QueueView(NamedTuple):
    """How one named queue stands. `oldest_age`: milliseconds since its oldest queued job was enqueued.
    `by_priority`: queued jobs. `rates`: in and out, a second. `waits`, `runs`: how long jobs did; these go on
    changing."""

    name: str
    jobs: dict[Status, int]
    totals: dict[str, int]
    oldest_age: int | None
    consumers_waiting: int
    settings: QueueSettings
    pause: Pause | None
    version: int
    by_priority: dict[int, int]
    rates: tuple[float, float]
    waits: DecayingHistogram
    runs: DecayingHistogram


class RecordedAnswer(Struct, gc=False, frozen=True, array_like=True):
    """What a request made. `digest`: of the bytes that were sent; `until`: monotonic milliseconds."""

    digest: bytes
    ids: tuple[int, ...]
    many: bool
    until: int


class BulkResult(NamedTuple):
    """What was done to many jobs: how many matched, how many were changed, the first few ids."""

    matched: int
    changed: int
    sample: list[int]


class ImportItem(NamedTuple):
    """A job that comes from another queue. `origin`: names it there; None: it has none."""

    new: NewJob
    past: ImportedHistory
    origin: str | None


class ImportResult(NamedTuple):
    """How many arrivals became jobs, and how many were here before. `refused`: why the one behind these was
    not taken in; it and what follows it were not looked at."""

    imported: int
    known: int
    refused: JobQueueError | None = None


class PriorAnswer(NamedTuple):
    """What a request with an `Idempotency-Key` made, when it came first: jobs as they are now, or the ids of
    forgotten ones."""

    made: list[Job | int]
    many: bool


class IdempotencyKey(NamedTuple):
    """The `Idempotency-Key` of a request, and what tells it from another under the same key. `many`: it may
    make several jobs."""

    owner: str
    key: str
    digest: bytes
    many: bool


class JournalStats(NamedTuple):
    """`rows`: of each group, which is one commit; `seconds`: until it was on disk. `pending`: changes that
    are not there yet. `size`: bytes of the file and its log. `full`: no room for new jobs."""

    rows: Histogram
    seconds: Histogram
    pending: int
    size: int
    full: bool


class EngineStats(NamedTuple):
    """How the whole stands. Times in milliseconds. `memory`: bytes that the process has, where the system
    tells."""

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
    remembered: int
    remembered_bytes: int
    idempotency_keys: int
    idempotency_window: int
    memory: int | None
    memory_limit: int | None
    totals: dict[str, int]
    journal: JournalStats | None = None
