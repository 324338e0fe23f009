"""Checks on requests of browsers, on administrative calls without tokens, and on proxies.

Content types are ignored here, so any web page could enqueue on a developer's machine. Browsers report where
a request comes from, and requests from other origins may change nothing. A page whose name was pointed at
this machine (DNS rebinding) has the same origin for its browser; so a browser's request must also be for a
Host of this server.
"""

import socket
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from jobqueue.errors import CrossOrigin, Refused
from jobqueue.settings import Settings
from jobqueue.web.http import Answer, Deferred, Request, Response, Stream

Headers = Mapping[bytes, bytes]
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_OF_BROWSERS = frozenset({b"origin", b"sec-fetch-site", b"referer"})
_OF_PROXIES = frozenset({b"forwarded", b"via"})
# The peer of a connection by a Unix socket.
UNIX = "unix"
_LOOPBACK = ("127.", "::ffff:127.")
_FOR_MONITORS = frozenset({"/healthz", "/readyz"})
# What an answer to a browser carries, unless it has a policy of its own.
_STRICT = (
    b"\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'"
    b"\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY"
)
_SHOWN = (
    b"ETag, Link, Location, Preference-Applied, Queue-State, Retry-After, X-Request-Id, Job-Id, Job-Queue, "
    b"Job-Type, Job-Priority, Job-Attempts, Job-Lease, Job-Lease-For, Job-Lease-Expires-At"
)
_TAKEN = (
    b"Authorization, Content-Type, Idempotency-Key, If-Match, Job-Lease, Last-Event-ID, Prefer, "
    b"Queue-Consumer, traceparent, X-Request-Id"
)


def is_program(headers: Headers) -> bool:
    """Tells whether nothing in the headers comes from a browser.

    Node's fetch sends `Sec-Fetch-Mode` and the language *.
    """
    return (
        _OF_BROWSERS.isdisjoint(headers)
        and not headers.get(b"user-agent", b"").startswith(b"Mozilla/")
        and headers.get(b"accept-language", b"*") == b"*"
    )


def is_local(peer: str, headers: Headers) -> bool:
    """Tells whether a request comes from this machine and no proxy passed it on."""
    forwarded = any(name in _OF_PROXIES or name.startswith(b"x-forwarded-") for name in headers)
    return (peer in ("::1", UNIX) or peer.startswith(_LOOPBACK)) and not forwarded


def check_administrator(peer: str, headers: Headers) -> None:
    """Raises `Refused` unless the request comes from this machine. For servers without access tokens."""
    if not is_local(peer, headers):
        raise Refused(
            "this call destroys or reconfigures; without access tokens it is answered only to requests from "
            "this machine that no proxy passed on. Set JOBQUEUE_ACCESS_TOKEN or JOBQUEUE_TOKENS_FILE; or "
            "JOBQUEUE_OPEN_ADMIN=true, and it is answered to everybody",
            setting="JOBQUEUE_ACCESS_TOKEN",
        )


