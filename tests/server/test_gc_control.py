"""Garbage collection: young cycles are collected at once, old ones while a full collection is short."""

import asyncio
import gc
import math
import time
import weakref

import pytest

from jobqueue.engine.local import LocalEngine
from jobqueue.model import NewJob, Options
from jobqueue.server import gc_control
from jobqueue.server.gc_control import FEW, TOO_MANY, GcControl


class Circle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def its():
    """A `GcControl` that has frozen all that there was. Only the test collects."""
    its = GcControl(lambda: 0)
    its.freeze()
    yield its
    gc.unfreeze()
    gc.enable()


@pytest.fixture
def old(its):
    """An unreachable cycle in the oldest generation."""
    circle = Circle()
    gc.collect(1)
    return weakref.ref(circle)


def many(count: int) -> list[list[object]]:
    """So many objects that the collector tracks."""
    return [[] for _ in range(count)]


@pytest.mark.parametrize("due", [False, True])
def test_an_old_cycle_is_collected_only_when_a_full_collection_is_due(its, old, due):
    if due:
        its.full_at = 0.0
    its.collect()
    assert (old() is None) == due
    assert its.full_at > time.monotonic()


def test_a_young_cycle_is_collected_at_once(its, old):
    young = weakref.ref(Circle())
    its.collect()
    assert young() is None
    assert old() is not None


def test_a_full_collection_comes_at_once_when_many_objects_were_made_and_freezes_them(its, old):
    kept = many(FEW + 1)
    its.collect()
    assert old() is None
    assert gc.is_tracked(kept)
    assert len(gc.get_objects(2)) < FEW
    assert gc.get_freeze_count() > FEW


@pytest.mark.parametrize("of_what", ["made unnoticed", "made at once"])
def test_no_full_collection_walks_more_objects_than_its_limit(its, old, of_what):
    if of_what == "made unnoticed":  # by the count, since as many of others are freed
        kept = many(TOO_MANY + 1)
        gc.collect(1)
        its.full_at = 0.0
    else:
        kept = many(TOO_MANY + 1)
    before = gc.get_stats()[2]["collections"]
    its.collect()
    assert gc.get_stats()[2]["collections"] == before, f"it walked {len(kept)} objects"
    assert len(gc.get_objects(2)) < FEW, "nor does the next one"
    assert old() is not None


def test_old_objects_are_counted_now_and_again_since_freed_ones_hide_new_ones(its, old):
    kept = many(FEW + 1)
    gc.collect(1)
    its.full_at = its.count_at = math.inf  # however long this takes
    its.collect()
    assert old() is not None
    its.count_at = 0.0
    its.collect()
    assert old() is None
    assert gc.is_tracked(kept)


@pytest.mark.parametrize("jobs", [0, 1_000_000])
def test_what_is_frozen_is_collected_once_little_is_left_of_it(its, jobs):
    its._jobs = lambda: jobs
    circle, kept = Circle(), many(FEW + 1)
    lost = weakref.ref(circle)
    its.collect()
    assert gc.get_freeze_count() > FEW
    del circle, kept
    its.full_at = 0.0
    its.collect()
    assert (lost() is None) == (jobs == 0)


def test_a_million_objects_that_are_frozen_are_counted_ever_more_rarely(its, monkeypatch):
    kept = many(TOO_MANY + 1)
    its.collect()
    counts = 0

    def count(count_objects=gc.get_freeze_count):
        nonlocal counts
        counts += 1
        return count_objects()

    monkeypatch.setattr(gc_control.gc, "get_freeze_count", count)
    now = time.monotonic()
    monkeypatch.setattr(gc_control.time, "monotonic", lambda: now)
    for _ in range(60):
        now += gc_control.FULL_EVERY
        its.collect()
    assert 3 <= counts <= 7, "within an hour"
    assert gc.is_tracked(kept)


def test_queues_and_keys_do_not_make_full_collections_longer(its):
    """Each queue, key and lane is some objects that the collector tracks."""
    engine = LocalEngine()
    walked = 0
    for n in range(20_000):
        engine.enqueue(NewJob(type="t", queue=f"q{n % 2000}", payload=b"1", options=Options(key=f"k{n}")))
        if n % 500 == 0:
            its.collect()
            walked = max(walked, len(gc.get_objects(2)))
    its.full_at = 0.0
    its.collect()
    assert walked <= 2 * FEW
    assert gc.get_freeze_count() > 100_000


async def test_it_collects_until_it_is_stopped(its, old):
    its.full_at = 0.0
    its.start()
    while old() is not None:
        await asyncio.sleep(0.01)
    its.stop()
    young = weakref.ref(Circle())
    await asyncio.sleep(0.15)
    assert young() is not None
