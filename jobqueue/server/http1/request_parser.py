"""Reading: from the bytes of one client to requests, by llhttp.

llhttp refuses most of what is ambiguous by itself; `RequestParser` refuses the rest: see
`tests/server/manners`.
What becomes of a request is `Connection`'s to say.
"""

import logging
from typing import TYPE_CHECKING

import httptools

from jobqueue.errors import BadRequest, BodyTooLarge, HeadersTooLarge, JobQueueError, UnsupportedEncoding
from jobqueue.server.http1.head_cache import METHODS
from jobqueue.server.http1.response_writer import ResponseWriter
from jobqueue.web.http import Request

if TYPE_CHECKING:
    from jobqueue.server.http1.front import FastFront

_log = logging.getLogger("jobqueue")
# What a Host may hold; with a comma it would be two.
_IN_HOST = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+;=%:[]"
# Headers that say how a request is framed; most requests have none of them but a plain length.
_FRAMING = frozenset({b"transfer-encoding", b"expect", b"content-encoding"})


class RequestParser(ResponseWriter):
    """The request that is being read. Once it is to `_close`, nothing that comes counts any more."""

    __deletable__ = ("_parser",)  # for mypyc, which allows it only where it is said
    __slots__ = (
        "_between", "_body", "_head_bytes", "_headers", "_headers_done", "_last", "_parser", "_refusal",
        "_served", "_upgrade", "_upload_begun", "_uploading", "_url",
    )  # fmt: skip

    def __init__(self, front: "FastFront", peer: str) -> None:
        super().__init__(front, peer)
        self._parser = httptools.HttpRequestParser(self)
        # the request that is being read; `_between`: none is
        self._between = True
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._headers_done = False
        self._head_bytes = 0
        self._body: bytes | bytearray = b""
        self._upgrade = False
        self._refusal: JobQueueError | None = None
        # its body goes to the application as it comes: once its turn comes, and now
        self._uploading = self._upload_begun = False
        # the last one read: headers, whether it closes, length of the body; and how many there were
        self._last: tuple[dict[bytes, bytes], bool, int] = ({}, False, 0)
        self._served = 0

    def _take(self, request: Request, close: bool) -> None:
        """A request is whole. `close`: it is the last one."""
        raise NotImplementedError

    def _pass_on(self, body: bytes | None) -> None:
        """A piece of an upload that has begun; None: that was all."""
        raise NotImplementedError

    def _say_continue(self) -> None:
        """The client waits to be told that it may send a body."""
        raise NotImplementedError

    def _feed(self, data: bytes) -> None:
        learning = (self._served, data) if self._between else None
        left = data
        while left:
            part, left = left, b""
            if not self._headers_done:
                room = self._front.max_head - self._head_bytes
                if len(part) > room:
                    part, left = part[:room], part[room:]
                self._head_bytes += len(part)
            try:
                self._parser.feed_data(part)
            except httptools.HttpParserUpgrade as upgrade:
                left = self._decline_upgrade(part[upgrade.args[0] :] + left)
            except httptools.HttpParserCallbackError as bug:
                _log.error("unexpected error", exc_info=bug.__context__)
                self._refuse(JobQueueError("the server made a mistake; its log says which"))
                break
            except httptools.HttpParserError as bad:
                if not self._close:
                    self._refuse(BadRequest(f"this is not HTTP/1.1 as it should be: {bad}"))
                break
            if left and not self._headers_done and self._head_bytes >= self._front.max_head:
                self._refuse(self._too_much_head())
                break
        if learning and self._between and learning[0] + 1 == self._served:
            self._learn(data)

    def _learn(self, data: bytes) -> None:
        """`data` was one whole request: its headers will be recognised when they come again."""
        line_end = data.find(b"\r\n") + 2
        head_end = data.find(b"\r\n\r\n", line_end - 2) + 4
        headers, close, length = self._last
        if len(data) - head_end == length and data[0] > 32:  # no empty line before it
            self._front.known.learn(data[line_end:head_end], headers, length, close)

    def on_message_begin(self) -> None:
        self._between = False

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers_done:
            return  # a trailer
        name = name.lower()
        value = value.rstrip(b" \t")  # llhttp takes it off at the other end only
        headers = self._headers
        if name in headers:
            if name == b"host":
                self._refuse(BadRequest("two Host headers"))
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        self._headers_done = True
        if self._close:
            return
        headers = self._headers
        if b"host" not in headers and self._parser.get_http_version() != "1.0":
            self._refuse(BadRequest("no Host header"))
        elif headers.get(b"host", b"").translate(None, _IN_HOST):
            self._refuse(BadRequest("this is no host: the Host header has characters that no host has"))
        length = headers.get(b"content-length")
        if length is not None and len(length) > 3 and int(length[-20:]) > self._front.max_body:
            self._check_length()
        if not _FRAMING.isdisjoint(headers):
            self._check_framing(headers)
        if self._parser.should_upgrade():
            self._upgrade = True

    def _check_length(self) -> None:
        """Of a body that is large, or of unknown length."""
        path = self._url.decode("latin-1").partition("?")[0]
        if path in self._front.api.router.uploads:
            self._uploading = True
        elif b"content-length" in self._headers:
            self._refuse(self._too_large())

    def on_body(self, body: bytes) -> None:
        if self._upload_begun:
            self._pass_on(body)
        elif len(self._body) + len(body) > self._front.max_body and not self._uploading:
            self._refuse(self._too_large())
            self._body = b""
        elif self._refusal is None:
            if not self._body:
                self._body = body
            elif isinstance(self._body, bytearray):
                self._body += body
            else:
                self._body = bytearray(self._body) + body

    def on_message_complete(self) -> None:
        if self._refusal is not None or self._close or self._upgrade:
            return
        if self._uploading and self._upload_ended():
            return
        url = self._url
        path, _, query = url.decode("latin-1").partition("?")
        headers = self._headers
        body = self._body
        api = self._front.api
        request = Request(
            METHODS.get(method := self._parser.get_method()) or method.decode("latin-1"),
            path, query, headers, body if type(body) is bytes else bytes(body), self.peer,
            api.request_id(headers.get(b"x-request-id")),
        )  # fmt: skip
        close = not self._parser.should_keep_alive()
        version = "1.1"
        if close or b"connection" in headers:  # of all versions 1.1 alone is kept without being asked to
            version = self._parser.get_http_version()
            if version not in ("1.0", "1.1"):
                self._refuse(BadRequest(f"this server speaks HTTP/1.1, not {version}"))
                return
            options = headers.get(b"connection", b"").lower().split(b",")
            close = close or b"close" in [option.strip() for option in options]  # whatever else there is
            request.version = "HTTP/" + version
        self._last = (headers, close, len(body) if version == "1.1" else -1)
        self._url = b""
        self._headers = {}
        self._headers_done = False
        self._head_bytes = 0
        self._body = b""
        self._between = True
        self._served += 1
        self._take(request, close)

    def _upload_ended(self) -> bool:
        """False: it has not begun, and is a request like any other."""
        self._uploading = False
        if not self._upload_begun:
            return False
        self._upload_begun = False
        self._url = b""
        self._headers = {}
        self._headers_done = False
        self._head_bytes = 0
        self._between = True
        self._served += 1
        self._pass_on(None)
        return True

    def _check_framing(self, headers: dict[bytes, bytes]) -> None:
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or self._parser.get_http_version() == "1.0"):
            self._refuse(BadRequest("of transfer codings only chunked is understood, and in HTTP/1.1"))
        elif coding is not None:
            self._check_length()
        encoding = headers.get(b"content-encoding", b"").strip().lower()
        if encoding not in (b"", b"identity"):
            shown = encoding[:40].decode("latin-1")
            self._refuse(UnsupportedEncoding(f"the body is encoded as {shown!r}; send it plain"))
        if headers.get(b"expect", b"").lower() == b"100-continue" and self._refusal is None:
            self._say_continue()

    def _decline_upgrade(self, rest: bytes) -> bytes:
        """Nothing here is upgraded. llhttp stops at the end of the head of such a request, so the head is to
        be read again without the offer, and then the rest."""
        if self._refusal is not None or self._close:
            return b""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(BadRequest("this is no proxy"))
            return b""
        kept = {
            name: value for name, value in self._headers.items()
            if name not in (b"upgrade", b"connection", b"expect")
        }  # fmt: skip
        options = self._headers.get(b"connection", b"").split(b",")
        if others := [option for option in options if option.strip().lower() != b"upgrade"]:
            kept[b"connection"] = b",".join(others).strip()
        version = self._parser.get_http_version().encode()
        line = b"%b %b HTTP/%b" % (method, self._url, version)
        head = b"\r\n".join([line, *(name + b": " + value for name, value in kept.items()), b"", b""])
        self._url = b""
        self._headers = {}
        self._headers_done = self._upgrade = False
        self._head_bytes = 0
        self._between = True
        self._parser = httptools.HttpRequestParser(self)
        return head + rest

    def _too_large(self) -> BodyTooLarge:
        limit = self._front.max_body
        return BodyTooLarge(
            f"the body is larger than {limit:,} bytes", limit=limit, setting="JOBQUEUE_MAX_BODY"
        )

    def _too_much_head(self) -> HeadersTooLarge:
        limit = self._front.max_head
        return HeadersTooLarge(
            f"more than {limit:,} bytes of headers", limit=limit, setting="JOBQUEUE_MAX_HEADERS"
        )

    def _refuse(self, error: JobQueueError) -> None:
        """The first reason counts; it is said once what came before it is answered."""
        if self._refusal is None:
            self._refusal = error
            self._clear = False
