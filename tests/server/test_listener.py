"""How many connections are accepted, and what happens to the others."""

import asyncio
import logging
import os
import resource
import shlex
import socket
import time

import pytest
from http_client import Client, request
from running import MODULE, Program
from serving import Server, check_problem, until

from jobqueue import Settings
from jobqueue.server import listener
from jobqueue.server.connection_limits import ConnectionLimits

ALL = os.environ.get("TEST_ALL") == "1"
slow = pytest.mark.skipif(not ALL, reason="one process more: with TEST_ALL=1")
either_front = pytest.mark.parametrize("front", ["fast", pytest.param("tornado", marks=slow)])
few = pytest.mark.parametrize("settings", [Settings(first_id=1, max_connections=3)])


async def taken(server: Server, count: int) -> list[Client]:
    """`count` connections that the server has accepted."""
    clients = [await server.connect() for _ in range(count)]
    for client in clients:
        assert (await client.call("GET", "/healthz")).status == 200
    return clients


@few
async def test_beyond_the_limit_a_connection_gets_503_and_is_closed(
    server: Server, logged: list[logging.LogRecord]
):
    clients = await taken(server, 3)
    for _ in range(5):
        turned_away = await server.connect()
        turned_away.send(request("POST", "/jobs/enqueue", {"type": "x"}))
        answer = await turned_away.read("POST")
        assert answer.status == 503
        assert answer.json["code"] == "overloaded"
        assert answer.json["setting"] == "JOBQUEUE_MAX_CONNECTIONS"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["connection"] == "close"
        assert await turned_away.rest() == b""
    assert not any(server.engine.stats().jobs.values())
    assert (await clients[0].call("GET", "/healthz")).status == 200
    assert [record.getMessage() for record in logged] == [
        "at the limit of 3 connections (JOBQUEUE_MAX_CONNECTIONS)"
    ]
    logged.clear()


@few
async def test_an_ended_connection_no_longer_counts(server: Server):
    for _ in range(3):
        clients = await taken(server, 3)
        for client in clients:
            await client.closed()
        await until(lambda: server.front.connections() == 0)


@few
async def test_refused_connections_do_not_count(server: Server, logged: list[logging.LogRecord]):
    clients = await taken(server, 3)
    away = [await server.connect() for _ in range(100)]
    for client in away:
        assert (await client.read()).status == 503
    await clients[0].closed()
    await until(lambda: server.front.connections() == 2)
    assert (await (await server.connect()).call("GET", "/healthz")).status == 200
    assert len(logged) == 1, "one line for all of them"
    logged.clear()


@few
async def test_stats_have_the_number_of_connections(server: Server):
    await taken(server, 2)
    stats = (await server.get("/stats")).json
    assert stats["connections"] == 3
    assert stats["limits"]["max_connections"] == 3


@few
async def test_the_503_is_a_problem_document_like_any_other(server: Server, logged: list[logging.LogRecord]):
    await taken(server, 3)
    answer = await (await server.connect()).read()
    check_problem(answer, 503, "overloaded", setting="JOBQUEUE_MAX_CONNECTIONS", retry_after=1)
    logged.clear()


async def test_many_connections_at_once_are_all_accepted(server: Server):
    count = 900 if ALL else 200
    clients = await asyncio.gather(*(server.connect() for _ in range(count)))
    for client in clients:
        client.ask("GET", "/healthz")
    for client in clients:
        assert (await client.read()).status == 200
    assert server.front.connections() == count


async def test_a_listener_that_was_closed_refuses(server: Server):
    assert server.listener is not None
    server.listener.close()
    server.listener = None
    with pytest.raises(ConnectionError):
        await server.connect()


def test_a_port_can_be_bound_once_and_again_after_it_is_closed():
    first = listener.bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        listener.bind("127.0.0.1", port)
    first.close()
    listener.bind("127.0.0.1", port).close()


# -- the real program -------------------------------------------------------------------------------


@either_front
def test_the_limit_follows_from_the_file_limit(front: str):
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_MAX_CONNECTIONS="7") as program:
        assert program.call("GET", "/stats")[1]["limits"]["max_connections"] == 7
        assert resource.prlimit(program.pid, resource.RLIMIT_NOFILE)[0] == own[1]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit: Linux")
