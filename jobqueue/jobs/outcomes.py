"""Exceptions by which a job says how its attempt ends. Any other exception is a failure, which is retried."""

from jobqueue.client import Duration


class Retry(Exception):
    """This attempt failed; the next one comes after `after`, or else after the job's backoff.

    When the attempts are used up, the job is dead.
    """

    def __init__(self, message: str = "", *, after: Duration | None = None) -> None:
        super().__init__(message)
        self.after = after


class GiveBack(Exception):
    """This attempt does not count. The job is taken again after `delay`, 0 by default."""

    def __init__(self, message: str = "", *, delay: Duration = 0) -> None:
        super().__init__(message)
        self.delay = delay


class Dead(Exception):
    """This attempt failed, and there is no next one: the job is dead, or in its dead-letter queue."""


class JobStopped(BaseException):
    """Raised inside a job that runs in a thread, to stop it: it was cancelled, its lease is lost, its time is
    over, or the worker ends. Like `asyncio.CancelledError` it is no `Exception`, so that a job does not catch
    it by mistake."""
