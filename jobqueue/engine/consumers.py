"""Consumers: who holds which jobs, and who waits for one."""

from collections.abc import Callable

from jobqueue.core.state import QueueState
from jobqueue.model import Consumers, Holder, Job, WaitingConsumer

# Leases that are examined, and jobs of each consumer that are named.
_EXAMINED = 5_000
_NAMED = 10


def consumers(state: QueueState, limit: int, within: Callable[[str], bool] | None) -> Consumers:
    """Returns up to `limit` consumers that hold jobs, those with most first, and up to `limit` that wait.
    Leases without a name of a consumer are together."""
    held: dict[str | None, list[Job]] = {}
    leased = state.leased(_EXAMINED + 1)
    for job in leased[:_EXAMINED]:
        if job.lease is not None and (within is None or within(job.queue)):
            held.setdefault(job.lease.consumer, []).append(job)
    holding = [_holder(name, jobs) for name, jobs in held.items()]
    holding.sort(key=_order)
    waiting = []
    waiters = state.waiters.some(_EXAMINED + 1)
    for waiter in waiters[:_EXAMINED]:
        queues = tuple([name for name in waiter.request.queues if within is None or within(name)])
        if queues:
            waiting.append(WaitingConsumer(waiter.request.consumer, queues, waiter.until))
    examined_all = len(leased) <= _EXAMINED and len(waiters) <= _EXAMINED
    complete = examined_all and len(holding) <= limit and len(waiting) <= limit
    return Consumers(holding[:limit], waiting[:limit], complete)


def _holder(name: str | None, jobs: list[Job]) -> Holder:
    jobs.sort(key=_id)
    seen = max([job.lease.expires - job.lease.length for job in jobs if job.lease is not None])
    return Holder(name, len(jobs), seen, jobs[:_NAMED])


def _order(holder: Holder) -> tuple[int, bool, str]:
    return -holder.in_progress, holder.consumer is None, holder.consumer or ""


def _id(job: Job) -> int:
    return job.id
