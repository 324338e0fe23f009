"""SqsRoutes: recognises the requests of AWS SDKs, and answers them by the operations of the actions.

The dispatcher asks it only about requests that no route of the API takes. Each action has a route of its own,
so rights, limits, metrics and the audit log are those of all other calls.
"""

from asyncio import Future
from collections.abc import Mapping
from re import compile, sub
from typing import Any, Final

from msgspec.structs import replace

from jobqueue.engine.api import Engine
from jobqueue.errors import JobQueueError
from jobqueue.web.access.identity import Authenticator, Principal
from jobqueue.web.context import Context
from jobqueue.web.http import Answer, Deferred, Request, Response
from jobqueue.web.request_metrics import Operation
from jobqueue.web.routes import ANY_TOKEN, ENQUEUE, NO_TOKEN, Route
from jobqueue.web.sqs import names, query_protocol, signatures
from jobqueue.web.sqs.actions import ACTIONS, Action
from jobqueue.web.sqs.call import Call, QueueCache
from jobqueue.web.sqs.errors import INVALID_ACTION, MISSING_ACTION, MISSING_TOKEN, SqsError
from jobqueue.web.sqs.json_protocol import PREFIX, TARGET, JsonProtocol
from jobqueue.web.sqs.move_tasks import MoveTasks
from jobqueue.web.sqs.query_protocol import QueryProtocol
from jobqueue.web.sqs.signatures import SigningKeys

_HEALTH: Final = "/_localstack/health"
_FORM: Final = b"application/x-www-form-urlencoded"
_WORDS: Final = compile(r"(?<!^)(?=[A-Z])")
# Actions that are of no queue: the URL of one does not take them.
_OF_ACCOUNT: Final = frozenset({"CreateQueue", "ListQueues"})
# Of an unreadable form: nothing is known of the action.
_NONE: Final = ""


class Performing:
    """The operation of an action. Its name is that of the metrics, such as sqs_send_message."""

    def __init__(self, name: str, action: Action) -> None:
        self.__name__ = "sqs_" + sub(_WORDS, "_", name).lower()
        self._shape = action.shape
        self._perform = action.perform

    def __call__(self, context: Context, request: Request) -> Answer:
        call: Call = request.sqs
        call.context, call.request = context, request
        try:
            return _reply(call, self._perform(call, call.wire.read(call.body, self._shape)))
        finally:
            call.request = None


def _reply(call: Call, result: Any) -> Answer:
    """Returns the answer of what an action returned: an answer already, or its result now or later."""
    if isinstance(result, Future):
        return Deferred(result, call.answer)
    return result if isinstance(result, (Response, Deferred)) else call.answer(result)


def sqs_unknown_action(context: Context, request: Request) -> Answer:
    call: Call = request.sqs
    if not call.action:
        raise SqsError(MISSING_ACTION, "The request must contain the parameter Action.")
    raise SqsError(INVALID_ACTION, f"The action {call.action[:100]} is not valid for this endpoint.")


def sqs_health(context: Context, request: Request) -> Answer:
    return Response(200, b'{"services":{"sqs":"running"},"edition":"community"}\n')


def sqs_no_action(context: Context, request: Request) -> Answer:
    """What AWS says to who fetches the URL of a queue."""
    return Response(404, b"<UnknownOperationException/>\n", b"", "text/xml")


