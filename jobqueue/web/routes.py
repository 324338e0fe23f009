"""The route table: all calls of the API; and how a path is found in it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote

from msgspec import Struct

from jobqueue.errors import MethodNotAllowed, NoSuchRoute
from jobqueue.web import faces, guesses, http, operations, service
from jobqueue.web.http import BYTES, EVENTS, HTML, JSON, LINES, TEXT, Request
from jobqueue.web.metrics import CONTENT_TYPE, metrics
from jobqueue.web.parsing import shapes
from jobqueue.web.rendering.answers import (
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
    Swept,
)
from jobqueue.web.rendering.views import Forgotten, JobView
from jobqueue.web.streams import consuming, moving, watching

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
    shape: type[Struct] = shapes.NoShape
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
          shapes.JobShape, shapes.EnqueueOptions, many=True),
    Route("POST", "/jobs/dequeue", operations.dequeue, "Take a job under a lease; with count many",
          _TAKEN, shape=shapes.DequeueShape),
    Route("POST", "/queues/{name}/enqueue", operations.enqueue_to, "Put a job, or many, in here", _MADE,
          (409, 422, 429, 507), shapes.JobShape, shapes.EnqueueOptions, many=True),
    Route("POST", "/queues/{name}/dequeue", operations.dequeue_from, "Take a job out of this queue", _TAKEN,
          shape=shapes.DequeueShape),
    Route("POST", "/jobs/{id}/conclude", operations.conclude,
          "Finish a job in progress; with next take another one", {200: (JobView, BYTES), 204: None}, (409,),
          shapes.ConcludeShape, shapes.ConcludeOptions),
    Route("POST", "/jobs/{id}/heartbeat", operations.heartbeat, "Make a lease longer, say how far it is",
          _JOB, (409,), shapes.HeartbeatShape),
    Route("POST", "/jobs/{id}/release", operations.release, "Give a job back, uncharged", _JOB, (409,),
          shapes.ReleaseShape),
    Route("POST", "/jobs/{id}/fail", operations.fail, "Say that an attempt went wrong", _JOB, (409,),
          shapes.FailShape, shapes.FailOptions),
    Route("POST", "/jobs/conclude", operations.conclude_many, "Finish many jobs", _RESULTS,
          shape=shapes.ConcludeItem, many="only"),
    Route("POST", "/jobs/heartbeat", operations.heartbeat_many, "Make many leases longer", _RESULTS,
          shape=shapes.HeartbeatItem, many="only"),
    Route("POST", "/jobs/release", operations.release_many, "Give many jobs back", _RESULTS,
          shape=shapes.ReleaseItem, many="only"),
    Route("POST", "/jobs/fail", operations.fail_many, "Say of many attempts that they went wrong", _RESULTS,
          shape=shapes.FailItem, many="only"),
    Route("POST", "/jobs/{id}/redrive", operations.redrive_job, "Put a dead job back to work", _JOB,
          (409, 412)),
    Route("GET", "/jobs/{id}", faces.get_job, "A job; with wait once it is finished", _faces(JobView),
          shape=shapes.WaitShape),
    Route("GET", "/jobs/{id}/explain", operations.explain_job, "Why does it wait?", {200: Explained}),
    Route("PATCH", "/jobs/{id}", operations.change_job, "Change a job that waits", _JOB, (409, 412, 429),
          shapes.ChangeShape),
    Route("DELETE", "/jobs/{id}", operations.cancel_job, "Cancel a job, or ask its consumer to stop",
          {200: JobView, 202: JobView}, (409, 412), shapes.CancelShape),
    Route("GET", "/jobs", faces.list_jobs, "Jobs by id", {200: (JobPage, TEXT, HTML)},
          shape=shapes.ListShape),
    Route("GET", "/jobs/count", operations.count_jobs, "How many jobs match", {200: Counted},
          shape=shapes.CountShape),
    Route("GET", "/queues", faces.list_queues, "Queues by name", _faces(Queues), shape=shapes.QueuesShape),
    Route("GET", "/queues/{name}", faces.get_queue, "A queue, also one not used yet", _faces(Queue),
          shape=shapes.FaceShape),
    Route("GET", "/queues/{name}/peek", operations.peek, "The next jobs, in the order of dequeue",
          {200: Jobs}, shape=shapes.PeekShape),
    Route("PATCH", "/queues/{name}", operations.change_queue, "Set what holds for a queue", _QUEUE, (412,),
          shapes.QueueShape, admin=True),
    Route("POST", "/queues/{name}/pause", operations.pause_queue, "Hand nothing out of a queue", _QUEUE,
          (412,), shapes.PauseShape, admin=True),
    Route("POST", "/queues/{name}/resume", operations.resume_queue, "End a pause", _QUEUE, (412,),
          admin=True),
    Route("POST", "/queues/{name}/purge", operations.purge, "Remove jobs that match", {200: Swept},
          shape=shapes.PurgeShape, admin=True),
    Route("POST", "/queues/{name}/redrive", operations.redrive_many, "Put dead jobs that match back to work",
          {200: Swept}, shape=shapes.RedriveShape, admin=True),
    Route("GET", "/queues/{name}/export", moving.export_queue, "The jobs of a queue, a line each",
          {200: LINES}, shape=shapes.FilterShape, admin=True),
    Route("POST", "/import", moving.import_jobs, "Take in what was exported", {200: Imported}, (429,),
          admin=True, upload=True),
    Route("PUT", "/import", moving.put_jobs, "The same", {200: Imported}, (429,), admin=True, upload=True),
    Route("GET", "/stats", service.stats, "How the server stands", {200: Stats}),
    Route("GET", "/metrics", metrics, "The same and more, for Prometheus", {200: CONTENT_TYPE}),
    Route("GET", "/healthz", service.healthz, "Does it run?", {200: Health}),
    Route("GET", "/readyz", service.readyz, "Does it take requests?", {200: Ready}),
    Route("GET", "/openapi.json", service.openapi, "This document", {200: JSON}),
    Route("GET", "/worker.sh", service.worker_sh, "A worker: one file for a shell with curl", {200: TEXT}),
    Route("GET", "/worker.py", service.worker_py, "The same in Python, needs nothing", {200: TEXT}),
    Route("GET", "/help", service.help_page, "The API on one screen", {200: TEXT}),
    Route("GET", "/", faces.root, "The same; for a browser a page", {200: (TEXT, HTML)}),
    Route("GET", "/events", watching.events, "What happens, as it happens", {200: EVENTS},
          shape=shapes.EventsShape),
    Route("GET", "/top", watching.top, "A screen that is redrawn", {200: TEXT}, shape=shapes.TopShape),
    Route("POST", "/jobs/stream", consuming.stream_jobs, "Take jobs as a stream, a line each", {200: LINES},
          shape=shapes.StreamShape),
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
        near = guesses.path(method, path[:200], self._patterns)
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
            near = guesses.path(method, path[:200], tuple(self.plain))
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
