"""A server that stood still: what clients sent meanwhile counts as sent in time, over both fronts."""

import json
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest
from http_client import request
from serving import Server, looping, until

from jobqueue import Settings
from jobqueue.server.listener import BACKLOG

PAUSE = 60_000


class SteppingClock:
    """A clock that moves by hand, while the ticks of its engine run by the loop's timer."""

    manual = False

    def __init__(self) -> None:
        self.now = 1_000_000

    def monotonic(self) -> int:
        return self.now

    def wall(self) -> int:
        return 1_800_000_000_000 + self.now


class Pausing:
    """A running server, and clients that need no loop to send."""

    def __init__(self, server: Server, clock: SteppingClock) -> None:
        self.server = server
        self.clock = clock
        self._sockets: list[socket.socket] = []

    def connect(self) -> socket.socket:
        """A connection that the system has accepted; the server sees it in its next loop pass."""
        client = socket.create_connection(("127.0.0.1", self.server.port), timeout=10)
        self._sockets.append(client)
        return client

    def pause(self) -> None:
        """Lets `PAUSE` pass while the loop stands still, until its next tick is overdue."""
        self.clock.now += PAUSE
        end = time.monotonic() + 0.03
        while time.monotonic() < end:
            pass

    def advance(self) -> None:
        self.clock.now += 10

    def close(self) -> None:
        for client in self._sockets:
            client.close()


@pytest.fixture(params=["fast uvloop", "fast asyncio", "tornado uvloop", "tornado asyncio"])
def pausing(request: pytest.FixtureRequest) -> Iterator[Pausing]:
    front, _, kind = request.param.partition(" ")
    clock = SteppingClock()
    settings = Settings(tick="10ms", lease="2s", first_id=1, max_attempts=1)
    for loop in looping(kind):

        async def start() -> Pausing:
            server = Server(front, settings, clock)  # type: ignore[arg-type]  # it ticks by itself
            server.watch_arrivals()
            return Pausing(server, clock)

        pausing = loop.run_sync(start)
        pausing.run = partial(loop.run_sync, timeout=30)  # type: ignore[attr-defined]
        yield pausing
        pausing.close()
        loop.run_sync(pausing.server.close, timeout=10)


async def leased(pausing, count):
    """Leases `count` jobs, and returns them."""
    jobs = []
    for _ in range(count):
        await pausing.server.enqueue()
        jobs.append(await pausing.server.dequeue())
    return jobs


def sent(verb, job, **more):
    body = json.dumps({"lease": job["lease"], **more}).encode()
    return request("POST", f"/jobs/{job['id']}/{verb}", body)


async def answered(pausing, clients):
    """The statuses of the answers to all clients, once they have come."""
    for client in clients:
        client.setblocking(False)
    statuses = {}

    def all_there():
        for number, client in enumerate(clients):
            if number not in statuses:
                try:
                    statuses[number] = int(client.recv(65536)[9:12] or b"0")
                except BlockingIOError:
                    return False
        return True

    await until(all_there, 20)
    return [statuses[number] for number in range(len(clients))]


VERBS = {
    "conclude": ({}, "concluded"),
    "release": ({}, "queued"),
    "fail": ({"retry": False}, "dead"),
    "heartbeat": ({"lease_for": 3600}, "in_progress"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_came_in_a_pause_before_a_lease_was_ended_still_counts(pausing, verb):
    fields, status = VERBS[verb]

    async def test():
        jobs = await leased(pausing, 3)
        clients = [pausing.connect() for _ in jobs]
        await until(lambda: pausing.server.front.connections() >= 3)
        for client, job in zip(clients, jobs, strict=True):
            client.sendall(sent(verb, job, **fields))
        pausing.pause()
        assert await answered(pausing, clients) == [200] * 3
        assert {pausing.server.engine.get(job["id"]).status for job in jobs} == {status}

    pausing.run(test)


def test_connections_that_wait_to_be_accepted_are_served_before_leases_end(pausing):
    """More of them than are accepted in one loop pass."""

    async def test():
        jobs = await leased(pausing, 150)
        clients = [pausing.connect() for _ in jobs]
        for client, job in zip(clients, jobs, strict=True):
            client.sendall(sent("conclude", job))
        pausing.pause()
        assert set(await answered(pausing, clients)) == {200}
        assert pausing.server.engine.stats().jobs["concluded"] == 150

    assert BACKLOG > 150
    pausing.run(test)


def test_a_request_of_several_reads_is_performed_before_leases_end(pausing):
    async def test():
        [job] = await leased(pausing, 1)
        client = pausing.connect()
        other = pausing.connect()
        await until(lambda: pausing.server.front.connections() >= 2)
        client.setblocking(False)
        rest = memoryview(sent("conclude", job, result="x" * 250_000))
        rest = rest[client.send(rest) :]
        pausing.pause()
        while rest:  # the system takes the rest only when the server reads
            try:
                rest = rest[client.send(rest) :]
            except BlockingIOError:
                await until(lambda: True)
        assert await answered(pausing, [client]) == [200]
        other.close()

    pausing.run(test)


def test_leases_that_nothing_came_for_end_after_a_pause(pausing):
    async def test():
        [job] = await leased(pausing, 1)
        pausing.connect().sendall(b"POST /jobs/1/conclude HTTP/1.1\r\nHo")  # and it falls silent
        pausing.pause()
        await until(lambda: pausing.server.engine.get(job["id"]).status == "dead" or pausing.advance())

    pausing.run(test)
