"""The job record, its lease, and the table of steps.

     schedule              ready
    ─────────▶ scheduled ─────────┐
                 ▲  ▲             ▼         lease              conclude
     enqueue     │  └────┐      queued ───────▶ in_progress ───────▶ concluded
    ─────────────┼───────┼──────▶ ▲ ▲              │ │ │
                 │       │        │ └─ stale ──────┘ │ │
                 │       │        │    release       │ │
                 │       └────────┼─── fail ─────────┘ │   any but concluded ── cancel ──▶ cancelled
                 │                │    put_off         │
                 │                └─── redrive ── dead ◀── bury ── (in_progress, queued, scheduled)
                 finished jobs: forget

Times named `_at` are wall-clock milliseconds since 1970; `expires` and `due` are monotonic milliseconds;
lengths are milliseconds. The records are structs that the garbage collector need not track: with millions of
jobs a collection would otherwise stop the program for seconds. They must therefore never point back at
anything that points at them.

A journal keeps the records with their fields in the order in which they stand here (`array_like`): a new
field goes to the end of its record and has a default, so that older files can be read.
"""

from typing import Any, Final, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

# An int that millions of jobs keep, or two fields of one: as `int` compiled code would make a new object for
# each, of 32 bytes.
OneObject: TypeAlias = Any
Status = Literal["scheduled", "queued", "in_progress", "concluded", "dead", "cancelled"]
Step = Literal[
    "enqueue", "schedule", "ready", "lease", "conclude", "stale", "release", "put_off", "fail", "bury",
    "redrive", "cancel", "forget", "leave", "enter", "enter_later", "purge",
]  # fmt: skip
# What `event` tells: a step; a change that moves nothing; and of a queue that it was paused, or resumed.
Kind = Step | Literal["change", "pause", "resume"]
Reason = Literal["attempts", "no_retry", "expired"]
# How long a unique key is taken by the job that has it, and what becomes of another one that wants it.
UniqueWhile = Literal["queued", "active", "exists"]
OnConflict = Literal["ignore", "reject", "replace"]

SCHEDULED: Final = "scheduled"
QUEUED: Final = "queued"
IN_PROGRESS: Final = "in_progress"
CONCLUDED: Final = "concluded"
DEAD: Final = "dead"
CANCELLED: Final = "cancelled"
STATUSES: Final[tuple[Status, ...]] = (SCHEDULED, QUEUED, IN_PROGRESS, CONCLUDED, DEAD, CANCELLED)

ENQUEUE: Final = "enqueue"
SCHEDULE: Final = "schedule"  # enqueued, not ready yet
READY: Final = "ready"
LEASE: Final = "lease"
CONCLUDE: Final = "conclude"
STALE: Final = "stale"
RELEASE: Final = "release"
PUT_OFF: Final = "put_off"  # released, with a delay
FAIL: Final = "fail"
BURY: Final = "bury"
REDRIVE: Final = "redrive"
CANCEL: Final = "cancel"
FORGET: Final = "forget"
PURGE: Final = "purge"  # removed by hand
LEAVE: Final = "leave"  # changed while it waits: out of where it stood …
ENTER: Final = "enter"  # … and in again, perhaps elsewhere
ENTER_LATER: Final = "enter_later"

# Every legal step, and where it leads; None: not there. Nothing else ever changes a status.
STEPS: Final[dict[tuple[Status | None, Step], Status | None]] = {
    (None, ENQUEUE): QUEUED,
    (None, SCHEDULE): SCHEDULED,
    (SCHEDULED, READY): QUEUED,
    (QUEUED, LEASE): IN_PROGRESS,
    (IN_PROGRESS, CONCLUDE): CONCLUDED,
    (IN_PROGRESS, STALE): QUEUED,
    (IN_PROGRESS, RELEASE): QUEUED,
    (IN_PROGRESS, PUT_OFF): SCHEDULED,
    (IN_PROGRESS, FAIL): SCHEDULED,
    (IN_PROGRESS, BURY): DEAD,
    (QUEUED, BURY): DEAD,
    (SCHEDULED, BURY): DEAD,
    (DEAD, REDRIVE): QUEUED,
    (SCHEDULED, CANCEL): CANCELLED,
    (QUEUED, CANCEL): CANCELLED,
    (IN_PROGRESS, CANCEL): CANCELLED,
    (DEAD, CANCEL): CANCELLED,
    (CONCLUDED, FORGET): None,
    (DEAD, FORGET): None,
    (CANCELLED, FORGET): None,
    (SCHEDULED, PURGE): None,
    (QUEUED, PURGE): None,
    (IN_PROGRESS, PURGE): None,
    (CONCLUDED, PURGE): None,
    (DEAD, PURGE): None,
    (CANCELLED, PURGE): None,
    (QUEUED, LEAVE): None,
    (SCHEDULED, LEAVE): None,
    (DEAD, LEAVE): None,
    (None, ENTER): QUEUED,
    (None, ENTER_LATER): SCHEDULED,
}
# The steps of a job that is not in the queue yet, or not for the moment.
FROM_OUTSIDE: Final = frozenset({ENQUEUE, SCHEDULE, ENTER, ENTER_LATER})
WAITING: Final = frozenset({SCHEDULED, QUEUED})
FINISHED: Final = frozenset({CONCLUDED, DEAD, CANCELLED})


# An attempt limit of its own that says: as the queue has it.
AS_THE_QUEUE: Final = -1


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
    max_attempts: int | None = AS_THE_QUEUE  # None: never dead
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
    claimed: int = 0  # the how manieth claim of a unique key it was; 0: it has none


class Trail(Struct, gc=False, eq=False, array_like=True):
    """What went wrong with a job, and what its consumers said."""

    reason: Reason | None = None
    dead_from: str | None = None  # the queue in which it died, if that sent it on
    error: bytes | None = None  # JSON: the last one
    history: tuple[Attempt, ...] = ()  # attempts before the last lease
    progress: int | None = None
    message: str | None = None
    dead_from_reason: Reason | None = None


class More(Struct, gc=False, eq=False, array_like=True):
    """What most queued jobs do not have; made when first needed. `result`: JSON; or, behind a zero byte,
    which no JSON begins with, bytes that are no text."""

    finished_at: int | None = None
    result: bytes | None = None
    cancel_requested: bool = False
    run_at: int | None = None  # while scheduled: when it becomes ready
    due: int | None = None  # the same on the monotonic clock, if that is what counts
    options: Options | None = None
    trail: Trail | None = None

    @property
    def plain(self) -> bool:
        """Nothing but the times of an ordinary end."""
        return self.options is None and self.trail is None and self.result is None and self.run_at is None


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
    more: More | None = None


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


class Want(Struct, gc=False, eq=False):
    """What a dequeue asks for. `queues` in strict order; `count` at most so many, None: one;
    `lease_for` milliseconds, None: the job's own, or the default. `owner`: what the lease's token begins
    with, so that it tells who took it."""

    queues: tuple[str, ...]
    lease_for: int | None = None
    count: int | None = None
    consumer: str | None = None
    owner: str = ""


class Past(Struct, gc=False):
    """What a job went through elsewhere. Times are wall-clock milliseconds. `died_at`: it is dead."""

    created_at: int
    attempts: int = 0
    leases: int = 0
    trail: Trail | None = None
    died_at: int | None = None


class Duplicate(Struct, gc=False, frozen=True):
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
