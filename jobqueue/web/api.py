"""Api: what a front needs to answer requests: the routes, an engine, and the one place where errors become
answers."""

import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from math import ceil
from time import monotonic
from typing import NamedTuple

from msgspec.structs import replace
from prometheus_client.core import Metric

from jobqueue.engine.api import Engine
from jobqueue.errors import (
    BodyTooLarge,
    JobQueueError,
    NotReady,
    TooManyRequests,
    UnsupportedEncoding,
)
from jobqueue.version import VERSION
from jobqueue.web.access.audit import audited
from jobqueue.web.access.authorized_engine import AuthorizedEngine
from jobqueue.web.access.browser_policy import BrowserPolicy, check_administrator
from jobqueue.web.access.identity import Authenticator, Principal
from jobqueue.web.access.rate_limits import TokenBuckets, network
from jobqueue.web.http import Answer, Deferred, Request, Response, Stream, Upload
from jobqueue.web.openapi import document
from jobqueue.web.readers.admin import Schema
from jobqueue.web.request_metrics import SKIP, TIMED, Operation, RequestMetrics
from jobqueue.web.routes import ROUTES, Route, Router
from jobqueue.web.streams.events import Events
from jobqueue.web.streams.flow import Streams
from jobqueue.web.streams.top import Screen
from jobqueue.web.writers.encoder import Renderer
from jobqueue.web.writers.problems import internal, problem

_log = logging.getLogger("jobqueue")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


# What is answered also while the engine takes no requests.
_ALWAYS = frozenset({"/healthz", "/readyz", "/openapi.json", "/help", "/"})
# Method, path, status, start on the monotonic clock in seconds, bytes of the body, peer, request id.
Access = Callable[[str, str, int, float, int, str, str], None]


class Lag(NamedTuple):
    """How late the loop is: now, at most, milliseconds; how often it stood still."""

    last_ms: float = 0.0
    max_ms: float = 0.0
    stalls: int = 0


# What an Api has; all of it is handed on to the view that one caller gets.
_PARTS = (
    "_documents", "_looks_first", "_rates", "access", "auth", "caller", "connections",
    "engine", "events", "fresh_id", "guard", "lag", "max_connections", "max_connections_by_address",
    "meter", "more_metrics", "renderer", "router", "running", "schema", "screen", "settings", "started",
    "started_at", "streams", "version",
)  # fmt: skip


