"""Events: what happens to jobs and queues, as server-sent events.

Nothing is recorded while nobody watches. The first watcher switches recording on. It stays on for a minute
after the last watcher left, so that a client that reconnects finds in the ring what it missed. Each event is
encoded once for all watchers. A watcher reads at its own pace; one that falls out of the ring is
disconnected.
"""

import asyncio
import time
from asyncio import Future
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from itertools import islice

import msgspec
from msgspec import UNSET

from jobqueue.engine.api import Engine
from jobqueue.model import Job
from jobqueue.steps import Kind
from jobqueue.units import instant
from jobqueue.web.http import EVENTS, Stream
from jobqueue.web.schema.events import GAP, NAMES, Event, EventFilter, EventView

# Limits of the ring: events, bytes.
RING_EVENTS = 50_000
RING_BYTES = 16 << 20
# Limit of the events that wait for a watcher of certain jobs.
WAITING_EVENTS = 1000
# Seconds for which recording stays on after the last watcher left.
KEEP = 60.0
# Shortest time in seconds between two notifications of the watchers; watchers woken in one loop pass.
GATHER = 0.02
TOLD_AT_ONCE = 50
# Bytes written to a watcher at once, which is also what is kept for one that does not read.
PIECE = 16 << 10
# Pieces kept for watchers with the same filter.
PIECES = 100
# Up to this number, events are looked up by index.
FEW = 500
# Seconds without events after which a watcher is sent a comment.
BEAT = 15.0
_BEAT = b":\n\n"
# The first line of a stream: milliseconds before a browser reconnects.
_HELLO = b"retry: 2000\n\n"


class Watcher:
    """One client that watches.

    `next` is the number of the first event that it has neither read nor skipped.
    """

    __slots__ = ("beat", "choice", "cut", "next", "turn", "waits")

    def __init__(self, choice: EventFilter, following: int) -> None:
        self.choice = choice
        self.next = following
        self.turn: Future[None] | None = None  # completed when there are events
        self.waits: deque[bytes] | None = (
            None if choice.jobs is None else deque()
        )  # frames, for a watcher of certain jobs
        self.cut = False  # more events waited for it than the limit
        self.beat = False  # it has heard nothing for long

    def wake(self) -> None:
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(None)


