"""The address of a server: `http://host:port`, `https://host/prefix` or `unix:/path`, and its TLS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import ssl

DEFAULT = "http://localhost:8080"
_SEVERAL = "write each of several addresses whole: http://a:8080,http://b:8080"
# Between two addresses. A path or a token may have a comma of its own.
_BETWEEN = re.compile(r"\s*,\s*(?=https?://|unix:)")


class Address(NamedTuple):
    """Where the server listens.

    `socket`: the path of a Unix socket; then `host` and `port` are not used. `prefix` comes before each path
    and has no slash at its end. `token` is the password in the URL; None: it has none.
    """

    host: str
    port: int
    tls: bool = False
    socket: str | None = None
    prefix: str = ""
    token: str | None = None

    @property
    def authority(self) -> str:
        """The value of the header `Host`."""
        if self.socket is not None:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        """The address without its token, for messages."""
        if self.socket is not None:
            return f"unix:{self.socket}"
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.prefix}"


def addresses_of(urls: str) -> list[Address]:
    """Returns the addresses in a text with one or several URLs, separated by commas. The token that one of
    them has is that of all. Raises `ValueError`, without a URL's password in its text."""
    found = [address_of(url) for url in _BETWEEN.split(urls.strip())]
    if len({address.prefix for address in found}) > 1:
        raise ValueError("the addresses of several servers must have the same path")
    tokens = {address.token for address in found if address.token is not None}
    if len(tokens) > 1:
        raise ValueError("the addresses of several servers must have the same token")
    token = tokens.pop() if tokens else None
    return [address._replace(token=token) for address in found]


def shown(addresses: Sequence[Address]) -> str:
    """Returns the addresses without tokens, as `addresses_of` reads them."""
    return ",".join(map(str, addresses))


def address_of(url: str) -> Address:
    """Returns the address in a URL. Raises `ValueError`, without the URL's password in its text."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        if not path.strip("/"):
            raise ValueError("unix: needs the path of a socket, such as unix:/run/jobqueue/socket")
        return Address("", 0, socket=path)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        if "," in url.partition("://")[2].partition("/")[0].rpartition("@")[2]:
            raise ValueError(_SEVERAL) from None
        raise ValueError("not the address of a server: its host or its port is malformed") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = url.rpartition("@")[2]
        like = DEFAULT if "://" in url else f"http://{shown}"
        raise ValueError(f"not the address of a server: {shown!r}; write {like}, or unix:/path")
    if "," in parts.hostname:
        raise ValueError(_SEVERAL)
    if parts.query or parts.fragment:
        raise ValueError("the address of a server has no query and no fragment")
    tls = parts.scheme == "https"
    token = parts.password or parts.username
    return Address(
        parts.hostname,
        port or (443 if tls else 80),
        tls,
        None,
        parts.path.rstrip("/"),
        None if token is None else unquote(token),
    )


class Tls:
    """The TLS of a client: `ca` and `cert` as for `tls_context`, or a context. One is made for the first
    address that needs it."""

    def __init__(
        self,
        ca: str | None = None,
        cert: str | tuple[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._ca = ca
        self._cert = cert
        self._context = context

    def context(self, address: Address) -> ssl.SSLContext | None:
        """Returns the context for an address; None: it has no TLS. Raises `OSError` for bad files."""
        if not address.tls:
            return None
        if self._context is None:
            self._context = tls_context(self._ca, self._cert)
        return self._context


def tls_context(ca: str | None = None, cert: str | tuple[str, str] | None = None) -> ssl.SSLContext:
    """Returns a context that verifies the server.

    `ca`: a file or a folder with the authorities to trust, in place of the system's. `cert`: the file of the
    client's certificate with its key, or the two files.
    """
    import ssl
    from os.path import isdir

    if ca is None:
        context = ssl.create_default_context()
    elif isdir(ca):
        context = ssl.create_default_context(capath=ca)
    else:
        context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["http/1.1"])
    if cert is not None:
        certificate, key = (cert, None) if isinstance(cert, str) else cert
        context.load_cert_chain(certificate, key, password="")  # without it, the terminal would be asked
    return context
