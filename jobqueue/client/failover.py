"""Failover: transports over several servers that are one queue. A request goes to the current server. When
that cannot be reached, or does not answer, the next one becomes the current server; after the last one comes
the first:

    Unreachable             nothing was done: the same request goes to the next server at once
    AnswerLost, 502 … 504   it may have been done: the caller decides, and its next request goes there
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from jobqueue.client.errors import AnswerLost, Unreachable
from jobqueue.client.http import (
    AsyncStreamed,
    AsyncTransport,
    Request,
    Response,
    Streamed,
    Transport,
)

A = TypeVar("A", Response, Streamed, AsyncStreamed)
# Statuses of a server that is not ready, or of a gateway that has lost its server.
AWAY: Final = (502, 503, 504)


class Turns:
    """Which one of `count` servers is the current one. Threads may share it: a lost update only means that
    the same server is tried once more."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._current = 0

    def order(self) -> list[int]:
        """Returns the numbers of all servers, the current one first."""
        return [(self._current + step) % self._count for step in range(self._count)]

    def leave(self, number: int) -> None:
        """Makes the server after `number` the current one, unless another call has done so."""
        if self._current == number:
            self._current = (number + 1) % self._count

    def answered(self, number: int, status: int) -> None:
        """Goes on to the next server if `number` has answered that it cannot serve."""
        if status in AWAY:
            self.leave(number)


class Failures:
    """Collects why a request could not be sent to one server after the other."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._errors: list[Unreachable] = []

    def add(self, number: int, error: Unreachable) -> None:
        """Raises `error` if no other server may be tried."""
        if error.facts.get("busy"):  # this client's own limit
            raise error
        self._turns.leave(number)
        if error.facts.get("sent_partly"):  # an import acts on parts
            raise error
        self._errors.append(error)

    def error(self) -> Unreachable:
        """Returns the error when no server could be reached."""
        permanent = all(error.facts.get("permanent") for error in self._errors)
        detail = "; ".join(error.detail for error in self._errors)
        return Unreachable(detail, permanent=permanent)


class FailoverTransport:
    """Sends requests through one of several transports, one for each server."""

    def __init__(self, transports: Sequence[Transport]) -> None:
        self._transports = transports
        self._turns = Turns(len(transports))

    def send(self, request: Request) -> Response:
        return self._each(lambda transport: transport.send(request))

    def stream(self, request: Request) -> Streamed:
        return self._each(lambda transport: transport.stream(request))

    def _each(self, call: Callable[[Transport], A]) -> A:
        """Makes a call to one server after the other, until one answers. Raises `Unreachable` or
        `AnswerLost`."""
        failures = Failures(self._turns)
        for number in self._turns.order():
            try:
                answer = call(self._transports[number])
            except Unreachable as error:
                failures.add(number, error)
            except AnswerLost:
                self._turns.leave(number)
                raise
            else:
                self._turns.answered(number, answer.status)
                return answer
        raise failures.error()

    def close(self) -> None:
        for transport in self._transports:
            transport.close()


class AsyncFailoverTransport:
    """The same for asyncio."""

    def __init__(self, transports: Sequence[AsyncTransport]) -> None:
        self._transports = transports
        self._turns = Turns(len(transports))

    async def send(self, request: Request) -> Response:
        return await self._each(lambda transport: transport.send(request))

    async def stream(self, request: Request) -> AsyncStreamed:
        return await self._each(lambda transport: transport.stream(request))

    async def _each(self, call: Callable[[AsyncTransport], Awaitable[A]]) -> A:
        """Makes a call to one server after the other, until one answers. Raises `Unreachable` or
        `AnswerLost`."""
        failures = Failures(self._turns)
        for number in self._turns.order():
            try:
                answer = await call(self._transports[number])
            except Unreachable as error:
                failures.add(number, error)
            except AnswerLost:
                self._turns.leave(number)
                raise
            else:
                self._turns.answered(number, answer.status)
                return answer
        raise failures.error()

    def end_waits(self) -> None:
        for transport in self._transports:
            end = getattr(transport, "end_waits", None)
            if end is not None:
                end()

    async def close(self) -> None:
        for transport in self._transports:
            await transport.close()
