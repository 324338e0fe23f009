"""Driver: gives a `JobQueue` its time. Due work runs on a timer, one slice in each pass of the loop."""

import time
from collections.abc import Callable

from tornado.ioloop import IOLoop

from jobqueue.clock import Clock
from jobqueue.core.queue import JobQueue
from jobqueue.engine.ticker import Ticker


class Driver:
    """Reads the clock, and runs the ticks of `queue`.

    With the system's clock a timer starts on the running loop at the first call of `now`, so that creating an
    engine needs no loop. With a manual clock `tick` is called by hand. While `ready` is False nothing is due:
    the queue is still being read. `interval`: milliseconds. `after_slice` is called after each slice of work.
    """

    def __init__(
        self,
        queue: JobQueue,
        clock: Clock,
        interval: int,
        after_slice: Callable[[], None],
        ready: bool = True,
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._interval = interval
        self._after_slice = after_slice
        self._ready = ready
        self._ticker: Ticker | None = None
        self._resume_scheduled = False  # the last tick left work over
        self._stopped = False
        # Monotonic milliseconds. `_first_now` replaces itself by the clock.
        self.now: Callable[[], int] = self._first_now
        # Statistics; durations in milliseconds.
        self.ticks = 0
        self.tick_last = self.tick_max = self.compaction_max = 0.0

    def _first_now(self) -> int:
        if self._ready:
            if not self._clock.manual and not self._stopped:
                self._ticker = Ticker(self._on_tick, self._interval)
                self._ticker.start()
            self.now = self._clock.monotonic
        return self._clock.monotonic()

    def start(self) -> None:
        """Starts the timer: the queue has been read."""
        self._ready = True
        self.now()

    def stop(self) -> None:
        """Stops the timer for good."""
        self._stopped = True
        if self._ticker is not None:
            self._ticker.stop()

    def tick(self) -> int:
        """Does all work that is due. Returns the number of jobs moved."""
        moved, more = self.run_slice()
        while more:
            again, more = self.run_slice()
            moved += again
        return moved

    def read_wall_clock(self) -> int:
        """Tells the queue the wall-clock time. Returns the monotonic time."""
        now = self._clock.monotonic()
        self._queue.state.set_wall_offset(self._clock.wall() - now)
        return now

    def run_slice(self) -> tuple[int, bool]:
        """Does a slice of the due work. Returns the number of jobs moved, and whether more work is due."""
        started = time.perf_counter()
        moved, more = self._queue.tick(self.read_wall_clock())
        ticked = time.perf_counter()
        if self._queue.compact():
            more = True
            self.compaction_max = max(self.compaction_max, (time.perf_counter() - ticked) * 1000)
        self._after_slice()
        self.ticks += 1
        self.tick_last = (time.perf_counter() - started) * 1000
        self.tick_max = max(self.tick_max, self.tick_last)
        return moved, more

    def _on_tick(self) -> None:
        if not self._resume_scheduled:
            self._resume()

    def _resume(self) -> None:
        """Runs one slice. The rest follows after the loop has served its sockets."""
        self._resume_scheduled = False
        _, more = self.run_slice()
        if more and not (self._ticker is None or not self._ticker.is_running()):
            self._resume_scheduled = True
            IOLoop.current().add_callback(self._resume)
