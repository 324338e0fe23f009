"""What the API answers, as structs. Unknown fields are ignored, so a client may be older than its server.

A field that does not apply is None. Instants are `datetime` in UTC, durations seconds.
"""

from base64 import b64decode
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from jobqueue.client.errors import error_of
from jobqueue.client.numbers import clamped
from jobqueue.errors import JobQueueError

T = TypeVar("T")
Kind: TypeAlias = type[T]  # inside `Job`, `type` is a field
Status = Literal["scheduled", "queued", "in_progress", "concluded", "dead", "cancelled"]
Seconds = int | float
_NULL = Raw(b"null")


class JobError(Struct, omit_defaults=True):
    """What an attempt failed with."""

    type: str | None = None
    message: str | None = None
    details: Any = None


class Attempt(Struct):
    """One attempt of a job. `outcome`: `concluded`, `failed`, `stale`, `released` or `cancelled`. `reason`:
    "max_run_for" if it ran for as long as it may."""

    attempt: int
    outcome: str
    started_at: datetime
    ended_at: datetime | None = None
    consumer: str | None = None
    error: str | JobError | None = None
    reason: str | None = None


class DeadFrom(Struct):
    """Where a job died before a dead-letter queue took it."""

    queue: str
    reason: str


class Job(Struct, repr_omit_defaults=True):
    """A job as the server showed it. Fields: docs/api.md, "The job".

    `status` is "forgotten" only in the answer to a repeated enqueue with an idempotency key, whose job is no
    longer remembered; then nothing but `id` and `duplicate` is set.

    `payload` and `result` are decoded when they are asked for; `payload_json` and `result_json` are the JSON
    as it came. `job["reason"]` is the same as `job.reason`. `etag` may be given as `if_match`.
    """

    id: int
    status: Status | Literal["forgotten"] = "forgotten"
    queue: str = ""
    type: str = ""
    priority: int = 0
    attempts: int = 0
    leases: int = 0
    lease: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    lease_expires_at: datetime | None = None
    lease_for: Seconds | None = None
    consumer: str | None = None
    cancel_requested: bool = False
    truncated: tuple[str, ...] = ()
    duplicate: bool = False
    run_at: datetime | None = None
    retrying: bool = False
    expires_at: datetime | None = None
    reason: str | None = None
    dead_from: DeadFrom | None = None
    error: str | JobError | None = None
    progress: int | None = None
    message: str | None = None
    max_run_for: Seconds | None = None
    max_attempts: int | UnsetType | None = UNSET
    backoff: list[Seconds] | dict[str, Seconds] | None = None
    retain_for: Seconds | None = None
    key: str | None = None
    unique_key: str | None = None
    unique_while: str | None = None
    on_conflict: str | None = None
    tags: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    history: list[Attempt] | None = None
    content_type: str | None = None
    payload_encoding: str | None = None
    result_encoding: str | None = None
    payload_json: Raw = field(default=_NULL, name="payload")
    result_json: Raw = field(default=_NULL, name="result")
    etag: str | None = None

    @property
    def payload(self) -> Any:
        """The payload: what its JSON says, or bytes if it is not JSON and not text."""
        return _value(self.payload_json, self.payload_encoding, self.content_type)

    @property
    def result(self) -> Any:
        """The result: what its JSON says, or bytes if it is not JSON and not text. None: it has none."""
        return _value(self.result_json, self.result_encoding)

    def payload_as(self, kind: Kind[T]) -> T:
        """Returns the payload as a `kind`. Raises `msgspec.ValidationError`, which names the field."""
        return msgspec.json.decode(self.payload_json, type=kind)

    def result_as(self, kind: Kind[T]) -> T:
        """Returns the result as a `kind`. Raises `msgspec.ValidationError`, which names the field."""
        return msgspec.json.decode(self.result_json, type=kind)

    @property
    def finished(self) -> bool:
        """Concluded, dead or cancelled; or forgotten."""
        return self.status in ("concluded", "dead", "cancelled", "forgotten")

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None


def _value(raw: Raw, encoding: str | None, content_type: str | None = None) -> Any:
    value = clamped(msgspec.json.decode, bytes(raw))
    if encoding != "base64" or not isinstance(value, str):
        return value
    data = b64decode(value)
    if content_type is not None and content_type.lower().startswith("text/"):  # it is long, or not UTF-8
        with suppress(UnicodeDecodeError):
            return data.decode()
    return data


class Jobs(Struct):
    jobs: list[Job]


class JobPage(Struct):
    """A page of jobs. `next` is the `cursor` of the next page; None: this is the last one."""

    jobs: list[Job]
    next: str | None = None


class Outcome(Struct):
    """What became of one of many: `job`, or the problem document in `error`.

    `id` is the one that was asked for; of an enqueue it is that of the new job.
    """

    id: int | None = None
    job: Job | None = None
    index: int | None = None
    truncated: tuple[str, ...] = ()
    error: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    def exception(self) -> JobQueueError | None:
        """Returns the error as a call for this one alone would have raised it; None: it was done."""
        return None if self.error is None else error_of(self.error)

    def get(self) -> Job:
        """Returns the job, or raises what `exception` returns."""
        if self.job is None:
            raise self.exception() or JobQueueError("an item of an answer has neither a job nor an error")
        return self.job


