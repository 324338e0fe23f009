"""Transfer: adds a job from another server, with its history there."""

from jobqueue import steps
from jobqueue.core.admission import (
    attach_options,
    check_capacity,
    check_job_limit,
    check_queue_limit,
    queue_or_schedule,
)
from jobqueue.core.dedup import unique_owner
from jobqueue.core.forgetting import make_room
from jobqueue.core.state import QueueState
from jobqueue.model import ExistingJob, ImportedHistory, Job, JobExtras, Lease, NewJob


def import_job(state: QueueState, new: NewJob, past: ImportedHistory, now: int) -> Job | ExistingJob:
    owner = unique_owner(state, new)
    if owner is not None and not past.moved:
        return ExistingJob(owner)
    if state.last_number >= state.admitted_until:
        check_job_limit(state, 1)
    queue = state.queues.get(new.queue)
    if queue is None:
        check_queue_limit(state, (new.queue,))
        queue = state.new_queue(new.queue, now)
    elif queue.bounded and past.died_at is None:  # the limits of a queue do not count its dead jobs
        check_capacity(state, [new], {}, now)
    id = state.last_number + 1
    state.last_number = id
    job = Job(id, queue.name, new.type, new.priority, new.payload, past.created_at, id)
    job.attempts, job.leases = past.attempts, past.leases
    if (last := past.last) is not None:
        # Nobody has its token, so nobody can use it here.
        job.lease = Lease(
            state.new_token(), last.consumer, last.started_at, 0, 0, now, last.attempt, last.ended_at,
            last.outcome, None if last.reason is None else now,
        )  # fmt: skip
    if new.options is not None or new.delay or new.run_at is not None or new.expires_in is not None:
        attach_options(state, job, new, now)
    if past.trace is not None:
        job.extras = job.extras or JobExtras()
        job.extras.trace = past.trace
    if job.extras is not None and past.died_at is not None:
        job.extras.run_at = job.extras.due = None  # a dead job was ready once
    queue_or_schedule(state, job, queue, now)
    if past.died_at is not None:
        # Not `leasing.bury`: it stays in this queue, whatever the dead-letter queue here.
        state.transition(job, steps.BURY, now, queue)
        assert job.extras is not None
        job.extras.finished_at = past.died_at
        if state.over_retention:
            make_room(state, now)
    return job
