"""Explanations: why a job is not leased yet, and why a dequeue got nothing.

They read what `NamedQueue.take` decides by, which is the pause, the limiters and the order of the lanes, and
change nothing.
"""

from collections.abc import Iterable
from itertools import islice

from jobqueue.core.limiter import Limiter
from jobqueue.core.named_queue import NamedQueue, key_of
from jobqueue.core.state import QueueState
from jobqueue.model import Cause, Code, Explanation, Job, State
from jobqueue.steps import FINISHED, IN_PROGRESS, QUEUED, SCHEDULED

# How many leases are searched for the jobs that use up a limit, and how many of those are named.
_EXAMINED = 5_000
_NAMED = 10


def explain(state: QueueState, job: Job, now: int) -> Explanation:
    """Explains where a job is. Without causes, the next dequeue of its queue gets it."""
    if job.status in FINISHED:
        trace = job.extras.trace if job.extras is not None else None
        return Explanation(job, 0, [Cause("finished", name=trace.reason if trace is not None else None)])
    if job.status == IN_PROGRESS:
        assert job.lease is not None
        return Explanation(
            job, 0, [Cause("running", state.wall(job.lease.expires), job.lease.consumer, job.attempts)]
        )
    queue = state.queues[job.queue]
    causes = []
    if job.status == SCHEDULED:
        assert job.extras is not None
        causes.append(Cause("scheduled", job.extras.run_at, number=job.attempts))
    if queue.pause is not None:
        causes.append(Cause("paused", queue.pause.until, queue.pause.reason))
    if job.status != QUEUED:
        return Explanation(job, 0, causes)
    causes += [_limit(state, limiter, now) for limiter in queue.exhausted_limiters(job, now)]
    ahead = queue.ahead(job)
    if ahead:
        causes.append(Cause("behind", number=ahead))
    if not state.waiters.waiting(queue.name):
        ago = None if queue.asked_at is None else now - queue.asked_at
        causes.append(Cause("no_consumer", number=queue.counts.jobs()[IN_PROGRESS], ago=ago))
    return Explanation(job, ahead, causes)


def why_empty(queues: Iterable[NamedQueue]) -> State:
    """Returns why a dequeue of these queues got nothing: the first reason, in the order of this function,
    that holds for one of them."""
    queues = list(queues)
    if any(queue.pause is not None for queue in queues):
        return "paused"
    if any(queue.queued for queue in queues):
        return "limited"  # a queued job that is not paused and was not taken has an exhausted limiter
    return "scheduled" if any(queue.scheduled for queue in queues) else "empty"


def _limit(state: QueueState, limiter: Limiter, now: int) -> Cause:
    if limiter.exhausted(now) == "rate":
        at = limiter.available_at(now)
        assert limiter.rate is not None
        return Cause("rate_limit", None if at is None else state.wall(at), limiter.key, limiter.rate.count)
    users = (
        job.id
        for job in state.leased(_EXAMINED)
        if job.queue == limiter.queue and (limiter.key is None or key_of(job) == limiter.key)
    )
    code: Code = "queue_limit" if limiter.key is None else "key_limit"
    if limiter.ordered and not limiter.in_progress:  # an earlier job of the key rests
        return Cause(code, None, limiter.key, 0)
    return Cause(code, None, limiter.key, limiter.jobs_in_progress, jobs=tuple(islice(users, _NAMED)))
