"""Imported jobs, and callbacks for the end of a lease."""

import pytest

from jobqueue.core.limits import Limits
from jobqueue.core.queue import JobQueue
from jobqueue.core.waiters import Waiter
from jobqueue.errors import QueueFull
from jobqueue.model import (
    Attempt,
    Change,
    DequeueRequest,
    ExistingJob,
    ImportedHistory,
    JobTrace,
    LeaseClaim,
    NewJob,
    Options,
)

WALL = 1_800_000_000_000
REQUEST = DequeueRequest(("default",))
LINE = Attempt(2, "c", 10, 20, "fail", b'"no"')


@pytest.fixture
def queue():
    numbers = iter(range(1000))
    return JobQueue(lambda: f"t{next(numbers)}", 1, Limits(), WALL)


def test_a_job_keeps_its_past_and_gets_an_id_and_a_place_of_this_queue(queue):
    queue.enqueue(NewJob("before"), 5)
    past = ImportedHistory(WALL - 1000, 3, 4, JobTrace(error=b'"no"', history=(LINE,)))
    job = queue.import_job(NewJob("x", priority=0), past, 5)
    assert (job.id, job.place, job.status) == (2, 2, "queued")
    assert (job.attempts, job.leases, job.created_at) == (3, 4, WALL - 1000)
    assert [queue.dequeue(REQUEST, 6)[0][0].type for _ in range(2)] == ["before", "x"]
    assert (job.attempts, job.leases, job.extras.trace.history) == (4, 5, (LINE,))
    queue.release(LeaseClaim(2, job.lease.token, None), 0, 7)
    queue.dequeue(REQUEST, 8)
    assert [line.outcome for line in job.extras.trace.history] == ["fail", "release"]


def test_an_imported_job_may_be_scheduled_and_a_dead_one_stays_dead(queue):
    later = queue.import_job(NewJob("x", run_at=WALL + 100), ImportedHistory(WALL), 5)
    dead = queue.import_job(
        NewJob("x"), ImportedHistory(WALL - 9, 25, 25, JobTrace(reason="attempts"), died_at=WALL - 3), 5
    )
    assert (later.status, dead.status, dead.extras.finished_at) == ("scheduled", "dead", WALL - 3)
    assert queue.dequeue(REQUEST, 6) == []
    assert queue.state.counts.jobs()["dead"] == queue.state.counts.jobs()["scheduled"] == 1
    queue.state.set_wall_offset(WALL)
    queue.tick(100)
    assert queue.dequeue(REQUEST, 101)[0][0] is later
    assert queue.redrive(dead.id, 102).attempts == 0


def test_an_imported_dead_job_is_not_scheduled(queue):
    past = ImportedHistory(WALL - 9, 25, 25, JobTrace(reason="attempts"), died_at=WALL - 3)
    dead = queue.import_job(NewJob("x", run_at=WALL + 10_000), past, 5)
    assert queue.redrive(dead.id, 6).status == "queued"
    assert queue.change(dead.id, Change(priority=3), 7).status == "queued"
    assert dead.extras.run_at is None


def test_a_waiting_consumer_gets_an_imported_job(queue):
    given = []
    queue.wait(Waiter(REQUEST, 1000, given.append))
    job = queue.import_job(NewJob("x"), ImportedHistory(WALL), 5)
    assert given[0][0][0] is job


@pytest.mark.parametrize("on_conflict", ["ignore", "reject", "replace"])
def test_an_imported_job_whose_unique_key_is_taken_is_known_whatever_it_asks_for(queue, on_conflict):
    def new(payload):
        return NewJob("x", payload=payload, options=Options(unique_key="u", on_conflict=on_conflict))

    first = queue.import_job(new(b"1"), ImportedHistory(WALL), 5)
    again = queue.import_job(new(b"2"), ImportedHistory(WALL), 5)
    assert isinstance(again, ExistingJob)
    assert again.job is first
    assert first.payload == b"1"


def test_a_full_queue_accepts_a_dead_job_and_no_other(queue):
    queue.configure("default", {"max_jobs": 1}, 5)
    queue.import_job(NewJob("x"), ImportedHistory(WALL), 5)
    with pytest.raises(QueueFull):
        queue.import_job(NewJob("x"), ImportedHistory(WALL), 5)
    queue.import_job(NewJob("x"), ImportedHistory(WALL, died_at=WALL), 5)
    assert queue.state.last_number == 2


@pytest.mark.parametrize("how", ["conclude", "release", "fail", "cancel", "purge", "stale"])
def test_a_callback_is_called_once_when_the_lease_ends(queue, how):
    told = []
    queue.enqueue(NewJob("x"), 5)
    ((job, lease),) = queue.dequeue(REQUEST, 5)
    queue.state.lease_end_callbacks[job.id] = told.append
    match how:
        case "conclude":
            queue.conclude(job.id, lease.token, None, None, 6)
        case "release":
            queue.release(LeaseClaim(job.id, lease.token, None), 0, 6)
        case "fail":
            queue.fail(LeaseClaim(job.id, lease.token, None), None, True, 0, 6)
        case "cancel":
            queue.cancel(job.id, 6, force=True)
        case "purge":
            queue.purge_one(job, 6)
        case "stale":
            queue.tick(400_000)
    assert told == [job]
    assert queue.state.lease_end_callbacks == {}
    for job, lease in queue.dequeue(REQUEST, 400_001):
        queue.conclude(job.id, lease.token, None, None, 400_002)
    assert len(told) == 1


def test_at_the_limit_of_queues_none_is_created_and_the_existing_ones_go_on():
    queue = JobQueue(iter("abcdefgh").__next__, 1, Limits(max_queues=1), WALL)
    queue.configure("default", {"dead_letter": "dead", "max_attempts": 1}, 5)
    queue.enqueue(NewJob("x"), 5)
    [(job, lease)] = queue.dequeue(REQUEST, 5)
    queue.fail(LeaseClaim(job.id, lease.token, None), None, True, None, 5)
    assert sorted(queue.state.queues) == ["dead", "default"]  # a job that dies is never refused
    with pytest.raises(QueueFull):
        queue.import_job(NewJob("x", "other"), ImportedHistory(WALL), 5)
    with pytest.raises(QueueFull):
        queue.pause("other", None, None, 5)
    queue.pause("default", None, None, 5)
    queue.resume("default", 5)
    queue.configure("dead", {"max_jobs": 3}, 5)
    assert queue.import_job(NewJob("x", "dead"), ImportedHistory(WALL), 5).queue == "dead"
