"""The route table with all calls of the API, and the search for the route of a path."""

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from msgspec import Struct

from jobqueue.errors import MethodNotAllowed, NoSuchRoute
from jobqueue.web import http
from jobqueue.web.context import Context
from jobqueue.web.http import BYTES, EVENTS, HTML, JSON, LINES, TEXT, Request
from jobqueue.web.operations import (
    administration,
    enqueue,
    jobs,
    leases,
    negotiation,
    queues,
    schedules,
    service,
)
from jobqueue.web.operations.metrics import CONTENT_TYPE, metrics
from jobqueue.web.readers import suggestions
from jobqueue.web.schema import requests
from jobqueue.web.schema import schedules as schema
from jobqueue.web.schema.responses import (
    AuditView,
    BulkResult,
    Cluster,
    ConsumersView,
    Counted,
    Explained,
    Forgotten,
    Groups,
    Health,
    Imported,
    JobPage,
    Jobs,
    JobView,
    Queue,
    Queues,
    Ready,
    Results,
    Series,
    Stats,
    Tokens,
)
from jobqueue.web.streams import job_stream, top, transfer

# Rights. What needs no token is answered to everybody, what needs any token to all holders of one.
NO_TOKEN: Final = None
ANY_TOKEN: Final = ""
ENQUEUE: Final = "enqueue"
DEQUEUE: Final = "dequeue"
READ: Final = "read"
ADMIN: Final = "admin"

Answer: TypeAlias = type[Struct] | str | None


class Route(Struct, frozen=True, eq=False):
    """One call of the API.

    `path` may have one parameter, always as its second segment. `right` is the right that an access token
    needs for the call. The other fields describe the call for the OpenAPI document:

    - `answers`: what comes with each status: a struct, or one of several; a media type; None: no body.
    - `refuses`: statuses of refusals that follow neither from the method nor from the path.
    - `shape`: the struct of the request; `options`: the struct of its query, if that has more fields.
    - `many`: the body may be an array, or one value a line; "only": it must be.
    - `upload`: the body may have any length. The path has no parameter then.
    - `audited`: an administrative call has an entry in the audit log.
    - `direct`: before it returns, the operation reads nothing from the engine but the job of its path.
    - `counts`: numbers of answers of the operation, by status. Each dispatcher has its own.
    """

    method: str
    path: str
    right: str | None
    operation: Callable[[Context, Request], http.Answer]
    summary: str
    answers: Mapping[int, Answer | tuple[Answer, ...]]
    refuses: tuple[int, ...] = ()
    shape: type[Struct] = requests.NoShape
    options: type[Struct] | None = None
    many: bool | Literal["only"] = False
    upload: bool = False
    audited: bool = True
    direct: bool = False
    counts: list[int] = []


_JOB = {200: JobView}
_RESULTS = {200: Results}
_QUEUE = {200: Queue}
_SCHEDULE = {200: schema.ScheduleView}
_MADE: Mapping[int, Answer | tuple[Answer, ...]] = {
    201: (JobView, Jobs), 200: (JobView, Jobs, Results, Forgotten), 202: JobView,
}  # fmt: skip
_TAKEN: Mapping[int, Answer | tuple[Answer, ...]] = {200: (JobView, Jobs, BYTES), 204: None}


def _negotiated(shown: type[Struct]) -> Mapping[int, Answer | tuple[Answer, ...]]:
    """Returns the answers of a call that shows `shown` as JSON, text, HTML or a stream of events."""
    return {200: (shown, TEXT, HTML, EVENTS)}


