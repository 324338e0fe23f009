"""What happened in a queue lately: a point every ten seconds, which agrees with the totals of the queue."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue import MemoryEngine, Settings
from jobqueue.engine import series
from jobqueue.engine.series import COUNTED, POINTS, QUEUES
from jobqueue.model import DequeueRequest, Filter, LeaseClaim, NewJob
from jobqueue.testing import ManualClock

SIX_HOURS, MINUTE, STEP = 21_600_000, 60_000, 10_000


@pytest.fixture
def engine(clock):
    engine = MemoryEngine(Settings(first_id=1), clock)
    engine.tick()
    return engine


def enqueue(engine, count=1, queue="q"):
    for _ in range(count):
        engine.enqueue(NewJob("t", queue))


def passes(engine, clock, steps=1):
    """Lets ten seconds pass, once or more often."""
    for _ in range(steps):
        clock.advance(10)
        engine.tick()


def points(engine, name="enqueued", length=SIX_HOURS, step=STEP, queue="q"):
    return engine.series(queue, length, step).points[name]


def test_each_point_has_what_happened_in_its_ten_seconds(engine, clock):
    enqueue(engine, 3)
    passes(engine, clock)
    [(job, lease)] = engine.dequeue(DequeueRequest(("q",)))
    engine.conclude(LeaseClaim(job.id, lease.token, None), None)
    [(job, lease)] = engine.dequeue(DequeueRequest(("q",), 5_000))
    passes(engine, clock)
    [(job, lease)] = engine.dequeue(DequeueRequest(("q",)))
    engine.fail(LeaseClaim(job.id, lease.token, None), None, False)
    enqueue(engine, 5)
    passes(engine, clock)
    found = engine.series("q", MINUTE, STEP)
    assert found.points == {
        "enqueued": [3, 0, 5], "concluded": [0, 1, 0], "failed": [0, 0, 1], "stale": [0, 1, 0],
        "dead": [0, 0, 1], "queued": [3, 2, 6],
    }  # fmt: skip
    assert (found.kept, found.until, found.until - found.since) == (True, clock.wall(), 3 * STEP)


def test_what_happens_now_is_not_shown_yet(engine, clock):
    enqueue(engine)
    clock.advance(9.9)
    engine.tick()
    assert points(engine) == []
    clock.advance(0.1)
    assert points(engine) == [1]


def test_longer_steps_are_summed_and_begin_at_their_multiples(engine, clock):
    clock.advance(20)
    engine.tick()
    for number in range(18):  # from 08:00:20 on
        enqueue(engine, number)
        passes(engine, clock)
    assert points(engine, step=MINUTE) == [sum(range(4, 10)), sum(range(10, 16))]
    found = engine.series("q", MINUTE, MINUTE)
    assert found.points["enqueued"] == [sum(range(10, 16))]
    assert (found.since % MINUTE, found.until % MINUTE, found.until - found.since) == (0, 0, MINUTE)
    assert found.points["queued"] == [sum(range(16))]


def test_of_queued_jobs_a_longer_step_has_the_largest_number(engine, clock):
    passes(engine, clock, 6)
    enqueue(engine, 7)
    passes(engine, clock)
    while engine.dequeue(DequeueRequest(("q",))):
        pass
    passes(engine, clock, 6)
    assert points(engine, "queued", step=MINUTE) == [7]


def test_six_hours_are_kept(engine, clock):
    for number in range(POINTS + 5):
        enqueue(engine, number % 3)
        clock.advance(10)
        engine.tick()
    assert points(engine) == [number % 3 for number in range(5, POINTS + 5)]
    hours = points(engine, step=3_600_000)
    assert (len(hours), hours[0]) == (5, 360)


@pytest.mark.parametrize("pause", [35, 3_600, 40_000])
def test_after_a_pause_what_happened_is_in_the_last_point(engine, clock, pause):
    enqueue(engine, 2)
    passes(engine, clock)
    enqueue(engine, 3)
    clock.advance(pause)
    engine.tick()
    steps = min(pause // 10, POINTS)
    assert points(engine)[-steps:] == [0] * (steps - 1) + [3]
    queued = points(engine, "queued")
    assert queued[-steps:] == [2] * (steps - 1) + [5]
    assert len(queued) == min(pause // 10 + 1, POINTS)


def test_a_step_of_the_clock_moves_the_instants_and_no_point(engine, clock):
    enqueue(engine, 2)
    passes(engine, clock)
    clock.wall_jump(-7_200)
    engine.tick()
    enqueue(engine, 3)
    passes(engine, clock)
    found = engine.series("q", SIX_HOURS, STEP)
    assert (found.points["enqueued"], found.until) == ([2, 3], clock.wall())


def test_a_queue_that_comes_later_has_points_from_then_on(engine, clock):
    passes(engine, clock, 5)
    enqueue(engine)
    passes(engine, clock, 2)
    assert points(engine) == [1, 0]


def test_a_name_that_is_not_used_has_no_series(engine, clock):
    passes(engine, clock, 5)
    found = engine.series("never", SIX_HOURS, STEP)
    assert (found.kept, found.since == found.until, set(map(len, found.points.values()))) == (
        False,
        True,
        {0},
    )


def test_a_queue_that_is_dropped_and_comes_again_goes_on(engine, clock):
    enqueue(engine, 4)
    passes(engine, clock)
    engine.purge(Filter(queues=frozenset({"q"})), False)
    clock.advance(4_000)
    engine.tick()
    assert "q" not in engine._queue.state.queues
    passes(engine, clock)
    enqueue(engine, 2)
    passes(engine, clock)
    assert (sum(points(engine)), points(engine)[-2:]) == (6, [0, 2])


def test_only_so_many_queues_have_series_and_a_new_one_takes_the_place_of_one_that_is_gone(engine, clock):
    for number in range(QUEUES):
        enqueue(engine, queue=f"q{number}")
    passes(engine, clock)
    enqueue(engine, 3, "late")
    passes(engine, clock)
    assert [engine.series(name, MINUTE, STEP).kept for name in ("q0", "q99", "late")] == [True, True, False]
    del engine._queue.state.queues["q0"]
    passes(engine, clock)
    enqueue(engine, 2, "late")
    passes(engine, clock)
    assert [engine.series(name, MINUTE, STEP).kept for name in ("q0", "q99", "late")] == [False, True, True]
    assert points(engine, queue="late") == [2]  # and not what happened before it had a place


def test_a_tick_looks_at_so_many_queues_only(engine, clock, monkeypatch):
    for number in range(QUEUES):
        enqueue(engine, queue=f"q{number}")
    added, add = [], series._Ring.add
    monkeypatch.setattr(series._Ring, "add", lambda self, *given: added.append(self) or add(self, *given))
    clock.advance(10)
    for _ in range(7):
        before = len(added)
        engine.tick()
        assert len(added) - before <= series.SLICE
    assert len(set(added)) == QUEUES
    before = len(added)
    for _ in range(50):
        clock.advance(0.1)
        engine.tick()
    assert len(added) == before


def test_the_memory_of_all_series_is_bounded(engine, clock):
    for number in range(QUEUES + 50):
        enqueue(engine, queue=f"q{number}")
    tracemalloc.start()
    passes(engine, clock, 3)
    clock.advance(0.5)
    engine.tick()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 7_000_000


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("pass"), st.floats(0.1, 120)), st.tuples(st.just("enqueue"), st.integers(1, 5)),
            st.tuples(st.just("conclude"), st.integers(1, 3)), st.tuples(st.just("step"), st.integers(-5_000, 5_000)),
        ), max_size=60,
    ),
    st.integers(1, 30),
)  # fmt: skip
def test_the_sum_of_the_points_is_the_total_whatever_happens(steps, each):
    clock = ManualClock()
    engine = MemoryEngine(Settings(first_id=1), clock)
    engine.tick()
    for what, number in steps:
        if what == "pass":
            clock.advance(number)
            engine.tick()
        elif what == "enqueue":
            enqueue(engine, number)
        elif what == "step":
            clock.wall_jump(number)
            engine.tick()
        else:
            for job, lease in engine.dequeue(DequeueRequest(("q",), None, number)):
                engine.conclude(LeaseClaim(job.id, lease.token, None), None)
    enqueue(engine)
    passes(engine, clock, 2)
    totals = engine.queue("q").totals
    found = engine.series("q", SIX_HOURS, STEP)
    assert {name: sum(found.points[name]) for name in COUNTED} == {name: totals[name] for name in COUNTED}
    assert found.points["queued"][-1] == engine.queue("q").jobs["queued"]
    summed = engine.series("q", SIX_HOURS, each * STEP).points["enqueued"]
    assert all(
        len(numbers) == len(summed) for numbers in engine.series("q", SIX_HOURS, each * STEP).points.values()
    )
    assert sum(summed) <= totals["enqueued"]
