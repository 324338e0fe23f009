"""Forgetting: removes finished jobs that exceed the retention by age, number or bytes."""

from typing import Final

from jobqueue import steps
from jobqueue.core.state import QueueState
from jobqueue.model import Job
from jobqueue.steps import DEAD

# How many jobs one finishing job may push out of memory; the next ticks remove the rest.
FORGET_AT_ONCE: Final = 8


def make_room(state: QueueState, now: int) -> None:
    """Forgets up to `FORGET_AT_ONCE` jobs. Called when a job that finished has set `over_retention`."""
    finished, dead = state.finished, state.dead
    for _ in range(FORGET_AT_ONCE):
        job = finished.next_to_forget(now) or dead.next_to_forget(now)
        if job is not None:
            forget(state, job, now)
        if job is None or not (finished.over_limit or dead.over_limit):
            state.over_retention = False
            break


def forget(state: QueueState, job: Job, now: int) -> None:
    """Forgets the job that `next_to_forget` has just returned. What is lost before its time is counted."""
    if job.status is DEAD:
        if state.dead.early:
            state.dropped.dead_jobs += 1
            if state.event is not None:
                state.event("drop", job)
    elif state.finished.early:
        state.dropped.finished_jobs += 1
    state.transition(job, steps.FORGET, now, state.queue_of(job, now))


def forget_due(state: QueueState, now: int, limit: int) -> int:
    """Forgets up to `limit` jobs, and returns how many."""
    for forgotten in range(limit):
        job = state.finished.next_to_forget(now) or state.dead.next_to_forget(now)
        if job is None:
            state.over_retention = False
            return forgotten
        try:
            forget(state, job, now)
        except Exception:  # otherwise every later tick would fail at the same job
            for retention in (state.finished, state.dead):
                if retention.next_to_forget(now) is job:
                    retention.discard(job)
            raise
    return limit
