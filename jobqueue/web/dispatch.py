"""Dispatcher: answers requests. It is the one place where callers are checked and errors become answers."""

import itertools
import logging
import os
import re
from collections.abc import Callable
from math import ceil
from time import monotonic
from typing import Any

from msgspec.structs import replace

from jobqueue.engine.api import Engine
from jobqueue.errors import (
    BodyTooLarge,
    JobQueueError,
    NotReady,
    TooManyRequests,
    UnsupportedEncoding,
)
from jobqueue.web.access.audit import audited
from jobqueue.web.access.authorized_engine import AuthorizedEngine
from jobqueue.web.access.browser_policy import BrowserPolicy, check_administrator
from jobqueue.web.access.identity import Authenticator, Principal
from jobqueue.web.access.rate_limits import TokenBuckets, network
from jobqueue.web.context import Context
from jobqueue.web.http import Answer, Deferred, Request, Response, Stream, Upload
from jobqueue.web.openapi import document
from jobqueue.web.readers.all import Readers
from jobqueue.web.request_metrics import SKIP, TIMED, Operation, RequestMetrics
from jobqueue.web.routes import ADMIN, ROUTES, Route, Router
from jobqueue.web.server_info import ServerInfo
from jobqueue.web.streams.events import Events
from jobqueue.web.streams.flow import Streams
from jobqueue.web.writers.encoder import Renderer
from jobqueue.web.writers.problems import internal, problem

_log = logging.getLogger("jobqueue")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


# What is answered also while the engine takes no requests.
_ALWAYS = frozenset({"/healthz", "/readyz", "/openapi.json", "/help", "/"})
# Method, path, status, start on the monotonic clock in seconds, bytes of the body, peer, request id.
Access = Callable[[str, str, int, float, int, str, str], None]


