"""The worker's connection to the server: takes jobs, renews leases, reports. It has its own thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from jobqueue.client import AsyncClient, Conclude, Heartbeat, Job, Release
from jobqueue.errors import JobQueueError
from jobqueue.jobs.registry import Jobs
from jobqueue.worker.reporter import Delays, Reporter, may_succeed_later
from jobqueue.worker.running_job import Report, RunningJob, StopReason, is_lease_lost, running_job, stopped

_logger = logging.getLogger("jobqueue.worker")
# Seconds that a dequeue waits for a job.
_WAIT: Final = 25
# Seconds between heartbeats, at most, so that a cancelled job is stopped within 5 seconds.
_BEAT: Final = 3.5
# Seconds that the answer to a heartbeat may take.
_ANSWER: Final = 5.0
# Seconds that a stopped job has to end, before its place is given to another one.
_PATIENCE: Final = 3.0
# Seconds for a new process to start and to import the job's module.
_SPAWNING: Final = 60
# Seconds for which a job of an unknown type is given back: a newer worker may know it.
_UNKNOWN_DELAY: Final = 30
# Seconds that the last reports may take.
_LAST_REPORTS: Final = 5.0
# Seconds in which the server may end a dequeue when the worker stops, before its connection is closed; and
# between two attempts to make it end.
_CLOSE_AFTER: Final = 2.0
_CLOSE_AGAIN: Final = 0.1
# Names of unknown types that are logged.
_MAX_UNKNOWN: Final = 1000

Kind = Literal["task", "thread", "process"]


class Link:
    """Takes jobs of `queues` as long as less than `concurrency` are in progress.

    `start` starts jobs of one kind, from the link's thread. `ended` tells the link that one has ended.
    `over` is called when the link has ended; `refused` says why if the server refused the first dequeue, and
    `failed` if something unexpected ended it.
    """

    def __init__(
        self,
        jobs: Jobs,
        client: Callable[[], AsyncClient],
        queues: Sequence[str],
        concurrency: int,
        lease_for: float,
        start: Callable[[Kind, Sequence[RunningJob]], None],
        over: Callable[[], None],
    ) -> None:
        self._jobs = jobs
        self._make_client = client
        self._queues = list(queues)
        self._concurrency = concurrency
        self._lease_for = lease_for
        self._start = start
        self._over = over
        self._running: set[RunningJob] = set()
        self._ended: deque[tuple[RunningJob, Report]] = deque()
        self._collecting = False
        self._stopping = False
        self._asking = False  # a dequeue is under way
        self._grace_over: asyncio.Event | None = None
        self._unknown: set[str] = set()
        self._following: Conclude | None = None
        self.stuck = 0
        self.on_stuck: Callable[[], None] = _nothing
        self.refused: JobQueueError | None = None
        self.failed: BaseException | None = None
        self._loop = new_loop()
        self._thread = threading.Thread(target=self._serve, name="jobqueue-link", daemon=True)

    # -- called from other threads ----------------------------------------------------------------------

    def begin(self) -> None:
        self._thread.start()

    def end(self, grace: float) -> None:
        """Takes no more jobs. What has not ended after `grace` seconds is stopped and given back."""
        self._call(self._end, grace)

    def ended(self, running: RunningJob, report: Report) -> None:
        """Says that a job has ended, once for each."""
        self._ended.append((running, report))
        if not self._collecting:
            self._collecting = True
            self._call(self._collect)

    def started(self, running: RunningJob) -> None:
        """Says that a process calls the job's function now."""
        self._call(self._limit, running)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits for this any more
            return

    # -- on the loop ------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._main())
        except BaseException as error:
            self.failed = error
            _logger.critical("the worker cannot go on", exc_info=True)
        finally:
            self._loop.close()
            self._over()

    async def _main(self) -> None:
        self._changed = asyncio.Event()
        self._grace_over = asyncio.Event()
        client = self._make_client()
        # Attempts are repeated here, where the log says so, and where a stop ends them.
        self._taking_client = client.options(retry_for=0)
        self._reporter = Reporter(client)
        reporting = asyncio.create_task(self._reporter.run())
        beating = asyncio.create_task(self._beat(client))
        self._taking = asyncio.create_task(self._take())
        try:
            await asyncio.wait([self._taking])
            self._stopping = True
            await self._finish()
            if not self._taking.cancelled():
                self._taking.result()
        finally:
            for task in (reporting, beating):
                task.cancel()
            await asyncio.gather(reporting, beating, return_exceptions=True)
            await client.close()

    async def _take(self) -> None:
        """Asks for as many jobs as there are places, again and again, until the worker stops."""
        delays, was_answered, is_away = Delays(), False, False
        try:
            while not self._is_stopping():
                if len(self._running) >= self._concurrency:
                    self._changed.clear()
                    await self._changed.wait()
                    continue
                self._asking = True
                try:
                    taken = await self._next()
                except JobQueueError as error:
                    self._asking = False
                    if self._is_stopping():
                        return
                    if not may_succeed_later(error) and not was_answered:
                        self.refused = error
                        _logger.error("the server refuses to give jobs: %s", error)
                        return
                    if not is_away:
                        _logger.warning("no jobs from the server (%s); trying again", error)
                    is_away = True
                    await asyncio.sleep(delays.after(error))
                    continue
                self._asking = False
                delays.reset()
                if is_away:
                    _logger.info("the server gives jobs again")
                was_answered, is_away = True, False
                if taken:
                    self._accept(taken)
        finally:
            self._report_following()

    def _is_stopping(self) -> bool:
        return self._stopping  # it may change at any await

    async def _next(self) -> list[Job]:
        done, jobs = self._following, self._taking_client.jobs
        if done is None:
            return await jobs.dequeue_many(
                self._queues,
                count=min(self._concurrency - len(self._running), 1000),
                wait=_WAIT,
                lease_for=self._lease_for,
            )
        try:
            job = await jobs.conclude_and_next(
                done.id,
                done.result,
                lease=done.lease,
                queues=self._queues,
                wait=_WAIT,
                lease_for=self._lease_for,
            )
        except JobQueueError:
            self._report_following()  # alone, so that it does not depend on what became of the dequeue
            raise
        self._following = None
        return [] if job is None else [job]

    def _report_following(self) -> None:
        """Reports a job that was to be concluded with the next dequeue. A second report does no harm."""
        if self._following is not None:
            self._reporter.add(self._following)
            self._following = None

    def _accept(self, taken: Sequence[Job]) -> None:
        starting: dict[Kind, list[RunningJob]] = {}
        for job in taken:
            if self._stopping:  # they were on their way
                self._reporter.add(Release(job.id, job.lease))
                continue
            declared = self._jobs.find(job.type)
            if declared is None:
                if job.type not in self._unknown and len(self._unknown) < _MAX_UNKNOWN:
                    self._unknown.add(job.type)
                    _logger.warning("no job of type %r is declared here: given back", job.type)
                self._reporter.add(Release(job.id, job.lease, _UNKNOWN_DELAY))
                continue
            if job.leases > 1:
                self._lose_before(job)
            running = running_job(job, declared)
            self._running.add(running)
            kind: Kind = "task" if declared.is_async else "process" if declared.running.process else "thread"
            if declared.running.timeout is not None:
                self._limit(running, _SPAWNING if kind == "process" else 0)
            starting.setdefault(kind, []).append(running)
        for kind, jobs in starting.items():
            try:
                self._start(kind, jobs)
            except RuntimeError:  # the program's loop was closed, or no thread can be started
                _logger.exception("jobs cannot be started")
                for running in jobs:
                    if not running.reported:
                        self._leave(running, Release(running.id, running.lease, _UNKNOWN_DELAY))

    def _lose_before(self, job: Job) -> None:
        """Stops an earlier run of the same job in this worker: its lease has ended, or there were not two."""
        for running in [one for one in self._running if one.id == job.id]:
            self._stop(running, "lost")

    def _limit(self, running: RunningJob, more: float = 0) -> None:
        """Starts the job's timeout, `more` seconds longer."""
        timeout = running.declared.running.timeout
        if timeout is None or running.reported or running.is_stopped():
            return
        if running.timer is not None:
            running.timer.cancel()
        running.timer = self._loop.call_later(timeout + more, self._stop, running, "timeout")

    def _collect(self) -> None:
        """Reports the jobs that have ended since the last call."""
        self._collecting = False
        while self._ended:
            running, report = self._ended.popleft()
            if not running.reported:
                self._leave(running, report)
            elif running.given_up:
                self.stuck -= 1  # it has ended after all

    def _leave(self, running: RunningJob, report: Report) -> None:
        running.reported = True
        if running.timer is not None:
            running.timer.cancel()
        self._running.discard(running)
        self._changed.set()
        if report is None or running.stopped == "lost":
            _logger.warning("job %d: its lease is lost; what it did counts for nothing", running.id)
        elif self._concurrency == 1 and isinstance(report, Conclude) and not self._stopping:
            self._following = report
        else:
            self._reporter.add(report)

    # -- heartbeats -------------------------------------------------------------------------------------

    async def _beat(self, client: AsyncClient) -> None:
        """Renews the leases of all jobs in progress, in one request."""
        every = min(self._lease_for / 3, _BEAT)
        beating = client.options(retry_for=0, timeout=max(every, _ANSWER))
        is_away = False
        while True:
            await asyncio.sleep(every)
            renewed = [running for running in self._running if running.stopped != "lost"]
            if not renewed:
                continue
            beats = []
            for running in renewed:
                percent, message = running.context.take_progress()
                beats.append(Heartbeat(running.id, running.lease, self._lease_for, percent, message))
            try:
                outcomes = await beating.jobs.heartbeat_many(beats)
            except Exception as error:  # whatever it is, the next beat must come
                for running, beat in zip(renewed, beats, strict=True):
                    running.context.put_back_progress(beat.progress, beat.message)
                if not isinstance(error, JobQueueError):
                    _logger.exception("leases cannot be renewed")
                elif not is_away:
                    _logger.warning("leases cannot be renewed just now: %s", error)
                is_away = True
                continue
            is_away = False
            for running, outcome in zip(renewed, outcomes, strict=False):
                refused = outcome.exception()
                if refused is not None:
                    if is_lease_lost(refused):
                        self._stop(running, "lost")
                    elif not running.reported:
                        _logger.warning("job %d: its lease was not renewed: %s", running.id, refused)
                elif outcome.job is not None and outcome.job.cancel_requested and running.stopped is None:
                    self._stop(running, "cancelled")

    def _stop(self, running: RunningJob, reason: StopReason) -> None:
        """Stops a job. If it does not end soon, it is reported all the same, and its place is free."""
        if running.begin_stop(reason):
            running.stop()
            if running.timer is not None:
                running.timer.cancel()
            running.timer = self._loop.call_later(_PATIENCE, self._give_up, running)

    def _give_up(self, running: RunningJob) -> None:
        if not running.reported:
            _logger.error("job %d (%s) does not stop; it is left behind", running.id, running.job.type)
            running.stopped = running.stopped or "ending"
            running.given_up = True
            self.stuck += 1
            self._leave(running, stopped(running))
            if self.stuck >= self._concurrency:
                self.on_stuck()

    # -- the end ----------------------------------------------------------------------------------------

    def _end(self, grace: float) -> None:
        if self._grace_over is not None:
            self._loop.call_later(grace, self._grace_over.set)
            if not self._stopping:
                if self._asking:
                    self._end_wait(self._loop.time() + _CLOSE_AFTER)
                else:
                    self._taking.cancel()
        self._stopping = True

    def _end_wait(self, latest: float) -> None:
        """Ends the dequeue that is under way, so that no job is lost that is on its way already.

        It says that nothing more will be sent. The server then ends its wait, and what it has answered
        before is still received. A proxy may keep that to itself, so the request is given up at `latest`.
        """
        if self._taking.done():
            return
        if not self._asking or self._loop.time() >= latest:
            self._taking.cancel()
            return
        self._taking_client.end_waits()
        self._loop.call_later(_CLOSE_AGAIN, self._end_wait, latest)

    async def _finish(self) -> None:
        """Waits for the jobs in progress, gives back those that are not done in time, reports the rest."""
        assert self._grace_over is not None
        over = asyncio.create_task(self._grace_over.wait())
        while self._running and not self._grace_over.is_set():
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            await asyncio.wait([over, changed], return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        over.cancel()
        for running in list(self._running):
            self._stop(running, "ending")
        end = self._loop.time() + _PATIENCE / 3
        while self._running and (left := end - self._loop.time()) > 0:
            self._changed.clear()
            await _at_most(left, self._changed.wait())
        for running in list(self._running):
            self._leave(running, stopped(running))
        await _at_most(_LAST_REPORTS, self._reporter.drained())
        if self._reporter.pending:
            _logger.error("%d jobs could not be reported; their leases will end", self._reporter.pending)


def _nothing() -> None:
    """Does nothing, as `on_stuck` does by default."""


async def _at_most(length: float, waited_for: Coroutine[Any, Any, object]) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(waited_for, length)


def new_loop() -> asyncio.AbstractEventLoop:
    """Returns an event loop of uvloop if that is installed, else of asyncio."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
