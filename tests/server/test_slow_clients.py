"""Clients that are slow, silent, or send much and read little: what they cost, and when they are cut off."""

import asyncio
import json
import socket
from typing import Any

import pytest
from http_client import HANG_UPS, Client, request
from serving import Server, check_problem, until

from jobqueue import Settings
from jobqueue.engine.memory_limit import resident
from jobqueue.model import NewJob
from jobqueue.server.http1.read_ahead import READ_AHEAD
from jobqueue.server.timeouts import LINGER, Rounds, SweepClock, Timeouts

fast = pytest.mark.parametrize("server", ["fast"], indirect=True)
_HEALTHZ = request("GET", "/healthz")
_KIB = 1024
_MIB = 1024 * 1024
_USUAL = Timeouts(Settings())
HEAD, BODY, IDLE, WRITE = _USUAL.head, _USUAL.body, _USUAL.idle, _USUAL.write


class Time:
    """Sets the time for the deadlines of a front's connections."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._now = 1000.0
        self.pass_(0)

    def pass_(self, seconds: float) -> None:
        """Lets this time pass without anything happening."""
        self._now += seconds
        for connection in list(self._server.front.open):
            connection.check_deadline(self._now)


async def connection_of(server: Server) -> tuple[Client, Any]:
    """A client, and the server's end of its connection, which is the only one."""
    client = await server.connect()
    await until(lambda: server.front.open)
    (connection,) = server.front.open
    return client, connection


async def is_open(client: Client) -> bool:
    """Nothing came, and the server has not ended the connection."""
    try:
        await asyncio.wait_for(client._reader.read(1), 0.02)
    except TimeoutError:
        return True
    return False


# -- deadlines --------------------------------------------------------------------------------------


async def test_a_connection_without_a_request_is_closed_after_half_a_minute(server):
    client, _ = await connection_of(server)
    time = Time(server)
    time.pass_(HEAD)
    assert await is_open(client)
    time.pass_(1)
    assert await client.rest() == b""


@fast
@pytest.mark.parametrize("sent", [b"GE", b"GET /healthz HTTP/1.1\r\nHo", b"\r\n"])
async def test_a_head_must_be_there_after_half_a_minute(server, sent):
    client, connection = await connection_of(server)
    client.send(sent)
    await until(lambda: connection.state() == "head")
    time = Time(server)
    time.pass_(HEAD)
    assert await is_open(client)
    time.pass_(1)
    answer = await client.read()
    check_problem(answer, 408, "request_timeout")
    assert answer.headers["connection"] == "close"
    assert await client.rest() == b""


@fast
async def test_a_head_that_trickles_in_gains_no_time(server):
    client, connection = await connection_of(server)
    client.send(b"GET /healthz HTTP/1.1\r\n")
    await until(lambda: connection.state() == "head")
    time = Time(server)
    for _ in range(int(HEAD)):
        client.send(b"X: a\r\n")
        await asyncio.sleep(0.001)
        time.pass_(1)
    time.pass_(1)
    assert (await client.read()).status == 408


@pytest.mark.parametrize("server", ["tornado"], indirect=True)
async def test_over_tornado_too_a_head_that_trickles_in_is_cut_off(server):
    """The deadline of a head counts, which is shorter than that of an idle connection. There is no answer."""
    client, connection = await connection_of(server)
    await client.call("GET", "/healthz")
    time = Time(server)
    time.pass_(HEAD + 1)
    assert await is_open(client), "it was idle"
    client.send(b"GET /healthz HTTP/1.1\r\n")
    await until(lambda: connection.state() == "head")
    time.pass_(0)
    for _ in range(int(HEAD)):
        client.send(b"X: a\r\n")
        await asyncio.sleep(0.001)
        time.pass_(1)
    assert await is_open(client)
    time.pass_(1)
    assert await client.rest() == b""


@fast
async def test_the_second_request_of_a_connection_has_its_own_time(server):
    client, connection = await connection_of(server)
    time = Time(server)
    time.pass_(HEAD - 1)
    await client.call("GET", "/healthz")
    client.send(b"GET /healthz HTTP/1.1\r\n")
    await until(lambda: connection.state() == "head")
    time.pass_(0)
    time.pass_(HEAD - 1)
    assert await is_open(client)
    client.send(b"Host: a\r\n\r\n")
    assert (await client.read()).status == 200


