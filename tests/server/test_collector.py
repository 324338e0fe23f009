"""What has grown old in a circle goes too, where a full collection takes no time."""

import gc
import weakref

import pytest

from jobqueue.server import collector
from jobqueue.server.collector import FEW, Collector


class Circle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def old(monkeypatch):
    """A circle that nobody holds any more, in the oldest generation; nobody but the test collects."""
    monkeypatch.setattr(collector, "FULL_EVERY", 10)
    circle = Circle()
    seen = weakref.ref(circle)
    gc.collect(1)
    gc.disable()
    del circle
    yield seen
    gc.enable()


@pytest.mark.parametrize(("jobs", "turns", "goes"), [(FEW, 9, False), (FEW, 10, True), (FEW + 1, 30, False)])
def test_it_goes_with_a_full_collection_which_is_rare_and_only_for_few_jobs(old, jobs, turns, goes):
    its = Collector(lambda: jobs)
    for _ in range(turns):
        its.collect()
    assert (old() is None) == goes


def test_what_is_young_goes_at_once(old):
    young = weakref.ref(Circle())
    Collector(lambda: FEW + 1).collect()
    assert young() is None
    assert old() is not None
