"""Events: what happens to jobs and queues, as server-sent events.

Nothing is recorded while nobody watches. The first subscription switches recording on. It stays on for a
minute after the last one has ended, so that a client that reconnects finds in the log what it missed. A
client that reads too slowly is disconnected.
"""

import asyncio
import time
from asyncio import Future
from collections.abc import AsyncGenerator

from jobqueue.engine.api import Engine
from jobqueue.errors import OutcomeUnknown
from jobqueue.model import Job
from jobqueue.steps import Kind
from jobqueue.web.http import EVENTS, Stream
from jobqueue.web.schema.events import EventFilter
from jobqueue.web.streams.event_log import EventLog
from jobqueue.web.streams.subscription import Subscription

# Seconds for which recording stays on after the last subscription ended.
KEEP = 60.0
# Shortest time in seconds between two turns.
TURN = 0.02
# Subscriptions that are woken in one loop pass.
WOKEN_AT_ONCE = 50
# Seconds without events after which a client is sent a comment.
BEAT = 15.0
_BEAT = b":\n\n"
# The first line of a stream: milliseconds before a browser reconnects.
_HELLO = b"retry: 2000\n\n"


class Events:
    """All subscriptions to events, and the log that they read.

    Subscriptions are notified in turns: what happened since the last turn is told once it is on disk.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.log = EventLog()
        self.recording = False
        self._recording_ends: asyncio.TimerHandle | None = None
        self._subscriptions: set[Subscription] = set()
        self._by_job: dict[int, set[Subscription]] = {}
        self._turn_scheduled = False
        self._last_turn = 0.0
        self._to_wake: list[Subscription] = []
        self._beating = False

    def __len__(self) -> int:
        """Returns the number of subscriptions."""
        return len(self._subscriptions)

    def stream(self, wanted: EventFilter, last_id: int | None, length: int | None) -> Stream:
        """Returns the stream for one client. It subscribes with its first piece.

        `last_id` is the id of the last event that it had. `length` is in milliseconds; None: without end.
        """
        subscription = Subscription(self.log, wanted)
        end = subscription.wakeup.end
        return Stream(
            self._pieces(subscription, last_id, length), end, end, EVENTS, late=subscription.has_lost
        )

    async def _pieces(
        self, subscription: Subscription, last_id: int | None, length: int | None
    ) -> AsyncGenerator[bytes, None]:
        wakeup = subscription.wakeup
        loop = asyncio.get_running_loop()
        gap = self._subscribe(subscription, last_id)
        timer = None if length is None else loop.call_later(length / 1000, wakeup.end)
        try:
            yield _HELLO + gap
            while not (wakeup.over or subscription.has_lost()):
                piece = subscription.read()
                if not piece:
                    await wakeup.wait()
                    piece = subscription.read() or (_BEAT if subscription.silent else b"")
                subscription.silent = False
                if piece:
                    yield piece
        finally:
            self._unsubscribe(subscription)
            if timer is not None:
                timer.cancel()

    # -- subscriptions ------------------------------------------------------------------------------

    def _subscribe(self, subscription: Subscription, last_id: int | None) -> bytes:
        """Adds a subscription. Returns what its client is sent first."""
        self._record()
        if not self._beating:
            self._beating = True
            asyncio.get_running_loop().call_later(BEAT, self._beat)
        self._subscriptions.add(subscription)
        for job in subscription.wanted.jobs or ():
            self._by_job.setdefault(job, set()).add(subscription)
        if self.log.committed < self.log.last:
            self._schedule_turn()
        return subscription.begin(last_id, self._engine.wall_now())

    def _unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        for job in subscription.wanted.jobs or ():
            others = self._by_job[job]
            others.discard(subscription)
            if not others:
                del self._by_job[job]
        if not self._subscriptions:
            self._recording_ends = asyncio.get_running_loop().call_later(KEEP, self._stop_recording)

    def _record(self) -> None:
        if self._recording_ends is not None:
            self._recording_ends.cancel()
            self._recording_ends = None
        if not self.recording:
            self.recording = True
            self.log.clear()  # what happened until now was not recorded
            self._engine.watch(self._append)

    def _stop_recording(self) -> None:
        self._recording_ends = None
        self.recording = False
        self._engine.watch(None)
        self.log.clear()

    # -- notification -------------------------------------------------------------------------------

    def _append(self, kind: Kind, what: Job | str) -> None:
        if self.log.append(kind, what, self._engine.wall_now()) and self._subscriptions:
            self._schedule_turn()

    def _schedule_turn(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            delay = max(self._last_turn + TURN - time.monotonic(), 0)
            asyncio.get_running_loop().call_later(delay, self._begin_turn)

    def _begin_turn(self) -> None:
        self._turn_scheduled = False
        self._last_turn = time.monotonic()
        last = self._engine.after_commit(self.log.last)
        if isinstance(last, Future):
            last.add_done_callback(self._committed)
        else:
            self._notify(last)

    def _committed(self, last: Future[int]) -> None:
        if last.cancelled():
            return
        error = last.exception()
        if error is None:
            self._notify(last.result())
        elif isinstance(error, OutcomeUnknown):  # the database is away: asked again until it is back
            self._schedule_turn()

    def _notify(self, last: int) -> None:
        """Makes the events up to number `last` known, and begins to wake those who wait for one of them."""
        if self._by_job:
            for event in self.log.between(self.log.committed + 1, last):
                for subscription in self._by_job.get(event.job, ()):
                    subscription.offer(event)
        self.log.commit(last)
        self._to_wake = list(self._subscriptions)
        self._wake_some()

    def _wake_some(self) -> None:
        for subscription in self._to_wake[-WOKEN_AT_ONCE:]:
            subscription.wake()
        del self._to_wake[-WOKEN_AT_ONCE:]
        if self._to_wake:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def _beat(self) -> None:
        self._beating = bool(self._subscriptions)
        for subscription in self._subscriptions:
            subscription.silent = True
            subscription.wakeup.wake()
        if self._beating:
            asyncio.get_running_loop().call_later(BEAT, self._beat)
