"""Explain: why a job is where it is, and why a queue hands nothing out.

Pure looks at what `NamedQueue.take` goes by: the pause, the gates, the order of the lanes. Changes nothing.
"""

from collections.abc import Iterable
from itertools import islice

from jobqueue.core.limiter import Limiter
from jobqueue.core.named_queue import NamedQueue, key_of
from jobqueue.core.state import QueueState
from jobqueue.model import Cause, Code, Explanation, Job, State
from jobqueue.steps import FINISHED, IN_PROGRESS, QUEUED, SCHEDULED

# How many leases are looked through for the jobs that use up a limit, and how many of those are named.
_LOOKED_AT = 5_000
_NAMED = 10


def explain(registry: QueueState, job: Job, now: int) -> Explanation:
    """No causes: the next dequeue of its queue gets the job."""
    queue = registry.queues[job.queue]
    if job.status in FINISHED:
        trace = job.extras.trace if job.extras is not None else None
        return Explanation(job, 0, [Cause("finished", name=trace.reason if trace is not None else None)])
    if job.status == IN_PROGRESS:
        assert job.lease is not None
        return Explanation(
            job, 0, [Cause("running", registry.wall(job.lease.expires), job.lease.consumer, job.attempts)]
        )
    causes = []
    if job.status == SCHEDULED:
        assert job.extras is not None
        causes.append(Cause("scheduled", job.extras.run_at, number=job.attempts))
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
        causes.append(Cause("no_consumer", number=queue.counts.jobs()[IN_PROGRESS], ago=ago))
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


def _limit(registry: QueueState, gate: Limiter, now: int) -> Cause:
    if gate.exhausted(now) == "rate":
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
