"""Request, Response, Deferred, Stream and Upload: what passes between a front and an operation.

This module knows neither sockets nor a framework.
"""

from asyncio import Future
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"
HTML: Final = "text/html; charset=utf-8"
LINES: Final = "application/x-ndjson"
EVENTS: Final = "text/event-stream"

REASONS: Final = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    303: "See Other",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}


class Request:
    """One complete request.

    `headers` maps lower-case names to values, both as bytes. `path` and `query` are as they were sent, still
    percent-encoded. `peer` is the address of the client, `through` that of the proxy if a trusted one passed
    the request on. `param` is the decoded `{id}` or `{name}` of the path, set by the router. `version` is
    that of HTTP. `caller` is the `Principal` that the dispatcher has authenticated; None: no access token.
    `descriptor` is that of the connection's socket, as long as the connection is open; -1: it is not known.
    `sqs` is the call of an AWS SDK that the request is; None: it is one of the API.
    """

    __slots__ = (
        "body",
        "caller",
        "descriptor",
        "headers",
        "id",
        "method",
        "param",
        "path",
        "peer",
        "query",
        "sqs",
        "through",
        "version",
    )

    def __init__(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[bytes, bytes],
        body: bytes,
        peer: str,
        id: str,
        param: str = "",
        version: str = "HTTP/1.1",
        through: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.peer = peer
        self.id = id
        self.param = param
        self.version = version
        self.through = through
        self.caller: Any = None
        self.descriptor = -1
        self.sqs: Any = None

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


class Response:
    """A complete answer.

    `headers` are further header lines, each with a leading CRLF, as they are sent. The front adds length,
    date, request id, and for a GET `Cache-Control` unless they have it. If the client is gone before the
    answer could be written, the front calls `on_undelivered`.
    """

    __slots__ = ("body", "content_type", "headers", "on_undelivered", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        headers: bytes = b"",
        content_type: str = JSON,
        on_undelivered: Callable[[], None] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.content_type = content_type
        self.on_undelivered = on_undelivered


class Deferred:
    """An answer that is not there yet.

    The front waits for `future`, the engine's own, and answers with `render(result)`: a `Response`, or for a
    call that had to be admitted first any answer but an `Upload`. If the client hangs up
    first, the front cancels `future`; if that was done already, it renders and calls the answer's
    `on_undelivered`. `is_long_poll`: it waits for a job that may come late or never. `began` and `operation`
    are for the request metrics. `reads`: `render` may read from the engine, see `Engine.run`; if False, only
    for an empty result.
    """

    __slots__ = ("began", "future", "is_long_poll", "operation", "reads", "render")

    def __init__(
        self,
        future: Future[Any],
        render: Callable[[Any], Any],
        is_long_poll: bool = False,
        began: float = 0.0,
        operation: Callable[..., Any] | None = None,
        reads: bool = True,
    ) -> None:
        self.future = future
        self.reads = reads
        self.render = render
        self.is_long_poll = is_long_poll
        self.began = began
        self.operation = operation


class Stream:
    """An answer in pieces, perhaps without end.

    Each piece is written before the next one is requested. Nothing has happened before the first piece is
    requested. `stop()`: the server stops, send no more than is due. `gone()`: the client hung up; it also
    takes back what the client was given. Both must let `pieces` end soon. `late()`: the client reads too
    slowly and is to be disconnected. `good()`: the caller may still be served. These two are checked once a
    second; `good` also at the moment at which tokens become invalid. `large`: its pieces may be large, so it
    waits while too much is unread.
    """

    __slots__ = ("content_type", "gone", "good", "headers", "large", "late", "pieces", "status", "stop")

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        stop: Callable[[], None],
        gone: Callable[[], None],
        content_type: str = LINES,
        headers: bytes = b"",
        late: Callable[[], bool] | None = None,
        good: Callable[[], bool] | None = None,
        status: int = 200,
        large: bool = False,
    ) -> None:
        self.pieces = pieces
        self.stop = stop
        self.gone = gone
        self.content_type = content_type
        self.headers = headers
        self.late = late
        self.good = good
        self.status = status
        self.large = large


class Upload:
    """An answer to a body of any length, which is processed piece by piece.

    The next piece is read when `take` is done. `end` returns the answer. Either may raise. Nothing has
    happened before the first piece. `held()` returns the bytes that are kept between two pieces. `good()`
    tells whether the caller may still be served; it is checked before each piece.
    """

    __slots__ = ("end", "good", "held", "take")

    def __init__(
        self,
        take: Callable[[bytes], Awaitable[None]],
        end: Callable[[], Awaitable[Response]],
        held: Callable[[], int],
        good: Callable[[], bool] | None = None,
    ) -> None:
        self.take = take
        self.end = end
        self.held = held
        self.good = good


Answer: TypeAlias = Response | Deferred | Stream | Upload