@pytest.mark.parametrize("part", [0, 20, 75], ids=["idle", "head", "body"])
async def test_a_pause_of_the_server_is_not_counted_as_silence_of_its_clients(server, part):
    """The rest of a request came in time, and lies in its socket at the first sweep after the pause."""
    now = 1000.0
    server.front._clock = SweepClock(lambda: now)
    client, connection = await connection_of(server)
    await client.call("GET", "/healthz")
    await until(lambda: connection.state() == "idle")
    whole = request("POST", "/jobs/enqueue", b'{"type":"x"}' + b" " * 50)
    if part:
        client.send(whole[:part])
        await until(lambda: connection.state() != "idle")
    server.front.sweep()
    client.send(whole[part:])
    now += 10_000
    server.front.sweep()
    assert (await client.read("POST")).status == 201
    await until(lambda: connection.state() == "idle")
    for _ in range(int(2 * IDLE) + 2):  # after that it is closed as ever
        assert server.front.open
        now += 0.5
        server.front.sweep()
    assert await client.rest() == b""


def test_a_loop_that_is_always_late_still_ends_connections():
    now = 1000.0
    clock = SweepClock(lambda: now)
    read = []
    for _ in range(6):
        now += 3
        read.append(clock.read())
    assert read == [None, 1001.0, None, 1002.0, None, 1003.0]


@pytest.mark.parametrize("server", ["tornado"], indirect=True)
async def test_over_tornado_a_body_and_an_idle_connection_have_their_time_too(server):
    for part, state, allowed in ((99, "body", BODY), (0, "idle", IDLE)):
        client, connection = await connection_of(server)
        await client.call("GET", "/healthz")
        client.send(b"POST /jobs/enqueue HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{"[:part])
        await until(lambda: connection.state() == state)
        time = Time(server)
        time.pass_(allowed)
        assert await is_open(client)
        time.pass_(1)
        assert await client.rest() == b""
        await until(lambda: not server.front.open)


@fast
async def test_a_body_must_be_there_after_a_minute(server):
    client, connection = await connection_of(server)
    client.send(b"POST /jobs/enqueue HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{")
    await until(lambda: connection.state() == "body")
    time = Time(server)
    time.pass_(BODY)
    assert await is_open(client)
    client.send(b'"')
    await asyncio.sleep(0.001)
    time.pass_(1)
    check_problem(await client.read("POST"), 408, "request_timeout")
    assert await client.rest() == b""
    assert not any(server.engine.stats().jobs.values())


@fast
async def test_an_idle_connection_is_closed_after_five_minutes_without_a_word(server):
    client, _ = await connection_of(server)
    await client.call("GET", "/healthz")
    time = Time(server)
    time.pass_(IDLE)
    assert await is_open(client)
    time.pass_(1)
    assert await client.rest() == b""


@pytest.mark.parametrize("behind", [b"", _HEALTHZ, b"GE"])
async def test_a_long_poll_is_never_cut_off(server, behind):
    client, _ = await connection_of(server)
    client.send(request("POST", "/jobs/dequeue?wait=30") + behind)
    await server.waiting(1)
    time = Time(server)
    for _ in range(10):
        time.pass_(1000)
    await server.enqueue()
    assert (await client.read("POST")).status == 200


@fast
async def test_after_a_refusal_a_client_that_goes_on_sending_is_cut_off_soon(server):
    client, connection = await connection_of(server)
    client.send(b"NO\r\n\r\n")
    assert (await client.read()).status == 400
    time = Time(server)
    time.pass_(LINGER)
    assert connection in server.front.open
    client.send(b"more")
    time.pass_(1)
    await until(lambda: not server.front.open)


@fast
async def test_after_a_refusal_no_more_than_16_mib_are_read_in_vain(server):
    client, _ = await connection_of(server)
    client.send(b"NO\r\n\r\n")
    assert (await client.read()).status == 400
    client.send(b" " * (24 * _MIB))
    await until(lambda: not server.front.open)


