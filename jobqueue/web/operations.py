"""The calls of the API: each parses, asks the engine once, and renders.

An operation takes the `Api` it belongs to and a `Request`, and answers a `Response`, or `Deferred`. Expected
failures are raised as `jobqueue.errors`; `Api` turns them into answers.
"""

from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

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
from jobqueue.web.futures import then
from jobqueue.web.http import JSON, Deferred, Request, Response
from jobqueue.web.idempotency import look_up
from jobqueue.web.readers.consume import Following
from jobqueue.web.readers.fields import queue_name
from jobqueue.web.readers.produce import Many
from jobqueue.web.schema.responses import JobView, PlainView
from jobqueue.web.writers import encoder, raw
from jobqueue.web.writers.problems import part

if TYPE_CHECKING:
    from jobqueue.web.api import Api

T = TypeVar("T")
_TAGS = tuple([b'\r\nETag: "%d"' % version for version in range(16)])  # most jobs get no further


def _reply(api: "Api", result: MaybeFuture[T], answer: "Callable[[Api, T], Response]") -> Response | Deferred:
    """At once if the engine has answered, else later."""
    return Deferred(result, partial(answer, api)) if isinstance(result, Future) else answer(api, result)


def job_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise JobNotFound(f"{text[:40]!r} is not the id of a job: ids are whole numbers")
    return int(text)


def enqueue(api: "Api", request: Request) -> Response | Deferred:
    if b"prefer" in request.headers and (wait := prefer.preferred_wait(api, request)) is not None:
        answer = prefer.enqueue_and_wait(api, request, wait)
        if answer is not None:
            return answer
    key = request.headers.get(b"idempotency-key")
    if key is not None:
        return _enqueue_once(api, request, key)
    return _enqueue(api, request)


def _enqueue(api: "Api", request: Request) -> Response | Deferred:
    new = api.schema.enqueue(request, api.engine.wall_now)
    if not isinstance(new, Many):
        made = api.engine.enqueue(new)
        return Deferred(made, partial(_created, api)) if isinstance(made, Future) else _created(api, made)
    good = [job for job in new.jobs if isinstance(job, NewJob)]
    if new.atomic:
        return _reply(api, api.engine.enqueue_many(good), _created_many)
    return _reply(api, api.engine.enqueue_each(good), partial(_created_each, new.jobs, request.id))


def _enqueue_once(api: "Api", request: Request, sent: bytes) -> Response | Deferred:
    """Under an `Idempotency-Key`: the same request again is answered with what it made, and makes nothing."""
    key, digest, known = look_up(api, request, sent)
    if known is not None:
        return _reply(api, api.engine.after_commit(known), _created_before)
    new = api.schema.enqueue(request, api.engine.wall_now)
    if isinstance(new, Many) and not new.atomic:
        raise InvalidField("an Idempotency-Key is for one job, or for all or nothing", field="atomic")
    news = [job for job in new.jobs if isinstance(job, NewJob)] if isinstance(new, Many) else [new]
    once = IdempotencyKey("", key, digest, isinstance(new, Many))
    return _reply(api, api.engine.enqueue_many(news, once), _created_many if once.many else _created_one)


def _created_before(api: "Api", known: PriorAnswer) -> Response:
    views = [api.renderer.made(ExistingJob(job) if isinstance(job, Job) else job) for job in known.made]
    if known.many:
        return Response(200, encoder.document({"jobs": views}))
    job = known.made[0]
    return Response(200, encoder.document_of(views[0]), _tag(job) if isinstance(job, Job) else b"")


def _created_one(api: "Api", made: list[Job | ExistingJob]) -> Response:
    return _created(api, made[0])


def _created(api: "Api", made: Job | ExistingJob) -> Response:
    job, status = (made, 201) if isinstance(made, Job) else (made.job, 200)
    headers = b'\r\nLocation: /jobs/%d\r\nETag: "%d"' % (job.id, job.version)
    return Response(status, api.renderer.new_job(made), headers)


def _created_many(api: "Api", made: list[Job | ExistingJob]) -> Response:
    status = 201 if any(isinstance(one, Job) for one in made) else 200
    return Response(status, api.renderer.new_jobs(made))


def _created_each(
    asked: list[NewJob | BadInput], id: str, api: "Api", made: list[Job | ExistingJob | JobQueueError]
) -> Response:
    """In the order of the request: what could not be read, and what became of the others."""
    answers = iter(made)
    results: list[dict[str, object]] = []
    for index, job in enumerate(asked):
        answer = job if isinstance(job, BadInput) else next(answers)
        if isinstance(answer, JobQueueError):
            results.append({"index": index, "error": part(answer, id)})
        else:
            results.append({"job": api.renderer.made(answer)})
    return Response(200, api.renderer.each(results))


def enqueue_to(api: "Api", request: Request) -> Response | Deferred:
    request.query = _with_queue(request)
    return enqueue(api, request)


