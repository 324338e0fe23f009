"""Request and reply: `Prefer: wait=30` (RFC 7240) on an enqueue waits for the outcome of the job."""

import re
from asyncio import Future
from functools import partial
from typing import Any

from jobqueue.engine.api import MaybeFuture
from jobqueue.model import ExistingJob, IdempotencyKey, Job, PriorAnswer
from jobqueue.steps import FINISHED
from jobqueue.web.context import Context
from jobqueue.web.futures import then
from jobqueue.web.http import Deferred, Request, Response
from jobqueue.web.operations.idempotency import look_up
from jobqueue.web.readers.produce import Many
from jobqueue.web.schema import requests

_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?([^",;\s]*)"?', re.IGNORECASE)


def preferred_wait(context: Context, request: Request) -> int | None:
    """Returns the preferred wait in milliseconds, or None. Other preferences are ignored."""
    found = _WAIT.search(request.header(b"prefer") or "")
    if found is None:
        return None
    wait: int = context.readers.limits.kind(requests.Wait).check(found[1], "wait")
    return wait


def enqueue_and_wait(context: Context, request: Request, wait: int) -> "Response | Deferred | None":
    """Enqueues one job and waits for its outcome.

    The answer is 200 if the job finished within `wait` milliseconds, whatever its outcome, else 202. Returns
    None if the request is not for one job, so that there is nothing to wait for.
    """
    sent = request.headers.get(b"idempotency-key")
    once = None if sent is None else look_up(context, request, sent)
    made: Any  # one job, or the one that was there before; or a Future
    if once is not None and once.known is not None:
        job = once.known.made[0]
        if once.known.many or not isinstance(job, Job):
            return None
        made = context.engine.after_commit([ExistingJob(job)])
    else:
        new = context.produce.enqueue(request, context.engine.wall_now)
        if isinstance(new, Many):
            return None
        made = context.engine.enqueue_many(
            [new], IdempotencyKey("", once.key, once.digest, False) if once else None
        )
    request.body = b""  # the wait may be long, and the job has its payload
    duplicate = False

    def outcome(several: list[Job | ExistingJob] | PriorAnswer) -> MaybeFuture[Any]:
        nonlocal duplicate
        if isinstance(several, PriorAnswer):
            if several.many or not isinstance(known := several.made[0], Job):
                return several
            duplicate = True
            return context.engine.run(partial(context.engine.wait_for, known.id, wait))
        [made] = several
        duplicate = isinstance(made, ExistingJob)
        job = made.job if isinstance(made, ExistingJob) else made
        return context.engine.run(partial(context.engine.wait_for, job.id, wait))

    def answer(job: Job | PriorAnswer) -> Response:
        if isinstance(job, PriorAnswer):
            return Response(200, context.encoder.made_before(job))
        status = 200 if job.status in FINISHED else 202
        headers = b'\r\nLocation: /jobs/%d\r\nETag: "%d"\r\nPreference-Applied: wait=%d' % (
            job.id,
            job.version,
            -(-wait // 1000),
        )
        return Response(status, context.encoder.new_job(ExistingJob(job) if duplicate else job), headers)

    finished: Any = then(made, outcome)
    return Deferred(finished, answer) if isinstance(finished, Future) else answer(finished)
