"""Checks on requests of browsers and of proxies.

Content types are ignored here, so any web page could enqueue on a developer's machine. Browsers report where
a request comes from, and requests from other origins may change nothing. A page whose name was pointed at
this machine (DNS rebinding) has the same origin for its browser; so a browser's request must also be for a
Host of this server.
"""

import re
import socket
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, TypeAlias

from jobqueue.errors import CrossOrigin, Refused
from jobqueue.settings import Settings
from jobqueue.web.http import Answer, Deferred, Request, Response, Stream, Upload

Headers: TypeAlias = Mapping[bytes, bytes]
_CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_OF_BROWSERS: Final = frozenset({b"origin", b"sec-fetch-site", b"referer"})
# A path that a proxy may put in front of ours. It is written into what people paste to a shell.
_PREFIX: Final = re.compile(rb"(?:/[A-Za-z0-9._~-]{1,64}){1,8}/?")
_LINK: Final = re.compile(rb"\r\nLink: [^\r]*")
# The peer of a connection by a Unix socket.
UNIX: Final = "unix"
_FOR_MONITORS: Final = frozenset({"/healthz", "/readyz"})
# What an answer to a browser carries, unless it has a policy of its own.
_STRICT: Final = (
    b"\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'"
    b"\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY"
)
_SHOWN: Final = (
    b"ETag, Link, Location, Preference-Applied, Queue-State, Retry-After, X-Request-Id, Job-Id, Job-Queue, "
    b"Job-Type, Job-Priority, Job-Attempts, Job-Lease, Job-Lease-For, Job-Lease-Expires-At, Job-Server"
)
_TAKEN: Final = (
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
            self._check_origin(request, host)
        elif request.sqs is not None and headers.get(b"sec-fetch-site") not in (b"same-origin", b"none"):
            # A GET changes things there, and any page can make a browser send one, without an Origin.
            raise CrossOrigin(
                "a browser sent this, and does not say that it is not for a page of another origin"
            )

    def _check_origin(self, request: Request, host: bytes) -> None:
        headers = request.headers
        origin = headers.get(b"origin")
        if origin is not None and origin in self._origins:
            return
        site = headers.get(b"sec-fetch-site", b"none")
        same = origin is None or self._is_same(request, origin.lower(), host, site)
        if site not in (b"same-origin", b"none") or not same:
            raise CrossOrigin(
                "a browser sent this from a page of another origin; call the API from a program, from a page "
                "that this server serves, or from one of JOBQUEUE_ALLOWED_ORIGINS"
            )

    def _is_same(self, request: Request, origin: bytes, host: bytes, site: bytes) -> bool:
        """Tells whether the origin of a page is that of this server: the scheme counts like the host.

        Behind a proxy that ends TLS and says nothing of it, pages are https and requests http. Only the
        browser knows then, and says `same-origin`.
        """
        scheme, _, name = origin.partition(b"://")
        if name != host:
            return False
        known = self._reported_scheme(request)
        if known is None and self._scheme == "http" and site == b"same-origin":
            return scheme in (b"http", b"https")
        return scheme == (known or self._scheme).encode()

    def address(self, request: Request) -> tuple[str, str]:
        """Returns the scheme, and the host and prefix, by which the client asked.

        Only a trusted proxy may report others than those of the request.
        """
        scheme = self._reported_scheme(request) or self._scheme
        return scheme, self._host(request).decode("latin-1") + self.prefix(request)

    def prefix(self, request: Request) -> str:
        """Returns the path at which a trusted proxy publishes this server, such as /queue; "" for the root.

        The proxy has removed it from the path of the request.
        """
        said = request.headers.get(b"x-forwarded-prefix") if self._by_proxy(request) else None
        return said.decode("ascii").rstrip("/") if said is not None and _PREFIX.fullmatch(said) else ""

    def add_prefix(self, request: Request, answer: Answer) -> Answer:
        """Adds the prefix to the paths in the headers of an answer."""
        prefix = self.prefix(request).encode()
        if not prefix:
            return answer
        if isinstance(answer, Deferred):
            render = answer.render
            answer.render = lambda result: self.add_prefix(request, render(result))
        elif isinstance(answer, Response):
            answer.headers = answer.headers.replace(b"\r\nLocation: /", b"\r\nLocation: %b/" % prefix)
            answer.headers = _LINK.sub(
                lambda found: found[0].replace(b"</", b"<%b/" % prefix), answer.headers
            )
        return answer

    def _reported_scheme(self, request: Request) -> str | None:
        """Returns the scheme that a trusted proxy was asked by; None: none says it."""
        said = request.headers.get(b"x-forwarded-proto", b"").lower() if self._by_proxy(request) else b""
        return said.decode("ascii") if said in (b"http", b"https") else None

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
            answer.render = lambda result: self.add_headers(request, render(result))
            return answer
        if isinstance(answer, Upload):
            end = answer.end

            async def end_with_headers() -> Response:
                ended: Response = _with(await end(), allowed)
                return ended

            answer.end = end_with_headers
            return answer
        shown: Answer = _with(answer, allowed)
        return shown

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
