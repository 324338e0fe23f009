"""Administrators: who may make administrative calls on a server without access tokens.

A person at this machine, and nobody else. A proxy on this machine with its default settings adds no header to
what it passes on, so its requests look like those of a person: they come from a loopback address. But a proxy
runs as a user of its own, and passes on the name that its clients asked for. So besides the address

- the `Host` must be a name of the loopback interface, and
- the process at the other end must run as a person, as root, or as the server itself.
"""

import os
import sys
from asyncio import Future
from collections.abc import Mapping
from ipaddress import ip_address

from jobqueue.errors import Refused
from jobqueue.web.access.browser_policy import UNIX
from jobqueue.web.access.socket_owners import Owner, SocketOwners, ends_of, local_port, owner_of_unix_peer
from jobqueue.web.http import Request

_LOOPBACK = ("127.", "::ffff:127.")
_OF_PROXIES = frozenset({b"forwarded", b"via"})
# The first uid of persons.
_PERSONS = 1000
# Uids above it that are no persons: services for which systemd makes up a user, and "nobody" in its widths,
# which also stands for all users that this container does not have.
_SERVICES = range(61184, 65536)
_NOBODY = frozenset({2**32 - 2, 2**32 - 1})


def is_local(peer: str, headers: Mapping[bytes, bytes]) -> bool:
    """Tells whether a request comes from this machine and no proxy says that it passed it on."""
    forwarded = any(name in _OF_PROXIES or name.startswith(b"x-forwarded-") for name in headers)
    return (peer in ("::1", UNIX) or peer.startswith(_LOOPBACK)) and not forwarded


def is_person(uid: int) -> bool:
    """Tells whether a user is a person, root, or the one that this server runs as."""
    if uid in (0, os.geteuid()):
        return True
    return uid >= _PERSONS and uid not in _SERVICES and uid not in _NOBODY


def is_loopback_name(host: str) -> bool:
    """Tells whether a `Host` is a name or an address of the loopback interface."""
    host = host.lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class Administrators:
    """`owners` finds out whose socket it is; None: this system does not tell, and address and Host decide.
    `link_port`: where other servers pass connections on. The process at the other end is then one of those,
    and nothing tells who is behind it."""

    def __init__(self) -> None:
        self.owners = SocketOwners() if sys.platform == "linux" else None
        self.link_port: int | None = None

    def check(self, request: Request) -> "Future[Owner] | None":
        """Returns None if the caller may administer, or a Future of the owner of its socket, which is for
        `check_owner`.

        Raises `Refused` and `Overloaded`.
        """
        if not is_local(request.peer, request.headers):
            raise _refused("this one comes from elsewhere, or a proxy says that it passed it on")
        if request.peer != UNIX:
            _check_host(request)
        if request.descriptor < 0:
            raise _refused("it could not be found out who sent this one (its socket is not known)")
        try:
            if self.link_port is not None and local_port(request.descriptor) == self.link_port:
                raise _refused("this one was passed on by another server; ask the owner of the jobs itself")
            if request.peer == UNIX:
                self.check_owner(owner_of_unix_peer(request.descriptor))
                return None
            return None if self.owners is None else self.owners.find(ends_of(request.descriptor))
        except OSError as failed:
            raise _refused(f"it could not be found out who sent this one ({failed.strerror})") from None

    def check_owner(self, owner: Owner | None) -> None:
        """Raises `Refused` unless `owner` may administer; None: this system does not tell."""
        if owner is None:
            return
        if owner.uid is None:
            raise _refused(f"it could not be found out who sent this one ({owner.why})")
        if not is_person(owner.uid):
            raise _refused(f"this one was sent by a service, such as a proxy (user id {owner.uid})")


def _check_host(request: Request) -> None:
    host = request.header(b"host") or ""
    if "://" in request.path:  # as a proxy is asked; what the path says counts (RFC 9112, 3.2.2)
        host = request.path.partition("://")[2].partition("/")[0]
    if not is_loopback_name(host):
        raise _refused(f"this one is for the host {host[:100]!r}; ask for localhost, 127.0.0.1 or [::1]")


def _refused(why: str) -> Refused:
    return Refused(
        "this call is for administrators; without access tokens it is answered only to requests that a "
        f"person on this machine sends, and {why}. Set JOBQUEUE_ACCESS_TOKEN or JOBQUEUE_TOKENS_FILE; or "
        "JOBQUEUE_OPEN_ADMIN=true, and it is answered to everybody",
        setting="JOBQUEUE_ACCESS_TOKEN",
    )
