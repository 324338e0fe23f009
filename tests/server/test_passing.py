"""Passing and Link: connections that one server passes on to another, without servers around them."""

import asyncio
import socket
from contextlib import contextmanager, suppress

import pytest

from jobqueue import Settings
from jobqueue.cluster.link import Link, watch_other_side
from jobqueue.server import passing as passing_module
from jobqueue.server.member import warn_unless_reached
from jobqueue.server.passing import Passing
from jobqueue.storage.postgres_session import Place


class Owner:
    """Takes what is passed on, and sends back what it gets."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        self.place = Place(f"127.0.0.1:{self.listening.getsockname()[1]}", "secret")
        self.peers = []
        self._tasks = set()
        self.link = Link(self.listening, "secret", self._take, 30_000)

    def _take(self, client, peer):
        self.peers.append(peer)
        task = asyncio.ensure_future(self._echo(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _echo(self, client):
        loop = asyncio.get_running_loop()
        with client:
            while data := await loop.sock_recv(client, 65536):
                await loop.sock_sendall(client, data)


@contextmanager
def running(by_tls=False):
    """What passes on, and an owner."""
    passing, owner = Passing(by_tls, 30_000), Owner()
    yield passing, owner
    owner.link.close()
    for client, _ in passing.close():
        client.close()


def connected(passing, peer="192.0.2.7"):
    """A client whose connection is passed on."""
    client, accepted = socket.socketpair()
    for each in (client, accepted):
        each.setblocking(False)
    passing.take(accepted, peer)
    return client


async def received(client, count):
    loop = asyncio.get_running_loop()
    data = b""
    with suppress(ConnectionResetError):
        while len(data) < count and (piece := await asyncio.wait_for(loop.sock_recv(client, 1 << 20), 5)):
            data += piece
    return data


async def test_what_both_sides_say_is_passed_on_whole_and_the_owner_knows_the_client():
    with running() as (passing, owner):
        passing.send_to(owner.place)
        data = bytes(range(256)) * 20_000
        with connected(passing) as client:
            loop = asyncio.get_running_loop()
            sending = asyncio.ensure_future(loop.sock_sendall(client, data))
            assert await received(client, len(data)) == data
            await sending
            client.shutdown(socket.SHUT_WR)
            assert await received(client, 1) == b""
        assert owner.peers == ["192.0.2.7"]


async def test_a_client_waits_for_an_owner():
    with running() as (passing, owner), connected(passing) as client:
        await asyncio.get_running_loop().sock_sendall(client, b"early")
        await asyncio.sleep(0.05)
        assert passing.count() == 1
        passing.send_to(owner.place)
        assert await received(client, 5) == b"early"


async def test_who_still_waits_when_this_server_becomes_the_owner_is_handed_over_unread():
    with running() as (passing, _), connected(passing, "192.0.2.9") as client:
        client.send(b"GET")
        await asyncio.sleep(0)
        [(waiting, peer)] = passing.close()
        assert (waiting.recv(9), peer, passing.count()) == (b"GET", "192.0.2.9", 0)
        waiting.close()


@pytest.mark.parametrize("by_tls", [False, True])
async def test_without_an_owner_a_client_is_told_to_come_again(monkeypatch, by_tls):
    monkeypatch.setattr(passing_module, "_WAIT", 0.05)
    monkeypatch.setattr(passing_module, "_LINGER", 0.05)
    with running(by_tls) as (passing, _), connected(passing) as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        answer = await received(client, 10_000)
        if by_tls:
            assert answer == b""
        else:
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nRetry-After: 1\r\n" in answer
            assert b'"code":"not_ready"' in answer
        while passing.count():
            await asyncio.sleep(0.01)


async def test_an_owner_with_another_secret_or_none_at_all_is_as_none(monkeypatch):
    monkeypatch.setattr(passing_module, "_WAIT", 0.1)
    monkeypatch.setattr(passing_module, "_LINGER", 0.05)
    with running() as (passing, owner):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{unused.getsockname()[1]}"
            passing.send_to(Place(nobody, "secret"))
            with connected(passing) as client:
                assert b" 503 " in await received(client, 100)
        passing.send_to(owner.place._replace(secret="other"))
        with connected(passing) as client:  # the owner ends it
            assert await received(client, 1) == b""
        assert owner.peers == []


async def test_an_owner_that_stays_out_of_reach_is_reported_once(monkeypatch, logged):
    monkeypatch.setattr(passing_module, "_REPORT", 0.0)
    monkeypatch.setattr(passing_module, "_WAIT", 0.05)
    monkeypatch.setattr(passing_module, "_LINGER", 0.05)
    with running() as (passing, owner):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{unused.getsockname()[1]}"
            passing.send_to(Place(nobody, "secret"))
            with connected(passing) as client:
                assert b"does not reach the owner of the jobs; its log says why" in await received(
                    client, 1000
                )
        passing.send_to(owner.place)
        with connected(passing) as client:
            await asyncio.get_running_loop().sock_sendall(client, b"x")
            assert await received(client, 1) == b"x"
    [record] = logged
    assert f"cannot be reached at {nobody}: Connection refused" in record.getMessage()
    logged.clear()


async def test_an_advertised_address_that_does_not_lead_to_the_server_is_said_at_its_start(logged):
    with socket.socket() as unused, socket.create_server(("127.0.0.1", 0)) as listening:
        unused.bind(("127.0.0.1", 0))
        wrong, right = (f"127.0.0.1:{one.getsockname()[1]}" for one in (unused, listening))
        for address in (wrong, right):
            await warn_unless_reached(Settings(advertise=address), Place(address, "secret"))
    [record] = logged
    assert (
        f"JOBQUEUE_ADVERTISE={wrong} does not lead to this server: Connection refused" in record.getMessage()
    )
    logged.clear()


def test_a_link_ends_when_the_other_machine_has_gone():
    with socket.socket() as one:
        watch_other_side(one, 30_000)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


async def test_when_the_owner_goes_its_clients_lose_their_connections(monkeypatch):
    monkeypatch.setattr(passing_module, "_END", 0.05)
    with running() as (passing, owner):
        passing.send_to(owner.place)
        with connected(passing) as client:
            await asyncio.get_running_loop().sock_sendall(client, b"x")
            assert await received(client, 1) == b"x"
            for task in list(owner._tasks):
                task.cancel()
            assert await received(client, 1) == b""
            while passing.count():
                await asyncio.sleep(0.01)
