"""Direct calls: in a cluster, what concerns one shard is sent to the server that owns it.

Any server answers any request, and passes on what another one owns. The answer then names the owner, in
`Job-Server`, and the next request about the same goes there. The listed servers stay the way out:

    Unreachable, or refused there for a     nothing was done: the same request goes to a listed server at once
    reason that other servers may not have
    AnswerLost, 502, 504, or 503 with       it may have been done: the caller decides, and its next request
    `outcome_unknown`                       goes to a listed server
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from jobqueue.advertised import HEADER
from jobqueue.client.address import Address
from jobqueue.client.errors import AnswerLost, BadAnswer, Unreachable, refusal
from jobqueue.client.failover import AWAY
from jobqueue.client.http import (
    About,
    AsyncStreamed,
    AsyncTransport,
    Pairs,
    Request,
    Response,
    Streamed,
    Transport,
    header_of,
)
from jobqueue.errors import (
    JobQueueError,
    MethodNotAllowed,
    NoSuchRoute,
    NotReady,
    Refused,
    Stopping,
    Unauthorized,
    Unavailable,
)

if TYPE_CHECKING:
    from jobqueue.client.owners import Owners, Server

X = TypeVar("X")
_NAMES: Final = frozenset({HEADER.encode(), HEADER.lower().encode()})
# Refusals of which others may know better: those of a server that leaves or knows other tokens, and of what
# else there may be at the URL. A subclass is another reason.
_NOT_THERE: Final[frozenset[type[JobQueueError]]] = frozenset(
    {NotReady, Stopping, Unavailable, Unauthorized, Refused, NoSuchRoute, MethodNotAllowed, BadAnswer}
)


class _Known(Generic[X]):
    """What answers have told. `owners` is None until one has told something."""

    def __init__(self, listed: Mapping[Address, X], connect: Callable[[Address], X]) -> None:
        self._listed = listed
        self._connect = connect
        self._lock = threading.Lock()
        self.owners: Owners[X] | None = None

    def learn(self, about: About, headers: Pairs) -> X | None:
        """Remembers the owner that an answer names. Returns a transport that is to be closed for it."""
        url = header_of(headers, HEADER.lower())
        return None if url is None else self._owners().learn(about, url)

    def transports(self) -> Sequence[X]:
        """Returns the transports that no listed address has."""
        return () if self.owners is None else self.owners.transports()

    def _owners(self) -> Owners[X]:
        from jobqueue.client.owners import Owners

        with self._lock:
            if self.owners is None:
                self.owners = Owners(self._listed, self._connect)
            return self.owners


def _failed(owners: Owners[X], server: Server[X], error: JobQueueError) -> None:
    """Forgets a server that gave no answer. Raises `error` if the request may not go to another one."""
    if error.facts.get("busy"):  # this client's own limit
        raise error
    owners.failed(server)
    if isinstance(error, AnswerLost):
        raise error


def _counts(owners: Owners[X], server: Server[X], answer: Response) -> bool:
    """Tells whether the answer of a server is that to the request, or a listed server is to be asked."""
    if answer.status < 300:
        owners.answered(server)
        return True
    if type(refusal(answer)) in _NOT_THERE:
        owners.failed(server)
        return False
    if answer.status in AWAY:
        owners.failed(server)
    else:
        owners.answered(server)
    return True


class DirectTransport:
    """Sends requests to the owners of what they are about, or through `listed`. `each`: the transport of each
    listed address. `connect(address)` returns one to another address."""

    def __init__(
        self, listed: Transport, each: Mapping[Address, Transport], connect: Callable[[Address], Transport]
    ) -> None:
        self._listed = listed
        self._known: _Known[Transport] = _Known(each, connect)

    def send(self, request: Request) -> Response:
        about, known = request.about, self._known
        if not about:
            return self._listed.send(request)
        answer = None if known.owners is None else self._ask_owner(known.owners, request)
        if answer is None:
            answer = self._listed.send(request)
        for name, _ in answer.headers:
            if name in _NAMES:
                self._learn(request, answer)
                break
        return answer

    def _ask_owner(self, owners: Owners[Transport], request: Request) -> Response | None:
        """Returns the owner's answer; None: a listed server is to be asked."""
        server = owners.owner(request.about)
        if server is None:
            return None
        try:
            answer = server.transport.send(owners.request(request, server))
        except (Unreachable, AnswerLost) as error:
            _failed(owners, server, error)
            return None
        return answer if _counts(owners, server, answer) else None

    def _learn(self, request: Request, answer: Response) -> None:
        if (closed := self._known.learn(request.about, answer.headers)) is not None:
            closed.close()

    def stream(self, request: Request) -> Streamed:
        owners = self._known.owners
        if owners is not None and (server := owners.owner(request.about)) is not None:
            try:
                opened = server.transport.stream(owners.request(request, server))
            except (Unreachable, AnswerLost) as error:
                _failed(owners, server, error)
            else:
                if opened.status == 200:
                    return opened
                opened.close()
                if opened.status in AWAY:
                    owners.failed(server)
        return self._listed.stream(request)

    def close(self) -> None:
        self._listed.close()
        for transport in self._known.transports():
            transport.close()


class AsyncDirectTransport:
    """The same for asyncio."""

    def __init__(
        self,
        listed: AsyncTransport,
        each: Mapping[Address, AsyncTransport],
        connect: Callable[[Address], AsyncTransport],
    ) -> None:
        self._listed = listed
        self._known: _Known[AsyncTransport] = _Known(each, connect)

    async def send(self, request: Request) -> Response:
        about, known = request.about, self._known
        if not about:
            return await self._listed.send(request)
        answer = None if known.owners is None else await self._ask_owner(known.owners, request)
        if answer is None:
            answer = await self._listed.send(request)
        for name, _ in answer.headers:
            if name in _NAMES:
                await self._learn(request, answer)
                break
        return answer

    async def _ask_owner(self, owners: Owners[AsyncTransport], request: Request) -> Response | None:
        """Returns the owner's answer; None: a listed server is to be asked."""
        server = owners.owner(request.about)
        if server is None:
            return None
        try:
            answer = await server.transport.send(owners.request(request, server))
        except (Unreachable, AnswerLost) as error:
            _failed(owners, server, error)
            return None
        return answer if _counts(owners, server, answer) else None

    async def _learn(self, request: Request, answer: Response) -> None:
        if (closed := self._known.learn(request.about, answer.headers)) is not None:
            await closed.close()

    async def stream(self, request: Request) -> AsyncStreamed:
        owners = self._known.owners
        if owners is not None and (server := owners.owner(request.about)) is not None:
            try:
                opened = await server.transport.stream(owners.request(request, server))
            except (Unreachable, AnswerLost) as error:
                _failed(owners, server, error)
            else:
                if opened.status == 200:
                    return opened
                await opened.close()
                if opened.status in AWAY:
                    owners.failed(server)
        return await self._listed.stream(request)

    def end_waits(self) -> None:
        """Ends the waits at all servers, as `AsyncClient.end_waits` says."""
        for transport in (self._listed, *self._known.transports()):
            end = getattr(transport, "end_waits", None)
            if end is not None:
                end()

    async def close(self) -> None:
        await self._listed.close()
        for transport in self._known.transports():
            await transport.close()
