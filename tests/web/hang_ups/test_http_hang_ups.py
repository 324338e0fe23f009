"""A client that hangs up keeps no job, however and whenever it does so."""

import asyncio
import itertools
import socket
from types import SimpleNamespace

import pytest
from http_client import HANG_UPS, request
from serving import until

from jobqueue import Settings
from jobqueue.model import NewJob

WAIT = request("POST", "/jobs/dequeue?wait=30")
NEXT = request("GET", "/stats")
BEHIND = {"nothing": b"", "a request": NEXT, "half a request": NEXT[:20], "100 KiB": b"x" * 100_000}


@pytest.mark.parametrize("behind", BEHIND)
async def test_a_client_that_hangs_up_while_it_waits_is_forgotten(server, blunt, behind):
    for how, seen in itertools.product(HANG_UPS, ("read", "not read")):
        client = blunt()
        client.send(WAIT)
        await server.waiting(1)
        client.send(BEHIND[behind])
        if seen == "read":
            for _ in range(4):
                await server.get("/healthz")  # the loop comes round to what was sent
        getattr(client, how)()
        await server.waiting(0)
    id = await server.enqueue()
    assert server.untouched(id)
    assert server.engine.get(id).leases == 0


@pytest.mark.parametrize("how", HANG_UPS)
@pytest.mark.parametrize(
    "path", ["/jobs/dequeue?wait=30", "/jobs/stream", "/events", "/jobs/1?wait=30", "/top"]
)
async def test_a_client_that_hung_up_before_its_request_was_read_is_not_waited_for(server, blunt, how, path):
    """Its request and its hang-up are read at once."""
    id = await server.enqueue(queue="other")
    for accepted in (False, True):
        client = blunt()
        if accepted:
            await server.get("/healthz")
            await until(lambda: server.front.connections() == 2)
        client.send(request("POST" if "de" in path or "stream" in path else "GET", path))
        getattr(client, how)()
        await server.get("/healthz")
        await until(lambda: server.front.connections() == 1)
        await until(lambda: server.front.busy() == 0)
        await server.waiting(0)
    assert server.untouched(id)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nope"), ("GET", "/events"), ("POST", "/jobs/stream"), ("PUT", "/import")]
)
async def test_a_client_found_gone_by_its_second_request_leaves_nothing_behind(server, blunt, method, path):
    """The answer to the first request cannot be written, and what the second one began ends."""
    await server.get("/healthz")
    before = len(asyncio.all_tasks())
    second = request(method, path, b"{}\n" if path == "/import" else None)
    for _ in range(5):
        client = blunt()
        await until(lambda: server.front.connections() == 2)
        client.send(request("GET", "/healthz") + second)
        client.reset()
        await until(lambda: server.front.connections() == 1)
    await until(lambda: len(asyncio.all_tasks()) <= before)
    assert (server.front.busy(), len(server.dispatcher.streams)) == (0, 0)


async def test_a_client_whose_answer_cannot_be_written_does_not_keep_its_job(server, blunt):
    id = await server.enqueue()
    for path in ("/jobs/dequeue", "/jobs/dequeue?count=3", "/jobs/dequeue?raw=1"):
        client = blunt()
        await until(lambda: server.front.connections() == 2)
        client.send(request("POST", path))
        client.reset()
        await until(lambda: server.front.connections() == 1)
        await until(lambda: server.untouched(id))


@pytest.mark.parametrize("how", HANG_UPS)
async def test_the_next_waiting_client_gets_the_job(server, blunt, how):
    gone, other = blunt(), await server.connect()
    gone.send(WAIT)
    await server.waiting(1)
    other.send(WAIT)
    await server.waiting(2)
    getattr(gone, how)()
    await server.waiting(1)
    id = await server.enqueue()
    job = (await other.read()).json
    assert (job["id"], job["attempts"], job["leases"]) == (id, 1, 1)


@pytest.mark.parametrize("how", HANG_UPS)
@pytest.mark.parametrize("behind", ["nothing", "a request"])
async def test_a_client_that_hangs_up_just_before_the_job_comes_does_not_keep_it(server, blunt, how, behind):
    """The server cannot know of the hang-up yet when it delivers the job."""
    client = blunt()
    client.send(WAIT)
    await server.waiting(1)
    client.send(BEHIND[behind])
    getattr(client, how)()
    id = server.engine.enqueue(NewJob("x")).id
    assert server.engine.get(id).status == "in_progress"
    await until(lambda: server.untouched(id))
    # It is back in its place, for the next consumer.
    await server.enqueue()
    assert (await server.dequeue())["id"] == id


@pytest.mark.parametrize("how", HANG_UPS)
async def test_a_client_that_hangs_up_just_after_the_job_came_does_not_keep_it(server, blunt, how):
    """The job is delivered, and nothing has been written yet."""
    client = blunt()
    client.send(WAIT)
    await server.waiting(1)
    id = server.engine.enqueue(NewJob("x")).id
    getattr(client, how)()
    await until(lambda: server.untouched(id))


