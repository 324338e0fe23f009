"""Connection: one client of the fast front.

Requests of one connection are answered in order; while one of them waits (a long-poll) the bytes behind it
are kept, up to `READ_AHEAD`, so that a hang-up is seen at once. llhttp refuses most of what is ambiguous by
itself; `Connection` refuses the rest: see `tests/server/manners`.
"""

import asyncio
import fcntl
import logging
import select
import struct
import termios
from asyncio import Future
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, cast

import httptools

from jobqueue.errors import (
    BadRequest,
    BodyTooLarge,
    HeadersTooLarge,
    JobQueueError,
    RequestTimeout,
    UnsupportedEncoding,
)  # fmt: skip
from jobqueue.server.bridge import Bridge
from jobqueue.server.known_heads import METHODS
from jobqueue.web.http import JSON, Later, Request, Response

if TYPE_CHECKING:
    from jobqueue.server.fast_front import FastFront

_log = logging.getLogger("jobqueue")
# Kept of what a client sends while an earlier request of it waits.
READ_AHEAD = 65536
# Parsed in one go; more comes in a later loop pass, so that one client does not hold up the others.
SLICE = 65536
# Read, and dropped, after a refusal; a client that is cut off while it sends does not see why.
DRAIN_BYTES = 16 << 20
# How often a client that is not read from is looked at, in seconds.
WATCH = 0.1
_HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# What a Host may hold; with a comma it would be two.
_IN_HOST = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+;=%:[]"
# Answers gathered for one `send`: at most so many, and none that is longer.
_GATHERED = 64
_GATHERED_BYTES = 8192
# Headers that say how a request is framed; most requests have none of them but a plain length.
_FRAMING = frozenset({b"transfer-encoding", b"expect", b"content-encoding"})