class Api:
    """`connections`, `max_connections` and `access` are the server's to set; without one there are none.
    `auth`: None: everybody may call. `caller`: for whom this is a view of the whole."""

    __slots__ = _PARTS

    def __init__(self, engine: Engine, whole: "Api | None" = None, caller: Principal | None = None) -> None:
        """`whole`: what this is a view of, for `caller`; all but the engine and the screen is shared."""
        if whole is not None:
            for name in _PARTS:
                setattr(self, name, getattr(whole, name))
            self.caller = caller
            self.engine = engine
            self.screen = Screen(self)
            return
        self.caller = None
        self.engine = engine
        self.settings = engine.settings
        self.version = VERSION
        self.guard = BrowserPolicy(self.settings)
        self.schema = Schema(engine.settings)
        self.renderer = Renderer(engine)
        self.streams = Streams(engine)
        self.events = Events(engine)
        self.screen = Screen(self)
        self.started = time.monotonic()
        self.started_at = time.time_ns() // 1_000_000
        tokens = self.settings.access_token is not None or self.settings.tokens_file is not None
        self.auth = Authenticator(self.settings, engine.wall_now) if tokens else None
        self.connections: Callable[[], int | None] = lambda: None
        self.lag: Callable[[], Lag | None] = lambda: None
        self.max_connections: int | None = None
        self.max_connections_by_address: int | None = None
        rate = self.settings.rate
        self._rates = TokenBuckets(rate, max(rate, 1)) if rate is not None else None
        in_memory = engine.durability == "memory"  # and so never refuses
        self._looks_first = rate is not None or self.guard.proxies is not None or not in_memory
        self.access: Access | None = None
        self.meter = RequestMetrics(route.operation for route in ROUTES)
        counts = self.meter.counts
        self.router = Router(tuple([replace(route, counts=counts[route.operation]) for route in ROUTES]))
        # Figures of whoever has more of them than are known here.
        self.more_metrics: list[Callable[[], Iterable[Metric]]] = []
        # Requests that Tornado's handlers have begun and not ended.
        self.running = 0
        new_id = f"{os.urandom(4).hex()}-%d".__mod__
        self._documents: list[bytes] = []  # one, once it was asked for
        self.fresh_id: Callable[[], str] = map(new_id, itertools.count(1)).__next__  # no frame of Python

    def answer(self, request: Request) -> Answer:
        """Never raises: a refusal is a problem document, a bug is logged with its traceback and is a 500."""
        try:
            route, request.param = self.router.find(request.method, request.path)
        except JobQueueError as error:
            if request.method == "OPTIONS" and (preflight := self.guard.preflight(request)) is not None:
                return preflight
            answer = self.failed(error, request.id)
            self.meter.count(None, answer.status)
            return self.guard.dress(request, answer)
        return self.perform(route, request, False, monotonic(), None)

    def perform(
        self,
        route: Route,
        request: Request,
        from_program: bool,
        began: float,
        permitted: dict[Operation, "Api"] | None,
    ) -> Answer:
        """`answer`, where the front knows the route already, and perhaps that no browser sent this, when it
        came (monotonic seconds), and the `permitted` of the principal whose token it carries.
        Never raises."""
        operation = route.operation
        answer: Answer
        try:
            if self._looks_first:
                self._look_first(route, request)
            if not from_program:
                self.guard.check(request)
            if permitted is not None and (api := permitted.get(operation)) is not None:
                answer = operation(api, request)
            elif self.auth is not None:
                answer = self._perform_for(self.auth, route, request)
            elif route.admin:
                if not self.settings.open_admin:
                    check_administrator(request.peer, request.headers)
                answer = audited(operation(self, request), request, "")
            else:
                answer = operation(self, request)
        except Exception as error:
            answer = self.failed(error, request.id)
        if not from_program:
            answer = self.guard.dress(request, answer)
        if type(answer) is Response:  # as `RequestMetrics.count` does
            counts, status = route.counts, answer.status
            counts[status] = number = counts[status] + 1
            if number < TIMED or not number & SKIP:
                self.meter.time(operation, number, monotonic() - began)
        elif isinstance(answer, Deferred):
            answer.began, answer.operation = began, operation
            if self.auth is not None and (who := self.auth.caller(request)) is not None:
                who.waits(answer.future, self.engine)
        elif isinstance(answer, (Stream, Upload)) and self.auth is not None:
            answer.good = self.auth.lasting(request)
        return answer

    def _locate(self, request: Request) -> None:
        """Where it comes from, if a proxy that is believed says so."""
        proxies = self.guard.proxies
        if proxies is not None:
            request.through = request.peer
            request.peer = proxies.client(request.peer, request.headers)

    def _look_first(self, route: Route, request: Request) -> None:
        """What not every server has to ask. So many requests a second for each access token; where there is
        none, for each address."""
        if self.engine.refuses is not None and route.path not in _ALWAYS:
            raise NotReady(self.engine.refuses, retry_after=1)
        self._locate(request)
        rates = self._rates
        if rates is None or route.path in _ALWAYS:
            return
        who = self.auth.caller(request) if self.auth is not None else None
        key = f"{who.name} by token" if who is not None else network(request.peer)
        if wait := rates.take(key, monotonic()):
            raise TooManyRequests(
                f"more than {self.settings.rate:,} requests a second",
                limit=self.settings.rate, setting="JOBQUEUE_RATE", retry_after=ceil(wait),
            )  # fmt: skip

    def _perform_for(self, auth: Authenticator, route: Route, request: Request) -> Answer:
        """The call is made with what the caller's token may see in the place of all."""
        who = auth.check(route, request)
        if who is None:
            return route.operation(self, request)
        api = who.api
        if api is None:
            api = who.api = Api(AuthorizedEngine(self.engine, who), self, who)
        answer = route.operation(api, request)
        if route.admin:
            return audited(answer, request, who.name)
        if who.expires_at is None:
            who.permitted[route.operation] = api  # so it need not be asked again whether it may
        return answer

    def refuse(self, error: JobQueueError, request: Request) -> Response:
        """The answer to a request that a front could not or would not read. What is wrong with its body does
        not matter where there is nothing to send one to, or where its sender may not."""
        self._locate(request)
        if isinstance(error, (BodyTooLarge, UnsupportedEncoding)):
            try:
                route, _ = self.router.find(request.method, request.path)
                if self.auth is not None:
                    self.auth.check(route, request)
            except JobQueueError as before:
                error = before
        answer = self.guard.dress(request, problem(error, request.id))
        assert isinstance(answer, Response)
        self.meter.count(None, answer.status)
        return answer

    def streamed(self, request: Request, status: int) -> None:
        """A Stream or an Upload has ended so."""
        route, _ = self.router.find(request.method, request.path)
        self.meter.count(route.operation, status)
        if route.admin:
            who = self.auth.caller(request) if self.auth is not None else None
            audited(Response(status), request, who.name if who is not None else "")

    def finish(self, later: Deferred, request_id: str) -> Response:
        """The answer of a `Deferred` whose future is done, and not cancelled."""
        try:
            answer = later.render(later.future.result())
        except Exception as error:
            answer = self.failed(error, request_id)
        self.meter.count(later.operation, answer.status, monotonic() - later.began)
        return answer

    def failed(self, error: Exception, request_id: str) -> Response:
        if isinstance(error, JobQueueError):
            return problem(error, request_id)
        _log.error("unexpected error rid=%s", request_id, exc_info=error)
        return internal(request_id)

    def request_id(self, sent: bytes | None) -> str:
        """The client's own id if it is a plain one, else a new one."""
        if sent is not None and _REQUEST_ID.fullmatch(sent):
            return sent.decode("ascii")
        return self.fresh_id()

    @property
    def may_use_all(self) -> bool:
        """Is it for callers who may see all queues?"""
        return self.caller is None or self.caller.token.queues is None

    @property
    def document(self) -> bytes:
        """The OpenAPI document; made when it is first asked for."""
        if not self._documents:
            self._documents.append(document(self.schema, self.settings, self.version))
        return self._documents[0]
