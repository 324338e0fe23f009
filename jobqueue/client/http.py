"""Requests and answers, and the transports that carry them.

A transport of your own has the methods of `Transport` (or `AsyncTransport`). It raises `Unreachable` if the
request was certainly not sent whole, and `AnswerLost` if it was sent and the answer did not come. The client
repeats requests by that difference.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

Pairs = Sequence[tuple[bytes, bytes]]
# A queue or several, or the ids of jobs.
About = str | int | Sequence[str] | Sequence[int]


class Timeouts(Struct, frozen=True):
    """Limits in seconds.

    `connect` is for making a connection, with TLS. `read` is for the server's first byte and between two
    pieces of an answer; the `wait` of a call is added to it. `total` is for one attempt from its start to
    the last byte, the `wait` added, and does not apply to streams; None: no such limit.
    """

    connect: float = 5.0
    read: float = 30.0
    total: float | None = 120.0


class Request(Struct, frozen=True):
    """One request. `target` is its path with the query. `headers` do not have `Content-Length` and `Host`.

    `about`: the queues, or the ids of the jobs, that it is about, if the server that owns them can answer it
    alone.
    """

    method: str
    target: str
    headers: Pairs
    body: bytes
    timeouts: Timeouts
    about: About = ()


class Response(Struct, frozen=True):
    """One answer. Names of `headers` may be in any letter case."""

    status: int
    headers: Pairs
    body: bytes

    def header(self, name: str) -> str | None:
        """Returns the first value of a header; `name` is in lower case."""
        return header_of(self.headers, name)


def header_of(headers: Pairs, name: str) -> str | None:
    wanted = name.encode("latin-1")
    for key, value in headers:
        if key.lower() == wanted:
            return value.decode("latin-1")
    return None


class Streamed(Protocol):
    """An answer whose body is read as it arrives. Iterating raises `AnswerLost` if it ends too early."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Pairs: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class Transport(Protocol):
    """Carries requests for `Client`. Several threads may use it at once."""

    def send(self, request: Request) -> Response:
        """Sends a request and returns its whole answer, whatever its status."""

    def stream(self, request: Request) -> Streamed:
        """Sends a request and returns its answer as soon as the headers are there."""

    def close(self) -> None:
        """Closes all connections. A later call may open new ones."""


class AsyncStreamed(Protocol):
    """As `Streamed`, for `AsyncClient`."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Pairs: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def close(self) -> None: ...


class AsyncTransport(Protocol):
    """Carries requests for `AsyncClient`. Several tasks may use it at once."""

    async def send(self, request: Request) -> Response:
        """Sends a request and returns its whole answer, whatever its status."""

    async def stream(self, request: Request) -> AsyncStreamed:
        """Sends a request and returns its answer as soon as the headers are there."""

    async def close(self) -> None:
        """Closes all connections. A later call may open new ones."""
