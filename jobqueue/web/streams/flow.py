"""Flow control of streams and uploads.

A stream is written no faster than its client reads. It ends when the client is gone or reads nothing, or the
server stops. An upload is read no faster than it is processed.
"""

import time
from asyncio import CancelledError, Future, get_running_loop, sleep
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from jobqueue.engine.api import Engine
from jobqueue.errors import JobQueueError, Unauthorized
from jobqueue.web.bytes_in_flight import BytesInFlight
from jobqueue.web.http import Response, Stream, Upload

# Seconds between two checks of all streams.
LOOK = 1.0
# A check that is so many seconds late follows a pause of the loop.
_PAUSE = 0.5
# Bytes that are written at once; after as many a stream lets other work run.
LONG = 64 << 10
# Seconds between looks whether there is room for a large piece.
_ROOM = 0.1


def gathered(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Joins lines into pieces that are each written at once; a long line is a piece of its own."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > LONG:
            yield b"".join(piece)
            piece.clear()
            size = 0
        piece.append(line)
        size += len(line)
    if piece:
        yield b"".join(piece)


class Streams:
    """All active streams and uploads, checked once a second, and whenever `check` is called.

    `in_flight` counts what is unread. `stuck` is the longest time in seconds that a client may read nothing
    of what is written to it, `silent` the longest that it may send nothing of a body.
    """

    def __init__(self, engine: Engine, in_flight: BytesInFlight) -> None:
        self.in_flight = in_flight
        self._engine = engine
        self.stuck = engine.settings.write_timeout / 1000
        self.silent = engine.settings.body_timeout / 1000
        self._open: set[ActiveStream] = set()
        self._looking = False
        self._looked_at = 0.0
        self._known = False  # the engine knows whom to tell that it stops

    def __len__(self) -> int:
        return len(self._open)

    def add(self, running: "ActiveStream") -> None:
        if not self._known:
            self._known = True
            self._engine.when_stopping(self._stop)
        self._open.add(running)
        if self._engine.stopping:
            running.stop()
        running.look(time.monotonic(), self)  # the caller's token may have become invalid since the request
        if not self._looking:
            self._looking = True
            self._looked_at = time.monotonic()
            get_running_loop().call_later(LOOK, self._look)

    def discard(self, running: "ActiveStream") -> None:
        self._open.discard(running)

    def _stop(self) -> None:
        for running in list(self._open):
            running.stop()

    def check(self) -> None:
        """Ends those whose caller may no longer be served, or whose client is stuck."""
        now = time.monotonic()
        for running in list(self._open):
            running.look(now, self)

    def _look(self) -> None:
        self._looking = bool(self._open)
        now = time.monotonic()
        late, self._looked_at = now - self._looked_at - LOOK, now
        if late > _PAUSE:  # a pause of the loop is not the clients': what they sent has yet to be read
            for running in list(self._open):
                running.excuse(late)
        self.check()
        if self._looking:
            get_running_loop().call_later(LOOK, self._look)


class ActiveStream(Protocol):
    """What `Streams` checks."""

    def stop(self) -> None: ...

    def look(self, now: float, streams: Streams) -> None:
        """`now` is in seconds of `time.monotonic`."""

    def excuse(self, seconds: float) -> None:
        """Does not count the last `seconds` as silence of the client: the loop had paused."""


class Client(Protocol):
    """The receiving end of a stream, as each front provides it."""

    def write(self, piece: bytes) -> "Future[None] | None":
        """Writes `piece`. None: the client, or its system, has taken all of it. Otherwise the Future is
        done once more may be written. Raises `OSError`, at once or in the Future, if the connection is
        broken."""

    def abort(self) -> None:
        """Cuts the connection; the front then calls `StreamWriter.hung_up`."""


class StreamWriter:
    """Writes one Stream to its client. `size`: bytes so far."""

    def __init__(self, stream: Stream, client: Client) -> None:
        self.stream = stream
        self.size = 0
        self._client = client
        self._gone = False
        self._writing: Future[None] | None = None
        self._since = 0.0

    async def pour(self, streams: Streams) -> bool:
        """Writes all pieces. Returns False if the client left before the end."""
        streams.add(self)
        pieces = self.stream.pieces
        turn = 0  # bytes of this one
        try:
            await self._room(streams)
            async for piece in pieces:
                self.size += len(piece)
                turn += len(piece)
                try:
                    self._writing = self._client.write(piece)
                    if self._writing is not None:
                        self._since = time.monotonic()
                        await self._writing
                        turn = 0
                except OSError:
                    self.hung_up()
                finally:
                    self._writing = None  # its exception's traceback leads back here
                if turn >= LONG:
                    await sleep(0)  # others have their turn
                    turn = 0
                await self._room(streams)
                if self._gone:
                    return False
        except CancelledError:
            if not self._gone:
                raise
        finally:
            streams.discard(self)
            await pieces.aclose()
        return not self._gone

    async def _room(self, streams: Streams) -> None:
        """Waits until there is room for a large piece; jobs are taken only then."""
        # Polled, since counting is in the way of every request, and therefore wakes nobody.
        while self.stream.large and streams.in_flight.full and not self._gone:  # noqa: ASYNC110
            await sleep(_ROOM)

    def hung_up(self) -> None:
        """Ends the stream because its client is gone."""
        if not self._gone:
            self._gone = True
            self.stream.gone()
            if self._writing is not None:
                self._writing.cancel()

    def stop(self) -> None:
        self.stream.stop()

    def look(self, now: float, streams: Streams) -> None:
        stream = self.stream
        allowed = stream.good is None or stream.good()
        if self._writing is None:
            if not allowed:
                stream.gone()
        elif not allowed or now - self._since > streams.stuck or (stream.late is not None and stream.late()):
            self._client.abort()

    def excuse(self, seconds: float) -> None:
        self._since += seconds


class UploadReader:
    """A body of any length that is being received. Its owner adds it to `streams`, and calls `close` at its
    end.

    `abort` closes the connection. `refuse` answers with an error before the rest of the body has come.
    """

    def __init__(
        self,
        upload: Upload,
        abort: Callable[[], None],
        refuse: Callable[[JobQueueError], None],
        streams: Streams,
    ) -> None:
        self._upload = upload
        self._abort = abort
        self._refuse = refuse
        self._streams = streams
        self._held = 0
        self._closed = False
        self._since: float | None = time.monotonic()

    async def take(self, piece: bytes) -> None:
        self._check()
        self._since = None
        await self._upload.take(piece)
        self._since = time.monotonic()
        self._count(self._upload.held())
        if self._held and self._streams.in_flight.full:
            raise self._streams.in_flight.refusal()

    async def end(self) -> Response:
        self._check()
        self._since = None
        return await self._upload.end()

    def _check(self) -> None:
        if not self._allowed():
            raise self._unauthorized()

    def _allowed(self) -> bool:
        return self._upload.good is None or self._upload.good()

    def _unauthorized(self) -> Unauthorized:
        return Unauthorized("this access token was revoked, or has expired; what came before stays")

    def close(self) -> None:
        self._closed = True
        self._count(0)
        self._streams.discard(self)

    def _count(self, held: int) -> None:
        if self._closed:  # while a piece was being taken, which goes on; nothing of it is kept
            held = 0
        self._streams.in_flight.used += held - self._held
        self._held = held

    def stop(self) -> None:
        """Does nothing: the engine refuses further items, and `take` reports it."""

    def look(self, now: float, streams: Streams) -> None:
        if self._since is None:  # a piece is being processed; `take` or `end` will see it
            return
        if not self._allowed():
            self._since = None
            self._refuse(self._unauthorized())
        elif now - self._since > streams.silent:
            self._abort()

    def excuse(self, seconds: float) -> None:
        if self._since is not None:
            self._since += seconds


class Wakeup:
    """A wait with a timeout that can be ended early. After `end` there is no more waiting."""

    def __init__(self) -> None:
        self.over = False
        self._turn: Future[None] | None = None

    @property
    def waiting(self) -> bool:
        return self._turn is not None

    async def wait(self, seconds: float | None = None) -> None:
        """Waits until woken, or for `seconds`; None: without limit."""
        if self.over:
            return
        loop = get_running_loop()
        self._turn = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self.wake)
        try:
            await self._turn
        finally:
            if timer is not None:
                timer.cancel()
            self._turn = None

    def wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def end(self) -> None:
        self.over = True
        self.wake()
