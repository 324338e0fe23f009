"""Matching: waiting consumers meet ready jobs.

A change that may give a waiter a job puts the name of the queue into `state.to_match`. Each verb ends with
`match_waiters`, after its last change, so that waiters see none of its intermediate states.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from jobqueue.core.leasing import lease_job
from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.state import QueueState
from jobqueue.core.waiters import OutcomeWaiter, Waiter
from jobqueue.model import Delivery, DequeueRequest, Job, JobExtras
from jobqueue.steps import READY, SCHEDULED

# Bytes of payloads, errors and headers after which a dequeue of many leases no further job.
BATCH_BYTES: Final = 2 << 20


def take(state: QueueState, request: DequeueRequest, now: int) -> list[Delivery]:
    """Leases up to `request.count` ready jobs, from the queues in the order in which they are named or by
    priority; fewer if they are large."""
    queues = request.queues
    if request.by_run:
        return _take_by_run(state, request, now)
    if len(queues) > 1 and request.by_priority:
        return _take_by_priority(state, request, now)
    deliveries: list[Delivery] = []
    count = request.count or 1
    left = BATCH_BYTES
    for name in queues:
        queue = state.queues.get(name)
        if queue is not None:
            queue.asked_at = now
            while left > 0 and len(deliveries) < count and (job := queue.take(now)) is not None:
                deliveries.append(lease_job(state, job, queue, request, now))
                left -= len(job.payload) if job.extras is None else _bytes(job, job.extras)
            if queue.open_runs:
                queue.close_runs()
    return deliveries


def _take_by_run(state: QueueState, request: DequeueRequest, now: int) -> list[Delivery]:
    """Leases up to `request.count` ready jobs. Those of one key that may be taken together come one after the
    other, and before jobs of their priority with other keys."""
    deliveries: list[Delivery] = []
    count = request.count or 1
    left = BATCH_BYTES
    for name in request.queues:
        queue = state.queues.get(name)
        if queue is None:
            continue
        queue.asked_at = now
        last: Job | None = None
        while left > 0 and len(deliveries) < count:
            job = queue.take_in_run_of(last, now) if last is not None else None
            if job is None:
                job = queue.take(now)
            if job is None:
                break
            last = job
            deliveries.append(lease_job(state, job, queue, request, now))
            left -= len(job.payload) if job.extras is None else _bytes(job, job.extras)
        if queue.open_runs:
            queue.close_runs()
    return deliveries


def _take_by_priority(state: QueueState, request: DequeueRequest, now: int) -> list[Delivery]:
    """Leases up to `request.count` ready jobs: always the one of the highest priority in any of the queues,
    and of these the one with the lowest place."""
    deliveries: list[Delivery] = []
    count = request.count or 1
    left = BATCH_BYTES
    # Of each queue the rank and the place of its first job. No two have the same place.
    heads: list[tuple[int, int, NamedQueue]] = []
    for name in dict.fromkeys(request.queues):
        queue = state.queues.get(name)
        if queue is not None:
            queue.asked_at = now
            if (job := queue.first(now)) is not None:
                heads.append((-job.priority, job.place, queue))
    heapify(heads)
    while heads and len(deliveries) < count and left > 0:
        queue = heads[0][2]
        job = queue.take(now)
        assert job is not None
        deliveries.append(lease_job(state, job, queue, request, now))
        left -= len(job.payload) if job.extras is None else _bytes(job, job.extras)
        if (following := queue.first(now)) is None:
            heappop(heads)
        else:
            heapreplace(heads, (-following.priority, following.place, queue))
    for job, _ in deliveries:
        state.queues[job.queue].close_runs()
    return deliveries


def take_job(state: QueueState, job: Job, request: DequeueRequest, now: int) -> list[Delivery]:
    """Leases one job that is queued or scheduled, before its turn; the queues of `request` are not read.
    Returns an empty list if its queue is paused, or if a limit or the order of its key keeps it waiting."""
    queue = state.queues[job.queue]
    queue.asked_at = now
    if not queue.may_take(job, now):
        return []
    if job.status == SCHEDULED:
        state.transition(job, READY, now, queue)
    state.remove_queued(job, now, queue)
    delivery = lease_job(state, job, queue, request, now)
    queue.close_runs()
    return [delivery]


def _bytes(job: Job, extras: JobExtras) -> int:
    """Returns the bytes of what may be long in a delivery."""
    size = len(job.payload)
    if extras.options is not None and extras.options.headers is not None:
        size += len(extras.options.headers)
    if extras.options is not None and extras.options.envelope is not None:
        size += len(extras.options.envelope)
    if extras.trace is not None and extras.trace.error is not None:
        size += len(extras.trace.error)
    return size


def match_waiters(state: QueueState, now: int) -> None:
    """Gives the ready jobs of the queues in `to_match` to their waiters.

    A waiter may wait on several queues, so the queues are served together: always the one whose first waiter
    came first. The other queues of a waiter join them, since the rate of one may allow a job by now, which
    belongs to the first of its own waiters.
    """
    names, state.to_match = state.to_match, {}
    first_waiters = [
        (first.number, name) for name in names if (first := state.waiters.first(name)) is not None
    ]
    heapify(first_waiters)
    while first_waiters:
        number, name = heappop(first_waiters)
        waiter = state.waiters.first(name)
        queue = state.queues.get(name)
        if waiter is None or queue is None or not queue.ready:
            continue
        if waiter.number == number:  # otherwise that waiter was served from another queue
            if len(waiter.request.queues) > 1 and _join(state, waiter, names, first_waiters):
                heappush(first_waiters, (number, name))
                continue
            deliveries = take(state, waiter.request, now)
            if not deliveries:
                continue
            stop_waiting(state, waiter)
            waiter.deliver(deliveries)
            waiter = state.waiters.first(name)
        if waiter is not None:
            heappush(first_waiters, (waiter.number, name))


def _join(
    state: QueueState, waiter: Waiter, names: dict[str, None], first_waiters: list[tuple[int, str]]
) -> bool:
    """Adds the queues of a waiter to those that are served, and returns whether one of them has a waiter that
    came earlier."""
    found = False
    for name in waiter.request.queues:
        if name not in names:
            names[name] = None
            first = state.waiters.first(name)
            if first is not None and first is not waiter:
                heappush(first_waiters, (first.number, name))
                found = True
    return found


def match_before_dequeue(state: QueueState, names: Iterable[str], now: int) -> None:
    """Serves the waiters of these queues first, as a dequeue must not get ahead of them.

    The rate of a limiter allows a job at any instant, but its waiters are woken only by the next tick.
    """
    for name in names:
        queue = state.queues.get(name)
        if queue is not None and queue.ready and queue.rate_allows(now) and state.waiters.waiting(name):
            state.to_match[name] = None
    if state.to_match:
        match_waiters(state, now)


def stop_waiting(state: QueueState, waiter: Waiter | OutcomeWaiter) -> None:
    """Removes a waiter. Raises `KeyError` if it does not wait."""
    if isinstance(waiter, Waiter):
        state.waiters.drop(waiter)
    else:
        state.outcomes.drop(waiter)
    state.wait_timers.drop(waiter, waiter.until)
