"""Requests as bytes, and answers from bytes. Both transports use it; it does no I/O.

httptools parses answers if it is installed, else `plain_parser` does, about six times slower.
"""

from typing import Final, Protocol

from jobqueue.client.http import Pairs, Request, Response

# Bytes of the headers of an answer.
MAX_HEADERS: Final = 128 << 10


class Malformed(Exception):
    """The bytes are not an HTTP answer."""


class Parser(Protocol):
    """Calls `on_…` of the object that it was made for."""

    def feed_data(self, data: bytes) -> None: ...
    def get_status_code(self) -> int: ...
    def should_keep_alive(self) -> bool: ...


class RequestWriter:
    """Writes requests to one server, whose header `Host` is `authority`. Threads may share it.

    The headers of all requests of a client are one tuple. It is written once, and kept.
    """

    __slots__ = ("_kept", "_version")

    def __init__(self, authority: bytes) -> None:
        self._version = b" HTTP/1.1\r\nHost: %b\r\n" % authority
        self._kept: tuple[Pairs, bytes] = (), b""

    def encode(self, request: Request) -> bytes:
        """Returns the bytes of a request.

        Raises `ValueError` for a line break where none may be, so that no value becomes a header or a request
        of its own.
        """
        first = f"{request.method} {request.target}".encode()
        if first.count(b" ") != 1 or b"\n" in first or b"\r" in first:
            raise ValueError("a path or a method has a line break or a space in it")
        headers = request.headers
        kept, lines = self._kept
        if headers is not kept:
            lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
            if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
                raise ValueError("a header has a line break in it")
            if type(headers) is tuple:  # it cannot change
                self._kept = headers, lines
        body = request.body
        if not body and request.method == "GET":
            return b"%b%b%b\r\n" % (first, self._version, lines)
        return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (first, self._version, lines, len(body), body)


class ResponseReader:
    """Reads the answers on one connection, one after the other.

    `started`: a byte of the current answer has come. `headers_done` and `done` say how far it is. `reusable`:
    the connection may carry another request once it is done. `pieces` has the parts of the body that nobody
    took yet.
    """

    __slots__ = (
        "_bodiless", "_framed", "_parser", "_size", "done", "headers", "headers_done", "pieces", "reusable",
        "started", "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser = new_parser(self)
        self._bodiless = False
        self.reusable = True
        self.next()

    def next(self, request: bytes = b"") -> None:
        """Prepares for the answer to the next request, which begins as `request` does."""
        if self._bodiless:  # the parser waits for a body that does not come
            self._parser = new_parser(self)
        self._bodiless = request.startswith(b"HEAD ")
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.started = self.headers_done = self.done = self._framed = False
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Takes what came from the server. Raises `Malformed`."""
        self.started = True
        if not self.headers_done:
            self._size += len(data)
        try:
            self._parser.feed_data(data)
        except PARSE_ERRORS as bad:
            if self.done:  # the answer is whole, and what came after it is nobody's
                self.reusable = False
                return
            raise Malformed(str(bad) or "it is not HTTP/1.1") from None
        if not self.headers_done and self._size > MAX_HEADERS:
            raise Malformed("its headers are too long")

    def response(self) -> Response:
        """Returns the answer that is done."""
        pieces = self.pieces
        return Response(self.status, self.headers, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def take(self) -> list[bytes]:
        """Returns the pieces of the body that have come since the last call."""
        taken, self.pieces = self.pieces, []
        return taken

    # -- called by the parser ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.done:  # an answer that nobody asked for
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.done:
            self.headers.append((name, value))
            if not self._framed:
                lower = name.lower()
                self._framed = lower in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        if self.done:
            return
        self.status = status = self._parser.get_status_code()
        if status >= 200:
            self.headers_done = True
            if self._bodiless:
                self.reusable = self.reusable and self._parser.should_keep_alive()
                self.done = True
            elif not self._framed and status not in (204, 304):
                # Its end would be that of the connection, so a cut could not be seen.
                raise Malformed("it has no length")

    def on_body(self, piece: bytes) -> None:
        if self.done:  # nobody asked for it
            self.reusable = False
        else:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        if self.headers_done:
            if not self.done:
                self.reusable = self.reusable and self._parser.should_keep_alive()
            self.done = True
        else:  # 100 (Continue) and its like
            self._begin()


def _httptools_parser(reader: ResponseReader) -> Parser:
    from httptools import HttpResponseParser

    parser: Parser = HttpResponseParser(reader)
    return parser


def _plain_parser(reader: ResponseReader) -> Parser:
    from jobqueue.client.plain_parser import PlainParser

    return PlainParser(reader)


try:
    from httptools import HttpParserError
except ImportError:  # no wheel for this platform
    PARSE_ERRORS: tuple[type[Exception], ...] = (ValueError, Malformed)
    new_parser = _plain_parser
else:
    PARSE_ERRORS = (HttpParserError, ValueError, Malformed)
    new_parser = _httptools_parser
