"""Listener: accepts connections on a socket, and limits how many.

When descriptors run out a listening socket stays readable although nothing can be accepted, and most
servers spin. This one pauses for a moment, and logs that once a minute.
"""

import asyncio
import errno
import logging
import os
import resource
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jobqueue.errors import Overloaded
from jobqueue.server.connection_limits import ConnectionLimits
from jobqueue.server.timeouts import any_readable
from jobqueue.web.access.browser_policy import UNIX
from jobqueue.web.http import REASONS
from jobqueue.web.writers.problems import problem

_log = logging.getLogger("jobqueue")
BACKLOG = 1024
# Connections accepted in one loop pass; the others wait for the next.
_MAX_ACCEPTS = 16
# Seconds without accepting after descriptors ran out.
_PAUSE = 0.1
# Seconds between two warnings.
_WARN_EVERY = 60.0
# Descriptors kept free for everything that is not a connection.
_SPARE_DESCRIPTORS = 64
# Seconds that a refused connection stays open, and how many may at once.
_LINGER = 1.0
_MAX_LINGERING = 32
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class CannotListenError(Exception):
    """`detail`: the address, and why."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def raise_file_limit() -> int:
    """Raises this process's limit of descriptors as far as the system allows, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return soft
    return wanted


def connection_limit(wanted: int | None) -> int:
    """How many connections may be open at once: `wanted`, or fewer if the file limit is lower."""
    files = raise_file_limit()
    allowed = max(files - _SPARE_DESCRIPTORS, files // 2)
    return min(allowed, wanted) if wanted else allowed


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. `::` accepts IPv4 too; unix:/path is a Unix socket. Raises `OSError` if the address
    cannot be used."""
    if host.startswith("unix:"):
        return _bind_path(host.removeprefix("unix:"))
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:  # a label is empty or too long
        raise OSError(errno.EINVAL, "not a valid host name") from None
    family, kind, protocol, _, address = found[0]
    with _listening(socket.socket(family, kind, protocol), address) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
    return listening


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens there. Raises `CannotListenError`."""
    try:
        return bind(host, port)
    except OSError as failed:
        by_path = host.startswith("unix:")
        address = host if by_path else f"{host} port {port}"
        in_use = failed.errno == errno.EADDRINUSE and not by_path
        hint = "; set JOBQUEUE_PORT or --port to use another port" if in_use else ""
        raise CannotListenError(f"cannot listen on {address}: {failed.strerror or failed}{hint}") from None


def _bind_path(path: str) -> socket.socket:
    """Replaces a socket that an earlier server has left over."""
    with _listening(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path) as listening:
        if stat.S_ISSOCK(_mode(path)) and listening.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
    return listening


@contextmanager
def _listening(bare: socket.socket, address: tuple[Any, ...] | str) -> Iterator[socket.socket]:
    """Binds and listens at the end of the `with`, or closes the socket if that fails."""
    try:
        bare.setblocking(False)
        yield bare
        bare.bind(address)
        bare.listen(BACKLOG)
    except BaseException:
        bare.close()
        raise


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0


class Listener:
    """Accepts on `listening` and hands each connection to `take(socket, peer)`.

    `limit` is for all connections, which `count()` returns the number of; `peers` has the limit for one
    address. Connections beyond a limit get a 503 and are closed. `keep`: somebody else goes on to listen on
    the path of a Unix socket.
    """

    def __init__(
        self,
        listening: socket.socket,
        limit: int,
        count: Callable[[], int],
        take: Callable[[socket.socket, str], None],
        peers: ConnectionLimits | None = None,
        keep: bool = False,
    ) -> None:
        self._socket = listening
        self._keep = keep
        self._limit = limit
        self._count = count
        self._take = take
        self._peers = peers or ConnectionLimits(None)
        self._loop = asyncio.get_running_loop()
        self._lingering: dict[socket.socket, asyncio.TimerHandle] = {}
        self._refused = 0
        self._next_warning = 0.0
        self._paused: asyncio.TimerHandle | None = None
        self._loop.add_reader(listening.fileno(), self._accept)

    def arriving(self) -> bool:
        """Whether a client waits to be accepted."""
        return self._paused is None and any_readable([self._socket.fileno()])

    def close(self) -> None:
        """Stops accepting; the system refuses new connections from now on."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._socket.fileno())
        if self._socket.family == socket.AF_UNIX and not self._keep:
            with suppress(OSError):
                os.unlink(self._socket.getsockname())
        self._socket.close()
        for accepted, timer in self._lingering.items():
            timer.cancel()
            accepted.close()
        self._lingering.clear()

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as failed:
                if failed.errno not in _EXHAUSTED:
                    raise
                self._pause(failed)
                return
            accepted.setblocking(False)
            peer = address[0] if isinstance(address, tuple) else UNIX
            if self._count() >= self._limit:
                self._refuse(accepted, self._limit, "MAX_CONNECTIONS")
            elif self._peers.full(peer):
                self._refuse(accepted, self._peers.of(peer), "MAX_CONNECTIONS_BY_ADDRESS", f" from {peer}")
            else:
                self._take(accepted, peer)

    def _pause(self, failed: OSError) -> None:
        self._warn(f"cannot accept connections: {failed.strerror}; retrying")
        self._loop.remove_reader(self._socket.fileno())
        self._paused = self._loop.call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _refuse(self, accepted: socket.socket, limit: int, name: str, whose: str = "") -> None:
        """Answers 503. The socket is closed later: at once, with a request coming in, the client could not
        read the answer."""
        self._warn(f"at the limit of {limit:,} connections{whose} (JOBQUEUE_{name})")
        try:
            self._refused += 1
            accepted.send(_overloaded(f"full-{self._refused}", f"JOBQUEUE_{name}"))
            accepted.shutdown(socket.SHUT_WR)
        except OSError:
            accepted.close()
            return
        if len(self._lingering) < _MAX_LINGERING:
            self._lingering[accepted] = self._loop.call_later(_LINGER, self._end_linger, accepted)
        else:
            accepted.close()

    def _end_linger(self, accepted: socket.socket) -> None:
        del self._lingering[accepted]
        accepted.close()

    def _warn(self, message: str) -> None:
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARN_EVERY
            _log.warning("%s", message)


def _overloaded(request_id: str, setting: str) -> bytes:
    answer = problem(
        Overloaded(
            "the server has reached its limit of connections; try again",
            setting=setting,
            retry_after=1,
        ),
        request_id,
    )
    head = (
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\nContent-Type: {answer.content_type}\r\n"
        f"X-Request-Id: {request_id}\r\nContent-Length: {len(answer.body)}\r\nConnection: close"
    )
    return head.encode("latin-1") + answer.headers + b"\r\n\r\n" + answer.body
