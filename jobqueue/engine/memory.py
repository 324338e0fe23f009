"""MemoryEngine: the core with a clock, randomness, Futures for those who wait, and a tick.

Nothing survives the process. With the system's clock a `PeriodicCallback` starts on the running loop at the
first verb; with a manual clock `tick()` is called by hand.
"""

import asyncio
import time
from asyncio import Future
from collections.abc import Callable, Sequence

from tornado.ioloop import IOLoop, PeriodicCallback

from jobqueue.core.job import Job, NewJob
from jobqueue.core.queue import JobQueue, Limits, QueueView
from jobqueue.core.waiters import Handed, Waiter, Want
from jobqueue.engine.api import EngineStats, Eventually
from jobqueue.engine.clock import Clock, SystemClock
from jobqueue.engine.tokens import tokens
from jobqueue.settings import Settings

_2026_MS = 1_767_225_600_000


def first_id_at(wall: int) -> int:
    """Where a fresh memory begins to count: below 2^53 until the year 2311, and above whatever an earlier
    run gave at less than a million ids a second."""
    return max((wall - _2026_MS) // 1000, 0) * 1_000_000 + 1


class Waiting(Future[list[Handed]]):
    """The Future of a waiting dequeue. Cancelling it withdraws the wait in the same moment, so that no job
    is handed to one who has left."""

    _queue: JobQueue
    _waiter: Waiter

    def cancel(self, msg: object = None) -> bool:
        if not self.done():
            self._queue.stop_waiting(self._waiter)
        return super().cancel(msg)


class MemoryEngine:
    """One `JobQueue` in this process. `clock`: the system's, or a `jobqueue.testing.ManualClock`."""

    durability = "memory"

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None) -> None:
        self.settings = settings or Settings()
        self.stopping = False
        self._clock: Clock = clock or SystemClock()
        self._ticker: PeriodicCallback | None = None
        self._now: Callable[[], int] = self._begin
        self._closed = False
        self._ticks = 0
        self._tick_last = self._tick_max = self._compaction_max = 0.0
        wall = self._clock.wall()
        s = self.settings
        limits = Limits(
            lane_segment=s.lane_segment, lane_spare=s.lane_spare, compact_above=s.compact_above, tick=s.tick,
            retain=s.retain, retain_jobs=s.retain_jobs, retain_bytes=s.retain_bytes,
            require_lease=s.require_lease,
        )  # fmt: skip
        self._queue = JobQueue(
            tokens().__next__, s.first_id or first_id_at(wall), limits, wall - self._clock.monotonic()
        )

    # -- the verbs ----------------------------------------------------------------------------------

    def enqueue(self, new: NewJob) -> Job:
        return self._queue.enqueue(new, self._now())

    def enqueue_many(self, news: Sequence[NewJob]) -> list[Job]:
        return self._queue.enqueue_many(news, self._now())

    def dequeue(self, want: Want, wait: int = 0) -> Eventually[list[Handed]]:
        if self.stopping:
            return []
        now = self._now()
        handed = self._queue.dequeue(want, now)
        if handed or not wait:
            return handed
        waiting = Waiting(loop=asyncio.get_running_loop())
        waiting._queue = self._queue
        waiting._waiter = Waiter(want, now + wait, waiting.set_result)
        self._queue.wait(waiting._waiter)
        return waiting

    def give_back(self, handed: Sequence[Handed]) -> None:
        self._queue.give_back(handed, self._now())

    def conclude(self, id: int, token: str | None, consumer: str | None, result: bytes | None) -> Job:
        return self._queue.conclude(id, token, consumer, result, self._now())

    def heartbeat(self, id: int, token: str | None, consumer: str | None, lease_for: int | None) -> Job:
        return self._queue.heartbeat(id, token, consumer, lease_for, self._now())

    def get(self, id: int) -> Job:
        return self._queue.get(id)

    def cancel(self, id: int) -> Job:
        return self._queue.cancel(id, self._now())

    # -- looking ------------------------------------------------------------------------------------

    def queue(self, name: str) -> QueueView:
        return self._queue.view(name, self._now())

    def queues(self) -> list[QueueView]:
        now = self._now()
        names = set(self._queue.queues).union(self._queue.waiters.names())
        return [self._queue.view(name, now) for name in sorted(names)]

    def stats(self) -> EngineStats:
        queue = self._queue
        lanes, slots, empty = queue.lane_figures()
        return EngineStats(
            jobs=queue.tally.jobs(), queues=len(queue.queues), consumers_waiting=queue.waiters.count,
            ticks=self._ticks, tick_last=self._tick_last, tick_max=self._tick_max, lanes=lanes, slots=slots,
            empty_slots=empty, compactions=queue.compactions, compaction_max=self._compaction_max,
            remembered=queue.remembered, remembered_bytes=queue.remembered_bytes,
        )  # fmt: skip

    def wall(self, monotonic: int) -> int:
        return self._queue.wall(monotonic)

    # -- time ---------------------------------------------------------------------------------------

    def tick(self) -> int:
        """Does everything that is due, and returns the number of jobs moved. For a manual clock."""
        moved, more = self._slice()
        while more:
            again, more = self._slice()
            moved += again
        return moved

    def stop_waiting(self) -> None:
        self.stopping = True
        self._queue.end_waits()

    def close(self) -> None:
        self.stop_waiting()
        self._closed = True
        if self._ticker is not None:
            self._ticker.stop()

    def _begin(self) -> int:
        """What `_now` is until the first verb: with the system's clock it starts the ticks."""
        if not self._clock.manual and not self._closed:
            self._ticker = PeriodicCallback(self._on_tick, self.settings.tick)
            self._ticker.start()
        self._now = self._clock.monotonic
        return self._now()

    def _on_tick(self) -> None:
        """One slice; what is left over comes after the loop has seen to its sockets."""
        _, more = self._slice()
        if more and not (self._ticker is None or not self._ticker.is_running()):
            IOLoop.current().add_callback(self._on_tick)

    def _slice(self) -> tuple[int, bool]:
        started = time.perf_counter()
        now = self._clock.monotonic()
        self._queue.set_wall_offset(self._clock.wall() - now)
        moved, more = self._queue.tick(now)
        ticked = time.perf_counter()
        if self._queue.compact():
            more = True
            self._compaction_max = max(self._compaction_max, (time.perf_counter() - ticked) * 1000)
        self._ticks += 1
        self._tick_last = (time.perf_counter() - started) * 1000
        self._tick_max = max(self._tick_max, self._tick_last)
        return moved, more
