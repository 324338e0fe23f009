"""Link: where the owner of the jobs takes connections that the other servers pass on.

    server                                   owner
      │  connects                              │
      │ ◀──────────── a nonce, 32 bytes ────── │
      │ ─── the client's address, and proof ─▶ │   160 bytes
      │ ══════════ all that the client and the owner say ══════════

The proof is an HMAC over both, keyed with the secret that the owner wrote into its row of the database. After
it the connection is like one that the owner accepted itself, with TLS from the client to the owner if there
is any.
"""

import asyncio
import hmac
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

NONCE = 32
GREETING = 160
# Seconds that a greeting may take.
_PATIENCE = 5.0
_ACCEPTS = 16
# Connections at once that have not greeted yet
_UNGREETED = 1000


def greeting(peer: str, nonce: bytes, secret: str) -> bytes:
    """Returns what a server sends for a client with the address `peer`."""
    proof = hmac.digest(secret.encode(), nonce + peer.encode(), "sha256").hex()
    return f"{proof} {peer}".encode().ljust(GREETING)


def watch_other_side(connected: socket.socket, unread: int) -> None:
    """Has the system end a connection between two servers when the other machine, or the way to it, has gone:
    after 5 s if nothing is on its way there, else after `unread` milliseconds. That is also how long the
    other side may read nothing."""
    options = {
        "TCP_NODELAY": 1,
        "TCP_KEEPIDLE": 2,
        "TCP_KEEPINTVL": 1,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": unread,
    }
    with suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if (option := getattr(socket, name, None)) is not None:  # not every system has all of them
                connected.setsockopt(socket.IPPROTO_TCP, option, value)


class Link:
    """Accepts on `listening`, and hands each connection with a good greeting to `take(socket, peer)`.
    `unread`: milliseconds for which the other server may read nothing."""

    def __init__(
        self, listening: socket.socket, secret: str, take: Callable[[socket.socket, str], None], unread: int
    ) -> None:
        self._socket = listening
        self._secret = secret
        self._take = take
        self._unread = unread
        self._loop = asyncio.get_running_loop()
        self._greeted: set[asyncio.Task[None]] = set()
        self._loop.add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for task in self._greeted:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                accepted, _ = self._socket.accept()
            except OSError:  # none is left, or it is out of descriptors: the other server tries again
                return
            if len(self._greeted) >= _UNGREETED:
                accepted.close()
                continue
            accepted.setblocking(False)
            task = self._loop.create_task(self._greet(accepted))
            self._greeted.add(task)
            task.add_done_callback(partial(self._greeting_over, accepted))

    def _greeting_over(self, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._greeted.discard(task)
        if task.cancelled():
            accepted.close()

    async def _greet(self, accepted: socket.socket) -> None:
        nonce = os.urandom(NONCE)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._loop.sock_sendall(accepted, nonce)
                told = await receive(self._loop, accepted, GREETING)
        except (OSError, EOFError):
            accepted.close()
            return
        peer = told[65:].rstrip().decode("latin-1")
        if hmac.compare_digest(told, greeting(peer, nonce, self._secret)):
            watch_other_side(accepted, self._unread)
            self._take(accepted, peer)
        else:
            accepted.close()


async def receive(loop: asyncio.AbstractEventLoop, connected: socket.socket, count: int) -> bytes:
    """Receives exactly `count` bytes. Raises `EOFError` if there are fewer."""
    data = b""
    while len(data) < count:
        piece = await loop.sock_recv(connected, count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


async def connect(address: str) -> socket.socket:
    """Returns a connection to `host:port`. Raises `OSError` or `ValueError`."""
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    family, kind, protocol, _, place = found[0]
    link = socket.socket(family, kind, protocol)
    try:
        link.setblocking(False)
        await loop.sock_connect(link, place)
    except BaseException:
        link.close()
        raise
    return link


def reason(failed: Exception) -> str:
    """Returns why a connection could not be made."""
    if isinstance(failed, socket.gaierror):
        return failed.strerror or str(failed)
    if isinstance(failed, TimeoutError):
        return "no answer in time"
    if isinstance(failed, EOFError):
        return "the connection was closed"
    if isinstance(failed, OSError) and failed.errno:
        return os.strerror(failed.errno)
    return str(failed)
