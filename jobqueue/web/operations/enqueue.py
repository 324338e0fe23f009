"""The calls that enqueue jobs: one or many, under an `Idempotency-Key`, with a wait for the outcome."""

from asyncio import Future
from functools import partial
from typing import Any

from jobqueue.errors import InvalidField, JobQueueError
from jobqueue.model import ExistingJob, IdempotencyKey, Job, NewJob, PriorAnswer
from jobqueue.web.context import Context
from jobqueue.web.http import Deferred, Request, Response
from jobqueue.web.operations import request_reply
from jobqueue.web.operations.idempotency import look_up
from jobqueue.web.operations.replies import etag, reply, with_queue_of_path
from jobqueue.web.readers.produce import Many
from jobqueue.web.schema.responses import Result
from jobqueue.web.writers import encoder
from jobqueue.web.writers.answer_size import AnswerSize
from jobqueue.web.writers.problems import problem_of


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
            Deferred(made, partial(_created, context), reads=False)
            if isinstance(made, Future)
            else _created(context, made)
        )
    good = [job for job in new.jobs if isinstance(job, NewJob)]
    if new.atomic:
        several: Any = context.engine.enqueue_many(good)
        return reply(context, several, partial(_created_once, True))
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
    made: Any = context.engine.enqueue_many(news, once)
    return reply(context, made, partial(_created_once, once.many))


def _created_before(context: Context, known: PriorAnswer) -> Response:
    tag = etag(job) if not known.many and isinstance(job := known.made[0], Job) else b""
    size = AnswerSize()
    fitting = [size.fit(job) if isinstance(job, Job) else job for job in known.made]
    return Response(200, context.encoder.made_before(PriorAnswer(fitting, known.many)), tag)


def _created_once(many: bool, context: Context, made: list[Job | ExistingJob] | PriorAnswer) -> Response:
    if isinstance(made, PriorAnswer):
        return _created_before(context, made)
    return _created_many(context, made) if many else _created(context, made[0])


def _created(context: Context, made: Job | ExistingJob) -> Response:
    job, status = (made, 201) if isinstance(made, Job) else (made.job, 200)
    headers = b"\r\nLocation: /jobs/%d%b" % (job.id, etag(job))
    return Response(status, context.encoder.new_job(made), headers)


def _created_many(context: Context, made: list[Job | ExistingJob]) -> Response:
    status = 201 if any(isinstance(one, Job) for one in made) else 200
    return Response(status, context.encoder.new_jobs(_fitting(made)))


def _fitting(made: list[Job | ExistingJob]) -> list[Job | ExistingJob]:
    """Returns what is shown of the jobs in an answer for many. New ones are no longer than their request."""
    size = AnswerSize()
    return [ExistingJob(size.fit(one.job)) if isinstance(one, ExistingJob) else one for one in made]


def _created_each(
    asked: list[NewJob | JobQueueError],
    id: str,
    context: Context,
    made: list[Job | ExistingJob | JobQueueError],
) -> Response:
    """Returns the result of each item in the order of the request: the job, or why it was refused."""
    answers = iter(made)
    results: list[Result] = []
    size = AnswerSize()
    for index, job in enumerate(asked):
        answer = job if isinstance(job, JobQueueError) else next(answers)
        if isinstance(answer, JobQueueError):
            results.append(Result(index=index, error=problem_of(answer, id)))
        else:
            if isinstance(answer, ExistingJob):
                answer = ExistingJob(size.fit(answer.job))
            view: Any = context.encoder.made(answer)
            results.append(Result(job=view))
    return Response(200, encoder.each(results))
