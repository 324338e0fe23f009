"""Watchdog: how late the loop is, and what held it up when it stood still.

The loop has a beat. How late a beat comes is the loop's lag: what every request waits at least. A thread
looks on; where a beat is long overdue it notes what the loop is doing, since nobody can tell afterwards.
"""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import PurePath
from traceback import extract_stack

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from jobqueue.histogram import Histogram
from jobqueue.web.server_info import Lag

_log = logging.getLogger("jobqueue")
BEAT = 0.05
# A lag that is a stall, and when the thread looks, seconds.
STALL = 0.2
_OVERDUE = 0.1
_LOOK = 0.05
_QUIET_FOR = 60.0
_FRAMES = 4
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Watchdog:
    """Watches the running loop, from `start` to `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watchdog", daemon=True)
        self._due = 0.0
        self._doing = ""
        self._quiet_until = 0.0
        self._untold = 0
        self._timer: asyncio.TimerHandle | None = None
        self._beats = Histogram(_BOUNDS)
        self.lag = Lag()

    def start(self) -> None:
        self._next()
        self._thread.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stopped.set()
        self._thread.join()

    # -- on the loop --------------------------------------------------------------------------------

    def _next(self) -> None:
        self._due = time.monotonic() + BEAT
        self._timer = self._loop.call_later(BEAT, self._beat)

    def _beat(self) -> None:
        late = max(time.monotonic() - self._due, 0.0)
        self._beats.add(late)
        stalls = self.lag.stalls + (late > STALL)
        self.lag = Lag(late * 1000, max(late * 1000, self.lag.max_ms), stalls)
        if late > STALL:
            self._untold += 1
            self._tell(late)
        self._doing = ""
        self._next()

    def _tell(self, late: float) -> None:
        now = time.monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + _QUIET_FOR
        _log.warning(
            "the loop stood still for %d ms (stalls since the last such line: %d); it ran %s",
            late * 1000, self._untold, self._doing or "what took no long look",
        )  # fmt: skip
        self._untold = 0

    # -- beside the loop ----------------------------------------------------------------------------

    def _look_on(self) -> None:
        while not self._stopped.wait(_LOOK):
            if not self._doing and time.monotonic() - self._due > _OVERDUE:
                frame = sys._current_frames().get(self._watched)
                if frame is not None:
                    calls = reversed(extract_stack(frame, _FRAMES * 2)[-_FRAMES:])
                    self._doing = " < ".join(
                        f"{PurePath(call.filename).name}:{call.lineno} {call.name}" for call in calls
                    )

    # -- for /metrics -------------------------------------------------------------------------------

    def metrics(self) -> Iterator[Metric]:
        lag = HistogramMetricFamily(
            "jobqueue_loop_lag_seconds", "How late the loop's beat came, 20 times a second."
        )
        lag.add_metric([], self._beats.below(), self._beats.total)
        yield lag
        yield CounterMetricFamily("jobqueue_loop_stalls", "Lags of more than 0.2 s.", self.lag.stalls)
