"""The route table: all calls of the API; and how a path is found in it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote

from msgspec import Struct

from jobqueue.errors import MethodNotAllowed, NoSuchRoute
from jobqueue.web import http, negotiation, operations, service
from jobqueue.web.http import BYTES, EVENTS, HTML, JSON, LINES, TEXT, Request
from jobqueue.web.metrics import CONTENT_TYPE, metrics
from jobqueue.web.readers import suggestions
from jobqueue.web.schema import requests
from jobqueue.web.schema.answers import (
    BulkResult,
    Counted,
    Explained,
    Health,
    Imported,
    JobPage,
    Jobs,
    Queue,
    Queues,
    Ready,
    Results,
    Stats,
)
from jobqueue.web.schema.responses import Forgotten, JobView
from jobqueue.web.streams import job_stream, top, transfer

if TYPE_CHECKING:
    from jobqueue.web.api import Api


Answer: TypeAlias = type[Struct] | str | None


class Route(Struct, frozen=True, eq=False):
    """`path`: may hold one parameter, always as its second segment. `admin`: it destroys or reconfigures. The
    rest is for the OpenAPI document. `answers`: what comes with a status, or one of several; text: a media
    type; None: no body. `refuses`: statuses of refusals that follow neither from method nor from path.
    `shape`: what it takes; `options`: what its query takes, where that is more. `many`: the body may be an
    array, or a value a line; "only": it must be. `upload`: the body may be of any length, at a path without
    parameter. `counts`: of its operation's answers, by status; an `Api` has its own."""

    method: str
    path: str
    operation: "Callable[[Api, Request], http.Answer]"
    summary: str
    answers: Mapping[int, Answer | tuple[Answer, ...]]
    refuses: tuple[int, ...] = ()
    shape: type[Struct] = requests.NoShape
    options: type[Struct] | None = None
    many: bool | Literal["only"] = False
    admin: bool = False
    upload: bool = False
    counts: list[int] = []


_JOB = {200: JobView}
_RESULTS = {200: Results}
_QUEUE = {200: Queue}
_MADE: Mapping[int, Answer | tuple[Answer, ...]] = {
    201: (JobView, Jobs), 200: (JobView, Jobs, Results, Forgotten), 202: JobView,
}  # fmt: skip
_TAKEN: Mapping[int, Answer | tuple[Answer, ...]] = {200: (JobView, Jobs, BYTES), 204: None}


def _faces(shown: type[Struct]) -> Mapping[int, Answer | tuple[Answer, ...]]:
    """A call that answers `shown` as JSON, or one of its other faces."""
    return {200: (shown, TEXT, HTML, EVENTS)}


