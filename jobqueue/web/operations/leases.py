"""The calls of consumers: dequeue, conclude, heartbeat, release and fail, for one job and for many."""

from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jobqueue.engine.api import MaybeFuture
from jobqueue.errors import JobQueueError
from jobqueue.model import Delivery, DequeueRequest, Job
from jobqueue.web.context import Context
from jobqueue.web.futures import then
from jobqueue.web.http import JSON, Deferred, Request, Response
from jobqueue.web.operations.replies import etag, job_id, job_reply, reply, with_queue_of_path
from jobqueue.web.readers.consume import Following, Report
from jobqueue.web.schema.responses import Result
from jobqueue.web.writers import encoder, raw
from jobqueue.web.writers.answer_size import AnswerSize
from jobqueue.web.writers.problems import problem_of


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
        return Deferred(result, partial(answer, context, want), wait > 0, reads=False)
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
    return _no_job(context.engine.state(want.queues))


def _no_job(state: str) -> Response:
    return Response(204, b"", b"\r\nQueue-State: " + state.encode("ascii"))


def dequeue_job(context: Context, request: Request) -> Response | Deferred:
    """Takes the job of the path. The answer is 204 if it has to wait, and a header says for what."""
    want, is_raw = context.consume.dequeue_job(request)
    id = job_id(request.param)
    handed = context.engine.dequeue_job(id, want)
    if not isinstance(handed, Future) and not handed:
        state = context.engine.state((context.engine.get(id).queue,))
        held_back = state if state in ("paused", "stopping") else "limited"
        return _no_job(held_back)
    return _handing(context, want, handed, 0, is_raw)


def conclude(context: Context, request: Request) -> Response | Deferred:
    claim, result, truncated, following = context.consume.conclude(request, job_id(request.param))
    for name in (following.queues or ()) if following is not None else ():
        context.check_queue(name)  # before anything is done
    concluded = context.engine.conclude(claim, result)
    if following is not None:
        return _go_on(context, concluded, following, claim.consumer)
    return reply(context, concluded, job_reply if not truncated else _cut_reply(truncated))


def _cut_reply(truncated: tuple[str, ...]) -> Callable[[Context, Job], Response]:
    """Returns what answers with a job and with the names of the fields that were cut."""

    def answer(context: Context, job: Job) -> Response:
        view = context.encoder.view(job)
        view.truncated = truncated
        return Response(200, context.encoder.encode(view), etag(job))

    return answer


def _go_on(
    context: Context, concluded: MaybeFuture[Job], following: Following, consumer: str | None
) -> Response | Deferred:
    """Dequeues after a conclude. The conclude stands, whatever the dequeue returns."""
    queues, lease_for = following.queues or (), following.lease_for
    want = DequeueRequest(queues, lease_for, None, consumer, "", following.by_priority)

    def take(job: Job) -> MaybeFuture[list[Delivery]]:
        want.queues = want.queues or (job.queue,)
        return context.engine.dequeue(want, following.wait)

    return _handing(context, want, then(concluded, take), following.wait, following.raw)


def heartbeat(context: Context, request: Request) -> Response | Deferred:
    report = context.consume.heartbeat(request, job_id(request.param))
    return reply(context, context.engine.heartbeat(*report.arguments), partial(_beaten, report.truncated))


def _beaten(truncated: tuple[str, ...], context: Context, job: Job) -> Response:
    view = context.encoder.beaten(job)
    if truncated:
        view.truncated = truncated
    return Response(200, context.encoder.encode(view), etag(job))


def release(context: Context, request: Request) -> Response | Deferred:
    report = context.consume.release(request, job_id(request.param))
    return reply(context, context.engine.release(*report.arguments), job_reply)


def fail(context: Context, request: Request) -> Response | Deferred:
    report = context.consume.fail(request, job_id(request.param))
    answer = job_reply if not report.truncated else _cut_reply(report.truncated)
    return reply(context, context.engine.fail(*report.arguments), answer)


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
    asked: Sequence[Report | JobQueueError],
    verb: Callable[..., Any],
    view: Callable[[Job], Any],
) -> Response | Deferred:
    """Calls `verb` for each report, and returns the results in the order of the request.

    In place of a report may be the error that its reader found.
    """
    calls = [partial(verb, *report.arguments) for report in asked if isinstance(report, Report)]

    def answer(context: Context, results: list[Job | JobQueueError]) -> Response:
        answers = iter(results)
        shown: list[Result] = []
        size = AnswerSize()
        for index, item in enumerate(asked):
            if not isinstance(item, Report):
                shown.append(Result(index=index, error=problem_of(item, request.id)))
                continue
            result, one = next(answers), Result(id=item.id)
            if item.truncated:
                one.truncated = item.truncated
            if isinstance(result, JobQueueError):
                one.error = problem_of(result, request.id)
            else:
                one.job = view(size.fit(result))
            shown.append(one)
        return Response(200, encoder.each(shown))

    return reply(context, context.engine.each(calls), answer)
