"""The calls for queues: lists, settings, pauses, and bulk operations on their jobs."""

from jobqueue.model import BulkResult, QueueView
from jobqueue.web.context import Context
from jobqueue.web.http import Deferred, Request, Response
from jobqueue.web.operations.replies import if_match, reply
from jobqueue.web.readers.fields import queue_name
from jobqueue.web.writers import encoder


def list_queues(context: Context, request: Request) -> Response:
    limit, cursor = context.admin.queues(request)
    views = context.engine.queues(limit + 1, cursor)
    return Response(200, encoder.queues(views[:limit], views[limit - 1].name if len(views) > limit else None))


def get_queue(context: Context, request: Request) -> Response:
    name = queue_name(request.param, "name")
    context.admin.queue(request)
    return _queue(context, context.engine.queue(name))


def peek(context: Context, request: Request) -> Response:
    name = queue_name(request.param, "name")
    most, payload = context.admin.peek(request)
    return Response(200, context.encoder.listed(context.engine.peek(name, most), payload, None))


def change_queue(context: Context, request: Request) -> Response | Deferred:
    name = queue_name(request.param, "name")
    given = context.admin.queue_settings(request)
    return reply(context, context.engine.configure(name, given, if_match(request)), _queue)


def pause_queue(context: Context, request: Request) -> Response | Deferred:
    name = queue_name(request.param, "name")
    length, reason = context.admin.pause(request)
    return reply(context, context.engine.pause(name, length, reason, if_match(request)), _queue)


def resume_queue(context: Context, request: Request) -> Response | Deferred:
    name = queue_name(request.param, "name")
    context.admin.nothing(request)
    return reply(context, context.engine.resume(name, if_match(request)), _queue)


def purge(context: Context, request: Request) -> Response | Deferred:
    wanted, dry_run = context.admin.purge(request, queue_name(request.param, "name"))
    return reply(context, context.engine.purge(wanted, dry_run), _swept)


def redrive_many(context: Context, request: Request) -> Response | Deferred:
    wanted, limit, dry_run = context.admin.redrive(request, queue_name(request.param, "name"))
    return reply(context, context.engine.redrive_many(wanted, limit, dry_run), _swept)


def _swept(context: Context, swept: BulkResult) -> Response:
    return Response(200, encoder.document(swept._asdict()))


def _queue(context: Context, view: QueueView) -> Response:
    return Response(200, encoder.queue(view), b'\r\nETag: "%d"' % view.version)
