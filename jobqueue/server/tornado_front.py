"""The reference front: Tornado's own HTTP server, on sockets that the `Listener` accepts."""

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

# Above what `OperationHandler` reads of a body that is too large: it, not Tornado, answers those.
_MAX_BODY_FACTOR = 64


class WatchfulStream(IOStream):
    """Goes on listening while bytes that nobody has asked for wait in its buffer.

    Tornado stops there, so it does not notice that a client hung up which had sent anything behind a
    long-polling request. Overrides private methods of the pinned Tornado; a test fails if that changes.
    """

    closed_by: Callable[["WatchfulStream"], None]
    deadlines: Mapping[str, float]
    peer = ""
    _ended_by_client = False
    # In which state the connection is, with how much its client had taken when it came to be; since when.
    _seen: tuple[tuple[str, int], float] = (("", 0), 0.0)

    def close_fd(self) -> None:
        super().close_fd()
        self.error = copy(self.error)  # without its traceback, which leads back here
        self.closed_by(self)

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        count = super().read_from_fd(buf)
        if count == 0:
            self._ended_by_client = True
        return count

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Here Tornado asks for the next request, even from what it still holds after it has ended the
        connection; that one would be performed, and its answer lost."""
        if self.closed() and not self._ended_by_client:
            raise StreamClosedError(real_error=self.error)
        return super().read_until_regex(regex, max_bytes)

    def _handle_events(self, fd: Any, events: int) -> None:
        super()._handle_events(fd, events)
        self._look_for_reset()
        self._maybe_add_error_listener()

    def _look_for_reset(self) -> None:
        """Tornado reads no further than it needs, and uvloop tells of a reset once: with what came before."""
        if not self.closed() and (error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            reset = OSError(error, os.strerror(error))
            self.close(exc_info=(type(reset), reset, None))

    def _maybe_add_error_listener(self) -> None:
        if not self.closed() and self._close_callback is not None:
            self._add_io_state(IOLoop.READ)

    def check_deadline(self, now: float) -> None:
        """Called every second or two. Ends what Tornado would leave as it is: a client that takes nothing of
        its answer; and one whose head trickles in, which to Tornado is idle."""
        if self.closed():
            return
        state = self.state()
        waiting = untaken(self.socket.fileno(), len(self._write_buffer)) if state == "write" else 0
        seen = (state, self._total_write_index - waiting)
        if self._seen[0] != seen:
            self._seen = (seen, now)
        elif now - self._seen[1] > self.deadlines[state]:
            self.close()

    def state(self) -> str:
        """Of the states of `Timeouts` those that Tornado has no deadline of its own for, or "answer"."""
        if self.writing():
            return "write"
        if self._read_regex is None:
            return "answer"
        first = not self._total_write_index
        return "head" if self._read_buffer_size or first else "answer"


class WatchfulSSLStream(WatchfulStream, SSLIOStream):
    """The same by TLS: `SSLIOStream` reads, `WatchfulStream` watches."""

    def _maybe_add_error_listener(self) -> None:
        if not self._ssl_accepting:
            super()._maybe_add_error_listener()


class TornadoFront:
    name = "tornado"

    def __init__(self, api: Dispatcher, app: Application, tls: Tls | None = None) -> None:
        self._api = api
        self._tls = tls
        self.peers = ConnectionLimits(None)
        deadlines = Timeouts(api.settings)
        self._by_state = deadlines.by_state
        self.open: set[WatchfulStream] = set()
        self._rounds = Rounds(self.open)
        self._server = HTTPServer(
            app, max_header_size=api.settings.max_headers, idle_connection_timeout=deadlines.idle,
            body_timeout=deadlines.body,
            max_body_size=_MAX_BODY_FACTOR * api.settings.max_body, chunk_size=65536,
        )  # fmt: skip

    def take(self, accepted: socket.socket, peer: str) -> None:
        # What a client sends behind a waiting request is kept up to this; then it is cut off.
        size = self._api.settings.max_body + (1 << 20)
        context = self._tls.context if self._tls is not None else None
        if context is None:
            stream = WatchfulStream(accepted, max_buffer_size=size)
        else:
            try:
                wrapped = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            except OSError:  # it was reset before it was accepted
                accepted.close()
                return
            stream = WatchfulSSLStream(wrapped, ssl_options=context, max_buffer_size=size)
            IOLoop.current().call_later(HANDSHAKE, self._check_handshake, stream)
        stream.peer = peer
        stream.closed_by = self._closed
        stream.deadlines = self._by_state
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
        """Idle connections stay until `close`: Tornado does not tell which they are."""

    def busy(self) -> int:
        return self._api.running + sum(stream.writing() for stream in self.open)

    def close(self) -> None:
        for stream in list(self.open):
            stream.close()
