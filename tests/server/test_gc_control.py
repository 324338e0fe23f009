"""What has grown old in a circle goes too, where a full collection takes no time."""

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
    """A circle that nobody holds any more, in the oldest generation; nobody but the test collects."""
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
def test_it_goes_with_a_full_collection_which_is_rare_and_only_for_few_jobs(old, jobs, due, goes):
    its = GcControl(lambda: jobs)
    if due:
        its.full_at = 0.0
    its.collect()
    assert (old() is None) == goes
    assert its.full_at > time.monotonic()


def test_what_is_young_goes_at_once(old):
    young = weakref.ref(Circle())
    GcControl(lambda: FEW + 1).collect()
    assert young() is None
    assert old() is not None


async def test_it_works_until_it_is_stopped(old):
    its = GcControl(lambda: 0)
    its.full_at = 0.0
    its.start()
    while old() is not None:
        await asyncio.sleep(0.01)
    its.stop()
    young = weakref.ref(Circle())
    await asyncio.sleep(0.15)
    assert young() is not None
