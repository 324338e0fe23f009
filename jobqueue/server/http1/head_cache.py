"""HeadCache: request heads that llhttp has read before, and what it made of them.

It is a cache in front of the parser, not a second parser. What is in it was accepted by llhttp earlier,
byte for byte the same and under the same rules. Everything else goes to llhttp.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from jobqueue.errors import JobQueueError
from jobqueue.web.access.browser_policy import is_program
from jobqueue.web.access.identity import Principal
from jobqueue.web.context import Context
from jobqueue.web.request_metrics import Operation
from jobqueue.web.routes import Route, Router

_MAX_BLOCKS: Final = 1024
_MAX_BLOCK_BYTES: Final = 2048
# Request lines that are remembered beside those of the plain paths, of each kind; and their length.
_MAX_LINES: Final = 1024
_MAX_LINE_BYTES: Final = 512
# Where a head has the first letter after "POST /jobs/", and what is there if the path is only a slash.
_LETTER: Final = 11
_SLASH: Final = 47
# Headers that frame a body in an unusual way, or carry a secret
_NEVER_CACHED: Final = frozenset(
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
_PLAIN: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/?&=-_.,:~%+"
_END_OF_LINE: Final = b" HTTP/1.1\r\n"
METHODS: Final = {name.encode(): name for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")}


class CachedHead:
    """What llhttp made of a block of headers.

    `block`: the headers as they came, with the empty line after them. `length`: of the body. `close`: the
    connection ends after the response. `permitted`: what the principal may call whose access token is among
    the headers; None: there is no token.
    """

    __slots__ = ("block", "close", "from_program", "headers", "length", "names_itself", "permitted")

    def __init__(
        self,
        block: bytes,
        headers: dict[bytes, bytes],
        length: int,
        close: bool,
        permitted: dict[Operation, Context] | None,
    ) -> None:
        self.block = block
        self.headers = headers
        self.length = length
        self.close = close
        self.permitted = permitted
        self.from_program = is_program(headers)  # no browser sends these headers
        self.names_itself = b"x-request-id" in headers


def kind_of(data: bytes, start: int) -> int:
    """Returns a number below 256 that is the same for most requests for one thing: the first letter after
    "POST /jobs/". For the calls of AWS SDKs, which all have one path, it is made of their length."""
    if len(data) - start <= _LETTER:
        return 0
    letter = data[start + _LETTER]
    return letter if letter != _SLASH else (len(data) - start) & 255


# Method, path, query, route and parameter of a request line.
Line: TypeAlias = tuple[str, str, str, Route, str]


class KnownRequest:
    """A line and the headers after it that came before. `head`: all of it as bytes."""

    __slots__ = ("head", "known", "line")

    def __init__(self, head: bytes, line: Line, known: CachedHead) -> None:
        self.head = head
        self.line = line
        self.known = known


class LinesWithId:
    """Request lines of one method with the id of a job: `POST /jobs/123/conclude?next=1 HTTP/1.1`."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._before = f"{method} /jobs/".encode()
        # The end of the path, the query and the route, by what follows the id
        self._after: dict[bytes, tuple[str, str, Route]] = {}

    def find(self, line: bytes) -> Line | None:
        start = len(self._before)
        end = self._end_of_id(line)
        if end == start or line[:start] != self._before:
            return None
        query = ""
        found = self._after.get(line[end:])
        if found is None:
            # A query with the token of a lease is never kept, so it is read here each time
            if b"lease=" not in line or line[-11:] != _END_OF_LINE:
                return None
            rest, _, sent = line[end:-11].partition(b"?")
            found = self._after.get(rest + _END_OF_LINE)
            if found is None or sent.translate(None, _PLAIN):
                return None
            query = sent.decode("ascii")
        id = line[start:end].decode("ascii")
        rest_of_path, known_query, route = found
        return self._method, f"/jobs/{id}{rest_of_path}", query or known_query, route, id

    def learn(self, line: bytes, found: Line) -> bool:
        """Remembers what follows the id in a line. False: it has none. In `/jobs/1.0` the id is no number."""
        _, path, query, route, parameter = found
        start, end = len(self._before), self._end_of_id(line)
        if line[:start] != self._before or not parameter or line[start:end] != parameter.encode():
            return False
        if len(self._after) >= _MAX_LINES:
            self._after.clear()
        self._after[line[end:]] = path[6 + len(parameter) :], query, route
        return True

    def _end_of_id(self, line: bytes) -> int:
        end, length = len(self._before), len(line)
        while end < length and 48 <= line[end] <= 57:
            end += 1
        return end


