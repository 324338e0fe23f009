"""The whole API as a Tornado application: an adapter from Tornado's requests to operations, and back.

This front is the reference, and the one that Tornado's test client drives. It reads bodies as a stream:
Tornado would parse a form out of what `curl -d` sends, and would accept a body of any size.
"""

import time
from asyncio import CancelledError, Future, sleep
from collections.abc import Awaitable
from functools import partial
from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from jobqueue.engine.api import Engine
from jobqueue.engine.local import LocalEngine
from jobqueue.errors import JobQueueError, UnsupportedEncoding
from jobqueue.web.access.browser_policy import UNIX
from jobqueue.web.bytes_in_flight import SMALL
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.http import REASONS, Answer, Deferred, Request, Response, Stream, Upload
from jobqueue.web.streams.flow import StreamWriter, UploadReader

# A body that is too large is still read, up to this multiple of the largest request, since a client that is
# disconnected while it sends does not see the answer. For a refused upload: of JOBQUEUE_MAX_BODY.
_DRAIN = 16
# Seconds for a whole upload: without limit, since `UploadReader` checks that it progresses.
_NEVER = 30.0 * 86_400


def make_app(engine: Engine | None = None) -> Application:
    """Returns a `tornado.web.Application` over `engine`; without one over a new `LocalEngine` in memory, with
    default settings and the system's clock. It touches no loop and reads no environment."""
    return application(Dispatcher(engine or LocalEngine()))


def application(dispatcher: Dispatcher) -> Application:
    """Returns an application with one handler for every path: the dispatcher knows the routes."""
    return Application(
        [(r".*", OperationHandler, {"dispatcher": dispatcher})],
        log_function=_no_log,
        xsrf_cookies=False,
        compress_response=False,
    )


def _no_log(_: object) -> None:
    """The program that serves writes the access log."""


