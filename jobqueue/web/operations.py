"""The calls of the API: each reads its request, calls the engine once, and renders the answer.

An operation takes the `Context` of its caller and a `Request`, and returns a `Response` or a `Deferred`.
Expected failures are raised as `jobqueue.errors`; the dispatcher turns them into answers.
"""

from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from jobqueue.engine.api import MaybeFuture
from jobqueue.errors import BadInput, InvalidField, JobNotFound, JobQueueError
from jobqueue.model import (
    BulkResult,
    Delivery,
    DequeueRequest,
    ExistingJob,
    IdempotencyKey,
    Job,
    NewJob,
    PriorAnswer,
    QueueView,
)
from jobqueue.steps import CANCELLED
from jobqueue.web import explain, prefer
from jobqueue.web.context import Context
from jobqueue.web.futures import then
from jobqueue.web.http import JSON, Deferred, Request, Response
from jobqueue.web.idempotency import look_up
from jobqueue.web.readers.consume import Following
from jobqueue.web.readers.fields import queue_name
from jobqueue.web.readers.produce import Many
from jobqueue.web.schema.responses import JobView, PlainView
from jobqueue.web.writers import encoder, raw
from jobqueue.web.writers.problems import part

T = TypeVar("T")
_TAGS = tuple([b'\r\nETag: "%d"' % version for version in range(16)])  # most jobs get no further


def _reply(
    context: Context, result: MaybeFuture[T], answer: Callable[[Context, T], Response]
) -> Response | Deferred:
    """At once if the engine has answered, else later."""
    return (
        Deferred(result, partial(answer, context)) if isinstance(result, Future) else answer(context, result)
    )


def job_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise JobNotFound(f"{text[:40]!r} is not the id of a job: ids are whole numbers")
    return int(text)


def enqueue(context: Context, request: Request) -> Response | Deferred:
    if b"prefer" in request.headers and (wait := prefer.preferred_wait(context, request)) is not None:
        answer = prefer.enqueue_and_wait(context, request, wait)
        if answer is not None:
            return answer
    key = request.headers.get(b"idempotency-key")
    if key is not None:
        return _enqueue_once(context, request, key)
    return _enqueue(context, request)


def _enqueue(context: Context, request: Request) -> Response | Deferred:
    new = context.produce.enqueue(request, context.engine.wall_now)
    if not isinstance(new, Many):
        made = context.engine.enqueue(new)
        return (
            Deferred(made, partial(_created, context))
            if isinstance(made, Future)
            else _created(context, made)
        )
    good = [job for job in new.jobs if isinstance(job, NewJob)]
    if new.atomic:
        return _reply(context, context.engine.enqueue_many(good), _created_many)
    return _reply(context, context.engine.enqueue_each(good), partial(_created_each, new.jobs, request.id))


def _enqueue_once(context: Context, request: Request, sent: bytes) -> Response | Deferred:
    """Under an `Idempotency-Key`: the same request again is answered with what it made, and makes nothing."""
    key, digest, known = look_up(context, request, sent)
    if known is not None:
        return _reply(context, context.engine.after_commit(known), _created_before)
    new = context.produce.enqueue(request, context.engine.wall_now)
    if isinstance(new, Many) and not new.atomic:
        raise InvalidField("an Idempotency-Key is for one job, or for all or nothing", field="atomic")
    news = [job for job in new.jobs if isinstance(job, NewJob)] if isinstance(new, Many) else [new]
    once = IdempotencyKey("", key, digest, isinstance(new, Many))
    return _reply(
        context, context.engine.enqueue_many(news, once), _created_many if once.many else _created_one
    )


def _created_before(context: Context, known: PriorAnswer) -> Response:
    views = [context.encoder.made(ExistingJob(job) if isinstance(job, Job) else job) for job in known.made]
    if known.many:
        return Response(200, encoder.document({"jobs": views}))
    job = known.made[0]
    return Response(200, encoder.document_of(views[0]), _tag(job) if isinstance(job, Job) else b"")


