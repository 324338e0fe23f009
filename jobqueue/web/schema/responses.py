"""The structs of answers. `writers` and `operations` fill them, the OpenAPI document shows them.

The order of the fields is the order in the answer. Fields that do not apply are left out.
"""

from typing import Literal

from msgspec import UNSET, Raw, Struct, UnsetType

from jobqueue.model import Code, Overrun
from jobqueue.steps import Status

Length = int | float
Auth = Literal["none", "tokens"]


class AttemptView(Struct, gc=False):
    attempt: int
    consumer: str | UnsetType
    started_at: str
    ended_at: str | UnsetType
    outcome: str
    reason: Overrun | UnsetType
    error: Raw | UnsetType


class Forgotten(Struct, gc=False):
    """What is left of a forgotten job that an `Idempotency-Key` made."""

    id: int
    duplicate: bool = True


class JobView(Struct, gc=False):
    """A job as clients see it."""

    id: int
    lease: str | UnsetType
    status: str
    queue: str
    type: str
    priority: int
    attempts: int
    leases: int
    created_at: str
    started_at: str | UnsetType = UNSET
    finished_at: str | UnsetType = UNSET
    lease_expires_at: str | UnsetType = UNSET
    lease_for: Length | UnsetType = UNSET
    consumer: str | UnsetType = UNSET
    cancel_requested: bool | UnsetType = UNSET
    truncated: tuple[str, ...] | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    run_at: str | UnsetType = UNSET
    retrying: bool | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    dead_from: dict[str, str] | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    progress: int | UnsetType = UNSET
    message: str | UnsetType = UNSET
    max_run_for: Length | UnsetType = UNSET
    max_attempts: int | UnsetType | None = UNSET
    backoff: list[Length] | dict[str, Length] | UnsetType = UNSET
    retain_for: Length | UnsetType = UNSET
    key: str | UnsetType = UNSET
    unique_key: str | UnsetType = UNSET
    unique_while: str | UnsetType = UNSET
    on_conflict: str | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    headers: Raw | UnsetType = UNSET
    history: list[AttemptView] | UnsetType = UNSET
    result_encoding: str | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    content_type: str | UnsetType = UNSET
    payload_encoding: str | UnsetType = UNSET
    payload: Raw | UnsetType = UNSET


class Middle(Struct, gc=False):
    """The fields of a `JobView` that many jobs have in common."""

    status: str
    queue: str
    type: str
    priority: int
    attempts: int
    leases: int


class Jobs(Struct):
    jobs: list[JobView]


class JobPage(Jobs):
    """A page of jobs. `next` is the cursor of the next page; absent on the last one."""

    next: str | UnsetType = UNSET


class Problem(Struct, gc=False):
    """Why a request, or one item of it, was refused (RFC 9457)."""

    code: str
    status: int
    title: str
    detail: str
    request_id: str
    field: str | UnsetType = UNSET
    nearest: str | UnsetType = UNSET
    job_id: int | UnsetType = UNSET
    job_status: Status | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    limit: Length | UnsetType = UNSET
    setting: str | UnsetType = UNSET
    retry_after: int | UnsetType = UNSET
    index: int | UnsetType = UNSET
    line: int | UnsetType = UNSET
    imported: int | UnsetType = UNSET
    known: int | UnsetType = UNSET
    changed: int | UnsetType = UNSET


class Result(Struct, gc=False):
    """The result of one item: the job, or why it was refused.

    `id` is the requested one; `index` takes its place if there is none.
    """

    index: int | UnsetType = UNSET
    id: int | UnsetType = UNSET
    job: JobView | UnsetType = UNSET
    truncated: tuple[str, ...] | UnsetType = UNSET
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


class HeldJob(Struct):
    """A job in progress."""

    id: int
    queue: str
    type: str
    started_at: str
    lease_expires_at: str
    attempts: int


