"""Calls that type checkers accept, and those that they refuse, which are marked: see `tests/test_typed_calls.py`."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import assert_type

from jobqueue import AsyncClient, Client, NewJob, Timeouts
from jobqueue.client import AsyncStream, Conclude, Event, Job, Outcome, Queue, Response, Stream
from jobqueue.client.http import AsyncTransport, Transport
from jobqueue.client.models import Cluster, JobPage, Stats
from jobqueue.client.socket_transport import SocketTransport

client = Client("http://localhost:8080", token="t", timeout=5, retry_for=10)
other = AsyncClient(timeout=Timeouts(read=1), connections=5)


def blocking() -> None:
    assert_type(client.jobs.enqueue("x", {"a": 1}, queue="mail", delay="10m"), Job)
    assert_type(client.jobs.enqueue("x", priority=5, delay=timedelta(hours=1), tags=["a"]), Job)
    assert_type(client.jobs.enqueue_many([NewJob("x"), {"type": "y"}], idempotency_key="k"), list[Job])
    assert_type(client.jobs.dequeue(["a", "b"], wait=30), Job | None)
    assert_type(client.jobs.dequeue_many(count=5), list[Job])
    assert_type(client.jobs.conclude(7, {"any": "thing"}, lease="l"), Job)
    assert_type(client.jobs.conclude_many([Conclude(7, "l")]), list[Outcome])
    assert_type(client.jobs.list(queue="mail", status=["dead"]), JobPage)
    assert_type(client.jobs.iterate(type="x"), Iterator[Job])
    assert_type(client.jobs.count(), int)
    assert_type(client.jobs.stream(prefetch=5), Stream[Job])
    assert_type(client.queues.pause("mail", reason="deploy", for_="10m"), Queue)
    assert_type(client.queues.export("mail"), Stream[bytes])
    assert_type(client.server.events(queue="mail"), Stream[Event])
    assert_type(client.server.cluster(), Cluster)
    assert_type(client.server.stats(), Stats)
    assert_type(client.server.request("GET", "/queues"), Response)
    assert_type(client.options(retry_for=0), Client)
    assert_type(client.jobs.get(7).payload_as(list[int]), list[int])
    for job in client.jobs.stream():
        assert_type(job, Job)


async def awaiting() -> None:
    assert_type(await other.jobs.enqueue("x", {"a": 1}, queue="mail"), Job)
    assert_type(await other.jobs.dequeue(wait="10s"), Job | None)
    assert_type(await other.jobs.enqueue_many([NewJob("x")]), list[Job])
    assert_type(other.jobs.iterate(), AsyncIterator[Job])
    assert_type(other.jobs.stream(), AsyncStream[Job])
    assert_type(await other.queues.get("mail"), Queue)
    async with other.server.events() as events:
        async for event in events:
            assert_type(event, Event)


def wrong() -> None:
    client.jobs.enqueue()  # wrong: no type
    client.jobs.enqueue("x", dealy=5)  # wrong: a misspelt option
    client.jobs.enqueue("x", priority="high")  # wrong: not a number
    client.jobs.enqueue("x", unique_while="always")  # wrong: not one of the three
    client.jobs.enqueue_many(["x"])  # wrong: not a job
    client.jobs.dequeue_many()  # wrong: no count
    client.jobs.conclude("7")  # wrong: an id is a number
    client.jobs.get(7).shiny  # wrong: no such field  # noqa: B018
    client.jobs.list(staus="dead")  # wrong: a misspelt filter
    client.queues.pause("mail", "deploy")  # wrong: by name only
    client.queues.change("mail", max_job=5)  # wrong: a misspelt setting
    client.queues.shiny()  # wrong: no such call
    client.jobs.dequeue().lease  # wrong: it may be None  # noqa: B018
    Client(timeouts=5)  # wrong: it is timeout
    Client(transport=AsyncClient())  # wrong: not a transport


async def wrong_too() -> None:
    other.jobs.enqueue("x").id  # wrong: not awaited  # noqa: B018
    for _ in other.jobs.iterate():  # wrong: an async iterator
        pass
    await client.jobs.enqueue("x")  # wrong: the blocking client


class Own:
    """A transport of one's own is checked by its methods."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.send = inner.send
        self.stream = inner.stream
        self.close = inner.close


def transports(socket: SocketTransport, asynchronous: AsyncTransport) -> None:
    Client(transport=socket)
    Client(transport=Own(socket))
    AsyncClient(transport=asynchronous)
    Client(transport=asynchronous)  # wrong: an async one
