"""Requests from the bytes of one client, by llhttp. Knows no socket.

llhttp itself refuses most of what is ambiguous; `RequestParser` refuses the rest. `tests/server/manners.py`
lists both.
"""

import logging
from collections import deque
from time import monotonic
from typing import Final

import httptools

from jobqueue.errors import BadRequest, HeadersTooLarge, JobQueueError, UnsupportedEncoding
from jobqueue.server.http1.front_state import FrontState
from jobqueue.server.http1.head_cache import METHODS
from jobqueue.web.http import Request

_log: Final = logging.getLogger("jobqueue")
# Characters that a Host may have. With a comma it would be two hosts.
_IN_HOST: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+;=%:[]"
# Headers that change how a request is framed. Most requests have only a Content-Length.
_FRAMING: Final = frozenset({b"transfer-encoding", b"expect", b"content-encoding"})


class RequestParser:
    """Turns bytes into `requests`, a `refusal`, or an upload.

    A large body, or one of unknown length, is an upload where the route takes one:

        head read       upload_due: the caller asks for it by `begin_upload` when its turn has come
        body arriving   upload_body: bytes for `take_upload_body`
        body complete   upload_ended: the caller resets it

    An upload whose body is complete before its turn has come is an ordinary request.
    """

    __deletable__ = ("_llhttp",)  # mypyc allows `del` of these attributes only
    __slots__ = (
        "_body",
        "_first",
        "_head_bytes",
        "_headers",
        "_llhttp",
        "_peer",
        "_state",
        "_upgrade",
        "_upload_begun",
        "_url",
        "body_checked",
        "complete",
        "continue_due",
        "headers_done",
        "idle",
        "learnable",
        "refusal",
        "requests",
        "upload_body",
        "upload_due",
        "upload_ended",
    )

    def __init__(self, state: FrontState, peer: str) -> None:
        # Per-connection state
        self._state = state
        self._peer = peer
        self._llhttp = httptools.HttpRequestParser(self)
        # Complete requests: each with whether it is the last one, and when it was complete (monotonic
        # seconds)
        self.requests: deque[tuple[Request, bool, float]] = deque()
        # Why the rest cannot be read; the first reason counts
        self.refusal: JobQueueError | None = None
        # Nothing that follows counts: the last request has been read
        self.complete = False
        # Headers, whether it is the last one and body length of the first one in `requests`, and the bytes
        # that begin with it, if nothing came before it: for the head cache
        self._first: tuple[dict[bytes, bytes], bool, int] = ({}, False, 0)
        self.learnable = b""
        # Per-request state; `idle`: between two requests
        self.idle = True
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self.headers_done = False
        self._head_bytes = 0
        self._body: bytes | bytearray = b""
        self.body_checked = False  # the caller may make this request, as far as its head tells
        self._upgrade = False
        self.continue_due = False  # the client waits for 100 Continue before it sends the body
        # Upload state
        self.upload_due = False
        self.upload_body = bytearray()
        self.upload_ended = False
        self._upload_begun = False

    @property
    def reading(self) -> bool:
        """A part of a request has been read."""
        return bool(self._url or self._head_bytes)

    @property
    def held(self) -> int:
        """Bytes of an unfinished request."""
        head = 0 if self.headers_done else self._head_bytes
        return head + len(self._body) + len(self.upload_body)

    def close(self) -> None:
        """Drops everything, llhttp's parser included: it holds this object."""
        self.stop()
        del self._llhttp

    def stop(self) -> None:
        """Drops what has been read; nothing that follows counts."""
        self.complete = True
        self.requests.clear()
        self._head_bytes = 0
        self._body = b""
        self.upload_body.clear()

    def feed(self, data: bytes) -> None:
        new = self.idle and not self.requests
        left = data
        while left and self.refusal is None and not self.complete:
            part, left = left, b""
            if not self.headers_done:
                room = self._state.max_head - self._head_bytes
                if len(part) > room:
                    part, left = part[:room], part[room:]
                self._head_bytes += len(part)
            try:
                self._llhttp.feed_data(part)
            except httptools.HttpParserUpgrade as upgrade:
                left = self._decline_upgrade(part[upgrade.args[0] :] + left)
            except httptools.HttpParserCallbackError as bug:
                _log.error("unexpected error", exc_info=bug.__context__)
                self.refuse(JobQueueError("unexpected error in the server; its log has the details"))
            except httptools.HttpParserError as bad:
                self._refuse_invalid(bad)
            if left and not self.headers_done and self._head_bytes >= self._state.max_head:
                self.refuse(self._too_much_head())
        if new and self.requests:
            self.learnable = data

    def learn(self) -> None:
        """Adds the head of `learnable` to the head cache. Called once that request has been answered: only
        then is its access token known."""
        data, self.learnable = self.learnable, b""
        line_end = data.find(b"\r\n") + 2
        head_end = data.find(b"\r\n\r\n", line_end - 2) + 4
        headers, close, length = self._first
        if 0 <= length <= len(data) - head_end and data[0] > 32:  # no empty line before it
            self._state.head_cache.learn(data[line_end:head_end], headers, length, close)

    def refuse(self, error: JobQueueError) -> None:
        if self.refusal is None:
            self.refusal = error

    def _refuse_invalid(self, error: Exception) -> None:
        if not self.complete:
            self.refuse(BadRequest(f"this is not valid HTTP/1.1: {error}"))

    def refused_request(self) -> Request:
        """What is known of the request that is refused, for the response and the log."""
        method = self._llhttp.get_method().decode("latin-1") if self._url else "-"
        path = self._url.decode("latin-1").partition("?")[0] or "-"
        id = self._state.dispatcher.request_id(self._headers.get(b"x-request-id"))
        return Request(method, path, "", self._headers, b"", self._peer, id)

    # -- uploads ------------------------------------------------------------------------------------

    def begin_upload(self) -> tuple[Request, bool]:
        """The request without its body, and whether it is the last one. The body follows in `upload_body`."""
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._llhttp.get_method().decode("latin-1")
        version = self._llhttp.get_http_version()
        id = self._state.dispatcher.request_id(self._headers.get(b"x-request-id"))
        headers = self._headers
        request = Request(method, path, query, headers, b"", self._peer, id, "", f"HTTP/{version}")
        self.upload_body += self._body
        self._body = b""
        self.upload_due = False
        self._upload_begun = True
        close = version != "1.1" or not self._llhttp.should_keep_alive() or _asks_to_close(headers)
        return request, close

    def take_upload_body(self) -> bytes:
        piece = bytes(self.upload_body)
        self.upload_body.clear()
        return piece

    # -- called by llhttp ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.idle = False

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.headers_done:
            return  # a trailer
        name = name.lower()
        value = value.rstrip(b" \t")  # llhttp strips the other end only
        headers = self._headers
        if name in headers:
            if name == b"host":
                self.refuse(BadRequest("two Host headers"))
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        self.headers_done = True
        if self.complete:
            return
        headers = self._headers
        if b"host" not in headers and self._llhttp.get_http_version() != "1.0":
            self.refuse(BadRequest("no Host header"))
        elif headers.get(b"host", b"").translate(None, _IN_HOST):
            self.refuse(BadRequest("the Host header has characters that no host name has"))
        length = headers.get(b"content-length")
        if length is not None and len(length) > 3 and int(length[-20:]) > self._state.max_body:
            self._check_length()
        if not _FRAMING.isdisjoint(headers):
            self._check_framing(headers)
        if self._llhttp.should_upgrade():
            self._upgrade = True

    def on_body(self, body: bytes) -> None:
        if self._upload_begun:
            self.upload_body += body
        elif len(self._body) + len(body) > self._state.max_request and not self.upload_due:
            self.refuse(self._state.dispatcher.too_large())
            self._body = b""
        elif self.refusal is None and not self.complete:
            if not self._body:
                self._body = body
            elif isinstance(self._body, bytearray):
                self._body += body
            else:
                self._body = bytearray(self._body) + body

    def on_message_complete(self) -> None:
        if self.refusal is not None or self.complete or self._upgrade:
            return
        if self._upload_begun:
            self._upload_begun = False
            self.upload_ended = True
            self._next_message()
            return
        url = self._url
        path, _, query = url.decode("latin-1").partition("?")
        headers = self._headers
        body = self._body
        request = Request(
            METHODS.get(method := self._llhttp.get_method()) or method.decode("latin-1"),
            path,
            query,
            headers,
            body if type(body) is bytes else bytes(body),
            self._peer,
            self._state.dispatcher.request_id(headers.get(b"x-request-id")),
        )
        close = not self._llhttp.should_keep_alive()
        version = "1.1"
        if close or b"connection" in headers:  # only version 1.1 is kept open without asking for it
            version = self._llhttp.get_http_version()
            if version not in ("1.0", "1.1"):
                self.refuse(BadRequest(f"this server speaks HTTP/1.1, not {version}"))
                return
            close = close or _asks_to_close(headers)
            request.version = "HTTP/" + version
        if not self.requests:
            self._first = (headers, close, len(body) if version == "1.1" else -1)
        self.requests.append((request, close, monotonic()))
        self.complete = close
        self._next_message()

    def _next_message(self) -> None:
        self._url = b""
        self._headers = {}
        self.headers_done = False
        self._head_bytes = 0
        self._body = b""
        self.body_checked = False
        self.continue_due = False  # the body has come without it
        self.upload_due = False
        self.idle = True

    # -- what llhttp leaves to the caller -----------------------------------------------------------

    def _check_length(self) -> None:
        """Checks the route of a body that is large, or of unknown length."""
        path = self._url.decode("latin-1").partition("?")[0]
        if path in self._state.dispatcher.router.uploads:
            self.upload_due = True
        elif int(self._headers.get(b"content-length", b"0")[-20:]) > self._state.max_request:
            self.refuse(self._state.dispatcher.too_large())

    def _check_framing(self, headers: dict[bytes, bytes]) -> None:
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or self._llhttp.get_http_version() == "1.0"):
            self.refuse(BadRequest("the only transfer coding understood is chunked, in HTTP/1.1"))
        elif coding is not None:
            self._check_length()
        encoding = headers.get(b"content-encoding", b"").strip().lower()
        if encoding not in (b"", b"identity"):
            shown = encoding[:40].decode("latin-1")
            self.refuse(UnsupportedEncoding(f"the body is encoded as {shown!r}; send it plain"))
        expects = headers.get(b"expect", b"").lower() == b"100-continue" and self.refusal is None
        # A client of HTTP/1.0 would take the interim response for the response (RFC 9110, 10.1.1)
        self.continue_due = expects and self._llhttp.get_http_version() != "1.0"

    def _decline_upgrade(self, rest: bytes) -> bytes:
        """Declines the offer of another protocol. llhttp stops at the end of such a head, so the answer is
        what a new parser is to read: the head without the offer, then `rest`."""
        if self.refusal is not None or self.complete:
            return b""
        method = self._llhttp.get_method()
        if method == b"CONNECT":
            self.refuse(BadRequest("this server is not a proxy"))
            return b""
        kept = {
            name: value
            for name, value in self._headers.items()
            if name not in (b"upgrade", b"connection", b"expect")
        }
        options = self._headers.get(b"connection", b"").split(b",")
        if others := [option for option in options if option.strip().lower() != b"upgrade"]:
            kept[b"connection"] = b",".join(others).strip()
        version = self._llhttp.get_http_version().encode()
        line = b"%b %b HTTP/%b" % (method, self._url, version)
        head = b"\r\n".join([line, *(name + b": " + value for name, value in kept.items()), b"", b""])
        self._url = b""
        self._headers = {}
        self.headers_done = self._upgrade = False
        self._head_bytes = 0
        self.upload_due = False
        self.idle = True
        self._llhttp = httptools.HttpRequestParser(self)
        return head + rest

    def _too_much_head(self) -> HeadersTooLarge:
        limit = self._state.max_head
        return HeadersTooLarge(
            f"more than {limit:,} bytes of headers", limit=limit, setting="JOBQUEUE_MAX_HEADERS"
        )


def _asks_to_close(headers: dict[bytes, bytes]) -> bool:
    """`close` counts whatever other options stand next to it."""
    options = headers.get(b"connection", b"").lower().split(b",")
    return b"close" in [option.strip() for option in options]
