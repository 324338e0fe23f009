"""Jobs as a stream: a consumer keeps one connection open and is sent jobs as soon as it has capacity.

It waits in the same order as consumers that dequeue. It holds at most `prefetch` jobs; each lease that ends,
in any way, makes capacity for another job. If the client disconnects, the unfinished jobs that were written
to it count as if their leases had expired: one of them may have ended the client. Jobs that were not written
yet return to their places, the attempt uncounted. If the server ends the stream, they stay leased, so that
they can be concluded.

A client that reports nothing at all while a lease expires gets no more jobs, and the stream ends when it
holds none: the client reads, but nobody works on the jobs. One that works opens another stream.
"""

import asyncio
from asyncio import CancelledError, Future
from collections.abc import AsyncGenerator, Iterator
from itertools import islice

from msgspec.structs import replace

from jobqueue.errors import OutcomeUnknown
from jobqueue.model import Delivery, DequeueRequest, Job
from jobqueue.steps import STALE
from jobqueue.web.context import Context
from jobqueue.web.http import LINES, Request, Stream
from jobqueue.web.streams.flow import Wakeup, gathered

# Seconds without a job after which an empty line is sent.
BEAT = 15.0


def stream_jobs(context: Context, request: Request) -> Stream:
    want, length = context.consume.stream(request)
    for name in want.queues:
        context.check_queue(name)
    consumer = StreamingConsumer(context, want, length)
    return Stream(consumer.pieces(), consumer.end, consumer.gone, LINES, large=True)


class StreamingConsumer:
    """One consumer.

    `want.count` is the number of jobs that it may hold. `length` is the duration of the stream in
    milliseconds; None: without end.
    """

    def __init__(self, context: Context, want: DequeueRequest, length: int | None) -> None:
        self._context = context
        self._engine = context.engine
        self._want = want
        self._length = length
        self._held: dict[int, Delivery] = {}
        self._written: set[int] = set()  # ids of those of `_held` that the client has
        # End and length of the lease of each held job as it was given, and the number of reports until then.
        self._given: dict[int, tuple[int, int, int]] = {}
        self._reports = 0  # leases that the client has ended
        self._silent = False  # it has reported nothing while a lease expired
        self._taking: Future[list[Delivery]] | None = None
        self._rest = Wakeup()
        self._quiet = False  # it has been sent nothing since the last beat
        self._gone = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        end = None if self._length is None else loop.call_later(self._length / 1000, self.end)
        self._beats = loop.call_later(BEAT / 2, self._beat)
        try:
            while not self._rest.over:
                handed = await self._take()
                if self._gone:
                    return
                unwritten = iter(handed)
                for piece in self._pieces_of(handed):
                    yield piece
                    # The next piece is asked for when this one has been written. Each job is one line.
                    for job, _ in islice(unwritten, piece.count(b"\n") if handed else 0):
                        if job.id in self._held:
                            self._written.add(job.id)
        finally:
            self._beats.cancel()
            if end is not None:
                end.cancel()

    def _pieces_of(self, handed: list[Delivery]) -> Iterator[bytes]:
        """Yields a line for each delivery; an empty line if there is none."""
        render = self._context.encoder.handed
        self._quiet = False
        if not handed and not self._rest.over:
            yield b"\n"
        yield from gathered(render(one) for one in handed)

    def _beat(self) -> None:
        """Wakes the stream if nothing was sent since the last beat, so that it sends an empty line."""
        self._beats = asyncio.get_running_loop().call_later(BEAT / 2, self._beat)
        if self._quiet:
            self._rest.wake()
        self._quiet = True

    async def _take(self) -> list[Delivery]:
        """Returns the next deliveries. Empty: time for a beat, or the stream has ended."""
        want = self._want
        assert want.count is not None
        if len(self._held) >= want.count:
            await self._rest.wait()
            if len(self._held) >= want.count or self._rest.over:
                return []
        if self._silent:
            if self._held:
                await self._rest.wait()
            else:
                self._rest.end()
            return []
        room = replace(want, count=want.count - len(self._held))
        found = self._engine.dequeue(room, int(BEAT * 1000))
        if isinstance(found, Future):
            self._taking = found
            try:
                found = await found
            except CancelledError:
                if self._taking.cancelled() and self._rest.over:
                    return []
                raise
            except OutcomeUnknown:  # the database is away, and the jobs went back
                return []
            finally:
                self._taking = None
        if not self._gone:
            self._keep(found)
        return found

    def _keep(self, handed: list[Delivery]) -> None:
        for one in handed:
            job, lease = one
            self._held[job.id] = one
            self._given[job.id] = (lease.expires, lease.length, self._reports)
        self._engine.on_lease_end(handed, self._ended)

    def _ended(self, job: Job) -> None:
        _, lease = self._held[job.id]
        if lease.ended_by != STALE:
            self._reports += 1
            self._silent = False
        elif self._reports == self._given[job.id][2] and not any(map(self._extended, self._held)):
            self._silent = True
        del self._held[job.id], self._given[job.id]
        self._written.discard(job.id)
        self._rest.wake()

    def _extended(self, id: int) -> bool:
        """Returns whether the client has sent a heartbeat for a job that it holds."""
        lease = self._held[id][1]
        # A heartbeat that `max_run_for` cuts changes only the length: that is less, as it counts from now.
        return (lease.expires, lease.length) != self._given[id][:2]

    def end(self) -> None:
        """Ends the stream; leases stay."""
        self._rest.end()
        if self._taking is not None:
            self._taking.cancel()

    def gone(self) -> None:
        """Ends the stream because the client is gone, and returns its jobs."""
        self._gone = True
        taking = self._taking
        self.end()
        if taking is not None and not taking.cancelled() and taking.exception() is None:
            self._engine.give_back(taking.result())  # handed over in this very pass of the loop
        held = list(self._held.values())
        self._engine.give_back([one for one in held if one[0].id not in self._written])
        self._engine.lose([one for one in held if one[0].id in self._written])
