"""A parser of HTTP/1.1 answers in plain Python, for platforms without httptools."""

import re
from typing import Protocol


class Target(Protocol):
    """What the parser calls, as httptools does."""

    def on_message_begin(self) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, piece: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n\0]*)?")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
_MAX_LINE = 64 << 10


class PlainParser:
    """Calls a `Target` for what it finds in the bytes that it is fed.

    It is a machine of lines and counted bytes: `_line` takes the next line, or `_left` bytes of the body are
    still to come. `feed_data` raises `ValueError`.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._kept = b""
        self._line = self._status_line
        self._begun = False
        self._left = 0
        self._length: int | None = None
        self._chunked = False
        self._status = 0
        self._keep_alive = True

    def get_status_code(self) -> int:
        return self._status

    def should_keep_alive(self) -> bool:
        return self._keep_alive

    def feed_data(self, data: bytes) -> None:
        data = self._kept + data if self._kept else data
        at = 0
        while at < len(data):
            if not self._begun:
                self._begun = True
                self._target.on_message_begin()
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._target.on_body(piece)
                if not self._left:
                    self._body_done()
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            line = data[at:end]
            at = end + 2
            self._line(line)
        self._kept = data[at:]
        if len(self._kept) > _MAX_LINE or b"\n" in self._kept.removesuffix(b"\n"):
            raise ValueError("a line is malformed or too long")

    def _status_line(self, line: bytes) -> None:
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            raise ValueError("its first line is not that of an HTTP/1.1 answer")
        self._status = int(found[2])
        self._keep_alive = found[1] == b"1"
        self._length = None
        self._chunked = False
        self._line = self._header

    def _header(self, line: bytes) -> None:
        if not line:
            self._head_done()
            return
        found = _HEADER.fullmatch(line)
        if found is None:
            raise ValueError("a header is malformed")
        name, value = found[1], found[2]
        lower = name.lower()
        if lower == b"content-length":
            if not value.isdigit() or len(value) > 15 or self._length is not None or self._chunked:
                raise ValueError("its length is malformed")
            self._length = int(value)
        elif lower == b"transfer-encoding":
            if value.lower() != b"chunked" or self._length is not None or self._chunked:
                raise ValueError("its transfer encoding is unknown")
            self._chunked = True
        elif lower == b"connection":
            options = {option.strip() for option in value.lower().split(b",")}
            self._keep_alive = b"close" not in options and (self._keep_alive or b"keep-alive" in options)
        self._target.on_header(name, value)

    def _head_done(self) -> None:
        self._target.on_headers_complete()
        if self._status < 200 or self._status in (204, 304):
            self._message_done()
        elif self._chunked:
            self._line = self._chunk
        elif self._length:
            self._left = self._length
        else:
            self._message_done()

    def _body_done(self) -> None:
        if self._chunked:
            self._line = self._chunk_end
        else:
            self._message_done()

    def _chunk(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise ValueError("the size of a chunk is malformed")
        self._left = int(found[1], 16)
        if not self._left:
            self._line = self._trailer

    def _chunk_end(self, line: bytes) -> None:
        if line:
            raise ValueError("a chunk is longer than its size")
        self._line = self._chunk

    def _trailer(self, line: bytes) -> None:
        if not line:
            self._message_done()

    def _message_done(self) -> None:
        self._line = self._status_line
        self._begun = False
        self._target.on_message_complete()
