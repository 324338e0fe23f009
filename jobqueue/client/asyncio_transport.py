"""The transport of `AsyncClient`: `asyncio.Protocol` with a pool of connections for each event loop."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Self, cast

from jobqueue.client.address import Address
from jobqueue.client.codec import Malformed, RequestWriter, ResponseReader
from jobqueue.client.errors import AnswerLost, BadAnswer, Unreachable
from jobqueue.client.http import Pairs, Request, Response, Timeouts
from jobqueue.client.socket_transport import IDLE, unreachable

if TYPE_CHECKING:
    import ssl

# Bytes of a stream that nobody has read yet, above which no more are taken from the socket.
_BUFFER = 256 << 10


class AsyncioTransport:
    """Sends requests over connections of the running event loop.

    `connections`: the most that are open at once on a loop, without those of streams; further requests wait
    for one. It may be used on several loops.
    """

    def __init__(self, address: Address, tls: ssl.SSLContext | None = None, connections: int = 100) -> None:
        self._address = address
        self._writer = RequestWriter(address.authority.encode())
        self._tls = tls
        self._most = connections
        # Only an open connection keeps its pool, and only its loop keeps the connection. So a loop that
        # nobody uses any more is freed, also if nobody has closed its connections.
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Pool]] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()

    async def send(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        pool = self._pool(loop)
        data = self._writer.encode(request)
        timeouts = request.timeouts
        end = None if timeouts.total is None else loop.time() + timeouts.total
        connection = pool.idle() or await pool.connect(timeouts, end)
        try:
            response = await pool.exchange(connection, data, timeouts.read, end)
        except BaseException:
            connection.abort()
            pool.release(connection)
            raise
        pool.release(connection)
        return response

    def end_waits(self) -> None:
        """Says to the server, on every connection of the running loop that waits for an answer, that nothing
        more will be sent. Streams are left as they are."""
        pool = self._known(asyncio.get_running_loop())
        if pool is not None:
            pool.end_sending()

    async def stream(self, request: Request) -> AsyncioStream:
        data = self._writer.encode(request)
        connection = await self._pool(asyncio.get_running_loop()).connection(request.timeouts, None)
        try:
            await connection.ask(data, request.timeouts.read)
        except BaseException:
            connection.abort()
            raise
        return AsyncioStream(connection, request.timeouts.read)

    async def close(self) -> None:
        """Closes the connections of the running loop: idle ones now, others when their call has ended."""
        loop = asyncio.get_running_loop()
        pool = self._known(loop)
        if pool is not None:
            del self._pools[loop]
            await pool.close()

    def _known(self, loop: asyncio.AbstractEventLoop) -> Pool | None:
        known = self._pools.get(loop)
        return None if known is None else known()

    def _pool(self, loop: asyncio.AbstractEventLoop) -> Pool:
        pool = self._known(loop)
        if pool is None:
            pool = Pool(self._address, self._tls, self._most)
            with self._lock:
                self._pools[loop] = weakref.ref(pool)
        return pool


class Pool:
    """The connections of one loop: those that are idle, the last used first, and how many there are."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, most: int) -> None:
        self._address = address
        self._tls = tls
        self._most = most
        self._count = 0
        self._closed = False
        self._idle: list[Connection] = []
        self._asked: set[Connection] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def idle(self) -> Connection | None:
        """Returns an idle connection that can be used; None: there is none."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.abort()
            self._count -= 1
        return None

    async def connect(self, timeouts: Timeouts, end: float | None) -> Connection:
        """Returns a connection for one request: a new one, or one that another request has ended with.

        Raises `Unreachable`, also if none is free by `end`, a time of the loop.
        """
        while self._count >= self._most:
            await self._turn(end)
            if (connection := self.idle()) is not None:
                return connection
        self._count += 1
        try:
            return await self.connection(timeouts, end)
        except BaseException:
            self._count -= 1
            self._wake()
            raise

    async def _turn(self, end: float | None) -> None:
        """Waits until a connection may be free."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout_at(end):
                await waiting
        except BaseException as failed:
            if waiting.done() and not waiting.cancelled():
                self._wake()  # its turn came, and somebody else may use it
            if isinstance(failed, TimeoutError):
                raise Unreachable(f"none of {self._most} connections was free in time", busy=True) from None
            raise

    async def connection(self, timeouts: Timeouts, end: float | None) -> Connection:
        """Returns a new connection, which is not counted. Raises `Unreachable`."""
        loop = asyncio.get_running_loop()
        address = self._address
        latest = loop.time() + timeouts.connect
        try:
            async with asyncio.timeout_at(latest if end is None else min(latest, end)):
                if address.socket is not None:
                    _, made = await loop.create_unix_connection(self._new, address.socket, ssl=self._tls)
                else:
                    _, made = await loop.create_connection(
                        self._new, address.host, address.port, ssl=self._tls
                    )
        except OSError as failed:
            raise unreachable(address, failed) from failed
        return made

    def _new(self) -> Connection:
        return Connection(self)

    async def exchange(self, connection: Connection, data: bytes, read: float, end: float | None) -> Response:
        """Sends a request and returns its answer. Raises `Unreachable` or `AnswerLost`."""
        self._asked.add(connection)
        try:
            return await connection.exchange(data, read, end)
        finally:
            self._asked.discard(connection)

    def end_sending(self) -> None:
        """Closes the sending side of the connections whose request is under way."""
        for connection in self._asked:
            connection.end_sending()

    def release(self, connection: Connection) -> None:
        """Takes back a connection whose request is over."""
        if connection.reusable() and not self._closed:
            connection.idle_since = connection.loop.time()
            self._idle.append(connection)
        else:
            connection.abort()
            self._count -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    async def close(self) -> None:
        self._closed = True
        connections, self._idle = self._idle, []
        self._count -= len(connections)
        for connection in connections:
            connection.close()
        for connection in connections:
            await connection.closed()


