"""The routes of the dashboard. They are no calls of the API, and may change with its pages."""

from collections.abc import Mapping

from msgspec.structs import replace

from jobqueue.errors import JobQueueError
from jobqueue.web.access.identity import Authenticator
from jobqueue.web.context import Context
from jobqueue.web.dashboard.files import static_file
from jobqueue.web.dashboard.finding import find
from jobqueue.web.dashboard.form_calls import PREFIX, FormCall, refuse_form
from jobqueue.web.dashboard.live import Live
from jobqueue.web.dashboard.login import Login
from jobqueue.web.dashboard.selected import change_selected
from jobqueue.web.http import Request
from jobqueue.web.request_metrics import Operation
from jobqueue.web.routes import ANY_TOKEN, ENQUEUE, NO_TOKEN, READ, Route
from jobqueue.web.writers.action_forms import SELECTED

_STATIC = "/static/"


class Dashboard:
    """Finds the route of a request that is for the dashboard. `auth`: None, the server has no access
    tokens. `on`: False, it has no pages; no request is for them then."""

    def __init__(self, auth: Authenticator[Context] | None, on: bool) -> None:
        self._on = on
        self._form = Route("POST", PREFIX, ANY_TOKEN, refuse_form, "A form that makes no call", {})
        self._static = Route("GET", _STATIC, NO_TOKEN, static_file, "A file of the pages", {})
        login = Login(auth)
        routes = (
            Route("GET", "/find", READ, find, "Search", {}),
            Route("GET", "/live", READ, Live().live, "When to load a page again", {}),
            Route("GET", "/login", NO_TOKEN, login.login_page, "The page to log in", {}),
            Route("POST", "/login", NO_TOKEN, login.log_in, "Begin a session", {}),
            Route("POST", "/logout", NO_TOKEN, login.log_out, "End the session", {}),
            Route("POST", SELECTED, ENQUEUE, change_selected, "Change the jobs that were selected", {}),
        )
        self._routes = {(route.method, route.path): route for route in routes}

    def operations(self) -> list[Operation]:
        return [route.operation for route in (self._static, self._form, *self._routes.values())]

    def use(self, counts: Mapping[Operation, list[int]]) -> None:
        """Has the routes count their answers there."""
        self._static = replace(self._static, counts=counts[self._static.operation])
        self._form = replace(self._form, counts=counts[self._form.operation])
        self._routes = {
            key: replace(route, counts=counts[route.operation]) for key, route in self._routes.items()
        }

    def form_call(self, request: Request) -> FormCall | None:
        """Returns the call of the API that a form makes; None: the request is no form, or makes no call."""
        if self.route(request) is not self._form:
            return None
        try:
            return FormCall(request)
        except JobQueueError:  # the operation of the route tells which
            return None

    def route(self, request: Request) -> Route | None:
        """Returns the route of a request, and sets its `param`; None: it is not for the dashboard."""
        if not self._on:
            return None
        method = "GET" if request.method == "HEAD" else request.method
        if request.path.startswith(_STATIC) and method == "GET":
            request.param = request.path[len(_STATIC) :]
            return self._static
        if (route := self._routes.get((method, request.path))) is not None:
            return route
        return self._form if method == "POST" and request.path.startswith(f"{PREFIX}/") else None
