"""The fast front: HTTP/1.1 by llhttp, straight from the socket to the operations.

A `Connection` for each client, on the same loop; here is what they share. Where the answer is at hand nobody
pays for a coroutine, a Task or a header object. What is no operation of the API goes to the Tornado
application (`bridge`).
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from operator import itemgetter
from typing import Any, cast

from tornado.web import Application

from jobqueue.errors import BadRequest
from jobqueue.server.connection_limits import ConnectionLimits
from jobqueue.server.http1.connection import Connection
from jobqueue.server.http1.head_cache import HeadCache
from jobqueue.server.http1.response_writer import ResponseWriter
from jobqueue.server.log import AccessLog
from jobqueue.server.timeouts import Rounds, Timeouts
from jobqueue.server.tls import HANDSHAKE, Tls
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.http import JSON, REASONS


class FastFront:
    name = "fast"

    def __init__(self, api: Dispatcher, app: Application, log: AccessLog, tls: Tls | None = None) -> None:
        self.api = api
        self.app = app
        self.log = log
        self.open: set[Connection] = set()
        self.alone = True  # one connection at most is open
        self.draining = False
        self._loop = asyncio.get_running_loop()
        # Who has sent something in this loop pass, with the first letter behind "POST /jobs/".
        self.arrived: list[tuple[bytes, Connection]] = []
        self.answering = False
        self._to_send: list[ResponseWriter] = []
        self._rounds = Rounds(self.open)
        self.accepting: set[Connection] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self.heads = _Heads(self.head)  # those of JSON answers
        self._date = formatdate(usegmt=True)
        self._dated = 0.0
        self.max_body = api.settings.max_body
        self.max_head = api.settings.max_headers
        self.deadlines = Timeouts(api.settings).by_state
        self.peers = ConnectionLimits(None)
        self.tls = tls
        self.encrypts = tls is not None and tls.context is not None
        self.known = HeadCache(api.router, api.auth.known if api.auth is not None else {})
        self.blocks, self.lines = self.known.blocks, self.known.lines

    def take(self, accepted: socket.socket, peer: str) -> None:
        connection = Connection(self, peer, self._loop)
        self.peers.opened(peer)
        self.accepting.add(connection)
        task = self._loop.create_task(self._connect(connection, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: Connection, accepted: socket.socket) -> None:
        tls = self.tls.context if self.tls is not None else None
        # The other one is closed where the handshake fails.
        spare = accepted.dup() if tls is not None else None
        try:
            # A Protocol by its methods alone: a compiled class cannot inherit from asyncio's.
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
                self._say_https(spare)
        finally:
            self.accepting.discard(connection)
            if spare is not None:
                spare.close()

    def _say_https(self, plain: socket.socket) -> None:
        """To one who speaks HTTP to the port of HTTPS."""
        id = self.api.fresh_id()
        answer = self.api.failed(BadRequest("this port speaks HTTPS; ask for https:// instead"), id)
        head = b"%b%b\r\nContent-Length: %d\r\nConnection: close" % (
            self.head(400, answer.content_type), id.encode(), len(answer.body)
        )  # fmt: skip
        with contextlib.suppress(OSError):
            plain.send(head + answer.headers + b"\r\n\r\n" + answer.body)

    def opened(self, connection: Connection) -> None:
        self.open.add(connection)
        self.accepting.discard(connection)
        self.alone = len(self.open) < 2

    def closed(self, connection: Connection) -> None:
        self.open.discard(connection)
        self.peers.closed(connection.peer)
        self.alone = len(self.open) < 2

    def answer_soon(self) -> None:
        """What came in one loop pass is answered together, enqueues after enqueues, dequeues after dequeues:
        the processor goes one way again and again, and is faster by a third than if it goes now this way,
        now that. Among several connections there is no first within a pass."""
        self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        arrived, self.arrived = self.arrived, []
        arrived.sort(key=_kind, reverse=True)
        self.answering = True
        for _, connection in arrived:
            try:
                connection.answer_held()
            except Exception:
                _log.exception("unexpected error")
                connection.abort()
        self.answering = False
        self.api.engine.flush()
        for _, connection in arrived:
            connection.send()

    def send_soon(self, connection: ResponseWriter) -> None:
        """Answers are sent together at the end of a loop pass. The first of them wakes the client's machine,
        or its process on this one; the others find it awake. Sending each at once costs a wake-up each."""
        if not self._to_send:
            self._loop.call_soon(self._send)
        self._to_send.append(connection)

    def _send(self) -> None:
        connections, self._to_send = self._to_send, []
        for connection in connections:
            connection.send()

    def connections(self) -> int:
        return len(self.open) + len(self.accepting)

    def sweep(self, parts: int = 1) -> None:
        now = time.monotonic()
        if parts == 1 or now - self._dated >= 1:
            self._dated = now
            self._date = formatdate(usegmt=True)
            self.heads.clear()
        for connection in self._rounds.part(parts):
            connection.check_deadline(now)

    def drain(self) -> None:
        self.draining = True
        self.heads.clear()
        for connection in list(self.open):
            connection.close_if_idle()

    def busy(self) -> int:
        return sum(connection.busy for connection in self.open)

    def close(self) -> None:
        for connection in list(self.open):
            connection.abort()

    def head(self, status: int, content_type: str) -> bytes:
        """The first lines of an answer, up to where the request id goes; the date is a second's."""
        kind = "" if status == 204 else f"Content-Type: {content_type}\r\n"
        text = f"HTTP/1.1 {status} {REASONS[status]}\r\nDate: {self._date}\r\n{kind}X-Request-Id: "
        return text.encode("latin-1")


_kind = itemgetter(0)
_log = logging.getLogger("jobqueue")


class _Heads(dict[int, bytes]):
    """By status; made when first asked for, and anew after `clear`."""

    def __init__(self, make: Callable[[int, str], bytes]) -> None:
        self._make = make

    def __missing__(self, status: int) -> bytes:
        head = self[status] = self._make(status, JSON)
        return head