def _created_one(context: Context, made: list[Job | ExistingJob]) -> Response:
    return _created(context, made[0])


def _created(context: Context, made: Job | ExistingJob) -> Response:
    job, status = (made, 201) if isinstance(made, Job) else (made.job, 200)
    headers = b'\r\nLocation: /jobs/%d\r\nETag: "%d"' % (job.id, job.version)
    return Response(status, context.encoder.new_job(made), headers)


def _created_many(context: Context, made: list[Job | ExistingJob]) -> Response:
    status = 201 if any(isinstance(one, Job) for one in made) else 200
    return Response(status, context.encoder.new_jobs(made))


def _created_each(
    asked: list[NewJob | BadInput], id: str, context: Context, made: list[Job | ExistingJob | JobQueueError]
) -> Response:
    """In the order of the request: what could not be read, and what became of the others."""
    answers = iter(made)
    results: list[dict[str, object]] = []
    for index, job in enumerate(asked):
        answer = job if isinstance(job, BadInput) else next(answers)
        if isinstance(answer, JobQueueError):
            results.append({"index": index, "error": part(answer, id)})
        else:
            results.append({"job": context.encoder.made(answer)})
    return Response(200, context.encoder.each(results))


def enqueue_to(context: Context, request: Request) -> Response | Deferred:
    request.query = _with_queue(request)
    return enqueue(context, request)


def dequeue_from(context: Context, request: Request) -> Response | Deferred:
    request.query = _with_queue(request)
    return dequeue(context, request)


def _with_queue(request: Request) -> str:
    """The queue of the path is an option like any other: said elsewhere too, it must be the same."""
    return f"queue={queue_name(request.param, 'name')}&{request.query}"


def dequeue(context: Context, request: Request) -> Response | Deferred:
    want, wait, is_raw = context.consume.dequeue(request)
    return _handing(context, want, context.engine.dequeue(want, wait), wait, is_raw)


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
    tag = _tag(handed[0][0])
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
    return _reply(context, concluded, _job) if following is None else _go_on(context, concluded, following)


def _go_on(context: Context, concluded: MaybeFuture[Job], following: Following) -> Response | Deferred:
    """The conclusion stands, whatever becomes of the dequeue after it."""
    want = DequeueRequest(following.queues or (), following.lease_for, None, following.consumer)

    def take(job: Job) -> MaybeFuture[list[Delivery]]:
        want.queues = want.queues or (job.queue,)
        return context.engine.dequeue(want, following.wait)

    return _handing(context, want, then(concluded, take), following.wait, following.raw)


def _job(context: Context, job: Job) -> Response:
    return Response(200, context.encoder.job(job), _tag(job))


def _tag(job: Job) -> bytes:
    """What `If-Match` takes."""
    version = job.version
    return _TAGS[version] if version < len(_TAGS) else b'\r\nETag: "%d"' % version


