"""Streams on their way to clients: each is written no faster than it is read, and ends when the client has
gone, reads nothing, or the server stops. And bodies of any length on their way in."""

import time
from asyncio import CancelledError, Future, get_running_loop, sleep
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from jobqueue.engine.api import Engine
from jobqueue.errors import Unauthorized
from jobqueue.web.http import Response, Stream, Upload

# How often all are looked at, in seconds.
LOOK = 1.0
# Bytes after which a stream lets others have their turn, and more than which are not written in one go.
LONG = 64 << 10


def gathered(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces to be written in one go: of many lines, or of one that is long."""
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
    """All that are on their way. Looks at them once a second while there are any. `stuck`: how long a client
    may take nothing of what is written to it, in seconds; `silent`: the same of sending nothing of a body."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.stuck = engine.settings.write_timeout / 1000
        self.silent = engine.settings.body_timeout / 1000
        self._open: set[ActiveStream] = set()
        self._looking = False
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
        if not self._looking:
            self._looking = True
            get_running_loop().call_later(LOOK, self._look)

    def discard(self, running: "ActiveStream") -> None:
        self._open.discard(running)

    def _stop(self) -> None:
        for running in list(self._open):
            running.stop()

    def _look(self) -> None:
        self._looking = bool(self._open)
        now = time.monotonic()
        for running in list(self._open):
            running.look(now, self)
        if self._looking:
            get_running_loop().call_later(LOOK, self._look)


class ActiveStream(Protocol):
    """What `Streams` looks after."""

    def stop(self) -> None: ...

    def look(self, now: float, streams: Streams) -> None:
        """`now`: of `time.monotonic`, seconds."""


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
        """Writes all there is. False if the client has gone before that."""
        streams.add(self)
        pieces = self.stream.pieces
        turn = 0  # bytes of this one
        try:
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
                if self._gone:
                    return False
        except CancelledError:
            if not self._gone:
                raise
        finally:
            streams.discard(self)
            await pieces.aclose()
        return not self._gone

    def hung_up(self) -> None:
        """The client has gone: whatever this waits for is over."""
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


class UploadReader:
    """A body of any length on its way in. `abort`: cuts the connection."""

    def __init__(self, upload: Upload, abort: Callable[[], None]) -> None:
        self._upload = upload
        self._abort = abort
        self._since: float | None = time.monotonic()

    async def take(self, piece: bytes) -> None:
        self._check()
        self._since = None
        await self._upload.take(piece)
        self._since = time.monotonic()

    async def end(self) -> Response:
        self._check()
        self._since = None
        return await self._upload.end()

    def _check(self) -> None:
        if self._upload.good is not None and not self._upload.good():
            raise Unauthorized("this access token was revoked, or has expired; what came before stays")

    def stop(self) -> None:
        """The engine takes nothing more in: `take` will say so."""

    def look(self, now: float, streams: Streams) -> None:
        if self._since is not None and now - self._since > streams.silent:
            self._abort()


class Wakeup:
    """What a Stream waits in, for a time, or until it is woken. After `end` there is no more waiting."""

    def __init__(self) -> None:
        self.over = False
        self._turn: Future[None] | None = None

    async def wait(self, seconds: float | None = None) -> None:
        """None: without end."""
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
