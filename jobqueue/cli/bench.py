"""`jobqueue bench`: a small load on a server, to see what a machine or a network is good for."""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from array import array
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import ceil
from typing import Final

import msgspec

from jobqueue.cli.arguments import Parser, UsageError, add_connection, add_output, whole_number
from jobqueue.cli.commands import Verb
from jobqueue.cli.output import put
from jobqueue.cli.session import Session
from jobqueue.client import AsyncClient
from jobqueue.errors import JobQueueError

_CALLS: Final = ("enqueue", "dequeue", "conclude")
_SHARES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
# Limits of the arguments. Each request leaves 8 bytes until the end.
_MAX_WORKERS, _MAX_SECONDS, _MAX_PAYLOAD = 1_000, 60, 512 << 10
# Seconds that a dequeue waits: there is a job for it, unless a limit of the queue holds it back.
_WAIT: Final = 10
_NOT_LEASED: Final = "scheduled,queued,concluded,dead,cancelled"


def _declare(parser: Parser) -> None:
    parser.description = (
        "Workers enqueue a job, dequeue it and conclude it, again and again, each over a connection of its "
        "own. Prints jobs a second, and how long calls took. The client is one process, and may be the limit."
    )
    add = parser.add_argument
    add(
        "-w",
        "--workers",
        type=whole_number,
        default=64,
        metavar="N",
        help=f"number of workers, 1 to {_MAX_WORKERS} (64)",
    )
    add(
        "-s",
        "--seconds",
        type=whole_number,
        default=5,
        metavar="N",
        help=f"how long, 1 to {_MAX_SECONDS} (5)",
    )
    add("-p", "--payload", type=whole_number, default=100, metavar="BYTES", help="size of a payload (100)")
    add(
        "-q",
        "--queue",
        default="bench",
        metavar="QUEUE",
        help="a queue without jobs; it is emptied after (bench)",
    )
    add_output(parser)
    add_connection(parser, retries=False)


def _run(given: Namespace) -> int:
    for name, least, most in (
        ("workers", 1, _MAX_WORKERS), ("seconds", 1, _MAX_SECONDS), ("payload", 2, _MAX_PAYLOAD)
    ):  # fmt: skip
        if not least <= getattr(given, name) <= most:
            raise UsageError(f"--{name} {getattr(given, name)}: must be from {least} to {most:,}")
    with Session(given) as session:
        _check(session, given.queue)
        try:
            load = _Load(given)
            elapsed = _run_loop(load.run(session.async_client(given.workers)))
        except BaseException:  # also Ctrl-C
            with suppress(JobQueueError):
                _clean(session, given.queue)
            raise
        _clean(session, given.queue)
    _report(session.table, given, load.times, elapsed)
    return 0


def _check(session: Session, queue: str) -> None:
    """Raises `UsageError` if the queue is in use, and `Forbidden` if it could not be emptied afterwards."""
    found = session.client.queues.get(queue)
    count = sum(msgspec.structs.astuple(found.jobs))
    if count:
        jobs = f"{count:,} job{'' if count == 1 else 's'}"
        raise UsageError(f"the queue {queue} holds {jobs}, which bench would remove; give another -q QUEUE")
    if found.paused:
        raise UsageError(f"the queue {queue} is paused; give another -q QUEUE")
    session.client.queues.purge(queue, all=True, dry_run=True)


def _clean(session: Session, queue: str) -> None:
    """Removes the jobs of the queue."""
    session.client.queues.cancel(queue, status="in_progress", force=True)
    session.client.queues.purge(queue, status=_NOT_LEASED)


def _run_loop(load: Coroutine[None, None, float]) -> float:
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):  # it comes with the server, and is faster
        from uvloop import new_event_loop as loop_factory
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(load)


def _report(table: bool, given: Namespace, times: dict[str, array[float]], elapsed: float) -> None:
    jobs = len(times["conclude"])
    shares = {call: _quantiles(times[call]) for call in _CALLS}
    if not table:
        found = {
            "queue": given.queue, "workers": given.workers, "payload": given.payload,
            "seconds": round(elapsed, 3), "jobs": jobs, "jobs_per_second": round(jobs / elapsed, 1), **shares,
        }  # fmt: skip
        put(msgspec.json.encode(found) + b"\n")
        return
    from jobqueue.web.writers import text_tables

    rows = [["CALL", *(f"{name.upper()}, MS" for name, _ in _SHARES)]]
    for call, found_of_call in shares.items():
        rows.append([call, *(f"{1000 * seconds:.2f}" for seconds in found_of_call.values())])
    put(f"{jobs:,} jobs in {elapsed:.1f} s, by {given.workers} workers: {jobs / elapsed:,.0f} jobs/s\n\n")
    put(text_tables.table(rows, frozenset(range(1, len(rows[0])))))


def _quantiles(times: array[float]) -> dict[str, float]:
    """Returns the seconds within which each of `_SHARES` of the calls was answered."""
    ordered = sorted(times)
    return {name: round(ordered[max(0, ceil(share * len(ordered)) - 1)], 6) for name, share in _SHARES}


class _Load:
    """The workers. `times` has the seconds of every call."""

    def __init__(self, given: Namespace) -> None:
        self.times = {call: array("d") for call in _CALLS}
        self._queue: str = given.queue
        self._workers: int = given.workers
        self._seconds: int = given.seconds
        self._payload = msgspec.Raw(b'"%b"' % (b"x" * (given.payload - 2)))

    async def run(self, client: AsyncClient) -> float:
        """Runs the workers, and returns the seconds from the first enqueue to the last conclude."""
        async with client:
            await asyncio.gather(*(client.server.health() for _ in range(self._workers)))  # connects them
            started = time.perf_counter()
            until = started + self._seconds
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._workers):
                        group.create_task(self._work(client, until))
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None
            return time.perf_counter() - started

    async def _work(self, client: AsyncClient, until: float) -> None:
        enqueue, dequeue, conclude = (self.times[call].append for call in _CALLS)
        jobs, clock = client.jobs, time.perf_counter
        while (started := clock()) < until:
            # `retain_for` 0: a finished job needs no memory.
            await jobs.enqueue("bench", self._payload, queue=self._queue, retain_for=0)
            enqueued = clock()
            job = await jobs.dequeue(self._queue, wait=_WAIT)
            taken = clock()
            if job is None:
                raise UsageError(
                    f"there was no job for {_WAIT} s: somebody else takes them, or a limit of the queue "
                    f"{self._queue} holds them back"
                )
            await jobs.conclude(job)
            enqueue(enqueued - started)
            dequeue(taken - enqueued)
            conclude(clock() - taken)


BENCH: Final = Verb(_declare, _run)
