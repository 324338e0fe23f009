"""A dequeue `by_run` takes the jobs of one key that may be taken together one after the other."""

from itertools import count

import pytest

from jobqueue.core.queue import JobQueue
from jobqueue.model import DequeueRequest, KeyLimits, NewJob, Options


@pytest.fixture
def queue():
    queue = JobQueue(map("token-{}".format, count()).__next__)
    queue.configure("default", {"key_limits": KeyLimits(ordered=True, batch=3)}, 0)
    return queue


def put(queue, *names, **more):
    for name in names:
        queue.enqueue(NewJob(name, options=Options(key=name[0] if name[0] != "-" else None), **more), 0)


def take(queue, number=10, by_run=True):
    request = DequeueRequest(("default",), 60_000, number, by_run=by_run)
    return [job.type for job, _ in queue.dequeue(request, 0)]


def test_jobs_of_a_run_come_before_jobs_of_other_keys(queue):
    put(queue, "a1", "b1", "a2", "-1", "b2", "a3", "a4", "-2")
    assert take(queue, 4) == ["a1", "a2", "a3", "b1"]
    assert take(queue) == ["-1", "-2"]  # both keys are taken
    assert take(queue) == []


def test_without_it_they_come_in_order(queue):
    put(queue, "a1", "b1", "a2")
    assert take(queue, by_run=False) == ["a1", "b1", "a2"]


def test_a_higher_priority_comes_before_the_rest_of_a_run(queue):
    put(queue, "a2")
    put(queue, "a1", "b1", priority=5)
    assert take(queue) == ["a1", "b1", "a2"]


def test_limits_and_turns_count(queue):
    queue.configure("default", {"max_in_progress": 2}, 0)
    put(queue, "a1", "b1", "a2", "a3")
    assert take(queue) == ["a1", "a2"]
    queue.configure("default", {"max_in_progress": None, "fair_keys": True}, 0)
    assert take(queue) == ["b1"]


def test_a_run_is_filled_also_when_its_key_was_not_first_in_the_heap(queue):
    put(queue, *[f"{key}{number}" for number in range(4) for key in "abcdef"])
    assert take(queue, 7) == ["a0", "a1", "a2", "b0", "b1", "b2", "c0"]
    assert take(queue, 4) == ["d0", "d1", "d2", "e0"]
    assert take(queue, 5) == ["f0", "f1", "f2"]
    assert queue.view("default", 0).jobs["queued"] == 24 - 14
