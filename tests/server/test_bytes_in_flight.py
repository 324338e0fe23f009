"""Unfinished requests and unread answers of all connections together are limited in bytes."""

import asyncio
import json
import socket

import pytest
from http_client import HANG_UPS, request
from serving import Server, check_problem, patch_engine, until

from jobqueue import Settings
from jobqueue.model import NewJob
from jobqueue.web.bytes_in_flight import BytesInFlight

fast = pytest.mark.parametrize("server", ["fast"], indirect=True)
TOKEN = "t" * 32
BODY = json.dumps({"type": "x", "payload": "p" * 200_000}).encode()
# More than one of them, and less than all, have room.
LIMIT = 500_000


def used(server: Server) -> int:
    return server.dispatcher.in_flight.used


def unfinished(path: str = "/jobs/enqueue", **headers: str) -> bytes:
    """A request without the last 100 bytes of its body."""
    return request("POST", path, BODY, headers)[:-100]


def test_the_limit_is_a_quarter_of_that_on_memory_and_has_room_for_two_bodies():
    assert BytesInFlight(400 << 20, 1 << 20).limit == 100 << 20
    assert BytesInFlight(32 << 20, 100 << 20).limit == 200 << 20
    assert BytesInFlight(None, 1 << 20).limit == 256 << 20


# -- bodies -----------------------------------------------------------------------------------------


async def test_bodies_that_do_not_end_are_taken_up_to_the_limit(server):
    server.dispatcher.in_flight.limit = LIMIT
    clients = [await server.connect() for _ in range(8)]
    for client in clients:
        client.send(unfinished())
        await until(lambda: used(server) > 0)
    await until(lambda: used(server) >= 2 * len(BODY) - 200)
    for client in clients:
        client.send(BODY[-100:])
        assert used(server) <= LIMIT + len(BODY)
    answers = [await client.read() for client in clients]
    statuses = [answer.status for answer in answers]
    assert statuses.count(201) >= 2
    refused = [answer for answer in answers if answer.status != 201]
    assert refused
    for answer in refused:
        check_problem(answer, 503, "overloaded", setting="JOBQUEUE_MEMORY_LIMIT", retry_after=1)
        assert answer.headers["retry-after"] == "1"
    assert server.engine.stats().jobs["queued"] == statuses.count(201)
    await until(lambda: used(server) == 0)


async def test_what_comes_in_one_piece_is_served_however_much_is_under_way(server):
    id = await server.enqueue(payload="p" * 30_000)
    server.dispatcher.in_flight.used += server.dispatcher.in_flight.limit + 1
    assert await server.enqueue(payload="p" * 30_000) == id + 1
    assert (await server.job(id))["payload"] == "p" * 30_000
    assert (await server.get("/healthz")).status == 200
    assert (await server.dequeue())["id"] == id
    server.dispatcher.in_flight.used -= server.dispatcher.in_flight.limit + 1


@pytest.mark.parametrize("how", HANG_UPS)
async def test_a_client_that_hangs_up_in_its_body_frees_what_it_took(server, how):
    client = await server.connect()
    client.send(unfinished())
    await until(lambda: used(server) > 100_000)
    getattr(client, how)()
    await until(lambda: used(server) == 0)


async def test_a_body_that_has_become_a_job_is_no_longer_counted(server):
    client = await server.connect()
    client.send(unfinished(Prefer="wait=30"))
    await until(lambda: used(server) > 100_000)
    client.send(BODY[-100:])
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    await until(lambda: used(server) == 0)
    client.reset()


@fast
async def test_what_is_sent_behind_a_long_poll_is_counted(server):
    client = await server.connect()
    client.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(1)
    client.send(unfinished())
    await until(lambda: used(server) > 50_000)
    client.reset()
    await until(lambda: used(server) == 0)


@fast
async def test_beyond_the_limit_a_client_that_sends_much_behind_a_long_poll_is_cut_off(server):
    server.dispatcher.in_flight.limit = 50_000
    patient, greedy = await server.connect(), await server.connect()
    for client in (patient, greedy):
        client.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(2)
    greedy.send(unfinished())
    assert await greedy.rest() == b""
    await until(lambda: used(server) == 0)
    id = await server.enqueue()
    assert (await patient.read()).json["id"] == id


@fast
async def test_heads_that_do_not_end_count_too_and_small_ones_are_never_refused(server):
    server.dispatcher.in_flight.limit = 100_000
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: "
    clients = [await server.connect() for _ in range(4)]
    for client in clients:
        client.send(head + b"a" * 40_000)
    await until(lambda: used(server) > 40_000)
    small = await server.connect()
    small.send(head)
    for client in clients:
        client.send(b"\r\n\r\n")
    statuses = sorted([(await client.read()).status for client in clients])
    assert statuses[0] == 200
    assert statuses[-1] == 503
    small.send(b"\r\n\r\n")
    assert (await small.read()).status == 200
    await until(lambda: used(server) == 0)


# -- who has no token -------------------------------------------------------------------------------

with_token = pytest.mark.parametrize("settings", [Settings(access_token=TOKEN, first_id=1)])


@with_token
@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer wrong-wrong-wrong-wrong"}])
async def test_of_a_client_without_a_valid_token_no_body_is_kept(server, given):
    client = await server.connect()
    client.send(unfinished(**given))
    loop = asyncio.get_running_loop()
    until_then = loop.time() + 0.1
    while loop.time() < until_then:
        assert used(server) <= 65536
        await asyncio.sleep(0.001)
    client.send(BODY[-100:])
    check_problem(await client.read(), 401, "unauthorized")
    await until(lambda: used(server) == 0)


