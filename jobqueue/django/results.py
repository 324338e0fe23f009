"""A job of the queue as Django's `TaskResult`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from jobqueue.client import Job, JobError
from jobqueue.django.running import TaskSignature
from jobqueue.django.tasks_api import (
    TASK_MAX_PRIORITY,
    TASK_MIN_PRIORITY,
    Task,
    TaskError,
    TaskResult,
    TaskResultStatus,
)

_STATUSES: Final = {
    "scheduled": TaskResultStatus.READY,
    "queued": TaskResultStatus.READY,
    "in_progress": TaskResultStatus.RUNNING,
    "concluded": TaskResultStatus.SUCCESSFUL,
    "dead": TaskResultStatus.FAILED,
    "cancelled": TaskResultStatus.FAILED,
}
# The class of an error that is no exception, such as a lease that ended or a cancel.
_NO_EXCEPTION: Final = "jobqueue.JobFailed"


def result_of(job: Job, task: Task, signature: TaskSignature, alias: str) -> TaskResult:
    """Returns the state of a task whose job the server showed, with its history."""
    history = job.history or []
    # A dead-letter queue has the job once more, for somebody to look at; for Django it has failed.
    status = TaskResultStatus.FAILED if job.dead_from is not None else _STATUSES[job.status]
    try:
        args, kwargs = signature.arguments_of(bytes(job.payload_json))
    except ValueError:  # it was not enqueued by Django, and does not fit; its error says so
        args, kwargs = [], {}
    result = TaskResult(
        task=_as_enqueued(task, job),
        id=str(job.id),
        status=status,
        enqueued_at=job.created_at,
        started_at=history[0].started_at if history else job.started_at,
        last_attempted_at=job.started_at,
        finished_at=job.finished_at,
        args=args,
        kwargs=kwargs,
        backend=alias,
        errors=_errors(job, status),
        worker_ids=[attempt.consumer or "" for attempt in history],
    )
    if status == TaskResultStatus.SUCCESSFUL:
        object.__setattr__(result, "_return_value", job.result)
    return result


def _as_enqueued(task: Task, job: Job) -> Task:
    """Returns the task with the options of its job, as far as Django knows such."""
    queues = task.get_backend().queues
    return replace(
        task,
        queue_name=job.queue if not queues or job.queue in queues else task.queue_name,
        priority=min(max(job.priority, TASK_MIN_PRIORITY), TASK_MAX_PRIORITY),
    )


def _errors(job: Job, status: TaskResultStatus) -> list[TaskError]:
    found = [_error(attempt.error) for attempt in job.history or () if attempt.error is not None]
    if not found and status == TaskResultStatus.FAILED:
        why = job.error if job.error is not None else f"the job is {job.status} ({job.reason})"
        found.append(_error(why))
    return found


def _error(error: str | JobError) -> TaskError:
    if isinstance(error, str):
        return TaskError(exception_class_path=_NO_EXCEPTION, traceback=error)
    details: dict[str, Any] = error.details if isinstance(error.details, dict) else {}
    return TaskError(
        exception_class_path=str(details.get("class", _NO_EXCEPTION)),
        traceback=str(details.get("traceback", f"{error.type}: {error.message}")),
    )
