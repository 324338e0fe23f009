"""Matching: waiting consumers meet ready jobs.

A change that may give a waiter a job puts the name of the queue into `state.to_match`. Each verb ends with
`match_waiters`, after its last change, so that waiters see none of its intermediate states.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from jobqueue.core.leasing import lease_job
from jobqueue.core.state import QueueState
from jobqueue.core.waiters import OutcomeWaiter, Waiter
from jobqueue.model import Delivery, DequeueRequest


def take(state: QueueState, request: DequeueRequest, now: int) -> list[Delivery]:
    """Leases up to `request.count` ready jobs, from the queues in the order in which they are named."""
    deliveries: list[Delivery] = []
    count = request.count or 1
    for name in request.queues:
        queue = state.queues.get(name)
        if queue is not None:
            queue.asked_at = now
            while len(deliveries) < count and (job := queue.take(now)) is not None:
                deliveries.append(lease_job(state, job, queue, request, now))
    return deliveries


def match_waiters(state: QueueState, now: int) -> None:
    """Gives the ready jobs of the queues in `to_match` to their waiters.

    A waiter may wait on several queues, so the queues are served together: always the one whose first waiter
    came first.
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
            deliveries = take(state, waiter.request, now)
            if not deliveries:
                continue
            stop_waiting(state, waiter)
            waiter.deliver(deliveries)
            waiter = state.waiters.first(name)
        if waiter is not None:
            heappush(first_waiters, (waiter.number, name))


def match_before_dequeue(state: QueueState, names: Iterable[str], now: int) -> None:
    """Serves the waiters of these queues first, as a dequeue must not get ahead of them.

    The rate of a limiter allows a job at any instant, but its waiters are woken only by the next tick.
    """
    for name in names:
        queue = state.queues.get(name)
        if queue is not None and queue.limiter is not None and queue.ready and state.waiters.waiting(name):
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
