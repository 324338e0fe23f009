"""The calls for schedules."""

from asyncio import Future
from functools import partial

from jobqueue.model import ExistingJob, Job, Schedule, ScheduleChanges
from jobqueue.units import instant
from jobqueue.web.context import Context
from jobqueue.web.http import Deferred, Request, Response
from jobqueue.web.operations import explain
from jobqueue.web.operations.negotiation import dressed, format_for
from jobqueue.web.operations.replies import if_match, reply
from jobqueue.web.schema import schedules as schema
from jobqueue.web.schema.kinds import kind_of
from jobqueue.web.writers import schedule_pages, schedules, text_tables
from jobqueue.web.writers.answer_size import PAGE_BYTES
from jobqueue.web.writers.encoder import document, known
from jobqueue.web.writers.page_layout import View

_name_kind = kind_of(schema.ScheduleName)
# Instants in the answer to a change.
_NEXT = 5


def list_schedules(context: Context, request: Request) -> Response | Deferred:
    face = format_for(context, request, live=False)
    group, queues, paused, limit, after = context.readers.schedules.list(request)
    found = context.engine.schedules(group, queues, paused, limit + 1, after)
    shown: list[schema.ScheduleView] = []
    size = 0
    for schedule in found[:limit]:
        size += schedules.size(schedule.plan)
        if shown and size > PAGE_BYTES:
            break
        means, _ = context.engine.upcoming(schedule, 0, 0)
        shown.append(schedules.view(schedule, means, None, context.encoder.longest_text))
    following = shown[-1].name if len(shown) < len(found) else None
    answer = Response(200, document(schema.SchedulePage(shown, known(following))))
    return dressed(
        context,
        request,
        face,
        answer,
        text_tables.schedules,
        schedule_pages.schedules,
    )


def get_schedule(context: Context, request: Request) -> Response | Deferred:
    face = format_for(context, request, live=False)
    count = context.readers.schedules.get(request)
    found = context.engine.schedule(_name(request))
    page = partial(_page, found)
    return dressed(context, request, face, _shown(context, found, count=count), text_tables.one, page)


def _page(found: Schedule, seen: View, body: bytes) -> bytes:
    return schedule_pages.schedule(seen, body, _history(found))


def put_schedule(context: Context, request: Request) -> Response | Deferred:
    name = _name(request)
    plan, paused = context.readers.schedules.put(request, name, context.engine.wall_now)
    return reply(context, context.engine.put_schedule(plan, paused, if_match(request)), _put)


def put_schedules(context: Context, request: Request) -> Response | Deferred:
    plans, group, dry_run = context.readers.schedules.put_group(request, context.engine.wall_now)
    return reply(context, context.engine.put_schedules(plans, group, dry_run), _changes)


def import_schedules(context: Context, request: Request) -> Response | Deferred:
    plans = context.readers.schedules.import_many(request, context.engine.wall_now)
    return reply(context, context.engine.put_schedules(plans, None, False), _changes)


def delete_schedule(context: Context, request: Request) -> Response | Deferred:
    context.admin.nothing(request)
    deleted = context.engine.delete_schedule(_name(request), if_match(request))
    return reply(context, deleted, partial(_shown, count=0))


def pause_schedule(context: Context, request: Request) -> Response | Deferred:
    reason = context.readers.schedules.pause(request)
    paused = context.engine.pause_schedule(_name(request), reason, if_match(request))
    return reply(context, paused, _shown)


def resume_schedule(context: Context, request: Request) -> Response | Deferred:
    context.admin.nothing(request)
    return reply(context, context.engine.resume_schedule(_name(request), if_match(request)), _shown)


def explain_schedule(context: Context, request: Request) -> Response:
    context.admin.nothing(request)
    return explain.schedule_explained(context.engine.explain_schedule(_name(request)))


def run_schedule(context: Context, request: Request) -> Response | Deferred:
    context.admin.nothing(request)
    made = context.engine.run_schedule(_name(request))
    return Deferred(made, partial(_made, context)) if isinstance(made, Future) else _made(context, made)


def preview_schedule(context: Context, request: Request) -> Response:
    plan, since, count = context.readers.schedules.preview(request)
    after = context.engine.wall_now() if since is None else since - 1  # an instant at `from` counts
    means, upcoming = context.engine.upcoming(plan, after, count)
    return Response(200, document(schema.SchedulePreview(means, [instant(due) for due in upcoming])))


def schedule_history(context: Context, request: Request) -> Response:
    context.admin.nothing(request)
    return Response(200, _history(context.engine.schedule(_name(request))))


def _history(found: Schedule) -> bytes:
    return document(schema.ScheduleHistory([schedules.firing(entry) for entry in reversed(found.history)]))


def _name(request: Request) -> str:
    name: str = _name_kind.check(request.param, "name")
    return name


def _put(context: Context, put: tuple[Schedule, bool]) -> Response:
    schedule, created = put
    answer = _shown(context, schedule)
    location = b"\r\nLocation: /schedules/" + schedule.plan.name.encode() if created else b""
    return Response(201 if created else 200, answer.body, answer.headers + location)


def _shown(context: Context, schedule: Schedule, count: int = _NEXT) -> Response:
    means, upcoming = context.engine.upcoming(schedule, context.engine.wall_now(), count)
    body = document(schedules.view(schedule, means, upcoming, context.encoder.longest_text))
    return Response(200, body, b'\r\nETag: "%d"' % schedule.version)


def _changes(context: Context, changes: ScheduleChanges) -> Response:
    return Response(200, document(schema.ScheduleChanges(*changes)))


def _made(context: Context, made: Job | ExistingJob) -> Response:
    job, status = (made, 201) if isinstance(made, Job) else (made.job, 200)
    headers = b'\r\nLocation: /jobs/%d\r\nETag: "%d"' % (job.id, job.version)
    return Response(status, context.encoder.new_job(made), headers)
