"""Explains in sentences why a job waits."""

from jobqueue.model import Cause, Explanation, Job
from jobqueue.units import instant
from jobqueue.web.context import Context
from jobqueue.web.http import Request, Response
from jobqueue.web.writers.encoder import document


def explained(context: Context, request: Request, found: Explanation) -> Response:
    """Returns the answer to `GET /jobs/{id}/explain`."""
    context.admin.nothing(request)
    job = found.job
    reasons = []
    for cause in found.causes:
        reason = {"code": cause.code, "detail": _sentence(job, cause)}
        if cause.until is not None:
            reason["until"] = instant(cause.until)
        reasons.append(reason)
    return Response(
        200, document({"id": job.id, "status": job.status, "ahead": found.ahead, "reasons": reasons})
    )


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


def _at(cause: Cause) -> str:
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