def heartbeat(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    (_, lease, consumer), lease_for, progress, message = context.consume.heartbeat(request)
    return _reply(
        context, context.engine.heartbeat(id, lease, consumer, lease_for, progress, message), _beaten
    )


def _beaten(context: Context, job: Job) -> Response:
    return Response(200, context.encoder.beat(job), _tag(job))


def release(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    (_, lease, consumer), delay = context.consume.release(request)
    return _reply(context, context.engine.release(id, lease, consumer, delay), _job)


def fail(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    (_, lease, consumer), error, retry, retry_in = context.consume.fail(request)
    return _reply(context, context.engine.fail(id, lease, consumer, error, retry, retry_in), _job)


# -- many at once -----------------------------------------------------------------------------------


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
    """`asked`: for each, who holds it and what else the verb takes; or what was wrong with it."""
    good = [item for item in asked if not isinstance(item, BadInput)]
    calls = [partial(verb, held.id, held.lease, held.consumer, *rest) for held, *rest in good]

    def answer(context: Context, results: list[Job | JobQueueError]) -> Response:
        answers = iter(results)
        shown: list[dict[str, object]] = []
        for index, item in enumerate(asked):
            result = item if isinstance(item, BadInput) else next(answers)
            known: dict[str, object] = {"index": index} if item is result else {"id": item[0].id}
            if isinstance(result, JobQueueError):
                shown.append({**known, "error": part(result, request.id)})
            else:
                shown.append({**known, "job": view(result)})
        return Response(200, context.encoder.each(shown))

    return _reply(context, context.engine.each(calls), answer)


# -- from outside -----------------------------------------------------------------------------------


def get_job(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    return _reply(context, context.engine.wait_for(id, context.admin.wait(request)), _whole_job)


def _whole_job(context: Context, job: Job) -> Response:
    return Response(200, context.encoder.whole_job(job), _tag(job))


def explain_job(context: Context, request: Request) -> Response:
    return explain.explained(context, request, context.engine.explain(job_id(request.param)))


def cancel_job(context: Context, request: Request) -> Response | Deferred:
    """202 where the job is in progress: its consumer is asked."""
    id = job_id(request.param)
    return _reply(
        context, context.engine.cancel(id, context.admin.force(request), _if_match(request)), _cancelled
    )


def _cancelled(context: Context, job: Job) -> Response:
    status = 200 if job.status == CANCELLED else 202
    return Response(status, context.encoder.job(job), _tag(job))


def change_job(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    change = context.produce.change(request, context.engine.wall_now())
    return _reply(context, context.engine.change(id, change, _if_match(request)), _job)


def redrive_job(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    context.admin.nothing(request)
    return _reply(context, context.engine.redrive(id, _if_match(request)), _job)


def _if_match(request: Request) -> int | None:
    """The version that the caller has seen. `*` is any."""
    sent = request.header(b"if-match")
    if sent is None or sent.strip() == "*":
        return None
    version = sent.strip().removeprefix("W/").strip('"')
    return int(version) if version.isascii() and version.isdigit() and len(version) < 16 else -1


# -- many jobs --------------------------------------------------------------------------------------


def list_jobs(context: Context, request: Request) -> Response:
    wanted, after, rising, most, payload = context.admin.list_jobs(request)
    jobs, following = context.engine.list_jobs(wanted, after, rising, most)
    return Response(200, context.encoder.listed(jobs, payload, following))


def count_jobs(context: Context, request: Request) -> Response | Deferred:
    return _reply(context, context.engine.count_jobs(context.admin.count_jobs(request)), _counted)


def _counted(context: Context, count: int) -> Response:
    return Response(200, encoder.document({"count": count}))


def purge(context: Context, request: Request) -> Response | Deferred:
    wanted, dry_run = context.admin.purge(request, queue_name(request.param, "name"))
    return _reply(context, context.engine.purge(wanted, dry_run), _swept)


def redrive_many(context: Context, request: Request) -> Response | Deferred:
    wanted, limit, dry_run = context.admin.redrive(request, queue_name(request.param, "name"))
    return _reply(context, context.engine.redrive_many(wanted, limit, dry_run), _swept)


def _swept(context: Context, swept: BulkResult) -> Response:
    return Response(200, encoder.document(swept._asdict()))


# -- queues -----------------------------------------------------------------------------------------


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
    return _reply(context, context.engine.configure(name, given, _if_match(request)), _queue)


def pause_queue(context: Context, request: Request) -> Response | Deferred:
    name = queue_name(request.param, "name")
    length, reason = context.admin.pause(request)
    return _reply(context, context.engine.pause(name, length, reason, _if_match(request)), _queue)


def resume_queue(context: Context, request: Request) -> Response | Deferred:
    name = queue_name(request.param, "name")
    context.admin.nothing(request)
    return _reply(context, context.engine.resume(name, _if_match(request)), _queue)


def _queue(context: Context, view: QueueView) -> Response:
    return Response(200, encoder.queue(view), b'\r\nETag: "%d"' % view.version)
