"""A job that was enqueued, and waiting for its result."""

from __future__ import annotations

import time
from typing import Final, Generic, TypeVar

from jobqueue.client import Duration, Job
from jobqueue.client.encoding import seconds
from jobqueue.jobs.shared import Shared
from jobqueue.jobs.signature import Signature

R = TypeVar("R")
# Seconds that one request waits; the server allows 60.
_WAIT: Final = 25.0


class JobFailed(Exception):
    """The job whose result was asked for is dead or cancelled.

    `job` is the job as the server shows it: `job["reason"]`, `job["error"]`, `job["attempts"]` and so on.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(_why(job))
        self.job = job


class NotFinished(TimeoutError):
    """The job whose result was asked for has not finished in the time given."""


class Handle(Generic[R]):
    """A job that was enqueued. `duplicate`: it was there before, by its unique or idempotency key."""

    def __init__(self, shared: Shared, signature: Signature, job: Job) -> None:
        self._shared = shared
        self._signature = signature
        self.id = job.id
        self.duplicate = job.duplicate

    def result(self, wait: Duration | None = None) -> R:
        """Waits until the job has finished, and returns what its function returned.

        `wait`: how long; None: without end. Raises `JobFailed` if it is dead or cancelled, `NotFinished` when
        the time is over, `JobNotFound` or `JobForgotten` if the server remembers it no longer, `InvalidField`
        for a `wait` that is no duration, and what a call may raise.
        """
        end = _end(wait)
        while True:
            job = self._shared.client.jobs.get(self.id, wait=_next_wait(end))
            if job.finished or self._shared.hint or time.monotonic() >= end:
                return self._result_of(job)

    async def aresult(self, wait: Duration | None = None) -> R:
        """As `result`, awaited."""
        end = _end(wait)
        while True:
            job = await self._shared.aclient.jobs.get(self.id, wait=_next_wait(end))
            if job.finished or self._shared.hint or time.monotonic() >= end:
                return self._result_of(job)

    def job(self) -> Job:
        """Returns the job as it is now."""
        return self._shared.client.jobs.get(self.id)

    async def ajob(self) -> Job:
        return await self._shared.aclient.jobs.get(self.id)

    def cancel(self) -> Job:
        """Cancels the job; if it runs, its worker is asked to stop it. Raises `JobFinished`."""
        return self._shared.client.jobs.cancel(self.id)

    async def acancel(self) -> Job:
        return await self._shared.aclient.jobs.cancel(self.id)

    def _result_of(self, job: Job) -> R:
        if not job.finished:
            hint = self._shared.hint
            if not hint and job.status == "queued" and not job.leases:
                hint = f"no worker has taken it from the queue {job.queue!r}"
            raise NotFinished(f"job {job.id} is {job.status}" + (f"; {hint}" if hint else ""))
        if job.status != "concluded":
            raise JobFailed(job)
        result: R = self._signature.result(bytes(job.result_json))
        return result

    def __repr__(self) -> str:
        return f"<Handle of job {self.id}>"


def _end(wait: Duration | None) -> float:
    return float("inf") if wait is None else time.monotonic() + seconds(wait)


def _next_wait(end: float) -> float:
    return round(max(0.0, min(_WAIT, end - time.monotonic())), 3)


def _why(job: Job) -> str:
    error = job.error
    text = error if isinstance(error, str) else None if error is None else error.message
    said = f": {text}" if text else ""
    return f"job {job.id} is {job.status}{f' ({job.reason})' if job.reason else ''}{said}"
