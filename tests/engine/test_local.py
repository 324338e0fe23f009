"""LocalEngine in memory: what it adds to the core. All but the last tests move the clock by hand."""

import asyncio
import re
import threading
import time

import pytest

from jobqueue.clock import first_id_at
from jobqueue.engine.local import LocalEngine
from jobqueue.errors import JobForgotten, JobNotFound, LeaseLost, Stopping
from jobqueue.model import DequeueRequest, Filter, LeaseClaim, NewJob
from jobqueue.settings import Settings
from jobqueue.testing import ManualClock

JOB = NewJob("t")
ONE = DequeueRequest(("default",), 2_000)


@pytest.fixture
def engine(clock):
    return LocalEngine(Settings(first_id=1, lease="2s"), clock=clock)


def take(engine, request=ONE):
    [(job, _)] = engine.dequeue(request)
    return job


def ids(deliveries):
    return [job.id for job, _ in deliveries]


async def a_few_loop_passes():
    for _ in range(5):
        await asyncio.sleep(0)


# -- the clock moved by hand ------------------------------------------------------------------------


def test_a_lease_ends_at_its_end_and_not_a_millisecond_earlier(engine, clock):
    engine.enqueue(JOB)
    job = take(engine)
    clock.advance("1999ms")
    assert engine.tick() == 0
    assert job.status == "in_progress"
    clock.advance("1ms")
    assert job.status == "in_progress"
    assert engine.tick() == 1
    assert job.status == "queued"
    assert take(engine) is job


def test_the_next_tick_with_work_is_known(engine, clock):
    began = clock.monotonic()
    assert engine.next_due() is None
    engine.enqueue(JOB)
    take(engine)
    engine.enqueue(NewJob("t", delay=3_000))
    engine.enqueue(NewJob("t", run_at=clock.wall() + 4_000))
    engine.enqueue(NewJob("t", expires_in=5_000))
    engine.pause("paused", 6_000, None)
    at = []
    while (due := engine.next_due()) is not None:
        at.append(due - began)
        clock.advance((due - clock.monotonic()) / 1000)
        engine.tick()
    assert at == [2_000, 3_000, 4_000, 5_000, 6_000]
    engine.enqueue(NewJob("t", run_at=clock.wall() + 9_000))
    clock.wall_jump(5)  # it is nearer now, from the next tick on
    engine.tick()
    assert engine.next_due() == clock.monotonic() + 4_000


def test_a_tick_returns_the_number_of_jobs_moved_in_all_slices(engine, clock):
    engine.enqueue_many([JOB] * 1_234)
    assert len(engine.dequeue(DequeueRequest(("default",), 2_000, 1_234))) == 1_234
    clock.advance("2s")
    assert engine.tick() == 1_234
    assert engine.tick() == 0


def test_a_tick_forgets_finished_jobs_after_their_retention(clock):
    engine = LocalEngine(Settings(first_id=1, retain="5s"), clock=clock)
    engine.enqueue(JOB)
    engine.cancel(1)
    clock.advance("4999ms")
    assert engine.tick() == 0
    clock.advance("1ms")
    assert engine.tick() == 1
    with pytest.raises(JobForgotten):
        engine.get(1)


def test_a_tick_compacts_the_lanes(clock):
    engine = LocalEngine(Settings(first_id=1, lane_segment=16), clock=clock)
    jobs = engine.enqueue_many([JOB] * 1_000)
    for job in jobs:
        if job.id % 10:
            engine.cancel(job.id)
    assert engine.stats().empty_slots > 500
    engine.tick()
    stats = engine.stats()
    assert (stats.slots, stats.empty_slots, stats.compactions) == (100, 0, 1)
    assert ids(engine.dequeue(DequeueRequest(("default",), 2_000, 200))) == list(range(10, 1_001, 10))


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
async def test_a_jump_of_the_wall_clock_moves_neither_a_lease_nor_a_wait(engine, clock, seconds):
    engine.enqueue(JOB)
    job = take(engine)
    waiting = engine.dequeue(DequeueRequest(("other",), 2_000), wait=2_000)
    clock.wall_jump(seconds)
    assert engine.tick() == 0
    clock.advance("1999ms")
    assert engine.tick() == 0
    assert (job.status, waiting.done()) == ("in_progress", False)
    clock.advance("1ms")
    assert engine.tick() == 1
    assert (job.status, waiting.result()) == ("queued", [])


def test_the_wall_clock_is_read_at_each_tick(engine, clock):
    clock.wall_jump(3_600)
    engine.tick()
    job = engine.enqueue(JOB)
    assert job.created_at == clock.wall()
    clock.wall_jump(-7_200)
    engine.tick()
    assert engine.wall(clock.monotonic()) == clock.wall()
    assert take(engine).lease.started_at == clock.wall()


