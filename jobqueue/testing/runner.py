"""Runs the jobs of a queue in this process, one at a time, as a worker would."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from contextvars import Context as Variables
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any, Final

from jobqueue.client import Client, Conclude, Fail, Heartbeat, Job, Release
from jobqueue.errors import JobQueueError
from jobqueue.jobs.declared import DeclaredJob
from jobqueue.jobs.registry import Jobs
from jobqueue.jobs.shared import Hook, Shared
from jobqueue.testing.clock import ManualClock
from jobqueue.worker.hooks import AsyncHook, SyncHook, call_hook, checked_hooks
from jobqueue.worker.running_job import Report, RunningJob, StopReason, refused, running_job, stopped
from jobqueue.worker.tasks import Tasks
from jobqueue.worker.threads import run

_logger = logging.getLogger("jobqueue.testing")
# Seconds of a lease, as those of a worker, and seconds of the clock between heartbeats.
_LEASE: Final = 30
BEAT: Final = 10
_CONSUMER: Final = "jobqueue.testing"
# What fails a `def`; any other exception, such as KeyboardInterrupt or pytest.fail(), is for the test.
_FAILURES: Final = (Exception, SystemExit)


class UnknownJobs(LookupError):
    """Jobs are ready whose types no `Jobs` of the test declares. They are in their queues, not charged."""


class InProgress:
    """A job that runs in the thread `thread`. `began`: when, in milliseconds of the test's clock. The Futures
    in `waiters` are completed when it has ended."""

    def __init__(self, running: RunningJob, began: int) -> None:
        self.running = running
        self.began = began
        self.thread = threading.get_ident()
        self.waiters: list[asyncio.Future[None]] = []

    @property
    def ends(self) -> int | None:
        """When its timeout is over; None: it has none."""
        timeout = self.running.declared.running.timeout
        return None if timeout is None else self.began + round(timeout * 1000)

    def is_due(self, now: int) -> bool:
        """Tells whether its timeout is over, and it has not been stopped."""
        return self.ends is not None and now >= self.ends and self.running.stopped is None

    def has_ended(self) -> None:
        for waiter in self.waiters:
            with suppress(RuntimeError):  # the loop of another thread is closed
                waiter.get_loop().call_soon_threadsafe(_complete, waiter)


def _complete(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Runner:
    """Runs the jobs of `members` that are ready in the queue of `client`."""

    def __init__(self, client: Client, clock: ManualClock, members: Sequence[Jobs]) -> None:
        self._client = client
        self._clock = clock
        self._members = members
        self.in_progress: dict[int, InProgress] = {}
        self._count = 0  # of all runs
        self._most: int | None = None  # the count at which the outermost run_all has too many
        self._loop: asyncio.AbstractEventLoop | None = None
        # The context variables that jobs begin with, once `on_start` was called; or the task that calls it.
        self._started: dict[Shared, Variables | asyncio.Task[Variables]] = {}

    def run_all(self, limit: int) -> int:
        """Runs all jobs that are ready, and those that become ready by it. Returns the number of runs."""
        first = self._count
        with self._counting(limit), closing(self._ready(limit)) as ready:
            for running in ready:
                with self._running(running):
                    self._report(running, self._run(running))
        return self._count - first

    async def arun_all(self, limit: int) -> int:
        """As `run_all`, on the running loop."""
        first = self._count
        with self._counting(limit), closing(self._ready(limit)) as ready:
            for running in ready:
                with self._running(running):
                    self._report(running, await self._arun(running))
        return self._count - first

    async def ended(self, id: int, seconds: float) -> None:
        """Waits until a job has ended that another task runs, for some seconds of real time at most."""
        found = self.in_progress.get(id)
        if found is not None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            found.waiters.append(waiter)
            await asyncio.wait([waiter], timeout=seconds)

    # -- taking -----------------------------------------------------------------------------------------

    @contextmanager
    def _counting(self, limit: int) -> Iterator[None]:
        """Makes the limit that of all runs until the end of the outermost call: jobs that wait for others
        cause calls inside of it."""
        outermost = self._most is None
        if outermost:
            self._most = self._count + limit
        try:
            yield
        finally:
            if outermost:
                self._most = None

    def _ready(self, limit: int) -> Generator[RunningJob, None, None]:
        unknown: list[Job] = []
        most = self._count + limit
        try:
            for job in self._taken():
                declared = self._declared(job)
                if declared is None:
                    unknown.append(job)  # kept until the end, or it would be taken again and again
                    continue
                if self._count >= min(most, self._most or most):
                    self._client.jobs.release(job)
                    raise RuntimeError(
                        f"more than {limit:,} runs, the last one of {job.type!r}: does it enqueue itself, or "
                        "give itself back, without a delay? run_all(limit=…) allows more"
                    )
                self._count += 1
                now = datetime.fromtimestamp(self._clock.wall() / 1000, UTC)
                yield running_job(job, declared, now)
        finally:
            if unknown:
                self._client.jobs.release_many([Release(job.id, job.lease) for job in unknown])
        if unknown:
            raise UnknownJobs(self._about({job.type for job in unknown}))

    def _taken(self) -> Iterator[Job]:
        """Takes jobs as long as there are some, queue by queue in the order of names."""
        found = True
        while found:
            found = False
            for queue in list(self._client.queues.iterate()):
                while queue.jobs.queued:
                    job = self._client.jobs.dequeue(queue.name, lease_for=_LEASE, consumer=_CONSUMER)
                    if job is None:
                        break
                    found = True
                    yield job

    def _declared(self, job: Job) -> DeclaredJob[..., Any, Any] | None:
        found = [one for jobs in self._members if (one := jobs.find(job.type)) is not None]
        if len({id(declared) for declared in found}) > 1:
            self._client.jobs.release(job)
            places = ", ".join(f"{one.function.__module__}.{one.function.__qualname__}" for one in found)
            raise LookupError(
                f"{len(found)} Jobs declare {job.type!r} ({places}); say which ones this test uses: "
                "inline(jobs), or the fixture jobqueue_jobs"
            )
        return found[0] if found else None

    def _about(self, types: set[str]) -> str:
        names = ", ".join(map(repr, sorted(types)))
        known = ", ".join(sorted({type for jobs in self._members for type in jobs.types}))
        return f"no Jobs here declare {names}; known: {known or 'none'}. Is the module imported?"

    # -- running ----------------------------------------------------------------------------------------

    @contextmanager
    def _running(self, running: RunningJob) -> Iterator[None]:
        entry = self.in_progress[running.id] = InProgress(running, self._clock.monotonic())
        try:
            yield
        finally:
            if self.in_progress.get(running.id) is entry:
                del self.in_progress[running.id]
            entry.has_ended()

    def _run(self, running: RunningJob) -> Report:
        shared = running.declared.shared
        needs_loop = running.declared.is_async or (
            shared not in self._started and any(map(_is_awaited, shared.starts))
        )
        if not needs_loop:
            return self._here(running, self._start(shared))
        if asyncio._get_running_loop() is not None:
            self._client.jobs.release(running.job)
            raise RuntimeError(
                f"an event loop runs here, and {running.job.type!r} needs it: await arun_all(), or aresult()"
            )
        return self._own_loop().run_until_complete(self._arun(running))

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    async def _arun(self, running: RunningJob) -> Report:
        variables = await self._astart(running.declared.shared)
        if running.declared.is_async:
            return await self._task(running, variables)
        return self._here(running, variables)

    def _here(self, running: RunningJob, variables: Variables) -> Report:
        """Runs a def in this thread."""
        hooks, _ = self._hooks_of(running)
        began = time.monotonic()
        report = run(running, variables.copy(), hooks, _FAILURES)
        timeout = running.declared.running.timeout
        if timeout is not None and running.stopped is None and time.monotonic() - began >= timeout:
            running.stopped = "timeout"
            return stopped(running)
        return report

    async def _task(self, running: RunningJob, variables: Variables) -> Report:
        """Runs an async def on the running loop."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Report] = loop.create_future()

        def end(_: RunningJob, report: Report) -> None:
            if not ended.done():
                ended.set_result(report)

        timeout = running.declared.running.timeout
        timer = None if timeout is None else loop.call_later(timeout, self._stop, running, "timeout")
        Tasks(loop, variables, *self._hooks_of(running), end).start([running])
        try:
            return await ended
        except asyncio.CancelledError:  # it is the test that ends
            running.stop()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _hooks_of(self, running: RunningJob) -> tuple[list[SyncHook], list[AsyncHook]]:
        shared = running.declared.shared
        return checked_hooks(next(jobs for jobs in self._members if jobs.shared is shared))

    # -- how a run ends ---------------------------------------------------------------------------------

    def _report(self, running: RunningJob, report: Report) -> None:
        if running.reported:
            return
        running.reported = True
        if running.context.has_progress:
            self._heartbeat([running])
        while report is not None:
            jobs, error = self._client.jobs, None
            try:
                if isinstance(report, Conclude):
                    [outcome] = jobs.conclude_many([report])
                elif isinstance(report, Fail):
                    [outcome] = jobs.fail_many([report])
                else:
                    [outcome] = jobs.release_many([report])
                error = outcome.exception()
            except JobQueueError as refusal:
                error = refusal
            if error is None:
                return
            report = refused(report, error)
            if report is None:
                _logger.warning("job %d: how it ended was refused (%s): %s", running.id, error.code, error)

    def beat(self) -> None:
        """Renews the leases of the jobs that run, as a worker does. Stops those that are cancelled, whose
        lease is lost or whose timeout is over."""
        now = self._clock.monotonic()
        for entry in list(self.in_progress.values()):
            if entry.is_due(now):
                self._stop(entry.running, "timeout")
                if entry.running.declared.is_async:  # its task ends when the loop goes on, at a later time
                    self._report(entry.running, stopped(entry.running))
        self._heartbeat(
            [
                entry.running
                for entry in self.in_progress.values()
                if not entry.running.reported and entry.running.stopped in (None, "cancelled")
            ]
        )

    def _heartbeat(self, some: Sequence[RunningJob]) -> None:
        beats = [
            Heartbeat(running.id, running.lease, _LEASE, *running.context.take_progress()) for running in some
        ]
        for running, outcome in zip(some, self._client.jobs.heartbeat_many(beats), strict=True):
            if outcome.job is None:
                self._stop(running, "lost")
            elif outcome.job.cancel_requested:
                self._stop(running, "cancelled")

    def next_beat(self) -> int | None:
        """When the clock must stop for the jobs that run; None: none runs."""
        if not self.in_progress:
            return None
        ends = [entry.ends for entry in self.in_progress.values() if entry.running.stopped is None]
        return min([self._clock.monotonic() + BEAT * 1000, *(end for end in ends if end is not None)])

    def _stop(self, running: RunningJob, reason: StopReason) -> None:
        is_first = running.begin_stop(reason)
        if is_first and (running.declared.is_async or self._may_interrupt(running)):
            running.stop()

    def _may_interrupt(self, running: RunningJob) -> bool:
        """Tells whether a def can be stopped by an exception: it has called what runs now in this thread. One
        that waits for another job goes on until that has ended."""
        innermost = next(reversed(self.in_progress.values()))
        return innermost.running is running and innermost.thread == threading.get_ident()

    # -- start and stop ---------------------------------------------------------------------------------

    def _start(self, shared: Shared) -> Variables:
        """Calls the functions of `on_start`, once; none of them is an async def.

        Returns the context variables that jobs begin with.
        """
        started = self._started.get(shared)
        if started is None:
            for hook in shared.starts:
                hook()
            started = self._started[shared] = copy_context()
        return started.result() if isinstance(started, asyncio.Task) else started

    async def _astart(self, shared: Shared) -> Variables:
        """As `_start`, on the running loop."""
        started = self._started.get(shared)
        if started is None:
            started = self._started[shared] = asyncio.create_task(_call_starts(shared))
        return await started if isinstance(started, asyncio.Task) else started

    def close(self) -> None:
        """Calls the functions of `on_stop`, on the loop on which those of `on_start` were called."""
        try:
            for shared, started in self._started.items():
                loop = started.get_loop() if isinstance(started, asyncio.Task) else self._loop
                for hook in shared.stops:
                    if not _is_awaited(hook):
                        hook()
                    elif asyncio._get_running_loop() is None and not (loop is not None and loop.is_closed()):
                        (loop or self._own_loop()).run_until_complete(call_hook(hook))
                    else:
                        warnings.warn(
                            f"{hook!r} of on_stop is not called, since its loop cannot run now; "
                            "use `async with inline(…)`",
                            RuntimeWarning,
                            stacklevel=3,
                        )
        finally:
            self._close_loop()

    async def aclose(self) -> None:
        """As `close`, on the running loop."""
        try:
            for shared in self._started:
                for hook in shared.stops:
                    await call_hook(hook)
        finally:
            self._close_loop()

    def _close_loop(self) -> None:
        self._started.clear()
        if self._loop is not None:
            loop, self._loop = self._loop, None
            with closing(loop):
                if asyncio._get_running_loop() is None:
                    loop.run_until_complete(_end_tasks())
                    loop.run_until_complete(loop.shutdown_asyncgens())


async def _end_tasks() -> None:
    """Cancels what jobs have left on the loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _call_starts(shared: Shared) -> Variables:
    for hook in shared.starts:
        await call_hook(hook)
    return copy_context()


def _is_awaited(hook: Hook) -> bool:
    return asyncio.iscoroutinefunction(hook)
