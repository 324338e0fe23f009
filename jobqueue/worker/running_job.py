"""A job in progress in this worker, and what is reported when it ends."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw

from jobqueue.client import Conclude, Fail, Job, Release
from jobqueue.client.encoding import encode_json, seconds
from jobqueue.errors import InvalidField, JobQueueError
from jobqueue.jobs.context import Context, writable
from jobqueue.jobs.declared import DeclaredJob
from jobqueue.jobs.outcomes import Dead, GiveBack, Retry

# Why a job is stopped: somebody cancelled it, its lease is lost, its time is over, or the worker ends.
StopReason = Literal["cancelled", "lost", "timeout", "ending"]
# What ends a job. None: nothing is reported, since the job belongs to somebody else.
Report = Conclude | Fail | Release | None
# Bytes of an error in JSON; the server takes 16 KiB. Characters of its message, and of the path of its class.
_MAX_ERROR: Final = 15 << 10
_MAX_MESSAGE: Final = 2000
_MAX_PATH: Final = 300
# How an error begins that stands for a report which the server refused.
_REFUSED: Final = ("the result was refused", "the report was refused")


class RunningJob:
    """A job in progress.

    `stopped` says why it was stopped, if it was. `stop` is what stops it, from any thread; whatever runs the
    job sets it. `reported`: it has ended, or is not waited for any longer; `given_up`: it was stopped, and
    did not end.
    """

    __slots__ = (
        "context", "declared", "given_up", "id", "job", "lease", "reported", "stop", "stopped", "timer",
    )  # fmt: skip

    def __init__(self, job: Job, declared: DeclaredJob[..., Any, Any], context: Context) -> None:
        self.id = job.id
        self.lease = job.lease
        self.job = job
        self.declared = declared
        self.context = context
        self.stopped: StopReason | None = None
        self.stop: Callable[[], object] = nothing_to_stop
        self.reported = False
        self.given_up = False
        self.timer: Any = None  # of its timeout, on the link's loop

    def begin_stop(self, reason: StopReason) -> bool:
        """Notes why the job is to stop. Returns whether this is the first reason: then it has to be stopped.

        The first reason is the one that is reported, so a job whose time was over has timed out although the
        worker ends now. Only a lost lease takes its place: then nothing is reported.
        """
        if self.reported or self.stopped == "lost":
            return False
        is_first = self.stopped is None
        if is_first or reason == "lost":
            self.stopped = reason
        self.context.stop()
        return is_first

    def is_stopped(self) -> bool:
        """Tells whether the job is to stop. Other threads say so, so it may change at any time."""
        return self.stopped is not None


def nothing_to_stop() -> None:
    """Stops a job that has not started."""


def running_job(job: Job, declared: DeclaredJob[..., Any, Any], now: datetime | None = None) -> RunningJob:
    """Returns a job that begins at `now`."""
    timeout = declared.running.timeout
    context = Context(
        id=job.id,
        queue=job.queue,
        type=job.type,
        attempt=job.attempts,
        headers=job.headers,
        deadline=None if timeout is None else (now or datetime.now(UTC)) + timedelta(seconds=timeout),
        client=declared.shared.client,
        aclient=declared.shared.aclient,
    )
    return RunningJob(job, declared, context)


def returned(id: int, lease: str | None, value: Any) -> Report:
    """Returns the report of a job whose function returned a value."""
    if value is None:
        return Conclude(id, lease)
    try:
        return Conclude(id, lease, Raw(encode_json(value)))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as bad:
        return Fail(
            id, lease, f"the result cannot be written as JSON: {_message(bad)}"[:_MAX_MESSAGE], retry=False
        )


def raised(
    id: int, lease: str | None, error: BaseException, dead_on: tuple[type[BaseException], ...]
) -> Report:
    """Returns the report of a job whose function raised an error."""
    if isinstance(error, (GiveBack, Retry)):
        try:
            if isinstance(error, GiveBack):
                return Release(id, lease, seconds(error.delay))
            return Fail(
                id, lease, _said(error), retry_in=None if error.after is None else seconds(error.after)
            )
        except InvalidField as bad:
            return Fail(id, lease, described(TypeError(f"{type(error).__name__}: {bad}")))
    if isinstance(error, Dead):
        return Fail(id, lease, _said(error), retry=False)
    return Fail(id, lease, described(error), retry=not isinstance(error, dead_on))


def refused(report: Conclude | Fail | Release, error: Exception) -> Fail | None:
    """Returns what to report after a report was refused; None: nothing, since the lease is lost, or this was
    such a report.

    Without a report the job would wait for the end of its lease. One whose result was refused is not tried
    again: doing the work again would not change it.
    """
    if isinstance(error, JobQueueError) and is_lease_lost(error):
        return None
    if isinstance(report, Fail) and str(report.error).startswith(_REFUSED):
        return None
    if isinstance(report, Conclude):
        text = writable(f"{_REFUSED[0]}: {error}")[:_MAX_MESSAGE]
        return Fail(report.id, report.lease, text, retry=False)
    return Fail(report.id, report.lease, writable(f"{_REFUSED[1]}: {error}")[:_MAX_MESSAGE])


def is_lease_lost(error: JobQueueError) -> bool:
    """Tells whether an answer for one job says that it belongs to nobody or to somebody else."""
    return error.facts.get("status") in (403, 404, 409, 410)


def unfit(id: int, lease: str | None, error: Exception) -> Report:
    """Returns the report of a job whose payload does not fit its function. A retry would not change that."""
    return Fail(id, lease, f"the payload does not fit: {_message(error)}"[:_MAX_MESSAGE], retry=False)


def stopped(running: RunningJob) -> Report:
    """Returns the report of a job that was stopped by the worker."""
    if running.stopped == "lost":
        return None
    if running.stopped == "timeout":
        timeout = running.declared.running.timeout or 0
        error = {"type": "JobTimeout", "message": f"it took longer than its timeout of {timeout:g} s"}
        return Fail(running.id, running.lease, error)
    return Release(running.id, running.lease)


def _said(error: BaseException) -> str:
    """Returns what a `Retry` or `Dead` says, or else what it was raised from."""
    cause = error.__cause__
    text = _message(error) or ("" if cause is None else f"{type(cause).__name__}: {_message(cause)}")
    return (text or type(error).__name__)[:_MAX_MESSAGE]


def described(error: BaseException) -> dict[str, Any]:
    """Returns an error as the server keeps it: type and message; in its details the path of its class, and
    the traceback within its limit."""
    found = {"type": type(error).__name__[:200], "message": _message(error)[:_MAX_MESSAGE]}
    path = f"{type(error).__module__}.{type(error).__qualname__}"[:_MAX_PATH]
    lines = _traceback(error)
    while lines:
        whole = {**found, "details": {"class": path, "traceback": lines}}
        over = len(encode_json(whole)) - _MAX_ERROR
        if over <= 0:
            return whole
        lines = lines[over:]  # the end says most
    return found


def _message(error: BaseException) -> str:
    try:
        return writable(str(error))
    except Exception:  # an exception of the job's own, whose text cannot be made
        return "(its text cannot be made)"


def _traceback(error: BaseException) -> str:
    try:
        parts = traceback.format_exception(error)
    except Exception as bad:  # what is shown of an exception may be the job's own code
        parts = [f"(its traceback cannot be made: {type(bad).__name__})\n"]
    return writable("".join([p if len(p) <= _MAX_MESSAGE else p[:_MAX_MESSAGE] + "…\n" for p in parts]))
