"""Dispatcher: answers requests. It is the one place where callers are checked and errors become answers."""

import logging
import os
import re
from asyncio import Future
from collections.abc import Callable
from functools import partial
from math import ceil
from time import monotonic
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from jobqueue.advertised import HEADER
from jobqueue.engine.api import Engine
from jobqueue.errors import (
    BodyTooLarge,
    JobQueueError,
    MethodNotAllowed,
    NoSuchRoute,
    NotReady,
    TooManyRequests,
    UnsupportedEncoding,
)
from jobqueue.web.access.administrators import Administrators
from jobqueue.web.access.audit import AuditLog
from jobqueue.web.access.authorized_engine import AuthorizedEngine
from jobqueue.web.access.browser_policy import BrowserPolicy
from jobqueue.web.access.identity import Authenticator, Principal
from jobqueue.web.access.rate_limits import TokenBuckets, network
from jobqueue.web.access.socket_owners import Owner
from jobqueue.web.bytes_in_flight import BytesInFlight
from jobqueue.web.context import Context
from jobqueue.web.dashboard.form_calls import FormCall
from jobqueue.web.dashboard.routes import Dashboard
from jobqueue.web.futures import under_way
from jobqueue.web.http import Answer, Deferred, Request, Response, Stream, Upload
from jobqueue.web.openapi import document
from jobqueue.web.operations.negotiation import asks_for_page
from jobqueue.web.operations.viewers import view
from jobqueue.web.readers.all import Readers
from jobqueue.web.request_metrics import SKIP, TIMED, Operation, RequestMetrics
from jobqueue.web.routes import ADMIN, OWNED, ROUTES, Route, Router
from jobqueue.web.server_info import ServerInfo
from jobqueue.web.sqs.routes import SqsRoutes
from jobqueue.web.streams.events import Events
from jobqueue.web.streams.flow import Streams
from jobqueue.web.writers.encoder import Encoder
from jobqueue.web.writers.problem_pages import problem_page
from jobqueue.web.writers.problems import internal, problem

_log: Final = logging.getLogger("jobqueue")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


# What is answered also while the engine takes no requests.
_ALWAYS: Final = frozenset({"/healthz", "/readyz", "/openapi.json", "/help", "/"})
# Method, path, status, start on the monotonic clock in seconds, bytes of the body, peer, request id.
Access: TypeAlias = Callable[[str, str, int, float, int, str, str], None]