ROUTES = (
    Route("POST", "/jobs/enqueue", ENQUEUE, enqueue.enqueue, "Enqueue a job, or many", _MADE,
          (409, 422, 429, 507), requests.JobShape, requests.EnqueueOptions, many=True, direct=True),
    Route("POST", "/jobs/dequeue", DEQUEUE, leases.dequeue, "Take a job under a lease; with count many",
          _TAKEN, shape=requests.DequeueShape, direct=True),
    Route("POST", "/queues/{name}/enqueue", ENQUEUE, enqueue.enqueue_to,
          "Enqueue a job, or many, in this queue", _MADE, (409, 422, 429, 507), requests.JobShape,
          requests.EnqueueOptions, many=True, direct=True),
    Route("POST", "/queues/{name}/dequeue", DEQUEUE, leases.dequeue_from, "Take a job from this queue",
          _TAKEN, shape=requests.DequeueShape, direct=True),
    Route("POST", "/jobs/{id}/dequeue", DEQUEUE, leases.dequeue_job, "Take this job under a lease",
          {200: (JobView, BYTES), 204: None}, (409,), requests.DequeueJobShape),
    Route("POST", "/jobs/{id}/conclude", DEQUEUE, leases.conclude,
          "Finish a job in progress; with next take another one", {200: (JobView, BYTES), 204: None}, (409,),
          requests.ConcludeShape, requests.ConcludeOptions, direct=True),
    Route("POST", "/jobs/{id}/heartbeat", DEQUEUE, leases.heartbeat, "Extend a lease, report progress",
          _JOB, (409,), requests.HeartbeatShape, direct=True),
    Route("POST", "/jobs/{id}/release", DEQUEUE, leases.release, "Return a job, the attempt uncounted",
          _JOB, (409,), requests.ReleaseShape, direct=True),
    Route("POST", "/jobs/{id}/fail", DEQUEUE, leases.fail, "Report that an attempt failed", _JOB, (409,),
          requests.FailShape, requests.FailOptions, direct=True),
    Route("POST", "/jobs/conclude", DEQUEUE, leases.conclude_many, "Finish many jobs", _RESULTS,
          shape=requests.ConcludeItem, many="only"),
    Route("POST", "/jobs/heartbeat", DEQUEUE, leases.heartbeat_many, "Extend many leases", _RESULTS,
          shape=requests.HeartbeatItem, many="only"),
    Route("POST", "/jobs/release", DEQUEUE, leases.release_many, "Return many jobs", _RESULTS,
          shape=requests.ReleaseItem, many="only"),
    Route("POST", "/jobs/fail", DEQUEUE, leases.fail_many, "Report that many attempts failed", _RESULTS,
          shape=requests.FailItem, many="only"),
    Route("POST", "/jobs/{id}/redrive", ENQUEUE, jobs.redrive_job, "Retry a dead job", _JOB,
          (409, 412)),
    Route("GET", "/jobs/{id}", READ, negotiation.get_job, "Get a job; with wait once it is finished",
          _negotiated(JobView), shape=requests.WaitShape),
    Route("GET", "/jobs/{id}/explain", READ, jobs.explain_job, "Explain why a job waits",
          {200: Explained}),
    Route("PATCH", "/jobs/{id}", ENQUEUE, jobs.change_job, "Change a waiting job", _JOB,
          (409, 412, 429), requests.ChangeShape),
    Route("DELETE", "/jobs/{id}", ENQUEUE, jobs.cancel_job,
          "Cancel a job, or ask its consumer to stop", {200: JobView, 202: JobView}, (409, 412),
          requests.CancelShape),
    Route("GET", "/jobs", READ, negotiation.list_jobs, "List jobs by id", {200: (JobPage, TEXT, HTML)},
          shape=requests.ListShape),
    Route("GET", "/jobs/count", READ, jobs.count_jobs, "Count jobs that match", {200: Counted},
          shape=requests.CountShape),
    Route("GET", "/jobs/groups", READ, negotiation.group_jobs,
          "Count dead and retrying jobs by type, error, …", {200: (Groups, TEXT, HTML)},
          shape=requests.GroupsShape),
    Route("GET", "/queues", READ, negotiation.list_queues, "List queues by name", _negotiated(Queues),
          shape=requests.QueuesShape),
    Route("GET", "/queues/{name}", READ, negotiation.get_queue, "Get a queue, also one not used yet",
          _negotiated(Queue), shape=requests.QueueShownShape),
    Route("GET", "/queues/{name}/series", READ, negotiation.get_series,
          "Show what happened lately, for charts", {200: (Series, TEXT, HTML)}, shape=requests.SeriesShape),
    Route("GET", "/consumers", READ, negotiation.list_consumers, "Show who holds jobs, and who waits",
          {200: (ConsumersView, TEXT, HTML)}, shape=requests.ConsumersShape),
    Route("GET", "/queues/{name}/peek", READ, queues.peek, "Show the next jobs in the order of dequeue",
          {200: Jobs}, shape=requests.PeekShape),
    Route("PATCH", "/queues/{name}", ADMIN, queues.change_queue, "Change the settings of a queue",
          _QUEUE, (412,), requests.QueueShape),
    Route("POST", "/queues/{name}/pause", ADMIN, queues.pause_queue, "Stop deliveries from a queue",
          _QUEUE, (412,), requests.PauseShape),
    Route("POST", "/queues/{name}/resume", ADMIN, queues.resume_queue, "End a pause", _QUEUE, (412,)),
    Route("POST", "/queues/{name}/purge", ADMIN, queues.purge, "Remove jobs that match",
          {200: BulkResult}, shape=requests.PurgeShape),
    Route("POST", "/queues/{name}/redrive", ADMIN, queues.redrive_many, "Retry dead jobs that match",
          {200: BulkResult}, shape=requests.RedriveShape),
    Route("POST", "/queues/{name}/cancel", ADMIN, queues.cancel_many, "Cancel jobs that match",
          {200: BulkResult}, shape=requests.CancelManyShape),
    Route("POST", "/queues/{name}/run_now", ADMIN, queues.run_now, "Make scheduled jobs ready that match",
          {200: BulkResult}, shape=requests.RedriveShape),
    Route("POST", "/queues/{name}/move", ADMIN, queues.move, "Move jobs that match to another queue",
          {200: BulkResult}, (429,), requests.MoveShape),
    Route("GET", "/queues/{name}/export", ADMIN, transfer.export_queue, "Export a queue, one job a line",
          {200: LINES}, shape=requests.FilterShape),
    Route("GET", "/schedules", READ, schedules.list_schedules, "List schedules by name",
          {200: (schema.SchedulePage, TEXT, HTML)}, shape=schema.SchedulesShape),
    Route("PUT", "/schedules", ADMIN, schedules.put_schedules, "Replace the schedules of a group",
          {200: schema.ScheduleChanges}, (409, 429, 507), schema.GroupShape),
    Route("POST", "/schedules/import", ADMIN, schedules.import_schedules, "Create or replace schedules",
          {200: schema.ScheduleChanges}, (429, 507), schema.ManySchedulesShape),
    Route("POST", "/schedules/preview", READ, schedules.preview_schedule,
          "Show when a schedule would be due", {200: schema.SchedulePreview}, shape=schema.PreviewShape),
    Route("GET", "/schedules/{name}", READ, schedules.get_schedule, "Get a schedule",
          {200: (schema.ScheduleView, TEXT, HTML)}, shape=schema.ScheduleQueryShape),
    Route("PUT", "/schedules/{name}", ADMIN, schedules.put_schedule, "Create or replace a schedule",
          {201: schema.ScheduleView, 200: schema.ScheduleView}, (412, 429, 507), schema.ScheduleShape),
    Route("DELETE", "/schedules/{name}", ADMIN, schedules.delete_schedule, "Delete a schedule", _SCHEDULE,
          (412,)),
    Route("GET", "/schedules/{name}/history", READ, schedules.schedule_history,
          "Show what became of its instants", {200: schema.ScheduleHistory}),
    Route("GET", "/schedules/{name}/explain", READ, schedules.explain_schedule,
          "Explain why a schedule makes no jobs", {200: schema.ScheduleExplained}),
    Route("POST", "/schedules/{name}/run", ADMIN, schedules.run_schedule, "Enqueue a job beside the plan",
          {201: JobView, 200: JobView}, (429, 507)),
    Route("POST", "/schedules/{name}/pause", ADMIN, schedules.pause_schedule, "Let a schedule make no jobs",
          _SCHEDULE, (412,), schema.SchedulePauseShape),
    Route("POST", "/schedules/{name}/resume", ADMIN, schedules.resume_schedule, "End its pause", _SCHEDULE,
          (412,)),
    Route("POST", "/import", ADMIN, transfer.import_jobs, "Import what was exported", {200: Imported}, (429,),
          upload=True),
    Route("PUT", "/import", ADMIN, transfer.put_jobs, "The same as POST", {200: Imported}, (429,),
          upload=True),
    Route("GET", "/stats", READ, negotiation.stats, "Statistics of the server", {200: (Stats, HTML)}),
    Route("GET", "/cluster", READ, negotiation.cluster, "The servers that share the database",
          {200: (Cluster, TEXT, HTML)}, shape=requests.FormatShape),
    Route("GET", "/tokens", ADMIN, administration.list_tokens, "The access tokens by name, without secrets",
          {200: (Tokens, TEXT, HTML)}, shape=requests.TokensShape, audited=False),
    Route("GET", "/audit", ADMIN, administration.list_audit, "The last administrative calls",
          {200: (AuditView, TEXT, HTML)}, shape=requests.AuditShape, audited=False),
    Route("GET", "/metrics", READ, metrics, "Metrics for Prometheus", {200: CONTENT_TYPE}),
    Route("GET", "/healthz", NO_TOKEN, service.healthz, "Check that the server runs", {200: Health}),
    Route("GET", "/readyz", NO_TOKEN, service.readyz, "Check that it accepts requests", {200: Ready}),
    Route("GET", "/openapi.json", ANY_TOKEN, service.openapi, "This document", {200: JSON}),
    Route("GET", "/worker.sh", ANY_TOKEN, service.worker_sh, "A worker: one file for a shell with curl",
          {200: TEXT}),
    Route("GET", "/worker.py", ANY_TOKEN, service.worker_py, "A worker: one file of Python", {200: TEXT}),
    Route("GET", "/help", ANY_TOKEN, service.help_page, "The API on one screen", {200: TEXT}),
    Route("GET", "/", ANY_TOKEN, negotiation.root, "The same; for a browser a page", {200: (TEXT, HTML)}),
    Route("GET", "/events", READ, negotiation.events, "A stream of events; for a browser a page",
          {200: (EVENTS, HTML)},
          shape=requests.EventsShape),
    Route("GET", "/top", READ, top.top, "A live screen for a terminal", {200: TEXT}, shape=requests.TopShape),
    Route("POST", "/jobs/stream", DEQUEUE, job_stream.stream_jobs, "Take jobs as a stream, one a line",
          {200: LINES}, shape=requests.StreamShape),
)  # fmt: skip