@pytest.mark.parametrize("front", ["fast", "tornado"])
def test_out_of_descriptors_it_pauses_and_later_accepts_again(front: str):
    """Most servers then spin, and log a line each time."""
    with Program(JOBQUEUE_HTTP=front) as program, program.connect() as kept:
        assert kept.call("GET", "/healthz").status == 200
        in_use = len(os.listdir(f"/proc/{program.pid}/fd"))
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (in_use + 10, 20_000))
        clients = [socket.create_connection(("127.0.0.1", program.port), timeout=5) for _ in range(100)]
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.2)
        before, started = program.cpu_seconds(), time.monotonic()
        time.sleep(0.8)
        spent = (program.cpu_seconds() - before) / (time.monotonic() - started)
        assert spent < 0.2, f"{spent:.0%} of a processor while it can accept nobody"
        assert kept.call("GET", "/healthz").status == 200, "connected clients are served meanwhile"
        complaints = program.lines[1:]
        assert len(complaints) == 1, complaints
        assert "cannot accept connections: Too many open files" in complaints[0]

        for client in clients:
            client.close()
        with program.connect() as new:  # it waits in the kernel's queue until the pause is over
            assert new.call("GET", "/healthz").status == 200
        assert program.stop() == 0
        assert len(program.lines) == 3, program.lines


@either_front
def test_with_few_descriptors_it_still_serves(front: str):
    with Program(
        ("/bin/sh", "-c", f"ulimit -n 40; exec {shlex.join(MODULE)}"), JOBQUEUE_HTTP=front
    ) as program:
        assert program.call("GET", "/stats")[1]["limits"]["max_connections"] >= 1


# -- connections of one address ---------------------------------------------------------------------


async def test_one_address_has_a_limit_of_connections_and_an_ended_one_no_longer_counts(server, logged):
    server.front.peers.limit = 2
    server.listener._peers = server.front.peers
    first, second = await server.connect(), await server.connect()
    assert (await first.call("GET", "/healthz")).status == 200
    assert (await second.call("GET", "/healthz")).status == 200
    turned_away = await (await server.connect()).read()
    check_problem(turned_away, 503, "overloaded", setting="JOBQUEUE_MAX_CONNECTIONS_BY_ADDRESS")
    assert "2 connections from 127.0.0.1" in logged.pop().getMessage()
    first.close()
    await until(lambda: server.front.connections() == 1)
    assert (await (await server.connect()).call("GET", "/healthz")).status == 200


@pytest.mark.parametrize(
    ("peer", "limit"),
    [
        ("127.0.0.1", 50_000), ("127.1.2.3", 50_000), ("::1", 50_000), ("::ffff:127.0.0.1", 50_000),
        ("10.0.0.9", 50_000), ("203.0.113.1", 4096), ("2001:db8::1", 4096),
    ],
)  # fmt: skip
def test_addresses_that_many_clients_share_have_half_of_all_connections_and_others_far_fewer(peer, limit):
    peers = ConnectionLimits(None, is_proxy=lambda peer: peer == "10.0.0.9")
    peers.set_limits(None, 100_000)
    for _ in range(limit):
        assert not peers.full(peer)
        peers.opened(peer)
    assert peers.full(peer)
    assert peers.of(peer) == limit


def test_with_few_connections_none_has_more_than_half_and_a_setting_is_for_all():
    peers = ConnectionLimits(None)
    peers.set_limits(None, 100)
    assert (peers.of("127.0.0.1"), peers.of("203.0.113.1")) == (50, 50)
    peers.set_limits(7, 100)
    assert (peers.of("127.0.0.1"), peers.of("203.0.113.1")) == (7, 7)


def test_ipv6_addresses_of_one_network_count_together():
    peers = ConnectionLimits(2)
    peers.opened("2001:db8::1")
    assert not peers.full("2001:db8::2")
    peers.opened("2001:db8::2")
    assert peers.full("2001:db8::3")
    assert not peers.full("2001:db8:0:1::1")
    peers.closed("2001:db8::1")
    peers.closed("2001:db8::2")
    assert not peers.full("2001:db8::3")
    assert peers._open == {}