ROUTES = (
    Route("POST", "/jobs/enqueue", operations.enqueue, "Put in a job, or many", _MADE, (409, 422, 429, 507),
          requests.JobShape, requests.EnqueueOptions, many=True),
    Route("POST", "/jobs/dequeue", operations.dequeue, "Take a job under a lease; with count many",
          _TAKEN, shape=requests.DequeueShape),
    Route("POST", "/queues/{name}/enqueue", operations.enqueue_to, "Put a job, or many, in here", _MADE,
          (409, 422, 429, 507), requests.JobShape, requests.EnqueueOptions, many=True),
    Route("POST", "/queues/{name}/dequeue", operations.dequeue_from, "Take a job out of this queue", _TAKEN,
          shape=requests.DequeueShape),
    Route("POST", "/jobs/{id}/conclude", operations.conclude,
          "Finish a job in progress; with next take another one", {200: (JobView, BYTES), 204: None}, (409,),
          requests.ConcludeShape, requests.ConcludeOptions),
    Route("POST", "/jobs/{id}/heartbeat", operations.heartbeat, "Make a lease longer, say how far it is",
          _JOB, (409,), requests.HeartbeatShape),
    Route("POST", "/jobs/{id}/release", operations.release, "Give a job back, uncharged", _JOB, (409,),
          requests.ReleaseShape),
    Route("POST", "/jobs/{id}/fail", operations.fail, "Say that an attempt went wrong", _JOB, (409,),
          requests.FailShape, requests.FailOptions),
    Route("POST", "/jobs/conclude", operations.conclude_many, "Finish many jobs", _RESULTS,
          shape=requests.ConcludeItem, many="only"),
    Route("POST", "/jobs/heartbeat", operations.heartbeat_many, "Make many leases longer", _RESULTS,
          shape=requests.HeartbeatItem, many="only"),
    Route("POST", "/jobs/release", operations.release_many, "Give many jobs back", _RESULTS,
          shape=requests.ReleaseItem, many="only"),
    Route("POST", "/jobs/fail", operations.fail_many, "Say of many attempts that they went wrong", _RESULTS,
          shape=requests.FailItem, many="only"),
    Route("POST", "/jobs/{id}/redrive", operations.redrive_job, "Put a dead job back to work", _JOB,
          (409, 412)),
    Route("GET", "/jobs/{id}", negotiation.get_job, "A job; with wait once it is finished", _faces(JobView),
          shape=requests.WaitShape),
    Route("GET", "/jobs/{id}/explain", operations.explain_job, "Why does it wait?", {200: Explained}),
    Route("PATCH", "/jobs/{id}", operations.change_job, "Change a job that waits", _JOB, (409, 412, 429),
          requests.ChangeShape),
    Route("DELETE", "/jobs/{id}", operations.cancel_job, "Cancel a job, or ask its consumer to stop",
          {200: JobView, 202: JobView}, (409, 412), requests.CancelShape),
    Route("GET", "/jobs", negotiation.list_jobs, "Jobs by id", {200: (JobPage, TEXT, HTML)},
          shape=requests.ListShape),
    Route("GET", "/jobs/count", operations.count_jobs, "How many jobs match", {200: Counted},
          shape=requests.CountShape),
    Route("GET", "/queues", negotiation.list_queues, "Queues by name", _faces(Queues),
          shape=requests.QueuesShape),
    Route("GET", "/queues/{name}", negotiation.get_queue, "A queue, also one not used yet", _faces(Queue),
          shape=requests.FaceShape),
    Route("GET", "/queues/{name}/peek", operations.peek, "The next jobs, in the order of dequeue",
          {200: Jobs}, shape=requests.PeekShape),
    Route("PATCH", "/queues/{name}", operations.change_queue, "Set what holds for a queue", _QUEUE, (412,),
          requests.QueueShape, admin=True),
    Route("POST", "/queues/{name}/pause", operations.pause_queue, "Hand nothing out of a queue", _QUEUE,
          (412,), requests.PauseShape, admin=True),
    Route("POST", "/queues/{name}/resume", operations.resume_queue, "End a pause", _QUEUE, (412,),
          admin=True),
    Route("POST", "/queues/{name}/purge", operations.purge, "Remove jobs that match", {200: BulkResult},
          shape=requests.PurgeShape, admin=True),
    Route("POST", "/queues/{name}/redrive", operations.redrive_many, "Put dead jobs that match back to work",
          {200: BulkResult}, shape=requests.RedriveShape, admin=True),
    Route("GET", "/queues/{name}/export", transfer.export_queue, "The jobs of a queue, a line each",
          {200: LINES}, shape=requests.FilterShape, admin=True),
    Route("POST", "/import", transfer.import_jobs, "Take in what was exported", {200: Imported}, (429,),
          admin=True, upload=True),
    Route("PUT", "/import", transfer.put_jobs, "The same", {200: Imported}, (429,), admin=True, upload=True),
    Route("GET", "/stats", service.stats, "How the server stands", {200: Stats}),
    Route("GET", "/metrics", metrics, "The same and more, for Prometheus", {200: CONTENT_TYPE}),
    Route("GET", "/healthz", service.healthz, "Does it run?", {200: Health}),
    Route("GET", "/readyz", service.readyz, "Does it take requests?", {200: Ready}),
    Route("GET", "/openapi.json", service.openapi, "This document", {200: JSON}),
    Route("GET", "/worker.sh", service.worker_sh, "A worker: one file for a shell with curl", {200: TEXT}),
    Route("GET", "/worker.py", service.worker_py, "The same in Python, needs nothing", {200: TEXT}),
    Route("GET", "/help", service.help_page, "The API on one screen", {200: TEXT}),
    Route("GET", "/", negotiation.root, "The same; for a browser a page", {200: (TEXT, HTML)}),
    Route("GET", "/events", top.events, "What happens, as it happens", {200: EVENTS},
          shape=requests.EventsShape),
    Route("GET", "/top", top.top, "A screen that is redrawn", {200: TEXT}, shape=requests.TopShape),
    Route("POST", "/jobs/stream", job_stream.stream_jobs, "Take jobs as a stream, a line each", {200: LINES},
          shape=requests.StreamShape),
)  # fmt: skip


