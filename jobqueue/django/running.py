"""How a worker runs a Django task: its arguments, the signals of Django, and the database connections."""

from __future__ import annotations

import inspect
import os
import socket
import traceback
from typing import Any, Final

import msgspec
from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.utils import timezone

from jobqueue.django.tasks_api import (
    Task,
    TaskContext,
    TaskError,
    TaskResult,
    TaskResultStatus,
    task_finished,
    task_started,
)
from jobqueue.jobs.context import Context
from jobqueue.jobs.outcomes import GiveBack, Retry
from jobqueue.jobs.signature import Signature

# The member of a payload that has the arguments of a function without names for them. No name is like it.
_BY_POSITION: Final = "*"
_NAMELESS: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
# Outcomes that do not finish the task.
_COMES_AGAIN: Final = (Retry, GiveBack)


class TaskSignature(Signature):
    """The arguments of a task as a payload: a JSON object of named arguments, as for other jobs.

    If the function has parameters without a name, such as `*args`, the member `*` has all the arguments that
    were given by position.
    """

    def __init__(self, task: Task) -> None:
        self.function = task.func
        whole = inspect.signature(task.func)
        parameters = list(whole.parameters.values())
        self.takes_context = task.takes_context
        self._bound = whole.replace(parameters=parameters[1:] if task.takes_context else parameters)
        self._names = list(self._bound.parameters)
        self._has_nameless = any(one.kind in _NAMELESS for one in self._bound.parameters.values())

    def payload(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        self._bound.bind(*args, **kwargs)
        if self._has_nameless:
            return {_BY_POSITION: list(args), **kwargs} if args else dict(kwargs)
        return {**dict(zip(self._names, args, strict=False)), **kwargs}

    def arguments_of(self, payload: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Returns the positional and the named arguments in a payload.

        Raises `msgspec.MsgspecError` if it is no JSON object, and `ValueError` if `*` is no array.
        """
        named = msgspec.json.decode(b"{}" if payload == b"null" else payload, type=dict[str, Any])
        args = named.pop(_BY_POSITION, [])
        if not isinstance(args, list):
            raise ValueError(f"{_BY_POSITION!r} must be an array of arguments")
        return args, named

    def call_of(self, payload: bytes, context: Context) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = self.arguments_of(payload)
        try:
            self._bound.bind(*args, **kwargs)
        except TypeError as bad:
            raise ValueError(str(bad)) from None
        return [context, args, kwargs], {}

    def result(self, json: bytes) -> Any:
        return msgspec.json.decode(json)


class TaskRun:
    """Runs a task of the backend `alias`: as a `def` in a thread, or as an `async def`.

    Django's signals are sent by `sender`. A `Retry` or `GiveBack` does not finish the task, so it sends no
    `task_finished`.
    """

    def __init__(self, task: Task, alias: str, sender: object) -> None:
        self._task = task
        self._alias = alias
        self._sender = sender

    def run(self, context: Context, args: list[Any], kwargs: dict[str, Any]) -> Any:
        close_old_connections()
        try:
            result = self._started(context, args, kwargs)
            task_started.send(self._sender, task_result=result)
            try:
                value = self._task.func(*self._leading(result), *args, **kwargs)
            except _COMES_AGAIN:
                raise
            except Exception as error:
                _fail(result, error)
                task_finished.send(self._sender, task_result=result)
                raise
            _succeed(result, value)
            task_finished.send(self._sender, task_result=result)
            return value
        finally:
            close_old_connections()

    async def arun(self, context: Context, args: list[Any], kwargs: dict[str, Any]) -> Any:
        # Code that is called by sync_to_async shares one thread, and so do its connections.
        await sync_to_async(close_old_connections)()
        try:
            result = self._started(context, args, kwargs)
            await task_started.asend(self._sender, task_result=result)
            try:
                value = await self._task.func(*self._leading(result), *args, **kwargs)
            except _COMES_AGAIN:
                raise
            except Exception as error:
                _fail(result, error)
                await task_finished.asend(self._sender, task_result=result)
                raise
            _succeed(result, value)
            await task_finished.asend(self._sender, task_result=result)
            return value
        finally:
            await sync_to_async(close_old_connections)()

    def _started(self, context: Context, args: list[Any], kwargs: dict[str, Any]) -> TaskResult:
        now = timezone.now()
        return TaskResult(
            task=self._task,
            id=str(context.id),
            status=TaskResultStatus.RUNNING,
            enqueued_at=None,
            started_at=now,
            last_attempted_at=now,
            finished_at=None,
            args=args,
            kwargs=kwargs,
            backend=self._alias,
            errors=[],
            # Who made the attempts before is known to the server; here it is their number that counts.
            worker_ids=[f"{socket.gethostname()}-{os.getpid()}"] * context.attempt,
        )

    def _leading(self, result: TaskResult) -> list[TaskContext]:
        return [TaskContext(task_result=result)] if self._task.takes_context else []


def _fail(result: TaskResult, error: Exception) -> None:
    kind = type(error)
    result.errors.append(
        TaskError(
            exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
            traceback="".join(traceback.format_exception(error)),
        )
    )
    _finish(result, TaskResultStatus.FAILED)


def _succeed(result: TaskResult, value: Any) -> None:
    object.__setattr__(result, "_return_value", value)
    _finish(result, TaskResultStatus.SUCCESSFUL)


def _finish(result: TaskResult, status: TaskResultStatus) -> None:
    # It is frozen; backends change it in this way.
    object.__setattr__(result, "status", status)
    object.__setattr__(result, "finished_at", timezone.now())
