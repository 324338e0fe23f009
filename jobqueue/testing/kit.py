"""`Inline`: the real queue in this process, with a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from jobqueue.client import AsyncClient, Client, Duration, Job, Request
from jobqueue.client.encoding import plain
from jobqueue.engine.local import LocalEngine
from jobqueue.jobs.registry import Jobs
from jobqueue.settings import Settings
from jobqueue.testing.clock import ManualClock
from jobqueue.testing.in_process_server import InProcessServer, Waiting
from jobqueue.testing.replaced_clients import ReplacedClients
from jobqueue.testing.runner import Runner
from jobqueue.testing.transports import InlineAsyncTransport, InlineTransport
from jobqueue.units import duration_ms

_URL: Final = "http://inline"
# There is no peer by which an administrator could be told; and ids that a test can predict.
_SETTINGS: Final = {"open_admin": True, "first_id": 1}
_HINT: Final = "time stands still in a test, and all jobs that are ready have run: advance() moves the clock"
# Runs of one `run_all`.
LIMIT: Final = 10_000


class Inline:
    """A queue for a test. It is a context manager, also for `async with`.

    - `client`, `aclient`: clients of the queue. Those of the `Jobs` of the test are replaced by them.
    - `clock`: its `ManualClock`. `engine`: its engine, a `MemoryEngine`.

    A request that waits for a job, such as `handle.result()`, does not wait: it runs all jobs that are ready.
    """

    def __init__(
        self, jobs: Iterable[Jobs] | None, clock: ManualClock | None, settings: Mapping[str, Any]
    ) -> None:
        self.clock = clock or ManualClock(datetime.now(UTC))
        self._server = InProcessServer(Settings(**{**_SETTINGS, **settings}), self.clock)
        token = settings.get("access_token")
        self.client = Client(
            _URL, token=token, retry_for=0,
            transport=InlineTransport(self._server, self._run_ready, self._answered),
        )  # fmt: skip
        self.aclient = AsyncClient(
            _URL, token=token, retry_for=0,
            transport=InlineAsyncTransport(self._server, self._arun_ready, self._answered),
        )  # fmt: skip
        self._replaced = ReplacedClients(jobs, self.client, self.aclient, _HINT)
        self._runner = Runner(self.client, self.clock, self._replaced.members)

    @property
    def engine(self) -> LocalEngine:
        return self._server.engine

    def run_all(self, *, limit: int = LIMIT) -> int:
        """Runs all jobs that are ready, of all queues, and those that become ready by it, one at a time.
        Returns the number of runs.

        A def runs in this thread, also with `process=True`; an async def on a loop of the queue's own, or if
        one runs here, by `arun_all`. An exception of a job fails it, as in a worker. Raises `UnknownJobs`
        at the end if there are jobs that nobody declares, and `RuntimeError` after `limit` runs.
        """
        return self._runner.run_all(limit)

    async def arun_all(self, *, limit: int = LIMIT) -> int:
        """As `run_all`, and async jobs run on the running loop."""
        return await self._runner.arun_all(limit)

    def advance(self, duration: Duration) -> None:
        """Moves the clock by seconds, a text such as "10m" or a timedelta, and does what comes due on the
        way, in order: delays, leases and pauses end, jobs expire. It runs no job."""
        clock, engine, runner = self.clock, self.engine, self._runner
        end = clock.monotonic() + duration_ms(plain(duration))
        while True:
            now = clock.monotonic()
            due, beat = engine.next_due(), runner.next_beat()
            stops = [max(stop, now + 1) for stop in (due, beat) if stop is not None]
            clock.advance_ms(min([end, *stops]) - now)
            if beat is not None:
                runner.beat()  # before leases end, as a worker's arrive in time
            self._server.tick()
            if clock.monotonic() >= end:
                return

    def jobs(self, queue: str | None = None) -> list[Job]:
        """Returns the jobs of a queue, or of all, in the order in which they were enqueued, with payload,
        result and history. Finished ones are there as long as the server remembers them, 1 h by default."""
        return [self.client.jobs.get(job.id) for job in self.client.jobs.iterate(queue=queue)]

    def _run_ready(self, waiting: Waiting) -> None:
        self._runner.run_all(LIMIT)

    async def _arun_ready(self, waiting: Waiting) -> None:
        await self._runner.arun_all(LIMIT)
        await self._runner.ended(waiting.job, waiting.wait / 1000)

    def _answered(self, request: Request) -> None:
        if request.method == "DELETE" and self._runner.in_progress:
            self._runner.beat()  # a worker would know of a cancel a few seconds later

    # -- its life ---------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._replaced.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.close()
        finally:
            self._end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._runner.aclose()
        finally:
            self._end()

    def _end(self) -> None:
        self._replaced.__exit__(None, None, None)
        self._server.close()

    def __repr__(self) -> str:
        return f"<Inline queue with {self.engine.held()} jobs>"
