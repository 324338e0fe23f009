"""Transports of clients whose server is in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from jobqueue.client import Request, Response
from jobqueue.client.http import Pairs
from jobqueue.testing.in_process_server import InProcessServer, Waiting


class InlineTransport:
    """A `Transport`.

    Before a request that waits for a job is answered, `run` runs what is ready: in production a worker would
    do that meanwhile. `answered` is called after each request.
    """

    def __init__(
        self, server: InProcessServer, run: Callable[[Waiting], object], answered: Callable[[Request], None]
    ) -> None:
        self._server = server
        self._run = run
        self._answered = answered

    def send(self, request: Request) -> Response:
        answer = self._server.begin(request)
        if isinstance(answer, Waiting):
            try:
                self._run(answer)
            except BaseException:
                self._server.abandon(answer)
                raise
            answer = self._server.finish(answer)
        self._answered(request)
        return answer

    def stream(self, request: Request) -> WholeStream:
        return WholeStream(self.send(request))

    def close(self) -> None:
        """Does nothing: there is no connection."""


class InlineAsyncTransport:
    """An `AsyncTransport`, as `InlineTransport` otherwise."""

    def __init__(
        self,
        server: InProcessServer,
        run: Callable[[Waiting], Awaitable[object]],
        answered: Callable[[Request], None],
    ) -> None:
        self._server = server
        self._run = run
        self._answered = answered

    async def send(self, request: Request) -> Response:
        answer = self._server.begin(request)
        if isinstance(answer, Waiting):
            try:
                await self._run(answer)
            except BaseException:
                self._server.abandon(answer)
                raise
            answer = self._server.finish(answer)
        self._answered(request)
        return answer

    async def stream(self, request: Request) -> WholeAsyncStream:
        return WholeAsyncStream(await self.send(request))

    async def close(self) -> None:
        """Does nothing: there is no connection."""


class WholeStream:
    """A stream that is there already."""

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.headers: Pairs = response.headers
        self._pieces = iter([response.body] if response.body else [])

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Does nothing: there is no connection."""


class WholeAsyncStream:
    """As `WholeStream`, for `AsyncClient`."""

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.headers: Pairs = response.headers
        self._body = response.body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body

    async def close(self) -> None:
        """Does nothing: there is no connection."""
