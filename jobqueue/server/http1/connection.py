"""Connection: one client of the fast front. It has a parser and a writer, and decides what happens when.

Requests of one connection are answered in order. While one of them waits (a long-poll, a stream) the bytes
that follow it are kept by a `ReadAhead`.
"""

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable
from operator import itemgetter
from time import monotonic
from typing import Final, cast

from jobqueue.errors import JobQueueError, RequestTimeout
from jobqueue.server.connection_limits import ConnectionLimits
from jobqueue.server.http1.front_state import FrontState
from jobqueue.server.http1.head_cache import kind_of
from jobqueue.server.http1.read_ahead import READ_AHEAD, SLICE, ReadAhead, hung_up
from jobqueue.server.http1.request_parser import RequestParser
from jobqueue.server.http1.response_writer import ResponseWriter, SendQueue
from jobqueue.server.http1.transfers import StreamResponse, UploadReceiver
from jobqueue.server.timeouts import untaken
from jobqueue.web.http import Answer, Deferred, Request, Response, Stream, Upload

_log: Final = logging.getLogger("jobqueue")
# The most that is answered in one go, in seconds. The rest waits for a later loop pass, so that one client
# does not hold up the others.
SLICE_SECONDS: Final = 0.002
# Bytes read and dropped after a refusal. A client that is cut off while it sends does not see why.
DRAIN_BYTES: Final = 16 << 20
# The same for the body of a refused upload, in multiples of JOBQUEUE_MAX_BODY.
_DRAIN_BODIES: Final = 16
# Bytes of an unfinished head that is never refused.
_SMALL_HEAD: Final = 4096
# A request that waited longer than this, in seconds, gets a job only if its client is still there. The look
# costs as much as an answer, so clients that waited for a quick disk only are spared it.
_LONG: Final = 0.02