class Connection(asyncio.Protocol):
    """One connection, for one request at a time.

    `pool` is kept by its open connections. `_waiting`: what the current request waits for: its answer, or
    more of a stream.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.loop = asyncio.get_running_loop()
        self.reader = ResponseReader()
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._waiting: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._streaming = False
        self._failed: AnswerLost | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._read_end = 0.0
        self._total_end: float | None = None
        self._read = 0.0
        self._buffered = 0

    # -- called by the loop -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's only look like one
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        reader = self.reader
        if self._waiting is None and not self._streaming:
            self.abort()  # it was not asked
            return
        self._read_end = self.loop.time() + self._read
        try:
            reader.feed(data)
        except Malformed as bad:
            self._fail(BadAnswer(f"the answer is not HTTP/1.1: {bad}"))
            self.abort()
            return
        if self._streaming:
            self._buffered += len(data)
            if self._buffered > _BUFFER and self._transport is not None:
                self._transport.pause_reading()
            if reader.headers_done:
                self._done()
        elif reader.done:
            self._done()

    def connection_lost(self, failed: Exception | None) -> None:
        self._transport = None
        if not self._closed.done():
            self._closed.set_result(None)
        if failed is not None:
            why = getattr(failed, "strerror", None) or str(failed)
            self._fail(AnswerLost(f"the request was sent, and no whole answer came: {why}"))
        else:
            part = "in the middle of" if self.reader.started else "without"
            self._fail(AnswerLost(f"the server closed the connection {part} its answer"))

    # -- a request --------------------------------------------------------------------------------------

    async def exchange(self, data: bytes, read: float, end: float | None) -> Response:
        """Sends a request and returns its answer. Raises `Unreachable` or `AnswerLost`."""
        self._start(data, read, end)
        await self._wait()
        return self.reader.response()

    async def ask(self, data: bytes, read: float) -> None:
        """Sends a request and waits for the headers of its answer."""
        self._streaming = True
        self._start(data, read, None)
        while not self.reader.headers_done:
            await self._wait()

    async def more(self, read: float) -> list[bytes]:
        """Returns the next pieces of a stream; none: it is over. Raises `AnswerLost`."""
        reader = self.reader
        while not reader.pieces and not reader.done:
            if self._failed is not None:
                raise self._failed
            self._limit(read)
            await self._wait()
        self._buffered = 0
        if self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()
        return reader.take()

    def _start(self, data: bytes, read: float, end: float | None) -> None:
        if self._transport is None:
            raise Unreachable("the connection was closed before the request was sent")
        self.reader.next(data)
        self._total_end = end
        self._limit(read)
        self._transport.write(data)

    async def _wait(self) -> None:
        if self._failed is not None:
            raise self._failed
        self._waiting = self.loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _done(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _fail(self, error: AnswerLost) -> None:
        if self._failed is None:
            self._failed = error
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(self._failed)

    # -- time -------------------------------------------------------------------------------------------

    def _limit(self, read: float) -> None:
        """Starts the time for the next piece of the answer.

        The timer is left running from request to request, and looks at the current limits when it fires.
        """
        self._read = read
        self._read_end = self.loop.time() + read
        end = self._end()
        if self._timer is not None and self._timer.when() > end:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(end, self._time_over)

    def _end(self) -> float:
        return self._read_end if self._total_end is None else min(self._read_end, self._total_end)

    def _time_over(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self.loop.time() < self._end():
            self._timer = self.loop.call_at(self._end(), self._time_over)
            return
        self._fail(AnswerLost("the request was sent, and no whole answer came: the time is over"))
        self.abort()

    # -- its end ----------------------------------------------------------------------------------------

    def reusable(self) -> bool:
        transport = self._transport
        return (
            transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()  # answered before it had the whole request
            and self.reader.done
            and self.reader.reusable
            and self._failed is None
        )

    def end_sending(self) -> None:
        """Closes the sending side. The answer to what was sent is still received."""
        self.reader.reusable = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
            return
        # TLS has no such end. That of the socket beneath it, taken by another handle, leaves reading open.
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
        with socket.socket(fileno=descriptor) as beneath, suppress(OSError):  # the server has closed it
            beneath.shutdown(socket.SHUT_WR)

    def usable(self) -> bool:
        """Tells whether another request may be sent: neither an end nor anything unasked has come."""
        return self.reusable() and self.loop.time() - self.idle_since < IDLE and not self._poll.poll(0)

    def abort(self) -> None:
        """Closes the connection at once."""
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        self._stop_timer()
        if self._transport is not None:
            self._transport.close()

    async def closed(self) -> None:
        await self._closed

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class AsyncioStream:
    """An answer that is read as it arrives; it has a connection of its own, closed with it."""

    def __init__(self, connection: Connection, read: float) -> None:
        self._connection = connection
        self._read = read
        self.status = connection.reader.status
        self.headers: Pairs = connection.reader.headers
        self._pieces: deque[bytes] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            try:
                self._pieces.extend(await self._connection.more(self._read))
            except BaseException:
                self._connection.abort()
                raise
            if not self._pieces:
                self._connection.abort()
                raise StopAsyncIteration
        return self._pieces.popleft()

    async def close(self) -> None:
        self._connection.abort()
        await self._connection.closed()
