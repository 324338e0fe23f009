"""`Client` blocks, `AsyncClient` awaits. Both have the same verbs, in `jobs`, `queues`, `schedules` and
`server`."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Self, TypeVar

from msgspec import structs

from jobqueue.client.address import DEFAULT, Address, Tls, addresses_of, shown
from jobqueue.client.call import Call, Retries, StreamCall
from jobqueue.client.direct import AsyncDirectTransport, DirectTransport
from jobqueue.client.errors import refusal
from jobqueue.client.failover import AsyncFailoverTransport, FailoverTransport
from jobqueue.client.http import (
    AsyncStreamed,
    AsyncTransport,
    Pairs,
    Request,
    Response,
    Streamed,
    Timeouts,
    Transport,
)
from jobqueue.client.job_verbs import JobVerbs
from jobqueue.client.queue_verbs import QueueVerbs
from jobqueue.client.schedule_verbs import ScheduleVerbs
from jobqueue.client.server_verbs import ServerVerbs
from jobqueue.client.streams import AsyncStream, Stream
from jobqueue.client.verbs import Async, CallSequence, M_co, Pages, Runner, Steps, Sync
from jobqueue.errors import JobQueueError
from jobqueue.version import VERSION

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")
X = TypeVar("X")
Certificate = str | tuple[str, str]
_RETRY_FOR: Final = 30.0
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_AGENT: Final = f"jobqueue-python/{VERSION}".encode()
# Seconds between two pieces of a stream; the server sends an empty line every 15 seconds.
_STREAM_READ: Final = 60.0


class Options(NamedTuple):
    """How calls are made. `headers` are those of every request, `prefix` comes before each path."""

    headers: Pairs
    prefix: str
    timeouts: Timeouts
    retry_for: float
    consumer: str | None

    def request(self, call: Call[Any]) -> Request:
        timeouts = self.timeouts
        if call.wait:
            total = None if timeouts.total is None else timeouts.total + call.wait
            timeouts = Timeouts(timeouts.connect, timeouts.read + call.wait, total)
        headers = [*self.headers, *call.headers] if call.headers else self.headers
        return Request(call.method, self.prefix + call.target, headers, call.body, timeouts, call.about)

    def stream_request(self, call: StreamCall[Any]) -> Request:
        timeouts = Timeouts(self.timeouts.connect, max(self.timeouts.read, _STREAM_READ), None)
        headers = [*self.headers, *call.headers]
        return Request(call.method, self.prefix + call.target, headers, call.body, timeouts, call.about)

    def changed(
        self,
        timeout: Timeouts | float | None,
        retry_for: float | None,
        headers: Mapping[str, str] | None,
        consumer: str | None,
    ) -> Options:
        return self._replace(
            timeouts=self.timeouts if timeout is None else _timeouts(timeout, self.timeouts),
            retry_for=self.retry_for if retry_for is None else retry_for,
            headers=(*self.headers, *_pairs(headers)),
            consumer=self.consumer if consumer is None else consumer,
        )


def _pairs(headers: Mapping[str, str] | None) -> Pairs:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]


def _timeouts(given: Timeouts | float, base: Timeouts = Timeouts()) -> Timeouts:  # noqa: B008  # it cannot change
    """Returns time limits. A number is the `read` of `base`, whose `total` becomes no less."""
    if isinstance(given, Timeouts):
        return given
    total = None if base.total is None else max(base.total, float(given))
    return structs.replace(base, read=float(given), total=total)


def _settings(
    url: str | None,
    token: str | None,
    timeout: Timeouts | float,
    retry_for: float,
    headers: Mapping[str, str] | None,
    consumer: str | None,
) -> tuple[list[Address], Options]:
    """Returns the addresses and the options that a client is made with. Raises `ValueError`."""
    addresses = addresses_of(url or os.environ.get("JOBQUEUE_URL") or DEFAULT)
    token = token or addresses[0].token or os.environ.get("JOBQUEUE_TOKEN") or None
    common: dict[str, str] = {"User-Agent": _AGENT.decode()}
    if token is not None:
        common["Authorization"] = f"Bearer {token}"
    pairs = (*_pairs(common), *_pairs(headers))
    return addresses, Options(pairs, addresses[0].prefix, _timeouts(timeout), retry_for, consumer)


def wants_direct(given: bool | None = None) -> bool:
    """Tells whether calls go to the owner of what they are about: `given`, else JOBQUEUE_DIRECT, else true.
    Raises `ValueError`."""
    if given is not None:
        return given
    said = os.environ.get("JOBQUEUE_DIRECT") or "true"
    if (wanted := _BOOLEANS.get(said.lower())) is None:
        raise ValueError(f"JOBQUEUE_DIRECT={said}: must be true or false")
    return wanted


def sending(addresses: Sequence[Address], tls: Tls, direct: bool) -> Transport:
    """Returns a transport by blocking sockets to these servers. `direct`: also to others that they name."""
    from jobqueue.client.socket_transport import SocketTransport

    def connect(address: Address) -> Transport:
        return SocketTransport(address, tls.context(address))

    each = [connect(address) for address in addresses]
    listed = each[0] if len(each) == 1 else FailoverTransport(each)
    return DirectTransport(listed, dict(zip(addresses, each, strict=True)), connect) if direct else listed


def _awaiting(addresses: Sequence[Address], tls: Tls, direct: bool, connections: int) -> AsyncTransport:
    """As `sending`, for asyncio."""
    from jobqueue.client.asyncio_transport import AsyncioTransport

    def connect(address: Address) -> AsyncTransport:
        return AsyncioTransport(address, tls.context(address), connections)

    each = [connect(address) for address in addresses]
    listed = each[0] if len(each) == 1 else AsyncFailoverTransport(each)
    return (
        AsyncDirectTransport(listed, dict(zip(addresses, each, strict=True)), connect) if direct else listed
    )


class BaseClient(Generic[M_co, X]):
    """What both clients have: groups of verbs, options and the addresses. `X`: the type of the transport."""

    def _assemble(self, addresses: Sequence[Address], transport: X, options: Options) -> None:
        self._addresses = addresses
        self._transport = transport
        self._options = options
        runner = self._runner()
        self.jobs: JobVerbs[M_co] = JobVerbs(runner, options.consumer)
        self.queues: QueueVerbs[M_co] = QueueVerbs(runner, options.consumer)
        self.schedules: ScheduleVerbs[M_co] = ScheduleVerbs(runner, options.consumer)
        self.server: ServerVerbs[M_co] = ServerVerbs(runner, options.consumer)

    def _runner(self) -> Runner:
        """Returns what carries out calls."""
        raise NotImplementedError

    def options(
        self,
        *,
        timeout: Timeouts | float | None = None,
        retry_for: float | None = None,
        headers: Mapping[str, str] | None = None,
        consumer: str | None = None,
    ) -> Self:
        """Returns a client with other options that shares the connections of this one."""
        other = type(self).__new__(type(self))
        changed = self._options.changed(timeout, retry_for, headers, consumer)
        other._assemble(self._addresses, self._transport, changed)
        return other

    @property
    def url(self) -> str:
        """The address of the server, without a token; of several, with commas between them."""
        return shown(self._addresses)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.url}>"


class Client(BaseClient[Sync, Transport]):
    """A client that blocks. Threads may share one; so may a process and what is forked from it.

    `client.jobs`, `client.queues`, `client.schedules` and `client.server` have the verbs of the API. It
    connects at its first call. Every call may raise the errors of `jobqueue.errors`, and `Unreachable` and
    `AnswerLost`.

    - `url`: `http://host:port`, `https://…` or `unix:/path`; else JOBQUEUE_URL, else http://localhost:8080.
      Several servers of one queue have commas between their addresses: when one is away, calls go to the
      next one.
    - `token`: the access token; else the password in the URL, else JOBQUEUE_TOKEN.
    - `timeout`: a `Timeouts`, or the seconds that the server may take for an answer.
    - `retry_for`: seconds in which a call is repeated where that is safe: the server cannot be reached, or
      answers 429 or 503 with `Retry-After`, or an answer was lost and doing it twice changes nothing.
      0: never.
    - `ca`, `cert`: files for TLS: the authorities to trust, and a certificate of the client, as one file or
      as certificate and key. `tls`: a context of your own instead.
    - `headers`: of every request. `consumer`: the name under which jobs are taken.
    - `direct`: in a cluster, a call goes to the server that owns what it is about, if answers name its URL.
      Else JOBQUEUE_DIRECT, else true.
    - `transport`: carries the requests instead of a `SocketTransport`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: Timeouts | float = Timeouts(),  # noqa: B008  # it cannot change
        retry_for: float = _RETRY_FOR,
        ca: str | None = None,
        cert: Certificate | None = None,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        consumer: str | None = None,
        direct: bool | None = None,
        transport: Transport | None = None,
    ) -> None:
        addresses, options = _settings(url, token, timeout, retry_for, headers, consumer)
        if transport is None:
            transport = sending(addresses, Tls(ca, cert, tls), wants_direct(direct))
        self._assemble(addresses, transport, options)

    def _runner(self) -> SyncRunner:
        return SyncRunner(self._transport, self._options)

    def close(self) -> None:
        """Closes all connections; that of a call under way in another thread when the call has ended. A later
        call opens new ones."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(BaseClient[Async, AsyncTransport]):
    """A client for asyncio. Tasks may share one; it may be used on several event loops.

    It takes what `Client` takes, and `connections`: the most that it has open at once on a loop.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: Timeouts | float = Timeouts(),  # noqa: B008  # it cannot change
        retry_for: float = _RETRY_FOR,
        ca: str | None = None,
        cert: Certificate | None = None,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        consumer: str | None = None,
        direct: bool | None = None,
        connections: int = 100,
        transport: AsyncTransport | None = None,
    ) -> None:
        addresses, options = _settings(url, token, timeout, retry_for, headers, consumer)
        if transport is None:
            transport = _awaiting(addresses, Tls(ca, cert, tls), wants_direct(direct), connections)
        self._assemble(addresses, transport, options)

    def _runner(self) -> AsyncRunner:
        return AsyncRunner(self._transport, self._options)

    def end_waits(self) -> None:
        """Has the server end the waits of calls on the running loop, such as that of `dequeue`.

        It says that nothing more will be sent. A call that waits then raises `AnswerLost`, or returns what
        was on its way already; no job is lost, as it may be when a call is cancelled. A proxy may keep that
        to itself, so a limit of your own is needed. Transports of your own may have `end_waits` as well.
        """
        end = getattr(self._transport, "end_waits", None)
        if end is not None:
            end()

    async def close(self) -> None:
        """Closes the connections of the running loop. A later call opens new ones."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _read(call: Call[T], response: Response) -> T:
    if 200 <= response.status < 300:
        return call.read(response)
    raise refusal(response)


class SyncRunner:
    """Carries out calls by blocking."""

    def __init__(self, transport: Transport, options: Options) -> None:
        self._transport = transport
        self._options = options

    def call(self, call: Call[T]) -> T:
        request = self._options.request(call)
        started = time.monotonic()
        retries: Retries | None = None
        while True:
            try:
                return _read(call, self._transport.send(request))
            except JobQueueError as error:
                retries = retries or Retries(call, started, self._options.retry_for)
                delay = retries.delay_after(error, time.monotonic())
            time.sleep(delay)

    def verb(self, make: Callable[..., Call[T]]) -> Callable[..., T]:
        def method(*given: Any, **options: Any) -> T:
            return self.call(make(*given, **options))

        return method

    def steps(self, make: Callable[..., Steps[T]]) -> Callable[..., T]:
        def method(*given: Any, **options: Any) -> T:
            sequence = CallSequence(make(*given, **options))
            while (call := sequence.call) is not None:
                try:
                    result = self.call(call)
                except JobQueueError as error:
                    sequence.throw(error)
                else:
                    sequence.send(result)
            return sequence.result

        return method

    def pages(self, make: Callable[..., Pages[T]]) -> Callable[..., Iterator[T]]:
        def method(*given: Any, **options: Any) -> Iterator[T]:
            return self._pages(make(*given, **options))

        return method

    def _pages(self, page: Pages[T]) -> Iterator[T]:
        items, cursor = self.call(page(None))
        yield from items
        while cursor is not None:
            items, cursor = self.call(page(cursor))
            yield from items

    def stream(self, make: Callable[..., StreamCall[T]]) -> Callable[..., Stream[T]]:
        def method(*given: Any, **options: Any) -> Stream[T]:
            call = make(*given, **options)
            return Stream(self._open(call), call.split())

        return method

    def _open(self, call: StreamCall[Any]) -> Streamed:
        opened = self._transport.stream(self._options.stream_request(call))
        if opened.status == 200:
            return opened
        raise refusal(Response(opened.status, opened.headers, b"".join(opened)))


class AsyncRunner:
    """Carries out calls by awaiting."""

    def __init__(self, transport: AsyncTransport, options: Options) -> None:
        self._transport = transport
        self._options = options

    async def call(self, call: Call[T]) -> T:
        request = self._options.request(call)
        started = time.monotonic()
        retries: Retries | None = None
        while True:
            try:
                return _read(call, await self._transport.send(request))
            except JobQueueError as error:
                retries = retries or Retries(call, started, self._options.retry_for)
                delay = retries.delay_after(error, time.monotonic())
            from asyncio import sleep

            await sleep(delay)

    def verb(self, make: Callable[..., Call[T]]) -> Callable[..., Coroutine[Any, Any, T]]:
        async def method(*given: Any, **options: Any) -> T:
            return await self.call(make(*given, **options))

        return method

    def steps(self, make: Callable[..., Steps[T]]) -> Callable[..., Coroutine[Any, Any, T]]:
        async def method(*given: Any, **options: Any) -> T:
            sequence = CallSequence(make(*given, **options))
            while (call := sequence.call) is not None:
                try:
                    result = await self.call(call)
                except JobQueueError as error:
                    sequence.throw(error)
                else:
                    sequence.send(result)
            return sequence.result

        return method

    def pages(self, make: Callable[..., Pages[T]]) -> Callable[..., AsyncIterator[T]]:
        def method(*given: Any, **options: Any) -> AsyncIterator[T]:
            return self._pages(make(*given, **options))

        return method

    async def _pages(self, page: Pages[T]) -> AsyncIterator[T]:
        items, cursor = await self.call(page(None))
        for item in items:
            yield item
        while cursor is not None:
            items, cursor = await self.call(page(cursor))
            for item in items:
                yield item

    def stream(self, make: Callable[..., StreamCall[T]]) -> Callable[..., AsyncStream[T]]:
        def method(*given: Any, **options: Any) -> AsyncStream[T]:
            call = make(*given, **options)
            return AsyncStream(lambda: self._open(call), call.split())

        return method

    async def _open(self, call: StreamCall[Any]) -> AsyncStreamed:
        opened = await self._transport.stream(self._options.stream_request(call))
        if opened.status == 200:
            return opened
        raise refusal(Response(opened.status, opened.headers, b"".join([piece async for piece in opened])))