@fast
@with_token
async def test_it_is_answered_before_its_body_has_come(server):
    client = await server.connect()
    client.send(unfinished())
    answer = await client.read()
    check_problem(answer, 401, "unauthorized")
    assert answer.headers["connection"] == "close"


@with_token
async def test_nor_is_it_asked_for_its_body(server):
    client = await server.connect()
    client.send(request("POST", "/jobs/enqueue", BODY, {"Expect": "100-continue"})[: -len(BODY)])
    head = await client._reader.readuntil(b"\r\n")
    assert head == b"HTTP/1.1 401 Unauthorized\r\n"


@with_token
async def test_with_its_token_a_large_body_is_taken(server):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    client = await server.connect()
    client.send(unfinished(**headers))
    await until(lambda: used(server) > 100_000)
    client.send(BODY[-100:])
    assert (await client.read()).status == 201
    client.send(request("POST", "/jobs/enqueue", BODY, {**headers, "Expect": "100-continue"})[: -len(BODY)])
    assert await client._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 (Continue)\r\n\r\n".replace(
        b"100 (Continue)", b"100 Continue" if server.front.name == "fast" else b"100 (Continue)"
    )
    client.send(BODY)
    assert (await client.read()).status == 201


# -- uploads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HANG_UPS)
async def test_an_import_whose_client_leaves_while_a_piece_is_taken_is_not_counted(server, monkeypatch, how):
    turn, called = asyncio.Event(), asyncio.Event()
    known = server.engine.import_jobs

    async def slow(items):
        called.set()
        await turn.wait()
        taken = known(items)
        return await taken if isinstance(taken, asyncio.Future) else taken

    patch_engine(monkeypatch, server, import_jobs=lambda items: asyncio.ensure_future(slow(items)))
    client = await server.connect()
    first = b'{"type":"x"}\n{"type":'
    head = request("PUT", "/import", None, {"Transfer-Encoding": "chunked"})
    client.send(head + b"%x\r\n%b\r\n" % (len(first), first))
    await called.wait()
    getattr(client, how)()
    await until(lambda: server.front.connections() == 0)
    turn.set()
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    for _ in range(5):  # the task that took the piece runs to its end
        await asyncio.sleep(0)
    assert used(server) == 0


async def test_the_unfinished_line_of_an_import_counts_and_beyond_the_limit_it_is_refused(server):
    server.dispatcher.in_flight.limit = 100_000
    client = await server.connect()
    line = json.dumps({"type": "x", "payload": "p" * 200_000}).encode() + b"\n"
    head = request("POST", "/import", headers={"Transfer-Encoding": "chunked"})
    first = json.dumps({"type": "x"}).encode() + b"\n"
    client.send(head + b"%x\r\n%b\r\n" % (len(first), first))
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    client.send(b"%x\r\n%b\r\n" % (len(line) - 1, line[:-1]))
    client.send(b"1\r\n\n\r\n0\r\n\r\n")
    check_problem(await client.read(), 503, "overloaded")
    assert server.engine.stats().jobs["queued"] == 1
    await until(lambda: used(server) == 0)


# -- answers ----------------------------------------------------------------------------------------


async def reader(server: Server, path: str) -> socket.socket:
    """A client that has asked, and reads nothing."""
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", server.port))
    slow.send(request("GET", path))
    return slow


async def large_job(server: Server) -> int:
    """A job larger than what a socket buffers."""
    return server.engine.enqueue(NewJob("large", "default", 0, b'"' + b"p" * (4 << 20) + b'"')).id


async def test_large_answers_that_nobody_reads_are_refused_beyond_the_limit_and_small_ones_are_not(server):
    id = await large_job(server)
    slow = [await reader(server, f"/jobs/{id}") for _ in range(3)]
    await until(lambda: sum(connection.state() == "write" for connection in server.front.open) == 3)
    unread = used(server)
    assert unread > 1 << 20
    server.dispatcher.in_flight.limit = unread + (1 << 20)
    check_problem(await server.get(f"/jobs/{id}"), 503, "overloaded", retry_after=1)
    assert used(server) == unread
    assert (await server.get("/jobs")).status == 200
    assert await server.enqueue() == id + 1
    for one in slow:
        one.close()
    await until(lambda: used(server) == 0)
    assert (await server.get(f"/jobs/{id}")).status == 200


async def test_a_job_that_has_no_room_in_an_answer_returns_to_its_place(server):
    id = await large_job(server)
    server.dispatcher.in_flight.limit = 1 << 20
    check_problem(await server.post("/jobs/dequeue"), 503, "overloaded")
    assert server.untouched(id)
    server.dispatcher.in_flight.limit = 8 << 20
    assert (await server.dequeue())["id"] == id


async def test_what_was_done_is_answered_whatever_its_size(server):
    await server.enqueue()
    server.dispatcher.in_flight.limit = 10_000
    answer = await server.post("/jobs/enqueue", [{"type": "x" * 50}] * 1000)
    assert (answer.status, len(answer.json["jobs"])) == (201, 1000)


@pytest.mark.parametrize("path", ["/queues/default/export", "/jobs/stream?prefetch=10"])
async def test_a_stream_of_large_pieces_waits_until_there_is_room(server, path):
    for _ in range(3):
        await large_job(server)
    method = "POST" if "stream" in path else "GET"
    server.dispatcher.in_flight.limit = 1 << 20
    server.dispatcher.in_flight.used += 2 << 20
    client = await server.ask(method, path)
    for _ in range(20):
        await server.get("/healthz")
    assert server.engine.stats().jobs["in_progress"] == 0
    server.dispatcher.in_flight.used -= 2 << 20
    got = await asyncio.wait_for(client._reader.readuntil(b"p" * 1000), 5)
    assert b"200 OK" in got
    client.reset()
    await until(lambda: used(server) == 0)