async def slow_reader(server: Server, headers: dict[str, str] | None = None) -> tuple[socket.socket, bytes]:
    """A client with a small receive buffer that has requested a job of 4 MiB and reads nothing, and the payload. Its
    connection is the only one."""
    payload = b'"' + b"p" * (4 * _MIB) + b'"'
    job = server.engine.enqueue(NewJob("large", "default", 0, payload))
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _KIB)
    slow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", server.port))
    slow.send(request("GET", f"/jobs/{job.id}", headers=headers))
    await until(lambda: any(connection.state() == "write" for connection in server.front.open))
    return slow, payload


async def test_a_reader_that_takes_nothing_is_cut_off_after_half_a_minute(server):
    slow, _ = await slow_reader(server)
    time = Time(server)
    time.pass_(WRITE)
    assert server.front.open
    time.pass_(1)
    await until(lambda: not server.front.open)
    slow.close()


@pytest.mark.parametrize("headers", [None, {"Connection": "close"}], ids=["kept", "closed"])
async def test_a_slow_reader_that_makes_progress_gets_the_whole_answer(server, headers):
    slow, payload = await slow_reader(server, headers)
    loop = asyncio.get_running_loop()
    time = Time(server)
    got = bytearray()
    for part in range(1, 8):
        while len(got) < part * _MIB // 2:
            got += await loop.sock_recv(slow, 64 * _KIB)
        time.pass_(WRITE - 1)
    while not got.endswith(b"}\n"):
        more = await asyncio.wait_for(loop.sock_recv(slow, 256 * _KIB), 5)
        assert more, "it was cut off in the middle"
        got += more
    assert got.endswith(payload + b"}\n")
    slow.close()


def test_a_round_has_its_number_of_parts_even_if_the_checked_items_disappear():
    left = set(range(1000))
    rounds = Rounds(left)
    for _ in range(20):
        left -= set(rounds.part(20))
    assert not left
    assert not rounds.part(20)
    left.add(1)
    assert rounds.part(20) == [1]


# -- clients that send much and read nothing ------------------------------------------------------------


async def test_a_client_that_requests_much_and_reads_nothing_costs_little_and_delays_no_other(server):
    """2,000 answers of 200 KB would be 400 MB."""
    id = await server.enqueue(payload="p" * 200_000)
    greedy = await server.connect()
    greedy._writer.transport.pause_reading()
    before = resident() or 0
    greedy.send(request("GET", f"/jobs/{id}") * 2000)
    for _ in range(50):
        assert (await server.get("/healthz")).status == 200
        await asyncio.sleep(0.001)
    assert (resident() or 0) - before < 40 * _MIB
    time = Time(server)
    time.pass_(WRITE + 1)
    assert (await server.get("/healthz")).status == 200
    await until(lambda: len(server.front.open) == 1)
    greedy.reset()


@fast
async def test_small_unread_answers_cost_little_too(server):
    greedy, _ = await connection_of(server)
    greedy._writer.transport.pause_reading()
    before = resident() or 0
    greedy.send(request("GET", "/help") * 50_000)
    for _ in range(50):
        assert (await server.get("/healthz")).status == 200
        await asyncio.sleep(0.001)
    assert (resident() or 0) - before < 40 * _MIB
    greedy.reset()


async def test_answers_that_were_held_back_come_in_order_once_they_are_read(server):
    id = await server.enqueue(payload="p" * 100_000)
    client = await server.connect()
    client._writer.transport.pause_reading()
    paths = [f"/jobs/{id}", "/healthz", "/nothing", "/jobs/x", f"/jobs/{id}"] * 40
    client.send(
        b"".join(request("GET", path, headers={"X-Request-Id": str(n)}) for n, path in enumerate(paths))
    )
    for _ in range(10):
        await server.get("/healthz")
    client._writer.transport.resume_reading()
    for n in range(len(paths)):
        assert (await client.read()).headers["x-request-id"] == str(n)


@fast
async def test_a_refusal_after_a_large_answer_is_sent_once_that_is_read(server):
    id = await server.enqueue(payload="p" * 1_000_000)
    client = await server.connect()
    client._writer.transport.pause_reading()
    client.send(request("GET", f"/jobs/{id}") * 8 + b"NO\r\n\r\n")
    for _ in range(10):
        await server.get("/healthz")
    client._writer.transport.resume_reading()
    for _ in range(8):
        assert (await client.read()).status == 200
    assert (await client.read()).status == 400
    assert await client.rest() == b""