def test_the_end_of_a_lease_is_converted_to_wall_clock_time(engine, clock):
    engine.enqueue(JOB)
    job = take(engine)
    assert engine.wall(job.lease.expires) == clock.wall() + 2_000


# -- the verbs --------------------------------------------------------------------------------------


def test_verbs_act_at_the_time_of_the_clock(engine, clock):
    engine.enqueue(JOB)
    job = take(engine)
    clock.advance("1500ms")
    assert engine.heartbeat(LeaseClaim(1, job.lease.token, None), None) is job
    clock.advance("1500ms")
    assert engine.tick() == 0
    assert engine.heartbeat(LeaseClaim(1, job.lease.token, None), 5_000) is job
    clock.advance("4999ms")
    assert engine.tick() == 0
    assert engine.conclude(LeaseClaim(1, job.lease.token, None), b"1") is job
    assert job.extras.finished_at == clock.wall()
    assert engine.get(1) is job


def test_a_job_given_back_has_no_attempt_counted_but_a_lease(engine):
    engine.enqueue_many([JOB] * 3)
    deliveries = engine.dequeue(DequeueRequest(("default",), 2_000, 2))
    engine.give_back(deliveries)
    assert [(job.status, job.attempts, job.leases) for job, _ in deliveries] == [("queued", 0, 1)] * 2
    assert ids(engine.dequeue(DequeueRequest(("default",), 2_000, 9))) == [1, 2, 3]
    engine.give_back(deliveries)
    assert [job.status for job, _ in deliveries] == ["in_progress"] * 2


def test_a_refusal_is_raised_at_once(engine):
    engine.enqueue(JOB)
    with pytest.raises(JobNotFound):
        engine.get(2)
    take(engine)
    with pytest.raises(LeaseLost):
        engine.conclude(LeaseClaim(1, "some other lease", None), None)


def test_lease_tokens_are_long_and_unique(engine):
    engine.enqueue_many([JOB] * 3_000)
    tokens = [lease.token for _, lease in engine.dequeue(DequeueRequest(("default",), 2_000, 3_000))]
    assert len(set(tokens)) == 3_000
    assert all(
        re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{15,63}", token) for token in tokens
    )  # 16 characters of 6 bits each: 96 bits, less the tokens that begin with "-"


def test_two_engines_give_different_tokens(clock):
    tokens = set()
    for _ in range(2):
        engine = LocalEngine(clock=clock)
        engine.enqueue(JOB)
        tokens.add(take(engine).lease.token)
    assert len(tokens) == 2


# -- waiting ----------------------------------------------------------------------------------------


async def test_a_waiting_consumer_is_answered_as_soon_as_there_is_a_job(engine):
    waiting = engine.dequeue(ONE, wait=30_000)
    await a_few_loop_passes()
    assert not waiting.done()
    engine.enqueue(JOB)
    assert ids(await waiting) == [1]


def test_a_dequeue_without_a_wait_or_with_a_ready_job_answers_at_once(engine):
    assert engine.dequeue(ONE) == []
    engine.enqueue(JOB)
    assert ids(engine.dequeue(ONE, wait=30_000)) == [1]


async def test_a_wait_is_measured_by_the_engine_clock(engine, clock):
    waiting = engine.dequeue(ONE, wait=500)
    clock.advance("499ms")
    engine.tick()
    assert not waiting.done()
    clock.advance("1ms")
    engine.tick()
    assert await waiting == []
    assert engine.stats().consumers_waiting == 0


async def test_a_stale_job_goes_to_a_waiting_consumer(engine, clock):
    engine.enqueue(JOB)
    first = take(engine).lease
    waiting = engine.dequeue(ONE, wait=30_000)
    clock.advance("2s")
    assert engine.tick() == 1
    [(job, lease)] = await waiting
    assert (job.id, job.attempts, job.lease is lease, lease.token == first.token) == (1, 2, True, False)


async def test_cancelling_a_wait_withdraws_it_at_once_and_the_next_consumer_gets_the_job(engine):
    leaves, stays = engine.dequeue(ONE, wait=30_000), engine.dequeue(ONE, wait=30_000)
    assert leaves.cancel()
    assert engine.stats().consumers_waiting == 1
    engine.enqueue(JOB)
    assert leaves.cancelled()
    assert ids(await stays) == [1]


async def test_cancelling_a_task_that_waits_withdraws_the_wait(engine):
    async def consume():
        return await engine.dequeue(ONE, wait=30_000)

    leaves, stays = asyncio.create_task(consume()), asyncio.create_task(consume())
    await a_few_loop_passes()
    leaves.cancel()
    engine.enqueue(JOB)
    assert ids(await stays) == [1]
    with pytest.raises(asyncio.CancelledError):
        await leaves


