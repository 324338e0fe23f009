"""The client that a command calls, and the answer as it came."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from jobqueue.cli.arguments import UsageError
from jobqueue.cli.contexts import Context, Contexts
from jobqueue.cli.output import as_table, put, put_lines, say
from jobqueue.client import AsyncClient, Client
from jobqueue.client.address import DEFAULT, Address, Tls, addresses_of, shown
from jobqueue.client.client import sending, wants_direct
from jobqueue.client.http import Request, Response, Streamed, Transport
from jobqueue.errors import InvalidField
from jobqueue.units import duration_ms


class Server(NamedTuple):
    """The server that the arguments, the environment or a context name; several if they are one queue."""

    addresses: Sequence[Address]
    token: str | None
    ca: str | None
    cert: str | None

    @property
    def url(self) -> str:
        """The addresses without a token, as a client takes them."""
        return shown(self.addresses)


def server_of(given: Namespace) -> Server:
    """Finds the server: `--url`, else `--context`, else JOBQUEUE_URL, else the current context, else
    localhost. A context's token goes to its own server only. Raises `UsageError`."""
    if given.token is not None:
        say("others can see --token in the list of processes; JOBQUEUE_TOKEN or a context hides it")
    if given.url is not None and given.context is not None:
        raise UsageError("give --url or --context, not both")
    url = given.url or (None if given.context else os.environ.get("JOBQUEUE_URL"))
    context = Context(url or DEFAULT)
    if url is None:
        contexts = Contexts.read(os.environ)
        name = given.context or contexts.current
        if name is not None:
            context = contexts.get(name)
    try:
        addresses = addresses_of(context.url)
    except ValueError as bad:
        raise UsageError(str(bad)) from None
    token = given.token or context.token or addresses[0].token or os.environ.get("JOBQUEUE_TOKEN") or None
    return Server(addresses, token, given.ca or context.ca, given.cert or context.cert)


class _Keeping:
    """A transport that keeps the last answer, so that its JSON can be printed as it came."""

    last: Response

    def __init__(self, under: Transport) -> None:
        self._under = under

    def send(self, request: Request) -> Response:
        self.last = self._under.send(request)
        return self.last

    def stream(self, request: Request) -> Streamed:
        return self._under.stream(request)

    def close(self) -> None:
        self._under.close()


class Session:
    """A client for one command. Raises `UsageError`."""

    def __init__(self, given: Namespace) -> None:
        self._given = given
        self._server = server = server_of(given)
        try:
            retry_for = duration_ms(getattr(given, "retry_for", "0s")) / 1000
        except InvalidField as bad:
            raise UsageError(f"--retry-for {given.retry_for}: {bad.detail}") from None
        try:
            under = sending(server.addresses, Tls(server.ca, server.cert), wants_direct())
        except OSError as bad:
            raise UsageError(f"cannot read the certificates: {bad}") from None
        except ValueError as bad:
            raise UsageError(str(bad)) from None
        self._transport = _Keeping(under)
        self.client = Client(server.url, token=server.token, retry_for=retry_for, transport=self._transport)

    def async_client(self, connections: int) -> AsyncClient:
        """Returns a client for asyncio of the same server, which tries each call once."""
        server = self._server
        return AsyncClient(
            server.url, token=server.token, retry_for=0, ca=server.ca, cert=server.cert,
            connections=connections,
        )  # fmt: skip

    @property
    def last(self) -> Response:
        """The last answer."""
        return self._transport.last

    @property
    def table(self) -> bool:
        """Whether to print tables."""
        return as_table(self._given)

    def items(self, name: str) -> list[msgspec.Raw]:
        """Returns the items in the last answer, each as its JSON came."""
        answer = msgspec.json.decode(self.last.body, type=dict[str, msgspec.Raw])
        return msgspec.json.decode(answer[name], type=list[msgspec.Raw])

    def put_pages(self, name: str, ask: Callable[[str | None], str | None]) -> None:
        """Prints the items of all pages: a table, or their JSON, one a line.

        `name` is that of the items in an answer. `ask` asks for the page at a cursor, and returns the cursor
        of the next page.
        """
        cursor: str | None = None
        found: list[msgspec.Raw] = []
        while True:
            cursor = ask(cursor)
            if self.table:
                found += self.items(name)
            else:
                put_lines(self.items(name))
            if cursor is None:
                break
        if self.table:
            from jobqueue.web.writers import text_tables

            put(getattr(text_tables, name)(msgspec.json.encode({name: found})))

    def show(self) -> None:
        """Prints the last answer, one object: one fact a line, or its JSON."""
        body = self.last.body
        if self.table:
            from jobqueue.web.writers import text_tables

            put(text_tables.one(body))
        else:
            put(body if body.endswith(b"\n") else body + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