# What a server of a cluster may own: the paths whose answers may name it.
OWNED: Final = ("/jobs", "/queues")
# Operations on many jobs of one queue.
_MANY = frozenset({"purge", "redrive", "cancel", "run_now", "move"})
# Paths at which some servers are stopped.
_STOPS = frozenset({"stop", "shutdown", "quit", "exit", "kill"})


class Router:
    """Finds the route of a request: one look-up for a path without a parameter, two for one with.

    `root` is for a `POST /` that is no call of the API, but may be one of another protocol. `find` does not
    return it, and its right is not checked: each of those calls has its own.
    """

    def __init__(self, routes: tuple[Route, ...] = ROUTES, root: Route | None = None) -> None:
        self.root = root
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
        """Returns the route and its decoded parameter. Raises `NoSuchRoute` or `MethodNotAllowed`."""
        table, parameter = self._table(path)
        if table is None:
            raise self._nothing_at(method, path)
        route = table.get(method)
        if route is None:
            allow = ", ".join(sorted(table))
            curl = "; curl sends it with -X POST" if method == "GET" and allow == "POST" else ""
            raise MethodNotAllowed(
                f"{method[:20]} is not for this path; it takes {allow}{curl}{self._instead(method, path)}",
                allow=allow,
            )
        return route, parameter

    def _nothing_at(self, method: str, path: str) -> NoSuchRoute:
        said = f"there is nothing at {path[:100]!r}"
        if path.strip("/").lower() in _STOPS:
            return NoSuchRoute(f"{said}; a signal stops the server: TERM, or Ctrl-C at its terminal")
        if "//" in path:
            said += "; a part of it is empty"
        near = suggestions.path(method, path[:200], self._patterns)
        if near is None:
            return NoSuchRoute(f"{said}; GET /help shows what there is")
        return NoSuchRoute(f"{said}; did you mean {near}? GET /help shows what there is", nearest=near)

    def _instead(self, method: str, path: str) -> str:
        """Suggests the call that was probably meant by this method; for the end of a sentence."""
        first, _, rest = path.strip("/").partition("/")
        if method == "POST" and path == "/jobs":
            return "; to put in a job: POST /jobs/enqueue"
        if method == "DELETE" and first == "queues" and "/" not in rest:
            return f"; to remove its jobs: POST {path[:100]}/purge"
        if method == "POST" and first == "jobs" and rest in _MANY:
            return f"; of many jobs: POST /queues/NAME/{rest}"
        if method == "POST" and first == "jobs" and rest.isalpha():
            near = suggestions.path(method, path[:200], tuple(self.plain))
            return f"; did you mean {near}?" if near is not None else ""
        return ""

    def has(self, path: str) -> bool:
        """Tells whether there is a route at `path` for any method."""
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
