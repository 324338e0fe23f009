"""A lease that ended while nobody else took the job is renewed under the same token."""

import pytest

from jobqueue.core.queue import JobQueue
from jobqueue.errors import LeaseLost
from jobqueue.model import DequeueRequest, LeaseClaim, NewJob


@pytest.fixture
def queue():
    tokens = iter(f"token-{number}" for number in range(100))
    return JobQueue(tokens.__next__)


def take(queue, now):
    [(job, lease)] = queue.dequeue(DequeueRequest(("default",), 1000), now)
    return job, LeaseClaim(job.id, lease.token, None)


def test_an_expired_lease_is_renewed_without_a_charge(queue):
    queue.enqueue(NewJob("x"), 0)
    job, claim = take(queue, 0)
    queue.tick(2000)
    assert job.status == "queued"
    assert queue.renew(claim, 5000, 2000) is job
    assert (job.status, job.attempts, job.leases, job.lease.token) == ("in_progress", 1, 1, claim.token)
    assert job.lease.attempt == 1
    queue.tick(6000)
    assert job.status == "in_progress"
    assert queue.dequeue(DequeueRequest(("default",)), 6000) == []
    queue.conclude(claim.id, claim.token, None, None, 6500)
    assert job.status == "concluded"


def test_a_lease_is_renewed_after_its_job_was_given_back_by_a_failure_or_rests(queue):
    queue.enqueue(NewJob("x"), 0)
    job, claim = take(queue, 0)
    queue.fail(claim, None, True, 60_000, 10)
    assert job.status == "scheduled"
    queue.renew(claim, 1000, 20)
    assert (job.status, job.attempts) == ("in_progress", 1)
    queue.tick(2000)
    queue.tick(70_000)
    assert job.status == "queued"


def test_the_lease_of_a_job_in_progress_is_extended(queue):
    queue.enqueue(NewJob("x"), 0)
    job, claim = take(queue, 0)
    queue.renew(claim, 5000, 500)
    queue.tick(3000)
    assert (job.status, job.leases) == ("in_progress", 1)


def test_a_lease_is_lost_once_another_consumer_had_the_job_or_it_is_done(queue):
    queue.enqueue(NewJob("x"), 0)
    _, claim = take(queue, 0)
    queue.tick(2000)
    job, other = take(queue, 2000)
    with pytest.raises(LeaseLost):
        queue.renew(claim, 1000, 2000)
    queue.conclude(other.id, other.token, None, None, 2000)
    for each in (claim, other):
        with pytest.raises(LeaseLost):
            queue.renew(each, 1000, 2000)
    assert job.status == "concluded"


def test_a_lease_is_not_renewed_past_a_pause_or_a_limit(queue):
    queue.enqueue(NewJob("x"), 0)
    job, claim = take(queue, 0)
    queue.tick(2000)
    queue.pause("default", None, None, 2000)
    with pytest.raises(LeaseLost):
        queue.renew(claim, 1000, 2000)
    queue.resume("default", 2000)
    queue.configure("default", {"max_in_progress": 1}, 2000)
    queue.enqueue(NewJob("x"), 2000)
    queue.dequeue_job(queue.state.last_number, DequeueRequest(()), 2000)
    with pytest.raises(LeaseLost):
        queue.renew(claim, 1000, 2000)
    assert job.status == "queued"