async def test_a_time_limit_around_a_wait_withdraws_it(engine):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.dequeue(ONE, wait=30_000), 0)
    assert engine.stats().consumers_waiting == 0
    engine.enqueue(JOB)
    assert engine.get(1).status == "queued"


async def test_cancelling_twice_or_after_the_answer_has_no_effect(engine):
    waiting = engine.dequeue(ONE, wait=30_000)
    assert waiting.cancel()
    assert not waiting.cancel()
    answered = engine.dequeue(ONE, wait=30_000)
    engine.enqueue(JOB)
    assert not answered.cancel()
    engine.give_back(answered.result())
    assert (engine.get(1).status, engine.get(1).attempts) == ("queued", 0)


async def test_a_job_given_back_goes_to_the_next_waiting_consumer(engine):
    gone, next_one = engine.dequeue(ONE, wait=30_000), engine.dequeue(ONE, wait=30_000)
    engine.enqueue(JOB)
    engine.give_back(gone.result())
    assert ids(await next_one) == [1]
    assert engine.get(1).attempts == 1


# -- stopping ---------------------------------------------------------------------------------------


async def test_closing_answers_waiting_consumers_with_no_jobs(engine):
    waiting = [engine.dequeue(DequeueRequest((name,), 2_000), wait=30_000) for name in ("a", "b", "a")]
    engine.close()
    assert await asyncio.gather(*waiting) == [[], [], []]


async def test_after_stop_waiting_no_job_is_delivered_and_existing_jobs_can_be_finished(engine, clock):
    engine.enqueue_many([JOB] * 2)
    job = take(engine)
    assert not engine.stopping
    engine.stop_waiting()
    assert engine.stopping
    assert engine.dequeue(ONE) == []
    assert engine.dequeue(ONE, wait=30_000) == []
    assert engine.conclude(LeaseClaim(1, job.lease.token, None), None).status == "concluded"
    assert engine.cancel(2).status == "cancelled"
    for refused in (
        lambda: engine.enqueue(JOB),
        lambda: engine.enqueue_many([JOB]),
        lambda: engine.enqueue_each([JOB]),
    ):
        with pytest.raises(Stopping):
            refused()
    assert engine.stats().jobs["queued"] == 0


def test_closing_twice_is_allowed(engine):
    engine.close()
    engine.close()


# -- many jobs --------------------------------------------------------------------------------------


async def test_purging_a_job_in_progress_frees_its_place_in_the_limit_of_the_queue(engine):
    engine.configure("default", {"max_in_progress": 1})
    engine.enqueue_many([JOB] * 2)
    take(engine)
    waiting = engine.dequeue(ONE, wait=30_000)
    result = engine.purge(Filter(statuses=frozenset(["in_progress"])), False)
    assert (result.matched, result.changed, result.sample) == (1, 1, [1])
    assert ids(await waiting) == [2]
    with pytest.raises(JobForgotten):
        engine.get(1)


async def test_a_bulk_operation_includes_only_jobs_that_exist_at_its_start(engine):
    engine.enqueue_many([JOB] * 700)
    counting = engine.count_jobs(Filter(statuses=frozenset(["queued"])))
    engine.enqueue_many([JOB] * 50)
    assert await counting == 700
    result = await engine.purge(Filter(queues=frozenset(["default"])), True)
    assert (result.matched, result.changed, len(result.sample)) == (750, 0, 10)
    result = await engine.purge(Filter(queues=frozenset(["default"])), False)
    assert (result.matched, result.changed) == (750, 750)
    assert engine.stats().jobs["queued"] == 0


async def test_no_waiting_consumer_gets_a_job_that_is_about_to_be_purged(engine):
    request = DequeueRequest(("default",))
    engine.configure("default", {"max_in_progress": 1})
    engine.enqueue_many([NewJob("t")] * 4)
    assert engine.dequeue(request)
    waiting = [engine.dequeue(request, 60_000) for _ in range(3)]
    engine.purge(Filter(statuses=frozenset({"queued", "in_progress"})), False)
    assert not any(waiter.done() for waiter in waiting)
    engine.enqueue(NewJob("t"))
    assert [waiter.done() for waiter in waiting] == [True, False, False]


async def test_after_a_bulk_redrive_jobs_are_delivered_in_order(engine):
    request = DequeueRequest(("default",))
    engine.enqueue_many([NewJob("t", priority=priority) for priority in (0, 9)])
    for job, lease in engine.dequeue(DequeueRequest(("default",), count=2)):
        engine.fail(LeaseClaim(job.id, lease.token, None), None, False, None)
    waiter = engine.dequeue(request, 60_000)
    engine.redrive_many(Filter(statuses=frozenset({"dead"})), None, False)
    assert [job.priority for job, _ in waiter.result()] == [9]


# -- reading ----------------------------------------------------------------------------------------


