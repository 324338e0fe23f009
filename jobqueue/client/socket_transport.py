"""The transport of `Client`: blocking sockets, a connection for each thread."""

from __future__ import annotations

import os
import select
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from jobqueue.client.address import Address
from jobqueue.client.codec import Malformed, RequestWriter, ResponseReader
from jobqueue.client.errors import AnswerLost, BadAnswer, Unreachable
from jobqueue.client.http import Pairs, Request, Response, Timeouts

if TYPE_CHECKING:
    import ssl

# Seconds without a request after which a connection is not used again: servers and proxies close such ones.
IDLE = 50.0
_RECEIVE = 64 << 10


class SocketTransport:
    """Sends requests over blocking sockets. Each thread has a connection of its own and keeps it.

    It may be used by any number of threads, and after a fork in the child as well.
    """

    def __init__(self, address: Address, tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._writer = RequestWriter(address.authority.encode())
        self._tls = tls
        self._local = threading.local()
        self._all: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._lock = threading.Lock()

    def send(self, request: Request) -> Response:
        timeouts = request.timeouts
        end = None if timeouts.total is None else monotonic() + timeouts.total
        data = self._writer.encode(request)
        connection = self._usable() or self._connect(timeouts, end)
        try:
            response = connection.exchange(data, timeouts.read, end)
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return response

    def stream(self, request: Request) -> SocketStream:
        timeouts = request.timeouts
        connection = self._connect(timeouts, None)
        try:
            connection.ask(self._writer.encode(request), timeouts.read)
        except BaseException:
            connection.close()
            raise
        return SocketStream(connection, timeouts.read)

    def close(self) -> None:
        """Closes idle connections now, those of other threads that are in use when their call has ended, and
        has streams end."""
        with self._lock:
            connections, self._all = list(self._all), weakref.WeakSet()
        for connection in connections:
            connection.end()

    def _usable(self) -> Connection | None:
        """Returns the connection that this thread has kept, if it can be used."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            return None
        self._local.connection = None  # another call of this thread, from a signal handler, takes its own
        if not connection.in_use.acquire(blocking=False):  # `close` has it
            return None
        if connection.usable():
            return connection
        connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        if not connection.reader.reusable:
            connection.close()
            return
        connection.idle_since = monotonic()
        other: Connection | None = getattr(self._local, "connection", None)
        if other is not None:
            other.close()
        self._local.connection = connection
        connection.in_use.release()
        if connection.ends:  # `close` was called meanwhile
            connection.end()

    def _connect(self, timeouts: Timeouts, end: float | None) -> Connection:
        seconds = timeouts.connect if end is None else min(timeouts.connect, max(end - monotonic(), 0.001))
        known = self._all
        connection = Connection(_connected(self._address, self._tls, seconds))
        with self._lock:
            known.add(connection)
            connection.ends = known is not self._all  # `close` was called meanwhile
        return connection


def _connected(address: Address, tls: ssl.SSLContext | None, seconds: float) -> socket.socket:
    """Returns a connected socket. Raises `Unreachable`."""
    end = monotonic() + seconds
    made: socket.socket | None = None
    try:
        if address.socket is not None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(seconds)
            made.connect(address.socket)
        else:
            made = socket.create_connection((address.host, address.port), seconds)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            made.settimeout(max(end - monotonic(), 0.001))
            made = tls.wrap_socket(made, server_hostname=address.host)
    except OSError as failed:
        if made is not None:
            made.close()
        raise unreachable(address, failed) from failed
    return made


def unreachable(address: Address, failed: OSError) -> Unreachable:
    """Returns the error for a connection that could not be made. The fact `permanent`: trying again soon will
    not help, since the name is unknown, the certificate is not accepted, or TLS is not spoken."""
    why = str(failed) or type(failed).__name__
    reason = getattr(failed, "reason", None)  # of an error of TLS
    # EAI_AGAIN: the name could not be looked up just now.
    unknown = isinstance(failed, socket.gaierror) and failed.errno != socket.EAI_AGAIN
    permanent = unknown or type(failed).__name__ == "SSLCertVerificationError"
    if isinstance(failed, TimeoutError):
        why = "it did not answer in time"
    elif reason == "WRONG_VERSION_NUMBER":
        why, permanent = "no TLS is spoken there; write http:// in its address", True
    elif failed.errno is not None and failed.errno > 0 and reason is None:
        why = os.strerror(failed.errno)  # asyncio has words of its own, which do not say why
    elif unknown:
        why = failed.strerror or why
    return Unreachable(f"cannot connect to {address}: {why}", permanent=permanent)


class Connection:
    """One connection, for one request at a time.

    `in_use` is locked by the thread whose request is under way, and nobody waits for it. `ends`: the client
    was closed, so there is no further request.
    """

    __slots__ = (
        "__weakref__", "_pid", "_poll", "_socket", "_timeout", "ends", "idle_since", "in_use", "reader",
        "streams",
    )  # fmt: skip

    def __init__(self, connected: socket.socket) -> None:
        self.in_use = threading.Lock()
        self.in_use.acquire()
        self.ends = False
        self.streams = False
        self._socket = connected
        self._timeout = connected.gettimeout()
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        self._pid = os.getpid()
        self.reader = ResponseReader()
        self.idle_since = 0.0

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def end(self) -> None:
        """Closes the connection unless it is in use. Another thread must not close the socket of a call: the
        next one that is opened may get its number."""
        self.ends = True
        if self.in_use.acquire(blocking=False):
            self.close()
        elif self.streams:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def usable(self) -> bool:
        """Tells whether another request may be sent: the server has neither closed the connection nor sent
        anything unasked, and the connection was made by this process."""
        return (
            self._pid == os.getpid()
            and self._socket.fileno() >= 0
            and monotonic() - self.idle_since < IDLE
            and not self._poll.poll(0)
        )

    def exchange(self, data: bytes, read: float, end: float | None) -> Response:
        """Sends a request and returns its answer. Raises `Unreachable` or `AnswerLost`."""
        reader = self.reader
        reader.next(data)
        self._send(data, read, end)
        while not reader.done:
            self.receive(read, end)
        return reader.response()

    def ask(self, data: bytes, read: float) -> None:
        """Sends a request and reads the headers of its answer."""
        self.streams = True
        self.reader.next(data)
        self._send(data, read, None)
        while not self.reader.headers_done:
            self.receive(read, None)

    def _send(self, data: bytes, read: float, end: float | None) -> None:
        view = memoryview(data)
        try:
            while view:
                self._limit(read, end)
                view = view[self._socket.send(view) :]
        except OSError as failed:
            if not self._refused_early():
                partly = len(view) < len(data)
                raise Unreachable(
                    f"the request could not be sent whole: {_why(failed)}", sent_partly=partly
                ) from failed

    def _refused_early(self) -> bool:
        """Tells whether the server answered before it had the whole request, as it does when that is too
        large."""
        try:
            while not self.reader.headers_done:
                self.receive(1.0, None)
        except AnswerLost:
            return False
        self.reader.reusable = False
        return True

    def receive(self, read: float, end: float | None) -> None:
        """Gives the reader what comes next. Raises `AnswerLost`."""
        try:
            self._limit(read, end)
            data = self._socket.recv(_RECEIVE)
        except OSError as failed:
            raise AnswerLost(f"the request was sent, and no whole answer came: {_why(failed)}") from failed
        if not data:
            part = "in the middle of" if self.reader.started else "without"
            raise AnswerLost(f"the server closed the connection {part} its answer")
        try:
            self.reader.feed(data)
        except Malformed as bad:
            raise BadAnswer(f"the answer is not HTTP/1.1: {bad}") from None

    def _limit(self, read: float, end: float | None) -> None:
        """Sets the timeout of the next call of the socket."""
        seconds = read
        if end is not None:
            rest = end - monotonic()
            if rest <= 0:
                raise TimeoutError("the time for the whole call is over")
            seconds = min(read, rest)
        if seconds != self._timeout:
            self._socket.settimeout(seconds)
            self._timeout = seconds


def _why(failed: OSError) -> str:
    if isinstance(failed, TimeoutError):
        return "the time is over"
    return failed.strerror or str(failed) or type(failed).__name__


class SocketStream:
    """An answer that is read as it arrives; it has a connection of its own, closed with it."""

    def __init__(self, connection: Connection, read: float) -> None:
        self._connection = connection
        self._read = read
        self.status = connection.reader.status
        self.headers: Pairs = connection.reader.headers

    def __iter__(self) -> Iterator[bytes]:
        reader = self._connection.reader
        try:
            while True:
                yield from reader.take()
                if reader.done:
                    return
                self._connection.receive(self._read, None)
        finally:
            self.close()

    def close(self) -> None:
        self._connection.close()
