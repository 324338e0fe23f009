"""Driver: gives a `JobQueue` its time. Due work runs on a timer, one slice in each pass of the loop."""

import time
from collections.abc import Callable

from tornado.ioloop import IOLoop

from jobqueue.clock import Clock, read_both
from jobqueue.core.queue import JobQueue
from jobqueue.engine.catch_up import CatchUp
from jobqueue.engine.ticker import Ticker


class Driver:
    """Reads the clock, and runs the ticks of `queue`.

    With the system's clock a timer starts on the running loop at the first call of `now`, so that creating an
    engine needs no loop. With a manual clock `tick` is called by hand. While `ready` is False nothing is due:
    the queue is still being read. `interval`: milliseconds. `after_slice` is called after each slice of work.
    After a pause of the loop, `catch_up` puts ticks off until what arrived meanwhile has been read.
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
        # The pause of a busy loop is noticed from one missed tick on.
        self.catch_up = CatchUp(2 * interval, clock.monotonic())
        # Runs a slice of the schedules that are due, and tells whether more may be.
        self.schedules: Callable[[int], bool] = lambda now: False
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
                self.catch_up.started(self._clock.monotonic())
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
        now, wall = read_both(self._clock)
        self._queue.state.set_wall_offset(wall - now)
        return now

    def run_slice(self, until: int | None = None) -> tuple[int, bool]:
        """Does a slice of the work that is due at `until`, or now. Returns the number of jobs moved, and
        whether more work is due."""
        started = time.perf_counter()
        now = self.read_wall_clock()
        at = now if until is None else until
        moved, more = self._queue.tick(at)
        more = self.schedules(at) or more
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
        now = self._clock.monotonic()
        more = self.catch_up.must_wait(now)
        if not more:
            # Not what has come due since `now`: the process may have been paused just after it.
            _, more = self.run_slice(now)
        if more and not (self._ticker is None or not self._ticker.is_running()):
            self._resume_scheduled = True
            IOLoop.current().add_callback(self._resume)
