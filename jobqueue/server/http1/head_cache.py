"""KnownHeads: request heads that llhttp has read before, and what it made of them.

A memory in front of the parser, not a second parser: what is here byte for byte was accepted by llhttp, under
the same rules, earlier. Whatever is not goes to llhttp.
"""

from collections.abc import Mapping

from jobqueue.errors import JobQueueError
from jobqueue.web.access.browser_policy import is_program
from jobqueue.web.access.identity import Principal
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.request_metrics import Operation
from jobqueue.web.routes import Route, Router

_KNOWN_BLOCKS = 1024
_KNOWN_BYTES = 2048
_NEVER_KNOWN = frozenset({
    b"transfer-encoding", b"expect", b"content-encoding", b"upgrade", b"job-lease", b"cookie",
})  # fmt: skip
# What a request target may hold to be understood without llhttp; all of it means itself.
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/?&=-_.,:~%+"
METHODS = {name.encode(): name for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")}


class CachedHead:
    """What llhttp made of a block of headers. `permitted`: of the principal whose access token is in it."""

    __slots__ = ("close", "from_program", "headers", "length", "names_itself", "permitted")

    def __init__(
        self,
        headers: dict[bytes, bytes],
        length: int,
        close: bool,
        permitted: dict[Operation, Dispatcher] | None,
    ) -> None:
        self.headers = headers
        self.length = length
        self.close = close
        self.permitted = permitted
        self.from_program = is_program(headers)  # nothing of a browser in it
        self.names_itself = b"x-request-id" in headers


class HeadCache:
    """What llhttp made of request heads that came before.

    A client sends the same headers with each request. A block of them that llhttp has accepted once, byte for
    byte the same, means the same again, and need not be parsed again. Bounded; a block that frames its body
    in an unusual way, or carries a secret, is not kept; but for an access token that is in use. Whether that
    is still good is asked with each request.
    """

    def __init__(self, router: Router, callers: Mapping[bytes | None, Principal]) -> None:
        self._router = router
        self._callers = callers
        self.blocks: dict[bytes, CachedHead] = {}
        self.lines: dict[bytes, tuple[str, str, str, Route, str]] = {
            f"{method} {path} HTTP/1.1\r\n".encode(): (method, path, "", route, "")
            for path, table in router.plain.items()
            for method, route in table.items()
        }
        # Lines around a number, by what is left without digits: method, what is before and behind it, route,
        # and how long those two are.
        self._around: dict[bytes, tuple[str, bytes, bytes, Route, int]] = {}

    def learn(self, block: bytes, headers: dict[bytes, bytes], length: int, close: bool) -> None:
        sender = headers.get(b"authorization")
        caller = self._callers.get(sender)
        if sender is not None and caller is None:
            return
        if len(block) <= _KNOWN_BYTES and _NEVER_KNOWN.isdisjoint(headers):
            if len(self.blocks) >= _KNOWN_BLOCKS:
                self.blocks.clear()
            permitted = None if caller is None else caller.permitted
            self.blocks[block] = CachedHead(headers, length, close, permitted)

    def line(self, line: bytes) -> tuple[str, str, str, Route, str] | None:
        """Method, path, query, route and parameter of a request line that is none of `lines`; None: llhttp is
        to look at it."""
        shape = line.translate(None, b"0123456789")
        around = self._around.get(shape)
        if around is not None and len(line) >= around[4]:
            method, before, after, route, _ = around
            number = line[len(before) : -len(after)]
            if number.isdigit() and line == before + number + after:
                parameter = number.decode("ascii")
                return method, line[len(method) + 1 : -11].decode("ascii"), "", route, parameter
        found = self._read(line)
        if found is not None and found[4].isdigit() and not found[2]:
            method, _, _, route, parameter = found
            before, _, after = line.partition(parameter.encode())
            if len(self._around) < _KNOWN_BLOCKS and line.count(parameter.encode()) == 1:
                self._around[shape] = (method, before, after, route, len(before) + len(after))
        return found

    def _read(self, line: bytes) -> tuple[str, str, str, Route, str] | None:
        name, _, target = line[:-11].partition(b" ")
        method = METHODS.get(name)
        if method is None or line[-11:] != b" HTTP/1.1\r\n" or target.translate(None, _PLAIN):
            return None
        path, _, query = target.decode("ascii").partition("?")
        try:
            route, parameter = self._router.find(method, path)
        except JobQueueError:
            return None
        return method, path, query, route, parameter
