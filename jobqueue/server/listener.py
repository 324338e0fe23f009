"""Listener: the sockets that connections come in by, and how many may.

Stock servers spin when descriptors run out: the listening socket stays readable and nothing can be accepted.
This one rests for a moment, and says so once a minute.
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
from jobqueue.web.access.browser_policy import UNIX
from jobqueue.web.http import REASONS
from jobqueue.web.writers.problems import problem

_log = logging.getLogger("jobqueue")
BACKLOG = 1024
# Accepted in one loop pass; the others wait their turn.
_AT_ONCE = 64
_REST = 0.1
_QUIET_FOR = 60.0
# Descriptors kept free for everything that is no connection.
SPARE_DESCRIPTORS = 64
_LINGER = 1.0
_LINGERING = 32
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def raise_file_limit() -> int:
    """Lets this process have as many descriptors as the system allows it, and answers how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return soft
    return wanted


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; `::` takes IPv4 too, unix:/path is a Unix socket. `OSError` if the address cannot
    be had."""
    if host.startswith("unix:"):
        return _bind_path(host.removeprefix("unix:"))
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:  # an empty part, or one that is too long
        raise OSError(errno.EINVAL, "that is no name of a host") from None
    family, kind, protocol, _, address = found[0]
    with _listening(socket.socket(family, kind, protocol), address) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
    return listening


def _bind_path(path: str) -> socket.socket:
    """A socket that is left over, behind which nobody listens, makes way."""
    with _listening(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path) as listening:
        if stat.S_ISSOCK(_mode(path)) and listening.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
    return listening


@contextmanager
def _listening(bare: socket.socket, address: tuple[Any, ...] | str) -> Iterator[socket.socket]:
    """It listens at the end of the `with`, or is closed if it cannot."""
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
    """Accepts on `listening` and hands each connection to `take(socket, peer)`, while `count()` of them is
    below `limit`, and fewer than that of `peers` from one address; beyond it a connection is told 503 and
    closed."""

    def __init__(
        self,
        listening: socket.socket,
        limit: int,
        count: Callable[[], int],
        take: Callable[[socket.socket, str], None],
        peers: ConnectionLimits | None = None,
    ) -> None:
        self._socket = listening
        self._limit = limit
        self._count = count
        self._take = take
        self._peers = peers or ConnectionLimits(None)
        self._loop = asyncio.get_running_loop()
        self._lingering: dict[socket.socket, asyncio.TimerHandle] = {}
        self._turned_away = 0
        self._quiet_until = 0.0
        self._resting: asyncio.TimerHandle | None = None
        self._loop.add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        """New connections are refused from now on."""
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._socket.fileno())
        if self._socket.family == socket.AF_UNIX:
            with suppress(OSError):
                os.unlink(self._socket.getsockname())
        self._socket.close()
        for accepted, timer in self._lingering.items():
            timer.cancel()
            accepted.close()
        self._lingering.clear()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as failed:
                if failed.errno not in _EXHAUSTED:
                    raise
                self._rest(failed)
                return
            accepted.setblocking(False)
            peer = address[0] if isinstance(address, tuple) else UNIX
            if self._count() >= self._limit:
                self._turn_away(accepted, self._limit, "MAX_CONNECTIONS")
            elif self._peers.full(peer):
                self._turn_away(accepted, self._peers.limit, "MAX_CONNECTIONS_BY_ADDRESS", f" from {peer}")
            else:
                self._take(accepted, peer)

    def _rest(self, failed: OSError) -> None:
        self._warn(f"cannot accept connections: {failed.strerror}; trying again")
        self._loop.remove_reader(self._socket.fileno())
        self._resting = self._loop.call_later(_REST, self._wake)

    def _wake(self) -> None:
        self._resting = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _turn_away(self, accepted: socket.socket, limit: int | None, name: str, of: str = "") -> None:
        """The answer stays readable only if the socket is not closed at once, while a request comes in."""
        self._warn(f"at the limit of {limit:,} connections{of} (JOBQUEUE_{name})")
        try:
            self._turned_away += 1
            accepted.send(_overloaded(f"full-{self._turned_away}", f"JOBQUEUE_{name}"))
            accepted.shutdown(socket.SHUT_WR)
        except OSError:
            accepted.close()
            return
        if len(self._lingering) < _LINGERING:
            self._lingering[accepted] = self._loop.call_later(_LINGER, self._let_go, accepted)
        else:
            accepted.close()

    def _let_go(self, accepted: socket.socket) -> None:
        del self._lingering[accepted]
        accepted.close()

    def _warn(self, message: str) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_FOR
            _log.warning("%s", message)


def _overloaded(request_id: str, setting: str) -> bytes:
    answer = problem(
        Overloaded(
            "the server has as many connections as it may; try again",
            setting=setting, retry_after=1,
        ),
        request_id,
    )  # fmt: skip
    head = (
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\nContent-Type: {answer.content_type}\r\n"
        f"X-Request-Id: {request_id}\r\nContent-Length: {len(answer.body)}\r\nConnection: close"
    )
    return head.encode("latin-1") + answer.headers + b"\r\n\r\n" + answer.body
