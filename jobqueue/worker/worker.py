"""`Worker`: runs declared jobs in this process."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from jobqueue.client import AsyncClient, Duration
from jobqueue.client.encoding import seconds
from jobqueue.errors import InvalidField
from jobqueue.jobs.registry import Jobs
from jobqueue.worker.hooks import call_hook, checked_hooks
from jobqueue.worker.link import Kind, Link, new_loop
from jobqueue.worker.running_job import RunningJob
from jobqueue.worker.tasks import Tasks
from jobqueue.worker.threads import Threads

if TYPE_CHECKING:
    from jobqueue.worker.processes import Processes

_logger = logging.getLogger("jobqueue.worker")
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
# Seconds that tasks which the jobs have left behind have to end.
_LAST_TASKS: Final = 1.0
# The variable in which a process that supervises workers gives them its id.
SUPERVISOR: Final = "_JOBQUEUE_SUPERVISOR"
# Exit statuses of `run`: the server refused to give jobs; the worker failed; jobs are stuck in all places.
REFUSED: Final = 1
FAILED: Final = 1
STUCK: Final = 70
# In place of `REFUSED`, for the process that supervises: an uncaught exception ends a process with 1.
REFUSED_TO_CHILD: Final = 77


class Worker:
    """Takes jobs of `queues`, the first that has one counts, and runs them.

    - `concurrency`: the most jobs at a time. Each asks the server for as many jobs as there are free places.
    - `lease_for`: the lease of a job, 30 s by default. It is renewed while the job runs, so this is how soon
      others get the jobs of a worker that died.
    - `grace`: seconds that jobs may run on when the worker is stopped. What is not done then is stopped and
      given back, not charged.
    - `name`: shown as the consumer of its jobs; host and process by default.

    `run()` serves until a signal. In a program with an event loop use `async with Worker(…)`, which serves
    until the end of the block; its async jobs run on that loop.
    """

    def __init__(
        self,
        jobs: Jobs,
        queues: str | Iterable[str] = "default",
        *,
        concurrency: int = 16,
        lease_for: Duration = 30,
        grace: Duration = 8,
        name: str | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency: 1 or more")
        self._jobs = jobs
        self._queues = [queues] if isinstance(queues, str) else list(queues)
        if not self._queues:
            raise ValueError("queues: at least one")
        self._concurrency = concurrency
        self._lease_for = _length("lease_for", lease_for)
        if self._lease_for < 1:
            raise ValueError("lease_for: a duration of 1 second or more, such as 30 or '5m'")
        self._grace = _length("grace", grace)
        self._name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._has_loop = False  # the loop is the worker's own
        self._link: Link | None = None
        self._processes: Processes | None = None

    # -- as a program -----------------------------------------------------------------------------------

    def run(self) -> int:
        """Serves until SIGTERM or SIGINT, then waits for the running jobs for `grace` seconds; a second
        signal ends the wait. Returns the exit status: 0; 1 if the server refuses to give jobs, or the worker
        failed; 70 if all places are taken by jobs that cannot be stopped, so that the process has to be
        replaced.

        Raises `RuntimeError` in another thread than the main one, which alone gets signals.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("run() handles signals and needs the main thread; use `async with Worker(…)`")
        self._has_loop = True
        supervisor = os.environ.pop(SUPERVISOR, None)  # so that programs which jobs start do not see it
        if supervisor is not None:
            threading.Thread(target=_end_with, args=(int(supervisor),), daemon=True).start()
        # Not asyncio.run: at its end it waits for tasks and threads, and those that are stuck never end.
        loop = new_loop()
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(self._run(REFUSED if supervisor is None else REFUSED_TO_CHILD))
        finally:
            try:
                loop.run_until_complete(_end_tasks(loop))
            finally:
                self._has_loop = False
                asyncio.set_event_loop(None)
                loop.close()

    async def _run(self, refused: int) -> int:
        """Returns the exit status: `refused` if the server refused to give jobs."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        signals = 0

        def on_signal() -> None:
            nonlocal signals
            signals += 1
            if signals == 1:
                stop.set()
            elif self._link is not None:
                self._link.end(0)

        for number in _SIGNALS:
            loop.add_signal_handler(number, on_signal)
        try:
            await self._begin()
            assert self._link is not None
            self._link.on_stuck = lambda: _call_threadsafe(loop, stop.set)
            over = asyncio.create_task(self._over.wait())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([over, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in (over, stopping):
                task.cancel()
            link = self._link
            assert link is not None
            is_stuck = link.stuck >= self._concurrency
            if is_stuck:
                _logger.error("all %d places have a job that cannot be stopped", self._concurrency)
            await self._end(0 if is_stuck else self._grace)
            if is_stuck:
                return STUCK
            if link.refused is not None:
                return refused
            return 0 if link.failed is None else FAILED
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            await self._jobs.aclient.close()  # what jobs have opened on this loop

    # -- inside a program -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(self._grace)

    # -- both -------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self._link is not None:
            raise RuntimeError("this worker runs already")
        loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        hooks, around = checked_hooks(self._jobs)
        for hook in self._jobs.shared.starts:
            await call_hook(hook)
        variables = contextvars.copy_context()
        link = Link(
            self._jobs,
            self._client,
            self._queues,
            self._concurrency,
            self._lease_for,
            self._start,
            lambda: _call_threadsafe(loop, self._over.set),
        )
        self._tasks = Tasks(loop, variables, hooks, around, link.ended, not self._has_loop)
        self._threads = Threads(variables, hooks, link.ended)
        self._link = link
        _logger.info(
            "waits for jobs of %s at %s, %d at a time",
            ", ".join(self._queues), self._jobs.aclient.url, self._concurrency,
        )  # fmt: skip
        link.begin()

    def _client(self) -> AsyncClient:
        return self._jobs.aclient.options(consumer=self._name)

    def _start(self, kind: Kind, jobs: Sequence[RunningJob]) -> None:
        """Starts jobs; called from the link's thread."""
        if kind == "task":
            self._tasks.start(jobs)
        elif kind == "thread":
            self._threads.start(jobs)
        else:
            if self._processes is None:
                from jobqueue.worker.processes import Processes

                assert self._link is not None
                self._processes = Processes(self._link.started, self._link.ended)
            self._processes.start(jobs)

    async def _end(self, grace: float) -> None:
        """Ends the worker. A cancellation ends the grace; then it takes a few seconds at most."""
        link = self._link
        assert link is not None
        link.end(grace)
        try:
            try:
                await self._over.wait()
            except asyncio.CancelledError:
                link.end(0)
                await self._over.wait()
                raise
        finally:
            self._threads.close()
            if self._processes is not None:
                self._processes.close()
                self._processes = None
            self._link = None
            for hook in self._jobs.shared.stops:
                await call_hook(hook)


def _end_with(supervisor: int) -> None:
    """Ends this worker as a signal does when the process that supervises it was killed."""
    while os.getppid() == supervisor:
        time.sleep(1)
    _logger.warning("the parent process has ended")
    os.kill(os.getpid(), signal.SIGTERM)


def _length(name: str, value: Duration) -> float:
    try:
        return seconds(value)
    except InvalidField as bad:
        raise ValueError(f"{name}: {bad}") from None


async def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancels the tasks that are left, and gives them a moment."""
    left = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=_LAST_TASKS)
    with suppress(TimeoutError):
        await asyncio.wait_for(loop.shutdown_asyncgens(), _LAST_TASKS)


def _call_threadsafe(loop: asyncio.AbstractEventLoop, function: object) -> None:
    try:
        loop.call_soon_threadsafe(function)  # type: ignore[arg-type]  # a callback
    except RuntimeError:  # the program's loop was closed before the link had ended
        return
