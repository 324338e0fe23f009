"""SocketOwners: which user's process is at the other end of a connection on this machine.

The kernel is asked for the one socket (`socket_diag`). Where it does not answer, `/proc/net/tcp` and
`/proc/net/tcp6` tell it, which have a row for every socket of the machine:

    sl  local_address rem_address   st tx_queue:rx_queue tr:tm->when retrnsmt   uid  timeout inode
     7: 0100007F:C1A4 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 51234 …

The row of the client has the client's address first. With 100,000 sockets it takes tenths of a second to read
them, so a thread does it, one read at a time for all callers that wait.
"""

import asyncio
import socket
import struct
import sys
import time
from asyncio import Future
from collections.abc import Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from jobqueue.errors import Overloaded
from jobqueue.web.access.socket_diag import holder

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
# Bytes that are searched at once; the lock of the interpreter is free in between.
_CHUNK = 65536
# Seconds that one read of the tables may take.
_LONGEST = 2.0
# Connections that are searched for in one read, and that may wait.
_AT_ONCE = 16
_MOST = 256
# A table that changes while it is read may leave a row out.
_READS = 2


class Owner(NamedTuple):
    """`uid`: the user whose process holds the socket; None: it is not known, and `why` says why."""

    uid: int | None
    why: str = ""


class Ends(NamedTuple):
    """A connection by TCP: the addresses and ports of the client and of the server."""

    client: tuple[str, int]
    server: tuple[str, int]


class SocketOwners:
    """Finds the owners of clients' sockets. `tables`: the files with a row for each socket, which are read in
    the place of asking the kernel."""

    def __init__(self, tables: Sequence[str] | None = None) -> None:
        self._asks = tables is None
        self._tables = TABLES if tables is None else tables
        self._wanted: list[tuple[Ends, Future[Owner]]] = []
        self._reading = False

    def find(self, ends: Ends) -> "Future[Owner]":
        """Returns a Future of the owner, for which nothing is raised. Raises `Overloaded`."""
        if len(self._wanted) >= _MOST:
            raise Overloaded("too many administrative calls at once; try again", retry_after=1)
        found: Future[Owner] = asyncio.get_running_loop().create_future()
        if self._asks and (owner := asked_owner(ends)) is not None:
            found.set_result(owner)
            return found
        self._wanted.append((ends, found))
        if not self._reading:
            self._read()
        return found

    def _read(self) -> None:
        loop = asyncio.get_running_loop()
        batch, self._wanted = self._wanted[:_AT_ONCE], self._wanted[_AT_ONCE:]
        self._reading = bool(batch)
        if batch:
            ends = [wanted for wanted, _ in batch]
            try:
                reading = loop.run_in_executor(None, owners, ends, self._tables)
            except RuntimeError:  # the server stops, and its threads have ended
                waiting, self._wanted, self._reading = batch + self._wanted, [], False
                _answer([found for _, found in waiting], [], None)
            else:
                reading.add_done_callback(partial(self._was_read, [found for _, found in batch]))

    def _was_read(self, batch: "list[Future[Owner]]", reading: "Future[list[Owner]]") -> None:
        error = None if reading.cancelled() else reading.exception()
        _answer(batch, [] if reading.cancelled() or error is not None else reading.result(), error)
        self._read()


def _answer(batch: "list[Future[Owner]]", known: list[Owner], error: BaseException | None) -> None:
    for index, found in enumerate(batch):
        if not found.done():  # else the client has gone
            found.set_result(known[index] if known else Owner(None, str(error or "the server stops")))


def asked_owner(ends: Ends) -> Owner | None:
    """Returns the owner of a client's socket as the kernel tells it; None: it does not."""
    client, server = _addresses(ends)
    if type(client) is not type(server):
        return None
    held = holder((client, ends.client[1]), (server, ends.server[1]))
    return None if held is None else _owner(held.uid, held.inode)


