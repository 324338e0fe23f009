"""Administration: settings and pauses of a named queue, and operations on many jobs."""

from typing import Final

from msgspec.structs import replace

from jobqueue import steps
from jobqueue.core.admission import check_queue_limit
from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.state import QueueState
from jobqueue.model import Filter, Job, Pause
from jobqueue.steps import IN_PROGRESS

# Bytes of payloads after which a scan for a text ends.
SEARCHED_BYTES: Final = 4 << 20


def configure(state: QueueState, name: str, given: dict[str, object], now: int) -> NamedQueue:
    queue = _queue_to_change(state, name, now)
    queue.configure(replace(queue.settings, **given), queue.counts.jobs()[IN_PROGRESS])
    state.to_match[name] = None
    if queue.idle:
        state.mark_idle(queue, now)
    if state.changed is not None:
        state.changed(queue)
    return queue


def pause(
    state: QueueState, name: str, length: int | None, reason: str | None, by: str | None, now: int
) -> NamedQueue:
    queue = _queue_to_change(state, name, now)
    _end_pause(state, queue)
    at = state.wall(now)
    queue.pause = Pause(at, None if length is None else at + length, reason, by)
    if length is not None:
        queue.resumes_at = now + length
        state.resume_timers.add(queue, queue.resumes_at)
    queue.version += 1
    if state.event is not None:
        state.event("pause", name)
    if state.changed is not None:
        state.changed(queue)
    return queue


def resume(state: QueueState, name: str, now: int) -> NamedQueue:
    created = name not in state.queues
    queue = _queue_to_change(state, name, now)
    if created:
        state.mark_idle(queue, now)
    if queue.pause is not None:
        resume_paused(state, queue, now)
    return queue


def resume_paused(state: QueueState, queue: NamedQueue, now: int) -> None:
    """Resumes a queue that is paused."""
    _end_pause(state, queue)
    if queue.idle:
        state.mark_idle(queue, now)
    queue.version += 1
    state.to_match[queue.name] = None
    if state.event is not None:
        state.event("resume", queue.name)
    if state.changed is not None:
        state.changed(queue)


def _queue_to_change(state: QueueState, name: str, now: int) -> NamedQueue:
    """Returns the queue, which is created if there is none. Raises `QueueFull`."""
    check_queue_limit(state, (name,))
    return state.queues.get(name) or state.new_queue(name, now)


def _end_pause(state: QueueState, queue: NamedQueue) -> None:
    if queue.resumes_at is not None:
        state.resume_timers.drop(queue, queue.resumes_at)
    elif queue.pause is not None and queue.pause.until is not None:
        state.pause_timers.drop(queue, queue.pause.until)
    queue.pause = queue.resumes_at = None


def scan(
    state: QueueState, wanted: Filter, after: int, rising: bool, now: int, limit: int, examine: int
) -> tuple[list[Job], int | None]:
    found: list[Job] = []
    wall, last = state.wall(now), after
    left = SEARCHED_BYTES
    jobs = state.jobs.after(after) if rising else state.jobs.before(after)
    for examined, job in enumerate(jobs):
        if examined == examine or len(found) == limit or left <= 0:
            return found, last
        last = job.id
        if wanted.text:
            left -= len(job.payload)
        if wanted.matches(job, wall):
            found.append(job)
    return found, None


def purge_job(state: QueueState, job: Job, now: int) -> None:
    state.transition(job, steps.PURGE, now, state.queue_of(job, now))
    if state.outcomes.count:
        state.answer_outcome_waiters(job)
