"""The cost of each verb of the core, a block of calls at a time, and a loop for comparing machines.

All times are CPU times of the thread, which leaves out the time that other processes took.
"""

import time
from collections.abc import Sequence
from itertools import pairwise
from random import Random

from jobqueue.model import LeaseClaim
from tests.bench.report import check
from tests.bench.subject import DequeueRequest, JobQueue, NewJob

VERBS = ["enqueue", "get", "cancel", "dequeue", "heartbeat", "conclude"]


def calibration(rounds: int = 100_000) -> float:
    """Returns nanoseconds for one turn of a fixed Python loop: a method call, a dict store, an addition."""
    table: dict[int, int] = {}
    put = table.__setitem__
    total = 0
    start = time.thread_time_ns()
    for number in range(rounds):
        put(number & 1023, number)
        total += number
    return (time.thread_time_ns() - start) / rounds


def lifecycles(
    queue: JobQueue, count: int, new: NewJob, want: DequeueRequest, now: int, each_ms: int = 50
) -> int:
    """Returns nanoseconds for `count` lifecycles, one job after another, `each_ms` of them in a millisecond."""
    enqueue, dequeue, conclude = queue.enqueue, queue.dequeue, queue.conclude
    start = time.thread_time_ns()
    for _ in range(count // each_ms):
        now += 1
        for _ in range(each_ms):
            enqueue(new, now)
            job, lease = dequeue(want, now)[0]
            conclude(job.id, lease.token, None, None, now)
    return time.thread_time_ns() - start


def costs(
    queue: JobQueue, news: Sequence[NewJob], wants: Sequence[DequeueRequest], now: int
) -> dict[str, float]:
    """Returns nanoseconds of each verb, averaged over `news`. The number of queued jobs is the same before and after."""
    clock = time.thread_time_ns
    count = len(news)
    marks = [clock()]
    jobs = [queue.enqueue(new, now) for new in news]
    marks.append(clock())
    for job in jobs:
        queue.get(job.id)
    marks.append(clock())
    extra = [queue.enqueue(new, now) for new in news]
    Random(1).shuffle(extra)
    marks.append(clock())
    for job in extra:
        queue.cancel(job.id, now)
    marks.append(clock())
    handed = [queue.dequeue(want, now)[0] for want in wants]
    marks.append(clock())
    for job, lease in handed:
        queue.heartbeat(LeaseClaim(job.id, lease.token, None), None, now + 1)
    marks.append(clock())
    for job, lease in handed:
        queue.conclude(job.id, lease.token, None, None, now)
    marks.append(clock())
    check(len(handed) == count, "a dequeue found nothing")
    spent = [(after - before) / count for before, after in pairwise(marks)]
    del spent[2]  # the second lot of enqueues
    return dict(zip(VERBS, spent, strict=True))
