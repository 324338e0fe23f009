"""Ticking: a `JobQueue` with a clock and randomness, and what time brings to it.

With the system's clock a `Ticker` starts on the running loop at the first verb; with a manual clock `tick()`
is called by hand.
"""

import os
import random
import time
from collections.abc import Callable

from tornado.ioloop import IOLoop

from jobqueue.clock import Clock, SystemClock, first_id_at
from jobqueue.core.limits import Limits
from jobqueue.core.queue import JobQueue
from jobqueue.engine.memory_limit import MemoryLimit
from jobqueue.engine.ticker import Ticker
from jobqueue.engine.tokens import tokens
from jobqueue.errors import JobQueueError, Stopping
from jobqueue.model import Job
from jobqueue.settings import Settings
from jobqueue.steps import Kind


class Ticking:
    """`clock`: the system's, or a `jobqueue.testing.ManualClock`. `refuses`: why nobody is served, if so.
    `full`: why nothing is taken in."""

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None) -> None:
        self.settings = settings or Settings()
        self.stopping = False
        self.refuses: str | None = None
        self._clock: Clock = clock or SystemClock()
        self._ticker: Ticker | None = None
        self._goes_on = False  # a tick has more to do, and comes back
        self._now: Callable[[], int] = self._begin
        self._closed = False
        self.identity = os.urandom(6).hex()
        self._at_stop: list[Callable[[], None]] = []
        self.memory_limit = MemoryLimit(self.settings.memory_limit)
        self.full: JobQueueError | None = None  # why nothing is taken in
        self._ticks = 0
        self._tick_last = self._tick_max = self._compaction_max = 0.0
        wall = self._clock.wall()
        s = self.settings
        limits = Limits(
            **{name: getattr(s, name) for name in Limits.__struct_fields__ if name in Settings.declared}
        )
        self._queue = JobQueue(
            tokens().__next__, s.first_id or first_id_at(wall), limits,
            wall - self._clock.monotonic(), random.random,
        )  # fmt: skip

    def _refuse_if_full(self) -> None:
        if self.full is not None:
            raise type(self.full)(self.full.detail, **self.full.facts)

    def _payload_bytes(self) -> int:
        """Of what waits, and of what is remembered."""
        return (
            sum(queue.bytes for queue in self._queue.state.queues.values())
            + self._queue.state.remembered_bytes
        )

    def tick(self) -> int:
        """Does everything that is due, and returns the number of jobs moved. For a manual clock."""
        moved, more = self._slice()
        while more:
            again, more = self._slice()
            moved += again
        return moved

    def watch(self, see: Callable[[Kind, Job | str], None] | None) -> None:
        self._queue.state.event = see

    def when_stopping(self, call: Callable[[], None]) -> None:
        self._at_stop.append(call)

    def stop_waiting(self) -> None:
        self.stopping = True
        self.full = Stopping("the server stops, and what it took in now would be lost", retry_after=5)
        self._queue.end_waits()
        for call in self._at_stop:
            call()

    def close(self) -> None:
        self.stop_waiting()
        self._closed = True
        if self._ticker is not None:
            self._ticker.stop()

    def _begin(self) -> int:
        """What `_now` is until the first verb: with the system's clock it starts the ticks. Nothing is due in
        a queue that is still being read."""
        if self.refuses is not None:
            return self._clock.monotonic()
        if not self._clock.manual and not self._closed:
            self._ticker = Ticker(self._on_tick, self.settings.tick)
            self._ticker.start()
        self._now = self._clock.monotonic
        return self._now()

    def _on_tick(self) -> None:
        if not self._goes_on:
            self._go_on()

    def _go_on(self) -> None:
        """One slice; what is left over comes after the loop has seen to its sockets."""
        self._goes_on = False
        _, more = self._slice()
        if more and not (self._ticker is None or not self._ticker.is_running()):
            self._goes_on = True
            IOLoop.current().add_callback(self._go_on)

    def _slice(self) -> tuple[int, bool]:
        started = time.perf_counter()
        now = self._clock.monotonic()
        self._queue.state.set_wall_offset(self._clock.wall() - now)
        moved, more = self._queue.tick(now)
        ticked = time.perf_counter()
        if self._queue.compact():
            more = True
            self._compaction_max = max(self._compaction_max, (time.perf_counter() - ticked) * 1000)
        if not self.stopping:
            self.full = self.memory_limit.look(self._queue.state.counts.held, self._payload_bytes)
        self._ticks += 1
        self._tick_last = (time.perf_counter() - started) * 1000
        self._tick_max = max(self._tick_max, self._tick_last)
        return moved, more
