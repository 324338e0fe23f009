"""Garbage collection: young cycles are collected at once, old ones while a full collection is cheap."""

import asyncio
import gc
import time
import weakref

import pytest

from jobqueue.server.gc_control import FEW, GcControl


class Circle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def old():
    """An unreachable cycle in the oldest generation. Only the test collects."""
    circle = Circle()
    seen = weakref.ref(circle)
    gc.collect(1)
    gc.disable()
    del circle
    yield seen
    gc.enable()


@pytest.mark.parametrize(
    ("jobs", "due", "goes"), [(FEW, False, False), (FEW, True, True), (FEW + 1, True, False)]
)
def test_an_old_cycle_is_collected_only_when_a_full_collection_is_due_and_jobs_are_few(old, jobs, due, goes):
    its = GcControl(lambda: jobs)
    if due:
        its.full_at = 0.0
    its.collect()
    assert (old() is None) == goes
    assert its.full_at > time.monotonic()


def test_a_young_cycle_is_collected_at_once(old):
    young = weakref.ref(Circle())
    GcControl(lambda: FEW + 1).collect()
    assert young() is None
    assert old() is not None


async def test_it_collects_until_it_is_stopped(old):
    its = GcControl(lambda: 0)
    its.full_at = 0.0
    its.start()
    while old() is not None:
        await asyncio.sleep(0.01)
    its.stop()
    young = weakref.ref(Circle())
    await asyncio.sleep(0.15)
    assert young() is not None
