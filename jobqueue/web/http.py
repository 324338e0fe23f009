"""Request, Response, Later: what passes between a front and an operation. No socket, no framework."""

from asyncio import Future
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

JSON = "application/json"
PROBLEM = "application/problem+json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"

REASONS = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 400: "Bad Request", 401: "Unauthorized",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict",
    410: "Gone", 412: "Precondition Failed", 413: "Content Too Large", 415: "Unsupported Media Type",
    422: "Unprocessable Content", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable", 507: "Insufficient Storage",
}  # fmt: skip


class Request(Struct, gc=False):
    """One request, whole. `headers`: lower-case names to values, both as bytes. `path` and `query` as they
    were sent, percent-encoded; `peer`: the address at the other end of the socket; `param`: the decoded
    `{id}` or `{name}` of the path, set by the router; `version`: of HTTP, for whom it concerns."""

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]
    body: bytes
    peer: str
    id: str
    param: str = ""
    version: str = "HTTP/1.1"

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


class Response(Struct, gc=False):
    """An answer. `headers`: further lines, each led by CRLF, as they are sent. The front adds length, date,
    request id, and `Cache-Control` to what a GET gets. If the client is gone before this could be written, it
    calls `give_back`."""

    status: int
    body: bytes = b""
    headers: bytes = b""
    content_type: str = JSON
    give_back: Callable[[], None] | None = None


class Later(Struct, gc=False):
    """An answer that is not there yet. The front waits on `future`, the engine's own, and answers with
    `render(result)`. If the client hangs up first it cancels `future`; if that was done already, it renders
    and calls the answer's `give_back`."""

    future: Future[Any]
    render: Callable[[Any], Response]
