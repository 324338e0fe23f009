"""The reference front: Tornado's HTTP server on sockets that the `Listener` accepts."""

import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.web import Application

from jobqueue.server.connection_limits import ConnectionLimits
from jobqueue.server.timeouts import Rounds, Timeouts, untaken
from jobqueue.server.tls import HANDSHAKE, Tls
from jobqueue.web.dispatch import Dispatcher

# Largest body that Tornado passes on, in multiples of ours. It is more than `OperationHandler` reads of a
# body that is too large, so that the handler answers those, and not Tornado.
_MAX_BODY_FACTOR = 64


class WatchfulStream(IOStream):
    """Listens for a hang-up even while unread bytes wait in its buffer.

    Tornado stops listening then, so it would not notice the hang-up of a client that has sent anything
    after a long-polling request. This overrides private methods of the pinned Tornado; a test fails if
    those change.
    """

    closed_by: Callable[["WatchfulStream"], None]
    timeouts: Mapping[str, float]
    peer = ""
    _ended_by_client = False
    # The state at the last `check_deadline` and how much the client had taken; since when both are the same
    _seen: tuple[tuple[str, int], float] = (("", 0), 0.0)

    def close_fd(self) -> None:
        super().close_fd()
        self.error = copy(self.error)  # without its traceback, which would be a reference cycle
        self.closed_by(self)

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        count = super().read_from_fd(buf)
        if count == 0:
            self._ended_by_client = True
        return count

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Reads the head of the next request. Tornado does so from its buffer even after it has closed the
        connection; that request would be performed and its response lost."""
        if self.closed() and not self._ended_by_client:
            raise StreamClosedError(real_error=self.error)
        return super().read_until_regex(regex, max_bytes)

    def _handle_events(self, fd: Any, events: int) -> None:
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
        """Ends what Tornado has no deadline for: a client that takes nothing of its response, and one whose
        head trickles in, which Tornado takes for idle. Called every second or two."""
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
        """A state of `Timeouts` that Tornado has no deadline of its own for, or "answer"."""
        if self.writing():
            return "write"
        if self._read_regex is None:
            return "answer"
        first = not self._total_write_index
        return "head" if self._read_buffer_size or first else "answer"


class WatchfulSSLStream(WatchfulStream, SSLIOStream):
    """The same with TLS: `SSLIOStream` reads, `WatchfulStream` watches."""

    def _maybe_add_error_listener(self) -> None:
        if not self._ssl_accepting:
            super()._maybe_add_error_listener()


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
        self._server = HTTPServer(
            app, max_header_size=dispatcher.settings.max_headers, idle_connection_timeout=timeouts.idle,
            body_timeout=timeouts.body,
            max_body_size=_MAX_BODY_FACTOR * dispatcher.settings.max_body, chunk_size=65536,
        )  # fmt: skip

    def take(self, accepted: socket.socket, peer: str) -> None:
        # What a client sends while a request of it waits is kept up to this; beyond, it is cut off.
        size = self._dispatcher.settings.max_body + (1 << 20)
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
        now = time.monotonic()
        for stream in self._rounds.part(parts):
            stream.check_deadline(now)

    def drain(self) -> None:
        """Does nothing: Tornado does not tell which connections are idle, so these stay until `close`."""

    def busy(self) -> int:
        return self._dispatcher.running + sum(stream.writing() for stream in self.open)

    def close(self) -> None:
        for stream in list(self.open):
            stream.close()
