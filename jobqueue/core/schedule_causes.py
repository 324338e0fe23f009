"""Why a schedule makes no jobs, or made none. Reads what `Schedules` decides by, and changes nothing."""

from jobqueue.core.dedup import unique_owner
from jobqueue.core.state import QueueState
from jobqueue.model import NewJob, Schedule, ScheduleCause


def causes(schedule: Schedule, wall: int, fault: str | None) -> list[ScheduleCause]:
    """Returns why the next instant of a schedule is far, or is never. `fault`: why its plan has no instants
    at all."""
    plan = schedule.plan
    if fault is not None:
        return [ScheduleCause("unusable", why=fault)]
    found = []
    if schedule.paused_at is not None:
        found.append(ScheduleCause("paused", since=schedule.paused_at, why=schedule.pause_reason))
    if plan.starts_at is not None and plan.starts_at > wall:
        found.append(ScheduleCause("not_started", plan.starts_at))
    if schedule.done_until > wall:
        found.append(ScheduleCause("clock_set_back", schedule.done_until))
    if schedule.paused_at is None and schedule.next_at is None:
        found.append(ScheduleCause("ended", since=plan.ends_at))
    if schedule.next_at is not None and schedule.next_at <= wall:
        if schedule.blocked is not None:
            found.append(ScheduleCause("blocked", schedule.wakes_at, schedule.next_at, schedule.blocked))
        else:
            found.append(ScheduleCause("due", since=schedule.next_at))
    return found


def obstacles(state: QueueState, new: NewJob) -> list[ScheduleCause]:
    """Returns what is in the way of `new`, the job of the next instant, as things are now."""
    found = []
    owner = unique_owner(state, new)
    if owner is not None:
        found.append(ScheduleCause("overlap", job=owner.id, why=owner.status))
    queue = state.queues.get(new.queue)
    if queue is not None and queue.pause is not None:
        found.append(ScheduleCause("queue_paused", queue.pause.until, why=queue.pause.reason))
    return found
