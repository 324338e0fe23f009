"""Why a job waits: the explanation must agree with what dequeue does."""

from random import Random

import pytest
from test_queue_options import fail, keyed
from test_queue_verbs import Driven

from jobqueue.core.explain import explain, why_empty
from jobqueue.model import KeyLimits, LeaseClaim, NewJob, Options, Rate

HELD = {"paused", "queue_limit", "rate_limit", "key_limit"}


def said(q, job):
    return explain(q.core.state, job, q.now)


def causes(q, job):
    return {cause.code: cause for cause in said(q, job).causes}


def test_a_job_that_the_next_dequeue_gets_has_no_causes():
    q = Driven()
    [job] = q.enqueue()
    assert list(causes(q, job)) == ["no_consumer"]
    assert q.dequeue("other") == []
    q.wait("ann", "other")
    assert list(causes(q, job)) == ["no_consumer"]
    q.take()
    assert (said(q, job).ahead, list(causes(q, job))) == (0, ["running"])


def test_a_queue_without_waiters_says_how_long_ago_a_consumer_asked():
    q = Driven()
    [job] = q.enqueue()
    assert causes(q, job)["no_consumer"].ago is None
    taken = q.take()
    q.now += 540_000
    [job] = q.enqueue()
    cause = causes(q, job)["no_consumer"]
    assert (cause.ago, cause.number) == (540_000, 1)
    q.conclude(taken)
    assert causes(q, job)["no_consumer"].number == 0


def test_a_consumer_that_waited_in_vain_counts_as_asking_until_the_end_of_its_wait():
    q = Driven()
    q.enqueue()
    q.conclude(q.take())
    q.wait("ann", wait=30_000)
    q.pass_time(30_000)
    assert q.answers == {"ann": []}
    q.now += 1_000
    q.core.pause("default", None, None, q.now)
    [job] = q.enqueue()
    assert causes(q, job)["no_consumer"].ago == 1_000


def test_a_scheduled_job_says_until_when():
    q = Driven()
    job = q.core.enqueue(NewJob("t", delay=60_000), q.now)
    assert causes(q, job) == {
        "scheduled": ("scheduled", q.core.state.wall(q.now) + 60_000, None, 0, None, ())
    }
    q.core.pause("default", 5_000, "deploy", q.now)
    assert list(causes(q, job)) == ["scheduled", "paused"]
    [job] = q.enqueue()
    q.core.resume("default", q.now)
    fail(q, q.take(), retry_in=7_000)
    assert causes(q, job)["scheduled"][1:4] == (q.core.state.wall(q.now) + 7_000, None, 1)


def test_a_pause_says_until_when_and_why():
    q = Driven()
    [job] = q.enqueue()
    q.core.pause("default", 5_000, "deploy", q.now)
    assert causes(q, job)["paused"][1:3] == (q.core.state.wall(q.now) + 5_000, "deploy")
    q.core.pause("default", None, None, q.now)
    assert causes(q, job)["paused"][1:3] == (None, None)


def test_a_limit_says_which_jobs_use_it_up():
    q = Driven()
    q.core.configure("default", {"key_limits": KeyLimits(2)}, q.now)
    jobs = keyed(q, "a", "b", "a", "a", "b")
    q.ids(number=3)
    assert causes(q, jobs[3])["key_limit"][2:] == ("a", 2, None, (jobs[0].id, jobs[2].id))
    assert HELD.isdisjoint(causes(q, jobs[4]))
    q.core.configure("default", {"max_in_progress": 3}, q.now)
    assert sorted(causes(q, jobs[4])["queue_limit"].jobs) == [job.id for job in jobs[:3]]
    assert {"queue_limit", "key_limit"} <= set(causes(q, jobs[3]))
    q.conclude(jobs[1])
    assert HELD.isdisjoint(causes(q, jobs[4]))


