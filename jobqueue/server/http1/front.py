"""The fast front: HTTP/1.1 by llhttp, straight from the socket to the operations.

    socket -> FastFront -> Connection -> RequestParser      bytes to requests
                               |     `-> ResponseWriter     responses to bytes
                               `-> Dispatcher.perform       requests to responses

All connections are on one loop. A response that is at hand costs no coroutine, no task and no header object.
"""

import asyncio
import contextlib
import socket
import time
from typing import Any, cast

from jobqueue.errors import BadRequest
from jobqueue.server.connection_limits import ConnectionLimits
from jobqueue.server.http1.connection import Connection, Connections
from jobqueue.server.http1.front_state import FrontState
from jobqueue.server.log import AccessLog
from jobqueue.server.timeouts import Rounds, SweepClock, any_readable
from jobqueue.server.tls import HANDSHAKE, Tls
from jobqueue.web.dispatch import Dispatcher


class FastFront:
    name = "fast"

    def __init__(self, dispatcher: Dispatcher, log: AccessLog, tls: Tls | None = None) -> None:
        self.peers = ConnectionLimits(None)
        self.state = FrontState(dispatcher, log, encrypts=tls is not None and tls.context is not None)
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._connections = Connections(self.state, self.peers, self._loop)
        self.open = self._connections.open
        self._rounds = Rounds(self.open)
        self._clock = SweepClock()
        self._dated = 0.0

    def take(self, accepted: socket.socket, peer: str) -> None:
        connection = self.new_connection(peer)
        self.peers.opened(peer)
        self._connections.accepting.add(connection)
        self.state.start_task(self._loop.create_task(self._connect(connection, accepted)))

    def new_connection(self, peer: str) -> Connection:
        """A connection that has no transport yet."""
        return Connection(self.state, self._connections, peer, self._loop)

    async def _connect(self, connection: Connection, accepted: socket.socket) -> None:
        tls = self._tls.context if self._tls is not None else None
        # The other descriptor is closed when the handshake fails.
        spare = accepted.dup() if tls is not None else None
        try:
            # A compiled class cannot inherit from `asyncio.Protocol`; it has its methods.
            await self._loop.connect_accepted_socket(
                lambda: cast(Any, connection),
                accepted,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE if tls else None,
            )
        except OSError as failed:
            accepted.close()
            self.peers.closed(connection.peer)
            if spare is not None and getattr(failed, "reason", None) == "HTTP_REQUEST":
                self._refuse_plain_http(spare)
        finally:
            self._connections.accepting.discard(connection)
            if spare is not None:
                spare.close()

    def _refuse_plain_http(self, plain: socket.socket) -> None:
        """Answers a client that speaks HTTP to a port of HTTPS."""
        dispatcher = self.state.dispatcher
        id = dispatcher.fresh_id()
        response = dispatcher.failed(BadRequest("this port speaks HTTPS; ask for https:// instead"), id)
        head = b"%b%b\r\nContent-Length: %d\r\nConnection: close" % (
            self.state.response_heads.make(400, response.content_type),
            id.encode(),
            len(response.body),
        )
        with contextlib.suppress(OSError):
            plain.send(head + response.headers + b"\r\n\r\n" + response.body)

    def connections(self) -> int:
        return len(self.open) + len(self._connections.accepting)

    def sweep(self, parts: int = 1) -> None:
        if parts == 1 or time.monotonic() - self._dated >= 1:
            self._dated = time.monotonic()
            self.state.response_heads.refresh()
        if (now := self._clock.read()) is not None:
            for connection in self._rounds.part(parts):
                connection.check_deadline(now)

    def arriving(self) -> bool:
        if self._connections.accepting or self._connections.batch:
            return True
        expected = [connection for connection in self.open if connection.expects]
        if any(connection.busy for connection in expected):
            return True
        return any_readable([connection.descriptor for connection in expected])

    def drain(self) -> None:
        self.state.draining = True
        for connection in list(self.open):
            connection.close_if_idle()

    def busy(self) -> int:
        return sum(connection.busy for connection in self.open)

    def close(self) -> None:
        for connection in list(self.open):
            connection.abort()
