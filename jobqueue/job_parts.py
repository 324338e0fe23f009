"""Parts of a job: its optional settings and its history.

These structs are not tracked by the garbage collector (`gc=False`), as jobs are not, so none may ever be part
of a reference cycle. A journal stores their fields in the order in which they are declared here
(`array_like`). A new field must be added at the end and have a default, so that older files can still be
read.

Times are as in `jobqueue.model`.
"""

from typing import Final, Literal

from msgspec import Struct

from jobqueue.steps import FAIL, STALE, Step

# Why a job is dead: its attempts are exhausted, its consumer asked for no retry, or it expired.
Reason = Literal["attempts", "no_retry", "expired"]
# Why a lease ended that did not simply expire: the job ran for as long as it may.
Overrun = Literal["max_run_for"]
# While a job is in one of these statuses it owns its unique key: scheduled and queued; those and in progress;
# or any, until it is forgotten.
UniqueWhile = Literal["queued", "active", "exists"]
# The action of an enqueue whose unique key is taken.
OnConflict = Literal["ignore", "reject", "replace"]

# The steps that end a lease and charge its attempt, after which a scheduled job waits for its retry.
FAILED: Final = (FAIL, STALE)
# The value of `max_attempts` that means: inherited from the queue, or from the server.
INHERIT: Final = -1


# The jitter of a backoff that names none, and of each one that is a list.
JITTER: Final = 0.1


class Backoff(Struct, frozen=True, array_like=True):
    """How long a failed job waits for its next attempt.

    If there are `steps`, these are the waits after the first, second, … attempt, and the last one repeats.
    Otherwise the wait is `base` after the first attempt, `factor` times longer after each further one, and
    never more than `longest`.
    """

    base: int = 10_000
    factor: float = 2.0
    longest: int = 21_600_000
    jitter: float = JITTER  # the share by which a wait is randomly longer or shorter
    steps: tuple[int, ...] = ()


class Attempt(Struct, gc=False, frozen=True, array_like=True):
    """A past attempt in the history of a job."""

    attempt: int
    consumer: str | None
    started_at: int
    ended_at: int | None
    outcome: Step | None  # the step that ended the lease
    error: bytes | None  # JSON
    reason: Overrun | None = None  # why its lease ended, if it did not simply expire


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
    # `expires_at` on the monotonic clock; set for a length that began in this run, and then this one counts.
    expires_due: int | None = None
    max_run_for: int | None = None  # the longest that one lease may last, however often it is extended
    # What another protocol keeps of the job beside its payload, as bytes that mean nothing to the HTTP API.
    envelope: bytes | None = None


class JobTrace(Struct, gc=False, eq=False, array_like=True):
    """The history of a job: its errors, its earlier attempts, and the reports of its consumers."""

    reason: Reason | None = None  # why it is dead
    dead_from: str | None = None  # the queue in which it died, if it went on to a dead-letter queue
    error: bytes | None = None  # the last one; JSON
    history: tuple[Attempt, ...] = ()  # the attempts before the last lease, the oldest first
    progress: int | None = None  # reported by the last heartbeat of the lease that gave one
    message: str | None = None  # the same
    dead_from_reason: Reason | None = None  # why it died there
