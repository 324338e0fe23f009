"""The job record, its lease, and the table of steps.

        enqueue         lease              conclude
     ─────────▶ queued ───────▶ in_progress ───────▶ concluded ─┐
                  ▲  │               │ │                        │ forget
                  └──┼── stale ──────┘ │                        ▼
                     │   release       │ cancel               (gone)
                     └── cancel ───────┴─────────▶ cancelled ───┘ forget

Times named `_at` are wall-clock milliseconds since 1970; `expires` is monotonic milliseconds; lengths are
milliseconds. The records are structs that the garbage collector need not track: with millions of jobs a
collection would otherwise stop the program for seconds. They must therefore never point back at anything
that points at them.
"""

from typing import Final, Literal

from msgspec import Struct

Status = Literal["scheduled", "queued", "in_progress", "concluded", "dead", "cancelled"]
Step = Literal["enqueue", "lease", "conclude", "stale", "release", "cancel", "forget"]

SCHEDULED: Final = "scheduled"
QUEUED: Final = "queued"
IN_PROGRESS: Final = "in_progress"
CONCLUDED: Final = "concluded"
DEAD: Final = "dead"
CANCELLED: Final = "cancelled"
STATUSES: Final[tuple[Status, ...]] = (SCHEDULED, QUEUED, IN_PROGRESS, CONCLUDED, DEAD, CANCELLED)

ENQUEUE: Final = "enqueue"
LEASE: Final = "lease"
CONCLUDE: Final = "conclude"
STALE: Final = "stale"
RELEASE: Final = "release"
CANCEL: Final = "cancel"
FORGET: Final = "forget"

# Every legal step, and where it leads; None: not there. Nothing else ever changes a status.
STEPS: Final[dict[tuple[Status | None, Step], Status | None]] = {
    (None, ENQUEUE): QUEUED,
    (QUEUED, LEASE): IN_PROGRESS,
    (IN_PROGRESS, CONCLUDE): CONCLUDED,
    (IN_PROGRESS, STALE): QUEUED,
    (IN_PROGRESS, RELEASE): QUEUED,
    (QUEUED, CANCEL): CANCELLED,
    (IN_PROGRESS, CANCEL): CANCELLED,
    (CONCLUDED, FORGET): None,
    (CANCELLED, FORGET): None,
}
FINISHED: Final = frozenset({CONCLUDED, DEAD, CANCELLED})


class Lease(Struct, gc=False, eq=False):
    """The time for which a job belongs to one consumer. A job keeps its last one after it ended."""

    token: str
    consumer: str | None
    started_at: int
    granted: int  # length as dequeued: what a heartbeat without a length asks for
    length: int  # length now in force, set by the last heartbeat
    expires: int
    ended_by: Step | None = None


class More(Struct, gc=False, eq=False):
    """What most queued jobs do not have; made when first needed."""

    finished_at: int | None = None
    result: bytes | None = None
    cancel_requested: bool = False


class Job(Struct, gc=False, eq=False):
    """One unit of work. About 200 bytes, and its payload."""

    id: int
    queue: str
    type: str
    priority: int  # higher first
    payload: bytes  # JSON text as it came in, on one line
    created_at: int
    place: int  # where it stands among its priority; kept through lease, release and stale
    status: Status = QUEUED
    attempts: int = 0  # charged: a release takes one off again
    leases: int = 0  # never falls
    lease: Lease | None = None
    more: More | None = None


class NewJob(Struct, gc=False):
    """What an enqueue may say of a job. Id, status and times are the queue's to give."""

    type: str
    queue: str = "default"
    priority: int = 0
    payload: bytes = b"null"
