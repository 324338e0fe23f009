"""The calls of the API: each parses, asks the engine once, and renders.

An operation takes the `Api` it belongs to and a `Request`, and answers a `Response`, or `Later`. Expected
failures are raised as `jobqueue.errors`; `Api` turns them into answers.
"""

import time
from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from jobqueue.engine.api import CANCELLED, Eventually, Handed, Job
from jobqueue.errors import JobNotFound, NotReady
from jobqueue.units import instant
from jobqueue.web import render
from jobqueue.web.fields import queue_name
from jobqueue.web.http import JSON, TEXT, Later, Request, Response
from jobqueue.web.pages import help_text

if TYPE_CHECKING:
    from jobqueue.web.api import Api

T = TypeVar("T")


def _reply(api: "Api", result: Eventually[T], answer: "Callable[[Api, T], Response]") -> Response | Later:
    """At once if the engine has answered, else later."""
    return Later(result, partial(answer, api)) if isinstance(result, Future) else answer(api, result)


def _job_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise JobNotFound(f"{text[:40]!r} is not the id of a job: ids are whole numbers")
    return int(text)


def enqueue(api: "Api", request: Request) -> Response | Later:
    new = api.schema.enqueue(request)
    if isinstance(new, list):
        return _reply(api, api.engine.enqueue_many(new), _created_many)
    return _reply(api, api.engine.enqueue(new), _created)


def _created(api: "Api", job: Job) -> Response:
    return Response(201, api.renderer.new_job(job), (("Location", f"/jobs/{job.id}"),))


def _created_many(api: "Api", jobs: list[Job]) -> Response:
    return Response(201, api.renderer.new_jobs(jobs))


def dequeue(api: "Api", request: Request) -> Response | Later:
    want, wait = api.schema.dequeue(request)
    return _reply(api, api.engine.dequeue(want, wait), _handed if want.count is None else _many_handed)


def _handed(api: "Api", handed: list[Handed]) -> Response:
    if not handed:
        return Response(204)
    return Response(200, api.renderer.handed(handed[0]), (), JSON, partial(api.engine.give_back, handed))


def _many_handed(api: "Api", handed: list[Handed]) -> Response:
    if not handed:
        return Response(204)
    return Response(200, api.renderer.many_handed(handed), (), JSON, partial(api.engine.give_back, handed))


def conclude(api: "Api", request: Request) -> Response | Later:
    id = _job_id(request.param)
    lease, consumer, result = api.schema.conclude(request)
    return _reply(api, api.engine.conclude(id, lease, consumer, result), _job)


def _job(api: "Api", job: Job) -> Response:
    return Response(200, api.renderer.job(job))


def heartbeat(api: "Api", request: Request) -> Response | Later:
    id = _job_id(request.param)
    lease, consumer, lease_for = api.schema.heartbeat(request)
    return _reply(api, api.engine.heartbeat(id, lease, consumer, lease_for), _beaten)


def _beaten(api: "Api", job: Job) -> Response:
    return Response(200, api.renderer.beat(job))


def get_job(api: "Api", request: Request) -> Response:
    id = _job_id(request.param)
    api.schema.nothing(request)
    return Response(200, api.renderer.job(api.engine.get(id), payload=True))


def cancel_job(api: "Api", request: Request) -> Response | Later:
    """202 where the job is in progress: its consumer is asked."""
    id = _job_id(request.param)
    api.schema.nothing(request)
    return _reply(api, api.engine.cancel(id), _cancelled)


def _cancelled(api: "Api", job: Job) -> Response:
    return Response(200 if job.status == CANCELLED else 202, api.renderer.job(job))


def list_queues(api: "Api", request: Request) -> Response:
    api.schema.nothing(request)
    return Response(200, render.queues(api.engine.queues()))


def get_queue(api: "Api", request: Request) -> Response:
    name = queue_name(request.param, "name")
    api.schema.nothing(request)
    return Response(200, render.queue(api.engine.queue(name)))


def stats(api: "Api", request: Request) -> Response:
    api.schema.nothing(request)
    s = api.engine.stats()
    settings = api.settings
    return Response(200, render.document(_known({
        "version": api.version,
        "started_at": instant(api.started_at),
        "uptime": round(time.monotonic() - api.started, 3),
        "durability": api.engine.durability,
        "jobs": s.jobs,
        "queues": s.queues,
        "consumers_waiting": s.consumers_waiting,
        "connections": api.connections(),
        "ticks": {"count": s.ticks, "last_ms": round(s.tick_last, 3), "max_ms": round(s.tick_max, 3)},
        "lanes": {
            "count": s.lanes, "slots": s.slots, "empty": s.empty_slots, "compactions": s.compactions,
            "compaction_max_ms": round(s.compaction_max, 3),
        },
        "remembered": {"jobs": s.remembered, "bytes": s.remembered_bytes},
        "memory": _known({"rss_bytes": api.memory()}),
        "limits": _known({
            "max_body": settings.max_body, "max_result": settings.max_result,
            "max_depth": settings.max_depth, "max_batch": settings.max_batch,
            "max_connections": api.max_connections, "wait_max": settings.wait_max / 1000,
            "lease_max": settings.lease_max / 1000, "retain": settings.retain / 1000,
            "retain_jobs": settings.retain_jobs, "retain_bytes": settings.retain_bytes,
        }),
    })))  # fmt: skip


def _known(members: dict[str, object]) -> dict[str, object]:
    """Without what nobody can tell."""
    return {name: value for name, value in members.items() if value is not None}


def healthz(api: "Api", request: Request) -> Response:
    return Response(200, render.document(
        {"status": "ok", "version": api.version, "durability": api.engine.durability, "auth": "none"}
    ))  # fmt: skip


def readyz(api: "Api", request: Request) -> Response:
    if api.engine.stopping:
        raise NotReady("the server is stopping", retry_after=5)
    return Response(200, render.document({"status": "ready"}))


def help_page(api: "Api", request: Request) -> Response:
    return Response(200, help_text(request.header(b"host"), api.version), (), TEXT)
