"""The fast front: HTTP/1.1 by llhttp, straight from the socket to the operations.

One `Connection` per client, an `asyncio.Protocol` on the same loop. Where the answer is at hand nobody pays
for a coroutine, a Task or a header object. Requests of one connection are answered in order; while one of
them waits (a long-poll) the bytes behind it are kept, up to `READ_AHEAD`, so that a hang-up is seen at once.
What is no operation of the API goes to the Tornado application (`bridge`).

llhttp refuses most of what is ambiguous by itself; `Connection` refuses the rest: see `tests/server/manners`.
"""

import asyncio
import socket
import time
from asyncio import Future
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, cast

import httptools
from tornado.web import Application

from jobqueue.errors import (
    BadRequest,
    BodyTooLarge,
    HeadersTooLarge,
    JobQueueError,
    RequestTimeout,
    UnsupportedEncoding,
)  # fmt: skip
from jobqueue.server import deadlines
from jobqueue.server.bridge import Bridge
from jobqueue.web.api import Api
from jobqueue.web.http import REASONS, Later, Request, Response

if TYPE_CHECKING:
    from jobqueue.server.log import AccessLog

# Kept of what a client sends while an earlier request of it waits.
READ_AHEAD = 65536
# Parsed in one go; more comes in a later loop pass, so that one client does not hold up the others.
SLICE = 65536
# Read, and dropped, after a refusal; a client that is cut off while it sends does not see why.
DRAIN_BYTES = 16 << 20
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD_LIMIT = deadlines.MAX_HEAD
# Headers that say how a request is framed; most requests have none of them but a plain length.
_FRAMING = frozenset({b"transfer-encoding", b"expect", b"content-encoding"})