class ConsumerView(Struct, kw_only=True):
    """A consumer that holds jobs; without a name: all that gave none.

    `last_seen` is when it last took a job or sent a heartbeat. `jobs` has the first few of `in_progress`.
    """

    consumer: str | UnsetType = UNSET
    in_progress: int
    last_seen: str
    jobs: list[HeldJob]


class WaitingView(Struct, kw_only=True):
    """A consumer that waits for a job of these queues, until `wait_until` at most."""

    consumer: str | UnsetType = UNSET
    queues: tuple[str, ...]
    wait_until: str


class Series(Struct, rename={"since": "from"}):
    """What happened in a queue in each step of `step` seconds: a number for each step in each list. `queued`
    is the largest number of jobs.

    `kept` is false if there is no series: the queue was not used, or there are too many.
    """

    queue: str
    kept: bool
    since: str
    until: str
    step: Length
    enqueued: list[int]
    concluded: list[int]
    failed: list[int]
    stale: list[int]
    dead: list[int]
    queued: list[int]


class ConsumersView(Struct):
    """`complete`: there are no more than these."""

    consumers: list[ConsumerView]
    waiting: list[WaitingView]
    complete: bool


class GroupView(Struct):
    """Dead and retrying jobs with the same values. `error` is the type of an error, or the first line of its
    message. `sample` has the first few ids."""

    count: int
    dead: int
    retrying: int
    queue: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    key: str | UnsetType = UNSET
    sample: list[int] = []


class Groups(Struct):
    """The largest groups first. `rest` counts the jobs of further ones."""

    groups: list[GroupView]
    rest: int


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
    """`by`: the name of the access token of who paused it."""

    at: str
    until: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    by: str | UnsetType = UNSET


class RateView(Struct):
    count: int
    per: Length
    burst: int


class KeyLimitsView(Struct):
    max_in_progress: int | UnsetType = UNSET
    rate: RateView | UnsetType = UNSET
    ordered: bool | UnsetType = UNSET
    batch: int | UnsetType = UNSET


class QueueSettingsView(Struct):
    """The settings of a queue that differ from the defaults."""

    lease_for: Length | UnsetType = UNSET
    max_run_for: Length | UnsetType = UNSET
    max_attempts: int | UnsetType | None = UNSET
    backoff: list[Length] | dict[str, Length] | UnsetType = UNSET
    retain_for: Length | UnsetType = UNSET
    dead_letter: str | UnsetType = UNSET
    max_jobs: int | UnsetType = UNSET
    max_bytes: int | UnsetType = UNSET
    max_in_progress: int | UnsetType = UNSET
    rate: RateView | UnsetType = UNSET
    key_limits: KeyLimitsView | UnsetType = UNSET
    fair_keys: bool | UnsetType = UNSET
    attributes: Raw | UnsetType = UNSET


class Queue(Struct, kw_only=True):
    """A queue.

    Ages and times are seconds: `wait` until a job was first leased, `run` until its lease ended.
    """

    name: str
    paused: bool
    pause: PauseView | UnsetType = UNSET
    jobs: ByStatus
    oldest_age: Length | UnsetType = UNSET
    by_priority: dict[str, int] | UnsetType = UNSET
    consumers_waiting: int
    retrying: int
    rates: Rates
    wait_p50: Length | UnsetType = UNSET
    wait_p95: Length | UnsetType = UNSET
    run_p50: Length | UnsetType = UNSET
    run_p95: Length | UnsetType = UNSET
    totals: Totals
    settings: QueueSettingsView


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


class Idempotency(Struct, kw_only=True):
    """The number of keys kept, and for how many seconds."""

    keys: int | UnsetType = UNSET
    window: Length


class Memory(Struct):
    rss_bytes: int | UnsetType = UNSET
    limit_bytes: int | UnsetType = UNSET


