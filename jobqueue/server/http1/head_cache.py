"""HeadCache: request heads that llhttp has read before, and what it made of them.

It is a cache in front of the parser, not a second parser. What is in it was accepted by llhttp earlier,
byte for byte the same and under the same rules. Everything else goes to llhttp.
"""

from collections.abc import Mapping

from jobqueue.errors import JobQueueError
from jobqueue.web.access.browser_policy import is_program
from jobqueue.web.access.identity import Principal
from jobqueue.web.context import Context
from jobqueue.web.request_metrics import Operation
from jobqueue.web.routes import Route, Router

_MAX_BLOCKS = 1024
_MAX_BLOCK_BYTES = 2048
# Headers that frame a body in an unusual way, or carry a secret
_NEVER_CACHED = frozenset(
    {
        b"transfer-encoding",
        b"expect",
        b"content-encoding",
        b"upgrade",
        b"job-lease",
        b"cookie",
    }
)
# Bytes of a request target that mean themselves. A target with others goes to llhttp.
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/?&=-_.,:~%+"
METHODS = {name.encode(): name for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")}


class CachedHead:
    """What llhttp made of a block of headers.

    `length`: of the body. `close`: the connection ends after the response. `permitted`: what the principal
    may call whose access token is among the headers; None: there is no token.
    """

    __slots__ = ("close", "from_program", "headers", "length", "names_itself", "permitted")

    def __init__(
        self,
        headers: dict[bytes, bytes],
        length: int,
        close: bool,
        permitted: dict[Operation, Context] | None,
    ) -> None:
        self.headers = headers
        self.length = length
        self.close = close
        self.permitted = permitted
        self.from_program = is_program(headers)  # no browser sends these headers
        self.names_itself = b"x-request-id" in headers


class HeadCache:
    """Headers by the block that they came in, and routes by request line.

    A client sends the same headers with each request, so a block that came before need not be parsed again.
    The cache is bounded. A block with a secret in it is not kept, except an access token that is in use;
    whether the token is still good is checked with each request.
    """

    def __init__(self, router: Router, callers: Mapping[bytes | None, Principal[Context]]) -> None:
        self._router = router
        self._callers = callers
        self.blocks: dict[bytes, CachedHead] = {}
        # Method, path, query, route and parameter by request line, for the paths without a parameter
        self.lines: dict[bytes, tuple[str, str, str, Route, str]] = {
            f"{method} {path} HTTP/1.1\r\n".encode(): (method, path, "", route, "")
            for path, table in router.plain.items()
            for method, route in table.items()
        }
        if router.root is not None:
            self.lines[b"POST / HTTP/1.1\r\n"] = ("POST", "/", "", router.root, "")
        # Request lines with a number, by what is left of them without digits: method, the bytes before and
        # after the number, route, and how long those bytes are together
        self._around_number: dict[bytes, tuple[str, bytes, bytes, Route, int]] = {}

    def learn(self, block: bytes, headers: dict[bytes, bytes], length: int, close: bool) -> None:
        """Adds what llhttp made of `block`, unless it is one that is never kept."""
        sender = headers.get(b"authorization")
        caller = self._callers.get(sender)
        if sender is not None and caller is None:
            return
        if len(block) <= _MAX_BLOCK_BYTES and _NEVER_CACHED.isdisjoint(headers):
            if len(self.blocks) >= _MAX_BLOCKS:
                self.blocks.clear()
            permitted = None if caller is None else caller.permitted
            self.blocks[block] = CachedHead(headers, length, close, permitted)

    def line(self, line: bytes) -> tuple[str, str, str, Route, str] | None:
        """Method, path, query, route and parameter of a request line that is not in `lines`. None: llhttp has
        to read it."""
        shape = line.translate(None, b"0123456789")
        around = self._around_number.get(shape)
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
            if len(self._around_number) < _MAX_BLOCKS and line.count(parameter.encode()) == 1:
                self._around_number[shape] = (method, before, after, route, len(before) + len(after))
        return found

    def _read(self, line: bytes) -> tuple[str, str, str, Route, str] | None:
        name, _, target = line[:-11].partition(b" ")
        method = METHODS.get(name)
        if method is None or line[-11:] != b" HTTP/1.1\r\n" or target.translate(None, _PLAIN):
            return None
        path, _, query = target.decode("ascii").partition("?")
        if path == "/" and query:
            return None  # it may be for the SQS door
        try:
            route, parameter = self._router.find(method, path)
        except JobQueueError:
            return None
        return method, path, query, route, parameter