class Events:
    """The ring of recent events, and its watchers.

    Numbers continue after a restart: they begin with the time of the start.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ring: deque[Event] = deque()
        self._bytes = 0
        self._last = time.time_ns() // 1_000_000 * 1000
        self._first_known = self._last + 1  # the ring is complete from this number on
        self._told = self._last  # later events may not be on disk yet
        self._on = False
        self._off: asyncio.TimerHandle | None = None
        self._beats = False
        self._watchers: set[Watcher] = set()
        self._by_job: dict[int, set[Watcher]] = {}
        self._gathering = False
        self._told_at = 0.0
        self._to_tell: list[Watcher] = []
        self._encode = msgspec.json.Encoder().encode
        self._pieces: dict[tuple[EventFilter, int], tuple[bytes, int]] = {}  # of this moment, for all alike

    def __len__(self) -> int:
        """Returns the number of watchers."""
        return len(self._watchers)

    @property
    def on(self) -> bool:
        return self._on

    # -- what happens -------------------------------------------------------------------------------

    def _see(self, kind: Kind, what: Job | str) -> None:
        name = NAMES.get(kind)
        if name is None:
            return
        at = instant(self._engine.wall_now())
        if isinstance(what, str):
            queue, job, view = what, 0, EventView(at, UNSET, what)
        else:
            queue, job = what.queue, what.id
            lease = what.lease
            view = EventView(
                at, job, queue, what.type, what.status, what.attempts,
                UNSET if lease is None or lease.consumer is None else lease.consumer,
            )  # fmt: skip
        self._last = number = self._last + 1
        frame = _frame(number, name, self._encode(view))
        event = Event(number, name, queue, job, frame)
        self._ring.append(event)
        self._bytes += len(frame)
        if self._pieces:
            self._pieces.clear()
        while len(self._ring) > RING_EVENTS or self._bytes > RING_BYTES:
            self._bytes -= len(self._ring.popleft().frame)
            self._first_known = self._ring[0].number
        if not self._gathering and self._watchers:
            self._gather_soon()

    def _gather_soon(self) -> None:
        self._gathering = True
        loop = asyncio.get_running_loop()
        loop.call_later(max(self._told_at + GATHER - time.monotonic(), 0), self._gather)

    def _hand(self, watcher: Watcher, event: Event) -> None:
        waits = watcher.waits
        assert waits is not None
        if len(waits) >= WAITING_EVENTS:
            watcher.cut = True
        elif watcher.choice.has(event):
            waits.append(event.frame)

    def _gather(self) -> None:
        """Notifies the watchers of recent events once those are on disk."""
        self._gathering = False
        self._told_at = time.monotonic()
        last = self._engine.after_commit(self._last)
        if isinstance(last, Future):
            last.add_done_callback(self._committed)
        else:
            self._tell(last)

    def _committed(self, last: Future[int]) -> None:
        if not last.cancelled() and last.exception() is None:
            self._tell(last.result())

    def _tell(self, last: int) -> None:
        """Wakes the watchers for which there may be events."""
        for event in self._between(self._told + 1, last):
            for watcher in self._by_job.get(event.job, ()):
                self._hand(watcher, event)
        self._told = max(last, self._told)
        self._pieces.clear()
        self._to_tell = list(self._watchers)
        self._tell_some()

    def _tell_some(self) -> None:
        for watcher in self._to_tell[-TOLD_AT_ONCE:]:
            if watcher.turn is not None and self._has_some(watcher):
                watcher.wake()
        del self._to_tell[-TOLD_AT_ONCE:]
        if self._to_tell:
            asyncio.get_running_loop().call_soon(self._tell_some)

    def _has_some(self, watcher: Watcher) -> bool:
        if watcher.waits is not None:
            return bool(watcher.waits)
        piece, following = self._piece(watcher.choice, watcher.next)
        if not piece:
            watcher.next = following  # nothing for it so far
        return bool(piece)

    def _beat(self) -> None:
        self._beats = bool(self._watchers)
        for watcher in self._watchers:
            watcher.beat = True
            watcher.wake()
        if self._beats:
            asyncio.get_running_loop().call_later(BEAT, self._beat)

    # -- watchers -----------------------------------------------------------------------------------

    def watch(self, choice: EventFilter, last_id: int | None) -> tuple[Watcher, bytes]:
        """Adds a watcher.

        Returns it and the bytes that it is sent first, for events missed since `last_id`.
        """
        self._switch_on()
        if not self._beats:
            self._beats = True
            asyncio.get_running_loop().call_later(BEAT, self._beat)
        watcher = Watcher(choice, self._last + 1)  # from now on
        self._watchers.add(watcher)
        if self._told < self._last and not self._gathering:
            self._gather_soon()
        for job in choice.jobs or ():
            self._by_job.setdefault(job, set()).add(watcher)
        if last_id is None:
            return watcher, b""
        gap = b""
        if not self._first_known - 1 <= last_id <= self._last:
            gap = self._gap(last_id)
            last_id = 0
        if watcher.waits is not None:
            known = (event for event in self._ring if last_id < event.number <= self._told)
            watcher.waits.extend(event.frame for event in known if choice.has(event))
        else:
            watcher.next = max(last_id + 1, self._first_known)
        return watcher, gap

    def _gap(self, last_id: int) -> bytes:
        """Returns an event that says that events after `last_id` are lost.

        `next` is the first that is left.
        """
        at = instant(self._engine.wall_now())
        known = self._encode({"at": at, "after": last_id, "next": self._first_known})
        return _frame(self._first_known - 1, GAP, known)

    def leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        for job in watcher.choice.jobs or ():
            others = self._by_job[job]
            others.discard(watcher)
            if not others:
                del self._by_job[job]
        if not self._watchers:
            self._off = asyncio.get_running_loop().call_later(KEEP, self._switch_off)

    def _switch_on(self) -> None:
        if self._off is not None:
            self._off.cancel()
            self._off = None
        if not self._on:
            self._on = True
            # What happened until now nobody wrote down.
            self._told = self._last = self._last + 1
            self._first_known = self._last + 1
            self._engine.watch(self._see)

    def _switch_off(self) -> None:
        self._off = None
        self._on = False
        self._engine.watch(None)
        self._ring.clear()
        self._bytes = 0
        self._told = self._last
        self._first_known = self._last + 1

    def late(self, watcher: Watcher) -> bool:
        """Tells whether a watcher has missed events that are no longer in the ring."""
        return watcher.cut or (watcher.waits is None and watcher.next < self._first_known)

    def read(self, watcher: Watcher) -> bytes:
        """Returns the bytes that a watcher has not read yet, up to one piece; empty: none."""
        if watcher.waits is not None:
            return _joined(watcher.waits)
        piece, watcher.next = self._piece(watcher.choice, watcher.next)
        return piece

    def _piece(self, choice: EventFilter, following: int) -> tuple[bytes, int]:
        """Returns the events from number `following` on, and the number to continue at."""
        known = self._pieces.get((choice, following))
        if known is None:
            if len(self._pieces) >= PIECES:
                self._pieces.clear()
            known = self._pieces[choice, following] = self._gathered(choice, following)
        return known

    def _between(self, first: int, last: int) -> Iterable[Event]:
        """Returns events of the ring, whose numbers have no gaps.

        A few, usually the newest, are found fastest by index; for many, iteration is faster.
        """
        start, end = max(first - self._first_known, 0), last + 1 - self._first_known
        if end - start < FEW:
            return [self._ring[index] for index in range(start, end)]
        return islice(self._ring, start, end)

    def _gathered(self, choice: EventFilter, following: int) -> tuple[bytes, int]:
        frames: list[bytes] = []
        size = 0
        for event in self._between(following, self._told):
            if choice.has(event):
                frames.append(event.frame)
                size += len(event.frame)
                if size >= PIECE:
                    return b"".join(frames), event.number + 1
        return b"".join(frames), max(following, self._told + 1)

    def stream(self, choice: EventFilter, last_id: int | None, length: int | None) -> Stream:
        """Returns the stream for one client.

        `last_id` is the id of the last event that it had. `length` is in milliseconds; None: without end.
        """
        watching = _Watching(self, choice, last_id, length)
        return Stream(
            watching.pieces(), watching.end, watching.end, EVENTS,
            late=lambda: watching.watcher is not None and self.late(watching.watcher),
        )  # fmt: skip


class _Watching:
    """A stream of events. It watches from its first piece on."""

    def __init__(self, events: Events, choice: EventFilter, last_id: int | None, length: int | None) -> None:
        self._events = events
        self._asked = (choice, last_id)
        self._length = length
        self._over = False
        self.watcher: Watcher | None = None

    def end(self) -> None:
        self._over = True
        if self.watcher is not None:
            self.watcher.wake()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        events = self._events
        loop = asyncio.get_running_loop()
        self.watcher, gap = events.watch(*self._asked)
        timer = None if self._length is None else loop.call_later(self._length / 1000, self.end)
        watcher = self.watcher
        try:
            yield _HELLO + gap
            while not (self._over or events.late(watcher)):
                piece = events.read(watcher)
                if not piece:
                    watcher.turn = loop.create_future()
                    await watcher.turn
                    watcher.turn = None
                    piece = events.read(watcher) or (_BEAT if watcher.beat else b"")
                watcher.beat = False
                if piece:
                    yield piece
        finally:
            events.leave(watcher)
            if timer is not None:
                timer.cancel()


def _joined(frames: deque[bytes]) -> bytes:
    taken: list[bytes] = []
    size = 0
    while frames and size < PIECE:
        taken.append(frames.popleft())
        size += len(taken[-1])
    return b"".join(taken)


def _frame(number: int, name: str, data: bytes) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (number, name.encode(), data)
