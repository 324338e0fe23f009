"""What several operations share: answers now or later, ids of jobs, entity tags."""

from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from jobqueue.engine.api import MaybeFuture
from jobqueue.errors import JobNotFound
from jobqueue.model import Job
from jobqueue.web.context import Context
from jobqueue.web.http import Deferred, Request, Response
from jobqueue.web.schema import requests
from jobqueue.web.schema.kinds import kind_of

T = TypeVar("T")
_queue_name: Final = kind_of(requests.QueueName)
_TAGS: Final = tuple([b'\r\nETag: "%d"' % version for version in range(16)])  # most jobs get no further


def reply(
    context: Context, result: MaybeFuture[T], answer: Callable[[Context, T], Response]
) -> Response | Deferred:
    """Returns the answer to `result`: now if the engine has answered, else a `Deferred`."""
    return (
        Deferred(result, partial(answer, context), reads=answer is not job_reply)
        if isinstance(result, Future)
        else answer(context, result)
    )


def job_reply(context: Context, job: Job) -> Response:
    return Response(200, context.encoder.job(job), etag(job))


def etag(job: Job) -> bytes:
    """Returns the ETag header of a job, for `If-Match`."""
    version = job.version
    return _TAGS[version] if version < len(_TAGS) else b'\r\nETag: "%d"' % version


def if_match(request: Request) -> int | None:
    """Returns the version in `If-Match`; None: any version."""
    sent = request.header(b"if-match")
    if sent is None or sent.strip() == "*":
        return None
    version = sent.strip().removeprefix("W/").strip('"')
    return int(version) if version.isascii() and version.isdigit() and len(version) < 16 else -1


def job_id(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise JobNotFound(f"{text[:40]!r} is not the id of a job: ids are whole numbers")
    if len(text) > 16:
        raise JobNotFound(f"{text[:40]!r} is not the id of a job: ids have at most 16 digits")
    return int(text)


def queue_of_path(request: Request) -> str:
    """Returns the `{name}` of the path. Raises `InvalidField` if no queue can have it."""
    name: str = _queue_name.check(request.param, "name")
    return name


def with_queue_of_path(request: Request) -> str:
    """Returns the query with the queue of the path added as an option.

    If the request names a queue elsewhere too, it must be the same.
    """
    return f"queue={queue_of_path(request)}&{request.query}"
