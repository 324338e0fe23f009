"""Runs jobs on the worker's event loop: each `async def` as a task, and the async hooks around other jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from contextvars import Context as Variables
from functools import partial

import msgspec

from jobqueue.jobs.context import enter
from jobqueue.worker.hooks import AsyncHook, SyncHook
from jobqueue.worker.running_job import (
    Report,
    RunningJob,
    nothing_to_stop,
    raised,
    returned,
    stopped,
    unfit,
)

_OF_THE_JOB = (Exception, asyncio.CancelledError, SystemExit)
Ended = Callable[[RunningJob, Report], None]


class Tasks:
    """`variables`: the context variables that jobs begin with. `ended` is called on the loop, once a job.
    `interrupts`: a `KeyboardInterrupt` in a task is that of the program and is raised on its loop, as are
    others that are no `Exception`, such as those of pytest."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        variables: Variables,
        hooks: Sequence[SyncHook],
        async_hooks: Sequence[AsyncHook],
        ended: Ended,
        interrupts: bool = True,
    ) -> None:
        self._loop = loop
        self._variables = variables
        self._hooks = hooks
        self._async_hooks = async_hooks
        self._ended = ended
        self._interrupts = interrupts
        self._running: set[RunningJob] = set()  # each keeps its task, of which the loop has weak references

    def start(self, jobs: Sequence[RunningJob]) -> None:
        """Starts jobs, from any thread. Raises `RuntimeError` if the loop is closed."""
        self._loop.call_soon_threadsafe(self._start, jobs)

    def _start(self, jobs: Sequence[RunningJob]) -> None:
        for running in jobs:
            if running.stopped is not None:  # meanwhile
                self._ended(running, stopped(running))
                continue
            task = self._loop.create_task(self._run(running), context=self._variables.copy())
            running.stop = partial(self._stop, running, task)
            self._running.add(running)
            if running.is_stopped():  # just now, when there was nothing to stop; it has to begin, to end
                self._loop.call_soon(self._cancel, running, task)

    def _stop(self, running: RunningJob, task: asyncio.Task[None]) -> None:
        """Stops a task, from any thread."""
        with suppress(RuntimeError):  # the program's loop was closed, so it does not run any more
            self._loop.call_soon_threadsafe(self._cancel, running, task)

    def _cancel(self, running: RunningJob, task: asyncio.Task[None]) -> None:
        """Cancels a task once: a second time would disturb it in its cleanup."""
        if running.stop is not nothing_to_stop:
            running.stop = nothing_to_stop
            task.cancel()

    async def _run(self, running: RunningJob) -> None:
        try:
            report = await self._report(running)
        except BaseException as error:  # SystemExit in a task ends the job, not the worker
            report = stopped(running) if running.stopped else self._raised(running, error)
            if self._interrupts and not isinstance(error, _OF_THE_JOB):
                self._ended(running, report)
                raise
        finally:
            self._running.discard(running)
        self._ended(running, report)

    def _raised(self, running: RunningJob, error: BaseException) -> Report:
        return raised(running.id, running.lease, error, running.declared.running.dead_on)

    async def _report(self, running: RunningJob) -> Report:
        context, declared = running.context, running.declared
        enter(context)
        try:
            positional, named = declared.signature.call_of(bytes(running.job.payload_json), context)
        except (msgspec.MsgspecError, ValueError, RecursionError) as bad:
            return unfit(running.id, running.lease, bad)
        value = None
        if self._hooks or self._async_hooks:
            async with AsyncExitStack() as stack:
                for hook in self._async_hooks:
                    await stack.enter_async_context(hook(context))
                for sync_hook in self._hooks:
                    stack.enter_context(sync_hook(context))
                value = await declared.function(*positional, **named)
        else:
            value = await declared.function(*positional, **named)
        return returned(running.id, running.lease, value)
