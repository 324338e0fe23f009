"""Admission: checks that there is capacity, and adds new jobs.

The checks raise `QueueFull` and change nothing, so a verb makes all of them before its first change.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Final

from msgspec import UNSET

from jobqueue import steps
from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.state import QueueState
from jobqueue.errors import QueueFull
from jobqueue.model import Change, Job, JobExtras, NewJob, Options

# How many queues of each kind are examined when names are scarce.
EXAMINED: Final = 250
# A queue from which this many jobs were taken keeps its name for its hour, also when names are scarce.
# Otherwise a client that fills queues of ever new names takes that of every queue that is empty for a moment.
ESTABLISHED: Final = 10


def check_job_limit(state: QueueState, count: int) -> None:
    """Checks that `count` more jobs are within `max_jobs`, which is set.

    Call it only when `last_number + count` exceeds `admitted_until`. It counts the jobs, and remembers up to
    which number no further count is needed.
    """
    max_jobs = state.limits.max_jobs
    assert max_jobs is not None
    held = state.counts.held()
    if held + count > max_jobs:
        raise QueueFull(
            f"the server holds {held:,} jobs, including finished ones that it remembers; the limit is "
            f"{max_jobs:,}",
            limit=max_jobs,
            setting="JOBQUEUE_MAX_JOBS",
            retry_after=5,
        )
    state.admitted_until = state.last_number + max_jobs - held


def check_queue_limit(state: QueueState, names: Iterable[str]) -> None:
    """Checks that the queues among `names` that do not exist yet may be created. If names are scarce, queues
    that nobody uses are dropped, but none of `names`."""
    max_queues = state.limits.max_queues
    names = frozenset(names)
    new = {name for name in names if name not in state.queues}
    if not new or len(state.queues) + len(new) <= max_queues:
        return
    if len(new) <= max_queues:
        free_names(state, len(state.queues) + len(new) - max_queues, names)
    if len(state.queues) + len(new) > max_queues:
        raise QueueFull(
            f"there are {len(state.queues):,} queues that are in use; the limit is {max_queues:,}",
            limit=max_queues,
            setting="JOBQUEUE_MAX_QUEUES",
            retry_after=60,
        )


def free_names(state: QueueState, needed: int, keep: frozenset[str]) -> None:
    """Drops up to `needed` queues that were used a few times at most: the empty ones first, then those that
    have finished jobs only. None of them is in `keep`, or has settings, a pause or waiting consumers."""

    def in_use(queue: NamedQueue) -> bool:
        return (
            queue.name in keep
            or queue.counts.total("dequeued") >= ESTABLISHED
            or state.waiters.waiting(queue.name) > 0
        )

    for _ in range(min(len(state.idle_queues), EXAMINED)):
        if needed <= 0:
            return
        queue, _ = state.idle_queues.popitem(last=False)
        if not queue.idle:
            continue  # it has been used since, and is marked when it is idle again
        if in_use(queue):
            state.idle_queues[queue] = None
        else:
            state.drop_queue(queue)
            state.dropped.queues += 1
            needed -= 1
    for _ in range(min(len(state.by_check), EXAMINED)):
        if needed <= 0:
            return
        queue = next(iter(state.by_check))
        state.by_check.move_to_end(queue)
        if queue.spent and not in_use(queue):
            state.drop_queue(queue)
            state.dropped.queues += 1
            needed -= 1


def check_capacity(state: QueueState, news: Sequence[NewJob], growth: dict[str, int], now: int) -> None:
    """Checks that the queues have capacity for all of `news`, and for payloads that grow by `growth`: bytes,
    by queue."""
    for name in dict.fromkeys([*[new.queue for new in news], *growth]):
        queue = state.queues.get(name)
        if queue is not None and queue.bounded:
            sizes = [len(new.payload) for new in news if new.queue == name]
            _check_queue(queue, len(sizes), sum(sizes) + growth.get(name, 0), now)


def check_capacity_for_change(state: QueueState, job: Job, change: Change, now: int) -> None:
    """Checks that the queue of a changed job has capacity for the job or its larger payload."""
    queue = state.queues.get(job.queue if change.queue is UNSET else change.queue)
    if queue is not None and queue.bounded:
        size = len(job.payload if change.payload is UNSET else change.payload)
        if queue.name != job.queue:
            _check_queue(queue, 1, size, now)
        elif size > len(job.payload):
            _check_queue(queue, 0, size - len(job.payload), now)


def _check_queue(queue: NamedQueue, jobs: int, size: int, now: int) -> None:
    """Checks that `jobs` more jobs and `size` more bytes of payload fit."""
    max_jobs, max_bytes = queue.settings.max_jobs, queue.settings.max_bytes
    excess = queue.queued + queue.scheduled + jobs - max_jobs if max_jobs is not None and jobs else 0
    if excess > 0 or (max_bytes is not None and queue.bytes + size > max_bytes):
        rate, name = queue.rates(now)[1], queue.name
        raise QueueFull(
            f"the queue {name} is at its limit of {'jobs' if excess > 0 else 'bytes'}; its consumers take "
            f"{rate:.1f} jobs a second",
            limit=max_jobs if excess > 0 else max_bytes,
            retry_after=min(max(ceil(max(excess, 1) / rate), 1), 60) if rate > 0 else 5,
        )


def add_job(state: QueueState, new: NewJob, queue: NamedQueue, now: int) -> Job:
    """Makes a job and queues it, or schedules it if it has a delay or a later `run_at`."""
    id = state.last_number + 1
    state.last_number = id
    job = Job(id, queue.name, new.type, new.priority, new.payload, state.wall(now), id)
    if new.options is not None or new.delay or new.run_at is not None or new.expires_in is not None:
        attach_options(state, job, new, now)
        queue_or_schedule(state, job, queue, now)
    else:
        state.transition(job, steps.ENQUEUE, now, queue)
    return job


def attach_options(state: QueueState, job: Job, new: NewJob, now: int) -> None:
    """Gives a new job its options, its delay and its expiry."""
    extras = job.extras = JobExtras(options=new.options)
    if new.expires_in is not None:
        options = extras.options = extras.options or Options()
        options.expires_due, options.expires_at = now + new.expires_in, state.wall(now) + new.expires_in
    if new.delay:
        extras.due, extras.run_at = now + new.delay, state.wall(now) + new.delay
    elif new.run_at is not None and new.run_at > state.wall(now):
        extras.run_at = new.run_at


def queue_or_schedule(state: QueueState, job: Job, queue: NamedQueue, now: int) -> None:
    """Takes the first step of a new job. A scheduled one gets its place when it is ready."""
    if job.extras is not None and job.extras.run_at is not None:
        job.place = 0
        state.transition(job, steps.SCHEDULE, now, queue)
    else:
        state.transition(job, steps.ENQUEUE, now, queue)
