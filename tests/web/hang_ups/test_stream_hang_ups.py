"""A client that hangs up on a stream of jobs keeps no job, however and whenever it does so."""

import asyncio
import json

import pytest
from http_client import HANG_UPS, Blunt, request
from serving import until

from jobqueue.model import Filter, LeaseClaim, NewJob

STREAM = request("POST", "/jobs/stream?prefetch=3")
ANY = Filter()


@pytest.fixture
def client(blunt) -> Blunt:
    return blunt()


def put_in(server, count):
    return server.engine.enqueue_many([NewJob("x")] * count)


async def read(server, client):
    """Returns what was received after a few passes of the server's loop."""
    client.socket.setblocking(False)
    came = b""
    while b"\n{" not in came:
        await server.get("/healthz")
        try:
            came += client.socket.recv(1 << 16)
        except BlockingIOError:
            continue
    return [json.loads(line) for line in came.splitlines() if line.startswith(b"{")]


async def asked(server, client):
    put_in(server, 5)
    client.send(STREAM)


async def head_is_on_its_way(server, client):
    await asked(server, client)
    await server.get("/healthz")


async def waits(server, client):
    client.send(STREAM)
    await server.waiting(1)


async def just_handed_over(server, client):
    await waits(server, client)
    put_in(server, 5)
    assert server.engine.stats().jobs["in_progress"] == 3


async def handed_over_a_pass_ago(server, client):
    await just_handed_over(server, client)
    await asyncio.sleep(0)


async def holds_all_it_may(server, client):
    await asked(server, client)
    await until(lambda: server.engine.stats().jobs["in_progress"] == 3)
    await read(server, client)


async def just_made_room(server, client):
    await asked(server, client)
    await until(lambda: server.engine.stats().jobs["in_progress"] == 3)
    for job in await read(server, client):
        server.engine.conclude(LeaseClaim(job["id"], job["lease"], None), None)


async def takes_what_it_was_given_back(server, client):
    await holds_all_it_may(server, client)
    for job in server.engine.list_jobs(ANY, None, True, 3)[0]:
        server.engine.release(LeaseClaim(job.id, job.lease.token, None))


MOMENTS = [
    asked, head_is_on_its_way, waits, just_handed_over, handed_over_a_pass_ago, holds_all_it_may,
    just_made_room, takes_what_it_was_given_back,
]  # fmt: skip


@pytest.mark.parametrize("how", HANG_UPS)
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
async def test_no_job_stays_leased_to_a_client_that_hung_up(server, client, moment, how):
    await moment(server, client)
    getattr(client, how)()
    for _ in range(3):
        await server.get("/healthz")  # whatever was sent has been read
    await until(lambda: server.front.connections() == 1)
    await until(lambda: len(server.dispatcher.streams) == 0)
    await server.waiting(0)
    more = put_in(server, 2)
    jobs = server.engine.list_jobs(ANY, None, True, 100)[0]
    assert {job.status for job in jobs} <= {"queued", "concluded"}
    # What was written counts like an expired lease, what was not goes back uncharged.
    for job in jobs:
        if job.status == "queued":
            ended = [attempt["outcome"] for attempt in (await server.job(job.id)).get("history", [])]
            assert set(ended) <= {"stale", "released"}
            assert job.attempts == ended.count("stale") <= 1
    assert more[-1] in jobs
    # Each is back in its place for the next consumer.
    waiting = [job.id for job in jobs if job.status == "queued"]
    assert [job["id"] for job in (await server.dequeue(count=100))["jobs"]] == waiting
    assert not server.engine._queue.state.lease_end_callbacks


async def test_a_hang_up_in_the_loop_pass_of_the_delivery_gives_all_jobs_back(server, client):
    await waits(server, client)
    jobs = put_in(server, 5)
    (pouring,) = server.dispatcher.streams._open
    pouring.hung_up()
    assert {(job.status, job.attempts) for job in jobs} == {("queued", 0)}
    client.close()
    await until(lambda: len(server.dispatcher.streams) == 0)
    assert {(job.status, job.attempts) for job in jobs} == {("queued", 0)}
