"""Steps of the operations on many jobs: each acts on one job and matches no waiters.

The engine calls them in slices, and `JobQueue.match` after each slice.
"""

from jobqueue.core.admission import check_capacity_for_change, check_queue_limit
from jobqueue.core.edit import change_job
from jobqueue.core.leasing import trace_of
from jobqueue.core.state import QueueState
from jobqueue.model import Change, Job, retries
from jobqueue.steps import DEAD


def move_job(state: QueueState, job: Job, target: str | None, now: int) -> None:
    """Puts a job that is scheduled, queued or dead at the end of the queue `target`; a scheduled one when it
    is ready. A dead one is queued there as by a redrive. Without `target` the job returns to the queue in
    which it died, as if it were redriven there. Raises `QueueFull` before any change."""
    trace = job.extras.trace if job.extras is not None else None
    back = target is None
    if target is None:
        assert trace is not None
        assert trace.dead_from is not None
        target = trace.dead_from
    change = Change(queue=target)
    check_queue_limit(state, (target,))
    check_capacity_for_change(state, job, change, now)
    if trace is not None and back:
        trace.dead_from = trace.dead_from_reason = None
    if back or job.status is DEAD:
        if retries(job):  # without attempts it no longer does
            state.queues[job.queue].retrying -= 1
        forget_attempts(job)
    change_job(state, job, change, now)


def forget_attempts(job: Job) -> None:
    """Lets a job start again with all its attempts, and without an expiry. Its history is kept."""
    job.attempts = 0
    trace_of(job).reason = None
    extras = job.extras
    assert extras is not None
    if job.status is DEAD:
        extras.finished_at = None
        if extras.options is not None:
            extras.options.expires_at = extras.options.expires_due = None