class Outcomes(Struct):
    results: list[Outcome]


class Reason(Struct):
    """What keeps a job from being delivered, or a schedule from making one. `until` is when that ends by
    itself."""

    code: str
    detail: str
    until: datetime | None = None


class Explanation(Struct):
    """Why a job waits. Without `reasons` the next dequeue gets it. At most `ahead` jobs go first."""

    id: int
    status: Status
    ahead: int
    reasons: list[Reason]


class Count(Struct):
    count: int


class HeldJob(Struct):
    """A job in progress."""

    id: int
    queue: str
    type: str
    started_at: datetime
    lease_expires_at: datetime
    attempts: int


class Holder(Struct, kw_only=True):
    """A consumer that holds jobs; without a name: all that gave none. `jobs` has the first few."""

    consumer: str | None = None
    in_progress: int
    last_seen: datetime
    jobs: list[HeldJob]


class WaitingConsumer(Struct, kw_only=True):
    """A consumer that waits for a job of these queues."""

    consumer: str | None = None
    queues: list[str]
    wait_until: datetime


class Series(Struct, rename={"from_": "from"}):
    """What happened in a queue in each step of `step` seconds: a number for each step in each list. `queued`
    is the largest number of jobs. `kept` is False if there is no series: the queue was not used, or there are
    too many."""

    queue: str
    kept: bool
    from_: datetime
    until: datetime
    step: Seconds
    enqueued: list[int]
    concluded: list[int]
    failed: list[int]
    stale: list[int]
    dead: list[int]
    queued: list[int]


class Consumers(Struct):
    """Who holds jobs, and who waits for one. `complete`: there are no more."""

    consumers: list[Holder]
    waiting: list[WaitingConsumer]
    complete: bool


class JobGroup(Struct):
    """Dead and retrying jobs with the same values."""

    count: int
    dead: int
    retrying: int
    queue: str | None = None
    type: str | None = None
    error: str | None = None
    reason: str | None = None
    key: str | None = None
    sample: list[int] = []


class JobGroups(Struct):
    """The largest groups first. `rest` counts the jobs of further ones."""

    groups: list[JobGroup]
    rest: int


class BulkResult(Struct):
    """The result of an operation on many jobs. `sample` has the first few ids."""

    matched: int
    changed: int
    sample: list[int]


class Imported(Struct):
    """The result of an import. `known` counts jobs that were imported before."""

    imported: int
    known: int


class ByStatus(Struct):
    scheduled: int = 0
    queued: int = 0
    in_progress: int = 0
    concluded: int = 0
    dead: int = 0
    cancelled: int = 0


class Totals(Struct):
    enqueued: int = 0
    dequeued: int = 0
    concluded: int = 0
    stale: int = 0
    released: int = 0
    failed: int = 0
    dead: int = 0
    cancelled: int = 0


class Rates(Struct, rename={"into": "in"}):
    """Jobs a second, in and out."""

    into: Seconds = 0
    out: Seconds = 0


class Pause(Struct):
    at: datetime
    until: datetime | None = None
    reason: str | None = None
    by: str | None = None


class Rate(Struct):
    count: int
    per: Seconds
    burst: int


class KeyLimits(Struct):
    max_in_progress: int | None = None
    rate: Rate | None = None
    ordered: bool = False
    batch: int = 1


class QueueSettings(Struct):
    """The settings of a queue that differ from the defaults."""

    lease_for: Seconds | None = None
    max_run_for: Seconds | None = None
    max_attempts: int | UnsetType | None = UNSET
    backoff: list[Seconds] | dict[str, Seconds] | None = None
    retain_for: Seconds | None = None
    dead_letter: str | None = None
    max_jobs: int | None = None
    max_bytes: int | None = None
    max_in_progress: int | None = None
    rate: Rate | None = None
    key_limits: KeyLimits | None = None
    fair_keys: bool = False
    attributes: dict[str, Any] | None = None


class Queue(Struct, repr_omit_defaults=True):
    """A queue. Fields: docs/api.md, "Queues". `etag` may be given as `if_match`."""

    name: str
    paused: bool
    jobs: ByStatus
    consumers_waiting: int
    rates: Rates
    totals: Totals
    settings: QueueSettings
    pause: Pause | None = None
    oldest_age: Seconds | None = None
    retrying: int = 0
    by_priority: dict[str, int] | None = None
    wait_p50: Seconds | None = None
    wait_p95: Seconds | None = None
    run_p50: Seconds | None = None
    run_p95: Seconds | None = None
    etag: str | None = None


class QueuePage(Struct):
    """A page of queues. `next` is the `cursor` of the next page; None: this is the last one."""

    queues: list[Queue]
    next: str | None = None


class SchedulePause(Struct):
    at: datetime
    reason: str | None = None


