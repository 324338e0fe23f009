"""Hang-ups as in `test_http_hang_ups`, for other ways to wait for a job: raw, by the path of the queue, after a conclude."""

import socket

import pytest
from http_client import HANG_UPS, request
from serving import until

from jobqueue.model import NewJob

WAYS = ["raw", "by path", "next", "raw next"]


async def asking(server, way):
    """Returns a request that waits for a job of the queue `default`, and the id of the job that it concludes first."""
    if "next" not in way:
        return request("POST", f"/queues/default/dequeue?wait=30&raw={int(way == 'raw')}"), None
    id = await server.enqueue(queue="before")
    lease = (await server.dequeue(queue="before"))["lease"]
    raw = int(way.startswith("raw"))
    path = f"/jobs/{id}/conclude?next=1&wait=30&queue=default&raw={raw}&lease={lease}"
    return request("POST", path, b"done" if raw else None), id


def concluded(server, id):
    return id is None or server.engine.get(id).status == "concluded"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", HANG_UPS)
async def test_a_client_that_hangs_up_while_it_waits_gets_no_job(server, blunt, how, way):
    data, before = await asking(server, way)
    client = blunt()
    client.send(data)
    await server.waiting(1)
    getattr(client, how)()
    await server.waiting(0)
    id = await server.enqueue()
    assert server.untouched(id)
    assert concluded(server, before)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", HANG_UPS)
async def test_a_client_that_hangs_up_as_the_job_comes_does_not_keep_it(server, blunt, how, way):
    for order in ("hang-up first", "job first"):
        data, before = await asking(server, way)
        client = blunt()
        client.send(data)
        await server.waiting(1)
        if order == "hang-up first":
            getattr(client, how)()
        id = server.engine.enqueue(NewJob("x", payload=b"[1]")).id
        assert server.engine.get(id).status == "in_progress"
        if order == "job first":
            getattr(client, how)()
        await until(lambda: server.untouched(id))
        assert concluded(server, before)
        server.engine.cancel(id)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_hangs_up_before_its_request_is_performed_does_not_keep_a_job(
    server, blunt, how, way
):
    """The job is there already. A complete request is performed, so the job stays concluded."""
    data, before = await asking(server, way)
    id = await server.enqueue(payload="x" * 100)
    client = blunt()
    client.send(data)
    getattr(client, how)()
    if how == "close" and before is not None:
        await until(lambda: concluded(server, before))
    await until(lambda: server.front.connections() <= 1)
    await until(lambda: server.untouched(id) or server.engine.get(id).status == "in_progress")
    if server.engine.get(id).status == "in_progress":
        # The system had taken the answer when the client left, so only the lease ends this.
        server.clock.advance("5m")
        server.engine.tick()
        assert server.engine.get(id).status == "queued"


@pytest.mark.parametrize("how", HANG_UPS)
async def test_a_client_that_stops_waiting_for_a_reply_does_not_affect_the_job(server, blunt, how):
    client = blunt()
    client.send(request("POST", "/jobs/enqueue", {"type": "x"}, {"Prefer": "wait=30"}))
    await until(lambda: server.engine._queue.state.outcomes.count == 1)
    id = server.engine._queue.state.last_number
    getattr(client, how)()
    await until(lambda: server.engine._queue.state.outcomes.count == 0)
    job = await server.dequeue()
    assert job["id"] == id
    assert (await server.post(f"/jobs/{id}/conclude?lease={job['lease']}")).status == 200


async def test_the_job_of_a_raw_payload_that_was_sent_in_part_is_given_back(server, blunt):
    """The answer is larger than the socket buffers, and the client reads nothing."""
    raw = NewJob("x", payload=b"y" * 8_000_000)
    id = server.engine.enqueue(raw).id
    client = blunt()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send(request("POST", "/jobs/dequeue?raw=1"))
    await until(lambda: server.engine.get(id).status == "in_progress")
    client.close()
    await until(lambda: server.untouched(id))
