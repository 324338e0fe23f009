"""Explains in sentences why a job waits, and why a schedule makes no jobs."""

from msgspec import UNSET

from jobqueue.model import Cause, Explanation, Job, Schedule, ScheduleCause, ScheduleExplanation
from jobqueue.units import instant
from jobqueue.web.context import Context
from jobqueue.web.http import Request, Response
from jobqueue.web.schema.responses import Explained, ReasonView
from jobqueue.web.schema.schedules import ScheduleExplained, ScheduleReason
from jobqueue.web.writers.encoder import document


def explained(context: Context, request: Request, found: Explanation) -> Response:
    """Returns the answer to `GET /jobs/{id}/explain`."""
    context.admin.nothing(request)
    job = found.job
    reasons = [
        ReasonView(cause.code, _sentence(job, cause), UNSET if cause.until is None else instant(cause.until))
        for cause in found.causes
    ]
    return Response(200, document(Explained(job.id, job.status, found.ahead, reasons)))


def _sentence(job: Job, cause: Cause) -> str:
    match cause.code:
        case "scheduled":
            why = f" after attempt {cause.number}" if cause.number else ""
            return f"it rests{why} and is queued at {_at(cause)}"
        case "paused":
            until = f" until {_at(cause)}" if cause.until is not None else " until it is resumed"
            return f"the queue {job.queue} is paused{until}" + (f": {cause.name}" if cause.name else "")
        case "queue_limit":
            return (
                f"the queue {job.queue} may have no more jobs in progress than the {_jobs(cause.number)} it "
                f"has{_named(cause)}"
            )
        case "key_limit" if not cause.number:
            return f"the jobs of the key {cause.name} are in strict order, and one before it rests"
        case "key_limit":
            return (
                f"the key {cause.name} may have no more jobs in progress than the {_jobs(cause.number)} it "
                f"has{_named(cause)}"
            )
        case "rate_limit":
            whose = f"the key {cause.name}" if cause.name is not None else f"the queue {job.queue}"
            until = f"; the next one may start at {_at(cause)}" if cause.until is not None else ""
            return f"{whose} has started as many jobs as its rate allows{until}"
        case "behind":
            return f"at most {_jobs(cause.number)} ahead of it"
        case "no_consumer":
            busy = f"; {_jobs(cause.number)} in progress" if cause.number else ""
            asked = (
                "nobody has asked it for a job yet"
                if cause.ago is None
                else f"nobody has asked it for {_length(cause.ago)}"
                if cause.ago >= 1000
                else "somebody asked it less than a second ago"
            )
            return f"no consumer waits for a job of the queue {job.queue}: {asked}{busy}"
        case "running":
            who = f" by {cause.name}" if cause.name is not None else ""
            return f"attempt {cause.number} is under way{who}, leased until {_at(cause)}"
        case "finished":
            return f"it is {job.status}" + (f", reason {cause.name}" if cause.name is not None else "")


def schedule_explained(found: ScheduleExplanation) -> Response:
    """Returns the answer to `GET /schedules/{name}/explain`."""
    schedule = found.schedule
    reasons = [
        ScheduleReason(
            cause.code, _why(schedule, cause), UNSET if cause.until is None else instant(cause.until)
        )
        for cause in found.causes
    ]
    next_at = UNSET if schedule.next_at is None else instant(schedule.next_at)
    return Response(200, document(ScheduleExplained(schedule.plan.name, next_at, reasons)))


def _why(schedule: Schedule, cause: ScheduleCause) -> str:
    plan = schedule.plan
    since = "" if cause.since is None else instant(cause.since)
    why = "" if cause.why is None else f": {cause.why}"
    match cause.code:
        case "unusable":
            return f"this server knows no instants of it{why}"
        case "paused":
            return f"it is paused since {since}{why}; resume it"
        case "not_started":
            return f"its starts_at is {_at(cause)}"
        case "clock_set_back":
            return f"it is done with all instants until {_at(cause)}, and the clock has been set back since"
        case "ended":
            return f"its ends_at is {since}" if since else "it has no further instant"
        case "blocked":
            return f"its instant {since} has no job yet{why}; the next attempt is at {_at(cause)}"
        case "due":
            return f"its instant {since} is due, and its turn comes in a moment"
        case "refused":
            return f"new jobs are refused at present{why}"
        case "overlap" if plan.overlap == "allow":
            return f"job {cause.job} is {cause.why} and has the unique key of the next one, which is not made"
        case "overlap":
            return f"its job {cause.job} is {cause.why}; with overlap {plan.overlap} no further one is made"
        case "queue_paused":
            until = f" until {_at(cause)}" if cause.until is not None else ""
            return f"the queue {plan.job.queue} is paused{until}{why}; its jobs are made, and wait there"
        case "skipped_overlap":
            return f"{_past(cause)}{why} (job {cause.job})"
        case "skipped_paused":
            return f"{_past(cause)}: it was paused" + ("" if cause.why == "paused" else why)
        case "missed":
            return f"{_past(cause)}{why}"


def _past(cause: ScheduleCause) -> str:
    """Names the instants that an entry of a history stands for."""
    assert cause.since is not None
    assert cause.due_at is not None
    if cause.since == cause.due_at:
        return f"its last instant, {instant(cause.due_at)}, gave no job"
    return f"its instants from {instant(cause.since)} to {instant(cause.due_at)} gave no job"


def _at(cause: Cause | ScheduleCause) -> str:
    return "some time" if cause.until is None else instant(cause.until)


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"


def _named(cause: Cause) -> str:
    """Names some of the jobs by their ids."""
    more = " and others" if len(cause.jobs) < cause.number else ""
    return f": {', '.join(map(str, cause.jobs))}{more}" if cause.jobs else ""


def _length(ms: int) -> str:
    """Formats a duration for people, such as `9 minutes`."""
    for unit, size in (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000)):
        if ms >= size:
            count = ms // size
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{ms} ms"
