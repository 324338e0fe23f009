"""Serving: performs the calls that another server passes on, for the shards that this one owns."""

import asyncio
import hmac
import logging
import socket
import ssl
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

from msgspec import MsgspecError

from jobqueue.cluster import codec
from jobqueue.cluster.codec import BY_KIND, Verb
from jobqueue.engine.local import LocalEngine
from jobqueue.errors import JobForgotten, JobNotFound, JobQueueError, NotReady, Overloaded
from jobqueue.model import Delivery, Job, Lease
from jobqueue.steps import STALE, Kind

_log: Final = logging.getLogger("jobqueue")


class Servings:
    """The connections of the servers that pass calls on. `engine_of(shard)`: the engine of a shard that this
    server owns, or None. `clock()`: the wall clock when the monotonic clock was 0. `tls`: with which it
    accepts; `expected`: what each caller sends first then. `url`: at which clients reach this server."""

    def __init__(
        self,
        engine_of: Callable[[int], LocalEngine | None],
        clock: Callable[[], int],
        tls: ssl.SSLContext | None = None,
        expected: bytes = b"",
        url: str | None = None,
    ) -> None:
        self.engine_of = engine_of
        self._clock = clock
        self._told_clock = clock()
        self._tls = tls
        self.expected = expected
        self._url = None if url is None else url.encode()
        self._open: set[Serving] = set()
        self.watchers: set[Serving] = set()
        self.on_watchers: Callable[[], None] = lambda: None  # called when there are none, or some, now
        self._connecting: set[asyncio.Task[None]] = set()

    def take(self, link: socket.socket) -> None:
        """Serves a connection that has been greeted, and owns its socket."""
        task = asyncio.get_running_loop().create_task(self._connect(link))
        self._connecting.add(task)
        task.add_done_callback(partial(self._connected, link))

    async def _connect(self, link: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: cast(Any, Serving(self)), link, ssl=self._tls
        )

    def _connected(self, link: socket.socket, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if task.cancelled() or task.exception() is not None:
            link.close()

    def opened(self, serving: "Serving") -> None:
        self._open.add(serving)
        serving.tell_clock(self._told_clock)
        if self._url is not None:
            serving.answer(0, codec.URL, self._url)

    def closed(self, serving: "Serving") -> None:
        self._open.discard(serving)
        self.watch(serving, False)

    def watch(self, serving: "Serving", on: bool) -> None:
        before = bool(self.watchers)
        (self.watchers.add if on else self.watchers.discard)(serving)
        if before != bool(self.watchers):
            self.on_watchers()

    def event(self, kind: Kind, subject: Job | str) -> None:
        """Tells the servers that watch what happened here."""
        if self.watchers:
            job, name = (subject, "") if isinstance(subject, Job) else (None, subject)
            body = codec.encode((kind, job, name))
            for serving in self.watchers:
                serving.answer(0, codec.EVENT, body)

    def tell_clock(self) -> None:
        """Tells the other servers the clock if it was set."""
        clock = self._clock()
        if abs(clock - self._told_clock) > 1:
            self._told_clock = clock
            for serving in self._open:
                serving.tell_clock(clock)

    def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        for serving in list(self._open):
            serving.close()


class Serving:
    """One of them."""

    def __init__(self, servings: Servings) -> None:
        self._servings = servings
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._expected = servings.expected
        self._under_way: dict[int, Future[Any]] = {}
        self._out: list[bytes] = []
        # Leases whose end is told, by the ids of their jobs, with the end and the length that were told.
        self._leases: dict[int, tuple[Lease, int, int]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's has another base
        self._servings.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        """All who called through the other server have left."""
        self._transport = None
        self._servings.closed(self)
        for future in list(self._under_way.values()):
            future.cancel()
        self._under_way.clear()

    # A compiled class cannot inherit from `asyncio.Protocol`; it has its methods.

    def eof_received(self) -> None:
        """The other side sends no more: the connection is closed."""

    def pause_writing(self) -> None:
        """What is unsent waits in the transport."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def close(self) -> None:
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if self._expected and not self._proved():
            return
        start, end = 0, len(received)
        size = codec.CALL.size
        frames: list[tuple[int, int, int, bytes]] = []
        while end - start >= size:
            length, number, kind, shard = codec.CALL.unpack_from(received, start)
            following = start + codec.LENGTH + length
            if not size - codec.LENGTH <= length <= codec.LONGEST:
                self._cut("no frame")
                return
            if following > end:
                break
            frames.append((number, kind, shard, bytes(received[start + size : following])))
            start = following
        del received[:start]
        for number, kind, shard, body in frames:
            if (verb := BY_KIND.get(kind)) is not None:
                self._perform(number, verb, shard, body)
                continue
            try:
                self._told(number, kind, shard, body)
            except MsgspecError as bad:
                self._cut(f"what cannot be read: {bad}")
                return
            except Exception:
                _log.exception("unexpected error in what a server of the cluster told")

    def _cut(self, sent: str) -> None:
        _log.error("a server of the cluster sent %s", sent)
        if self._transport is not None:
            self._transport.abort()

    def _proved(self) -> bool:
        """Returns whether the caller has proved that nobody is in between. Ends the connection if not."""
        received, expected = self._received, self._expected
        if len(received) < len(expected):
            return False
        if not hmac.compare_digest(bytes(received[: len(expected)]), expected):
            _log.error("a server of the cluster did not see the certificate of this one")
            assert self._transport is not None
            self._transport.abort()
            return False
        del received[: len(expected)]
        self._expected = b""
        return True

    # -- calls --------------------------------------------------------------------------------------

    def _perform(self, number: int, verb: Verb, shard: int, body: bytes) -> None:
        engine = self._servings.engine_of(shard)
        if engine is None:
            self.answer(number, codec.NOT_OWNER, b"")
            return
        try:
            if (refuses := engine.refuses) is not None:
                raise NotReady(refuses, retry_after=1)
            given = verb.read(body)
            if verb.unpack_arguments is not None:
                given = verb.unpack_arguments(given)
            result = performed(engine, verb, given)
        except Exception as error:
            self._refuse(number, error)
            return
        if isinstance(result, Future):
            self._under_way[number] = result
            result.add_done_callback(partial(self._done, number, verb, shard))
        else:
            self._answer_with(number, verb, result)

    def _done(self, number: int, verb: Verb, shard: int, future: Future[Any]) -> None:
        if self._under_way.pop(number, None) is None:  # the other server has gone
            engine = self._servings.engine_of(shard)
            delivered = verb.delivers and not future.cancelled() and future.exception() is None
            if delivered and engine is not None:  # in this very pass of the loop
                engine.give_back(future.result())
            return
        if future.cancelled():
            self.answer(number, codec.WITHDRAWN, b"")
        elif (error := future.exception()) is not None:
            self._refuse(number, error)
        else:
            self._answer_with(number, verb, future.result())

    def _answer_with(self, number: int, verb: Verb, result: Any) -> None:
        try:
            body = codec.encode(verb.pack(result) if verb.pack is not None else result)
            if len(body) > codec.LONGEST - codec.ANSWER.size:
                raise Overloaded(f"the answer of another server has {len(body):,} bytes; ask for less")
        except Exception as error:
            self._refuse(number, error)
        else:
            self.answer(number, codec.RESULT, body)

    def _refuse(self, number: int, error: BaseException) -> None:
        if isinstance(error, JobQueueError):
            self.answer(number, codec.REFUSED, codec.encode(error))
            return
        if isinstance(error, MsgspecError):
            _log.error("a call of a server of the cluster cannot be read: %s", error)
        else:
            _log.error("unexpected error in a call of a server of the cluster", exc_info=error)
        self.answer(number, codec.BUG, b"")

    def _told(self, number: int, kind: int, shard: int, body: bytes) -> None:
        if kind == codec.CANCEL:
            if (future := self._under_way.get(number)) is not None:
                future.cancel()
            return
        if kind == codec.WATCH:
            self._servings.watch(self, bool(body))
            return
        if kind == codec.WATCH_LEASES:
            self._watch_leases(shard, codec.read_ids(body))

    def _watch_leases(self, shard: int, leases: list[tuple[int, str]]) -> None:
        engine = self._servings.engine_of(shard)
        if engine is None:
            self.answer(0, codec.NOT_WATCHED, bytes([shard]))
            return
        deliveries = current_deliveries(engine, leases)
        for job, lease in deliveries:
            self._leases[job.id] = lease, lease.expires, lease.length
        engine.on_lease_end(deliveries, self._lease_ended)
        gone = set(leases).difference((job.id, lease.token) for job, lease in deliveries)
        if gone:
            self.answer(0, codec.LEASES_GONE, codec.encode(list(gone)))

    def _lease_ended(self, job: Job) -> None:
        self._leases.pop(job.id, None)
        if job.lease is not None and job.lease.ended_by == STALE:
            self._tell_renewed()  # a consumer that works on other jobs is not silent
        self.answer(0, codec.LEASE_ENDED, codec.encode(job))

    def _tell_renewed(self) -> None:
        renewed: list[tuple[int, str, int, int]] = []
        for id, (lease, expires, length) in self._leases.items():
            if lease.ended_by is None and (lease.expires, lease.length) != (expires, length):
                renewed.append((id, lease.token, lease.expires, lease.length))
                self._leases[id] = lease, lease.expires, lease.length
        if renewed:
            self.answer(0, codec.LEASES_RENEWED, codec.encode(renewed))

    # -- answers ------------------------------------------------------------------------------------

    def answer(self, number: int, kind: int, body: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(codec.ANSWER.pack(codec.ANSWER.size - codec.LENGTH + len(body), number, kind))
        self._out.append(body)

    def tell_clock(self, clock: int) -> None:
        self.answer(0, codec.CLOCK, clock.to_bytes(8, "big", signed=True))

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and out and not self._transport.is_closing():
            self._transport.write(b"".join(out))


def performed(engine: LocalEngine, verb: Verb, given: Sequence[Any]) -> Any:
    """Calls a verb of an engine."""
    if verb.takes_leases:
        given = (current_deliveries(engine, given[0]),)
    return getattr(engine, verb.name)(*given)


def current_deliveries(engine: LocalEngine, leases: Sequence[tuple[int, str]]) -> list[Delivery]:
    """Returns the jobs of an engine that were last leased under these tokens."""
    found: list[Delivery] = []
    for id, token in leases:
        try:
            job = engine.get(id)
        except (JobNotFound, JobForgotten):
            continue
        if job.lease is not None and job.lease.token == token:
            found.append((job, job.lease))
    return found