class Connection(asyncio.Protocol):
    """One client. Reads, answers in order, notices when it is gone."""

    __slots__ = (
        "_backlog", "_between", "_blocked", "_body", "_bridge", "_clear", "_close", "_drained", "_front",
        "_gone", "_head_bytes", "_headers", "_headers_done", "_held", "_last", "_later", "_lingering",
        "_loop", "_out", "_parsed", "_parser", "_paused", "_refusal", "_seen", "_served", "_transport",
        "_unsent", "_upgrade", "_upload_begun", "_uploading", "_url", "peer",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, front: "FastFront", peer: str, loop: asyncio.AbstractEventLoop) -> None:
        self._front = front
        self.peer = peer
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        # Nothing is in the way of the next request. False where something may be: then it is looked at.
        self._clear = True
        self._held = b""  # what the front will have answered together with what else came in this loop pass
        # the request that is being read; `_between`: none is
        self._between = True
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._headers_done = False
        self._head_bytes = 0
        self._body: bytes | bytearray = b""
        self._upgrade = False
        self._refusal: JobQueueError | None = None
        # the last one read: headers, whether it closes, length of the body
        self._last: tuple[dict[bytes, bytes], bool, int] = ({}, False, 0)
        # what is read, and not yet answered
        self._parsed: deque[tuple[Request, bool, float]] = deque()
        self._later: tuple[Later, Request, bool, float] | None = None
        self._bridge: Bridge | None = None
        self._backlog = bytearray()
        self._paused = False
        # what is answered, and not yet sent
        self._out: list[bytes] = []
        self._blocked = False
        self._unsent: list[Callable[[], None]] = []
        # the end
        self._close = False
        self._lingering = False
        self._drained = 0
        self._gone = False
        # the body that is being read goes to the application as it comes: once its turn comes, and now
        self._uploading = self._upload_begun = False
        # how long it has been as it is
        self._served = 0
        self._seen = (("", -1, 0), 0.0)

    # -- the transport ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._front.opened(self)
        # So `pause_writing` says that something is unsent, and `resume_writing` that all is sent. By TLS that
        # is said where as much as the limit is unsent, elsewhere where more is.
        transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1)

    def data_received(self, data: bytes) -> None:
        if not (self._clear and self._between):
            self._look_at(data)
        elif self._front.alone:
            self._read(data)
        else:
            self._clear = False
            self._held = data
            arrived = self._front.arrived
            if not arrived:
                self._front.answer_soon()
            arrived.append((data[11:12], self))

    def answer_held(self) -> None:
        """Called by the front, once for what stands in its `arrived`."""
        data = self._held
        self._held = b""
        if self._gone:
            return
        self._clear = True
        if not self._recognise(data):
            self._read(data, False)
        if self._backlog:
            self._go_on()

    def _read(self, data: bytes, new: bool = True) -> None:
        """Nothing is in the way of `data`; if it is `new`, it may be recognised."""
        if new and self._between and self._recognise(data):
            return
        if len(data) > SLICE:
            self._clear = False
            self._backlog += data
            self._loop.call_soon(self._go_on)
            return
        self._feed(data)
        if self._parsed or self._refusal is not None or self._uploading:
            self._go_on()

    def _look_at(self, data: bytes) -> None:
        """Something may be in the way of `data`."""
        if self._lingering or self._close:
            self._drained += len(data)
            if self._drained > DRAIN_BYTES:
                self._transport.abort()
        elif self._waiting:
            self._backlog += data
            if len(self._backlog) > READ_AHEAD and not self._paused:
                self._paused = True
                self._transport.pause_reading()
                self._loop.call_later(WATCH, self._watch)
        elif self._backlog or self._parsed:
            self._backlog += data
            self._loop.call_soon(self._go_on)
        else:
            self._clear = True
            self._read(data)

    def _watch(self) -> None:
        """A transport that does not read does not see its end either: the socket is asked."""
        if self._paused and not self._gone:
            if self._hung_up():
                self._transport.abort()
            else:
                self._loop.call_later(WATCH, self._watch)

    def _hung_up(self) -> bool:
        """The client has gone, or will be found to have when the loop next looks."""
        if self._gone or self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), _HUNG_UP)
        return bool(poll.poll(0))

    def eof_received(self) -> bool:
        """Half of a hang-up is one: whoever waits for an answer keeps its side open."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._front.closed(self)
        for give_back in self._unsent:
            give_back()
        self._unsent.clear()
        self._parsed.clear()
        self._backlog.clear()
        if self._later is not None:
            self._later[0].future.cancel()
        if self._bridge is not None:
            self._bridge.hung_up()
        del self._parser  # it holds this connection, which holds it

    def pause_writing(self) -> None:
        self._blocked = True
        self._clear = False
        if self._bridge is not None:
            self._bridge.pause()

    def resume_writing(self) -> None:
        self._blocked = False
        if self._bridge is not None:
            self._bridge.resume()
        if not self._out:
            self._unsent.clear()
        if not self._gone:
            self._loop.call_soon(self._go_on)

    # -- the parser ---------------------------------------------------------------------------------

    def _recognise(self, data: bytes) -> bool:
        """Answers `data` if it is one whole request, under headers that llhttp has read before."""
        line_end = data.find(b"\r\n") + 2
        head_end = data.find(b"\r\n\r\n") + 4
        front = self._front
        known = front.blocks.get(data[line_end:head_end])
        if known is None or len(data) - head_end != known.length:
            return False
        line = data[:line_end]
        found = front.lines.get(line) or front.known.line(line)
        if found is None:
            return False
        method, path, query, route, parameter = found
        api = front.api
        headers = known.headers
        id = api.request_id(headers[b"x-request-id"]) if known.names_itself else api.fresh_id()
        request = Request(method, path, query, headers, data[head_end:], self.peer, id, parameter)
        self._served += 1
        started = monotonic()
        answer = api.perform(route, request, known.from_program, started, known.serving)
        if isinstance(answer, Response):
            self._answer(answer, request, known.close, started, front.alone)
        elif isinstance(answer, Later):
            self._wait(answer, request, known.close, started)
        else:
            self._hand_over(request, known.close, started)
        return True

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
            if self._bridge is not None:
                self._bridge.feed(body)
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
        if self._later is None and self._bridge is None and not self._blocked and not self._parsed:
            self._perform(request, close, monotonic())
        else:
            self._parsed.append((request, close, monotonic()))
            self._clear = False

    def _begin_upload(self) -> None:
        """Nothing is before it any more: the application takes the body as it comes."""
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("latin-1")
        version = self._parser.get_http_version()
        id = self._front.api.request_id(self._headers.get(b"x-request-id"))
        request = Request(method, path, query, self._headers, b"", self.peer, id, "", f"HTTP/{version}")
        body, self._body = bytes(self._body), b""
        self._upload_begun = True
        close = not self._parser.should_keep_alive() or version != "1.1"
        self._hand_over(request, close, monotonic(), upload=True)
        if body and self._bridge is not None:
            self._bridge.feed(body)

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
        if self._bridge is not None:
            self._clear = False
            self._bridge.end_of_body()
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
        expected = headers.get(b"expect", b"").lower() == b"100-continue"
        if expected and self._refusal is None and not (self._waiting or self._parsed):
            self.send()
            self._transport.write(_CONTINUE)

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

    # -- answering ----------------------------------------------------------------------------------

    def _perform(self, request: Request, close: bool, started: float) -> None:
        api = self._front.api
        answer = api.answer(request)
        if isinstance(answer, Later):
            self._wait(answer, request, close, started)
        elif isinstance(answer, Response) and (answer.status != 404 or api.router.has(request.path)):
            self._answer(answer, request, close, started)
        else:  # the application has it, or streams it
            self._hand_over(request, close, started)

    def _wait(self, later: Later, request: Request, close: bool, started: float) -> None:
        self._later = (later, request, close, started)
        self._clear = False
        later.future.add_done_callback(self._finished)

    def _finished(self, future: Future[object]) -> None:
        assert self._later is not None
        later, request, close, started = self._later
        self._later = None
        if future.cancelled():
            self._front.log.request(request.method, request.path, 499, started, 0, request.peer, request.id)
            return
        answer = self._front.api.finish(later, request.id)
        if answer.give_back is not None and self._hung_up():
            answer.give_back()
            self._front.log.request(request.method, request.path, 499, started, 0, request.peer, request.id)
            self._transport.abort()
            return
        self._answer(answer, request, close, started)
        self._go_on()

    def _hand_over(self, request: Request, close: bool, started: float, upload: bool = False) -> None:
        """To the Tornado application, which has what is no operation, and what comes or goes by the piece."""
        self.send()
        self._bridge = Bridge(self._front.app, request, self, self._blocked, upload)
        self._clear = False
        self._bridge.close = close or self._front.draining
        self._bridge.start()

    def write(self, data: bytes) -> None:
        """For the bridge."""
        self._transport.write(data)

    def feed_bridge(self) -> None:
        """For the bridge: it takes more of the body."""
        self._loop.call_soon(self._go_on)

    def bridged(self, error: BadRequest | None = None) -> None:
        """For the bridge: the application has written its answer, or could not read the request."""
        assert self._bridge is not None
        close = self._bridge.close
        self._bridge = None
        if error is not None:
            self._refuse(error)
        elif self._uploading:
            self._refuse(BadRequest("the application has answered before the body was whole"))
            self._close = True
            self._linger()
            return
        elif close:
            self._linger()
            return
        self._loop.call_soon(self._go_on)

    def _answer(
        self, answer: Response, request: Request, close: bool, started: float, alone: bool = False
    ) -> None:
        """`alone`: nothing else is to be sent in this loop pass, so why wait for its end."""
        give_back = answer.give_back
        if self._gone:
            if give_back is not None:
                give_back()
            return
        front = self._front
        method, status, body, extra = request.method, answer.status, answer.body, answer.headers
        shown = body
        if method != "POST" and (method == "GET" or method == "HEAD"):
            extra += b"\r\nCache-Control: no-store"
            if method == "HEAD":
                shown = b""
        if close or front.draining:
            self._close = True
            self._clear = False
            extra += b"\r\nConnection: close"
        elif b"connection" in request.headers and request.headers[b"connection"].lower() == b"keep-alive":
            extra += b"\r\nConnection: keep-alive"
        kind = answer.content_type
        head = front.heads[status] if kind is JSON else front.head(status, kind)
        id = request.id.encode("latin-1")
        if status == 204:
            text = b"%b%b%b\r\n\r\n" % (head, id, extra)
        else:
            text = b"%b%b%b\r\nContent-Length: %d\r\n\r\n%b" % (head, id, extra, len(body), shown)
        if give_back is not None:
            self._unsent.append(give_back)
        out = self._out
        first = not out
        out.append(text)
        if alone or len(text) > _GATHERED_BYTES:
            self.send()
        elif first and not front.answering:
            front.send_soon(self)
        elif len(out) > _GATHERED:
            self.send()
        log = front.log
        if status < 400 and log.full:
            log.summed += 1
        else:
            log.request(method, request.path, status, started, len(body), request.peer, request.id)

    def send(self) -> None:
        """Sends what is answered, if anything. Called by the front, once after `send_soon`."""
        out = self._out
        if not out or self._gone:
            return
        if self._unsent and self._transport.is_closing():
            return  # to what it holds a client that has hung up has no claim
        self._transport.writelines(out)
        out.clear()
        if self._unsent and not self._blocked:
            self._unsent.clear()
        if self._close and self._later is None and not self._gone:
            self._linger()

    @property
    def _waiting(self) -> bool:
        """Something must happen before more can be answered."""
        bridge = self._bridge
        if self._later is not None or self._blocked or self._held:
            return True
        return bridge is not None and not bridge.hungry

    def _go_on(self) -> None:
        """Answers what has been read, then reads what has been kept, until something has to wait."""
        while not (self._waiting or self._gone or self._close):
            if self._parsed:
                self._perform(*self._parsed.popleft())
            elif self._refusal is not None and self._upload_begun:
                self._transport.abort()  # in the middle of a body; the application may be answering
                return
            elif self._refusal is not None:
                self._say_refusal(self._refusal)
            elif self._uploading and not self._upload_begun:
                self._begin_upload()
            elif self._backlog:
                piece = bytes(self._backlog[:SLICE])
                del self._backlog[:SLICE]
                self._feed(piece)
                if self._backlog and not self._waiting:
                    self._loop.call_soon(self._go_on)
                    break
            else:
                break
        if self._paused and not self._gone and len(self._backlog) <= READ_AHEAD and not self._waiting:
            self._paused = False
            self._transport.resume_reading()

    def _say_refusal(self, error: JobQueueError) -> None:
        """The answer to what cannot or will not be read; then the connection ends."""
        api = self._front.api
        method = self._parser.get_method().decode("latin-1") if self._url else "-"
        path = self._url.decode("latin-1").partition("?")[0] or "-"
        id = api.request_id(self._headers.get(b"x-request-id"))
        request = Request(method, path, "", self._headers, b"", self.peer, id)
        self._answer(api.refuse(error, request), request, True, monotonic())

    # -- the end ------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """A request is being read, answered, or sent."""
        return (
            bool(self._waiting or self._parsed or self._backlog or self._url or self._out)
            and not self._lingering
        )

    def close_if_idle(self) -> None:
        if not self.busy and not self._gone:
            self._transport.close()
        elif self._bridge is not None:
            self._bridge.close = True

    def abort(self) -> None:
        self._transport.abort()

    def _linger(self) -> None:
        """No more is written; what the client still sends is read and dropped for a moment, since a socket
        closed on unread bytes takes the answer away from the client."""
        if self._lingering or self._gone:
            return
        self._lingering = True
        self._clear = False
        self._backlog.clear()
        self._parsed.clear()
        if self._refusal is None:
            self._transport.close()
            return
        if self._transport.can_write_eof():  # not by TLS: there the client has to close
            self._transport.write_eof()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def check_deadline(self, now: float) -> None:
        """Called every second or two. What counts is how long the connection has been in one state."""
        if self._gone:
            return
        state = self._state()
        seen = (state, self._served, self._untaken() if state == "write" else 0)
        if self._seen[0] != seen:
            self._seen = (seen, now)
            return
        allowed = self._front.deadlines[state]
        if now - self._seen[1] <= allowed:
            return
        if state in ("head", "body"):
            self._refuse(RequestTimeout(f"the request did not arrive whole in {allowed:g} seconds"))
            self._go_on()
        elif state in ("write", "linger"):
            self._transport.abort()
        else:
            self._transport.close()

    def _untaken(self) -> int:
        """Bytes that the client has not taken yet. The system's buffer counts: it may hold megabytes, and
        for as long as it does none of ours go."""
        buffered = self._transport.get_write_buffer_size()
        descriptor = self._transport.get_extra_info("socket").fileno()
        try:
            (inside,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
        except OSError:
            return buffered
        return buffered + int(inside)

    def _state(self) -> str:
        if self._blocked:
            return "write"
        if self._lingering:
            return "linger"
        if self._later is not None or self._bridge is not None:
            return "answer"
        if self._headers_done:
            return "body"
        if self._url or self._head_bytes:
            return "head"
        return "idle" if self._served else "first"
