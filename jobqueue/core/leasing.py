"""Leasing: a job is leased, and its lease ends: it is returned, put off until later, or buried.

None of these functions matches waiters; the verbs do so after their last change.
"""

from typing import Final

from jobqueue import steps
from jobqueue.core.forgetting import make_room
from jobqueue.core.named_queue import NamedQueue, key_of
from jobqueue.core.policy import attempts_exhausted
from jobqueue.core.state import QueueState
from jobqueue.model import (
    INHERIT,
    Delivery,
    DequeueRequest,
    Job,
    JobExtras,
    JobTrace,
    Lease,
    Options,
    Reason,
    last_attempt,
)
from jobqueue.steps import Step

# How many earlier attempts a job remembers.
HISTORY: Final = 20


def lease_job(state: QueueState, job: Job, queue: NamedQueue, request: DequeueRequest, now: int) -> Delivery:
    """Leases a job that has just been taken from `queue`, and charges an attempt."""
    wall = state.wall(now)
    job.attempts = attempt = job.attempts + 1
    job.leases += 1
    length = request.lease_for
    max_run_for = queue.max_run_for
    if length is None:
        length = queue.settings.lease_for or state.limits.lease
    if job.extras is not None and job.extras.options is not None:
        options = job.extras.options
        max_run_for = options.max_run_for or max_run_for
        if request.lease_for is None:
            length = options.lease_for or length
    if job.lease is not None:
        remember_attempt(job)
    elif not job.id & queue.waits.skip and job.place == job.id:
        queue.waits.add(wall - job.created_at)
    token = request.owner + state.new_token()
    lease = Lease(token, request.consumer, wall, length, length, now + length, attempt)
    if max_run_for is not None:
        lease.ends = now + max_run_for
        set_end(lease, length, now)
    job.lease = lease
    state.transition(job, steps.LEASE, now, queue)
    return job, lease


def set_end(lease: Lease, length: int, now: int) -> None:
    """Lets a lease end `length` milliseconds from now, or earlier if it may not last that long. Its timer is
    left to the caller."""
    if lease.ends is not None:
        length = max(min(length, lease.ends - now), 0)
    lease.length = length
    lease.expires = now + length


def return_job(state: QueueState, job: Job, step: Step, now: int, delay: int = 0) -> None:
    """Ends a lease by `step`, which is `stale`, `release` or `put_off`. All but a stale job get the attempt
    back. The job returns to its place, or is scheduled for after `delay`. It is cancelled if that was
    requested, and dead if it is stale after its last attempt. Of a stale job, `delay` is its rest."""
    queue = state.queues[job.queue]
    if step is not steps.STALE:
        job.attempts -= 1
    if step is steps.PUT_OFF:
        put_off(state, job, step, now, queue, delay)
        return
    state.transition(job, step, now, queue)
    if cancel_requested(job):
        state.transition(job, steps.CANCEL, now, queue)
    elif step is steps.STALE and attempts_exhausted(job, options_of(job), max_attempts(state, queue)):
        bury(state, job, "attempts", now, queue)
    elif delay:
        # There is no step from queued to scheduled: the job leaves its place, and enters again later.
        state.transition(job, steps.LEAVE, now, queue)
        extras = job.extras = job.extras or JobExtras()
        extras.due, extras.run_at = now + delay, state.wall(now) + delay
        give_up_place(job, queue)
        state.transition(job, steps.ENTER_LATER, now, queue)


def give_up_place(job: Job, queue: NamedQueue) -> None:
    """Lets a job that is about to rest, or has another priority, have its next place when it is ready, after
    those that are ready before it: otherwise a few jobs that rest again and again would keep all others
    waiting. In a key in strict order a job keeps its place."""
    if not queue.is_ordered(key_of(job)):
        job.place = 0


def stale_before(job: Job) -> bool:
    """Returns whether the lease before the last one of a job expired, too, and none was given back between
    them. After a redrive neither counts."""
    trace = job.extras.trace if job.extras is not None else None
    if trace is None or not trace.history or job.lease is None:
        return False
    before = trace.history[-1]
    return before.outcome == steps.STALE and before.attempt == job.lease.attempt - 1


def put_off(state: QueueState, job: Job, step: Step, now: int, queue: NamedQueue, delay: int) -> None:
    """Ends a lease by `step`, which is `put_off` or `fail`, and schedules the job for after `delay`. With no
    delay it is ready at once. It is cancelled if that was requested."""
    extras = job.extras = job.extras or JobExtras()
    extras.due, extras.run_at = now + delay, state.wall(now) + delay
    if delay:
        give_up_place(job, queue)
    state.transition(job, step, now, queue)
    if extras.cancel_requested:
        state.transition(job, steps.CANCEL, now, queue)
    elif not delay:
        state.transition(job, steps.READY, now, queue)


def bury(state: QueueState, job: Job, reason: Reason, now: int, queue: NamedQueue) -> None:
    """Makes a job dead. If its queue has a dead-letter queue, it is queued there instead, but only once."""
    trace = trace_of(job)
    trace.reason = reason
    state.transition(job, steps.BURY, now, queue)
    dead_letter = queue.settings.dead_letter
    if dead_letter is not None and dead_letter != queue.name and trace.dead_from is None:
        trace.dead_from, trace.dead_from_reason, trace.reason = queue.name, reason, None
        state.leave_queue(job, now, queue)
        extras = job.extras
        assert extras is not None
        extras.finished_at = None
        if extras.options is not None:
            extras.options.expires_at = extras.options.expires_due = None
        job.queue, job.attempts, job.place = dead_letter, 0, 0
        # The limit on queues does not count here: a job that dies is never refused.
        target = state.queues.get(dead_letter) or state.new_queue(dead_letter, now)
        state.transition(job, steps.ENTER, now, target)
    elif state.outcomes.count:
        state.answer_outcome_waiters(job)
    if state.over_retention:
        make_room(state, now)


def max_attempts(state: QueueState, queue: NamedQueue) -> int | None:
    """Returns the limit for jobs without one of their own; None: no limit."""
    of_queue = queue.settings.max_attempts
    return state.limits.max_attempts if of_queue == INHERIT else of_queue


def options_of(job: Job) -> Options | None:
    return job.extras.options if job.extras is not None else None


def cancel_requested(job: Job) -> bool:
    return job.extras is not None and job.extras.cancel_requested


def trace_of(job: Job) -> JobTrace:
    """Returns the trace of a job, which is created if there is none."""
    extras = job.extras = job.extras or JobExtras()
    trace = extras.trace = extras.trace or JobTrace()
    return trace


def remember_attempt(job: Job) -> None:
    """Adds the lease that ended last to the history."""
    trace = trace_of(job)
    trace.history = (*trace.history[1 - HISTORY :], last_attempt(job))
    trace.progress = trace.message = None