class Router:
    """Finds the route of a request: one look-up for a path without parameter, two for one with."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self.plain: dict[str, dict[str, Route]] = {}
        self.uploads = frozenset(route.path for route in routes if route.upload)
        self._patterns = tuple({route.path: None for route in routes})
        # By the first and the last segment around the parameter; one segment: no last one.
        self._with_parameter: dict[tuple[str, str | None], dict[str, Route]] = {}
        for route in routes:
            if "{" in route.path:
                segments = route.path.split("/")
                key = (segments[1], segments[3] if len(segments) > 3 else None)
                table = self._with_parameter.setdefault(key, {})
            else:
                table = self.plain.setdefault(route.path, {})
            table[route.method] = route
            if route.method == "GET":
                table["HEAD"] = route

    def find(self, method: str, path: str) -> tuple[Route, str]:
        """The route, and its decoded parameter. Raises `NoSuchRoute`, or `MethodNotAllowed`."""
        table, parameter = self._table(path)
        if table is None:
            raise self._nothing_at(method, path)
        route = table.get(method)
        if route is None:
            allow = ", ".join(sorted(table))
            raise MethodNotAllowed(
                f"{method[:20]} is not for this path; it takes {allow}{self._instead(method, path)}",
                allow=allow,
            )
        return route, parameter

    def _nothing_at(self, method: str, path: str) -> NoSuchRoute:
        said = f"there is nothing at {path[:100]!r}"
        if "//" in path:
            said += "; a part of it is empty"
        near = suggestions.path(method, path[:200], self._patterns)
        if near is None:
            return NoSuchRoute(f"{said}; GET /help shows what there is")
        return NoSuchRoute(f"{said}; did you mean {near}? GET /help shows what there is", nearest=near)

    def _instead(self, method: str, path: str) -> str:
        """What others wanted who used this method there; for the end of a sentence."""
        first, _, rest = path.strip("/").partition("/")
        if method == "POST" and path == "/jobs":
            return "; to put in a job: POST /jobs/enqueue"
        if method == "DELETE" and first == "queues" and "/" not in rest:
            return f"; to remove its jobs: POST {path[:100]}/purge"
        if method == "POST" and first == "jobs" and rest in ("purge", "redrive"):
            return f"; of many jobs: POST /queues/NAME/{rest}"
        if method == "POST" and first == "jobs" and rest.isalpha():
            near = suggestions.path(method, path[:200], tuple(self.plain))
            return f"; did you mean {near}?" if near is not None else ""
        return ""

    def has(self, path: str) -> bool:
        """Is there a route at `path`, whatever the method?"""
        return self._table(path)[0] is not None

    def _table(self, path: str) -> tuple[dict[str, Route] | None, str]:
        table = self.plain.get(path)
        if table is not None:
            return table, ""
        segments = path.split("/")
        if "://" in path and segments[0]:  # as a proxy is asked: http://host/path
            return self._table("/" + path.partition("://")[2].partition("/")[2])
        if not 3 <= len(segments) <= 4 or segments[0] or not segments[2]:
            return None, ""
        table = self._with_parameter.get((segments[1], segments[3] if len(segments) > 3 else None))
        parameter = segments[2]
        return table, unquote(parameter, errors="replace") if "%" in parameter else parameter
