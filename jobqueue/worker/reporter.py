"""Reports ended jobs to the server, in batches, until the server has answered."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from jobqueue.client import AnswerLost, AsyncClient, Conclude, Fail, Outcome, Release, Unreachable
from jobqueue.errors import JobQueueError, RequestTimeout, TooMany, Unavailable
from jobqueue.worker.running_job import refused

Item = TypeVar("Item", Conclude, Fail, Release)
_logger = logging.getLogger("jobqueue.worker")
# Seconds between attempts while the server is away: twice as long each time, with jitter.
_FIRST_DELAY: Final = 0.2
_MAX_DELAY: Final = 15.0


def may_succeed_later(error: JobQueueError) -> bool:
    """Tells whether an error is one of the way to the server, or of its load, and not of what was asked."""
    return isinstance(error, (Unreachable, AnswerLost, TooMany, Unavailable, RequestTimeout))


class Delays:
    """Seconds to wait after each failure in a row; `reset` after a success."""

    def __init__(self) -> None:
        self._next = _FIRST_DELAY

    def after(self, error: JobQueueError) -> float:
        named = error.facts.get("retry_after")
        shortest = float(named) if isinstance(named, (int, float)) else 0.0
        delay = max(min(shortest, 60.0), random.uniform(self._next / 2, self._next))
        self._next = min(2 * self._next, _MAX_DELAY)
        return delay

    def reset(self) -> None:
        self._next = _FIRST_DELAY


class Reporter:
    """Reports that gather while a request is under way go with the next one. All of it runs on one loop."""

    def __init__(self, client: AsyncClient) -> None:
        self._jobs = client.jobs
        self._waiting: list[Conclude | Fail | Release] = []
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._sending = 0

    def add(self, report: Conclude | Fail | Release) -> None:
        self._waiting.append(report)
        self._wake.set()
        self._drained.clear()

    @property
    def pending(self) -> int:
        """Reports that the server has not answered yet."""
        return len(self._waiting) + self._sending

    async def drained(self) -> None:
        """Returns when the server has answered all reports."""
        await self._drained.wait()

    async def run(self) -> None:
        """Sends reports until it is cancelled."""
        while True:
            if not self._waiting:
                self._drained.set()
            await self._wake.wait()
            self._wake.clear()
            reports, self._waiting = self._waiting, []
            self._sending = len(reports)
            concludes = [one for one in reports if isinstance(one, Conclude)]
            others = [one for one in reports if not isinstance(one, Conclude)]
            if others:
                fails = [one for one in others if isinstance(one, Fail)]
                releases = [one for one in others if isinstance(one, Release)]
                await asyncio.gather(
                    self._send(self._jobs.conclude_many, concludes),
                    self._send(self._jobs.fail_many, fails),
                    self._send(self._jobs.release_many, releases),
                )
            else:
                await self._send(self._jobs.conclude_many, concludes)
            self._sending = 0

    async def _send(
        self, call: Callable[[Sequence[Item]], Awaitable[list[Outcome]]], items: Sequence[Item]
    ) -> None:
        delays = Delays()
        while items:
            try:
                outcomes = await call(items)
            except Exception as error:  # whatever it is, the reports after it must go out
                if isinstance(error, JobQueueError) and may_succeed_later(error):
                    _logger.warning("%d jobs cannot be reported yet (%s); trying again", len(items), error)
                    await asyncio.sleep(delays.after(error))
                elif len(items) > 1:  # one of them is refused, and the rest must not suffer
                    for item in items:
                        await self._send(call, [item])
                    return
                else:
                    self._refused(items[0], error)
                    return
                continue
            for item, outcome in zip(items, outcomes, strict=False):
                if (refusal := outcome.exception()) is not None:
                    self._refused(item, refusal)
            return

    def _refused(self, item: Conclude | Fail | Release, error: Exception) -> None:
        code = error.code if isinstance(error, JobQueueError) else type(error).__name__
        _logger.warning("job %d: how it ended was refused (%s): %s", item.id, code, error)
        instead = refused(item, error)
        if instead is not None:
            self.add(instead)
