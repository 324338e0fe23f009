"""The route table, and how a path is found in it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from jobqueue.errors import MethodNotAllowed, NoSuchRoute
from jobqueue.web import operations
from jobqueue.web.http import Later, Request, Response

if TYPE_CHECKING:
    from jobqueue.web.api import Api


class Route(NamedTuple):
    """`path`: may hold one parameter, always as its second segment. `admin`: it destroys or reconfigures."""

    method: str
    path: str
    operation: "Callable[[Api, Request], Response | Later]"
    admin: bool = False


ROUTES = (
    Route("POST", "/jobs/enqueue", operations.enqueue),
    Route("POST", "/jobs/dequeue", operations.dequeue),
    Route("POST", "/jobs/{id}/conclude", operations.conclude),
    Route("POST", "/jobs/{id}/heartbeat", operations.heartbeat),
    Route("POST", "/jobs/{id}/release", operations.release),
    Route("POST", "/jobs/{id}/fail", operations.fail),
    Route("POST", "/jobs/conclude", operations.conclude_many),
    Route("POST", "/jobs/heartbeat", operations.heartbeat_many),
    Route("POST", "/jobs/release", operations.release_many),
    Route("POST", "/jobs/fail", operations.fail_many),
    Route("POST", "/jobs/{id}/redrive", operations.redrive_job),
    Route("GET", "/jobs/{id}", operations.get_job),
    Route("PATCH", "/jobs/{id}", operations.change_job),
    Route("DELETE", "/jobs/{id}", operations.cancel_job),
    Route("GET", "/jobs", operations.list_jobs),
    Route("GET", "/jobs/count", operations.count_jobs),
    Route("GET", "/queues", operations.list_queues),
    Route("GET", "/queues/{name}", operations.get_queue),
    Route("PATCH", "/queues/{name}", operations.change_queue, admin=True),
    Route("POST", "/queues/{name}/pause", operations.pause_queue, admin=True),
    Route("POST", "/queues/{name}/resume", operations.resume_queue, admin=True),
    Route("POST", "/queues/{name}/purge", operations.purge, admin=True),
    Route("POST", "/queues/{name}/redrive", operations.redrive_many, admin=True),
    Route("GET", "/stats", operations.stats),
    Route("GET", "/healthz", operations.healthz),
    Route("GET", "/readyz", operations.readyz),
    Route("GET", "/help", operations.help_page),
    Route("GET", "/", operations.help_page),
)


class Router:
    """Finds the route of a request: one look-up for a path without parameter, two for one with."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self.plain: dict[str, dict[str, Route]] = {}
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
        if table is None and "://" in path and path[0] != "/":
            # As a proxy is asked: http://host/path.
            table, parameter = self._table("/" + path.partition("://")[2].partition("/")[2])
        if table is None:
            raise NoSuchRoute(f"there is nothing at {path[:100]!r}; GET /help shows what there is")
        route = table.get(method)
        if route is None:
            allow = ", ".join(sorted(table))
            raise MethodNotAllowed(f"{method[:20]} is not for this path; it takes {allow}", allow=allow)
        return route, parameter

    def has(self, path: str) -> bool:
        """Is there a route at `path`, whatever the method?"""
        try:
            self.find("", path)
        except NoSuchRoute:
            return False
        except MethodNotAllowed:
            pass
        return True

    def _table(self, path: str) -> tuple[dict[str, Route] | None, str]:
        table = self.plain.get(path)
        if table is not None:
            return table, ""
        segments = path.split("/")
        if not 3 <= len(segments) <= 4 or segments[0] or not segments[2]:
            return None, ""
        table = self._with_parameter.get((segments[1], segments[3] if len(segments) > 3 else None))
        parameter = segments[2]
        return table, unquote(parameter, errors="replace") if "%" in parameter else parameter
