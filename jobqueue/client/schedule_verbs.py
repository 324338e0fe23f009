"""The calls about schedules: `client.schedules`."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Unpack

from msgspec import Raw

from jobqueue.client.call import Call
from jobqueue.client.encoding import (
    Duration,
    Instant,
    Names,
    NewJob,
    NewSchedule,
    ScheduleOptions,
    at_cursor,
    batches,
    body,
    checked,
    encode_json,
    if_match,
    job_object,
    path,
    query,
    read,
    read_job,
)
from jobqueue.client.http import Response
from jobqueue.client.models import (
    Firing,
    Job,
    Schedule,
    ScheduleChanges,
    ScheduleExplanation,
    ScheduleHistory,
    SchedulePage,
    SchedulePreview,
)
from jobqueue.client.verbs import Group, M_co, Pages, Steps, pages, steps, verb

_etag = if_match
# A type, or a job with its payload and options.
_Template = str | NewJob | Mapping[str, Any]
_Item = NewSchedule | Schedule | Mapping[str, Any]
_Schedules = list[Schedule]
_Firings = list[Firing]


class ScheduleVerbs(Group[M_co]):
    """Calls about schedules: `client.schedules`. Those that change something need the right `admin`."""

    @verb
    def put(
        self, name: str, job: _Template, *, if_match: str | None = None, **options: Unpack[ScheduleOptions]
    ) -> Call[Schedule]:
        """Creates a schedule, or replaces it as a whole; the same again changes nothing.

        `job` is a type, a `NewJob`, or a mapping with `type`, `payload` and options. Raises
        `PreconditionFailed` if the schedule has changed since it had the etag `if_match`.
        """
        given = encode_json(_plan(job, options))
        target = path("schedules", name)
        return Call("PUT", target, read_schedule, given, _etag(if_match), safe=if_match is None)

    @verb
    def put_group(
        self, group: str, schedules: Iterable[_Item], *, dry_run: bool = False
    ) -> Call[ScheduleChanges]:
        """Creates or replaces all schedules of a group at once, and deletes those of the group that are not
        among them. `dry_run` only tells what would change.

        If an answer is lost it is done again; the result then shows as unchanged what the first one changed.
        """
        given = encode_json({"schedules": [Raw(_json(item)) for item in schedules]})
        target = "/schedules" + query(group=group, dry_run=dry_run)
        return Call("PUT", target, partial(read, kind=ScheduleChanges), given, safe=True)

    @steps
    def import_many(self, schedules: Iterable[_Item]) -> Steps[ScheduleChanges]:
        """Creates or replaces schedules, such as those that `iterate` of another client returns. Deletes
        nothing."""
        total = ScheduleChanges([], [], [], [])
        for batch in batches(map(_json, schedules)):
            part: ScheduleChanges = yield Call(
                "POST", "/schedules/import", partial(read, kind=ScheduleChanges),
                b'{"schedules":[%b]}' % b",".join(batch), safe=True,
            )  # fmt: skip
            total.created += part.created
            total.changed += part.changed
            total.unchanged += part.unchanged
        return total

    @verb
    def get(self, name: str, *, next: int | None = None) -> Call[Schedule]:
        """Returns a schedule, with its next 5 instants, or as many as `next` says. Raises
        `ScheduleNotFound`."""
        return Call("GET", path("schedules", name) + query(next=next), read_schedule, safe=True)

    @verb
    def list(
        self,
        *,
        group: str | None = None,
        queue: Names | None = None,
        paused: bool | None = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Call[SchedulePage]:
        """Returns a page of schedules by name."""
        target = at_cursor("/schedules" + _query(group, queue, paused, limit), cursor)
        return Call("GET", target, partial(read, kind=SchedulePage), safe=True)

    @pages
    def iterate(
        self, *, group: str | None = None, queue: Names | None = None, paused: bool | None = None
    ) -> Pages[Schedule]:
        """Iterates over all schedules by name."""

        target = "/schedules" + _query(group, queue, paused)

        def page(cursor: str | None) -> Call[tuple[_Schedules, str | None]]:
            return Call("GET", at_cursor(target, cursor), _items, safe=True)

        return page

    @verb
    def history(self, name: str) -> Call[_Firings]:
        """Returns what became of the last 50 instants, the latest first."""
        return Call("GET", path("schedules", name, "history"), _history, safe=True)

    @verb
    def explain(self, name: str) -> Call[ScheduleExplanation]:
        """Returns why a schedule makes no jobs, and why its last instant gave none."""
        target = path("schedules", name, "explain")
        return Call("GET", target, partial(read, kind=ScheduleExplanation), safe=True)

    @verb
    def preview(
        self,
        cron: str | None = None,
        *,
        every: Duration | None = None,
        timezone: str | None = None,
        starts_at: Instant | None = None,
        ends_at: Instant | None = None,
        from_: Instant | None = None,
        count: int | None = None,
    ) -> Call[SchedulePreview]:
        """Returns what a plan means and when it would be due. Stores nothing."""
        given = body(
            cron=cron, every=every, timezone=timezone, starts_at=starts_at, ends_at=ends_at, count=count,
            **{"from": from_},
        )  # fmt: skip
        return Call("POST", "/schedules/preview", partial(read, kind=SchedulePreview), given, safe=True)

    @verb
    def run(self, name: str) -> Call[Job]:
        """Enqueues a job now, beside the plan. Its `duplicate` is true if it is an unfinished one that
        `overlap` does not allow another beside."""
        return Call("POST", path("schedules", name, "run"), read_job, enqueues=True)

    @verb
    def pause(self, name: str, *, reason: str | None = None, if_match: str | None = None) -> Call[Schedule]:
        """Lets a schedule make no jobs until `resume`."""
        target, given = path("schedules", name, "pause"), body(reason=reason)
        return Call("POST", target, read_schedule, given, _etag(if_match), safe=if_match is None)

    @verb
    def resume(self, name: str, *, if_match: str | None = None) -> Call[Schedule]:
        """Ends a pause. What came due meanwhile is not run."""
        target = path("schedules", name, "resume")
        return Call("POST", target, read_schedule, b"", _etag(if_match), safe=if_match is None)

    @verb
    def delete(self, name: str, *, if_match: str | None = None) -> Call[Schedule]:
        """Deletes a schedule, and returns it. Its jobs stay."""
        return Call("DELETE", path("schedules", name), read_schedule, b"", _etag(if_match))


def read_schedule(response: Response) -> Schedule:
    return read(response, Schedule)


def _plan(job: _Template, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON object of a schedule."""
    made = job_object(NewJob(job) if isinstance(job, str) else job)
    return {**checked(options, ScheduleOptions, "a schedule"), "job": made}


def _json(item: _Item) -> bytes:
    if isinstance(item, NewSchedule):
        return encode_json({"name": item.name, **_plan(item.job, item.options)})
    if isinstance(item, Mapping):
        options = {name: value for name, value in item.items() if name not in ("name", "job")}
        return encode_json({"name": item["name"], **_plan(item["job"], options)})
    return encode_json(item)


def _query(group: str | None, queue: Names | None, paused: bool | None, limit: int | None = None) -> str:
    return query(group=group, queue=queue, paused=None if paused is None else int(paused), limit=limit)


def _items(response: Response) -> tuple[_Schedules, str | None]:
    page = read(response, SchedulePage)
    return page.schedules, page.next


def _history(response: Response) -> _Firings:
    return read(response, ScheduleHistory).history
