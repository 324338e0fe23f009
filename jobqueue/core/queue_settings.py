"""What is set for a named queue, and its pause. A journal keeps them; see `job`."""

from msgspec import Struct

from jobqueue.core.job import AS_THE_QUEUE, Backoff


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
    max_attempts: int | None = AS_THE_QUEUE  # None: no limit
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
