"""Owners: at which URLs the servers are that own queues and jobs, as answers have told.

    about ─▶ key:  the family of a queue, or the shard of an id  ─▶  Server: its address and its transport

It is loaded when an answer names the first one: most servers have no others beside them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final, Generic, TypeVar

from jobqueue.advertised import is_advertisable
from jobqueue.client.address import Address, address_of
from jobqueue.client.http import About, Request, Timeouts
from jobqueue.shards import family, shard_of_id

X = TypeVar("X")
# Families and shards, and servers, that are remembered.
_MOST_KEYS: Final = 1_000
_MOST_SERVERS: Final = 64
# Seconds that connecting may take: the way there may be blocked, and the listed servers answer as well.
_CONNECT: Final = 1.0
# Seconds for which a server that failed is not asked: at first, and after failures in a row.
_PAUSE: Final = 30.0
_LONGEST_PAUSE: Final = 960.0


class Server(Generic[X]):
    """A server that an answer has named. `listed`: its transport is also that of a listed address."""

    __slots__ = ("address", "listed", "pause", "transport", "until")

    def __init__(self, address: Address, transport: X, listed: bool) -> None:
        self.address = address
        self.transport = transport
        self.listed = listed
        self.until = 0.0  # before this time it is not asked
        self.pause = _PAUSE


class Owners(Generic[X]):
    """`listed`: the transports of the listed addresses, which serve also if a server names such an address.
    `connect(address)` returns a transport, or raises `OSError`. Threads may share it."""

    def __init__(self, listed: Mapping[Address, X], connect: Callable[[Address], X]) -> None:
        self._listed = {address._replace(token=None): transport for address, transport in listed.items()}
        self._connect = connect
        self._prefix = next(iter(listed)).prefix
        # A Unix socket is not heard by others either.
        self._needs_tls = any(address.tls or address.socket is not None for address in listed)
        self._found: dict[str | int, Server[X]] = {}
        self._servers: dict[str, Server[X]] = {}
        self._lock = threading.Lock()

    def owner(self, about: About) -> Server[X] | None:
        """Returns the server that is asked about this; None: a listed one."""
        if not self._found:
            return None
        key = _key(about)
        return None if key is None else self._found.get(key)

    def request(self, request: Request, server: Server[X]) -> Request:
        """Returns a request as that server gets it."""
        limits = request.timeouts
        if limits.connect > _CONNECT:
            limits = Timeouts(_CONNECT, limits.read, limits.total)
        target = request.target
        if server.address.prefix != self._prefix:
            target = server.address.prefix + target[len(self._prefix) :]
        return Request(request.method, target, request.headers, request.body, limits, request.about)

    def learn(self, about: About, url: str) -> X | None:
        """Remembers who owns what a request was about. Returns the transport to close of a server that is
        forgotten for it."""
        key = _key(about)
        if key is None:
            return None
        closed = None
        with self._lock:
            server = self._servers.get(url)
            if server is None:
                server = self._new(url)
                if server is None:
                    return None
                if len(self._servers) >= _MOST_SERVERS:
                    closed = self._forget_one()
                self._servers[url] = server
            if server.until <= monotonic():
                if key not in self._found and len(self._found) >= _MOST_KEYS:
                    del self._found[next(iter(self._found))]
                self._found[key] = server
        return closed

    def failed(self, server: Server[X]) -> None:
        """Forgets a server for a time, which is longer after each failure in a row."""
        with self._lock:
            now = monotonic()
            if server.until <= now:  # else another call has failed at the same time
                server.until = now + server.pause
                server.pause = min(2 * server.pause, _LONGEST_PAUSE)
            self._leave(server)

    def answered(self, server: Server[X]) -> None:
        server.pause = _PAUSE

    def transports(self) -> Sequence[X]:
        """Returns the transports that no listed address has."""
        with self._lock:
            return [server.transport for server in self._servers.values() if not server.listed]

    def _new(self, url: str) -> Server[X] | None:
        """Returns a server at a URL; None if nothing may be sent there. What is encrypted on the way to a
        listed address is sent nowhere in the clear."""
        if not is_advertisable(url):
            return None
        try:
            address = address_of(url)
            if self._needs_tls and not address.tls:
                return None
            known = self._listed.get(address)
            return Server(address, self._connect(address) if known is None else known, known is not None)
        except (OSError, ValueError):
            return None

    def _forget_one(self) -> X | None:
        """Forgets the first server that owns nothing, or else the first one."""
        in_use = set(map(id, self._found.values()))
        url = next((url for url, one in self._servers.items() if id(one) not in in_use), None)
        server = self._servers.pop(next(iter(self._servers)) if url is None else url)
        self._leave(server)
        return None if server.listed else server.transport

    def _leave(self, server: Server[X]) -> None:
        for key in [key for key, one in self._found.items() if one is server]:
            del self._found[key]


def _key(about: About) -> str | int | None:
    """Returns the family or the shard; None: there are several, or an id that tells no shard."""
    if isinstance(about, str):
        return family(about)
    if isinstance(about, int):
        return shard_of_id(about)
    keys = {_key(one) for one in about}
    return keys.pop() if len(keys) == 1 else None