@pytest.mark.parametrize("how", HANG_UPS)
async def test_the_hang_up_and_the_enqueue_are_read_in_one_pass_of_the_loop(server, blunt, how):
    for order in ("hang-up first", "enqueue first"):
        enqueuing = blunt()
        enqueuing.send(NEXT)
        client = blunt()
        client.send(WAIT)
        await server.waiting(1)
        if order == "hang-up first":
            getattr(client, how)()
        enqueuing.send(request("POST", "/jobs/enqueue", {"type": "x"}))
        if order == "enqueue first":
            getattr(client, how)()
        await until(lambda: server.engine.stats().jobs["queued"] == 1)
        id = server.engine.queue("default").totals["enqueued"]
        assert server.untouched(id)
        server.engine.cancel(id)


@pytest.mark.parametrize("how", HANG_UPS)
async def test_a_batch_that_was_not_delivered_returns_as_a_whole(server, blunt, how):
    client = blunt()
    client.send(request("POST", "/jobs/dequeue?wait=30&count=3"))
    await server.waiting(1)
    getattr(client, how)()
    ids = [job.id for job in server.engine.enqueue_many([NewJob("x")] * 4)]
    await until(lambda: all(server.untouched(id) for id in ids))
    assert [job["id"] for job in (await server.dequeue(count=10))["jobs"]] == ids


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_the_job_of_an_answer_that_was_sent_in_part_is_given_back(server, blunt, how):
    """The answer is larger than the socket buffers, and the client reads nothing."""
    jobs = [NewJob("x", payload=b'"%s"' % (b"y" * 8_000_000))] * 2
    ids = [job.id for job in server.engine.enqueue_many(jobs)]
    client = blunt()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send(request("POST", "/jobs/dequeue?count=8"))
    await until(lambda: server.engine.stats().jobs["in_progress"] == 1)
    assert server.front.busy()
    getattr(client, how)()
    await until(lambda: all(server.untouched(id) for id in ids))
    await until(lambda: server.front.connections() == 0)
    assert server.front.busy() == 0


async def test_a_delivered_job_stays_leased_when_the_client_disconnects(server):
    """A client that has read its job keeps the lease, which ends only by time."""
    id = await server.enqueue()
    client = await server.connect()
    job = (await client.call("POST", "/jobs/dequeue")).json
    client.close()
    await until(lambda: server.front.connections() <= 1)
    assert server.engine.get(id).status == "in_progress"
    answer = await server.post(f"/jobs/{id}/conclude", {"lease": job["lease"]})
    assert answer.json["status"] == "concluded"


async def test_a_job_delivered_to_a_waiting_client_stays_leased_when_it_disconnects(server):
    client = await server.connect()
    client.send(WAIT)
    await server.waiting(1)
    id = await server.enqueue()
    assert (await client.read()).json["id"] == id
    client.reset()
    await until(lambda: server.front.connections() <= 1)
    assert server.engine.get(id).status == "in_progress"


async def test_a_hang_up_does_not_affect_other_clients(server, blunt):
    clients = []
    for n in range(20):
        client = blunt()
        client.send(WAIT)
        await server.waiting(n + 1)
        clients.append(client)
    for client in clients[::2]:
        client.reset()
    await server.waiting(10)
    ids = [await server.enqueue() for _ in range(10)]
    assert all(server.engine.get(id).attempts == 1 for id in ids)


async def test_a_client_that_sends_half_a_request_and_disconnects_leaves_nothing_behind(server, blunt):
    for data in (
        b"P",
        b"POST /jobs/enqueue HTTP/1.1\r\n",
        request("POST", "/jobs/enqueue", '{"type":"x"}')[:-1],
    ):
        for how in HANG_UPS:
            client = blunt()
            client.send(data)
            getattr(client, how)()
    await until(lambda: server.front.connections() == 0)
    assert (await server.get("/queues")).json == {"queues": []}


@pytest.mark.parametrize("settings", [Settings(max_connections=3)], ids=["3 connections"])
async def test_connections_that_ended_do_not_count_against_the_limit(server, blunt):
    for _ in range(20):
        client = await server.connect()
        assert (await client.call("GET", "/healthz")).status == 200
        await client.closed()
        await until(lambda: server.front.connections() == 0)


@pytest.mark.parametrize("server", ["fast journal"], indirect=True)
@pytest.mark.parametrize("how", HANG_UPS)
async def test_a_client_that_hangs_up_while_the_disk_writes_does_not_keep_the_job(server, blunt, how):
    """It asked for no wait, but the answer waits for the disk, which is done before the loop notices the hang-up."""
    id = (await server.engine.enqueue(NewJob("x"))).id  # so there is one connection only
    writer, done = server.engine._commit._writer, []
    loop, writer._loop = writer._loop, SimpleNamespace(call_soon_threadsafe=lambda *call: done.append(call))
    client = blunt()
    client.send(request("POST", "/jobs/dequeue"))
    await until(lambda: done)
    await asyncio.sleep(0.05)
    writer._loop = loop
    getattr(client, how)()
    committed, failed = done.pop()
    committed(failed)
    await until(lambda: server.untouched(id))
