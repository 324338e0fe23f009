"""Who may ask at all: requests that a web page made a browser send, and calls for administrators only."""

from collections.abc import Mapping

from jobqueue.errors import CrossOrigin, Refused

_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
OF_BROWSERS = frozenset({b"origin", b"sec-fetch-site"})
_OF_PROXIES = frozenset({b"forwarded", b"via"})
_LOOPBACK = ("127.", "::ffff:127.")


def check_origin(method: str, headers: Mapping[bytes, bytes]) -> None:
    """Content types are ignored here, so any web page could enqueue on a developer's machine; browsers say
    where a request comes from, and what comes from elsewhere changes nothing. `CrossOrigin`."""
    if method not in _CHANGING or OF_BROWSERS.isdisjoint(headers):
        return
    site = headers.get(b"sec-fetch-site", b"none")
    origin = headers.get(b"origin")
    if site not in (b"same-origin", b"none") or (origin is not None and not _same(origin, headers)):
        raise CrossOrigin(
            "a browser sent this from a page of another origin; call the API from a program, or from a page "
            "that this server serves"
        )


def is_local(peer: str, headers: Mapping[bytes, bytes]) -> bool:
    """The request comes from this machine, and no proxy passed it on."""
    forwarded = any(name in _OF_PROXIES or name.startswith(b"x-forwarded-") for name in headers)
    return (peer == "::1" or peer.startswith(_LOOPBACK)) and not forwarded


def check_administrator(peer: str, headers: Mapping[bytes, bytes]) -> None:
    """While there are no access tokens, what destroys or reconfigures is for this machine. `Refused`."""
    if not is_local(peer, headers):
        raise Refused(
            "this call destroys or reconfigures; without access tokens it is answered only to requests from "
            "this machine that no proxy passed on. Set JOBQUEUE_ACCESS_TOKEN or JOBQUEUE_TOKENS_FILE; or "
            "JOBQUEUE_OPEN_ADMIN=true, and it is answered to everybody",
            setting="JOBQUEUE_ACCESS_TOKEN",
        )


def _same(origin: bytes, headers: Mapping[bytes, bytes]) -> bool:
    return origin.split(b"://", 1)[-1].lower() == headers.get(b"host", b"").lower()