def dequeue_from(api: "Api", request: Request) -> Response | Deferred:
    request.query = _with_queue(request)
    return dequeue(api, request)


def _with_queue(request: Request) -> str:
    """The queue of the path is an option like any other: said elsewhere too, it must be the same."""
    return f"queue={queue_name(request.param, 'name')}&{request.query}"


def dequeue(api: "Api", request: Request) -> Response | Deferred:
    want, wait, is_raw = api.schema.dequeue(request)
    return _handing(api, want, api.engine.dequeue(want, wait), wait, is_raw)


def _handing(
    api: "Api", want: DequeueRequest, result: MaybeFuture[list[Delivery]], wait: int, is_raw: bool
) -> Response | Deferred:
    answer = raw.handed if is_raw else _handed if want.count is None else _many_handed
    if isinstance(result, Future):
        return Deferred(result, partial(answer, api, want), wait > 0)
    return answer(api, want, result)


def _handed(api: "Api", want: DequeueRequest, handed: list[Delivery]) -> Response:
    if not handed:
        return raw.nothing(api, want)
    tag = _tag(handed[0][0])
    return Response(200, api.renderer.handed(handed[0]), tag, JSON, partial(api.engine.give_back, handed))


def _many_handed(api: "Api", want: DequeueRequest, handed: list[Delivery]) -> Response:
    if not handed:
        return raw.nothing(api, want)
    return Response(200, api.renderer.many_handed(handed), b"", JSON, partial(api.engine.give_back, handed))


def conclude(api: "Api", request: Request) -> Response | Deferred:
    id = job_id(request.param)
    lease, consumer, result, following = api.schema.conclude(request)
    if following is not None and following.queues is not None:
        api.engine.state(
            following.queues
        )  # raises where the caller may not use them, before anything is done
    concluded = api.engine.conclude(id, lease, consumer, result)
    return _reply(api, concluded, _job) if following is None else _go_on(api, concluded, following)


def _go_on(api: "Api", concluded: MaybeFuture[Job], following: Following) -> Response | Deferred:
    """The conclusion stands, whatever becomes of the dequeue after it."""
    want = DequeueRequest(following.queues or (), following.lease_for, None, following.consumer)

    def take(job: Job) -> MaybeFuture[list[Delivery]]:
        want.queues = want.queues or (job.queue,)
        return api.engine.dequeue(want, following.wait)

    return _handing(api, want, then(concluded, take), following.wait, following.raw)


def _job(api: "Api", job: Job) -> Response:
    return Response(200, api.renderer.job(job), _tag(job))


def _tag(job: Job) -> bytes:
    """What `If-Match` takes."""
    version = job.version
    return _TAGS[version] if version < len(_TAGS) else b'\r\nETag: "%d"' % version


def heartbeat(api: "Api", request: Request) -> Response | Deferred:
    id = job_id(request.param)
    (_, lease, consumer), lease_for, progress, message = api.schema.heartbeat(request)
    return _reply(api, api.engine.heartbeat(id, lease, consumer, lease_for, progress, message), _beaten)


def _beaten(api: "Api", job: Job) -> Response:
    return Response(200, api.renderer.beat(job), _tag(job))


def release(api: "Api", request: Request) -> Response | Deferred:
    id = job_id(request.param)
    (_, lease, consumer), delay = api.schema.release(request)
    return _reply(api, api.engine.release(id, lease, consumer, delay), _job)


def fail(api: "Api", request: Request) -> Response | Deferred:
    id = job_id(request.param)
    (_, lease, consumer), error, retry, retry_in = api.schema.fail(request)
    return _reply(api, api.engine.fail(id, lease, consumer, error, retry, retry_in), _job)


# -- many at once -----------------------------------------------------------------------------------


def conclude_many(api: "Api", request: Request) -> Response | Deferred:
    return _each(api, request, api.schema.conclude_many(request), api.engine.conclude, api.renderer.shown)


def heartbeat_many(api: "Api", request: Request) -> Response | Deferred:
    return _each(api, request, api.schema.heartbeat_many(request), api.engine.heartbeat, api.renderer.beaten)


def release_many(api: "Api", request: Request) -> Response | Deferred:
    return _each(api, request, api.schema.release_many(request), api.engine.release, api.renderer.view)


def fail_many(api: "Api", request: Request) -> Response | Deferred:
    return _each(api, request, api.schema.fail_many(request), api.engine.fail, api.renderer.view)


def _each(
    api: "Api",
    request: Request,
    asked: Sequence[Any],
    verb: Callable[..., Any],
    view: Callable[[Job], JobView | PlainView],
) -> Response | Deferred:
    """`asked`: for each, who holds it and what else the verb takes; or what was wrong with it."""
    good = [item for item in asked if not isinstance(item, BadInput)]
    calls = [partial(verb, held.id, held.lease, held.consumer, *rest) for held, *rest in good]

    def answer(api: "Api", results: list[Job | JobQueueError]) -> Response:
        answers = iter(results)
        shown: list[dict[str, object]] = []
        for index, item in enumerate(asked):
            result = item if isinstance(item, BadInput) else next(answers)
            known: dict[str, object] = {"index": index} if item is result else {"id": item[0].id}
            if isinstance(result, JobQueueError):
                shown.append({**known, "error": part(result, request.id)})
            else:
                shown.append({**known, "job": view(result)})
        return Response(200, api.renderer.each(shown))

    return _reply(api, api.engine.each(calls), answer)


