"""Explain: why a job is where it is, and why a queue hands nothing out.

Pure looks at what `NamedQueue.take` goes by: the pause, the gates, the order of the lanes. Changes nothing.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Literal, NamedTuple

from jobqueue.core.gate import Gate
from jobqueue.core.job import FINISHED, IN_PROGRESS, QUEUED, SCHEDULED, Job
from jobqueue.core.named import NamedQueue, key_of
from jobqueue.core.registry import Registry

Code = Literal[
    "scheduled", "paused", "queue_limit", "rate_limit", "key_limit", "behind", "no_consumer", "running",
    "finished",
]  # fmt: skip
State = Literal["empty", "scheduled", "paused", "limited"]
# How many leases are looked through for the jobs that use up a limit, and how many of those are named.
_LOOKED_AT = 5_000
_NAMED = 10


class Cause(NamedTuple):
    """One thing that keeps a job from being handed out. `until`: wall-clock milliseconds at which it ends by
    itself. `name`: the key of a limit, the consumer that runs the job, why a queue is paused or a job dead.
    `number`: the figure of a limit, the jobs ahead, the jobs of the queue in progress. `ago`: milliseconds
    since somebody asked the queue for a job. `jobs`: some that use the limit up."""

    code: Code
    until: int | None = None
    name: str | None = None
    number: int = 0
    ago: int | None = None
    jobs: tuple[int, ...] = ()


class Explanation(NamedTuple):
    """`ahead`: at most so many queued jobs are handed out before it."""

    job: Job
    ahead: int
    causes: list[Cause]


def explain(registry: Registry, job: Job, now: int) -> Explanation:
    """No causes: the next dequeue of its queue gets the job."""
    queue = registry.queues[job.queue]
    if job.status in FINISHED:
        trail = job.more.trail if job.more is not None else None
        return Explanation(job, 0, [Cause("finished", name=trail.reason if trail is not None else None)])
    if job.status == IN_PROGRESS:
        assert job.lease is not None
        return Explanation(
            job, 0, [Cause("running", registry.wall(job.lease.expires), job.lease.consumer, job.attempts)]
        )
    causes = []
    if job.status == SCHEDULED:
        assert job.more is not None
        causes.append(Cause("scheduled", job.more.run_at, number=job.attempts))
    if queue.pause is not None:
        causes.append(Cause("paused", queue.pause.until, queue.pause.reason))
    if job.status != QUEUED:
        return Explanation(job, 0, causes)
    causes += [_limit(registry, gate, now) for gate in queue.shut_gates(job, now)]
    ahead = queue.ahead(job)
    if ahead:
        causes.append(Cause("behind", number=ahead))
    if not registry.waiters.waiting(queue.name):
        ago = None if queue.asked_at is None else now - queue.asked_at
        causes.append(Cause("no_consumer", number=queue.tally.jobs()[IN_PROGRESS], ago=ago))
    return Explanation(job, ahead, causes)


def state(queues: Iterable[NamedQueue]) -> State:
    """Why a dequeue of these queues, which there are, got nothing: the first in this order that holds for one
    of them."""
    queues = list(queues)
    if any(queue.pause is not None for queue in queues):
        return "paused"
    if any(queue.queued for queue in queues):
        return "limited"  # queued, not paused, and not taken: a gate is shut
    return "scheduled" if any(queue.scheduled for queue in queues) else "empty"


def _limit(registry: Registry, gate: Gate, now: int) -> Cause:
    if gate.shut_by(now) == "rate":
        at = gate.next_at(now)
        assert gate.rate is not None
        return Cause("rate_limit", None if at is None else registry.wall(at), gate.key, gate.rate.count)
    users = (
        job.id
        for job in registry.leased(_LOOKED_AT)
        if job.queue == gate.queue and (gate.key is None or key_of(job) == gate.key)
    )
    code: Code = "queue_limit" if gate.key is None else "key_limit"
    return Cause(code, None, gate.key, gate.in_progress, jobs=tuple(islice(users, _NAMED)))
