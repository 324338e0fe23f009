"""Bridge: one request of the fast front, answered by the Tornado application.

Uses what Tornado documents for this: `HTTPServerConnectionDelegate.start_request`, an `HTTPMessageDelegate`
to be fed, an `HTTPConnection` to be written to.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPOutputError,
    RequestStartLine,
    ResponseStartLine,
)  # fmt: skip
from tornado.iostream import StreamClosedError
from tornado.web import Application

from jobqueue.errors import BadRequest
from jobqueue.web.http import Request


class _Context:
    """What `HTTPServerRequest` asks of where a request came from."""

    def __init__(self, peer: str) -> None:
        self.remote_ip = peer
        self.protocol = "http"


class Client(Protocol):
    """The connection of the fast front, as far as a bridge knows it."""

    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...

    def feed_bridge(self) -> None:
        """The bridge is hungry."""

    def bridged(self, error: BadRequest | None = None) -> None:
        """The answer is whole; or the application could not read the request and has answered nothing."""


class Bridge(HTTPConnection):
    """`close`: the connection ends with the answer. `blocked`: what is written waits for the client.
    `upload`: the body is not in the request; it comes by `feed` while this is `hungry`."""

    def __init__(
        self, app: Application, request: Request, client: Client, blocked: bool, upload: bool = False
    ) -> None:
        self.context = _Context(request.through or request.peer)
        self.no_keep_alive = False
        self.close = False
        self._blocked = blocked
        self._request = request
        self._client = client
        self._delegate = app.start_request(self, self)
        self._chunked = False
        self._left: int | None = None  # bytes still to come of the length that was said
        self._written: list[asyncio.Future[None]] = []
        self._over = False
        self.hungry = False
        self._upload = upload
        self.asked = not upload  # by the front, what the API says to the request
        self._pieces = bytearray()  # of an upload, not taken yet
        self._taking = True  # until the application has looked at the headers
        self._whole = False
        self._on_close: Callable[[], Any] | None = None

    def start(self) -> None:
        request = self._request
        target = request.path + ("?" + request.query if request.query else "")
        try:
            headers = HTTPHeaders()
            for name, value in request.headers.items():
                headers.add(name.decode("latin-1"), value.decode("latin-1").strip())
            ready = self._delegate.headers_received(
                RequestStartLine(request.method, target, request.version), headers
            )
        except HTTPInputError as bad:
            self._refuse(bad)
            return
        if ready is None:
            self._feed()
        else:
            asyncio.ensure_future(ready).add_done_callback(lambda _: self._feed())

    def feed(self, piece: bytes) -> None:
        self._pieces += piece
        self._take_next()

    def end_of_body(self) -> None:
        self._whole = True
        self._take_next()

    def _take_next(self) -> None:
        """One piece after the other, each once the one before is taken."""
        if self._taking or self._over:
            return
        if self._pieces:
            piece = bytes(self._pieces)
            self._pieces.clear()
            taken = self._delegate.data_received(piece)
            if taken is not None:
                self._taking = True
                self.hungry = False
                asyncio.ensure_future(taken).add_done_callback(self._took)
                return
        if self._whole:
            self.hungry = False
            self._end()
        elif not self.hungry:
            self.hungry = True
            self._client.feed_bridge()

    def _took(self, _: object) -> None:
        self._taking = False
        self._take_next()

    def _feed(self) -> None:
        if self._over:
            return  # it was answered before the body was asked for
        if self._upload:
            self._took(None)
            return
        try:
            taken = self._delegate.data_received(self._request.body) if self._request.body else None
        except HTTPInputError as bad:
            self._refuse(bad)
            return
        if taken is None:
            self._end()
        else:
            asyncio.ensure_future(taken).add_done_callback(lambda _: self._end())

    def _end(self) -> None:
        if self._over:
            return
        try:
            self._delegate.finish()
        except HTTPInputError as bad:
            self._refuse(bad)

    def _refuse(self, bad: HTTPInputError) -> None:
        self._let_go()
        self._client.bridged(BadRequest(f"the request cannot be read: {bad}"))

    # -- what the client does -----------------------------------------------------------------------

    def pause(self) -> None:
        self._blocked = True

    def resume(self) -> None:
        """The client has taken all that was written."""
        self._blocked = False
        self._go_on_writing()

    def abort(self) -> None:
        """For the application: cuts the connection."""
        self._client.abort()

    def set_max_body_size(self, _: int) -> None:
        """The front has its own limits."""

    def set_body_timeout(self, _: float) -> None: ...

    def hung_up(self) -> None:
        self._over = True
        for future in self._written:
            _fail(future)
        self._written.clear()
        self._delegate.on_connection_close()
        if self._on_close is not None:
            self._on_close()
        self._let_go()

    # -- HTTPConnection -----------------------------------------------------------------------------

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "asyncio.Future[None]":
        assert isinstance(start_line, ResponseStartLine)
        length = headers.get("Content-Length")
        if self._request.method == "HEAD" or start_line.code in (204, 304):
            self._left = 0
        elif length is not None:
            self._left = int(length)
        elif self._request.version == "HTTP/1.0":
            self.close = True  # only the end of the connection can end the answer
        else:
            self._chunked = True
            headers["Transfer-Encoding"] = "chunked"
        if self.close:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {start_line.code} {start_line.reason}"]
        lines += [f"{name}: {value}" for name, value in headers.get_all()]
        return self._send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self._framed(chunk))

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        return self._send(self._framed(chunk))

    def write_now(self, chunk: bytes) -> bool:
        """Writes; True if nothing of it is left to wait for. `write` then waits with no bytes."""
        if self._over:
            raise StreamClosedError
        self._client.write(self._framed(chunk))
        return not self._blocked

    def finish(self) -> None:
        if self._left:
            self._client.abort()
            raise HTTPOutputError(f"{self._left} bytes less than Content-Length says")
        if self._chunked:
            self._send(b"0\r\n\r\n")
        if not self._over:
            self._let_go()
            self._client.bridged()

    def _let_go(self) -> None:
        """What it knows of the application leads back to it."""
        self._over = True
        self._on_close = None
        del self._delegate

    def set_close_callback(self, callback: Callable[[], Any] | None) -> None:
        self._on_close = callback

    def _framed(self, chunk: bytes | None) -> bytes:
        if not chunk:
            return b""
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                self._client.abort()
                raise HTTPOutputError("more bytes than Content-Length says")
        return b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk

    def _send(self, data: bytes) -> "asyncio.Future[None]":
        """Done once the client has taken it; never in this loop pass, or a stream held up all others."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self._over:
            _fail(future)
            return future
        if data:
            self._client.write(data)
        self._written.append(future)
        loop.call_soon(self._go_on_writing)
        return future

    def _go_on_writing(self) -> None:
        if not self._blocked:
            written, self._written = self._written, []
            for future in written:
                if not future.done():
                    future.set_result(None)


def _fail(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_exception(StreamClosedError())
        future.exception()  # not every handler waits for what it writes
