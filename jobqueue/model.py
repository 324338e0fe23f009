"""The records that all layers share: jobs, leases, options, settings of queues, filters and views.

Units: a time named `…_at`, `until` or `at` is wall-clock milliseconds since 1970 unless its comment says
otherwise; `expires` and `due` are monotonic milliseconds; a length of time is milliseconds.

Jobs and leases are in `jobqueue.job`, their options and histories in `jobqueue.job_parts`. Records of which
there may be many are not tracked by the garbage collector (`gc=False`), so such a record must never be part
of a reference cycle.

A journal stores the fields of a record in the order in which they are declared here (`array_like`). A new
field must be added at the end and have a default, so that older files can still be read.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from msgspec import UNSET, Struct, UnsetType
from msgspec.json import Decoder

from jobqueue.errors import JobQueueError
from jobqueue.histogram import DecayingHistogram, Histogram
from jobqueue.job import Delivery, Job, JobExtras, Lease, last_attempt, overran, retries
from jobqueue.job_parts import (
    FAILED,
    INHERIT,
    JITTER,
    Attempt,
    Backoff,
    JobTrace,
    OnConflict,
    Options,
    Overrun,
    Reason,
    UniqueWhile,
)
from jobqueue.steps import Status

# Other modules import these from here.
__all__ = [
    "FAILED", "INHERIT", "JITTER", "Attempt", "Backoff", "Delivery", "Job", "JobExtras", "JobTrace", "Lease",
    "OnConflict", "Options", "Overrun", "Reason", "UniqueWhile", "last_attempt", "overran", "retries",
]  # fmt: skip
# An int that is kept in the optional fields of many jobs. Typed as `int`, compiled code would create a new
# object of 32 bytes for each.
OneObject: TypeAlias = Any

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
    # The job of the highest priority in any of the queues is first, and of these the one with the lowest
    # place. The order of the queues does not count then.
    by_priority: bool = False
    # After a job with a key come those that may join its run, and then the others.
    by_run: bool = False


class LeaseClaim(Struct, gc=False, frozen=True):
    """The claim of a caller to the lease of a job. `core.policy.may_use_lease` decides whether it is good."""

    id: int  # of the job
    token: str | None  # from the delivery
    consumer: str | None  # the name under which the caller dequeues


class ImportedHistory(Struct, gc=False):
    """The history of a job on another server."""

    created_at: int
    attempts: int = 0
    leases: int = 0
    trace: JobTrace | None = None
    died_at: int | None = None  # None: it is not dead
    last: Attempt | None = None  # its last lease, which has ended
    # It comes from another shard of this database, so it is there although another job has its unique key.
    moved: bool = False


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
    max_run_for: int | UnsetType | None = UNSET


class ExistingJob(Struct, gc=False, frozen=True):
    """The answer to an enqueue whose unique key is taken: the job that owns it."""

    job: Job


# -- schedules -------------------------------------------------------------------------------------

# What is done about instants that were missed: the latest one is run, none, or all of them.
Misfire = Literal["once", "skip", "all"]
# What is done while an earlier job of the schedule is unfinished: no job; one more; one more, but only one
# waits.
Overlap = Literal["skip", "allow", "queue"]
# What became of an instant: a job; none, for an earlier job, a pause, or as it was missed; a job on demand.
Fired = Literal["enqueued", "skipped_overlap", "skipped_paused", "missed", "manual"]


class JobTemplate(Struct, gc=False, frozen=True, array_like=True):
    """The jobs of a schedule."""

    type: str
    queue: str = "default"
    priority: int = 0
    payload: bytes = b"null"
    expires_in: int | None = None
    options: Options | None = None  # copied for each job


class Plan(Struct, frozen=True, array_like=True):
    """A schedule as a client gave it. It has a `cron` expression or an `every`."""

    name: str
    job: JobTemplate
    group: str | None = None
    cron: str | None = None
    every: int | None = None  # instants are multiples of it, from `starts_at` or from 1970
    timezone: str = "UTC"  # of `cron`; a name of the IANA database
    misfire: Misfire = "once"
    grace: int | None = None  # a missed instant that is older is not run; None: the default of `misfire`
    overlap: Overlap = "skip"
    jitter: int = 0  # the longest random delay of a job
    starts_at: int | None = None  # no instant is before it
    ends_at: int | None = None  # no instant is after it


class Firing(Struct, gc=False, frozen=True, array_like=True):
    """What became of one instant of a schedule, or of several that were skipped together."""

    due_at: int  # the instant; of several the last one
    at: int  # when that was decided
    outcome: Fired
    job: int | None = None  # the job; for `skipped_overlap` the unfinished one
    reason: str | None = None  # why there is no job
    since: int | None = None  # the first of several instants


class Schedule(Struct, eq=False):
    """A schedule with its progress. Instants up to `done_until` are done with, and never run again."""

    plan: Plan
    created_at: int
    done_until: int
    version: int = 1  # incremented by every change, but not by instants that come due
    paused_at: int | None = None
    pause_reason: str | None = None
    history: tuple[Firing, ...] = ()  # the last ones, the oldest first
    # Not stored.
    next_at: int | None = None  # the next instant; None: paused, ended, or `blocked` for good
    wakes_at: int | None = None  # when its timer is due: `next_at`, or later if that is tried again
    blocked: str | None = None  # why an instant that is due has no job yet, or why none ever comes due
    catching_up: bool = False  # it was decided which missed instants are run, from the next one on


class ScheduleFigures(NamedTuple):
    """Figures of the schedules."""

    states: dict[str, int]  # how many are "active", "blocked", "paused" and "ended"
    lag: int  # for how many milliseconds the first instant that is due has had no job
    outcomes: dict[Fired, int]  # the entries of all histories since the start


class ScheduleChanges(NamedTuple):
    """What replacing a group of schedules changes: names, in order."""

    created: list[str]
    changed: list[str]
    unchanged: list[str]
    deleted: list[str]


# -- settings of a queue, filters ------------------------------------------------------------------


class Rate(Struct, frozen=True, gc=False, array_like=True):
    """A limit on starts: `count` jobs may start in `per` milliseconds, and after a quiet time `burst` more of
    them at once. So at most `count + burst` start in any `per`; with a `burst` of 0, at most `count`."""

    count: int
    per: int
    burst: int


def default_burst(count: int) -> int:
    """Returns the burst of a rate that names none: a tenth of its `count`, at least 1."""
    return max(count // 10, 1)


class KeyLimits(Struct, frozen=True, gc=False, array_like=True):
    """The limits of each key of a queue. None: no limit."""

    max_in_progress: int | None = None
    rate: Rate | None = None
    # One job at a time, and while one that was leased rests before its next attempt, none after it.
    ordered: bool = False
    # The most jobs of the key that one dequeue takes as a run, which counts as one job in progress until all
    # of them have ended.
    batch: int = 1


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
    attributes: bytes | None = None  # a JSON object on one line, which means nothing to the server
    max_run_for: int | None = None
    fair_keys: bool = False  # the keys take turns inside a priority; all jobs without a key count as one


class Pause(Struct, frozen=True, gc=False, array_like=True):
    """A pause of a queue, during which no job is leased."""

    at: int
    until: int | None  # None: until it is resumed
    reason: str | None
    by: str | None = None  # the name of the access token of who paused it


# Characters of the name of an error.
_ERROR = 200


class _Error(Struct):
    """What is read of an error. Its details may be any JSON, also numbers that no float can hold."""

    type: str | None = None
    message: str | None = None


_read_error = Decoder(str | _Error).decode


def error_name(error: bytes | None) -> str | None:
    """Returns the `type` of an error that has one; otherwise the first line of its message."""
    if error is None:
        return None
    decoded = _read_error(error)
    said = decoded if isinstance(decoded, str) else decoded.type or decoded.message
    return None if said is None else said.strip().partition("\n")[0][:_ERROR]


class Filter(Struct, gc=False, frozen=True):
    """Selects jobs. Each condition that is set must hold; within one, any of its values may match."""

    queues: frozenset[str] | None = None
    statuses: frozenset[Status] | None = None
    types: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    keys: frozenset[str] | None = None
    older_than: int | None = None  # the least time since the job was enqueued
    within: Callable[[str], bool] | None = None  # accepts the names of queues that may be read
    retrying: bool | None = None  # it is scheduled because its last attempt failed, or it is not
    error: str | None = None  # the name of its last error
    text: tuple[bytes, ...] = ()  # parts of the payload, one of which must be there; empty: not a condition
    # Accepts the names of queues in which a job died before it went to the dead-letter queue where it is now.
    died_in: Callable[[str], bool] | None = None

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
        if self.retrying is not None and retries(job) is not self.retrying:
            return False
        if self.died_in is not None:
            trace = job.extras.trace if job.extras is not None else None
            origin = trace.dead_from if trace is not None else None
            if origin is None or origin == job.queue or not self.died_in(origin):
                return False
        if self.within is not None and not self.within(job.queue):
            return False
        if self.error is not None:
            trace = job.extras.trace if job.extras is not None else None
            if trace is None or error_name(trace.error) != self.error:
                return False
        return not self.text or any(text in job.payload for text in self.text)


# -- answers of the engine -------------------------------------------------------------------------


Code = Literal[
    "scheduled",
    "paused",
    "queue_limit",
    "rate_limit",
    "key_limit",
    "behind",
    "no_consumer",
    "running",
    "finished",
]
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


ScheduleCode = Literal[
    "unusable", "paused", "not_started", "clock_set_back", "ended", "blocked", "due", "refused", "overlap",
    "queue_paused", "skipped_overlap", "skipped_paused", "missed",
]  # fmt: skip


class ScheduleCause(NamedTuple):
    """One reason why a schedule makes no job now, or made none last time."""

    code: ScheduleCode
    until: int | None = None  # when it ends by itself
    since: int | None = None  # when it began; of `blocked`, `due` and what is past, the first instant
    why: str | None = None  # a reason in words; the status of the job in the way
    job: int | None = None  # the one in the way
    due_at: int | None = None  # of what is past, the last instant


class ScheduleExplanation(NamedTuple):
    """Why a schedule makes no jobs. Without causes its next instant gives one."""

    schedule: Schedule
    causes: list[ScheduleCause]


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
    retrying: int = 0  # those of the scheduled jobs whose last attempt failed


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
    refused: JobQueueError | None = None  # why the next job was refused; it and those after it are not done


class Holder(NamedTuple):
    """A consumer that holds jobs, or all without a name."""

    consumer: str | None
    in_progress: int
    seen_at: int  # when it last took one or sent a heartbeat; monotonic milliseconds
    jobs: list[Job]  # the first few


class WaitingConsumer(NamedTuple):
    """A consumer that waits for a job."""

    consumer: str | None
    queues: tuple[str, ...]
    until: int  # monotonic milliseconds


class Consumers(NamedTuple):
    """The consumers of the queues."""

    holding: list[Holder]
    waiting: list[WaitingConsumer]
    complete: bool  # there are no more


# Milliseconds between two points of a series, and for how long points are kept.
SERIES_STEP: Final = 10_000
SERIES_LENGTH: Final = 6 * 3_600_000


class QueueSeries(NamedTuple):
    """What happened in a queue from `since` on and before `until`, in steps of `step`. Times are
    milliseconds; the first two are of the wall clock. `kept` is False if nothing is kept of this queue."""

    queue: str
    kept: bool
    since: int
    until: int
    step: int
    points: dict[str, list[int]]


# The fields by which jobs are grouped.
GROUPED_BY: Final = ("queue", "type", "error", "reason", "key")


class JobGroup(NamedTuple):
    """Dead and retrying jobs with the same values of some fields."""

    values: dict[str, str | None]  # by the name of the field
    dead: int
    retrying: int
    sample: list[int]  # ids of the first few


class JobGroups(NamedTuple):
    """The largest groups of jobs."""

    groups: list[JobGroup]
    rest: int  # jobs in further groups


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


class Member(NamedTuple):
    """A server that shares a database with others. `session`: of this run of it. `owner`: it has the jobs.
    `server`: its process and machine. `address`: where others reach it; None for a command. `started_at`:
    wall-clock milliseconds. `age`: milliseconds since its last beat. Of the owner, `before` is the
    server that was the owner before it, None if it is the first one, and `forced` says that that one had not
    handed over. `shards`: those that it owns, in a database with several."""

    session: str
    owner: bool
    server: str
    address: str | None
    started_at: int
    age: int | None
    before: str | None = None
    forced: bool = False
    shards: tuple[int, ...] | None = None


class DatabaseStats(NamedTuple):
    """Figures of a PostgreSQL database."""

    doubts: int  # commits whose answer was lost
    snapshot: float  # seconds; age of the oldest transaction of another session, as far as the role may see
    dead_rows: int  # old versions of rows that autovacuum has not removed


class NewError(NamedTuple):
    """A kind of errors that was not known before. `times`: how often it was seen since the start."""

    queue: str
    type: str
    error: str
    first_at: int
    times: int


class JournalStats(NamedTuple):
    """Figures of the journal."""

    rows: Histogram  # rows of each group, which is one commit
    seconds: Histogram  # time until a group was on disk
    pending: int  # changes that are not on disk yet
    size: int  # bytes of the file and its log
    full: bool  # the disk is almost full, and new jobs are refused
    behind: bool  # it cannot keep up, and new jobs are refused
    away: str | None  # why the database does not answer; None: it does
    database: DatabaseStats | None = None


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
    dropped: Mapping[str, int] = MappingProxyType({})  # what was forgotten before its time, by what it was
