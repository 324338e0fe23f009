"""What all jobs of a program share: the clients, and the hooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from jobqueue.client import AsyncClient, Client
from jobqueue.jobs.context import Context

# A function that runs around every job: what is before its `yield` comes before the job, the rest after it.
Around = Callable[[Context], Iterator[None]] | Callable[[Context], AsyncIterator[None]]
# A function that is called when a worker starts or has ended.
Hook = Callable[[], object] | Callable[[], Awaitable[object]]


# What `use_clients` replaces: both clients, and the hint.
Clients = tuple[Client | None, AsyncClient | None, str]


class Shared:
    """`connection`: the arguments with which clients are made, when they are first needed.

    `hint` is not empty where time stands still, so that waiting longer for a result is of no use. It says
    what to do instead.
    """

    def __init__(
        self, connection: dict[str, Any], client: Client | None, aclient: AsyncClient | None
    ) -> None:
        self._connection = connection
        self._client = client
        self._aclient = aclient
        self.hint = ""
        # Returns the headers of the trace that goes on here, for jobs enqueued here; empty: there is none.
        self.trace_headers: Callable[[], Mapping[str, str]] = dict
        self.around: list[Around] = []
        self.starts: list[Hook] = []
        self.stops: list[Hook] = []

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(**self._connection)
        return self._client

    @property
    def aclient(self) -> AsyncClient:
        if self._aclient is None:
            self._aclient = AsyncClient(**self._connection)
        return self._aclient

    def use_clients(self, client: Client | None, aclient: AsyncClient | None, hint: str = "") -> Clients:
        """Replaces the clients and the hint, and returns the ones before. None: a client is made when it is
        needed."""
        before = self._client, self._aclient, self.hint
        self._client, self._aclient, self.hint = client, aclient, hint
        return before
