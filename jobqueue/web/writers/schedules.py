"""Schedules as answers show them."""

from msgspec import UNSET, UnsetType

from jobqueue.model import Firing, Job, JobExtras, JobTemplate, Options, Plan, Schedule
from jobqueue.units import instant, seconds
from jobqueue.web.schema.schedules import FiringView, ScheduledJobView, SchedulePauseView, ScheduleView
from jobqueue.web.writers.encoder import add_options, known, length
from jobqueue.web.writers.raw import shown_payload


def view(schedule: Schedule, means: str, upcoming: list[int] | None, longest_text: int) -> ScheduleView:
    """Returns a schedule; with its next instants, unless that is None. A payload that is text and takes more
    than `longest_text` bytes in JSON is shown in base64."""
    plan = schedule.plan
    paused_at = schedule.paused_at
    return ScheduleView(
        name=plan.name,
        group=known(plan.group),
        cron=known(plan.cron),
        every=length(plan.every),
        timezone=UNSET if plan.cron is None else plan.timezone,
        means=means or UNSET,
        paused=paused_at is not None,
        pause=UNSET
        if paused_at is None
        else SchedulePauseView(at=instant(paused_at), reason=known(schedule.pause_reason)),
        next_at=_instant(schedule.next_at),
        next=UNSET if upcoming is None else [instant(due) for due in upcoming],
        last=firing(schedule.history[-1]) if schedule.history else UNSET,
        blocked=known(schedule.blocked),
        misfire=plan.misfire,
        grace=length(plan.grace),
        overlap=plan.overlap,
        jitter=seconds(plan.jitter),
        starts_at=_instant(plan.starts_at),
        ends_at=_instant(plan.ends_at),
        created_at=instant(schedule.created_at),
        etag=f'"{schedule.version}"',
        job=_job(plan.job, longest_text),
    )


def firing(entry: Firing) -> FiringView:
    """Returns an entry of a history."""
    return FiringView(
        due_at=instant(entry.due_at),
        at=instant(entry.at),
        outcome=entry.outcome,
        job=known(entry.job),
        reason=known(entry.reason),
        since=_instant(entry.since),
    )


def size(plan: Plan) -> int:
    """Returns about how many bytes a schedule takes in an answer."""
    return 800 + len(plan.job.payload)


def _job(job: JobTemplate, longest_text: int) -> ScheduledJobView:
    options = job.options or Options()
    content_type, encoding, payload = shown_payload(
        Job(0, job.queue, job.type, job.priority, job.payload, 0, 0, extras=JobExtras(options=options)),
        longest_text,
    )
    view = ScheduledJobView(
        type=job.type,
        queue=job.queue,
        priority=job.priority,
        expires_in=length(job.expires_in),
        content_type=content_type,
        payload_encoding=encoding,
        payload=payload,
    )
    add_options(view, options)
    return view


def _instant(wall_ms: int | None) -> str | UnsetType:
    return UNSET if wall_ms is None else instant(wall_ms)
