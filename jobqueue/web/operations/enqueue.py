"""The calls that enqueue jobs: one or many, under an `Idempotency-Key`, with a wait for the outcome."""

from asyncio import Future
from functools import partial

from jobqueue.errors import BadInput, InvalidField, JobQueueError
from jobqueue.model import ExistingJob, IdempotencyKey, Job, NewJob, PriorAnswer
from jobqueue.web.context import Context
from jobqueue.web.http import Deferred, Request, Response
from jobqueue.web.operations import request_reply
from jobqueue.web.operations.idempotency import look_up
from jobqueue.web.operations.replies import etag, reply, with_queue_of_path
from jobqueue.web.readers.produce import Many
from jobqueue.web.writers import encoder
from jobqueue.web.writers.problems import problem_object


def enqueue(context: Context, request: Request) -> Response | Deferred:
    if b"prefer" in request.headers and (wait := request_reply.preferred_wait(context, request)) is not None:
        answer = request_reply.enqueue_and_wait(context, request, wait)
        if answer is not None:
            return answer
    key = request.headers.get(b"idempotency-key")
    if key is not None:
        return _enqueue_once(context, request, key)
    return _enqueue(context, request)


def enqueue_to(context: Context, request: Request) -> Response | Deferred:
    request.query = with_queue_of_path(request)
    return enqueue(context, request)


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
        return reply(context, context.engine.enqueue_many(good), _created_many)
    return reply(context, context.engine.enqueue_each(good), partial(_created_each, new.jobs, request.id))


def _enqueue_once(context: Context, request: Request, sent: bytes) -> Response | Deferred:
    """Enqueues under an `Idempotency-Key`. A repeated request is answered with what the first one made."""
    key, digest, known = look_up(context, request, sent)
    if known is not None:
        return reply(context, context.engine.after_commit(known), _created_before)
    new = context.produce.enqueue(request, context.engine.wall_now)
    if isinstance(new, Many) and not new.atomic:
        raise InvalidField("an Idempotency-Key is for one job, or for all or nothing", field="atomic")
    news = [job for job in new.jobs if isinstance(job, NewJob)] if isinstance(new, Many) else [new]
    once = IdempotencyKey("", key, digest, isinstance(new, Many))
    return reply(
        context, context.engine.enqueue_many(news, once), _created_many if once.many else _created_one
    )


def _created_before(context: Context, known: PriorAnswer) -> Response:
    views = [context.encoder.made(ExistingJob(job) if isinstance(job, Job) else job) for job in known.made]
    if known.many:
        return Response(200, encoder.document({"jobs": views}))
    job = known.made[0]
    return Response(200, encoder.document_of(views[0]), etag(job) if isinstance(job, Job) else b"")


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
    """Returns the result of each item in the order of the request: the job, or why it was refused."""
    answers = iter(made)
    results: list[dict[str, object]] = []
    for index, job in enumerate(asked):
        answer = job if isinstance(job, BadInput) else next(answers)
        if isinstance(answer, JobQueueError):
            results.append({"index": index, "error": problem_object(answer, id)})
        else:
            results.append({"job": context.encoder.made(answer)})
    return Response(200, context.encoder.each(results))
