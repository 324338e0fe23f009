"""Watchdog: measures the event loop's lag, and logs what blocked it.

A timer fires 20 times a second. How late it fires is the loop's lag, which every request waits at least. If
the timer is long overdue, another thread takes a stack sample of the loop, since afterwards nothing tells
what it ran.
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
# All in seconds. The timer's interval, and the lag that counts as a stall.
BEAT = 0.05
STALL = 0.2
# How late the timer must be for a sample, how often the thread checks, and the time between two warnings.
_OVERDUE = 0.1
_CHECK_EVERY = 0.05
_WARN_EVERY = 60.0
# Frames in a sample.
_FRAMES = 4
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Watchdog:
    """Watches the running loop from `start` to `stop`. `lag`: the newest measurement."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._due = 0.0
        self._sample = ""
        self._next_warning = 0.0
        self._unreported = 0
        self._timer: asyncio.TimerHandle | None = None
        self._beats = Histogram(_BOUNDS)
        self.lag = Lag()

    def start(self) -> None:
        self._schedule()
        self._thread.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stopped.set()
        self._thread.join(1.0)  # it may be reading source files for a sample

    # -- on the loop --------------------------------------------------------------------------------

    def _schedule(self) -> None:
        self._due = time.monotonic() + BEAT
        self._timer = self._loop.call_later(BEAT, self._beat)

    def _beat(self) -> None:
        late = max(time.monotonic() - self._due, 0.0)
        self._beats.add(late)
        stalls = self.lag.stalls + (late > STALL)
        self.lag = Lag(late * 1000, max(late * 1000, self.lag.max_ms), stalls)
        if late > STALL:
            self._unreported += 1
            self._warn(late)
        self._sample = ""
        self._schedule()

    def _warn(self, late: float) -> None:
        now = time.monotonic()
        if now < self._next_warning:
            return
        self._next_warning = now + _WARN_EVERY
        _log.warning(
            "the event loop was blocked for %d ms (stalls since the last warning: %d): %s",
            late * 1000,
            self._unreported,
            self._sample or "no stack sample was taken",
        )
        self._unreported = 0

    # -- on the thread ------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopped.wait(_CHECK_EVERY):
            if not self._sample and time.monotonic() - self._due > _OVERDUE:
                frame = sys._current_frames().get(self._loop_thread)
                if frame is not None:
                    calls = reversed(extract_stack(frame, _FRAMES * 2)[-_FRAMES:])
                    self._sample = " < ".join(
                        f"{PurePath(call.filename).name}:{call.lineno} {call.name}" for call in calls
                    )

    # -- for /metrics -------------------------------------------------------------------------------

    def metrics(self) -> Iterator[Metric]:
        lag = HistogramMetricFamily(
            "jobqueue_loop_lag_seconds", "How late a timer of the event loop fired, 20 times a second."
        )
        lag.add_metric([], self._beats.below(), self._beats.total)
        yield lag
        yield CounterMetricFamily(
            "jobqueue_loop_stalls", "Times that the event loop was blocked for over 0.2 s.", self.lag.stalls
        )
