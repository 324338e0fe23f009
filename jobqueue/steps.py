"""The statuses of a job, and the table of steps between them.

                            ready
    schedule ─▶ scheduled ─────────▶ queued ◀─────────── enqueue
                    ▲                │    ▲  ▲
                    │          lease │    │  └──────────────────┐
                    │                ▼    │ stale, release      │ redrive
                    └───────────── in_progress                  │
                     fail, put_off │         │                  │
                          conclude │         └── bury ──▶ dead ─┘
                                   ▼
                               concluded

    bury               also from scheduled and queued
    cancel             from scheduled, queued, in_progress and dead to cancelled
    forget             removes a finished job: concluded, dead or cancelled
    purge              removes a job of any status
    leave              removes a scheduled, queued or dead job for the moment; then follows
    enter, enter_later to queued, to scheduled

Journals store the steps that ended leases, by these names.
"""

from typing import Final, Literal

Status = Literal["scheduled", "queued", "in_progress", "concluded", "dead", "cancelled"]
Step = Literal[
    "enqueue", "schedule", "ready", "lease", "conclude", "stale", "release", "put_off", "fail", "bury",
    "redrive", "cancel", "forget", "leave", "enter", "enter_later", "purge",
]  # fmt: skip
# The kinds of events: a step; a change of a job in its place; the pause and the resumption of a queue; a dead
# job that is forgotten before its time.
Kind = Step | Literal["change", "pause", "resume", "drop"]
SCHEDULED: Final = "scheduled"
QUEUED: Final = "queued"
IN_PROGRESS: Final = "in_progress"
CONCLUDED: Final = "concluded"
DEAD: Final = "dead"
CANCELLED: Final = "cancelled"
STATUSES: Final[tuple[Status, ...]] = (SCHEDULED, QUEUED, IN_PROGRESS, CONCLUDED, DEAD, CANCELLED)

ENQUEUE: Final = "enqueue"
SCHEDULE: Final = "schedule"  # enqueued, but not ready yet
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
PURGE: Final = "purge"  # removed on request
LEAVE: Final = "leave"  # a changed or dead job leaves its place or queue …
ENTER: Final = "enter"  # … and enters again, perhaps in another one
ENTER_LATER: Final = "enter_later"

# (status before, step) -> status after; None: the job is not in the queue. There are no other steps.
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
# The steps of a job that is not in the queue.
FROM_OUTSIDE: Final = frozenset({ENQUEUE, SCHEDULE, ENTER, ENTER_LATER})
WAITING: Final = frozenset({SCHEDULED, QUEUED})
FINISHED: Final = frozenset({CONCLUDED, DEAD, CANCELLED})
# The steps by which each verb of a consumer ends a lease.
CONCLUDES: Final[tuple[Step, ...]] = (CONCLUDE,)
RELEASES: Final[tuple[Step, ...]] = (RELEASE, PUT_OFF)
FAILS: Final[tuple[Step, ...]] = (FAIL, BURY)
