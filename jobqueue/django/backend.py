"""The backend of Django Tasks. It enqueues tasks as jobs, and shows jobs as results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.utils import timezone

from jobqueue.client import Job, NewJob
from jobqueue.django.registry import TaskJobs, know, shared_jobs
from jobqueue.django.results import result_of
from jobqueue.django.running import TaskSignature
from jobqueue.django.tasks_api import (
    BaseTaskBackend,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
)
from jobqueue.errors import InvalidField, JobForgotten, JobNotFound

_UNKNOWN = (JobNotFound, JobForgotten, InvalidField)


class JobQueueBackend(BaseTaskBackend):
    """Sends tasks to a jobqueue server.

    OPTIONS are `url`, `token`, `ca` and `cert` of the server (by default JOBQUEUE_URL and JOBQUEUE_TOKEN),
    and options of `@jobs.job` for all tasks: `max_attempts`, `backoff`, `timeout`, `retain_for` and so on.

    An exception fails a task for good, unless it is a `jobqueue.Retry`, or OPTIONS have `max_attempts`,
    `backoff` or `dead_on`. A task whose worker died runs again in any case.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        # In the order of the settings, for the worker.
        self.queue_names: list[str] = list(params.get("QUEUES", ["default"]))
        self.jobs: TaskJobs = shared_jobs(alias, self.options, type(self))

    def validate_task(self, task: Task) -> None:
        super().validate_task(task)
        know(self.alias, self.jobs, task)

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Enqueues a task. Raises what `client.jobs.enqueue` does, and `TypeError` for wrong arguments."""
        result, new = self._new(task, args, kwargs)
        _enqueued(result, self.jobs.client.jobs.enqueue(new.type, new.payload, **new.options))
        task_enqueued.send(type(self), task_result=result)
        return result

    async def aenqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """As `enqueue`, awaited."""
        result, new = self._new(task, args, kwargs)
        _enqueued(result, await self.jobs.aclient.jobs.enqueue(new.type, new.payload, **new.options))
        await task_enqueued.asend(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Returns the state of a task. Raises `TaskResultDoesNotExist`, also if it is forgotten: results are
        kept for an hour, or for `retain_for`."""
        try:
            return self._result(self.jobs.client.jobs.get(_id(result_id)))
        except _UNKNOWN as unknown:
            raise TaskResultDoesNotExist(result_id) from unknown

    async def aget_result(self, result_id: str) -> TaskResult:
        """As `get_result`, awaited."""
        try:
            return self._result(await self.jobs.aclient.jobs.get(_id(result_id)))
        except _UNKNOWN as unknown:
            raise TaskResultDoesNotExist(result_id) from unknown

    def _new(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[TaskResult, NewJob]:
        self.validate_task(task)
        result = TaskResult(
            task=task,
            id="",
            status=TaskResultStatus.READY,
            enqueued_at=None,
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        declared = know(self.alias, self.jobs, task).options(queue=task.queue_name, priority=task.priority)
        if task.run_after is not None:
            declared = declared.options(run_at=_aware(task.run_after))
        # Those of the result were checked by Django, and are plain JSON.
        return result, declared.prepare(*result.args, **result.kwargs).new

    def _result(self, job: Job) -> TaskResult:
        task = self.jobs.task(job.type)
        if task is None:
            raise JobNotFound(f"job {job.id} is no task: {job.type}")
        return result_of(job, task, TaskSignature(task), self.alias)


def _enqueued(result: TaskResult, job: Job) -> None:
    # It is frozen; backends change it in this way.
    object.__setattr__(result, "id", str(job.id))
    object.__setattr__(result, "enqueued_at", job.created_at or timezone.now())


def _aware(when: datetime) -> datetime:
    """Returns a time with a zone; one without is in Django's own, which is allowed if USE_TZ is false."""
    if timezone.is_aware(when):
        return when
    aware: datetime = timezone.make_aware(when)
    return aware


def _id(result_id: str) -> int:
    try:
        return int(result_id)
    except ValueError:
        raise JobNotFound(f"no id of a job: {result_id!r}") from None
