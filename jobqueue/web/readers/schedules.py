"""Readers of the calls for schedules."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jobqueue.errors import BadInput, BodyTooLarge, InvalidField, MissingField
from jobqueue.model import JobTemplate, Plan
from jobqueue.web.http import Request
from jobqueue.web.readers.json_text import REFUSED
from jobqueue.web.readers.limits import Limits
from jobqueue.web.readers.produce import ProduceReaders
from jobqueue.web.schema import schedules as schema

# A plan, and whether it is paused; None: as it is.
Asked = tuple[Plan, bool | None]
_OF_PLAN = ("cron", "every", "timezone", "starts_at", "ends_at")
_OF_UNIQUE = (
    "with overlap skip or queue the schedule sets the unique_key; take overlap allow for one of yours"
)


class Listing(NamedTuple):
    """A page of schedules. It begins after the name `after`."""

    group: str | None
    queues: frozenset[str] | None
    paused: bool | None
    limit: int
    after: str | None


class ScheduleReaders:
    """Reads schedules. `wall` reads the wall clock in milliseconds."""

    def __init__(self, limits: Limits, produce: ProduceReaders) -> None:
        self._max_depth = limits.max_depth
        self._max_batch = limits.max_batch
        self._produce = produce
        self._one = limits.decoder(schema.ScheduleShape, ignored=schema.SET_BY_THE_SERVER)
        self._group = limits.decoder(schema.GroupShape)
        self._many = limits.decoder(schema.ManySchedulesShape)
        self._preview = limits.decoder(schema.PreviewShape)
        self._query = limits.decoder(schema.ScheduleQueryShape)
        self._list = limits.decoder(schema.SchedulesShape)
        self._pause = limits.decoder(schema.SchedulePauseShape)

    def put(self, request: Request, name: str, wall: Callable[[], int]) -> Asked:
        asked = self._one.read(request, self._max_depth)
        if asked.name is not None and asked.name != name:
            raise InvalidField(f"name: it is {name!r} in the path; leave it out here", field="name")
        return self._asked(asked, name, wall)

    def put_group(self, request: Request, wall: Callable[[], int]) -> tuple[list[Asked], str, bool]:
        """Returns the schedules of a group, its name, and whether it is a dry run."""
        asked = self._group.read(request, self._max_depth)
        group: str = self._group.value(asked, "group")
        return self._each(asked.schedules, group, wall), group, asked.dry_run

    def import_many(self, request: Request, wall: Callable[[], int]) -> list[Asked]:
        return self._each(self._many.read(request, self._max_depth).schedules, None, wall)

    def _each(self, items: list[Any], group: str | None, wall: Callable[[], int]) -> list[Asked]:
        """Returns the schedules of a list. Those of a request for one group belong to it."""
        if len(items) > self._max_batch:
            raise InvalidField(
                f"schedules: at most {self._max_batch:,} in one request; this one has {len(items):,}",
                field="schedules", limit=self._max_batch, setting="JOBQUEUE_MAX_BATCH",
            )  # fmt: skip
        found: list[Asked] = []
        for index, item in enumerate(items):
            try:
                found.append(self._item(bytes(item), group, wall))
            except (BadInput, BodyTooLarge) as bad:
                bad.facts["index"] = index
                raise
        return found

    def _item(self, text: bytes, group: str | None, wall: Callable[[], int]) -> Asked:
        if text[:1] != b"{":
            raise InvalidField("schedules: a list of objects", field="schedules")
        try:
            asked = self._one.decode(text)
        except REFUSED:
            asked = self._one.merge(text, {}, self._max_depth)
        name: str | None = self._one.value(asked, "name")
        if name is None:
            raise MissingField("name is required", field="name")
        if group is not None:
            if asked.group not in (None, group):
                raise InvalidField(f"group: it is {group!r} for all of them", field="group")
            asked.group = group
        return self._asked(asked, name, wall)

    def _asked(self, asked: schema.ScheduleShape, name: str, wall: Callable[[], int]) -> Asked:
        cron, every, timezone, starts_at, ends_at = self._one.values(asked, *_OF_PLAN)
        group, grace, jitter = self._one.values(asked, "group", "grace", "jitter")
        _check_kind(cron, every, asked.timezone)
        job = self._job(bytes(asked.job), wall)
        if asked.overlap != "allow" and job.options is not None and job.options.unique_key is not None:
            raise InvalidField(f"job: {_OF_UNIQUE}", field="unique_key")
        plan = Plan(
            name, job, group, cron, every, timezone, asked.misfire, grace, asked.overlap, jitter, starts_at,
            ends_at,
        )  # fmt: skip
        return plan, asked.paused

    def _job(self, text: bytes, wall: Callable[[], int]) -> JobTemplate:
        if not text:
            raise MissingField('job is required, such as {"type":"report"}', field="job")
        try:
            new = self._produce.template(text, wall)
        except (BadInput, BodyTooLarge) as bad:
            bad.detail = f"job: {bad.detail}"
            bad.facts.setdefault("field", "job")
            raise
        return JobTemplate(new.type, new.queue, new.priority, new.payload, new.expires_in, new.options)

    def preview(self, request: Request) -> tuple[Plan, int | None, int]:
        """Returns a plan, the instant after which its instants are asked for (None: now), and how many."""
        asked = self._preview.read(request, self._max_depth)
        cron, every, timezone, starts_at, ends_at = self._preview.values(asked, *_OF_PLAN)
        since, count = self._preview.values(asked, "from", "count")
        _check_kind(cron, every, asked.timezone)
        plan = Plan(
            "preview",
            JobTemplate("preview"),
            None,
            cron,
            every,
            timezone,
            starts_at=starts_at,
            ends_at=ends_at,
        )
        return plan, since, count

    def get(self, request: Request) -> int:
        """Returns how many of the next instants are shown."""
        if not request.query and not request.body:
            return 5
        count: int = self._query.value(self._query.read(request, self._max_depth), "next")
        return count

    def list(self, request: Request) -> Listing:
        asked = self._list.read(request, self._max_depth)
        group, queues, limit, cursor = self._list.values(asked, "group", "queue", "limit", "cursor")
        return Listing(group, queues, asked.paused, limit, cursor)

    def pause(self, request: Request) -> str | None:
        """Returns the reason of a pause."""
        if not request.query and not request.body:
            return None
        reason: str | None = self._pause.value(self._pause.read(request, self._max_depth), "reason")
        return reason


def _check_kind(cron: str | None, every: int | None, timezone: str) -> None:
    if (cron is None) == (every is None):
        what = (
            "give cron or every, not both"
            if cron is not None
            else "give cron, such as `30 2 * * *`, or every"
        )
        raise (InvalidField if cron is not None else MissingField)(what, field="cron")
    if every is not None and timezone != "UTC":
        raise InvalidField(
            "timezone: is for cron; every counts from starts_at, or from 1970", field="timezone"
        )
