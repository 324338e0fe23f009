"""Expected failures: one class for each thing that a caller can do something about.

Each class has a stable `code`. This module knows nothing of HTTP: `jobqueue.web.writers.problems` maps
each class to a status.
"""

from typing import ClassVar


class JobQueueError(Exception):
    """A refusal that the caller can understand and act on.

    `detail` tells a person what was wrong, what is allowed and how to do it. `facts` are members for a
    program, such as `field`, `index`, `nearest`, `job_status`, `attempts`, `limit` or `setting`.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str, **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts

    @property
    def status(self) -> int | None:
        """The status of the server's answer, on the client's side; None: there was no answer."""
        status = self.facts.get("status")
        return status if isinstance(status, int) else None

    @property
    def request_id(self) -> str | None:
        """The id of the request in the server's log, on the client's side; None: there was no answer."""
        request_id = self.facts.get("request_id")
        return request_id if isinstance(request_id, str) else None


class SettingError(JobQueueError):
    """A setting has a bad value or an unknown name. The server does not start."""

    code = "bad_setting"


class IllegalStep(Exception):
    """A step that the table in `jobqueue.steps` does not have. It is a bug, never the caller's fault."""


# -- the request makes no sense -------------------------------------------------------------------


class BadInput(JobQueueError):
    """The request is malformed, or has a value that is not allowed."""


class InvalidJson(BadInput):
    code = "invalid_json"


class InvalidField(BadInput):
    code = "invalid_field"


class MissingField(BadInput):
    code = "missing_field"


class UnknownField(BadInput):
    code = "unknown_field"


class LeaseRequired(BadInput):
    code = "lease_required"


class SeveralFamilies(BadInput):
    """A call that is all or nothing names queues that several servers may have."""

    code = "several_families"


class BadRequest(BadInput):
    """The HTTP framing of the request is broken or ambiguous."""

    code = "bad_request"


# -- no such job ------------------------------------------------------------------------------------


class JobNotFound(JobQueueError):
    """The id was never assigned."""

    code = "job_not_found"


class JobForgotten(JobQueueError):
    """The id was assigned. Its job has finished or was removed, and is no longer retained."""

    code = "job_forgotten"


class ScheduleNotFound(JobQueueError):
    """There is no schedule of that name."""

    code = "schedule_not_found"


# -- the state of the job does not allow the call -------------------------------------------------


class Conflict(JobQueueError):
    """The job exists, but its state does not allow the call."""


class LeaseLost(Conflict):
    code = "lease_lost"


class NotInProgress(Conflict):
    code = "not_in_progress"


class NotWaiting(Conflict):
    code = "not_waiting"


class DuplicateJob(Conflict):
    """Another job has the unique key. The fact `job_id` names it."""

    code = "duplicate_job"


class NotDead(Conflict):
    code = "not_dead"


class JobFinished(Conflict):
    code = "job_finished"


class OtherGroup(Conflict):
    """The schedule belongs to another group."""

    code = "other_group"


class PreconditionFailed(JobQueueError):
    """The version in `If-Match` is not the current one."""

    code = "precondition_failed"


# -- authentication -------------------------------------------------------------------------------


class Unauthorized(JobQueueError):
    """The request has no access token, or one that is unknown, expired or revoked."""

    code = "unauthorized"


# -- authorization --------------------------------------------------------------------------------


class Refused(JobQueueError):
    """This caller may not make this call."""

    code = "forbidden"


class NotTheConsumer(Refused):
    code = "not_the_consumer"


class CrossOrigin(Refused):
    code = "cross_origin"


# -- routing --------------------------------------------------------------------------------------


class NoSuchRoute(JobQueueError):
    code = "no_such_route"


class MethodNotAllowed(JobQueueError):
    """The path exists, with other methods. The fact `allow` names them."""

    code = "method_not_allowed"


# -- limits ---------------------------------------------------------------------------------------


class BodyTooLarge(JobQueueError):
    code = "body_too_large"


class HeadersTooLarge(JobQueueError):
    code = "headers_too_large"


class UnsupportedEncoding(JobQueueError):
    code = "unsupported_encoding"


class RequestTimeout(JobQueueError):
    """The request did not arrive completely within its time limit."""

    code = "request_timeout"


class TooMany(JobQueueError):
    """Too much, for now. The fact `retry_after` is the number of seconds to wait."""


class TooManyRequests(TooMany):
    """One caller sends more requests a second than allowed."""

    code = "too_many_requests"


class QueueFull(TooMany):
    """A limit of a queue or of the server is reached. The fact `setting` names a limit of the server."""

    code = "queue_full"


class TooManySchedules(TooMany):
    """The limit of schedules is reached."""

    code = "too_many_schedules"


class NoRoom(JobQueueError):
    """There is no space for the job, and waiting alone may not help."""


class OutOfMemory(NoRoom):
    code = "out_of_memory"


class DiskFull(NoRoom):
    code = "disk_full"


class IdempotencyMismatch(JobQueueError):
    """The `Idempotency-Key` was used before with a different request."""

    code = "idempotency_mismatch"


# -- unavailable ----------------------------------------------------------------------------------


class Unavailable(JobQueueError):
    """The server cannot serve this now. The fact `retry_after` is the number of seconds to wait."""


class NotReady(Unavailable):
    code = "not_ready"


class Stopping(Unavailable):
    code = "stopping"


class OutcomeUnknown(Unavailable):
    """The database did not confirm the call in time. It may take effect, or not."""

    code = "outcome_unknown"


class Overloaded(Unavailable):
    code = "overloaded"