class BrowserPolicy:
    """The rules that the settings make for browsers. `proxies` is None if no proxy is trusted."""

    def __init__(self, settings: Settings) -> None:
        name = socket.gethostname().lower()
        self._hosts = {"localhost", name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}
        self._suffixes: tuple[str, ...] = (".localhost",)
        for host in settings.allowed_hosts:
            if host.startswith("."):
                self._suffixes += (host,)
            else:
                self._hosts.add(host)
        self._origins = frozenset(origin.encode() for origin in settings.allowed_origins)
        self.proxies = Proxies(settings.trusted_proxies) if settings.trusted_proxies else None
        self._scheme = "http" if settings.tls_cert is None else "https"

    def check(self, request: Request) -> None:
        """Raises `CrossOrigin`, `Refused`."""
        headers = request.headers
        if is_program(headers) or request.path in _FOR_MONITORS:
            return
        host = self._host(request).lower()
        if not self._is_ours(host):
            raise Refused(
                f"a browser sent this for the host {host.decode('latin-1')[:100]!r}, which is no name of "
                "this server; if it is one, add it to JOBQUEUE_ALLOWED_HOSTS",
                setting="JOBQUEUE_ALLOWED_HOSTS",
            )
        if request.method in _CHANGING:
            self._check_origin(headers, host)

    def _check_origin(self, headers: Headers, host: bytes) -> None:
        origin = headers.get(b"origin")
        if origin is not None and origin in self._origins:
            return
        site = headers.get(b"sec-fetch-site", b"none")
        same = origin is None or origin.split(b"://", 1)[-1].lower() == host
        if site not in (b"same-origin", b"none") or not same:
            raise CrossOrigin(
                "a browser sent this from a page of another origin; call the API from a program, from a page "
                "that this server serves, or from one of JOBQUEUE_ALLOWED_ORIGINS"
            )

    def address(self, request: Request) -> tuple[str, str]:
        """Returns the scheme and host that the client used; a trusted proxy may report another scheme."""
        said = request.headers.get(b"x-forwarded-proto") if self._by_proxy(request) else None
        scheme = said.decode("ascii") if said in (b"http", b"https") else self._scheme
        return scheme, self._host(request).decode("latin-1")

    def _by_proxy(self, request: Request) -> bool:
        return self.proxies is not None and self.proxies.trusts(request.through)

    def _host(self, request: Request) -> bytes:
        headers = request.headers
        if self._by_proxy(request):
            return headers.get(b"x-forwarded-host", headers.get(b"host", b""))
        return headers.get(b"host", b"")

    def _is_ours(self, host: bytes) -> bool:
        name = host.decode("latin-1")
        if name.startswith("["):
            return True  # an IPv6 address: nobody can point a name at us by it
        name = name.partition(":")[0].rstrip(".")
        if name in self._hosts or name.endswith(self._suffixes):
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    # -- answers to browsers ------------------------------------------------------------------------

    def add_headers(self, request: Request, answer: Answer) -> Answer:
        """Adds the headers that a browser needs to an answer."""
        if is_program(request.headers):
            return answer
        allowed = self._allowed(request.headers)
        if isinstance(answer, Deferred):
            render = answer.render
            answer.render = lambda result: _with(render(result), allowed)
        elif isinstance(answer, (Response, Stream)):
            shown: Answer = _with(answer, allowed)
            return shown
        return answer

    def preflight(self, request: Request) -> Response | None:
        """Returns the answer to a CORS preflight; None: it is none, or its origin is not allowed."""
        allowed = self._allowed(request.headers)
        if not allowed or b"access-control-request-method" not in request.headers:
            return None
        asked = (
            b"\r\nAccess-Control-Allow-Methods: GET, HEAD, POST, PUT, PATCH, DELETE"
            b"\r\nAccess-Control-Allow-Headers: %b\r\nAccess-Control-Max-Age: 600" % _TAKEN
        )
        return Response(204, b"", allowed + asked)

    def _allowed(self, headers: Headers) -> bytes:
        origin = headers.get(b"origin")
        if origin is None or origin not in self._origins:
            return b""
        return b"\r\nAccess-Control-Allow-Origin: %b\r\nVary: Origin\r\nAccess-Control-Expose-Headers: %b" % (
            origin,
            _SHOWN,
        )


def _with(answer: Response | Stream, more: bytes) -> Any:
    strict = b"" if b"Content-Security-Policy" in answer.headers else _STRICT
    answer.headers += more + strict
    return answer


class Proxies:
    """The proxies whose report of a client's address is trusted."""

    def __init__(self, networks: tuple[str, ...]) -> None:
        self._networks = [ip_network(network) for network in networks if network != UNIX]
        self._known = {UNIX: UNIX in networks}

    def trusts(self, peer: str) -> bool:
        known = self._known.get(peer)
        if known is None:
            if len(self._known) >= 4096:
                self._known = {UNIX: self._known[UNIX]}
            known = self._known[peer] = _inside(peer, self._networks)
        return known

    def client(self, peer: str, headers: Headers) -> str:
        """Returns the address of the client: the last one that is not a trusted proxy."""
        said = headers.get(b"x-forwarded-for")
        if said is None or not self.trusts(peer):
            return peer
        for part in reversed(said.decode("latin-1").split(",")):
            name = part.strip().strip("[]")
            try:
                ip_address(name)
            except ValueError:
                return peer
            peer = name
            if not self.trusts(name):
                break
        return peer


def _inside(peer: str, networks: list[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in network for network in networks if network.version == mapped.version)
