"""The calls about the server itself: `client.server`."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from msgspec import UNSET

from jobqueue.client.call import Call, StreamCall
from jobqueue.client.encoding import Duration, Names, encode_json, query, read, read_text
from jobqueue.client.http import Pairs, Response
from jobqueue.client.models import Audit, Cluster, Event, Health, Ready, Stats, TokenPage
from jobqueue.client.streams import events
from jobqueue.client.verbs import Group, M_co, stream, verb


class ServerVerbs(Group[M_co]):
    """Calls about the server: `client.server`."""

    @verb
    def health(self) -> Call[Health]:
        """Returns the version of the server, as long as it runs. It needs no token."""
        return Call("GET", "/healthz", partial(read, kind=Health), safe=True)

    @verb
    def ready(self) -> Call[Ready]:
        """Returns when the server takes requests. Raises `NotReady` or `Stopping` if it does not in time."""
        return Call("GET", "/readyz", partial(read, kind=Ready), safe=True)

    @verb
    def cluster(self) -> Call[Cluster]:
        """Returns the servers that share the database."""
        return Call("GET", "/cluster", partial(read, kind=Cluster), safe=True)

    @verb
    def stats(self) -> Call[Stats]:
        """Returns figures about the server, and the limits in force."""
        return Call("GET", "/stats", partial(read, kind=Stats), safe=True)

    @verb
    def tokens(self, *, limit: int | None = None, cursor: str | None = None) -> Call[TokenPage]:
        """Returns a page of the access tokens by name, without their secrets."""
        target = "/tokens" + query(limit=limit, cursor=cursor)
        return Call("GET", target, partial(read, kind=TokenPage), safe=True)

    @verb
    def audit(self, *, limit: int | None = None) -> Call[Audit]:
        """Returns the last administrative calls, the newest first."""
        return Call("GET", "/audit" + query(limit=limit), partial(read, kind=Audit), safe=True)

    @verb
    def metrics(self) -> Call[str]:
        """Returns metrics as Prometheus reads them."""
        return Call("GET", "/metrics", read_text, safe=True)

    @verb
    def openapi(self) -> Call[dict[str, Any]]:
        """Returns the OpenAPI document."""
        return Call("GET", "/openapi.json", partial(read, kind=dict[str, Any]), safe=True)

    @verb
    def help(self) -> Call[str]:
        """Returns the API on one screen."""
        return Call("GET", "/help", read_text, safe=True)

    @verb
    def worker_sh(self) -> Call[str]:
        """Returns a worker in one file, for a shell with curl."""
        return Call("GET", "/worker.sh", read_text, safe=True)

    @verb
    def worker_py(self) -> Call[str]:
        """Returns a worker in one file of Python."""
        return Call("GET", "/worker.py", read_text, safe=True)

    @stream
    def events(
        self,
        *,
        queue: Names | None = None,
        job: int | Iterable[int] | None = None,
        event: Names | None = None,
        after: str | None = None,
        for_: Duration | None = None,
    ) -> StreamCall[Event]:
        """Iterates over what happens to jobs and queues; `after` is the `id` of the last event that was seen.

        An event `gap` says that some are missing. The server closes the stream of a reader that is too slow;
        go on with `after` then.
        """
        headers: Pairs = () if after is None else ((b"Last-Event-ID", after.encode("latin-1")),)
        target = "/events" + query(queue=queue, job=job, event=event, for_=for_)
        return StreamCall("GET", target, events, b"", headers)

    @stream
    def top(self, *, for_: Duration | None = None) -> StreamCall[str]:
        """Iterates over pieces of a live screen for a terminal."""
        return StreamCall("GET", "/top" + query(for_=for_), _text)

    @verb
    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json: Any = UNSET,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        wait: float = 0,
        safe: bool | None = None,
    ) -> Call[Response]:
        """Makes any request, for what the other verbs do not show, such as `format=text`.

        `json` is the body as JSON. `wait` is added to the timeouts. `safe`: it may be repeated when its
        answer is lost; by default only a GET may.
        """
        asked = path + _query(**(query or {}))
        sent = body if json is UNSET else encode_json(json)
        given = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        return Call(
            method, asked, _itself, sent, given, wait, safe=method == "GET" if safe is None else safe,
            enqueues=asked.partition("?")[0].endswith("/enqueue"),
        )  # fmt: skip


_query = query


def _itself(response: Response) -> Response:
    return response


def _text() -> Callable[[bytes], list[str]]:
    return lambda piece: [piece.decode("utf-8", "replace")]