_kind: Final[Callable[[tuple[int, "Connection"]], int]] = itemgetter(0)


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
        # Each with the kind of its request
        self.batch: list[tuple[int, Connection]] = []
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
        "_body_unread", "_connections", "_counted", "_descriptor", "_dispatcher", "_drained", "_half_closed",
        "_head_cache", "_held", "_lingering", "_loop", "_parser", "_pending", "_read_ahead", "_ready",
        "_resume_scheduled", "_seen", "_served", "_slice_end", "_state", "_stream", "_transport", "_upload",
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
        self._descriptor = -1
        self._head_cache = state.head_cache
        self._connections = connections
        self._loop = loop
        self._writer = ResponseWriter(state, connections.send_queue)
        self._served = 0  # requests begun so far
        # Reading
        self._ready = True  # nothing is in the way of the next request, which begins with the next byte
        self._held = b""  # received in this loop pass, to be answered with the batch
        self._read_ahead = ReadAhead(loop)  # received, and not parsed yet
        self._counted = 0  # bytes of unfinished requests, as counted in `state.in_flight`
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
        self._read_ahead.connection_made(transport)
        self._writer.connection_made(transport, self._on_flushed)
        connected = transport.get_extra_info("socket")
        self._descriptor = -1 if connected is None else int(connected.fileno())
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
            batch.append((kind_of(data, 0), self))

    def eof_received(self) -> bool:
        """A half-close counts as a disconnect, except for requests that were complete before it.

        A client that waits for a response keeps its side open. Requests that only had to let other clients go
        first (parsed, held for the batch, or still in the backlog) are performed and answered, and responses
        that wait for the end of this loop pass are sent. True: the transport stays open meanwhile.
        """
        due = bool(self._parser.requests or self._held or self._read_ahead.kept or self._writer.has_unsent)
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
        self._read_ahead.connection_lost()
        self._count_unfinished()
        if self._pending is not None:
            self._pending[0].future.cancel()
        if self._stream is not None:
            self._stream.hung_up()
            self._stream = None
        if self._upload is not None:
            self._upload.hung_up()
            self._upload = None

    def pause_writing(self) -> None:
        self._writer.pause()
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
        if self._read_ahead.kept:  # more has come after it
            self._read_ahead.keep_first(data)
            self._resume()
            return
        self._ready = True
        self._answer(data)
        if self._half_closed:
            self._resume_soon()  # which closes the connection

    def _receive(self, data: bytes) -> None:
        """Reads `data`, or keeps it if something is in its way."""
        if self._lingering or self._writer.closing:
            self._drained += len(data)
            if self._drained > DRAIN_BYTES:
                self._transport.abort()
        elif self._waiting or self._read_ahead.kept or self._parser.requests:
            self._keep(data)
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Answers `data`; nothing is in its way."""
        self._ready = self._parser.idle
        if self._ready:
            self._answer(data)
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._ready = False
        parser = self._parser
        self._slice_end = monotonic() + SLICE_SECONDS
        if len(data) > SLICE:
            self._read_ahead.keep(data)
            self._advance()  # at once, so that a refused body takes no memory until the next pass
            return
        parser.feed(data)
        if parser.requests:
            self._perform_parsed()
        if parser.idle and not (parser.requests or parser.refusal or self._upload or self._waiting):
            self._ready = not self._writer.closing
            if self._counted:
                self._count_unfinished()
        else:
            self._advance()

    def _keep(self, data: bytes) -> None:
        """Keeps `data` until its turn."""
        self._read_ahead.keep(data)
        self._count_unfinished()
        if not self._waiting:
            self._resume_soon()
        elif (
            self._pending is not None
            and self._state.in_flight.full
            and len(self._read_ahead.kept) > READ_AHEAD
        ):
            self._transport.abort()  # what comes behind a waiting request cannot be refused

    # -- answering ----------------------------------------------------------------------------------

    def _answer(self, data: bytes) -> None:
        """Answers `data`, without llhttp as far as its requests have heads that llhttp has read before."""
        end = self._recognise(data, 0)
        if end == len(data):
            return
        if end:  # the client sends requests without waiting for the answers
            start = 0
            self._slice_end = monotonic() + SLICE_SECONDS
            while start < end < len(data) and self._ready and monotonic() <= self._slice_end:
                start, end = end, self._recognise(data, end)
            if end == len(data):
                return
            data = data[end:]
            if not self._ready:
                self._receive(data)
                return
            if start < end:  # others are to have their turn
                self._ready = False
                self._keep(data)
                return
        self._parse(data)

    def _recognise(self, data: bytes, start: int) -> int:
        """Answers the request at `start` without llhttp if it is whole and has a head that llhttp has read
        before. Returns where it ends; `start`: it was not answered."""
        cache = self._head_cache
        latest = cache.requests[kind_of(data, start)]
        if latest is not None and data[start : (head_end := start + len(latest.head))] == latest.head:
            line, known = latest.line, latest.known
        else:
            found = cache.find(data, start)
            if found is None:
                return start
            line, known, head_end = found
        end = head_end + known.length
        if end > len(data):
            return start
        method, path, query, route, parameter = line
        dispatcher = self._dispatcher
        headers = known.headers
        own = known.names_itself
        id = dispatcher.request_id(headers[b"x-request-id"]) if own else dispatcher.fresh_id()
        request = Request(method, path, query, headers, data[head_end:end], self.peer, id, parameter)
        request.descriptor = self._descriptor
        self._served += 1
        started = monotonic()
        answer = dispatcher.perform(route, request, known.from_program, started, known.permitted)
        if isinstance(answer, Response):
            writer = self._writer
            at_once = self._connections.single_client and end == len(data)
            writer.respond(answer, request, known.close, started, at_once)
            if writer.closing:
                self._ready = False
        else:
            self._begin(answer, request, known.close, started)
        return end

    def _perform_parsed(self) -> None:
        """Performs parsed requests, at least one, until one has to wait or the slice is over."""
        requests = self._parser.requests
        while requests and self._upload is None and not (self._waiting or self._writer.closing):
            request, close, started = requests.popleft()
            self._served += 1
            request.descriptor = self._descriptor
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
        response = self._dispatcher.finish(deferred, request)
        if not isinstance(response, Response):  # it had to be admitted first, and has only begun
            self._begin(response, request, close, started)
            if self._writer.gone:
                self._left_meanwhile()
            return
        give_back = response.on_undelivered
        waited = deferred.is_long_poll or monotonic() - started > _LONG
        if give_back is not None and waited and (self._writer.gone or hung_up(self._transport)):
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
                request.descriptor = self._descriptor
                answer = self._dispatcher.answer(request)
                assert isinstance(answer, (Upload, Response))
                self._served += 1
                self._begin_upload(answer, request, close, monotonic())
            elif parser.continue_due:
                parser.continue_due = False
                if upload is not None or not self._refuses_the_rest():
                    writer.send_continue()
            elif self._read_ahead.kept:
                parser.feed(self._read_ahead.take())
                if self._read_ahead.kept and not (
                    parser.held and upload is None and self._refuses_the_rest()
                ):
                    self._resume_soon()
                    break
            elif not (parser.held and upload is None and self._refuses_the_rest()):
                self._ready = parser.idle and upload is None and not self._lingering
                break
        self._count_unfinished()
        if self._half_closed and not (self._resume_scheduled or writer.blocked or writer.gone):
            writer.send()
            self._transport.close()
        if not self._waiting:
            self._read_ahead.resume_if_short()

    def _count_unfinished(self) -> None:
        held = len(self._read_ahead.kept) + self._parser.held
        if held != self._counted:
            self._state.in_flight.used += held - self._counted
            self._counted = held

    def _forget_unfinished(self) -> None:
        """Drops what has been read and not answered; nothing that follows counts."""
        self._parser.stop()
        self._read_ahead.drop()
        self._count_unfinished()

    def _refuses_the_rest(self) -> bool:
        """Refuses a request that has not arrived completely, if its caller may not make it, or there is no
        room for more."""
        parser, in_flight = self._parser, self._state.in_flight
        if parser.headers_done and not parser.body_checked:
            parser.body_checked = True
            error = self._dispatcher.refusal_before_body(parser.refused_request())
            if error is not None:
                parser.refuse(error)
        self._count_unfinished()
        if in_flight.full and (parser.headers_done or parser.held > _SMALL_HEAD):
            parser.refuse(in_flight.refusal())
        return parser.refusal is not None

    def _refuse(self, error: JobQueueError) -> None:
        """Answers what cannot or will not be read; then the connection ends."""
        request = self._parser.refused_request()
        self._body_unread = True
        self._forget_unfinished()
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
            upload.at_once
            or parser.continue_due  # the client would not have sent the body yet
            or parser.refusal is not None
            or upload.dropped_bytes > _DRAIN_BODIES * self._state.max_body
        ):
            self._body_unread = True
            self._finish_upload(upload, upload.response, True)
        else:
            return False
        return True

    def _left_meanwhile(self) -> None:
        """The client left in the pass of the loop in which its stream, or its wait, begins."""
        if self._stream is not None:
            self._stream.hung_up()
            self._stream = None
        elif self._pending is not None:
            self._pending[0].future.cancel()

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
        reading = bool(parser.requests or self._read_ahead.kept or not parser.idle)
        return reading or self._waiting or self._upload is not None or self._writer.has_unsent

    @property
    def expects(self) -> bool:
        """What the client sends next is read, and performed as soon as it is complete."""
        ended = self._half_closed or self._lingering or self._writer.gone or self._transport.is_closing()
        return not (ended or self._waiting or self._upload is not None)

    @property
    def descriptor(self) -> int:
        """The descriptor of the socket; -1 once it is closed."""
        connected = self._transport.get_extra_info("socket")
        return -1 if connected is None else int(connected.fileno())

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
        self._forget_unfinished()
        if not self._body_unread:
            self._transport.close()
            return
        if self._transport.can_write_eof():  # not with TLS, where the client has to close
            self._transport.write_eof()

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