async def test_queues_are_listed_by_name_with_those_that_only_have_waiting_consumers(engine):
    engine.enqueue(NewJob("t", "b"))
    engine.enqueue(NewJob("t", "a"))
    engine.dequeue(DequeueRequest(("c", "b"), 2_000))
    waiting = engine.dequeue(DequeueRequest(("0",), 2_000), wait=30_000)
    assert [view.name for view in engine.queues(10)] == ["0", "a", "b"]
    assert engine.queue("0").consumers_waiting == 1
    assert engine.queue("never used").consumers_waiting == 0
    waiting.cancel()
    assert [view.name for view in engine.queues(10)] == ["a", "b"]


def test_a_queue_tells_the_age_of_its_oldest_job(engine, clock):
    engine.enqueue(JOB)
    clock.advance("90s")
    engine.enqueue(JOB)
    assert engine.queue("default").oldest_age == 90_000
    take(engine)
    assert engine.queue("default").oldest_age == 0


def test_stats_add_up(engine, clock):
    engine.enqueue_many([JOB] * 4 + [NewJob("t", "other", 3, b"12345")])
    engine.conclude(LeaseClaim(1, take(engine).lease.token, None), b"12")
    take(engine)
    engine.tick()
    stats = engine.stats()
    assert stats.jobs == {
        "scheduled": 0,
        "queued": 3,
        "in_progress": 1,
        "concluded": 1,
        "dead": 0,
        "cancelled": 0,
    }
    assert (stats.queues, stats.lanes, stats.slots, stats.empty_slots) == (2, 2, 5, 2)
    assert (stats.ticks, stats.remembered) == (1, 1)
    assert 0 <= stats.tick_last <= stats.tick_max
    assert stats.remembered_bytes > len(b"null") + len(b"12")


# -- the first id, creating an engine ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("wall", "first"),
    [
        (0, 1),
        (1_767_225_600_000 - 1, 1),
        (1_767_225_600_000, 1),
        (1_767_225_600_999, 1),
        (1_767_225_601_000, 1_000_001),
        (1_800_000_000_000, 32_774_400_000_001),
    ],
)
def test_first_ids_are_derived_from_the_seconds_since_2026(wall, first):
    assert first_id_at(wall) == first


def test_first_ids_stay_below_two_to_the_53_for_280_years():
    assert first_id_at(1_767_225_600_000 + 280 * 366 * 86_400_000) < 2**53


def test_the_first_id_is_taken_from_the_clock_or_from_the_settings(clock):
    assert LocalEngine(clock=clock).enqueue(JOB).id == first_id_at(clock.wall())
    assert LocalEngine(Settings(first_id=77), clock=clock).enqueue(JOB).id == 77


def test_creating_an_engine_needs_no_loop_and_starts_nothing():
    threads = threading.active_count()
    for clock in (None, ManualClock()):
        engine = LocalEngine(clock=clock)
        assert engine.settings.port == 8080
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        engine.close()
    assert threading.active_count() == threads


def test_with_a_manual_clock_no_verb_needs_a_loop(engine, clock):
    engine.enqueue(JOB)
    engine.conclude(LeaseClaim(1, take(engine).lease.token, None), None)
    assert engine.stats().ticks == 0


async def test_two_engines_on_one_loop_share_nothing(clock):
    one, other = LocalEngine(Settings(first_id=1), clock), LocalEngine(Settings(first_id=1), clock)
    waiting = other.dequeue(ONE, wait=1_000)
    one.enqueue(JOB)
    assert not waiting.done()
    assert [view.name for view in other.queues(10)] == ["default"]
    assert other.queues(10)[0].jobs["queued"] == 0
    other.close()
    assert ids(one.dequeue(ONE)) == [1]


# -- the system clock -------------------------------------------------------------------------------


async def test_a_closed_engine_starts_no_ticker():
    engine = LocalEngine(Settings(tick="10ms"))
    engine.close()
    assert engine.dequeue(ONE, wait=30_000) == []
    with pytest.raises(JobNotFound):
        engine.get(1)
    assert engine.queue("default").oldest_age is None  # this read the clock
    loop = asyncio.get_running_loop()
    later = loop.create_future()
    loop.call_later(0.05, later.set_result, None)
    await later
    assert engine.stats().ticks == 0


async def test_with_the_system_clock_a_lease_of_a_second_ends_by_itself():
    engine = LocalEngine(Settings(tick="20ms"))
    try:
        engine.enqueue(JOB)
        first = take(engine, DequeueRequest(("default",), 1_000)).lease
        began = time.monotonic()
        [(job, lease)] = await engine.dequeue(ONE, wait=10_000)
        assert 0.9 < time.monotonic() - began < 5
        assert (job.attempts, job.lease is lease, first.ended_by) == (2, True, "stale")
        assert engine.stats().ticks > 10
    finally:
        engine.close()
