"""Connection: one client of the fast front. It has a parser and a writer, and decides what happens when.

Requests of one connection are answered in order. While one of them waits (a long-poll, a stream) the bytes
that follow it are kept, up to `READ_AHEAD`, so that a hang-up is seen at once.
"""

import asyncio
import logging
import select
from asyncio import Future
from collections.abc import Callable
from operator import itemgetter
from time import monotonic
from typing import cast

from jobqueue.errors import JobQueueError, RequestTimeout
from jobqueue.server.connection_limits import ConnectionLimits
from jobqueue.server.http1.front_state import FrontState
from jobqueue.server.http1.request_parser import RequestParser
from jobqueue.server.http1.response_writer import ResponseWriter, SendQueue
from jobqueue.server.http1.transfers import StreamResponse, UploadReceiver
from jobqueue.server.timeouts import untaken
from jobqueue.web.http import Answer, Deferred, Request, Response, Stream, Upload

_log = logging.getLogger("jobqueue")
# Bytes kept of what a client sends while an earlier request of it waits.
READ_AHEAD = 65536
# The most that is parsed in one go, in bytes, and answered in one go, in seconds. The rest waits for a
# later loop pass, so that one client does not hold up the others.
SLICE = 65536
SLICE_SECONDS = 0.002
# Bytes read and dropped after a refusal. A client that is cut off while it sends does not see why.
DRAIN_BYTES = 16 << 20
# The same for the body of a refused upload, in multiples of the largest body.
_DRAIN_BODIES = 16
# Seconds between looks at a client that is not being read from.
_WATCH = 0.1
# A request that waited longer than this, in seconds, gets a job only if its client is still there. The look
# costs as much as an answer, so clients that waited for a quick disk only are spared it.
_LONG = 0.02
_HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

_kind: Callable[[tuple[bytes, "Connection"]], bytes] = itemgetter(0)


class Connections:
    """The open connections of a front, and the batch of those that have sent a request in this loop pass.

    The requests of a batch are answered together, requests of one kind one after the other: that keeps the
    processor's caches and branch predictor warm, and is faster by a third than a random order. Several
    clients have no order among each other within one loop pass.
    """

    def __init__(self, state: FrontState, limits: ConnectionLimits, loop: asyncio.AbstractEventLoop) -> None:
        self.open: set[Connection] = set()
        self.accepting: set[Connection] = set()
        self.single_client = True  # at most one connection is open
        # Each with the first letter after "POST /jobs/", which tells apart what is asked for most
        self.batch: list[tuple[bytes, Connection]] = []
        self.send_queue = SendQueue(loop)
        self._state = state
        self._limits = limits
        self._loop = loop

    def opened(self, connection: "Connection") -> None:
        self.open.add(connection)
        self.accepting.discard(connection)
        self.single_client = len(self.open) < 2

    def closed(self, connection: "Connection") -> None:
        self.open.discard(connection)
        self._limits.closed(connection.peer)
        self.single_client = len(self.open) < 2

    def answer_soon(self) -> None:
        self._loop.call_soon(self._answer_batch)

    def _answer_batch(self) -> None:
        batch, self.batch = self.batch, []
        batch.sort(key=_kind, reverse=True)
        self.send_queue.suspended = True
        for _, connection in batch:
            try:
                connection.answer_held()
            except Exception:
                _log.exception("unexpected error")
                connection.abort()
        self.send_queue.suspended = False
        self._state.dispatcher.engine.flush()
        for _, connection in batch:
            connection.send()


