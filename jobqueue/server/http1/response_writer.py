"""Responses and pieces of streams as bytes, on their way to one client."""

import asyncio
from collections.abc import Callable
from typing import Final

from jobqueue.server.http1.front_state import FrontState
from jobqueue.web.bytes_in_flight import SMALL
from jobqueue.web.http import JSON, Request, Response, Stream

# At most this many responses are gathered for one `send`, and none that is longer than this many bytes.
_GATHERED: Final = 64
_GATHERED_BYTES: Final = 8192


class SendQueue:
    """Writers with responses to send at the end of this loop pass.

    Responses of one loop pass leave together: the first one wakes the client's process, and the others find
    it awake. Sending each at once would cost a wake-up each. `suspended`: a batch is being answered, which
    sends the responses to all of its connections itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.suspended = False
        self._loop = loop
        self._writers: list[ResponseWriter] = []

    def add(self, writer: "ResponseWriter") -> None:
        if not self._writers:
            self._loop.call_soon(self._send)
        self._writers.append(writer)

    def _send(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.send()


class ResponseWriter:
    """Writes to one client, and knows which responses the client may not have received.

    `blocked`: the client does not take what is sent to it. `gone`: the connection has ended. `closing`: the
    connection ends after what has been written; `on_flushed` is called once all of it is with the transport.
    """

    __slots__ = (
        "_chunked",
        "_counted",
        "_large",
        "_on_flushed",
        "_out",
        "_queue",
        "_state",
        "_transport",
        "_undelivered",
        "blocked",
        "closing",
        "gone",
    )

    _transport: asyncio.Transport

    def __init__(self, state: FrontState, queue: SendQueue) -> None:
        # Per-connection state
        self._state = state
        self._queue = queue
        self._on_flushed: Callable[[], None] | None = None
        self.blocked = False
        self.gone = False
        self.closing = False
        # Responses of this loop pass, and what to call if those written may not have been received
        self._out: list[bytes] = []
        self._undelivered: list[Callable[[], None]] = []
        self._counted = 0  # unsent bytes, as counted in `state.in_flight`
        self._large = 0  # bytes of what is being written, if it is large
        # Per-response state: the stream being written is in chunks
        self._chunked = False

    def connection_made(self, transport: asyncio.Transport, on_flushed: Callable[[], None]) -> None:
        self._transport = transport
        self._on_flushed = on_flushed

    def connection_lost(self) -> None:
        self.gone = True
        self._count_unsent()
        self._on_flushed = None  # it holds the connection, which holds this writer
        for on_undelivered in self._undelivered:
            on_undelivered()
        self._undelivered.clear()

    def pause(self) -> None:
        """The client does not take what was written to the transport."""
        self.blocked = True
        self._count_unsent()

    def _count_unsent(self) -> None:
        unsent = 0 if self.gone else self._transport.get_write_buffer_size()
        if unsent:
            unsent = max(unsent, self._large)  # the transport keeps the whole until the last byte is taken
        else:
            self._large = 0
        self._state.in_flight.used += unsent - self._counted
        self._counted = unsent
        if unsent and self._state.encrypts and not self.blocked:
            # TLS hands it to the system only at the end of this loop pass
            asyncio.get_running_loop().call_soon(self._count_unsent)

    def resume(self) -> None:
        """The client has taken all that was written to the transport."""
        self.blocked = False
        self._count_unsent()
        if not self._out:
            self._undelivered.clear()

    @property
    def has_unsent(self) -> bool:
        return bool(self._out)

    def respond(
        self, response: Response, request: Request, close: bool, started: float, at_once: bool = False
    ) -> None:
        """Writes a whole response, and its line in the access log.

        `started`: monotonic seconds. `at_once`: nothing else is to be sent in this loop pass, so do not wait
        for its end.
        """
        on_undelivered = response.on_undelivered
        if self.gone:
            if on_undelivered is not None:
                on_undelivered()
            return
        state = self._state
        if len(response.body) > SMALL and not state.in_flight.has_room(len(response.body)):
            response = state.dispatcher.without_room(response, request)
            on_undelivered = response.on_undelivered
        method, status, body, extra = request.method, response.status, response.body, response.headers
        shown = body
        if method != "POST" and (method == "GET" or method == "HEAD"):
            if b"\r\nCache-Control: " not in extra:
                extra += b"\r\nCache-Control: no-store"
            if method == "HEAD":
                shown = b""
        if close or state.draining:
            self.closing = True
            extra += b"\r\nConnection: close"
        elif b"connection" in request.headers and (
            request.headers[b"connection"].lower() == b"keep-alive" or request.version == "HTTP/1.0"
        ):
            extra += b"\r\nConnection: keep-alive"
        kind = response.content_type
        head = state.response_heads[status] if kind is JSON else state.response_heads.of(status, kind)
        id = request.id.encode("latin-1")
        if not body and (status == 204 or status == 304):
            text = b"%b%b%b\r\n\r\n" % (head, id, extra)
        else:
            text = b"%b%b%b\r\nContent-Length: %d\r\n\r\n%b" % (head, id, extra, len(body), shown)
        if on_undelivered is not None:
            self._undelivered.append(on_undelivered)
        out = self._out
        first = not out
        out.append(text)
        if at_once or len(text) > _GATHERED_BYTES:
            if len(text) > SMALL:
                self._large = len(text)
            self.send()
            if self._large:
                self._count_unsent()
        elif first and not self._queue.suspended:
            self._queue.add(self)
        elif len(out) > _GATHERED:
            self.send()
        log = state.log
        if status < 400 and log.full:
            log.summed += 1
        else:
            log.request(method, request.path, status, started, len(body), request.peer, request.id)

    def send(self) -> None:
        """Hands gathered responses to the transport, if there are any."""
        out = self._out
        if not out or self.gone:
            return
        if self._transport.is_closing():
            return  # the client has hung up; it keeps none of the jobs in these responses
        if self._undelivered and self._state.encrypts:
            # A TLS transport reports an untaken write only when another one follows it.
            text = b"".join(out)
            self._transport.write(text[:-1])
            self._transport.write(text[-1:])
        else:
            # Not `writelines`: asyncio's in Python 3.12 and 3.13 never says that the client takes nothing.
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()
        if self._undelivered and not self.blocked:
            if self._state.encrypts:  # TLS hands it to the system only at the end of this loop pass
                asyncio.get_running_loop().call_soon(self._sent)
            else:
                self._sent()
        if self.closing and self._on_flushed is not None:
            self._on_flushed()

    def _sent(self) -> None:
        """A write may have failed; then the transport is about to close, and jobs are given back."""
        if not (self.blocked or self._out or self._transport.is_closing()):
            self._undelivered.clear()

    def send_continue(self) -> None:
        """Asks the client for the body of its request."""
        self.send()
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # -- streams ------------------------------------------------------------------------------------

    def start_stream(self, stream: Stream, request: Request, close: bool) -> None:
        """Writes the head of a streamed response. HTTP/1.1 clients get the body in chunks; for others the end
        of the connection ends it."""
        self.send()
        extra = stream.headers
        if request.method in ("GET", "HEAD"):
            extra += b"\r\nCache-Control: no-store"
        extra += b"\r\nX-Accel-Buffering: no"  # nginx is not to gather it
        bodyless = request.method == "HEAD" or stream.status == 204
        self._chunked = not bodyless and request.version == "HTTP/1.1"
        if self._chunked:
            extra += b"\r\nTransfer-Encoding: chunked"
        if close:
            extra += b"\r\nConnection: close"
        head = self._state.response_heads.make(stream.status, stream.content_type)
        # A transport that was closed may not have told yet.
        if not (self.gone or self._transport.is_closing()):
            self._transport.write(b"%b%b%b\r\n\r\n" % (head, request.id.encode("latin-1"), extra))

    def write_piece(self, piece: bytes) -> bool:
        """Writes a piece of the stream. False: the client has not taken all of it yet."""
        if piece and not self.gone:
            self._large = len(piece)
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
        return self.gone or not self.blocked

    def end_stream(self) -> None:
        if self._chunked and not self.gone:
            self._transport.write(b"0\r\n\r\n")

    def abort(self) -> None:
        """Cuts the connection."""
        self._transport.abort()