def owners(wanted: Sequence[Ends], tables: Sequence[str] = TABLES) -> list[Owner]:
    """Returns the owner of each client's socket. Blocks, for some seconds at most."""
    until = time.monotonic() + _LONGEST
    patterns = {ends: [pattern.encode() for pattern in _patterns(ends)] for ends in wanted}
    found: dict[Ends, Owner] = {}
    why = "this system shows no such socket"
    for path in [*tables] * _READS:
        left = {ends: patterns[ends] for ends in patterns if ends not in found}
        if not left:
            break
        try:
            if not _search(path, left, found, until):
                why = f"{path} has too many rows to be read in {_LONGEST:g} seconds"
                break
        except FileNotFoundError:  # a system without IPv6 has no table for it
            continue
        except OSError as failed:
            why = f"{path}: {failed.strerror}"
    return [found.get(ends, Owner(None, why)) for ends in wanted]


def _search(path: str, left: dict[Ends, list[bytes]], found: dict[Ends, Owner], until: float) -> bool:
    """Searches one table. Returns False if the time is over."""
    with open(path, "rb", _CHUNK) as table:
        while rows := table.read(_CHUNK):
            rows += table.readline()  # to the end of a row
            for ends, patterns in left.items():
                for pattern in patterns:
                    if (at := rows.find(pattern)) >= 0:
                        row = rows[at:].partition(b"\n")[0].split()  # it begins with the local address
                        found[ends] = _owner(int(row[6]), int(row[8]))
            if time.monotonic() > until:
                return False
    return True


def _owner(uid: int, inode: int) -> Owner:
    """Returns the owner of a socket.

    One that no process holds any more is shown with uid 0 and inode 0: a proxy that has hung up after its
    request would pass for root.
    """
    return Owner(uid) if inode else Owner(None, "the client has closed the connection")


def _addresses(ends: Ends) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]:
    client, server = (_plain(ip_address(address.partition("%")[0])) for address, _ in ends)
    return client, server


def _patterns(ends: Ends) -> list[str]:
    """Returns how a row of the client begins. IPv4 has two forms: a socket of IPv6 may use it, too."""
    client, server = _addresses(ends)
    ports = [port for _, port in ends]
    forms = [(client, server)]
    if isinstance(client, IPv4Address) and isinstance(server, IPv4Address):
        forms.append((_mapped(client), _mapped(server)))
    return [f" {_hex(near)}:{ports[0]:04X} {_hex(far)}:{ports[1]:04X} " for near, far in forms]


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _mapped(address: IPv4Address) -> IPv6Address:
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


def _hex(address: IPv4Address | IPv6Address) -> str:
    """Returns an address as the table has it: words of 32 bits as this machine orders their bytes."""
    packed = address.packed
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


# -- the socket of a connection ---------------------------------------------------------------------


def ends_of(descriptor: int) -> Ends:
    """Returns the ends of a connection by TCP. Raises `OSError`."""
    connected = socket.socket(fileno=descriptor)
    try:
        return Ends(connected.getpeername()[:2], connected.getsockname()[:2])
    finally:
        connected.detach()


def local_port(descriptor: int) -> int | None:
    """Returns the port of this end of a connection; None for a Unix socket. Raises `OSError`."""
    connected = socket.socket(fileno=descriptor)
    try:
        name = connected.getsockname()
    finally:
        connected.detach()
    return int(name[1]) if isinstance(name, tuple) else None


def owner_of_unix_peer(descriptor: int) -> Owner | None:
    """Returns who has connected to a Unix socket; None: this system does not tell. Raises `OSError`."""
    connected = socket.socket(fileno=descriptor)
    try:
        if hasattr(socket, "SO_PEERCRED"):
            credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3I"))
            return Owner(struct.unpack("3I", credentials)[1])
        if sys.platform == "darwin":  # struct xucred of LOCAL_PEERCRED: its version, the user, groups
            return Owner(struct.unpack_from("2I", connected.getsockopt(0, 1, 76))[1])
        return None
    finally:
        connected.detach()
