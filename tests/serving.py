"""A server in this process, for the fixture `server` of `conftest.py`, and checks of its answers."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import uvloop
from http_client import Answer, Body, Client, request
from tornado.ioloop import IOLoop

from jobqueue import MemoryEngine, Settings
from jobqueue.cluster.engine import ClusterEngine
from jobqueue.cluster.links import Links
from jobqueue.engine.opening import open_database, open_journal
from jobqueue.server import log
from jobqueue.server.front import Front
from jobqueue.server.http1.front import FastFront
from jobqueue.server.listener import Listener, bind
from jobqueue.server.tornado_front import TornadoFront
from jobqueue.settings import is_database
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.postgres_session import Place
from jobqueue.testing import ManualClock
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.tornado_app import application

Headers = dict[str, str]


class Patched:
    """`engine` with some verbs replaced, since those of a compiled class cannot be patched."""

    def __init__(self, engine: MemoryEngine, **verbs: Callable[..., Any]) -> None:
        self._engine = engine
        vars(self).update(verbs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def patch_engine(monkeypatch: pytest.MonkeyPatch, server: "Server", **verbs: Callable[..., Any]) -> None:
    patched = Patched(server.engine, **verbs)
    monkeypatch.setattr(server.dispatcher, "engine", patched)
    monkeypatch.setattr(server.dispatcher.context, "engine", patched)


class OtherServer:
    """A server that passes all calls on to the one that has `owned`. `engine`: what it serves."""

    def __init__(self, owned: MemoryEngine, clock: ManualClock) -> None:
        place = Place("127.0.0.1:0", "secret")
        parts = (owned.settings, 1, owned.identity, owned.secret, clock)
        owner, self.engine = ClusterEngine(*parts), ClusterEngine(*parts)
        owner.refuses = self.engine.refuses = None
        owner.own = [owned]
        owner.shards[0].owned_by(owned, None)
        listening = bind("127.0.0.1", 0)
        self._links = [Links(owner, listening, place), Links(self.engine, bind("127.0.0.1", 0), place)]
        there = Place(f"127.0.0.1:{listening.getsockname()[1]}", "secret")
        self.engine.shards[0].owned_by(None, self._links[1].peer(there))

    def close(self) -> None:
        self.engine.stop_waiting()
        for links in self._links:
            links.close()


class Server:
    """One server, put together as `jobqueue.server.main` does it. Nothing ticks or sweeps by itself:
    `engine.tick()`, `front.sweep()`. Make it on the running loop.

    `again`: each `call` is preceded by a harmless request with the same headers, on the same connection. The
    fast front recognises heads that came before and answers them another way; the answer must be the same.
    `folder`: where its journal is to be, or the URL of a database; call `load` then.
    """

    def __init__(
        self,
        front: str,
        settings: Settings,
        clock: ManualClock,
        again: bool = False,
        folder: str | None = None,
        passed_on: bool = False,
    ) -> None:
        self.clock = clock
        self.again = again
        self.engine: MemoryEngine = MemoryEngine(settings, clock)
        if folder is not None:
            self.engine = (
                open_database(folder, settings, clock, 0)
                if is_database(folder)
                else open_journal(DataDir(folder), settings, clock)
            )
        self.other: OtherServer | None = OtherServer(self.engine, clock) if passed_on else None
        self.dispatcher = Dispatcher(self.other.engine if self.other is not None else self.engine)
        access = log.AccessLog(settings.access_log)
        self.dispatcher.access = access.request
        self.front: Front = (
            FastFront(self.dispatcher, access)
            if front == "fast"
            else TornadoFront(self.dispatcher, application(self.dispatcher))
        )
        self.dispatcher.server.connections = self.front.connections
        self.dispatcher.server.max_connections = limit = settings.max_connections or 1000
        listening = bind("127.0.0.1", 0)
        self.port: int = listening.getsockname()[1]
        self.listener: Listener | None = Listener(listening, limit, self.front.connections, self.front.take)
        self._clients: list[Client] = []
        self._idle: Client | None = None

    def watch_arrivals(self) -> None:
        """As the program does it; only an engine that ticks by itself asks for it."""
        listener, front = self.listener, self.front
        assert listener is not None
        self.engine.watch_arrivals(lambda: listener.arriving() or front.arriving())

    async def connect(self) -> Client:
        """Returns a new connection, which is closed when the test ends."""
        client = await Client.connect(self.port)
        self._clients.append(client)
        return client

    async def call(self, method: str, path: str, body: Body = None, headers: Headers | None = None) -> Answer:
        """One request and its answer. Calls share a connection while the server keeps it, one after the
        other; those that overlap have their own."""
        client = self._idle or await self.connect()
        self._idle = None
        if self.again:
            block = request(method, "*", body, headers).partition(b"\r\n")[2]
            client.send(b"GET /healthz HTTP/1.1\r\n" + block)
            first = await client.read()
            if first.headers.get("connection") == "close":
                client = await self.connect()
        answer = await client.call(method, path, body, headers)
        if answer.headers.get("connection") != "close":
            self._idle = client
        return answer

    async def get(self, path: str, headers: Headers | None = None) -> Answer:
        return await self.call("GET", path, None, headers)

    async def post(self, path: str, body: Body = None, headers: Headers | None = None) -> Answer:
        return await self.call("POST", path, body, headers)

    async def delete(self, path: str) -> Answer:
        return await self.call("DELETE", path)

    async def enqueue(self, **job: Any) -> int:
        """Enqueues one job, of type "x" by default. Returns its id."""
        answer = await self.post("/jobs/enqueue", {"type": "x", **job})
        assert answer.status == 201, answer
        return int(answer.json["id"])

    async def dequeue(self, **options: Any) -> Any:
        """Returns the job or jobs that a dequeue answers; None for a 204."""
        answer = await self.post("/jobs/dequeue", options)
        assert answer.status in (200, 204), answer
        return answer.json if answer.status == 200 else None

    async def job(self, id: int) -> Any:
        answer = await self.get(f"/jobs/{id}")
        assert answer.status == 200, answer
        return answer.json

    def untouched(self, id: int) -> bool:
        """Checks that the job is queued and no attempt is counted."""
        job = self.engine.get(id)
        return (job.status, job.attempts) == ("queued", 0)

    async def ask(self, method: str, path: str, body: Body = None) -> Client:
        """Returns a new connection that has sent one request and not read its answer."""
        client = await self.connect()
        client.ask(method, path, body)
        return client

    async def waiting(self, count: int) -> None:
        """Returns when `count` consumers wait for a job."""
        await until(lambda: self.engine.stats().consumers_waiting == count)

    def stop_waiting(self) -> None:
        """Stops as the program does at its first signal, but still accepts the next request of a test."""
        self.engine.stop_waiting()
        if self.other is not None:
            self.other.engine.stop_waiting()
        self.front.drain()

    async def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
        for client in self._clients:
            await client.closed()
        self.front.drain()
        self.front.close()
        self.engine.close()
        if self.other is not None:
            self.other.close()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=5)
        await asyncio.sleep(0)
        assert self.dispatcher.in_flight.used == 0, "bytes are counted that nobody has any more"


def _in_memory() -> str | None:
    """Returns a folder where a journal syncs at once, if there is one with enough room; what a sync keeps is tested
    with real disks."""
    shm = "/dev/shm"
    return shm if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 512 << 20 else None


_IN_MEMORY = _in_memory()
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def looping(kind: str) -> Iterator[IOLoop]:
    """Yields a loop and closes it, for the fixture `io_loop`."""
    loop = IOLoop(asyncio_loop=LOOPS[kind](), make_current=False)
    yield loop
    loop.close(all_fds=True)


def serving(io_loop: IOLoop, kind: str, settings: Settings, clock: ManualClock) -> Iterator[Server]:
    """Yields a `Server` and closes it, for a fixture. `kind`: "fast", "fast again", "fast journal" or "tornado"."""
    front, _, how = kind.partition(" ")
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as folder:

        async def start() -> Server:
            if how == "passed on":
                return Server(front, settings, clock, passed_on=True)
            if not how.endswith("journal"):
                return Server(front, settings, clock, how == "again")
            server = Server(front, settings, clock, folder=folder, passed_on=how.startswith("passed on"))
            await server.engine.load()
            return server

        server = io_loop.run_sync(start)
        yield server
        io_loop.run_sync(partial(Server.close, server), timeout=10)


async def until(condition: Callable[[], object], seconds: float = 5) -> None:
    """Returns as soon as `condition` holds; lets the loop run between looks. Fails after `seconds`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        assert loop.time() < end, "what the test waits for does not happen"
        await asyncio.sleep(0.001)


def check_problem(answer: Answer, status: int, code: str, **members: object) -> Any:
    """Checks that `answer` is a problem document of the API with these members. Returns the document."""
    assert (answer.status, answer.body[:1]) == (status, b"{"), answer
    document = answer.json
    assert document["code"] == code, document
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body.endswith(b"}\n")
    assert answer.body.count(b"\n") == 1
    assert list(document)[:5] == ["code", "status", "title", "detail", "request_id"]
    assert document["status"] == status
    assert document["title"] == answer.reason
    assert document["detail"]
    assert document["request_id"] == answer.headers["x-request-id"]
    assert {name: document.get(name) for name in members} == members, document
    return document
