"""The reference front: Tornado's HTTP server on sockets that the `Listener` accepts."""

import os
import socket
from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.web import Application

from jobqueue.server.connection_limits import ConnectionLimits
from jobqueue.server.timeouts import Rounds, SweepClock, Timeouts, any_readable, untaken
from jobqueue.server.tls import HANDSHAKE, Tls
from jobqueue.web.bytes_in_flight import BytesInFlight
from jobqueue.web.dispatch import Dispatcher

# Largest body that Tornado passes on, in multiples of ours. It is more than `OperationHandler` reads of a
# body that is too large, so that the handler answers those, and not Tornado.
_MAX_BODY_FACTOR = 64
# Seconds. Tornado's own deadlines count pauses of the loop; those of `check_deadline` do not.
_NEVER = 1e9
# Bytes after which a connection is read no further before the others had their turn: of the beginning of a
# request, and of the rest of a long one. Hundreds may upload, and each request of Tornado takes some turns.
_READ_FIRST = 65536
_READ_LATER = 16384


class WatchfulStream(IOStream):
    """Listens for a hang-up even while unread bytes wait in its buffer.

    Tornado stops listening then, so it would not notice the hang-up of a client that has sent anything
    after a long-polling request. This overrides private methods of the pinned Tornado; a test fails if
    those change.
    """

    closed_by: Callable[["WatchfulStream"], None]
    timeouts: Mapping[str, float]
    in_flight: BytesInFlight
    peer = ""
    unlimited_body = False  # the body that is being read has no deadline; set by `tornado_app`
    # Bytes as counted in `in_flight`, and those written since the client had last taken all
    _unsent = 0
    _written = 0
    _ended_by_client = False
    _read_now = 0  # bytes, since the loop last called
    # The state at the last `check_deadline` and how much the client had taken; since when both are the same
    _seen: tuple[tuple[str, int], float] = (("", 0), 0.0)

    def close_fd(self) -> None:
        super().close_fd()
        self.in_flight.used -= self._unsent
        self._unsent = 0
        self.error = copy(self.error)  # without its traceback, which would be a reference cycle
        self.closed_by(self)

    def write(self, data: bytes | memoryview) -> "Future[None]":
        self._written += len(data)
        written = super().write(data)
        self._count_unsent()
        return written

    def _handle_write(self) -> None:
        super()._handle_write()
        self._count_unsent()

    def _count_unsent(self) -> None:
        if self.closed() or not self._write_buffer:
            self._written = 0
        unsent = self._written  # the buffer keeps the whole until its last byte is taken
        self.in_flight.used += unsent - self._unsent
        self._unsent = unsent

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        if self._read_now >= self.read_chunk_size and not self._decrypted():
            return None  # as if there were no more yet; the loop calls again for the rest
        count = super().read_from_fd(buf)
        if count == 0:
            self._ended_by_client = True
        elif count is not None:
            self._read_now += count
            if count == _READ_FIRST:
                self.read_chunk_size = _READ_LATER
        return count

    def _decrypted(self) -> int:
        """Returns how many bytes were read from the socket, and not yet by this stream. The loop does
        not call for those."""
        return 0

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Reads the head of the next request. Tornado does so from its buffer even after it has closed the
        connection; that request would be performed and its response lost."""
        if self.closed() and not self._ended_by_client:
            raise StreamClosedError(real_error=self.error)
        self.unlimited_body = False
        self.read_chunk_size = _READ_FIRST
        return super().read_until_regex(regex, max_bytes)

    def _handle_events(self, fd: Any, events: int) -> None:
        self._read_now = 0
        super()._handle_events(fd, events)
        self._check_for_reset()
        self._maybe_add_error_listener()

    def _check_for_reset(self) -> None:
        """Closes the stream after a reset. Tornado reads no further than it needs, and uvloop reports a
        reset only once, together with the bytes before it."""
        if not self.closed() and (error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            reset = OSError(error, os.strerror(error))
            self.close(exc_info=(type(reset), reset, None))

    def _maybe_add_error_listener(self) -> None:
        if not self.closed() and self._close_callback is not None:
            self._add_io_state(IOLoop.READ)

    def check_deadline(self, now: float) -> None:
        """Ends a connection that has been in one state for too long. Called every second or two."""
        if self.closed():
            return
        state = self.state()
        unsent = untaken(self.socket.fileno(), len(self._write_buffer)) if state == "write" else 0
        seen = (state, self._total_write_index - unsent)
        if self._seen[0] != seen:
            self._seen = (seen, now)
        elif now - self._seen[1] > self.timeouts[state]:
            self.close()

    def state(self) -> str:
        """A state of `Timeouts`."""
        if self.writing():
            return "write"
        if self._read_regex is not None:
            first = not self._total_write_index
            return "head" if self._read_buffer_size or first else "idle"
        return "body" if self._read_future is not None and not self.unlimited_body else "answer"

    @property
    def receiving(self) -> bool:
        """A part of a request has come."""
        return self.state() == "body" or (self._read_regex is not None and self._read_buffer_size > 0)


class WatchfulSSLStream(WatchfulStream, SSLIOStream):
    """The same with TLS: `SSLIOStream` reads, `WatchfulStream` watches."""

    def _decrypted(self) -> int:
        return self.socket.pending()

    def _maybe_add_error_listener(self) -> None:
        if not self._ssl_accepting:
            super()._maybe_add_error_listener()

    @property
    def receiving(self) -> bool:
        return self._ssl_accepting or super().receiving


class TornadoFront:
    name = "tornado"

    def __init__(self, dispatcher: Dispatcher, app: Application, tls: Tls | None = None) -> None:
        self._dispatcher = dispatcher
        self._tls = tls
        self.peers = ConnectionLimits(None)
        timeouts = Timeouts(dispatcher.settings)
        self._by_state = timeouts.by_state
        self.open: set[WatchfulStream] = set()
        self._rounds = Rounds(self.open)
        self._clock = SweepClock()
        self._server = HTTPServer(
            app,
            max_header_size=dispatcher.settings.max_headers,
            idle_connection_timeout=_NEVER,
            max_body_size=_MAX_BODY_FACTOR * dispatcher.settings.max_request,
            chunk_size=65536,
        )

    def take(self, accepted: socket.socket, peer: str) -> None:
        # What a client sends while a request of it waits is kept up to this; beyond, it is cut off.
        size = self._dispatcher.settings.max_request + (1 << 20)
        context = self._tls.context if self._tls is not None else None
        if context is None:
            stream = WatchfulStream(accepted, max_buffer_size=size)
        else:
            try:
                wrapped = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            except OSError:  # reset before it was accepted
                accepted.close()
                return
            stream = WatchfulSSLStream(wrapped, ssl_options=context, max_buffer_size=size)
            IOLoop.current().call_later(HANDSHAKE, self._check_handshake, stream)
        stream.peer = peer
        stream.in_flight = self._dispatcher.in_flight
        stream.closed_by = self._closed
        stream.timeouts = self._by_state
        stream.set_nodelay(True)
        self.open.add(stream)
        self.peers.opened(peer)
        self._server.handle_stream(stream, (peer, 0))

    def _check_handshake(self, stream: WatchfulStream) -> None:
        if isinstance(stream, WatchfulSSLStream) and stream._ssl_accepting:
            stream.close()

    def _closed(self, stream: WatchfulStream) -> None:
        if stream in self.open:
            self.open.discard(stream)
            self.peers.closed(stream.peer)

    def connections(self) -> int:
        return len(self.open)

    def sweep(self, parts: int = 1) -> None:
        if (now := self._clock.read()) is not None:
            for stream in self._rounds.part(parts):
                stream.check_deadline(now)

    def arriving(self) -> bool:
        if any(stream.receiving for stream in self.open):
            return True
        return any_readable(stream.socket.fileno() for stream in self.open if stream.reading())

    def drain(self) -> None:
        """Does nothing: Tornado does not tell which connections are idle, so these stay until `close`."""

    def busy(self) -> int:
        return self._dispatcher.running + sum(stream.writing() for stream in self.open)

    def close(self) -> None:
        for stream in list(self.open):
            stream.close()