def test_a_few_of_many_jobs_that_use_up_a_limit_are_named():
    q = Driven()
    q.core.configure("default", {"max_in_progress": 50}, q.now)
    jobs = q.enqueue(51)
    q.ids()
    cause = causes(q, jobs[-1])["queue_limit"]
    assert (cause.number, len(set(cause.jobs))) == (50, 10)
    assert set(cause.jobs) <= {job.id for job in jobs}


def test_a_rate_says_when_the_next_one_may_start():
    q = Driven()
    q.core.configure("default", {"rate": Rate(1, 1_000, 1)}, q.now)
    jobs = q.enqueue(2)
    q.take()
    assert causes(q, jobs[1])["rate_limit"][1:4] == (q.core.state.wall(q.now) + 1_000, None, 1)
    q.now += 1_000
    assert HELD.isdisjoint(causes(q, jobs[1]))
    q.core.configure("default", {"rate": None, "key_limits": KeyLimits(None, Rate(1, 1_000, 1))}, q.now)
    jobs = keyed(q, "k", "k")
    q.ids(number=2)
    assert causes(q, jobs[1])["rate_limit"].name == "k"


def test_not_all_of_many_lanes_are_examined_and_the_upper_bound_holds():
    q = Driven()
    jobs = keyed(q, *(f"key-{number}" for number in range(3_000)))
    assert said(q, jobs[10]).ahead >= 10
    assert said(q, jobs[-1]).ahead == 2_999
    q.ids(number=2_500)
    assert 499 <= said(q, jobs[-1]).ahead < 500


def test_a_finished_job_says_how_it_finished():
    q = Driven()
    jobs = q.enqueue(2)
    q.conclude(q.take())
    assert causes(q, jobs[0])["finished"].name is None
    fail(q, q.take(), retry=False)
    assert causes(q, jobs[1])["finished"].name == "no_retry"


@pytest.mark.parametrize("seed", range(40))
def test_explanations_agree_with_what_dequeue_does(seed):
    """A job with a cause is not leased, and no job is leased later than its upper bound."""
    random = Random(seed)
    q = Driven(lane_segment=16)
    limits = {"key_limits": KeyLimits(random.choice([None, 1, 2]), random.choice([None, Rate(2, 1000, 3)]))}
    q.core.configure("default", limits, q.now)
    running = []
    for _ in range(random.randrange(120)):
        q.now += random.randrange(200)
        act = random.random()
        if act < 0.5:
            key = random.choice([None, "a", "b"])
            options = Options(key=key) if key else None
            q.core.enqueue(NewJob("t", priority=random.randrange(3), options=options), q.now)
        elif act < 0.7:
            running += q.dequeue(count=random.randrange(1, 4))
        elif running:
            job, lease = running.pop(random.randrange(len(running)))
            if random.choice([True, False]):
                q.core.conclude(job.id, lease.token, None, None, q.now)
            else:
                q.core.release(LeaseClaim(job.id, lease.token, None), 0, q.now)
    if random.random() < 0.3:
        q.core.configure("default", {"max_in_progress": len(running) + random.randrange(5)}, q.now)
    if random.random() < 0.1:
        q.core.pause("default", None, None, q.now)
    queued = [job for job in q.core.state.jobs.after(0) if job.status == "queued"]
    explained = {job: said(q, job) for job in queued}
    if queued:
        assert min(explanation.ahead for explanation in explained.values()) == 0
    deliveries = [job for job, _ in q.dequeue(count=1000)]
    plain = not any(job.extras is not None and job.extras.options is not None for job in queued)
    for position, job in enumerate(deliveries):
        found = {cause.code for cause in explained[job].causes}
        assert HELD.isdisjoint(found), (job, found)
        assert position <= explained[job].ahead
        assert position == explained[job].ahead or not plain
    for job in queued:
        assert ("behind" in {cause.code for cause in explained[job].causes}) == (explained[job].ahead > 0)
    free = [job for job in queued if HELD.isdisjoint(cause.code for cause in explained[job].causes)]
    assert bool(free) == bool(deliveries)
    left = why_empty(q.core.state.queues.values())
    if len(deliveries) < len(queued):
        assert left in ("paused", "limited")
    else:
        assert left in ("empty", "paused")
