"""Clock steps: what follows from a step of the wall clock.

    an instant that a client gave           has a timer of the wall clock, so it follows by itself
    a length that began in this run         has a timer of the monotonic clock, so a step does not move it;
                                            but its end that is shown, and stored for a restart, changes
    a length that began in an earlier run   only its wall-clock end is known: it is an instant now

So after a step this module goes through all jobs, in slices, and writes down the ends of lengths again.
"""

from typing import Final

from msgspec.structs import replace

from jobqueue.core.state import QueueState
from jobqueue.model import Job
from jobqueue.steps import FINISHED, IN_PROGRESS

# A smaller change of the wall clock, in milliseconds, is no step; several of them may add up to one.
STEP_MS: Final = 1_000
# How many jobs one tick examines, and how many it changes: a journal must be able to follow.
EXAMINED: Final = 2_000
CHANGED: Final = 500


def follow_clock(state: QueueState, now: int) -> None:
    """Notices a step of the wall clock, and does a slice of the work that it makes. Called at each tick."""
    if abs(state.wall_offset - state.noted_offset) >= STEP_MS:
        state.noted_offset = state.wall_offset
        state.to_note_after = 0
        _note_pauses(state)
        state.finished.follow_clock(state.wall_offset, state.restored_at)
        state.dead.follow_clock(state.wall_offset, state.restored_at)
    if state.to_note_after is not None:
        state.to_note_after = _note_jobs(state, state.to_note_after)


def _note_pauses(state: QueueState) -> None:
    for queue in state.queues.values():
        if queue.pause is not None and queue.resumes_at is not None:
            queue.pause = replace(queue.pause, until=queue.resumes_at + state.wall_offset)
            if state.changed is not None:
                state.changed(queue)


def _note_jobs(state: QueueState, after: int) -> int | None:
    """Does a slice of the jobs after the id `after`. Returns the id to go on after; None: that was all."""
    changed = 0
    for examined, job in enumerate(state.jobs.after(after)):
        if examined == EXAMINED or changed == CHANGED:
            return after
        after = job.id
        if _note(job, state.wall_offset):
            changed += 1
            if state.changed is not None:
                state.changed(job)
    return None


def _note(job: Job, offset: int) -> bool:
    """Sets the instants at which the lengths of `job` end. Returns whether it has any. Those of a
    finished job are over: when they ended does not change."""
    if job.status in FINISHED:
        return False
    has_length = job.status == IN_PROGRESS
    extras = job.extras
    if extras is None:
        return has_length
    if extras.due is not None:
        extras.run_at = extras.due + offset
        has_length = True
    options = extras.options
    if options is not None and options.expires_due is not None:
        options.expires_at = options.expires_due + offset
        has_length = True
    return has_length