@stream_request_body
class OperationHandler(RequestHandler):
    """Answers every path; the dispatcher knows the routes."""

    def initialize(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self._body = bytearray()
        self._refusal: JobQueueError | None = None
        self._later: Deferred | None = None
        self._pouring: StreamWriter | None = None
        self._receiving: UploadReader | None = None
        self._refused_body: Response | None = None  # the answer to a body that is not taken
        self._dropped = 0
        self._gone = False
        self._over = False
        self._started = time.monotonic()
        self._size = 0
        dispatcher.running += 1
        sent = self.request.headers.get("X-Request-Id")
        self.request_id = dispatcher.request_id(sent.encode("latin-1") if sent is not None else None)

    def set_default_headers(self) -> None:
        self.clear_header("Server")

    def compute_etag(self) -> None:
        return None

    # -- the body arrives ---------------------------------------------------------------------------

    def prepare(self) -> None:
        if self._gone:  # before it was begun; nobody would ever end it
            self._finished = True
            return
        if self.request.version == "HTTP/1.0":  # Tornado would send an interim response that it does not know
            self.request.headers.pop("Expect", None)
        if self.request.path in self.dispatcher.router.uploads:
            self._prepare_upload()
            return
        length = _digits(self.request.headers.get("Content-Length", "0"))
        too_long = length > self.dispatcher.settings.max_request
        self._refusal = self.dispatcher.too_large() if too_long else self._unreadable(self.request.headers)
        if self._refusal is None and (length or "Transfer-Encoding" in self.request.headers):
            self._refusal = self.dispatcher.refusal_before_body(self._asked())
        hopeless = too_long and length > _DRAIN * self.dispatcher.settings.max_request
        if self._refusal is not None and (hopeless or "Expect" in self.request.headers):
            self._too_much_to_read(self._refused(self._refusal))

    def _prepare_upload(self) -> None:
        connection: Any = self.request.connection
        connection.set_max_body_size(1 << 62)
        connection.set_body_timeout(_NEVER)
        connection.stream.unlimited_body = True  # for the server's own deadline
        unreadable = self._unreadable(self.request.headers)
        answer: Answer = self._refused(unreadable) if unreadable is not None else self._answer()
        if isinstance(answer, Upload):
            self._receiving = UploadReader(
                answer, partial(_cut, connection), self._end_upload, self.dispatcher.streams
            )
            self.dispatcher.streams.add(self._receiving)
        else:
            assert isinstance(answer, Response)
            self._refused_body = answer
            if "Expect" in self.request.headers:
                self._too_much_to_read(answer)

    def _end_upload(self, error: JobQueueError) -> None:
        """Answers an upload before the rest of its body has come."""
        self._refused_body = self.dispatcher.failed_later(error, self._answered)
        self._too_much_to_read(self._refused_body)

    async def _take(self, chunk: bytes) -> None:
        """Processes a piece of an upload.

        After a refusal pieces are read and dropped up to a limit, so that the client receives the answer.
        """
        if self._refused_body is None:
            assert self._receiving is not None
            try:
                await self._receiving.take(chunk)
            except Exception as error:
                self._refused_body = self.dispatcher.failed_later(error, self._answered)
        elif self._dropped <= _DRAIN * self.dispatcher.settings.max_body:
            self._dropped += len(chunk)
        elif not self._over:
            self._too_much_to_read(self._refused_body)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if self._receiving is not None or self._refused_body is not None:
            return self._take(chunk)
        if self._refusal is None and len(self._body) + len(chunk) <= self.dispatcher.settings.max_request:
            if self._body and not self.dispatcher.in_flight.has_room(len(chunk)):
                self._refusal = self.dispatcher.in_flight.refusal()
                self._drop_body()
            else:
                self._body += chunk
                self.dispatcher.in_flight.used += len(chunk)
        elif self._refusal is None:
            self._refusal = self.dispatcher.too_large()
            self._drop_body()
        else:
            self._dropped += len(chunk)
            if self._dropped > _DRAIN * self.dispatcher.settings.max_request and not self._over:
                self._too_much_to_read(self._refused(self._refusal))
        return None

    def _drop_body(self) -> None:
        self.dispatcher.in_flight.used -= len(self._body)
        self._body.clear()

    def _unreadable(self, headers: HTTPHeaders) -> JobQueueError | None:
        coding = headers.get("Content-Encoding", "identity").strip().lower()
        if coding in ("", "identity"):
            return None
        return UnsupportedEncoding(f"the body is encoded as {coding[:40]!r}; send it plain")

    def _too_much_to_read(self, answer: Response) -> None:
        """Answers before the body has arrived; Tornado then closes the connection."""
        connection: Any = self.request.connection
        connection.set_max_body_size(1 << 62)
        self.set_header("Connection", "close")
        self._write(answer)

    def _refused(self, refusal: JobQueueError) -> Response:
        return self.dispatcher.refuse(refusal, self._asked())

    # -- the request is whole -----------------------------------------------------------------------

    async def _perform(self, *_: str) -> None:
        if self._refusal is not None:
            await self._write(self._refused(self._refusal))
            return
        answer: Answer | None = await self._received() if self._receiving else self._refused_body
        answer = answer or self._answer()
        self._drop_body()
        while isinstance(answer, Deferred):
            self._later = answer
            if self._left_already():
                self.on_connection_close()
            try:
                await answer.future
            except CancelledError:
                if not answer.future.cancelled():
                    raise
                return  # the client hung up
            except Exception:
                pass  # a refusal: `finish` makes an answer of it
            # The loop reads the sockets before the answer, so a client that left is noticed.
            await sleep(0)
            answer = self.dispatcher.finish(answer, self._answered)
        if isinstance(answer, Stream):
            await self._pour(answer)
            return
        assert isinstance(answer, Response)
        if self._gone:
            self._undelivered(answer)
            return
        try:
            await self._write(answer)
        except StreamClosedError:
            self._undelivered(answer)
        else:
            if self._cut_off():
                self._undelivered(answer)

    async def _received(self) -> Response:
        assert self._receiving is not None
        if self._refused_body is not None:
            return self._refused_body
        try:
            return await self._receiving.end()
        except Exception as error:
            return self.dispatcher.failed_later(error, self._answered)

    async def _pour(self, stream: Stream) -> None:
        self._set_head(stream.status, stream.content_type, stream.headers)
        self.set_header("X-Accel-Buffering", "no")  # nginx must not buffer it
        ends_connection = self.request.version == "HTTP/1.0"  # nothing else tells such a client where it ends
        if ends_connection:
            self.request.headers.pop("Connection", None)  # Tornado would say that it is kept
        try:
            flushed = self.flush()
            if self.request.method != "HEAD":
                await flushed
            if self.request.method != "HEAD" and not self._gone:
                self._pouring = StreamWriter(stream, _Client(self.request.connection))
                if not await self._pouring.pour(self.dispatcher.streams):
                    return
            await self.finish()
            if ends_connection:
                _cut(self.request.connection)
        except StreamClosedError:
            pass
        except Exception as error:  # the head was sent, so the connection is cut
            self.dispatcher.failed(error, self.request_id)
            _cut(self.request.connection)
        finally:
            self._size = self._pouring.size if self._pouring is not None else 0

    def _left_already(self) -> bool:
        """Tells whether the request and the end of its connection were read together, which Tornado does
        not report.
        """
        stream = getattr(self.request.connection, "stream", None)
        return stream is not None and stream.closed()

    def _cut_off(self) -> bool:
        """Tells whether the client left before the whole answer was sent, which Tornado does not report."""
        sent = getattr(self.request.connection, "_pending_write", None)
        return sent is not None and sent.done() and sent.exception() is not None

    def on_finish(self) -> None:
        self._ended(self.get_status())

    def _ended(self, status: int) -> None:
        if self._over:
            return
        self._over = True
        self.dispatcher.running -= 1
        self._drop_body()
        if self._receiving is not None:
            self._receiving.close()
        if self._receiving is not None or self._pouring is not None:
            self.dispatcher.streamed(self._answered, status)
        self._receiving = None  # it refers to this handler
        if self.dispatcher.access is not None:
            request = self.request
            self.dispatcher.access(
                request.method or "-",
                request.path,
                status,
                self._started,
                self._size,
                self._peer(),
                self.request_id,
            )

    def _remote(self) -> str:
        """Returns the address of the client. Tornado reports a Unix socket as 0.0.0.0."""
        peer = self.request.remote_ip or ""
        return UNIX if peer == "0.0.0.0" else peer

    def _peer(self) -> str:
        peer = self._remote()
        proxies = self.dispatcher.browser_policy.proxies
        said = self.request.headers.get("X-Forwarded-For")
        if proxies is None or said is None:
            return peer
        return proxies.client(peer, {b"x-forwarded-for": said.encode("latin-1")})

    get = head = post = put = patch = delete = options = _perform

    def on_connection_close(self) -> None:
        if self._gone:
            return
        self._gone = True
        super().on_connection_close()
        # Tornado leaves these circles to the collector, which does not look at what is old while there are
        # many jobs: the traceback of what was put there will lead back here.
        self.request._body_future = Future()
        self._break_cycles()
        self._ended(499)
        if self._pouring is not None:
            self._pouring.hung_up()
        if self._later is not None:
            self._later.future.cancel()

    def _answer(self) -> Answer:
        self._answered = self._asked()
        return self.dispatcher.answer(self._answered)

    def _asked(self) -> Request:
        request = self.request
        assert request.method is not None
        headers: dict[bytes, bytes] = {}
        for name, value in request.headers.get_all():
            key = name.lower().encode("latin-1")
            text = value.encode("latin-1")
            headers[key] = headers[key] + b", " + text if key in headers else text
        asked = Request(
            request.method,
            request.path,
            request.query,
            headers,
            bytes(self._body),
            self._remote(),
            self.request_id,
        )
        stream = getattr(request.connection, "stream", None)
        if stream is not None and stream.socket is not None:
            asked.descriptor = stream.socket.fileno()
        return asked

    def _undelivered(self, answer: Response) -> None:
        if answer.on_undelivered is not None:
            answer.on_undelivered()

    def _set_head(self, status: int, content_type: str, headers: bytes) -> None:
        self.set_status(status, REASONS[status])
        if self.dispatcher.engine.stopping:
            self.set_header("Connection", "close")
        self.set_header("X-Request-Id", self.request_id)
        if self.request.method in ("GET", "HEAD"):
            self.set_header("Cache-Control", "no-store")
        lines = [line.partition(": ") for line in headers.decode("latin-1").splitlines()[1:]]
        for name, _, _ in lines:
            self.clear_header(name)
        for name, _, value in lines:
            self.add_header(name, value)  # a name may come twice
        if status == 204:
            self.clear_header("Content-Type")
        else:
            self.set_header("Content-Type", content_type)

    def _write(self, answer: Response) -> Any:
        size = len(answer.body)
        if size > SMALL and not self.dispatcher.in_flight.has_room(size):
            answer = self.dispatcher.without_room(answer, self._asked())
        self._set_head(answer.status, answer.content_type, answer.headers)
        body = answer.body
        self._size = len(body)
        if self._size > SMALL:
            answer.body = b""  # `answer` stays until the client has taken all
        return self.finish() if answer.status in (204, 304) else self.finish(body)

    # -- what Tornado itself refuses ----------------------------------------------------------------

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answers a method that Tornado does not know by the routes; anything else is a bug."""
        if self._gone:
            return  # Tornado cancelled what was left of a request when the program ended
        known = kwargs.get("exc_info", (None, None))[1]
        if isinstance(known, HTTPError):
            answer = self._answer()
            assert isinstance(answer, Response)
            # Tornado has not read the body, and closes.
            self.set_header("Connection", "close")
        else:
            answer = self.dispatcher.failed(known or RuntimeError("no reason given"), self.request_id)
        self._write(answer)

    def log_exception(self, *_: Any) -> None:
        """Does nothing: `Dispatcher.failed` logs."""


class _Client:
    """The `Client` of a `StreamWriter` on the Tornado front. Holds no handler, which would hold it in
    turn."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def write(self, piece: bytes) -> "Future[None] | None":
        written: Future[None] = self._connection.write(piece)
        return written

    def abort(self) -> None:
        _cut(self._connection)


def _cut(connection: Any) -> None:
    """Cuts the connection; `on_connection_close` follows."""
    connection.stream.close()


def _digits(length: str) -> int:
    """Returns the value of a Content-Length; 0 if Tornado is about to refuse it."""
    return int(length.lstrip("0")[:19] or "0") if length.isascii() and length.isdigit() else 0