class Limits(Struct, kw_only=True):
    max_body: int
    max_result: int
    max_depth: int
    max_batch: int
    max_connections: int | UnsetType = UNSET
    wait_max: Length
    lease_max: Length
    retain: Length
    retain_jobs: int
    retain_bytes: int
    max_headers: int
    max_jobs: int | UnsetType = UNSET
    max_queues: int
    max_schedules: int
    max_waiters: int
    max_connections_by_address: int | UnsetType = UNSET
    max_delay: Length
    head_timeout: Length
    body_timeout: Length
    idle_timeout: Length
    write_timeout: Length
    rate: int | UnsetType = UNSET


class Journal(Struct):
    """`full`: the disk is almost full. `behind`: it cannot keep up. `away`: why the database does not
    answer."""

    commits: int
    rows: int
    pending: int
    bytes: int
    full: bool
    behind: bool
    away: str | UnsetType = UNSET


class NewErrorView(Struct):
    """A kind of errors that was first seen in the last hour, and how often since the start."""

    queue: str
    type: str
    error: str
    first_at: str
    count: int


class ServerView(Struct):
    """`owner`: it has the jobs, or some of them, and the others pass on to it what concerns them. `address`:
    where it is reached by the others. `seen`: seconds since it last showed that it lives. `shards`: those
    that it owns, in a database with several."""

    server: str
    owner: bool
    started_at: str
    seen: Length
    address: str | UnsetType = UNSET
    shards: tuple[int, ...] | UnsetType = UNSET


class Takeover(Struct):
    """`server` has become the owner of the jobs after the server `before`. `forced`: that one had not handed
    over."""

    at: str
    server: str
    before: str
    forced: bool


class Cluster(Struct):
    """The servers on one database. None if this server shares its jobs with nobody. `last_takeover` is left
    out if the owner is the first one of the database."""

    servers: list[ServerView]
    last_takeover: Takeover | UnsetType = UNSET


class TokenView(Struct, kw_only=True):
    """An access token, without its secret. `queues`: patterns of names; left out: all. `sqs`: it has a secret
    for AWS SDKs. `last_used_at`: left out if it was not used since the start of the server."""

    name: str
    rights: tuple[str, ...]
    queues: tuple[str, ...] | UnsetType = UNSET
    sqs: bool
    expired: bool
    expires_at: str | UnsetType = UNSET
    last_used_at: str | UnsetType = UNSET


class Tokens(Struct):
    """The access tokens in the order of their names. `next` is the cursor of the next page; absent on the
    last one."""

    tokens: list[TokenView]
    next: str | UnsetType = UNSET


class AuditedCall(Struct, kw_only=True):
    """An administrative call. `who`: the name of an access token. `peer`: the address of the caller.
    `changed`: how many jobs it has changed, of a call on many."""

    at: str
    who: str | UnsetType = UNSET
    method: str
    path: str
    status: int
    changed: int | UnsetType = UNSET
    peer: str | UnsetType = UNSET
    request_id: str


class AuditView(Struct):
    """The last administrative calls, the newest first. `since`: when the server was started. `total`: how
    many there were since; left out for an access token for certain queues."""

    since: str
    total: int | UnsetType
    calls: list[AuditedCall]


class Stats(Struct, kw_only=True):
    """Statistics of the server. An access token for certain queues does not see what others contribute to."""

    version: str
    started_at: str
    uptime: Length
    durability: str
    auth: Auth
    jobs: ByStatus
    queues: int
    consumers_waiting: int
    connections: int | UnsetType = UNSET
    loop: Loop | UnsetType = UNSET
    ticks: Ticks
    lanes: Lanes | UnsetType = UNSET
    remembered: Remembered | UnsetType = UNSET
    idempotency: Idempotency
    journal: Journal | UnsetType = UNSET
    new_errors: list[NewErrorView]
    memory: Memory
    limits: Limits


class Health(Struct):
    status: Literal["ok"]
    version: str
    durability: str
    auth: Auth


class Ready(Struct):
    status: Literal["ready"]
