"""Connection: one client of the fast front.

Requests of one connection are answered in order; while one of them waits (a long-poll) the bytes behind it
are kept, up to `READ_AHEAD`, so that a hang-up is seen at once.
"""

import asyncio
import logging
from asyncio import Future
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, cast

from jobqueue.errors import (
    BadRequest,
    JobQueueError,
    RequestTimeout,
)  # fmt: skip
from jobqueue.server.http1.bridge import Bridge
from jobqueue.server.http1.request_parser import RequestParser
from jobqueue.server.timeouts import untaken
from jobqueue.web.http import Deferred, Request, Response

if TYPE_CHECKING:
    from jobqueue.server.http1.front import FastFront

_log = logging.getLogger("jobqueue")
# Kept of what a client sends while an earlier request of it waits.
READ_AHEAD = 65536
# Parsed in one go, and for how many seconds requests are answered in one; more comes in a later loop pass, so
# that one client does not hold up the others.
SLICE = 65536
TURN = 0.002
# Read, and dropped, after a refusal; a client that is cut off while it sends does not see why.
DRAIN_BYTES = 16 << 20
# How often a client that is not read from is looked at, in seconds.
WATCH = 0.1
# Whose answer took longer than so many seconds is looked at before it gets a job: is it still there? To look
# costs as much as to answer; who waited for a quick disk only is as much there as who waited for nothing.
_LONG = 0.02
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(RequestParser):
    """One client. Reads, answers in order, notices when it is gone."""

    __slots__ = (
        "_backlog", "_bridge", "_drained", "_ended", "_going_on", "_held", "_later", "_lingering", "_loop",
        "_owes", "_parsed", "_paused", "_seen", "_turn_ends", "_watched",
    )  # fmt: skip

    def __init__(self, front: "FastFront", peer: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(front, peer)
        self._loop = loop
        self._held = b""  # what the front will have answered together with what else came in this loop pass
        # what is read, and not yet answered
        self._parsed: deque[tuple[Request, bool, float]] = deque()
        self._later: tuple[Deferred, Request, bool, float] | None = None
        self._bridge: Bridge | None = None
        self._backlog = bytearray()
        self._paused = False
        self._watched = False
        self._going_on = False
        self._turn_ends = 0.0
        self._owes = False  # a 100 Continue, behind what is not answered yet
        self._ended = False  # the client sends no more, and what it has sent is still answered
        # the end
        self._lingering = False
        self._drained = 0
        # how long it has been as it is
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
            self._front.api.engine.flush()
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
        if self._backlog:  # more has come behind it
            self._backlog[:0] = data
            self._go_on()
            return
        self._clear = True
        if not self._recognise(data):
            self._read(data, False)
        if self._ended:
            self._go_on_soon()  # which closes

    def _read(self, data: bytes, new: bool = True) -> None:
        """Nothing is in the way of `data`; if it is `new`, it may be recognised."""
        if new and self._between and self._recognise(data):
            return
        if len(data) > SLICE:
            self._clear = False
            self._keep(data)
            return
        self._turn_ends = monotonic() + TURN
        self._feed(data)
        if self._parsed or self._refusal is not None or self._uploading:
            self._go_on()

    def _look_at(self, data: bytes) -> None:
        """Something may be in the way of `data`."""
        if self._lingering or self._close:
            self._drained += len(data)
            if self._drained > DRAIN_BYTES:
                self._transport.abort()
        elif self._waiting or self._backlog or self._parsed:
            self._keep(data)
        else:
            self._clear = True
            self._read(data)

    def _keep(self, data: bytes) -> None:
        """Until it is its turn. While there is much of it no more is read."""
        self._backlog += data
        if len(self._backlog) > READ_AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()
            if not self._watched:
                self._watched = True
                self._loop.call_later(WATCH, self._watch)
        if not self._waiting:
            self._go_on_soon()

    def _go_on_soon(self) -> None:
        """Once in a loop pass: a client that sends much gets no more turns than the others."""
        if not self._going_on:
            self._going_on = True
            self._loop.call_soon(self._go_on)

    def _watch(self) -> None:
        """A transport that does not read does not see its end either: the socket is asked."""
        self._watched = self._paused and not self._gone
        if self._watched:
            if self._hung_up():
                self._transport.abort()
            else:
                self._loop.call_later(WATCH, self._watch)

    def eof_received(self) -> bool:
        """A half-close counts as a disconnect, except for requests that were complete before it.

        A client that waits for an answer keeps its side open. Requests that only had to let other clients go
        first (parsed, held for the batch, or still in the backlog) are performed and answered, and answers
        that wait for the end of this loop pass are sent.
        """
        pending = bool(self._parsed or self._held or self._backlog or self._out)
        waits = self._later is not None or self._bridge is not None or self._blocked
        self._ended = pending and not (waits or self._front.encrypts)  # TLS ends at once
        if self._ended:
            self._go_on_soon()
        return self._ended

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._front.closed(self)
        for on_undelivered in self._unsent:
            on_undelivered()
        self._unsent.clear()
        self._parsed.clear()
        self._backlog.clear()
        if self._later is not None:
            self._later[0].future.cancel()
        if self._bridge is not None:
            self._bridge.hung_up()
            self._bridge = None
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
            self._go_on_soon()

    def _recognise(self, data: bytes) -> bool:
        """Answers `data` if it is one whole request, under headers that llhttp has read before."""
        line_end = data.find(b"\r\n") + 2
        head_end = data.find(b"\r\n\r\n") + 4
        if head_end < line_end:
            return False
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
        answer = api.perform(route, request, known.from_program, started, known.permitted)
        if isinstance(answer, Response):
            self._answer(answer, request, known.close, started, front.alone)
        elif isinstance(answer, Deferred):
            self._wait(answer, request, known.close, started)
        else:
            self._hand_over(request, known.close, started)
        return True

    # -- answering ----------------------------------------------------------------------------------

    def _take(self, request: Request, close: bool) -> None:
        self._owes = False  # the body has come without it
        now = monotonic()
        waiting = self._later is not None or self._bridge is not None or self._blocked or bool(self._parsed)
        if waiting or now > self._turn_ends:
            self._parsed.append((request, close, now))
            self._clear = False
        else:
            self._perform(request, close, now)

    def _say_continue(self) -> None:
        self._owes = self._waiting or bool(self._parsed)
        if not self._owes:
            self.send()
            self._transport.write(_CONTINUE)

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

    def _pass_on(self, body: bytes | None) -> None:
        bridge = self._bridge
        if bridge is not None and body is not None:
            bridge.feed(body)
        elif bridge is not None:
            self._clear = False
            bridge.end_of_body()

    def _perform(self, request: Request, close: bool, started: float) -> None:
        api = self._front.api
        answer = api.answer(request)
        if isinstance(answer, Deferred):
            self._wait(answer, request, close, started)
        elif isinstance(answer, Response) and (answer.status != 404 or api.router.has(request.path)):
            self._answer(answer, request, close, started)
        else:  # the application has it, or streams it
            self._hand_over(request, close, started)

    def _wait(self, later: Deferred, request: Request, close: bool, started: float) -> None:
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
        handed = answer.on_undelivered
        if handed is not None and (later.is_long_poll or monotonic() - started > _LONG) and self._hung_up():
            handed()
            self._front.log.request(request.method, request.path, 499, started, 0, request.peer, request.id)
            self._transport.abort()
            return
        self._answer(answer, request, close, started, self._front.alone)
        self._go_on()

    def _hand_over(self, request: Request, close: bool, started: float, upload: bool = False) -> None:
        """To the Tornado application, which has what is no operation, and what comes or goes by the piece."""
        self.send()
        self._bridge = Bridge(self._front.app, request, self, self._blocked, upload)
        self._clear = False
        self._bridge.close = close or self._front.draining
        self._bridge.start()

    def feed_bridge(self) -> None:
        """For the bridge: it takes more of the body."""
        self._go_on_soon()

    def bridged(self, error: BadRequest | None = None) -> None:
        """For the bridge: the application has written its answer, or could not read the request."""
        assert self._bridge is not None
        close = self._bridge.close
        self._bridge = None
        if error is not None:
            self._refuse(error)
        elif self._upload_begun:
            self._refuse(BadRequest("the application has answered before the body was whole"))
            self._close = True
            self._linger()
            return
        elif close:
            self._linger()
            return
        self._go_on_soon()

    @property
    def _waiting(self) -> bool:
        """Something must happen before more can be answered."""
        bridge = self._bridge
        if self._later is not None or self._blocked or self._held:
            return True
        return bridge is not None and not bridge.hungry

    def _go_on(self) -> None:
        """Answers what has been read, then reads what has been kept, until something has to wait."""
        self._going_on = False
        self._turn_ends = monotonic() + TURN
        while not (self._waiting or self._gone or self._close or self._transport.is_closing()):
            if self._parsed and monotonic() > self._turn_ends:
                self._go_on_soon()
                break
            if self._parsed:
                self._perform(*self._parsed.popleft())
            elif self._refusal is not None and self._upload_begun:
                self._transport.abort()  # in the middle of a body; the application may be answering
                return
            elif self._refusal is not None:
                self._say_refusal(self._refusal)
            elif self._owes:
                self._say_continue()
            elif self._uploading and not self._upload_begun:
                self._begin_upload()
            elif self._backlog:
                piece = bytes(self._backlog[:SLICE])
                del self._backlog[:SLICE]
                self._feed(piece)
                if self._backlog and not self._waiting:
                    self._go_on_soon()
                    break
            else:
                self._clear = self._bridge is None and not self._lingering
                break
        if self._ended and not (self._going_on or self._blocked or self._gone):
            self.send()
            self._transport.close()
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

    def _said(self) -> None:
        if self._later is None:
            self._linger()

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
        if self._gone or ((self._later is not None or self._parsed) and not self._blocked):
            return  # or it waits, as long as it likes
        state = self.state()
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
        descriptor = self._transport.get_extra_info("socket").fileno()
        return untaken(descriptor, self._transport.get_write_buffer_size())

    def state(self) -> str:
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