class FastFront:
    name = "fast"

    def __init__(self, api: Api, app: Application, access: "AccessLog") -> None:
        self.api = api
        self.app = app
        self.access = access
        self.open: set[Connection] = set()
        self.draining = False
        self._loop = asyncio.get_running_loop()
        self._accepting: set[asyncio.Task[object]] = set()
        self._heads: dict[tuple[int, str], bytes] = {}
        self._date = formatdate(usegmt=True)

    def take(self, accepted: socket.socket, peer: str) -> None:
        connection = Connection(self, peer, self._loop)
        task = self._loop.create_task(self._connect(connection, accepted))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _connect(self, connection: "Connection", accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:
            accepted.close()

    def connections(self) -> int:
        return len(self.open) + len(self._accepting)

    def sweep(self) -> None:
        self._date = formatdate(usegmt=True)
        self._heads.clear()
        now = time.monotonic()
        for connection in list(self.open):
            connection.check_deadline(now)

    def drain(self) -> None:
        self.draining = True
        self._heads.clear()
        for connection in list(self.open):
            connection.close_if_idle()

    def busy(self) -> int:
        return sum(connection.busy for connection in self.open)

    def close(self) -> None:
        for connection in list(self.open):
            connection.abort()

    def head(self, status: int, content_type: str) -> bytes:
        """The first lines of an answer, up to where the request id goes; the date is a second's."""
        head = self._heads.get((status, content_type))
        if head is None:
            kind = "" if status == 204 else f"Content-Type: {content_type}\r\n"
            text = f"HTTP/1.1 {status} {REASONS[status]}\r\nDate: {self._date}\r\n{kind}X-Request-Id: "
            head = self._heads[status, content_type] = text.encode("latin-1")
        return head


class Connection(asyncio.Protocol):
    """One client. Reads, answers in order, notices when it is gone."""

    __slots__ = (
        "_backlog", "_blocked", "_body", "_bridge", "_close", "_drained", "_front", "_gone", "_head_bytes",
        "_headers", "_headers_done", "_later", "_lingering", "_loop", "_out", "_parsed", "_parser", "_paused",
        "_peer", "_refusal", "_seen", "_served", "_transport", "_unsent", "_upgrade", "_url",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, front: FastFront, peer: str, loop: asyncio.AbstractEventLoop) -> None:
        self._front = front
        self._peer = peer
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        # the request that is being read
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._headers_done = False
        self._head_bytes = 0
        self._body: bytes | bytearray = b""
        self._upgrade = False
        self._refusal: JobQueueError | None = None
        # what is read, and not yet answered
        self._parsed: deque[tuple[Request, bool, float]] = deque()
        self._later: tuple[Later, Request, bool, float] | None = None
        self._bridge: Bridge | None = None
        self._backlog = bytearray()
        self._paused = False
        # what is answered, and not yet sent
        self._out: list[bytes] = []
        self._blocked = False
        self._unsent: list[Callable[[], None]] = []
        # the end
        self._close = False
        self._lingering = False
        self._drained = 0
        self._gone = False
        # how long it has been as it is
        self._served = 0
        self._seen = (("", -1), 0.0)

    # -- the transport ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._front.open.add(self)
        # So `pause_writing` says that something is unsent, and `resume_writing` that all is sent.
        transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._drained += len(data)
            if self._drained > DRAIN_BYTES:
                self._transport.abort()
        elif self._later is None and not self._backlog and not self._blocked and len(data) <= SLICE:
            self._feed(data)
            if self._parsed or self._refusal is not None:
                self._go_on()
        else:
            waiting = self._waiting
            self._backlog += data
            if not waiting:
                self._loop.call_soon(self._go_on)
            elif len(self._backlog) > READ_AHEAD and not self._paused:
                self._paused = True
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Half of a hang-up is one: whoever waits for an answer keeps its side open."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._front.open.discard(self)
        for give_back in self._unsent:
            give_back()
        self._unsent.clear()
        self._parsed.clear()
        self._backlog.clear()
        if self._later is not None:
            self._later[0].future.cancel()
        if self._bridge is not None:
            self._bridge.hung_up()
        del self._parser  # it holds this connection, which holds it

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._unsent.clear()
        if not self._gone and (self._backlog or self._parsed or self._paused):
            self._loop.call_soon(self._go_on)

    # -- the parser ---------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        if not self._headers_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as bad:
            if not self._close and self._refusal is None:
                self._refusal = BadRequest(f"this is not HTTP/1.1 as it should be: {bad}")
        if not self._headers_done and self._head_bytes > _HEAD_LIMIT and self._refusal is None:
            self._refusal = HeadersTooLarge(f"more than {_HEAD_LIMIT:,} bytes of headers", limit=_HEAD_LIMIT)
        if self._out:
            self._flush()

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers_done:
            return  # a trailer
        name = name.lower()
        headers = self._headers
        if name in headers:
            if name == b"host":
                self._refuse(BadRequest("two Host headers"))
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        self._headers_done = True
        headers = self._headers
        if b"host" not in headers and self._parser.get_http_version() != "1.0":
            self._refuse(BadRequest("no Host header"))
        length = headers.get(b"content-length")
        if length is not None and len(length) > 3 and int(length) > self._front.api.settings.max_body:
            self._refuse(self._too_large())
        if not _FRAMING.isdisjoint(headers):
            self._check_framing(headers)
        if self._parser.should_upgrade():
            self._upgrade = True

    def on_body(self, body: bytes) -> None:
        if len(self._body) + len(body) > self._front.api.settings.max_body:
            self._refuse(self._too_large())
            self._body = b""
        elif self._refusal is None:
            if not self._body:
                self._body = body
            elif isinstance(self._body, bytearray):
                self._body += body
            else:
                self._body = bytearray(self._body) + body

    def on_message_complete(self) -> None:
        if self._refusal is not None or self._close or self._upgrade:
            return
        url = self._url
        path, _, query = url.decode("latin-1").partition("?")
        headers = self._headers
        body = self._body
        api = self._front.api
        request = Request(
            _METHODS.get(method := self._parser.get_method()) or method.decode("latin-1"),
            path, query, headers, body if type(body) is bytes else bytes(body), self._peer,
            api.request_id(headers.get(b"x-request-id")),
        )  # fmt: skip
        close = not self._parser.should_keep_alive()
        self._url = b""
        self._headers = {}
        self._headers_done = False
        self._head_bytes = 0
        self._body = b""
        self._served += 1
        if self._later is None and not self._parsed:
            self._perform(request, close, time.monotonic())
        else:
            self._parsed.append((request, close, time.monotonic()))

    def _check_framing(self, headers: dict[bytes, bytes]) -> None:
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or self._parser.get_http_version() == "1.0"):
            self._refuse(BadRequest("of transfer codings only chunked is understood, and in HTTP/1.1"))
        encoding = headers.get(b"content-encoding", b"").strip().lower()
        if encoding not in (b"", b"identity"):
            shown = encoding[:40].decode("latin-1")
            self._refuse(UnsupportedEncoding(f"the body is encoded as {shown!r}; send it plain"))
        expected = headers.get(b"expect", b"").lower() == b"100-continue"
        if expected and self._refusal is None and self._later is None and not self._parsed:
            self._out.append(_CONTINUE)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Nothing here is upgraded. llhttp stops at the end of the head of such a request, so the head is
        read again without the offer, and then the rest."""
        if self._refusal is not None or self._close:
            return
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(BadRequest("this is no proxy"))
            return
        kept = [
            name + b": " + value for name, value in self._headers.items()
            if name not in (b"upgrade", b"connection")
        ]  # fmt: skip
        head = b"\r\n".join([method + b" " + self._url + b" HTTP/1.1", *kept, b"", b""])
        self._url = b""
        self._headers = {}
        self._headers_done = self._upgrade = False
        self._head_bytes = 0
        self._parser = httptools.HttpRequestParser(self)
        self._feed(head + rest)

    def _too_large(self) -> BodyTooLarge:
        limit = self._front.api.settings.max_body
        return BodyTooLarge(
            f"the body is larger than {limit:,} bytes", limit=limit, setting="JOBQUEUE_MAX_BODY"
        )

    def _refuse(self, error: JobQueueError) -> None:
        """The first reason counts; it is said once what came before it is answered."""
        if self._refusal is None:
            self._refusal = error

    # -- answering ----------------------------------------------------------------------------------

    def _perform(self, request: Request, close: bool, started: float) -> None:
        front = self._front
        answer = front.api.answer(request)
        if type(answer) is Later:
            self._later = (answer, request, close, started)
            answer.future.add_done_callback(self._finished)
        elif answer.status == 404 and not front.api.router.has(request.path):  # type: ignore[union-attr]  # not Later
            self._hand_over(request, close, started)
        else:
            self._answer(answer, request, close, started)  # type: ignore[arg-type]  # not Later

    def _finished(self, future: Future[object]) -> None:
        assert self._later is not None
        later, request, close, started = self._later
        self._later = None
        if future.cancelled():
            self._front.access.request(request.method, request.path, 499, started, 0, self._peer, request.id)
            return
        self._answer(self._front.api.finish(later, request.id), request, close, started)
        self._go_on()

    def _hand_over(self, request: Request, close: bool, started: float) -> None:
        """To the Tornado application, which has what is no operation."""
        self._bridge = Bridge(self._front.app, request, self._transport.write, self._bridged)
        self._bridge.close = close or self._front.draining
        self._bridge.start()

    def _bridged(self) -> None:
        """The application has written its answer."""
        assert self._bridge is not None
        close = self._bridge.close
        self._bridge = None
        if close:
            self._linger()
        else:
            self._loop.call_soon(self._go_on)

    def _answer(self, answer: Response, request: Request, close: bool, started: float) -> None:
        if self._gone:
            if answer.give_back is not None:
                answer.give_back()
            return
        front = self._front
        body = answer.body
        parts = [front.head(answer.status, answer.content_type), request.id.encode("latin-1")]
        for name, value in answer.headers:
            parts.append(f"\r\n{name}: {value}".encode("latin-1"))
        method = request.method
        if method == "GET" or method == "HEAD":
            parts.append(b"\r\nCache-Control: no-store")
        if close or front.draining:
            self._close = True
            parts.append(b"\r\nConnection: close")
        elif b"connection" in request.headers and request.headers[b"connection"].lower() == b"keep-alive":
            parts.append(b"\r\nConnection: keep-alive")
        if answer.status == 204:
            parts.append(b"\r\n\r\n")
        else:
            parts.append(b"\r\nContent-Length: %d\r\n\r\n" % len(body))
            if method != "HEAD":
                parts.append(body)
        self._out.append(b"".join(parts))
        if answer.give_back is not None:
            self._unsent.append(answer.give_back)
        front.access.request(method, request.path, answer.status, started, len(body), self._peer, request.id)

    def _flush(self) -> None:
        out = self._out
        self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()
        if not self._blocked:
            self._unsent.clear()
        if self._close and self._later is None and not self._gone:
            self._linger()

    @property
    def _waiting(self) -> bool:
        """Something must happen before more can be answered."""
        return self._later is not None or self._bridge is not None or self._blocked

    def _go_on(self) -> None:
        """Answers what has been read, then reads what has been kept, until something has to wait."""
        if self._out:
            self._flush()
        while not (self._waiting or self._gone or self._close):
            if self._parsed:
                self._perform(*self._parsed.popleft())
            elif self._refusal is not None:
                self._say_refusal(self._refusal)
            elif self._backlog:
                piece = bytes(self._backlog[:SLICE])
                del self._backlog[:SLICE]
                self._feed(piece)
                if self._backlog and not self._waiting:
                    self._loop.call_soon(self._go_on)
                    break
            else:
                break
            if self._out:
                self._flush()
        if self._paused and not self._gone and len(self._backlog) <= READ_AHEAD and not self._waiting:
            self._paused = False
            self._transport.resume_reading()

    def _say_refusal(self, error: JobQueueError) -> None:
        """The answer to what cannot or will not be read; then the connection ends."""
        api = self._front.api
        method = self._parser.get_method().decode("latin-1") if self._url else "-"
        path = self._url.decode("latin-1").partition("?")[0] or "-"
        id = api.request_id(self._headers.get(b"x-request-id"))
        request = Request(method, path, "", {}, b"", self._peer, id)
        self._answer(api.refuse(error, id), request, True, time.monotonic())

    # -- the end ------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """A request is being read, answered, or sent."""
        return (
            bool(self._waiting or self._parsed or self._backlog or self._url or self._out)
            and not self._lingering
        )

    def close_if_idle(self) -> None:
        if not self.busy and not self._gone:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _linger(self) -> None:
        """No more is written; what the client still sends is read and dropped for a moment, since a socket
        closed on unread bytes takes the answer away from the client."""
        if self._lingering or self._gone:
            return
        self._lingering = True
        self._backlog.clear()
        self._parsed.clear()
        if self._refusal is None:
            self._transport.close()
            return
        self._transport.write_eof()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def check_deadline(self, now: float) -> None:
        """Called once a second. What counts is how long the connection has been in one state."""
        state = self._state()
        if self._seen[0] != (state, self._served):
            self._seen = ((state, self._served), now)
            return
        over = now - self._seen[1] > _DEADLINES[state]
        if not over:
            return
        if state in ("head", "body"):
            self._refuse(RequestTimeout(f"the request did not arrive whole in {_DEADLINES[state]:g} seconds"))
            self._go_on()
        elif state in ("write", "linger"):
            self._transport.abort()
        else:
            self._transport.close()

    def _state(self) -> str:
        if self._lingering:
            return "linger"
        if self._blocked:
            return "write"
        if self._later is not None or self._bridge is not None:
            return "answer"
        if self._headers_done:
            return "body"
        return "head" if self._url or self._head_bytes else "idle"


_METHODS = {name.encode(): name for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")}
_DEADLINES = {
    "head": deadlines.HEAD, "body": deadlines.BODY, "idle": deadlines.IDLE, "write": deadlines.WRITE,
    "linger": deadlines.LINGER, "answer": float("inf"),
}  # fmt: skip