@fast
async def test_a_job_whose_answer_cannot_be_sent_is_given_back_when_the_client_leaves(server):
    """The answer was written to a socket that took none of it."""
    first = await server.enqueue(payload="p" * 1_000_000, queue="large")
    second = await server.enqueue()
    client = await server.connect()
    client._writer.transport.pause_reading()
    client.send(request("GET", f"/jobs/{first}") * 12 + request("POST", "/jobs/dequeue"))
    for _ in range(20):
        await server.get("/healthz")
    client.reset()
    await until(lambda: server.engine.stats().jobs["in_progress"] == 0)
    assert (await server.dequeue())["id"] == second


# -- bytes after a request that waits ------------------------------------------------------------


@fast
async def test_64_kib_after_a_waiting_request_are_read_and_no_more(server):
    client, connection = await connection_of(server)
    client.send(request("POST", "/jobs/dequeue?wait=30"))
    await server.waiting(1)
    following = _HEALTHZ * 200_000  # 10 MB
    client.send(following)
    await until(lambda: len(connection._read_ahead.kept) > READ_AHEAD)
    for _ in range(20):
        await asyncio.sleep(0.001)
    kept = len(connection._read_ahead.kept)
    assert kept <= READ_AHEAD + 256 * _KIB, "it should have stopped reading"
    assert not connection._transport.is_reading()
    await server.enqueue()
    assert (await client.read("POST")).status == 200
    for _ in range(5000):
        assert (await client.read()).status == 200, "reading should have gone on"
    client.reset()


@fast
async def test_a_large_body_after_a_waiting_request_arrives_complete(server):
    client, _ = await connection_of(server)
    client.send(request("POST", "/jobs/dequeue?wait=30"))
    await server.waiting(1)
    client.send(request("POST", "/jobs/enqueue", {"type": "large", "payload": "p" * 900_000}))
    await server.enqueue(type="first")
    assert (await client.read("POST")).json["type"] == "first"
    assert (await client.read("POST")).json["type"] == "large"
    assert len((await server.dequeue())["payload"]) == 900_000


