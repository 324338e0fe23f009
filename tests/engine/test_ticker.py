"""Ticks happen whatever the wall clock does, one slice in each loop pass."""

import asyncio
import time

import pytest

from jobqueue import MemoryEngine, Settings
from jobqueue.model import DequeueRequest, NewJob


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_a_step_of_the_wall_clock_does_not_delay_ticks(monkeypatch, step):
    engine = MemoryEngine(Settings(tick="10ms"))
    assert await engine.dequeue(DequeueRequest(("default",)), 20) == []
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    for _ in range(3):
        assert await asyncio.wait_for(engine.dequeue(DequeueRequest(("default",)), 20), 5) == []
    engine.close()


async def test_the_rest_of_a_tick_runs_one_slice_in_each_loop_pass():
    engine = MemoryEngine(Settings(tick="10ms"))
    jobs = 50_000
    for _ in range(0, jobs, 1_000):
        engine.enqueue_many([NewJob("x", delay=1)] * 1_000)
    passes = []
    while engine.stats().jobs["queued"] < jobs:
        before = engine.stats().ticks
        await asyncio.sleep(0)
        passes.append(engine.stats().ticks - before)
    engine.close()
    assert max(passes) <= 2  # the last one and the next tick
