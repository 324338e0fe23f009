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
    Route("GET", "/jobs/{id}", operations.get_job),
    Route("DELETE", "/jobs/{id}", operations.cancel_job),
    Route("GET", "/queues", operations.list_queues),
    Route("GET", "/queues/{name}", operations.get_queue),
    Route("GET", "/stats", operations.stats),
    Route("GET", "/healthz", operations.healthz),
    Route("GET", "/readyz", operations.readyz),
    Route("GET", "/help", operations.help_page),
    Route("GET", "/", operations.help_page),
)


class Router:
    """Finds the route of a request: one look-up for a path without parameter, two for one with."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self._plain: dict[str, dict[str, Route]] = {}
        self._with_parameter: dict[tuple[str, str], dict[str, Route]] = {}
        for route in routes:
            if "{" in route.path:
                first, _, rest = route.path[1:].partition("/")
                table = self._with_parameter.setdefault((first, rest.partition("/")[2]), {})
            else:
                table = self._plain.setdefault(route.path, {})
            table[route.method] = route
            if route.method == "GET":
                table["HEAD"] = route

    def has(self, path: str) -> bool:
        """Is there a route at `path`, whatever the method?"""
        try:
            self.find("", path)
        except NoSuchRoute:
            return False
        except MethodNotAllowed:
            pass
        return True

    def find(self, method: str, path: str) -> tuple[Route, str]:
        """The route, and its decoded parameter. Raises `NoSuchRoute`, or `MethodNotAllowed`."""
        table, parameter = self._plain.get(path), ""
        if table is None:
            if not path.startswith("/"):
                path = "/" + path.partition("://")[2].partition("/")[2]  # a proxy's form: http://host/path
                if (table := self._plain.get(path)) is None:
                    return self.find(method, path)
            first, _, rest = path[1:].partition("/")
            parameter, slash, last = rest.partition("/")
            if parameter and bool(slash) == bool(last):
                table = self._with_parameter.get((first, last))
            if table is None:
                raise NoSuchRoute(f"there is nothing at {path[:100]!r}; GET /help shows what there is")
            if "%" in parameter:
                parameter = unquote(parameter, errors="replace")
        route = table.get(method)
        if route is None:
            allow = ", ".join(sorted(table))
            raise MethodNotAllowed(f"{method[:20]} is not for this path; it takes {allow}", allow=allow)
        return route, parameter