class SqsRoutes:
    """Everything that the requests of all SDKs share. `use` comes before the first of them."""

    def __init__(self, engine: Engine, has_tokens: bool) -> None:
        self._engine = engine
        self._json, self._query = JsonProtocol(), QueryProtocol()
        self._queues, self._tasks, self._keys = QueueCache(), MoveTasks(), SigningKeys()
        self._routes = {
            name: Route(
                "POST",
                PREFIX + name,
                ENQUEUE if action.is_open and not has_tokens else action.right,
                Performing(name, action),
                name,
                {},
            )
            for name, action in ACTIONS.items()
        }
        self._targets = {f"{PREFIX}{name}".encode(): name for name in ACTIONS}
        self._unknown = Route("POST", PREFIX, ANY_TOKEN, sqs_unknown_action, "", {})
        self._health = Route("GET", _HEALTH, NO_TOKEN, sqs_health, "", {})
        self.root = Route("POST", "/", NO_TOKEN, sqs_unknown_action, "", {})
        self._no_action = Route("GET", PREFIX, ANY_TOKEN, sqs_no_action, "", {})

    def operations(self) -> list[Operation]:
        others = (self._unknown, self._health, self._no_action)
        return [route.operation for route in (*self._routes.values(), *others)]

    def use(self, counts: Mapping[Operation, list[int]]) -> None:
        """Has the routes count their answers there."""
        self._routes = {name: _counting(route, counts) for name, route in self._routes.items()}
        self._unknown, self._health = _counting(self._unknown, counts), _counting(self._health, counts)
        self._no_action = _counting(self._no_action, counts)

    def route(self, request: Request) -> Route | None:
        """Returns the route of a request that is for it, and sets its `sqs`; None: it is not."""
        if request.sqs is not None:
            return self._route_of(request.sqs)
        target = request.headers.get(TARGET)
        if target is not None and request.method == "POST":
            action = self._targets.get(target) or _unknown_action(target)
            return self._begin(request, self._json, action, request.body)
        if request.method in ("GET", "HEAD") and request.path == _HEALTH:
            return self._health
        return self._route_of_query(request)

    def _route_of_query(self, request: Request) -> Route | None:
        """Returns the route of a request of the query protocol: a form, or a GET with a query."""
        is_queue = names.queue_of_path(request.path) is not None
        if request.method == "POST":
            kind = request.headers.get(b"content-type", b"")
            if not kind.startswith(_FORM):
                return None
            text = b"&".join(part for part in (request.query.encode("latin-1"), request.body) if part)
        elif request.method == "GET":
            text = request.query.encode("latin-1")
        else:
            return None
        if not is_queue and (request.path != "/" or b"Action=" not in text):
            return None
        try:
            action = query_protocol.fields(text).get("Action", _NONE)
        except JobQueueError:
            action = _NONE
        route = self._begin(request, self._query, action, text)
        if request.method == "GET" and is_queue:
            if not action:
                return self._no_action
            if action in _OF_ACCOUNT:
                return self._unknown
        return route

    def _begin(self, request: Request, wire: JsonProtocol | QueryProtocol, action: str, body: bytes) -> Route:
        request.sqs = Call(request, wire, action, body, self._queues, self._tasks)
        return self._route_of(request.sqs)

    def _route_of(self, call: Call) -> Route:
        return self._routes.get(call.action, self._unknown)

    # -- who calls ----------------------------------------------------------------------------------

    def caller(self, auth: Authenticator[Context], request: Request) -> Principal[Context] | None:
        """Returns the holder of the access token that signed a request; None: it may carry the token itself,
        as a call of the API does. Raises `SqsError`."""
        header = request.header(b"authorization")
        if header is None:
            raise SqsError(
                MISSING_TOKEN,
                "Request is missing Authentication Token: this server has access tokens, so sign the request "
                "with the name of one and its sqs_secret.",
            )
        if not header.startswith(signatures.ALGORITHM):
            return None
        name = signatures.signer_of(request, auth.sqs_secret, self._keys, self._engine.wall_now())
        return auth.named(name)

    def refusal_before_body(self, auth: Authenticator[Context], request: Request) -> JobQueueError | None:
        """Returns why a request whose body has not come is refused; None: it is not, or not yet. The body is
        a part of what is signed, so only the name can be looked at."""
        if self.route(request) is None:
            return None
        signer = signatures.credential(request.header(b"authorization") or "")
        try:
            if signer is None:
                self.caller(auth, request)
            elif auth.sqs_secret(signer.key_id) is None:
                signatures.signer_of(request, auth.sqs_secret, self._keys, self._engine.wall_now())
        except JobQueueError as error:
            return error
        return None


def _unknown_action(target: bytes) -> str:
    """Returns how an X-Amz-Target is called that no action has."""
    action = target.decode("latin-1")
    return action.removeprefix(PREFIX) if action.startswith(PREFIX) else "?" + action


def _counting(route: Route, counts: Mapping[Operation, list[int]]) -> Route:
    return replace(route, counts=counts[route.operation])