class Dispatcher:
    """Answers requests: finds the route, checks the caller, calls the operation, turns errors into answers.

    The program that serves sets `access`, which writes the access log. `auth` is None if the server has no
    access tokens. `context` serves callers without a token; each token gets one of its own.
    """

    __slots__ = (
        "_documents",
        "_has_checks",
        "_ids",
        "_of_this_run",
        "_rates",
        "_reading",
        "_reads_wait",
        "_root",
        "access",
        "administrators",
        "audit",
        "auth",
        "browser_policy",
        "context",
        "dashboard",
        "engine",
        "in_flight",
        "meter",
        "router",
        "running",
        "server",
        "settings",
        "sqs",
        "streams",
    )

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.browser_policy = BrowserPolicy(self.settings)
        self.in_flight = BytesInFlight(self.settings.memory_limit, self.settings.max_request)
        self.streams = Streams(engine, self.in_flight)
        has_tokens = self.settings.access_token is not None or self.settings.tokens_file is not None
        self.auth: Authenticator[Context] | None = None
        if has_tokens:
            self.auth = Authenticator(self.settings, engine)
            self.auth.on_end = self.streams.check
        self.administrators = Administrators()
        self.audit = AuditLog(engine.wall_now)
        self.sqs = SqsRoutes(engine, has_tokens) if self.settings.sqs == "on" else None
        of_sqs = self.sqs.operations() if self.sqs is not None else []
        self.dashboard = Dashboard(self.auth, self.settings.ui == "on")
        self.meter = RequestMetrics(
            [*[route.operation for route in ROUTES], *of_sqs, *self.dashboard.operations()]
        )
        counts = self.meter.counts
        self.dashboard.use(counts)
        if self.sqs is not None:
            self.sqs.use(counts)
        counted = tuple([replace(route, counts=counts[route.operation]) for route in ROUTES])
        self._root = self.sqs.root if self.sqs is not None else None
        self.router = Router(counted, self._root)
        self.server = ServerInfo(self.meter, has_tokens, self._document, self.audit, self._tokens)
        self.context = Context(
            engine,
            None,
            self.settings,
            Readers(self.settings),
            Encoder(engine.wall, engine.identity, self.settings.max_payload_text),
            Events(engine),
            self.server,
            self.browser_policy,
        )
        rate = self.settings.rate
        self._rates = TokenBuckets(rate, max(rate, 1)) if rate is not None else None
        in_memory = engine.durability == "memory"  # such an engine always takes requests
        self._has_checks = rate is not None or self.browser_policy.proxies is not None or not in_memory
        self.access: Access | None = None
        # Requests that Tornado's handlers have begun and not ended.
        self.running = 0
        self._documents: list[bytes] = []  # one, once it was requested
        self._of_this_run = f"{os.urandom(4).hex()}-"
        self._ids = 0  # given to requests so far
        self._reads_wait = engine.reads_wait
        self._reading = False  # `perform` was called inside of `engine.run`

    def answer(self, request: Request) -> Answer:
        """Returns the answer to a request. Never raises.

        A refusal becomes a problem document. A bug is logged with its traceback and becomes a 500.
        """
        if request.path == "/" and self.sqs is not None and (request.method == "POST" or request.query):
            called = self.sqs.route(request)
            if called is not None:
                return self._answer_sqs(called, request, False)
        try:
            route, request.param = self.router.find(request.method, request.path)
        except JobQueueError as error:
            if (form := self.dashboard.form_call(request)) is not None:
                return self._answer_form(form)
            if (shown := self.dashboard.route(request)) is not None:
                return self.perform(shown, request, False, monotonic(), None)
            if self.sqs is not None and (called := self.sqs.route(request)) is not None:
                return self._answer_sqs(called, request, False)
            if (
                request.method == "OPTIONS"
                and (preflight := self.browser_policy.preflight(request)) is not None
            ):
                return preflight
            answer = self._failure_response(error, request)
            self.meter.count(None, answer.status)
            return self.browser_policy.add_headers(request, answer)
        return self.perform(route, request, False, monotonic(), None)

    def _answer_form(self, form: FormCall) -> Answer:
        """Answers a form of a page by the call that it makes."""
        answer = self.answer(form.request)
        caller = form.request.caller
        context = caller.context if caller is not None else None
        shown: Answer = form.shown(answer, context or self.context)
        return shown

    def _answer_sqs(self, route: Route, request: Request, from_program: bool) -> Answer:
        """Answers a call of an AWS SDK. Who signed it is known before its right is checked."""
        if self.auth is not None and self.sqs is not None and route.right is not None:
            try:
                request.caller = self.sqs.caller(self.auth, request)
            except JobQueueError as refused:
                error = refused
                try:  # guesses count, too
                    if self._has_checks:
                        self._check_first(route, request)
                except JobQueueError as first:
                    error = first
                answer = self._failure_response(error, request)
                self.meter.count(route.operation, answer.status)
                return self.browser_policy.add_headers(request, answer)
        return self.perform(route, request, from_program, monotonic(), None)

    def perform(
        self,
        route: Route,
        request: Request,
        from_program: bool,
        began: float,
        permitted: dict[Operation, Context] | None,
    ) -> Answer:
        """Returns the answer to a request whose route is known. Never raises.

        `from_program` means that no browser sent it. `began` is when it came, in seconds of the monotonic
        clock. `permitted` is that of the principal whose token the request carries, if the front knows it.
        """
        if self._reads_wait and not self._reading and not (route.direct and self._is_direct(route, request)):
            return self._perform_reading(route, request, from_program, began, permitted)
        if route is self._root:
            called = self.sqs.route(request) if self.sqs is not None else None
            if called is None:
                return self.answer(request)
            return self._answer_sqs(called, request, from_program)
        operation = route.operation
        answer: Answer
        try:
            if self._has_checks:
                self._check_first(route, request)
            if not from_program:
                self.browser_policy.check(request)
            if permitted is not None and (context := permitted.get(operation)) is not None:
                caller = request.caller = context.caller
                if caller is not None:
                    caller.last_used = began
                answer = operation(context, request)
            elif self.auth is not None:
                answer = self._perform_for(self.auth, route, request, began)
            elif route.right == ADMIN:
                answer = self._perform_administrative(route, request)
            else:
                answer = operation(self.context, request)
        except Exception as error:
            answer = self._failure_response(error, request)
        if not from_program:
            answer = self.browser_policy.add_headers(request, answer)
        if self._has_checks and self.browser_policy.proxies is not None:
            answer = self.browser_policy.add_prefix(request, answer)
        if type(answer) is Response:  # inlined from `RequestMetrics.count`
            counts, status = route.counts, answer.status
            counts[status] = number = counts[status] + 1
            if number < TIMED or not number & SKIP:
                self.meter.time(operation, number, monotonic() - began)
        elif isinstance(answer, Deferred):
            answer.began, answer.operation = began, operation
            if request.caller is not None:
                request.caller.waits(answer.future, self.engine)
                if request.caller.expires_at is not None and self.auth is not None:
                    self.auth.watch_expiry(request.caller)
        elif isinstance(answer, (Stream, Upload)) and self.auth is not None and request.caller is not None:
            answer.good = self.auth.validity(request.caller, request)
            self.auth.watch_expiry(request.caller)
        return answer

    def _is_direct(self, route: Route, request: Request) -> bool:
        """Returns whether what a direct operation reads before it returns is here."""
        return not route.path.startswith("/jobs/{") or self.engine.owns(request.param)

    def _perform_reading(self, *arguments: Any) -> Answer:
        """Performs a request whose reads may have to ask other servers."""
        self._reading = True
        try:
            answer: Any = self.engine.run(partial(self.perform, *arguments))
        finally:
            self._reading = False
        return Deferred(answer, _unchanged) if isinstance(answer, Future) else answer

    def _perform_administrative(self, route: Route, request: Request) -> Answer:
        """Serves an administrative call on a server without access tokens."""
        owner = None if self.settings.open_admin else self.administrators.check(request)
        if owner is None:
            return self._administer(route, request, None)
        if route.upload:
            return self._take_after(owner, self._administer(route, request, None))
        return Deferred(owner, partial(self._administer, route, request))

    def _administer(self, route: Route, request: Request, owner: Owner | None) -> Answer:
        """`owner`: of the client's socket, if that decides."""
        self.administrators.check_owner(owner)
        answer = route.operation(self.context, request)
        return self.audit.audited(answer, request, "") if route.audited else answer

    def _take_after(self, owner: Future[Owner], answer: Answer) -> Answer:
        """Returns an upload of which nothing is taken before it is known that the owner may administer."""
        assert isinstance(answer, Upload)
        take, end, check = answer.take, answer.end, self.administrators.check_owner

        async def take_after(piece: bytes) -> None:
            check(await owner)
            await take(piece)

        async def end_after() -> Response:
            check(await owner)
            return await end()

        return Upload(take_after, end_after, answer.held)

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
                limit=self.settings.rate,
                setting="JOBQUEUE_RATE",
                retry_after=ceil(wait),
            )

    def _perform_for(
        self, auth: Authenticator[Context], route: Route, request: Request, began: float
    ) -> Answer:
        """Serves a request with what the caller's token may see."""
        caller = request.caller = auth.check(route.right, request)
        if caller is None:
            return route.operation(self.context, request)
        caller.last_used = began
        context = caller.context
        if context is None:
            context = self.context.for_caller(AuthorizedEngine(self.engine, caller), caller)
            caller.context = context
        answer = route.operation(context, request)
        if route.right == ADMIN:
            return self.audit.audited(answer, request, caller.name) if route.audited else answer
        if caller.expires_at is None:
            caller.permitted[route.operation] = context  # the next call need not be checked again
        return answer

    def _caller(self, request: Request) -> Principal[Context] | None:
        """Returns the caller of a request; finds out who it is at most once."""
        if request.caller is None and self.auth is not None:
            request.caller = self.auth.caller(request)
        caller: Principal[Context] | None = request.caller
        return caller

    def refusal_before_body(self, request: Request) -> JobQueueError | None:
        """Returns why a request is refused whose head has arrived, but not its whole body; None: it is not.

        Nothing is kept for a caller that has no valid access token, or not the right to this call.
        """
        if self.auth is None:
            return None
        self._locate(request)
        try:
            route, _ = self.router.find(request.method, request.path)
            self.auth.check(route.right, request)
        except (NoSuchRoute, MethodNotAllowed):
            # Otherwise it is for the answer to the whole request.
            if (shown := self.dashboard.route(request)) is not None:
                return self._refusal_of(shown, request, self.auth)
            return self.sqs.refusal_before_body(self.auth, request) if self.sqs is not None else None
        except JobQueueError as error:
            return error
        return None

    def _refusal_of(
        self, route: Route, request: Request, auth: Authenticator[Context]
    ) -> JobQueueError | None:
        try:
            auth.check(route.right, request)
        except JobQueueError as error:
            return error
        return None

    def without_room(self, answer: Response, request: Request) -> Response:
        """Returns what is sent in the place of a large answer while there is no room for it.

        What was done and cannot be undone is still answered: such an answer is about as large as its request.
        """
        if answer.on_undelivered is None and request.method != "GET":
            return answer
        if answer.on_undelivered is not None:
            answer.on_undelivered()
        return self._failure_response(self.in_flight.refusal(), request)

    def too_large(self) -> BodyTooLarge:
        """Returns the error for a body that is larger than any request may be."""
        limit = self.settings.max_request
        return BodyTooLarge(
            f"the body is larger than {limit:,} bytes", limit=limit, setting="JOBQUEUE_MAX_BODY"
        )

    def refuse(self, error: JobQueueError, request: Request) -> Response:
        """Returns the answer to a request that a front could not or would not read.

        An unknown path, or a caller without the right, is reported before what is wrong with the body.
        """
        self._locate(request)
        if not self._is_sqs(request) and isinstance(error, (BodyTooLarge, UnsupportedEncoding)):
            try:
                route, _ = self.router.find(request.method, request.path)
                if self.auth is not None:
                    self.auth.check(route.right, request)
            except JobQueueError as before:
                error = before
        answer = self.browser_policy.add_headers(request, self._failure_response(error, request))
        assert isinstance(answer, Response)
        self.meter.count(None, answer.status)
        return answer

    def _is_sqs(self, request: Request) -> bool:
        """Tells whether a request that is refused is a call of an AWS SDK."""
        if self.sqs is None:
            return False
        try:
            self.router.find(request.method, request.path)
        except JobQueueError:
            return self.sqs.route(request) is not None
        return False

    def streamed(self, request: Request, status: int) -> None:
        """Counts a Stream or an Upload that has ended, and writes the audit line of an administrative one."""
        route = self.dashboard.route(request)
        if route is None:
            route, _ = self.router.find(request.method, request.path)
        self.meter.count(route.operation, status)
        if route.right == ADMIN:
            who = self._caller(request)
            self.audit.audited(Response(status), request, who.name if who is not None else "")

    def finish(self, later: Deferred, request: Request) -> Answer:
        """Returns the answer of a `Deferred` whose future is done and was not cancelled."""
        try:
            result = later.future.result()
            if later.render is _unchanged:
                performed: Answer = result
                if isinstance(performed, Response):
                    self._name_owner(later.future, request, performed)
                return performed
            if self._reads_wait and (later.reads or not result):
                answer = self.engine.run(partial(later.render, result))
                if isinstance(answer, Future):
                    return Deferred(answer, _rendered, False, later.began, later.operation)
            else:
                answer = later.render(result)
        except Exception as error:
            answer = self.failed_later(error, request)
        if not isinstance(answer, Response):
            if isinstance(answer, Deferred):
                answer.began, answer.operation = later.began, later.operation
            later_answer: Answer = answer
            return later_answer
        if self._reads_wait:
            self._name_owner(later.future, request, answer)
        self.meter.count(later.operation, answer.status, monotonic() - later.began)
        return answer

    def _name_owner(self, call: Future[Any], request: Request, answer: Response) -> None:
        """Names in an answer about queues or jobs the other server that alone has given it."""
        if request.path.startswith(OWNED):
            url = self.engine.answered_by(under_way(call))
            if url is not None:
                answer.headers += f"\r\n{HEADER}: {url}".encode()

    def failed_later(self, error: Exception, request: Request) -> Response:
        """Returns the answer to a request that fails later than in `answer`: a `Deferred`, or an `Upload`."""
        answer = self.browser_policy.add_headers(request, self._failure_response(error, request))
        assert isinstance(answer, Response)
        return answer

    def _failure_response(self, error: Exception, request: Request) -> Response:
        """Returns the answer to a request that failed: a problem document, or in the words of AWS."""
        call = request.sqs
        if call is None:
            return self._shown(self.failed(error, request.id), request)
        if isinstance(error, JobQueueError):
            refusal: Response = call.refuse(error, error.detail)
        else:
            _log.error("unexpected error rid=%s", request.id, exc_info=error)
            refusal = call.refuse(error, f"This is a bug of the server; its log has it as rid={request.id}.")
        return refusal

    def _shown(self, answer: Response, request: Request) -> Response:
        """Returns a problem as a page, if a page was asked for."""
        if self.settings.ui == "off" or not asks_for_page(request):
            return answer
        caller = request.caller
        context = caller.context if caller is not None else None
        return problem_page(view(context or self.context, request), answer)

    def failed(self, error: Exception, request_id: str) -> Response:
        """Returns the same for what no request is known of."""
        if isinstance(error, JobQueueError):
            return problem(error, request_id)
        _log.error("unexpected error rid=%s", request_id, exc_info=error)
        return internal(request_id)

    def request_id(self, sent: bytes | None) -> str:
        """Returns the client's own request id if it is well-formed, else a new one."""
        if sent is not None and _REQUEST_ID.fullmatch(sent):
            return sent.decode("ascii")
        return self.fresh_id()

    def fresh_id(self) -> str:
        """Returns an id for a request that has none."""
        self._ids += 1
        return f"{self._of_this_run}{self._ids}"

    def _tokens(self) -> list[Principal[Context]]:
        """Returns the callers that have an access token."""
        return self.auth.principals() if self.auth is not None else []

    def _document(self) -> bytes:
        """Returns the OpenAPI document. It is made when it is first requested."""
        if not self._documents:
            self._documents.append(document(self.context.readers, self.settings, self.server.version))
        return self._documents[0]


def _unchanged(answer: Answer) -> Answer:
    """Renders what was performed later, and is an answer already."""
    return answer


def _rendered(answer: Answer) -> Answer:
    """Renders what was rendered later. Unlike `_unchanged` it is still to be counted."""
    return answer
