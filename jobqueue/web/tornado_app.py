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
from jobqueue.errors import BodyTooLarge, JobQueueError, UnsupportedEncoding
from jobqueue.web.access.browser_policy import UNIX
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.http import REASONS, Answer, Deferred, Request, Response, Stream, Upload
from jobqueue.web.streams.flow import StreamWriter, UploadReader

# A body that is too large is still read, up to this multiple of the limit: a client that is disconnected
# while it sends does not see the answer.
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
        [(r".*", OperationHandler, {"api": dispatcher})],
        log_function=_no_log,
        xsrf_cookies=False,
        compress_response=False,
    )


def _no_log(_: object) -> None:
    """The program that serves writes the access log."""


@stream_request_body
class OperationHandler(RequestHandler):
    """Answers every path; the dispatcher knows the routes."""

    def initialize(self, api: Dispatcher) -> None:
        self.api = api
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
        api.running += 1
        sent = self.request.headers.get("X-Request-Id")
        self.request_id = api.request_id(sent.encode("latin-1") if sent is not None else None)

    def set_default_headers(self) -> None:
        self.clear_header("Server")

    def compute_etag(self) -> None:
        return None

    # -- the body arrives ---------------------------------------------------------------------------

    def prepare(self) -> None:
        if self._gone:  # before it was begun; nobody would ever end it
            self._finished = True
            return
        if self.request.path in self.api.router.uploads:
            self._prepare_upload()
            return
        length = _digits(self.request.headers.get("Content-Length", "0"))
        too_long = length > self.api.settings.max_body
        self._refusal = self._too_large() if too_long else self._unreadable(self.request.headers)
        hopeless = too_long and length > _DRAIN * self.api.settings.max_body
        if self._refusal is not None and (hopeless or "Expect" in self.request.headers):
            self._too_much_to_read(self._refused(self._refusal))

    def _prepare_upload(self) -> None:
        connection: Any = self.request.connection
        connection.set_max_body_size(1 << 62)
        connection.set_body_timeout(_NEVER)
        unreadable = self._unreadable(self.request.headers)
        answer: Answer = self._refused(unreadable) if unreadable is not None else self._answer()
        if isinstance(answer, Upload):
            self._receiving = UploadReader(answer, partial(_cut, connection))
            self.api.streams.add(self._receiving)
        else:
            assert isinstance(answer, Response)
            self._refused_body = answer
            if "Expect" in self.request.headers:
                self._too_much_to_read(answer)

    async def _take(self, chunk: bytes) -> None:
        """Processes a piece of an upload.

        After a refusal pieces are read and dropped up to a limit, so that the client receives the answer.
        """
        if self._refused_body is None:
            assert self._receiving is not None
            try:
                await self._receiving.take(chunk)
            except Exception as error:
                self._refused_body = self.api.failed(error, self.request_id)
        elif self._dropped <= _DRAIN * self.api.settings.max_body:
            self._dropped += len(chunk)
        elif not self._over:
            self._too_much_to_read(self._refused_body)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if self._receiving is not None or self._refused_body is not None:
            return self._take(chunk)
        if self._refusal is None and len(self._body) + len(chunk) <= self.api.settings.max_body:
            self._body += chunk
        elif self._refusal is None:
            self._refusal = self._too_large()
            self._body.clear()
        else:
            self._dropped += len(chunk)
            if self._dropped > _DRAIN * self.api.settings.max_body and not self._over:
                self._too_much_to_read(self._refused(self._refusal))
        return None

    def _unreadable(self, headers: HTTPHeaders) -> JobQueueError | None:
        coding = headers.get("Content-Encoding", "identity").strip().lower()
        if coding in ("", "identity"):
            return None
        return UnsupportedEncoding(f"the body is encoded as {coding[:40]!r}; send it plain")

    def _too_large(self) -> BodyTooLarge:
        limit = self.api.settings.max_body
        return BodyTooLarge(
            f"the body is larger than {limit:,} bytes", limit=limit, setting="JOBQUEUE_MAX_BODY"
        )

    def _too_much_to_read(self, answer: Response) -> None:
        """Answers before the body has arrived; Tornado then closes the connection."""
        connection: Any = self.request.connection
        connection.set_max_body_size(1 << 62)
        self.set_header("Connection", "close")
        self._write(answer)

    def _refused(self, refusal: JobQueueError) -> Response:
        return self.api.refuse(refusal, self._asked())

    # -- the request is whole -----------------------------------------------------------------------

    async def _perform(self, *_: str) -> None:
        if self._refusal is not None:
            await self._write(self._refused(self._refusal))
            return
        answer: Answer | None = await self._received() if self._receiving else self._refused_body
        answer = answer or self._answer()
        if isinstance(answer, Stream):
            await self._pour(answer)
            return
        if isinstance(answer, Deferred):
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
            answer = self.api.finish(answer, self.request_id)
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
            return self.api.failed(error, self.request_id)

    async def _pour(self, stream: Stream) -> None:
        self._set_head(stream.status, stream.content_type, stream.headers)
        self.set_header("X-Accel-Buffering", "no")  # nginx must not buffer it
        try:
            flushed = self.flush()
            if self.request.method != "HEAD":
                await flushed
            if self.request.method != "HEAD" and not self._gone:
                self._pouring = StreamWriter(stream, _Client(self.request.connection))
                if not await self._pouring.pour(self.api.streams):
                    return
            await self.finish()
        except StreamClosedError:
            pass
        except Exception as error:  # the head was sent, so the connection is cut
            self.api.failed(error, self.request_id)
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
        self.api.running -= 1
        if self._receiving is not None:
            self.api.streams.discard(self._receiving)
        if self._receiving is not None or self._pouring is not None:
            self.api.streamed(self._asked(), status)
        if self.api.access is not None:
            request = self.request
            self.api.access(
                request.method or "-", request.path, status, self._started, self._size,
                self._peer(), self.request_id,
            )  # fmt: skip

    def _remote(self) -> str:
        """Returns the address of the client. Tornado reports a Unix socket as 0.0.0.0."""
        peer = self.request.remote_ip or ""
        return UNIX if peer == "0.0.0.0" else peer

    def _peer(self) -> str:
        peer = self._remote()
        proxies = self.api.browser_policy.proxies
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
        return self.api.answer(self._asked())

    def _asked(self) -> Request:
        request = self.request
        assert request.method is not None
        headers: dict[bytes, bytes] = {}
        for name, value in request.headers.get_all():
            key = name.lower().encode("latin-1")
            text = value.encode("latin-1")
            headers[key] = headers[key] + b", " + text if key in headers else text
        return Request(
            request.method, request.path, request.query, headers, bytes(self._body),
            self._remote(), self.request_id,
        )  # fmt: skip

    def _undelivered(self, answer: Response) -> None:
        if answer.on_undelivered is not None:
            answer.on_undelivered()

    def _set_head(self, status: int, content_type: str, headers: bytes) -> None:
        self.set_status(status, REASONS[status])
        if self.api.engine.stopping:
            self.set_header("Connection", "close")
        self.set_header("X-Request-Id", self.request_id)
        if self.request.method in ("GET", "HEAD"):
            self.set_header("Cache-Control", "no-store")
        for line in headers.decode("latin-1").splitlines()[1:]:
            name, _, value = line.partition(": ")
            self.set_header(name, value)
        if status == 204:
            self.clear_header("Content-Type")
        else:
            self.set_header("Content-Type", content_type)

    def _write(self, answer: Response) -> Any:
        self._set_head(answer.status, answer.content_type, answer.headers)
        self._size = len(answer.body)
        return self.finish() if answer.status == 204 else self.finish(answer.body)

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
            answer = self.api.failed(known or RuntimeError("no reason given"), self.request_id)
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