def _may_have_secret(query: bytes) -> bool:
    """Tells whether a query may have the token of a lease."""
    return b"%" in query or b"lease" in query.lower().replace(b"lease_for=", b"")


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
        # The latest block by route: it is likely to come again
        self._latest: dict[Route, CachedHead] = {}
        # The latest whole head by the kind of its request
        self.requests: list[KnownRequest | None] = [None] * 256
        # Lines without a parameter, and some with a name
        self._plain_lines: dict[bytes, Line] = {
            f"{method} {path} HTTP/1.1\r\n".encode(): (method, path, "", route, "")
            for path, table in router.plain.items()
            for method, route in table.items()
        }
        if router.root is not None:
            self._plain_lines[b"POST / HTTP/1.1\r\n"] = ("POST", "/", "", router.root, "")
        self.lines = dict(self._plain_lines)
        # Lines with the id of a job, by their first five bytes
        self._with_id = {f"{method} /jobs/".encode()[:5]: LinesWithId(method) for method in METHODS.values()}

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
            self.blocks[block] = CachedHead(block, headers, length, close, permitted)

    def find(self, data: bytes, start: int) -> tuple[Line, CachedHead, int] | None:
        """Returns what is known of the head at `start`, and where it ends. None: llhttp has to read it."""
        line_end = data.find(b"\r\n", start) + 2
        if line_end < 2:
            return None
        line = data[start:line_end]
        remembered = self.lines.get(line)
        found = self.line(line) if remembered is None else remembered
        if found is None:
            return None
        route = found[3]
        headers = self._latest.get(route)
        if headers is None or data[line_end : line_end + len(headers.block)] != headers.block:
            head_end = data.find(b"\r\n\r\n", line_end - 2) + 4
            headers = self.blocks.get(data[line_end:head_end]) if head_end > line_end else None
            if headers is None:
                return None
            self._latest[route] = headers
        if remembered is not None:
            self.requests[kind_of(data, start)] = KnownRequest(line + headers.block, found, headers)
        return found, headers, line_end + len(headers.block)

    def line(self, line: bytes) -> Line | None:
        """Reads a request line that is not in `lines`. None: llhttp has to read it."""
        with_id = self._with_id.get(line[:5])
        found = with_id.find(line) if with_id is not None else None
        if found is not None or line[-11:] != _END_OF_LINE:
            return found
        target, mark, query = line[:-11].partition(b"?")
        found = self._with_query(target, query) if mark else self._read(line)
        if found is None or len(line) > _MAX_LINE_BYTES or (mark and _may_have_secret(query)):
            return found
        if with_id is None or not with_id.learn(line, found):
            if len(self.lines) >= len(self._plain_lines) + _MAX_LINES:
                self.lines = dict(self._plain_lines)
            self.lines[line] = found
        return found

    def _with_query(self, target: bytes, query: bytes) -> Line | None:
        """Reads a line with a query, by what is known of the line without it."""
        line = target + _END_OF_LINE
        found = self.lines.get(line) or self.line(line)
        if found is None or found[1] == "/" or query.translate(None, _PLAIN):  # POST / may be for SQS
            return None
        method, path, _, route, parameter = found
        return method, path, query.decode("ascii"), route, parameter

    def _read(self, line: bytes) -> Line | None:
        name, _, target = line[:-11].partition(b" ")
        method = METHODS.get(name)
        if method is None or target.translate(None, _PLAIN):
            return None
        path = target.decode("ascii")
        try:
            route, parameter = self._router.find(method, path)
        except JobQueueError:
            return None
        return method, path, "", route, parameter
