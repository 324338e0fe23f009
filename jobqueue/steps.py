"""Statuses of a job, and the table of steps between them.

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
"""

from typing import Final, Literal

Status = Literal["scheduled", "queued", "in_progress", "concluded", "dead", "cancelled"]
Step = Literal[
    "enqueue", "schedule", "ready", "lease", "conclude", "stale", "release", "put_off", "fail", "bury",
    "redrive", "cancel", "forget", "leave", "enter", "enter_later", "purge",
]  # fmt: skip
# What `event` tells: a step; a change that moves nothing; and of a queue that it was paused, or resumed.
Kind = Step | Literal["change", "pause", "resume"]
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
