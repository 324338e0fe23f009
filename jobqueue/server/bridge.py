"""Bridge: one request of the fast front, answered by the Tornado application.

Uses what Tornado documents for this: `HTTPServerConnectionDelegate.start_request`, an `HTTPMessageDelegate`
to be fed, an `HTTPConnection` to be written to.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from tornado.httputil import HTTPConnection, HTTPHeaders, RequestStartLine, ResponseStartLine
from tornado.web import Application

from jobqueue.web.http import Request


class _Context:
    """What `HTTPServerRequest` asks of where a request came from."""

    def __init__(self, peer: str) -> None:
        self.remote_ip = peer
        self.protocol = "http"


class Bridge(HTTPConnection):
    """`write` sends bytes to the client; `done` is called when the answer is whole. `close`: the connection
    ends with it."""

    def __init__(
        self, app: Application, request: Request, write: Callable[[bytes], None], done: Callable[[], None]
    ) -> None:
        self.context = _Context(request.peer)
        self.no_keep_alive = False
        self.close = False
        self._request = request
        self._write = write
        self._done = done
        self._delegate = app.start_request(self, self)
        self._chunked = False
        self._on_close: Callable[[], Any] | None = None

    def start(self) -> None:
        headers = HTTPHeaders()
        for name, value in self._request.headers.items():
            headers.add(name.decode("latin-1"), value.decode("latin-1"))
        target = self._request.path + ("?" + self._request.query if self._request.query else "")
        ready = self._delegate.headers_received(
            RequestStartLine(self._request.method, target, "HTTP/1.1"), headers
        )
        if ready is None:
            self._feed()
        else:
            asyncio.ensure_future(ready).add_done_callback(lambda _: self._feed())

    def _feed(self) -> None:
        if self._request.body:
            self._delegate.data_received(self._request.body)
        self._delegate.finish()

    def hung_up(self) -> None:
        self._delegate.on_connection_close()
        if self._on_close is not None:
            self._on_close()

    # -- HTTPConnection -----------------------------------------------------------------------------

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "asyncio.Future[None]":
        assert isinstance(start_line, ResponseStartLine)
        bodyless = self._request.method == "HEAD" or start_line.code in (204, 304)
        self._chunked = not bodyless and "Content-Length" not in headers
        if self._chunked:
            headers["Transfer-Encoding"] = "chunked"
        if self.close:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {start_line.code} {start_line.reason}"]
        lines += [f"{name}: {value}" for name, value in headers.get_all()]
        self._write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        return self.write(chunk) if chunk else _done()

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        return _done()

    def finish(self) -> None:
        if self._chunked:
            self._write(b"0\r\n\r\n")
        self._done()

    def set_close_callback(self, callback: Callable[[], Any] | None) -> None:
        self._on_close = callback


def _done() -> "asyncio.Future[None]":
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future
