"""The watchdog: the lag of the event loop, and what blocked it."""

import asyncio
import time

from prometheus_client import CollectorRegistry, generate_latest
from serving import until

from jobqueue.server.watchdog import STALL, Watchdog


def stands_still(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


async def test_stalls_are_counted_and_the_first_is_logged_with_a_stack_sample(logged):
    watchdog = Watchdog()
    watchdog.start()
    try:
        await asyncio.sleep(0.12)
        for count in (1, 2):
            stands_still(STALL + 0.15)
            await until(lambda n=count: watchdog.lag.stalls == n)
    finally:
        watchdog.stop()
    (record,) = logged
    logged.clear()
    message = record.getMessage()
    assert "the event loop was blocked for" in message
    assert "stands_still" in message
    assert "test_watchdog.py:" in message
    assert watchdog.lag.max_ms > STALL * 1000


async def test_a_loop_that_is_not_blocked_has_no_stalls():
    watchdog = Watchdog()
    watchdog.start()
    await asyncio.sleep(0.3)
    watchdog.stop()
    assert watchdog.lag.stalls == 0


async def test_lag_and_stalls_are_metrics():
    watchdog = Watchdog()
    watchdog.start()
    await until(lambda: watchdog._beats.count >= 2)
    watchdog.stop()

    class GcControl:
        collect = staticmethod(watchdog.metrics)

    registry = CollectorRegistry()
    registry.register(GcControl())
    text = generate_latest(registry).decode()
    assert "jobqueue_loop_stalls_total 0.0" in text
    assert f'jobqueue_loop_lag_seconds_bucket{{le="+Inf"}} {float(watchdog._beats.count)}' in text
