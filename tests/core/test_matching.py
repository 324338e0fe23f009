"""Which waiter gets a job that has become ready."""

from itertools import count

from jobqueue.core.limits import Limits
from jobqueue.core.queue import JobQueue
from jobqueue.core.waiters import Waiter
from jobqueue.model import DequeueRequest, NewJob, Rate


def test_a_waiter_on_two_queues_gets_no_job_before_those_who_waited_longer_for_it():
    """The rate of one queue allows a job at an instant at which a job comes into the other one."""
    numbers = count(1)
    queue, got = JobQueue(lambda: f"lease-{next(numbers)}", 1, Limits(), 0), []
    queue.configure("slow", {"rate": Rate(1, 1_000, 1)}, 0)

    def wait(name, *queues):
        queue.wait(Waiter(DequeueRequest(queues, 60_000), 60_000, lambda jobs: got.append((name, jobs))))

    for _ in range(2):
        queue.enqueue(NewJob("t", "slow"), 0)
    assert queue.dequeue(DequeueRequest(("slow",), 60_000), 0)
    wait("first", "slow")
    wait("second", "slow", "other")
    queue.enqueue(NewJob("t", "other"), 1_000)
    assert [(name, jobs[0][0].queue) for name, jobs in got] == [("first", "slow"), ("second", "other")]
