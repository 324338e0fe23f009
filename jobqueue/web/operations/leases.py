"""The calls of consumers: dequeue, conclude, heartbeat, release and fail, for one job and for many."""

from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jobqueue.engine.api import MaybeFuture
from jobqueue.errors import BadInput, JobQueueError
from jobqueue.model import Delivery, DequeueRequest, Job
from jobqueue.web.context import Context
from jobqueue.web.futures import then
from jobqueue.web.http import JSON, Deferred, Request, Response
from jobqueue.web.operations.replies import etag, job_id, job_reply, reply, with_queue_of_path
from jobqueue.web.readers.consume import Following
from jobqueue.web.schema.responses import JobView, PlainView
from jobqueue.web.writers import raw
from jobqueue.web.writers.problems import problem_object


def dequeue(context: Context, request: Request) -> Response | Deferred:
    want, wait, is_raw = context.consume.dequeue(request)
    return _handing(context, want, context.engine.dequeue(want, wait), wait, is_raw)


def dequeue_from(context: Context, request: Request) -> Response | Deferred:
    request.query = with_queue_of_path(request)
    return dequeue(context, request)


def _handing(
    context: Context, want: DequeueRequest, result: MaybeFuture[list[Delivery]], wait: int, is_raw: bool
) -> Response | Deferred:
    answer = _raw_delivery if is_raw else _handed if want.count is None else _many_handed
    if isinstance(result, Future):
        return Deferred(result, partial(answer, context, want), wait > 0)
    return answer(context, want, result)


def _handed(context: Context, want: DequeueRequest, handed: list[Delivery]) -> Response:
    if not handed:
        return _nothing(context, want)
    tag = etag(handed[0][0])
    return Response(
        200, context.encoder.handed(handed[0]), tag, JSON, partial(context.engine.give_back, handed)
    )


def _many_handed(context: Context, want: DequeueRequest, handed: list[Delivery]) -> Response:
    if not handed:
        return _nothing(context, want)
    return Response(
        200, context.encoder.many_handed(handed), b"", JSON, partial(context.engine.give_back, handed)
    )


def _raw_delivery(context: Context, want: DequeueRequest, deliveries: list[Delivery]) -> Response:
    """Returns the payload as the body, and the other fields of the job as headers."""
    if not deliveries:
        return _nothing(context, want)
    job, lease = deliveries[0]
    headers = raw.delivery_headers(deliveries[0], context.engine.wall(lease.expires))
    return Response(
        200,
        job.payload,
        headers,
        raw.content_type(job) or JSON,
        partial(context.engine.give_back, deliveries),
    )


def _nothing(context: Context, want: DequeueRequest) -> Response:
    """Returns the answer to a dequeue that gets no job. A header says why."""
    state = context.engine.state(want.queues)
    return Response(204, b"", b"\r\nQueue-State: " + state.encode("ascii"))


def conclude(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    lease, consumer, result, following = context.consume.conclude(request)
    for name in (following.queues or ()) if following is not None else ():
        context.check_queue(name)  # before anything is done
    concluded = context.engine.conclude(id, lease, consumer, result)
    return (
        reply(context, concluded, job_reply) if following is None else _go_on(context, concluded, following)
    )


def _go_on(context: Context, concluded: MaybeFuture[Job], following: Following) -> Response | Deferred:
    """Dequeues after a conclude. The conclude stands, whatever the dequeue returns."""
    want = DequeueRequest(following.queues or (), following.lease_for, None, following.consumer)

    def take(job: Job) -> MaybeFuture[list[Delivery]]:
        want.queues = want.queues or (job.queue,)
        return context.engine.dequeue(want, following.wait)

    return _handing(context, want, then(concluded, take), following.wait, following.raw)


def heartbeat(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    (_, lease, consumer), lease_for, progress, message = context.consume.heartbeat(request)
    return reply(
        context, context.engine.heartbeat(id, lease, consumer, lease_for, progress, message), _beaten
    )


def _beaten(context: Context, job: Job) -> Response:
    return Response(200, context.encoder.beat(job), etag(job))


def release(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    (_, lease, consumer), delay = context.consume.release(request)
    return reply(context, context.engine.release(id, lease, consumer, delay), job_reply)


def fail(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    (_, lease, consumer), error, retry, retry_in = context.consume.fail(request)
    return reply(context, context.engine.fail(id, lease, consumer, error, retry, retry_in), job_reply)


def conclude_many(context: Context, request: Request) -> Response | Deferred:
    return _each(
        context,
        request,
        context.consume.conclude_many(request),
        context.engine.conclude,
        context.encoder.shown,
    )


def heartbeat_many(context: Context, request: Request) -> Response | Deferred:
    return _each(
        context,
        request,
        context.consume.heartbeat_many(request),
        context.engine.heartbeat,
        context.encoder.beaten,
    )


def release_many(context: Context, request: Request) -> Response | Deferred:
    return _each(
        context, request, context.consume.release_many(request), context.engine.release, context.encoder.view
    )


def fail_many(context: Context, request: Request) -> Response | Deferred:
    return _each(
        context, request, context.consume.fail_many(request), context.engine.fail, context.encoder.view
    )


def _each(
    context: Context,
    request: Request,
    asked: Sequence[Any],
    verb: Callable[..., Any],
    view: Callable[[Job], JobView | PlainView],
) -> Response | Deferred:
    """Calls `verb` for each item, and returns the results in the order of the request.

    An item is a lease claim and further arguments of the verb, or the error that its reader found.
    """
    good = [item for item in asked if not isinstance(item, BadInput)]
    calls = [partial(verb, held.id, held.lease, held.consumer, *rest) for held, *rest in good]

    def answer(context: Context, results: list[Job | JobQueueError]) -> Response:
        answers = iter(results)
        shown: list[dict[str, object]] = []
        for index, item in enumerate(asked):
            result = item if isinstance(item, BadInput) else next(answers)
            known: dict[str, object] = {"index": index} if item is result else {"id": item[0].id}
            if isinstance(result, JobQueueError):
                shown.append({**known, "error": problem_object(result, request.id)})
            else:
                shown.append({**known, "job": view(result)})
        return Response(200, context.encoder.each(shown))

    return reply(context, context.engine.each(calls), answer)
