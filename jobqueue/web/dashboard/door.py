"""The routes of the dashboard. They are no calls of the API, and may change with its pages."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from jobqueue.errors import JobQueueError
from jobqueue.web.access.identity import Authenticator
from jobqueue.web.context import Context
from jobqueue.web.dashboard.files import static_file
from jobqueue.web.dashboard.finding import find
from jobqueue.web.dashboard.form_calls import PREFIX, FormCall
from jobqueue.web.dashboard.live import Live
from jobqueue.web.dashboard.login import Login
from jobqueue.web.http import Answer, Request
from jobqueue.web.request_metrics import Operation
from jobqueue.web.routes import ANY_TOKEN, NO_TOKEN, READ, Route
from jobqueue.web.writers.problems import problem

_STATIC = "/static/"


class Dashboard:
    """Finds the route of a request that is for the dashboard. `answer` answers the calls that forms make.
    `auth`: None, the server has no access tokens.
    """

    def __init__(self, answer: Callable[[Request], Answer], auth: Authenticator[Context] | None) -> None:
        self._answer = answer
        self._form = Route("POST", PREFIX, ANY_TOKEN, self._perform_form, "A call by a form", {})
        self._static = Route("GET", _STATIC, NO_TOKEN, static_file, "A file of the pages", {})
        login = Login(auth)
        routes = (
            Route("GET", "/find", READ, find, "Search", {}),
            Route("GET", "/live", READ, Live().live, "When to load a page again", {}),
            Route("GET", "/login", NO_TOKEN, login.login_page, "The page to log in", {}),
            Route("POST", "/login", NO_TOKEN, login.log_in, "Begin a session", {}),
            Route("POST", "/logout", NO_TOKEN, login.log_out, "End the session", {}),
        )
        self._routes = {(route.method, route.path): route for route in routes}

    def operations(self) -> list[Operation]:
        return [route.operation for route in (self._static, self._form, *self._routes.values())]

    def _perform_form(self, context: Context, request: Request) -> Answer:
        form = FormCall(request)
        try:
            return form.shown(self._answer(form.request()))
        except JobQueueError as error:
            return form.refused(problem(error, request.id))

    def use(self, counts: Mapping[Operation, list[int]]) -> None:
        """Has the routes count their answers there."""
        self._static = replace(self._static, counts=counts[self._static.operation])
        self._form = replace(self._form, counts=counts[self._form.operation])
        self._routes = {
            key: replace(route, counts=counts[route.operation]) for key, route in self._routes.items()
        }

    def route(self, request: Request) -> Route | None:
        """Returns the route of a request, and sets its `param`; None: it is not for the dashboard."""
        method = "GET" if request.method == "HEAD" else request.method
        if request.path.startswith(_STATIC) and method == "GET":
            request.param = request.path[len(_STATIC) :]
            return self._static
        if request.path.startswith(f"{PREFIX}/") and method == "POST":
            return self._form
        return self._routes.get((method, request.path))
