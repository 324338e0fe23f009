"""Transfers: streamed responses and uploads, which take longer than one loop pass.

Each runs in a task of its own. `jobqueue.web.streams.flow` has the loop over the pieces; here is what the
fast front adds: bytes to and from the connection, the access log and the end.
"""

import asyncio
from asyncio import Future
from collections.abc import Callable

from jobqueue.errors import JobQueueError
from jobqueue.server.http1.front_state import FrontState
from jobqueue.server.http1.response_writer import ResponseWriter
from jobqueue.web.http import Request, Response, Stream, Upload
from jobqueue.web.streams.flow import StreamWriter, UploadReader, Wakeup


class StreamClient:
    """The `Client` of a `StreamWriter` on the fast front."""

    def __init__(self, writer: ResponseWriter) -> None:
        self._writer = writer
        self._taken: Future[None] | None = None

    def write(self, piece: bytes) -> "Future[None] | None":
        if self._writer.write_piece(piece):
            return None
        self._taken = asyncio.get_running_loop().create_future()
        return self._taken

    def resume(self) -> None:
        """The client has taken all that was written."""
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)

    def abort(self) -> None:
        self._writer.abort()


class StreamResponse:
    """A Stream on its way to a client. `on_end` is called when all of it has been written."""

    def __init__(
        self,
        state: FrontState,
        writer: ResponseWriter,
        stream: Stream,
        request: Request,
        close: bool,
        started: float,
        on_end: Callable[[], None],
    ) -> None:
        self.close = close
        self._state = state
        self._writer = writer
        self._stream = stream
        self._request = request
        self._started = started
        self._on_end = on_end
        self._client = StreamClient(writer)
        self._stream_writer = StreamWriter(stream, self._client)
        self._running = False
        self._gone = False

    def start(self) -> None:
        self._state.start_task(asyncio.get_running_loop().create_task(self._run()))

    async def _run(self) -> None:
        try:
            if (taken := self._client.write(b"")) is not None:  # the client has not taken the head yet
                await taken
            if self._gone:
                return
            self._running = True
            if not await self._stream_writer.pour(self._state.dispatcher.streams):
                return
        except Exception as error:  # too late for another response: the client sees that it is cut off
            self._state.dispatcher.failed(error, self._request.id)
            self._writer.abort()
            return
        self._state.dispatcher.streamed(self._request, self._stream.status)
        self.end()

    def end(self) -> None:
        """Ends the response: all pieces have been written, or a HEAD gets none."""
        self._writer.end_stream()
        self._log(self._stream.status)
        self._on_end()

    def resume(self) -> None:
        self._client.resume()

    def hung_up(self) -> None:
        self._gone = True
        if self._running:
            self._stream_writer.hung_up()
            self._state.dispatcher.streamed(self._request, 499)
        self._client.resume()
        self._log(499)

    def _log(self, status: int) -> None:
        request, size = self._request, self._stream_writer.size
        self._state.log.request(
            request.method, request.path, status, self._started, size, request.peer, request.id
        )


class UploadReceiver:
    """A body on its way into an Upload, one piece at a time.

    `answer`: the API's answer to the request before its body: an Upload, or a refusal. After a refusal,
    also one in the middle, the rest of the body is dropped and counted, so that the client gets to read the
    response. `on_progress` is called when the next piece may come, and when there is a response.
    """

    def __init__(
        self,
        state: FrontState,
        writer: ResponseWriter,
        answer: Upload | Response,
        request: Request,
        close: bool,
        started: float,
        on_progress: Callable[[], None],
    ) -> None:
        self.request = request
        self.close = close
        self.started = started
        self.response: Response | None = None
        self.body_complete = False
        self.dropped_bytes = 0
        # The response is to be sent although the body has not come to its end
        self.at_once = False
        # A piece is being taken, or the end of the body: nothing more may come
        self.busy = False
        self._state = state
        self._on_progress = on_progress
        self._pieces = bytearray()
        self._wakeup = Wakeup()
        self._gone = False
        self._refusal: JobQueueError | None = None
        self._reader: UploadReader | None = None
        if isinstance(answer, Response):
            self.response = answer
            return
        self.busy = True
        self._reader = UploadReader(answer, writer.abort, self._refuse, state.dispatcher.streams)
        state.dispatcher.streams.add(self._reader)
        state.start_task(asyncio.get_running_loop().create_task(self._run(self._reader)))

    async def _run(self, reader: UploadReader) -> None:
        try:
            while piece := await self._next_piece():
                await reader.take(piece)
            if self._gone:
                return
            response = await reader.end()
        except Exception as error:
            response = self._state.dispatcher.failed_later(error, self.request)
            self.dropped_bytes += len(self._pieces)
        if not self._gone:
            self.response = response
            self.busy = False
            self._on_progress()

    async def _next_piece(self) -> bytes:
        """Nothing: the body is complete, or the client is gone. Raises the error of `_refuse`."""
        while not (self._pieces or self.body_complete or self._gone or self._refusal):
            self.busy = False
            self._on_progress()
            await self._wakeup.wait()
        if self._refusal is not None:
            raise self._refusal
        piece = b"" if self._gone else bytes(self._pieces)
        self._pieces.clear()
        return piece

    def _refuse(self, error: JobQueueError) -> None:
        self._refusal = error
        self.at_once = True
        self._wakeup.wake()

    def feed(self, piece: bytes) -> None:
        if self.response is not None:
            self.dropped_bytes += len(piece)
        else:
            self._pieces += piece
            self.busy = True
            self._wakeup.wake()

    def end_of_body(self) -> None:
        self.body_complete = True
        if self.response is None:
            self.busy = True
            self._wakeup.wake()

    def finish(self, status: int) -> None:
        """The response has been written, with this status."""
        if self._reader is not None:
            self._reader.close()
            self._state.dispatcher.streamed(self.request, status)
            self._reader = None  # it refers to this object

    def hung_up(self) -> None:
        """A piece that is being taken is still taken; nothing follows it."""
        self._gone = True
        self._wakeup.end()
        request = self.request
        self._state.log.request(request.method, request.path, 499, self.started, 0, request.peer, request.id)
        self.finish(499)
