"""The calls for queues: lists, settings, pauses, and bulk operations on their jobs."""

from functools import partial

from jobqueue.model import BulkResult, QueueView
from jobqueue.web.context import Context
from jobqueue.web.http import Deferred, Request, Response
from jobqueue.web.operations.replies import if_match, queue_of_path, reply
from jobqueue.web.schema import responses
from jobqueue.web.writers import encoder
from jobqueue.web.writers.answer_size import page, page_of_queues
from jobqueue.web.writers.problems import problem


def list_queues(context: Context, request: Request) -> Response:
    limit, cursor = context.admin.queues(request)
    views = context.engine.queues(limit + 1, cursor)
    shown = page_of_queues(views[:limit])
    return Response(200, encoder.queues(shown, shown[-1].name if len(shown) < len(views) else None))


def get_queue(context: Context, request: Request) -> Response:
    name = queue_of_path(request)
    context.admin.queue_shown(request)
    return _queue(context, context.engine.queue(name))


def list_consumers(context: Context, request: Request) -> Response:
    found = context.engine.consumers(context.admin.consumers(request))
    return Response(200, context.encoder.consumers(found))


def get_series(context: Context, request: Request) -> Response:
    name = queue_of_path(request)
    length, step = context.admin.series(request)
    return Response(200, encoder.series(context.engine.series(name, length, step)))


def peek(context: Context, request: Request) -> Response:
    name = queue_of_path(request)
    most, payload = context.admin.peek(request)
    shown, _ = page(context.engine.peek(name, most), payload)
    return Response(200, context.encoder.listed(shown, payload, None))


def change_queue(context: Context, request: Request) -> Response | Deferred:
    name = queue_of_path(request)
    given = context.admin.queue_settings(request)
    return reply(context, context.engine.configure(name, given, if_match(request)), _queue)


def pause_queue(context: Context, request: Request) -> Response | Deferred:
    name = queue_of_path(request)
    length, reason = context.admin.pause(request)
    return reply(context, context.engine.pause(name, length, reason, if_match(request)), _queue)


def resume_queue(context: Context, request: Request) -> Response | Deferred:
    name = queue_of_path(request)
    context.admin.nothing(request)
    return reply(context, context.engine.resume(name, if_match(request)), _queue)


def purge(context: Context, request: Request) -> Response | Deferred:
    wanted, dry_run = context.admin.purge(request, queue_of_path(request))
    return reply(context, context.engine.purge(wanted, dry_run), partial(_swept, request))


def redrive_many(context: Context, request: Request) -> Response | Deferred:
    wanted, limit, dry_run = context.admin.redrive(request, queue_of_path(request))
    return reply(context, context.engine.redrive_many(wanted, limit, dry_run), partial(_swept, request))


def cancel_many(context: Context, request: Request) -> Response | Deferred:
    wanted, force, limit, dry_run = context.admin.cancel_many(request, queue_of_path(request))
    return reply(context, context.engine.cancel_many(wanted, force, limit, dry_run), partial(_swept, request))


def run_now(context: Context, request: Request) -> Response | Deferred:
    wanted, limit, dry_run = context.admin.run_now(request, queue_of_path(request))
    return reply(context, context.engine.run_many_now(wanted, limit, dry_run), partial(_swept, request))


def move(context: Context, request: Request) -> Response | Deferred:
    wanted, target, limit, dry_run = context.admin.move(request, queue_of_path(request))
    return reply(context, context.engine.move_many(wanted, target, limit, dry_run), partial(_swept, request))


def _swept(request: Request, context: Context, swept: BulkResult) -> Response:
    if swept.refused is not None:  # not raised, since the audit log needs the answer with the number of jobs
        swept.refused.facts["changed"] = swept.changed
        return problem(swept.refused, request.id)
    return Response(200, encoder.document(responses.BulkResult(swept.matched, swept.changed, swept.sample)))


def _queue(context: Context, view: QueueView) -> Response:
    return Response(200, encoder.queue(view), b'\r\nETag: "%d"' % view.version)