class Connection:
    """One client. The transport calls it as an `asyncio.Protocol`."""

    __slots__ = (
        "_backlog", "_body_unread", "_connections", "_dispatcher", "_drained", "_half_closed", "_head_cache",
        "_held", "_lingering", "_loop", "_parser", "_paused", "_pending", "_ready", "_resume_scheduled",
        "_seen", "_served", "_slice_end", "_state", "_stream", "_transport", "_upload", "_watched",
        "_writer", "peer",
    )  # fmt: skip

    _parser: RequestParser
    _transport: asyncio.Transport

    def __init__(
        self, state: FrontState, connections: Connections, peer: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        # Per-connection state
        self.peer = peer
        self._state = state
        self._dispatcher = state.dispatcher
        self._head_cache = state.head_cache
        self._connections = connections
        self._loop = loop
        self._writer = ResponseWriter(state, connections.send_queue)
        self._served = 0  # requests begun so far
        # Reading
        self._ready = True  # nothing is in the way of the next request, which begins with the next byte
        self._held = b""  # received in this loop pass, to be answered with the batch
        self._backlog = bytearray()  # received, and not parsed yet
        self._paused = False  # the transport does not read
        self._watched = False
        # The current slice
        self._slice_end = 0.0
        self._resume_scheduled = False
        # Per-request state: at most one of these is answered at a time
        self._pending: tuple[Deferred, Request, bool, float] | None = None
        self._stream: StreamResponse | None = None
        self._upload: UploadReceiver | None = None
        # The end of the connection
        self._half_closed = False  # the client sends no more; what it has sent is still answered
        self._body_unread = False  # the client may still be sending what will not be read
        self._lingering = False
        self._drained = 0
        # The state at the last `check_deadline`, and since when it has been the same
        self._seen = (("", -1, 0), 0.0)

    # -- called by the transport --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's class is no subclass
        # Not made before: llhttp's parser and ours hold each other, and only `connection_lost` parts them
        self._parser = RequestParser(self._state, self.peer)
        self._writer.connection_made(transport, self._on_flushed)
        self._connections.opened(self)
        # So `pause_writing` means that something is unsent, and `resume_writing` that all is sent. TLS
        # transports compare with "at least" the limit, others with "more than".
        transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1)

    def data_received(self, data: bytes) -> None:
        if not self._ready:
            self._receive(data)
        elif self._connections.single_client:
            self._read(data)
            self._dispatcher.engine.flush()
        else:
            self._ready = False
            self._held = data
            batch = self._connections.batch
            if not batch:
                self._connections.answer_soon()
            batch.append((data[11:12], self))

    def eof_received(self) -> bool:
        """A half-close counts as a disconnect, except for requests that were complete before it.

        A client that waits for a response keeps its side open. Requests that only had to let other clients go
        first (parsed, held for the batch, or still in the backlog) are performed and answered, and responses
        that wait for the end of this loop pass are sent. True: the transport stays open meanwhile.
        """
        due = bool(self._parser.requests or self._held or self._backlog or self._writer.has_unsent)
        waits = (
            self._pending is not None or self._stream is not None or self._upload is not None
            or self._writer.blocked
        )  # fmt: skip
        self._half_closed = due and not waits and not self._state.encrypts  # TLS ends both sides at once
        if self._half_closed:
            self._resume_soon()
        return self._half_closed

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.closed(self)
        self._writer.connection_lost()
        self._parser.close()
        self._backlog.clear()
        if self._pending is not None:
            self._pending[0].future.cancel()
        if self._stream is not None:
            self._stream.hung_up()
            self._stream = None
        if self._upload is not None:
            self._upload.hung_up()
            self._upload = None

    def pause_writing(self) -> None:
        self._writer.blocked = True
        self._ready = False

    def resume_writing(self) -> None:
        self._writer.resume()
        if self._stream is not None:
            self._stream.resume()
        if not self._writer.gone:
            self._resume_soon()

    # -- reading ------------------------------------------------------------------------------------

    def answer_held(self) -> None:
        """Answers what came in this loop pass; called once for each place in the batch."""
        data = self._held
        self._held = b""
        if self._writer.gone:
            return
        if self._backlog:  # more has come after it
            self._backlog[:0] = data
            self._resume()
            return
        self._ready = True
        if not self._recognise(data):
            self._parse(data)
        if self._half_closed:
            self._resume_soon()  # which closes the connection

    def _receive(self, data: bytes) -> None:
        """Reads `data`, or keeps it if something is in its way."""
        if self._lingering or self._writer.closing:
            self._drained += len(data)
            if self._drained > DRAIN_BYTES:
                self._transport.abort()
        elif self._waiting or self._backlog or self._parser.requests:
            self._keep(data)
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Answers `data`; nothing is in its way."""
        self._ready = self._parser.idle
        if not (self._ready and self._recognise(data)):
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._ready = False
        if len(data) > SLICE:
            self._keep(data)
            return
        parser = self._parser
        self._slice_end = monotonic() + SLICE_SECONDS
        parser.feed(data)
        if parser.requests:
            self._perform_parsed()
        if parser.idle and not (parser.requests or parser.refusal or self._upload or self._waiting):
            self._ready = not self._writer.closing
        else:
            self._advance()

    def _keep(self, data: bytes) -> None:
        """Keeps `data` until its turn. Reading pauses while too much is kept."""
        self._backlog += data
        if len(self._backlog) > READ_AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()
            if not self._watched:
                self._watched = True
                self._loop.call_later(_WATCH, self._watch)
        if not self._waiting:
            self._resume_soon()

    def _watch(self) -> None:
        """Asks the socket for its end, which a transport that does not read cannot see."""
        self._watched = self._paused and not self._writer.gone
        if self._watched:
            if self._hung_up():
                self._transport.abort()
            else:
                self._loop.call_later(_WATCH, self._watch)

    def _hung_up(self) -> bool:
        """The client has gone, though the loop may not have seen it yet."""
        if self._writer.gone or self._transport.is_closing():
            return True
        connected = self._transport.get_extra_info("socket")
        if connected is None:
            return True  # a TLS transport that is being closed
        poll = select.poll()
        poll.register(connected.fileno(), _HUNG_UP)
        return bool(poll.poll(0))

    # -- answering ----------------------------------------------------------------------------------

    def _recognise(self, data: bytes) -> bool:
        """Answers `data` without llhttp if it is one whole request with a head that llhttp has read
        before."""
        line_end = data.find(b"\r\n") + 2
        head_end = data.find(b"\r\n\r\n") + 4
        if head_end < line_end:
            return False
        cache = self._head_cache
        known = cache.blocks.get(data[line_end:head_end])
        if known is None or len(data) - head_end != known.length:
            return False
        line = data[:line_end]
        found = cache.lines.get(line) or cache.line(line)
        if found is None:
            return False
        method, path, query, route, parameter = found
        dispatcher = self._dispatcher
        headers = known.headers
        own = known.names_itself
        id = dispatcher.request_id(headers[b"x-request-id"]) if own else dispatcher.fresh_id()
        request = Request(method, path, query, headers, data[head_end:], self.peer, id, parameter)
        self._served += 1
        started = monotonic()
        answer = dispatcher.perform(route, request, known.from_program, started, known.permitted)
        if isinstance(answer, Response):
            writer = self._writer
            writer.respond(answer, request, known.close, started, self._connections.single_client)
            if writer.closing:
                self._ready = False
        else:
            self._begin(answer, request, known.close, started)
        return True

    def _perform_parsed(self) -> None:
        """Performs parsed requests, at least one, until one has to wait or the slice is over."""
        requests = self._parser.requests
        while requests and self._upload is None and not (self._waiting or self._writer.closing):
            request, close, started = requests.popleft()
            self._served += 1
            answer = self._dispatcher.answer(request)
            if isinstance(answer, Response):
                self._writer.respond(answer, request, close, started)
            else:
                self._begin(answer, request, close, started)
            if requests and monotonic() > self._slice_end:
                break
        if self._parser.learnable:
            self._parser.learn()

    def _begin(self, answer: Answer, request: Request, close: bool, started: float) -> None:
        """Begins a response that is not complete yet."""
        self._ready = False
        if isinstance(answer, Deferred):
            self._pending = (answer, request, close, started)
            answer.future.add_done_callback(self._finished)
        elif isinstance(answer, Stream):
            self._begin_stream(answer, request, close, started)
        else:
            assert isinstance(answer, Upload)
            upload = self._begin_upload(answer, request, close, started)
            if request.body:
                upload.feed(request.body)
            upload.end_of_body()

    def _finished(self, future: Future[object]) -> None:
        """Answers a request whose `Deferred` is done."""
        assert self._pending is not None
        deferred, request, close, started = self._pending
        self._pending = None
        log = self._state.log
        if future.cancelled():
            log.request(request.method, request.path, 499, started, 0, request.peer, request.id)
            return
        response = self._dispatcher.finish(deferred, request.id)
        give_back = response.on_undelivered
        waited = deferred.is_long_poll or monotonic() - started > _LONG
        if give_back is not None and waited and self._hung_up():
            give_back()
            log.request(request.method, request.path, 499, started, 0, request.peer, request.id)
            self._transport.abort()
            return
        self._writer.respond(response, request, close, started, self._connections.single_client)
        self._resume()

    @property
    def _waiting(self) -> bool:
        """Something must happen before more can be read or answered."""
        if self._pending is not None or self._stream is not None or self._writer.blocked or self._held:
            return True
        return self._upload is not None and self._upload.busy

    def _resume_soon(self) -> None:
        """Once in a loop pass: a client that sends much gets no more turns than the others."""
        if not self._resume_scheduled:
            self._resume_scheduled = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._resume_scheduled = False
        self._slice_end = monotonic() + SLICE_SECONDS
        self._advance()

    def _advance(self) -> None:
        """Answers what has been read, then reads what has been kept, until something has to wait."""
        parser, writer = self._parser, self._writer
        while not (self._waiting or writer.gone or writer.closing or self._transport.is_closing()):
            upload = self._upload
            if upload is not None and self._advance_upload(upload):
                continue
            if upload is None and parser.requests:
                self._perform_parsed()
                if parser.requests and monotonic() > self._slice_end:
                    self._resume_soon()
                    break
            elif parser.refusal is not None:
                if upload is not None:  # in the middle of a body
                    self._transport.abort()
                    return
                self._refuse(parser.refusal)
            elif parser.upload_due and upload is None:
                request, close = parser.begin_upload()
                answer = self._dispatcher.answer(request)
                assert isinstance(answer, (Upload, Response))
                self._served += 1
                self._begin_upload(answer, request, close, monotonic())
            elif parser.continue_due:
                parser.continue_due = False
                writer.send_continue()
            elif self._backlog:
                piece = bytes(self._backlog[:SLICE])
                del self._backlog[:SLICE]
                parser.feed(piece)
                if self._backlog:
                    self._resume_soon()
                    break
            else:
                self._ready = parser.idle and upload is None and not self._lingering
                break
        if self._half_closed and not (self._resume_scheduled or writer.blocked or writer.gone):
            writer.send()
            self._transport.close()
        if self._paused and not writer.gone and len(self._backlog) <= READ_AHEAD and not self._waiting:
            self._paused = False
            self._transport.resume_reading()

    def _refuse(self, error: JobQueueError) -> None:
        """Answers what cannot or will not be read; then the connection ends."""
        request = self._parser.refused_request()
        self._body_unread = True
        self._writer.respond(self._dispatcher.refuse(error, request), request, True, monotonic())

    # -- streams and uploads ------------------------------------------------------------------------

    def _begin_stream(self, stream: Stream, request: Request, close: bool, started: float) -> None:
        close = close or self._state.draining or request.version != "HTTP/1.1"
        self._writer.start_stream(stream, request, close)
        response = StreamResponse(
            self._state, self._writer, stream, request, close, started, self._stream_ended
        )
        self._stream = response
        if request.method == "HEAD":
            response.end()
        else:
            response.start()

    def _stream_ended(self) -> None:
        assert self._stream is not None
        close = self._stream.close or self._state.draining
        self._stream = None
        if close:
            self._linger()
        else:
            self._resume_soon()

    def _begin_upload(
        self, answer: Upload | Response, request: Request, close: bool, started: float
    ) -> UploadReceiver:
        self._writer.send()
        self._upload = UploadReceiver(
            self._state, self._writer, answer, request, close, started, self._resume_soon
        )
        return self._upload

    def _advance_upload(self, upload: UploadReceiver) -> bool:
        """Hands over what has come of the body, or answers. False: more of the body has to come first."""
        parser = self._parser
        if parser.upload_body:
            upload.feed(parser.take_upload_body())
        elif parser.upload_ended:
            parser.upload_ended = False
            upload.end_of_body()
        elif upload.response is None:
            return False
        elif upload.body_complete:
            self._finish_upload(upload, upload.response, upload.close)
        elif (
            parser.continue_due  # the client would not have sent the body yet
            or parser.refusal is not None
            or upload.dropped_bytes > _DRAIN_BODIES * self._state.max_body
        ):
            self._body_unread = True
            self._finish_upload(upload, upload.response, True)
        else:
            return False
        return True

    def _finish_upload(self, upload: UploadReceiver, response: Response, close: bool) -> None:
        self._upload = None
        self._writer.respond(response, upload.request, close, upload.started)
        upload.finish(response.status)

    # -- the end ------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """A request is being read, answered, or sent."""
        if self._lingering:
            return False
        parser = self._parser
        reading = bool(parser.requests or self._backlog or not parser.idle)
        return reading or self._waiting or self._upload is not None or self._writer.has_unsent

    def close_if_idle(self) -> None:
        if not self.busy and not self._writer.gone:
            self._transport.close()

    def send(self) -> None:
        self._writer.send()

    def abort(self) -> None:
        self._transport.abort()

    def _on_flushed(self) -> None:
        """All responses are with the transport, and the connection is to end."""
        if self._pending is None:
            self._linger()

    def _linger(self) -> None:
        """Writes no more. What the client still sends is read and dropped for a moment: closing a socket with
        unread bytes would take the response away from the client."""
        if self._lingering or self._writer.gone:
            return
        self._lingering = True
        self._ready = False
        self._backlog.clear()
        self._parser.stop()
        if not self._body_unread:
            self._transport.close()
            return
        if self._transport.can_write_eof():  # not with TLS, where the client has to close
            self._transport.write_eof()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    # -- deadlines ----------------------------------------------------------------------------------

    def check_deadline(self, now: float) -> None:
        """Ends a connection that has been in one state for too long. Called every second or two."""
        writer, parser = self._writer, self._parser
        if writer.gone or ((self._pending is not None or parser.requests) and not writer.blocked):
            return  # a long-poll has a time limit of its own
        state = self.state()
        seen = (state, self._served, self._untaken() if state == "write" else 0)
        if self._seen[0] != seen:
            self._seen = (seen, now)
            return
        allowed = self._state.timeouts[state]
        if now - self._seen[1] <= allowed:
            return
        if state in ("head", "body"):
            parser.refuse(RequestTimeout(f"the request did not arrive within {allowed:g} seconds"))
            self._resume()
        elif state in ("write", "linger"):
            self._transport.abort()
        else:
            self._transport.close()

    def _untaken(self) -> int:
        """Bytes that the client has not taken yet."""
        buffered = self._transport.get_write_buffer_size()
        connected = self._transport.get_extra_info("socket")
        if connected is None:  # a TLS transport that is being closed
            return buffered
        return untaken(connected.fileno(), buffered)

    def state(self) -> str:
        """A state of `Timeouts`."""
        if self._writer.blocked:
            return "write"
        if self._lingering:
            return "linger"
        receiving = self._upload is not None and self._upload.response is None
        if self._pending is not None or self._stream is not None or receiving:
            return "answer"
        if self._parser.headers_done:
            return "body"
        if self._parser.reading:
            return "head"
        return "idle" if self._served else "first"
