"""Expected failures: one class for each thing that a caller can do something about.

Each class has a stable `code`. This module knows no HTTP: which status a failure becomes is said once,
in `jobqueue.web.writers.problems`.
"""

from typing import ClassVar


class JobQueueError(Exception):
    """A refusal that a caller can understand.

    `detail` says what was wrong, what is allowed and how to do it. `facts` are further members for a
    machine, such as `field`, `index`, `nearest`, `job_status`, `attempts`, `limit` or `setting`.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str, **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class SettingError(JobQueueError):
    """A setting has a bad value or an unknown name; the server does not start."""

    code = "bad_setting"


class IllegalStep(Exception):
    """A bug: a step that the table of `core.job` does not have. Never a caller's fault."""


# -- what was asked cannot be understood ------------------------------------------------------------


class BadInput(JobQueueError):
    """The request says something that no job queue could do."""


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


class BadRequest(BadInput):
    """The framing of the request is broken or ambiguous."""

    code = "bad_request"


# -- no such job ------------------------------------------------------------------------------------


class JobNotFound(JobQueueError):
    """The id was never given."""

    code = "job_not_found"


class JobForgotten(JobQueueError):
    """The id was given; its job finished, or was removed, and is no longer remembered."""

    code = "job_forgotten"


# -- the job is not in the state for it -------------------------------------------------------------


class Conflict(JobQueueError):
    """The job exists, its state does not allow the call."""


class LeaseLost(Conflict):
    code = "lease_lost"


class NotInProgress(Conflict):
    code = "not_in_progress"


class NotWaiting(Conflict):
    code = "not_waiting"


class DuplicateJob(Conflict):
    """The unique key is taken; fact `job_id` says by which job."""

    code = "duplicate_job"


class NotDead(Conflict):
    code = "not_dead"


class JobFinished(Conflict):
    code = "job_finished"


class PreconditionFailed(JobQueueError):
    """`If-Match` names another version than the job has."""

    code = "precondition_failed"


# -- who calls --------------------------------------------------------------------------------------


class Unauthorized(JobQueueError):
    """No access token, or one that is not good here."""

    code = "unauthorized"


# -- not for this caller ----------------------------------------------------------------------------


class Refused(JobQueueError):
    """The call is fine, the caller may not make it."""

    code = "forbidden"


class NotTheConsumer(Refused):
    code = "not_the_consumer"


class CrossOrigin(Refused):
    code = "cross_origin"


# -- where the call went ----------------------------------------------------------------------------


class NoSuchRoute(JobQueueError):
    code = "no_such_route"


class MethodNotAllowed(JobQueueError):
    """The route exists with other methods; fact `allow` names them."""

    code = "method_not_allowed"


# -- too much ---------------------------------------------------------------------------------------


class BodyTooLarge(JobQueueError):
    code = "body_too_large"


class HeadersTooLarge(JobQueueError):
    code = "headers_too_large"


class UnsupportedEncoding(JobQueueError):
    code = "unsupported_encoding"


class RequestTimeout(JobQueueError):
    """The request did not arrive whole in its time."""

    code = "request_timeout"


class TooMany(JobQueueError):
    """Fewer, or later; fact `retry_after` says in how many seconds."""


class TooManyRequests(TooMany):
    """By one caller."""

    code = "too_many_requests"


class QueueFull(TooMany):
    """A bound of the queue, or of the server, is reached: fact `setting` names the server's."""

    code = "queue_full"


class NoRoom(JobQueueError):
    """There is nowhere to put it, and waiting alone may not help."""


class OutOfMemory(NoRoom):
    code = "out_of_memory"


class DiskFull(NoRoom):
    code = "disk_full"


class IdempotencyMismatch(JobQueueError):
    """The same `Idempotency-Key` came with other bytes."""

    code = "idempotency_mismatch"


# -- not now ----------------------------------------------------------------------------------------


class Unavailable(JobQueueError):
    """Try again later; fact `retry_after` says in how many seconds."""


class NotReady(Unavailable):
    code = "not_ready"


class Stopping(Unavailable):
    code = "stopping"


class Overloaded(Unavailable):
    code = "overloaded"