@pytest.mark.parametrize("how", HANG_UPS)
@pytest.mark.parametrize("size", [1, 65_000, 100_000, 3_000_000])
@fast
async def test_a_hang_up_is_seen_whatever_follows_a_waiting_request(server, how, size):
    client = await server.connect()
    client.send(request("POST", "/jobs/dequeue?wait=30"))
    await server.waiting(1)
    client.send((_HEALTHZ * (size // len(_HEALTHZ) + 1))[:size])
    await asyncio.sleep(0.005)
    if how == "reset" or size < 200_000:
        getattr(client, how)()
        await server.waiting(0)
    else:
        # Its unsent bytes come before its FIN, so a close is seen only once those are read.
        client.reset()
        await server.waiting(0)
    assert server.engine.stats().jobs["in_progress"] == 0


class _FloodedTransport:
    """The transport of a client that sends as fast as it is read from."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.reading = True
        self.socket, self._other = socket.socketpair()

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, name: str) -> socket.socket | None:
        return self.socket if name == "socket" else None

    def close(self) -> None:
        self.socket.close()
        self._other.close()

    def writelines(self, lines: list[bytes]) -> None:
        self.written += b"".join(lines)

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


@fast
async def test_a_client_that_sends_faster_than_it_is_answered_is_paused_and_gets_one_slice_in_a_pass(server):
    connection = server.front.new_connection("10.0.0.1")
    transport = _FloodedTransport()
    connection.connection_made(transport)
    piece = request("POST", "/jobs/enqueue", {"type": "x", "payload": "p" * 500}) * 400  # some 250 KB
    most = turns = 0
    sent = 0
    while sent < 40:
        for _ in range(4):  # as much as a loop pass may bring
            if transport.reading:
                connection.data_received(piece)
                sent += 1
        most = max(most, len(connection._read_ahead.kept))
        before = transport.written.count(b"HTTP/1.1 201")
        await asyncio.sleep(0)
        turns = max(turns, transport.written.count(b"HTTP/1.1 201") - before)
    await until(lambda: transport.written.count(b"HTTP/1.1 201") == 40 * 400)
    assert most <= READ_AHEAD + len(piece)
    assert turns <= 2 * 65536 // (len(piece) // 400) + 64  # and the answers gathered in the pass before
    connection.connection_lost(None)
    transport.close()


async def test_many_requests_of_one_client_do_not_delay_others(server):
    """Each request takes a while: it searches thousands of jobs."""
    server.engine.enqueue_many([NewJob("x")] * 5_000)
    count = 300
    one, other = await server.connect(), await server.connect()
    one.send(request("GET", "/jobs?type=y") * count)
    other.ask("GET", "/healthz")
    assert (await other.read()).status == 200
    looks = sum(number for name, _, number in server.dispatcher.meter.answered() if name == "list_jobs")
    assert looks < count / 2
    for _ in range(count):
        assert (await one.read()).status == 200


@fast
@pytest.mark.parametrize("count", [5, 900])
async def test_many_requests_before_a_half_close_are_all_answered(server, count):
    """As `printf … | nc -N` sends them."""
    client = await server.connect()
    client.send(request("POST", "/jobs/enqueue", {"type": "x"}) * count)
    client.half_close()
    for _ in range(count):
        assert (await client.read()).status == 201
    assert await client.rest() == b""
    await until(lambda: server.front.connections() == 0)


@fast
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside another client"])
@pytest.mark.parametrize("count", [1, 5, 900])
async def test_a_half_close_that_is_read_with_the_requests_before_it_loses_none(server, count, others):
    """The requests may be held for the batch, or lie in the backlog, when the half-close is read."""
    for _ in range(others):
        await server.connect()
    client = await server.connect()
    await until(lambda: server.front.connections() == others + 1)
    port = client._writer.get_extra_info("sockname")[1]
    [connection] = [
        each for each in server.front.open if each._transport.get_extra_info("peername")[1] == port
    ]
    connection.data_received(request("POST", "/jobs/enqueue", {"type": "x"}) * count)
    assert connection.eof_received()
    for _ in range(count):
        assert (await client.read()).status == 201
    assert await client.rest() == b""
    await until(lambda: server.front.connections() == others)


@fast
@pytest.mark.parametrize("before", ["many", "a 404", "a wait"])
async def test_100_continue_is_sent_after_the_answers_to_earlier_requests(server, before):
    client = await server.connect()
    count = 900 if before == "many" else 1
    id = await server.enqueue()
    client.send(
        {
            "many": request("POST", "/jobs/enqueue", {"type": "x"}) * count,
            "a 404": request("GET", "/nope"),
            "a wait": request("GET", f"/jobs/{id}?wait=30"),
        }[before]
    )
    body = b'{"type":"y"}'
    head = request("POST", "/jobs/enqueue", body)[: -len(body)]
    client.send(head.replace(b"\r\n", b"\r\nExpect: 100-continue\r\n", 1))
    if before == "a wait":
        await server.post(f"/jobs/{id}/conclude?lease={(await server.dequeue())['lease']}")
    for _ in range(count):
        await client.read()
    assert await client._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(body)
    assert (await client.read()).status == 201


@fast
async def test_an_upload_after_a_404_is_taken(server):
    lines = b'{"type":"x","payload":"%b"}\n' % (b"p" * 1_000) * 2_600
    client = await server.connect()
    client.send(request("GET", "/nope") + request("PUT", "/import", lines) + request("GET", "/healthz"))
    assert [(await client.read(method)).status for method in ("GET", "PUT", "GET")] == [404, 200, 200]
    assert server.engine.stats().jobs["queued"] == 2_600


@fast
async def test_a_large_request_that_comes_in_pieces_within_one_loop_pass_is_read_in_order(server):
    await server.get("/healthz")  # another connection, so answers wait for the end of the pass
    connection = server.front.new_connection("10.0.0.1")
    transport = _FloodedTransport()
    connection.connection_made(transport)
    data = request("POST", "/jobs/enqueue", {"type": "x", "payload": [*range(60_000)]})
    connection.data_received(data[:100_000])
    connection.data_received(data[100_000:200_000])
    connection.data_received(data[200_000:])
    await until(lambda: b"HTTP/1.1 " in transport.written)
    assert transport.written.startswith(b"HTTP/1.1 201 "), transport.written
    assert json.loads((await server.get("/jobs/1")).body)["payload"] == [*range(60_000)]
    connection.connection_lost(None)
    transport.close()