class Firing(Struct):
    """What became of an instant of a schedule, or of all instants from `since` on. Outcomes:
    docs/schedules.md, "History"."""

    due_at: datetime
    at: datetime
    outcome: str
    job: int | None = None
    reason: str | None = None
    since: datetime | None = None


class ScheduledJob(Struct, omit_defaults=True):
    """The jobs of a schedule."""

    type: str
    queue: str = "default"
    priority: int = 0
    expires_in: Seconds | None = None
    lease_for: Seconds | None = None
    max_run_for: Seconds | None = None
    max_attempts: int | UnsetType | None = UNSET
    backoff: list[Seconds] | dict[str, Seconds] | None = None
    retain_for: Seconds | None = None
    key: str | None = None
    unique_key: str | None = None
    unique_while: str | None = None
    on_conflict: str | None = None
    tags: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    content_type: str | None = None
    payload_encoding: str | None = None
    payload: Any = None


class Schedule(Struct, omit_defaults=True, repr_omit_defaults=True):
    """A schedule. Fields: docs/schedules.md. `etag` may be given as `if_match`."""

    name: str
    job: ScheduledJob
    cron: str | None = None
    every: Seconds | None = None
    timezone: str | None = None
    group: str | None = None
    means: str | None = None
    paused: bool = False
    pause: SchedulePause | None = None
    next_at: datetime | None = None
    next: list[datetime] | None = None
    last: Firing | None = None
    blocked: str | None = None
    misfire: str = "once"
    grace: Seconds | None = None
    overlap: str = "skip"
    jitter: Seconds = 0
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    created_at: datetime | None = None
    etag: str | None = None


class SchedulePage(Struct):
    """A page of schedules. `next` is the `cursor` of the next page; None: this is the last one."""

    schedules: list[Schedule]
    next: str | None = None


class ScheduleHistory(Struct):
    history: list[Firing]


class ScheduleExplanation(Struct):
    """Why a schedule makes no jobs, and why its last instant gave none. Without `reasons` `next_at` gives
    one."""

    name: str
    reasons: list[Reason]
    next_at: datetime | None = None


class SchedulePreview(Struct):
    """What a plan means, and its next instants."""

    means: str
    next: list[datetime]


class ScheduleChanges(Struct):
    """The names of schedules that were created, changed, left as they are, and deleted; or would be."""

    created: list[str]
    changed: list[str]
    unchanged: list[str]
    deleted: list[str]


class ClusterServer(Struct):
    """A server on the database. `owner`: it has the jobs, or some of them. `seen`: seconds since it last
    showed that it lives. `shards`: those that it owns, in a database with several."""

    server: str
    owner: bool
    started_at: datetime
    seen: Seconds
    address: str | None = None
    shards: list[int] | None = None


class Takeover(Struct):
    """`server` has become the owner of the jobs after the server `before`. `forced`: that one had not handed
    over."""

    at: datetime
    server: str
    before: str
    forced: bool


class Cluster(Struct):
    """The servers that share a database; none if the server has a journal of its own, or none.
    `last_takeover` is None if the owner is the first one of the database."""

    servers: list[ClusterServer]
    last_takeover: Takeover | None = None


class Token(Struct):
    """An access token, without its secret. `queues`: patterns of names; None: all. `sqs`: it has a secret for
    AWS SDKs. `last_used_at`: since the start of the server."""

    name: str
    rights: list[str]
    sqs: bool
    expired: bool
    queues: list[str] | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class TokenPage(Struct):
    """Access tokens in the order of their names. `next` is the cursor of the next page."""

    tokens: list[Token]
    next: str | None = None


class AuditedCall(Struct):
    """An administrative call. `who`: the name of an access token. `changed`: how many jobs it has changed, of
    a call on many."""

    at: datetime
    method: str
    path: str
    status: int
    request_id: str
    who: str | None = None
    changed: int | None = None
    peer: str | None = None


class Audit(Struct):
    """The last administrative calls, the newest first. `total`: how many there were since the start of the
    server; None for a token for certain queues."""

    since: datetime
    calls: list[AuditedCall]
    total: int | None = None


class Stats(Struct):
    """Statistics of the server. The groups of figures are dicts, since what is in them grows."""

    version: str
    started_at: datetime
    uptime: Seconds
    durability: str
    auth: str
    jobs: ByStatus
    queues: int
    consumers_waiting: int
    ticks: dict[str, Any]
    idempotency: dict[str, Any]
    memory: dict[str, Any]
    limits: dict[str, Any]
    lanes: dict[str, Any] | None = None
    remembered: dict[str, Any] | None = None
    journal: dict[str, Any] | None = None
    connections: int | None = None
    loop: dict[str, Any] | None = None
    new_errors: list[dict[str, Any]] = []


class Health(Struct):
    status: str
    version: str
    durability: str
    auth: str


class Ready(Struct):
    status: str


class Event(Struct):
    """A change that the server told of. Events: docs/streams.md. `id` is given as `after` to go on."""

    event: str
    id: str
    data: Any
