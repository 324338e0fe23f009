"""Asks the kernel for the one socket at the other end of a connection, by netlink (sock_diag(7)). It takes
some microseconds, whatever the number of sockets of the machine.

Linux answers any process. Where it does not, such as in a sandbox without `AF_NETLINK`, nothing is known, and
the tables of `/proc/net` are read instead.
"""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

_SOCK_DIAG = 4  # a protocol of netlink
_BY_FAMILY = 20  # the type of a request for sockets of a family, and of its answer
_REQUEST = 1
_LISTENS = 10  # a state of TCP
_ANY = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")  # length, type, flags, number, port
_ASKED = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, states
_ENDS = struct.Struct("!HH16s16s")  # ports and addresses of both ends
_REST = struct.Struct("=III")  # interface, cookie
_STATE = struct.Struct("=BBBB")  # family, state, timer, retransmissions
_FOUND = struct.Struct("=IIIII")  # timer, two queues, user, inode
_ENDS_AT = _HEADER.size + _STATE.size
_FOUND_AT = _ENDS_AT + _ENDS.size + _REST.size
_LONGEST = 1.0  # seconds
_Address = IPv4Address | IPv6Address


class Holder(NamedTuple):
    """Who holds a socket: the user, and the number of its file; 0: no process has it open any more."""

    uid: int
    inode: int


def holder(near: tuple[_Address, int], far: tuple[_Address, int]) -> Holder | None:
    """Returns who holds the socket by TCP that is connected from `near` to `far`, both of one family. None:
    it was not found, or this system does not tell."""
    family = socket.AF_INET if isinstance(near[0], IPv4Address) else socket.AF_INET6
    ports = _ENDS.pack(near[1], far[1], near[0].packed, far[0].packed)
    asked = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, _ANY) + ports + _REST.pack(0, _ANY, _ANY)
    request = _HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST, 1, 0) + asked
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
            kernel.settimeout(_LONGEST)
            kernel.send(request)
            return _read(kernel.recv(4096), near[1], far[1])
    except OSError:
        return None


def _read(answer: bytes, near: int, far: int) -> Holder | None:
    """Returns the socket of an answer. In the place of one that is gone the kernel shows the socket that
    listens on its port, which may be that of anybody."""
    if len(answer) < _FOUND_AT + _FOUND.size or _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    state = _STATE.unpack_from(answer, _HEADER.size)[1]
    if state == _LISTENS or _ENDS.unpack_from(answer, _ENDS_AT)[:2] != (near, far):
        return None
    *_, uid, inode = _FOUND.unpack_from(answer, _FOUND_AT)
    return Holder(uid, inode)
