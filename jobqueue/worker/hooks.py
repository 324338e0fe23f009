"""Calls a job's function with the hooks of `Jobs.around` around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Any

import msgspec

from jobqueue.jobs.context import Context, enter
from jobqueue.jobs.declared import DeclaredJob
from jobqueue.jobs.registry import Jobs
from jobqueue.jobs.shared import Around, Hook
from jobqueue.worker.running_job import Report, raised, returned, unfit

SyncHook = Callable[[Context], AbstractContextManager[None]]
AsyncHook = Callable[[Context], AbstractAsyncContextManager[None]]


def sync_hooks(hooks: list[Around]) -> list[SyncHook]:
    found: list[Any] = [hook for hook in hooks if not inspect.isasyncgenfunction(hook)]
    return [contextmanager(hook) for hook in found]


def async_hooks(hooks: list[Around]) -> list[AsyncHook]:
    found: list[Any] = [hook for hook in hooks if inspect.isasyncgenfunction(hook)]
    return [asynccontextmanager(hook) for hook in found]


def checked_hooks(jobs: Jobs) -> tuple[list[SyncHook], list[AsyncHook]]:
    """Returns the hooks of `Jobs.around`: those that are a def, and those that are an async def.

    Raises `TypeError` if a job that is a def would have to run inside an async def.
    """
    around = jobs.shared.around
    awaited = async_hooks(around)
    if awaited and any(not declared.is_async for declared in jobs.types.values()):
        raise TypeError("an async def for `around` works for async jobs only; declare it as a def")
    return sync_hooks(around), awaited


async def call_hook(hook: Hook) -> None:
    """Calls a function of `Jobs.on_start` or `Jobs.on_stop`."""
    result = hook()
    if inspect.isawaitable(result):
        await result


def call(
    declared: DeclaredJob[..., Any, Any],
    id: int,
    lease: str | None,
    payload: bytes,
    context: Context,
    hooks: list[SyncHook],
) -> Report:
    """Runs a job whose function is a `def`, and returns what to report. A `BaseException` that is no
    `Exception`, such as `JobStopped`, goes through."""
    enter(context)
    try:
        positional, named = declared.signature.call_of(payload, context)
    except (msgspec.MsgspecError, ValueError, RecursionError) as bad:
        return unfit(id, lease, bad)
    try:
        if not hooks:
            return returned(id, lease, declared.function(*positional, **named))
        value = None  # also if a hook suppresses what the job raises
        with ExitStack() as stack:
            for hook in hooks:
                stack.enter_context(hook(context))
            value = declared.function(*positional, **named)
        return returned(id, lease, value)
    except Exception as error:
        return raised(id, lease, error, declared.running.dead_on)
