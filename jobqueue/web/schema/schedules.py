"""The structs of schedules: of requests, and after them of answers. See `requests` and `responses`."""

from typing import Annotated

from msgspec import UNSET, Raw, Struct, UnsetType

from jobqueue.model import Misfire, Overlap, ScheduleCode
from jobqueue.web.schema import kinds
from jobqueue.web.schema.kinds import YEAR_MS, Kind, duration, text, whole
from jobqueue.web.schema.requests import ABSENT, Choice, Duration, Format, Instant, Page, PauseReason, Shape
from jobqueue.web.schema.responses import Length

Grouping = Annotated[str, text(128).meta]
ScheduleName = Annotated[str, kinds.SCHEDULE_NAME.meta]
Every = Annotated[int | float | str, duration("Every", 1_000, YEAR_MS).meta]
Jitter = Annotated[int | float | str, duration("Jitter", 0, 86_400_000).meta]
# The engine checks these two.
Cron = Annotated[str, Kind("a cron expression, such as `30 2 * * *`").meta]
Zone = Annotated[str, Kind("a name of the IANA database, such as Europe/Berlin").meta]
# A job as an enqueue takes it, without a delay. `readers.schedules` reads it.
ScheduledJob = Annotated[
    Raw,
    Kind(
        'an object such as {"type":"report"}',
        in_query=False,
        schema={"$ref": "#/components/schemas/JobShape"},
    ).meta,
]


class PlanShape(Shape):
    """When a schedule is due: by `cron` or by `every`."""

    cron: Cron | None = None
    every: Every | None = None
    timezone: Zone = "UTC"
    starts_at: Instant | None = None
    ends_at: Instant | None = None


class PreviewShape(PlanShape, rename={"since": "from"}):
    since: Instant | None = None
    count: Annotated[int, whole(1, 100).meta] = 5


class ScheduleShape(PlanShape):
    """A schedule. `paused` left out: it stays as it is."""

    job: ScheduledJob = ABSENT
    name: ScheduleName | None = None
    group: Grouping | None = None
    misfire: Misfire = "once"
    grace: Duration | None = None
    overlap: Overlap = "skip"
    jitter: Jitter = 0
    paused: bool | None = None


# Set by the server: accepted and ignored, so that what was shown can be sent again.
SET_BY_THE_SERVER = frozenset(
    {"means", "next_at", "next", "last", "blocked", "pause", "created_at", "etag"}
)  # fmt: skip


class ManySchedulesShape(Shape):
    """`schedules`: a list of objects as `PUT /schedules/{name}` takes them, with their names."""

    schedules: Annotated[
        list[Raw],
        Kind(
            "a list of schedules",
            in_query=False,
            schema={"items": {"$ref": "#/components/schemas/ScheduleShape"}},
        ).meta,
    ]


class GroupShape(ManySchedulesShape, kw_only=True):
    group: Grouping
    dry_run: bool = False


class ScheduleQueryShape(Shape):
    """`next`: how many instants are shown."""

    format: Format | None = None
    next: Annotated[int, whole(0, 100).meta] = 5


class SchedulesShape(Shape):
    format: Format | None = None
    group: Grouping | None = None
    queue: Choice | str | None = None
    paused: bool | None = None
    limit: Page = 1000
    cursor: ScheduleName | None = None


class SchedulePauseShape(Shape):
    reason: PauseReason | None = None


# -- answers ----------------------------------------------------------------------------------------


class ScheduledJobView(Struct, kw_only=True):
    """The jobs of a schedule: fields as those of an enqueue."""

    type: str
    queue: str
    priority: int
    expires_in: Length | UnsetType = UNSET
    lease_for: Length | UnsetType = UNSET
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
    content_type: str | UnsetType = UNSET
    payload_encoding: str | UnsetType = UNSET
    payload: Raw


class FiringView(Struct, kw_only=True):
    """What became of an instant, or of several from `since` on.

    `job` is the id of its job, or of the one in the way.
    """

    due_at: str
    at: str
    outcome: str
    job: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    since: str | UnsetType = UNSET


class ScheduleView(Struct, kw_only=True):
    """A schedule.

    `next_at` is the next instant that gives a job; absent while it is paused, and after the last one. `next`
    are the next instants of the plan. `blocked` says why an instant that is due has no job yet.
    """

    name: str
    group: str | UnsetType = UNSET
    cron: str | UnsetType = UNSET
    every: Length | UnsetType = UNSET
    timezone: str | UnsetType = UNSET
    means: str | UnsetType = UNSET
    paused: bool
    pause: "SchedulePauseView | UnsetType" = UNSET
    next_at: str | UnsetType = UNSET
    next: list[str] | UnsetType = UNSET
    last: FiringView | UnsetType = UNSET
    blocked: str | UnsetType = UNSET
    misfire: str
    grace: Length | UnsetType = UNSET
    overlap: str
    jitter: Length
    starts_at: str | UnsetType = UNSET
    ends_at: str | UnsetType = UNSET
    created_at: str
    etag: str
    job: ScheduledJobView


class SchedulePauseView(Struct, kw_only=True):
    at: str
    reason: str | UnsetType = UNSET


class SchedulePage(Struct):
    """A page of schedules. `next` is the cursor of the next page; absent on the last one."""

    schedules: list[ScheduleView]
    next: str | UnsetType = UNSET


class ScheduleHistory(Struct):
    """What became of the last 50 instants, the latest first."""

    history: list[FiringView]


class ScheduleReason(Struct):
    """Why a schedule makes no jobs. `until` is when that ends without intervention."""

    code: ScheduleCode
    detail: str
    until: str | UnsetType = UNSET


class ScheduleExplained(Struct):
    """Why a schedule makes no jobs, and why its last instant gave none.

    Without reasons `next_at` gives a job.
    """

    name: str
    next_at: str | UnsetType
    reasons: list[ScheduleReason]


class SchedulePreview(Struct):
    means: str
    next: list[str]


class ScheduleChanges(Struct):
    """The names of schedules that were created, changed, left as they are, and deleted; or would be."""

    created: list[str]
    changed: list[str]
    unchanged: list[str]
    deleted: list[str]
