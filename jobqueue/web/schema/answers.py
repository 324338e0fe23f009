"""The structs of answers other than single jobs, for the OpenAPI document.

Most answers are built as dicts by `writers` and `operations`; the tests compare them with these structs.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from jobqueue.model import Code
from jobqueue.steps import Status
from jobqueue.web.schema.responses import JobView

Length = int | float


class Jobs(Struct):
    jobs: list[JobView]


class JobPage(Jobs):
    """A page of jobs. `next` is the cursor of the next page; absent on the last one."""

    next: str | UnsetType = UNSET


class Problem(Struct):
    """Why a request, or one item of it, was refused (RFC 9457)."""

    code: str
    status: int
    title: str
    detail: str
    request_id: str
    field: str | UnsetType = UNSET
    index: int | UnsetType = UNSET
    nearest: str | UnsetType = UNSET
    job_id: int | UnsetType = UNSET
    job_status: Status | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    limit: Length | UnsetType = UNSET
    setting: str | UnsetType = UNSET
    retry_after: int | UnsetType = UNSET
    line: int | UnsetType = UNSET
    imported: int | UnsetType = UNSET
    known: int | UnsetType = UNSET


class Result(Struct):
    """The result of one item: the job, or why it was refused.

    `id` is the requested one; `index` takes its place if there is none.
    """

    index: int | UnsetType = UNSET
    id: int | UnsetType = UNSET
    job: JobView | UnsetType = UNSET
    error: Problem | UnsetType = UNSET


class Results(Struct):
    ok: int
    failed: int
    results: list[Result]


class ReasonView(Struct):
    """What keeps a job from being delivered. `until` is when that ends without intervention."""

    code: Code
    detail: str
    until: str | UnsetType = UNSET


class Explained(Struct):
    """`ahead` is the highest number of jobs that may be delivered before it.

    Without reasons the next dequeue gets it.
    """

    id: int
    status: Status
    ahead: int
    reasons: list[ReasonView]


class Counted(Struct):
    count: int


class BulkResult(Struct):
    """The result of a bulk operation. `sample` has the first few ids."""

    matched: int
    changed: int
    sample: list[int]


class Imported(Struct):
    """The result of an import. `known` counts jobs that were imported before."""

    imported: int
    known: int


class ByStatus(Struct):
    scheduled: int
    queued: int
    in_progress: int
    concluded: int
    dead: int
    cancelled: int


class Totals(Struct):
    enqueued: int
    dequeued: int
    concluded: int
    stale: int
    released: int
    failed: int
    dead: int
    cancelled: int


class Rates(Struct, rename={"into": "in"}):
    """Jobs a second."""

    into: Length
    out: Length


class PauseView(Struct):
    at: str
    until: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class RateView(Struct):
    count: int
    per: Length
    burst: int


class KeyLimitsView(Struct):
    max_in_progress: int | UnsetType = UNSET
    rate: RateView | UnsetType = UNSET


class QueueSettingsView(Struct):
    """The settings of a queue that differ from the defaults."""

    lease_for: Length | UnsetType = UNSET
    max_attempts: int | UnsetType | None = UNSET
    backoff: list[Length] | dict[str, Length] | UnsetType = UNSET
    retain_for: Length | UnsetType = UNSET
    dead_letter: str | UnsetType = UNSET
    max_jobs: int | UnsetType = UNSET
    max_bytes: int | UnsetType = UNSET
    max_in_progress: int | UnsetType = UNSET
    rate: RateView | UnsetType = UNSET
    key_limits: KeyLimitsView | UnsetType = UNSET


class Queue(Struct):
    """A queue.

    Ages and times are seconds: `wait` until a job was first leased, `run` until its lease ended.
    """

    name: str
    paused: bool
    jobs: ByStatus
    consumers_waiting: int
    rates: Rates
    totals: Totals
    settings: QueueSettingsView
    pause: PauseView | UnsetType = UNSET
    oldest_age: Length | UnsetType = UNSET
    by_priority: dict[str, int] | UnsetType = UNSET
    wait_p50: Length | UnsetType = UNSET
    wait_p95: Length | UnsetType = UNSET
    run_p50: Length | UnsetType = UNSET
    run_p95: Length | UnsetType = UNSET


class Queues(Struct):
    queues: list[Queue]
    next: str | UnsetType = UNSET


class Loop(Struct):
    """How late the event loop is: the least time that any request waits."""

    lag_ms: Length
    lag_max_ms: Length
    stalls: int


class Ticks(Struct):
    count: int
    last_ms: Length
    max_ms: Length


class Lanes(Struct):
    count: int
    slots: int
    empty: int
    compactions: int
    compaction_max_ms: Length


class Remembered(Struct):
    jobs: int
    bytes: int


class Idempotency(Struct):
    """The number of keys kept, and for how many seconds."""

    window: Length
    keys: int | UnsetType = UNSET


class Memory(Struct):
    rss_bytes: int | UnsetType = UNSET
    limit_bytes: int | UnsetType = UNSET


class Limits(Struct):
    max_body: int
    max_result: int
    max_depth: int
    max_batch: int
    wait_max: Length
    lease_max: Length
    retain: Length
    retain_jobs: int
    retain_bytes: int
    max_headers: int
    max_queues: int
    max_waiters: int
    max_delay: Length
    head_timeout: Length
    body_timeout: Length
    idle_timeout: Length
    write_timeout: Length
    max_jobs: int | UnsetType = UNSET
    max_connections: int | UnsetType = UNSET
    max_connections_by_address: int | UnsetType = UNSET
    rate: int | UnsetType = UNSET


class Journal(Struct):
    commits: int
    rows: int
    pending: int
    bytes: int
    full: bool


class Stats(Struct):
    """Statistics of the server. An access token for certain queues does not see what others contribute to."""

    version: str
    started_at: str
    uptime: Length
    durability: str
    auth: Literal["none", "tokens"]
    jobs: ByStatus
    queues: int
    consumers_waiting: int
    ticks: Ticks
    idempotency: Idempotency
    memory: Memory
    limits: Limits
    lanes: Lanes | UnsetType = UNSET
    remembered: Remembered | UnsetType = UNSET
    journal: Journal | UnsetType = UNSET
    connections: int | UnsetType = UNSET
    loop: Loop | UnsetType = UNSET


class Health(Struct):
    status: Literal["ok"]
    version: str
    durability: str
    auth: Literal["none", "tokens"]


class Ready(Struct):
    status: Literal["ready"]
