"""Editing: changes a job that is scheduled or queued."""

from typing import Final

from msgspec import UNSET

from jobqueue import steps
from jobqueue.core.admission import check_queue_limit
from jobqueue.core.named_queue import key_of
from jobqueue.core.state import QueueState
from jobqueue.model import Change, Job, JobExtras, Options
from jobqueue.steps import QUEUED

# Options that a change sets as given; None: inherited from the queue.
_CHANGEABLE: Final = (
    "lease_for", "max_run_for", "max_attempts", "backoff", "retain_for", "key", "tags", "headers",
)  # fmt: skip


def change_job(state: QueueState, job: Job, change: Change, now: int) -> None:
    """Applies `change`. Raises `QueueFull` before the first change if its queue may not be created.

    A change of queue, priority, time, expiry or key changes where the job is kept, so it leaves its queue and
    enters again. Another queue or priority puts it at the end there; otherwise it keeps its place.
    """
    queue = change.queue if change.queue is not UNSET else job.queue
    priority = change.priority if change.priority is not UNSET else job.priority
    extras = job.extras
    if queue != job.queue:
        check_queue_limit(state, (queue,))
    retimed = change.delay is not UNSET or change.run_at is not UNSET
    moved = queue != job.queue or priority != job.priority
    if retimed and not moved and not (change.delay or change.run_at) and job.status is QUEUED:
        retimed = False  # to be ready at once, which it is
    rekeyed = change.key is not UNSET and change.key != key_of(job)
    reenters = moved or retimed or rekeyed or change.expires_in is not UNSET
    gives_up = False  # its place, as it rests
    due: int | None = None
    run_at: int | None = None
    if reenters:
        if retimed:
            due, run_at = _start_time(state, change, now)
            # In a key in strict order one that was leased keeps its place, and what is after it waits. Any
            # other would keep those before it waiting, too.
            keeps = job.leases > 0 and state.queues[job.queue].is_ordered(key_of(job))
            gives_up = run_at is not None and not keeps
        elif extras is not None:
            due, run_at = extras.due, extras.run_at  # the transition resets them
        if queue != job.queue:
            state.leave_queue(job, now, state.queues[job.queue])
        else:
            state.transition(job, steps.LEAVE, now, state.queues[job.queue])
        if moved or gives_up:
            job.place = 0
    job.queue, job.priority = queue, priority
    if change.type is not UNSET:
        job.type = change.type
    if change.payload is not UNSET:
        if not reenters:
            state.queues[queue].bytes += len(change.payload) - len(job.payload)
        job.payload = change.payload
        if extras is not None and extras.options is not None:
            extras.options.content_type = change.content_type
        if state.changed is not None:
            state.payload_changed.add(job.id)
    _change_options(state, job, change, now)
    if reenters:
        target = state.queues.get(queue) or state.new_queue(queue, now)
        extras = job.extras = job.extras or JobExtras()
        extras.due, extras.run_at = due, run_at
        state.transition(job, steps.ENTER if run_at is None else steps.ENTER_LATER, now, target)
    else:
        job.version += 1
        if state.changed is not None:
            state.changed(job)
        if state.event is not None:
            state.event("change", job)


def _start_time(state: QueueState, change: Change, now: int) -> tuple[int | None, int | None]:
    """Returns the new `due` and `run_at`; None, None if the job is ready at once."""
    if change.delay:
        return now + change.delay, state.wall(now) + change.delay
    if change.run_at is not UNSET and change.run_at is not None and change.run_at > state.wall(now):
        return None, change.run_at
    return None, None


def _change_options(state: QueueState, job: Job, change: Change, now: int) -> None:
    given = {name: value for name in _CHANGEABLE if (value := getattr(change, name)) is not UNSET}
    if not given and change.expires_in is UNSET:
        return
    extras = job.extras = job.extras or JobExtras()
    options = extras.options = extras.options or Options()
    for name, value in given.items():
        setattr(options, name, value)
    if change.expires_in is not UNSET:
        length = change.expires_in
        options.expires_due = None if length is None else now + length
        options.expires_at = None if length is None else state.wall(now) + length