# -- from outside -----------------------------------------------------------------------------------


def get_job(api: "Api", request: Request) -> Response | Deferred:
    id = job_id(request.param)
    return _reply(api, api.engine.wait_for(id, api.schema.wait(request)), _whole_job)


def _whole_job(api: "Api", job: Job) -> Response:
    return Response(200, api.renderer.whole_job(job), _tag(job))


def explain_job(api: "Api", request: Request) -> Response:
    return explain.explained(api, request, api.engine.explain(job_id(request.param)))


def cancel_job(api: "Api", request: Request) -> Response | Deferred:
    """202 where the job is in progress: its consumer is asked."""
    id = job_id(request.param)
    return _reply(api, api.engine.cancel(id, api.schema.force(request), _if_match(request)), _cancelled)


def _cancelled(api: "Api", job: Job) -> Response:
    status = 200 if job.status == CANCELLED else 202
    return Response(status, api.renderer.job(job), _tag(job))


def change_job(api: "Api", request: Request) -> Response | Deferred:
    id = job_id(request.param)
    change = api.schema.change(request, api.engine.wall_now())
    return _reply(api, api.engine.change(id, change, _if_match(request)), _job)


def redrive_job(api: "Api", request: Request) -> Response | Deferred:
    id = job_id(request.param)
    api.schema.nothing(request)
    return _reply(api, api.engine.redrive(id, _if_match(request)), _job)


def _if_match(request: Request) -> int | None:
    """The version that the caller has seen. `*` is any."""
    sent = request.header(b"if-match")
    if sent is None or sent.strip() == "*":
        return None
    version = sent.strip().removeprefix("W/").strip('"')
    return int(version) if version.isascii() and version.isdigit() and len(version) < 16 else -1


# -- many jobs --------------------------------------------------------------------------------------


def list_jobs(api: "Api", request: Request) -> Response:
    wanted, after, rising, most, payload = api.schema.list_jobs(request)
    jobs, following = api.engine.list_jobs(wanted, after, rising, most)
    return Response(200, api.renderer.listed(jobs, payload, following))


def count_jobs(api: "Api", request: Request) -> Response | Deferred:
    return _reply(api, api.engine.count_jobs(api.schema.count_jobs(request)), _counted)


def _counted(api: "Api", count: int) -> Response:
    return Response(200, encoder.document({"count": count}))


def purge(api: "Api", request: Request) -> Response | Deferred:
    wanted, dry_run = api.schema.purge(request, queue_name(request.param, "name"))
    return _reply(api, api.engine.purge(wanted, dry_run), _swept)


def redrive_many(api: "Api", request: Request) -> Response | Deferred:
    wanted, limit, dry_run = api.schema.redrive(request, queue_name(request.param, "name"))
    return _reply(api, api.engine.redrive_many(wanted, limit, dry_run), _swept)


def _swept(api: "Api", swept: BulkResult) -> Response:
    return Response(200, encoder.document(swept._asdict()))


# -- queues -----------------------------------------------------------------------------------------


def list_queues(api: "Api", request: Request) -> Response:
    limit, cursor = api.schema.queues(request)
    views = api.engine.queues(limit + 1, cursor)
    return Response(200, encoder.queues(views[:limit], views[limit - 1].name if len(views) > limit else None))


def get_queue(api: "Api", request: Request) -> Response:
    name = queue_name(request.param, "name")
    api.schema.queue(request)
    return _queue(api, api.engine.queue(name))


def peek(api: "Api", request: Request) -> Response:
    name = queue_name(request.param, "name")
    most, payload = api.schema.peek(request)
    return Response(200, api.renderer.listed(api.engine.peek(name, most), payload, None))


def change_queue(api: "Api", request: Request) -> Response | Deferred:
    name = queue_name(request.param, "name")
    given = api.schema.queue_settings(request)
    return _reply(api, api.engine.configure(name, given, _if_match(request)), _queue)


def pause_queue(api: "Api", request: Request) -> Response | Deferred:
    name = queue_name(request.param, "name")
    length, reason = api.schema.pause(request)
    return _reply(api, api.engine.pause(name, length, reason, _if_match(request)), _queue)


def resume_queue(api: "Api", request: Request) -> Response | Deferred:
    name = queue_name(request.param, "name")
    api.schema.nothing(request)
    return _reply(api, api.engine.resume(name, _if_match(request)), _queue)


def _queue(api: "Api", view: QueueView) -> Response:
    return Response(200, encoder.queue(view), b'\r\nETag: "%d"' % view.version)
