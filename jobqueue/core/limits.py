"""Limits: the settings of the core."""

from msgspec import Struct

from jobqueue.model import Backoff


class Limits(Struct, frozen=True, kw_only=True):
    """The settings that the core needs, with the names, defaults and meaning that they have in `Settings`.
    Lengths of time are milliseconds."""

    lane_segment: int = 1024
    lane_spare: int = 1
    compact_above: float = 0.5
    tick: int = 100
    lease: int = 300_000
    max_attempts: int | None = 25
    backoff: Backoff = Backoff()
    retain: int = 3_600_000
    retain_jobs: int = 100_000
    retain_bytes: int = 64 << 20
    dead_retain: int = 604_800_000
    dead_jobs: int = 100_000
    dead_bytes: int = 256 << 20
    require_lease: bool = False
    idempotency: int = 86_400_000
    idempotency_keys: int = 1_000_000
    max_jobs: int | None = None
    max_queues: int = 10_000
    max_schedules: int = 10_000