class Dispatcher:
    """Answers requests: finds the route, checks the caller, calls the operation, turns errors into answers.

    The program that serves sets `access`, which writes the access log. `auth` is None if the server has no
    access tokens. `context` serves callers without a token; each token gets one of its own.
    """

    __slots__ = (
        "_documents", "_has_checks", "_rates", "access", "auth", "browser_policy", "context", "engine",
        "fresh_id", "meter", "router", "running", "server", "settings", "streams",
    )  # fmt: skip

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.browser_policy = BrowserPolicy(self.settings)
        self.streams = Streams(engine)
        has_tokens = self.settings.access_token is not None or self.settings.tokens_file is not None
        self.auth = Authenticator(self.settings, engine.wall_now) if has_tokens else None
        self.meter = RequestMetrics(route.operation for route in ROUTES)
        counts = self.meter.counts
        self.router = Router(tuple([replace(route, counts=counts[route.operation]) for route in ROUTES]))
        self.server = ServerInfo(self.meter, has_tokens, self._document)
        self.context = Context(
            engine, None, self.settings, Readers(self.settings), Renderer(engine), Events(engine),
            self.server, self.browser_policy,
        )  # fmt: skip
        rate = self.settings.rate
        self._rates = TokenBuckets(rate, max(rate, 1)) if rate is not None else None
        in_memory = engine.durability == "memory"  # such an engine always takes requests
        self._has_checks = rate is not None or self.browser_policy.proxies is not None or not in_memory
        self.access: Access | None = None
        # Requests that Tornado's handlers have begun and not ended.
        self.running = 0
        new_id = f"{os.urandom(4).hex()}-%d".__mod__
        self._documents: list[bytes] = []  # one, once it was requested
        self.fresh_id: Callable[[], str] = map(new_id, itertools.count(1)).__next__  # no Python frame

    def answer(self, request: Request) -> Answer:
        """Returns the answer to a request. Never raises.

        A refusal becomes a problem document. A bug is logged with its traceback and becomes a 500.
        """
        try:
            route, request.param = self.router.find(request.method, request.path)
        except JobQueueError as error:
            if (
                request.method == "OPTIONS"
                and (preflight := self.browser_policy.preflight(request)) is not None
            ):
                return preflight
            answer = self.failed(error, request.id)
            self.meter.count(None, answer.status)
            return self.browser_policy.add_headers(request, answer)
        return self.perform(route, request, False, monotonic(), None)

    def perform(
        self,
        route: Route,
        request: Request,
        from_program: bool,
        began: float,
        permitted: dict[Operation, Any] | None,
    ) -> Answer:
        """Returns the answer to a request whose route is known. Never raises.

        `from_program` means that no browser sent it. `began` is when it came, in seconds of the monotonic
        clock. `permitted` is that of the principal whose token the request carries, if the front knows it.
        """
        operation = route.operation
        answer: Answer
        try:
            if self._has_checks:
                self._check_first(route, request)
            if not from_program:
                self.browser_policy.check(request)
            if permitted is not None and (context := permitted.get(operation)) is not None:
                request.caller = context.caller
                answer = operation(context, request)
            elif self.auth is not None:
                answer = self._perform_for(self.auth, route, request)
            elif route.right == ADMIN:
                if not self.settings.open_admin:
                    check_administrator(request.peer, request.headers)
                answer = audited(operation(self.context, request), request, "")
            else:
                answer = operation(self.context, request)
        except Exception as error:
            answer = self.failed(error, request.id)
        if not from_program:
            answer = self.browser_policy.add_headers(request, answer)
        if type(answer) is Response:  # inlined from `RequestMetrics.count`
            counts, status = route.counts, answer.status
            counts[status] = number = counts[status] + 1
            if number < TIMED or not number & SKIP:
                self.meter.time(operation, number, monotonic() - began)
        elif isinstance(answer, Deferred):
            answer.began, answer.operation = began, operation
            if request.caller is not None:
                request.caller.waits(answer.future, self.engine)
        elif isinstance(answer, (Stream, Upload)) and self.auth is not None and request.caller is not None:
            answer.good = self.auth.validity(request.caller)
        return answer

    def _locate(self, request: Request) -> None:
        """Replaces the peer of a request by the client's address if a trusted proxy reports it."""
        proxies = self.browser_policy.proxies
        if proxies is not None:
            request.through = request.peer
            request.peer = proxies.client(request.peer, request.headers)

    def _check_first(self, route: Route, request: Request) -> None:
        """Makes the checks that not every server needs.

        Raises `NotReady` while the engine accepts no requests, and `TooManyRequests` beyond the rate of an
        access token or, without one, of an address.
        """
        if self.engine.refuses is not None and route.path not in _ALWAYS:
            raise NotReady(self.engine.refuses, retry_after=1)
        self._locate(request)
        rates = self._rates
        if rates is None or route.path in _ALWAYS:
            return
        who = self._caller(request)
        key = f"{who.name} by token" if who is not None else network(request.peer)
        if wait := rates.take(key, monotonic()):
            raise TooManyRequests(
                f"more than {self.settings.rate:,} requests a second",
                limit=self.settings.rate, setting="JOBQUEUE_RATE", retry_after=ceil(wait),
            )  # fmt: skip

    def _perform_for(self, auth: Authenticator, route: Route, request: Request) -> Answer:
        """Serves a request with what the caller's token may see."""
        caller = request.caller = auth.check(route.right, request)
        if caller is None:
            return route.operation(self.context, request)
        context = caller.context
        if context is None:
            context = self.context.for_caller(AuthorizedEngine(self.engine, caller), caller)
            caller.context = context
        answer = route.operation(context, request)
        if route.right == ADMIN:
            return audited(answer, request, caller.name)
        if caller.expires_at is None:
            caller.permitted[route.operation] = context  # the next call need not be checked again
        return answer

    def _caller(self, request: Request) -> Principal | None:
        """Returns the caller of a request; finds out who it is at most once."""
        if request.caller is None and self.auth is not None:
            request.caller = self.auth.caller(request)
        caller: Principal | None = request.caller
        return caller

    def refuse(self, error: JobQueueError, request: Request) -> Response:
        """Returns the answer to a request that a front could not or would not read.

        An unknown path, or a caller without the right, is reported before what is wrong with the body.
        """
        self._locate(request)
        if isinstance(error, (BodyTooLarge, UnsupportedEncoding)):
            try:
                route, _ = self.router.find(request.method, request.path)
                if self.auth is not None:
                    self.auth.check(route.right, request)
            except JobQueueError as before:
                error = before
        answer = self.browser_policy.add_headers(request, problem(error, request.id))
        assert isinstance(answer, Response)
        self.meter.count(None, answer.status)
        return answer

    def streamed(self, request: Request, status: int) -> None:
        """Counts a Stream or an Upload that has ended, and writes the audit line of an administrative one."""
        route, _ = self.router.find(request.method, request.path)
        self.meter.count(route.operation, status)
        if route.right == ADMIN:
            who = self._caller(request)
            audited(Response(status), request, who.name if who is not None else "")

    def finish(self, later: Deferred, request_id: str) -> Response:
        """Returns the answer of a `Deferred` whose future is done and was not cancelled."""
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
        """Returns the client's own request id if it is well-formed, else a new one."""
        if sent is not None and _REQUEST_ID.fullmatch(sent):
            return sent.decode("ascii")
        return self.fresh_id()

    def _document(self) -> bytes:
        """Returns the OpenAPI document. It is made when it is first requested."""
        if not self._documents:
            self._documents.append(document(self.context.readers, self.settings, self.server.version))
        return self._documents[0]
