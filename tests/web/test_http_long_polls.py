"""Waiting consumers: the order in which they are served, what they get, and when they get nothing."""

import asyncio
import json

import pytest
from http_client import request
from serving import until

from jobqueue import Settings


async def wait_for(server, path="/jobs/dequeue?wait=30", body=None):
    """Returns a client, once it waits."""
    before = server.engine.stats().consumers_waiting
    client = await server.ask("POST", path, body)
    await server.waiting(before + 1)
    return client


async def test_a_waiting_client_gets_the_next_job_at_once(server):
    client = await wait_for(server)
    id = await server.enqueue(payload={"n": 1})
    job = (await client.read()).json
    assert (job["id"], job["status"], job["attempts"], job["payload"]) == (id, "in_progress", 1, {"n": 1})
    await server.waiting(0)


async def test_the_answer_to_the_enqueue_shows_that_the_job_is_leased_already(server):
    await wait_for(server, body={"consumer": "w1"})
    answer = await server.post("/jobs/enqueue", {"type": "x"})
    assert answer.status == 201
    assert (answer.json["status"], answer.json["consumer"]) == ("in_progress", "w1")
    assert "lease" not in answer.json
    assert "payload" not in answer.json


async def test_waiters_are_served_in_the_order_in_which_they_came(server):
    clients = [await wait_for(server) for _ in range(5)]
    ids = [await server.enqueue() for _ in range(5)]
    assert [(await client.read()).json["id"] for client in clients] == ids


async def test_a_waiter_on_several_queues_gets_a_job_of_any_and_only_one(server):
    client = await wait_for(server, "/jobs/dequeue?wait=30&queues=a,b,c")
    first = await server.enqueue(queue="b")
    await server.enqueue(queue="a")
    assert (await client.read()).json["id"] == first
    await server.waiting(0)
    assert (await server.get("/queues/a")).json["jobs"]["queued"] == 1


async def test_the_order_of_waiters_holds_across_queues(server):
    first = await wait_for(server, "/jobs/dequeue?wait=30&queues=a,b")
    second = await wait_for(server, "/jobs/dequeue?wait=30&queues=b")
    ids = [await server.enqueue(queue="b"), await server.enqueue(queue="b")]
    assert [(await first.read()).json["id"], (await second.read()).json["id"]] == ids


async def test_a_waiter_on_another_queue_gets_nothing(server):
    client = await wait_for(server, "/jobs/dequeue?wait=30&queue=other")
    await server.enqueue()
    await server.waiting(1)
    await server.enqueue(queue="other")
    assert (await client.read()).json["queue"] == "other"


async def test_a_waiter_with_count_gets_the_jobs_that_are_there(server):
    client = await wait_for(server, "/jobs/dequeue?wait=30&count=3")
    await server.post("/jobs/enqueue", [{"type": "a"}, {"type": "b"}])
    assert [job["type"] for job in (await client.read()).json["jobs"]] == ["a", "b"]
    client = await wait_for(server, "/jobs/dequeue?wait=30&count=3")
    await server.post("/jobs/enqueue", [{"type": str(n)} for n in range(5)])
    assert [job["type"] for job in (await client.read()).json["jobs"]] == ["0", "1", "2"]
    assert (await server.get("/queues/default")).json["jobs"]["queued"] == 2


async def test_a_batch_goes_to_several_waiters_in_order_of_priority(server):
    clients = [await wait_for(server) for _ in range(2)]
    await server.post("/jobs/enqueue", [{"type": "low"}, {"type": "high", "priority": 5}])
    assert [(await client.read()).json["type"] for client in clients] == ["high", "low"]


async def test_a_wait_ends_with_204_by_the_clock_of_the_engine(server):
    client = await wait_for(server, "/jobs/dequeue?wait=30")
    server.clock.advance("29900ms")
    server.engine.tick()
    await server.waiting(1)
    server.clock.advance("200ms")
    server.engine.tick()
    answer = await client.read()
    assert (answer.status, answer.body) == (204, b"")
    await server.waiting(0)
    # The connection stays open, and a job that comes later stays queued.
    await server.enqueue()
    assert (await client.call("POST", "/jobs/dequeue")).json["attempts"] == 1


async def test_a_wait_with_count_ends_with_204_too(server):
    client = await wait_for(server, "/jobs/dequeue?wait=1&count=10")
    server.clock.advance("2s")
    server.engine.tick()
    assert (await client.read()).status == 204


async def test_a_stale_job_goes_to_a_waiting_consumer(server):
    await server.enqueue()
    lost = await server.dequeue(lease_for=1)
    client = await wait_for(server)
    server.clock.advance("2s")
    server.engine.tick()
    job = (await client.read()).json
    assert (job["id"], job["attempts"], job["leases"]) == (lost["id"], 2, 2)
    assert job["lease"] != lost["lease"]


@pytest.mark.parametrize("settings", [Settings(wait_max="2m", first_id=1)], ids=["longer"])
async def test_the_longest_wait_is_a_setting(server):
    client = await wait_for(server, "/jobs/dequeue?wait=2m")
    await server.enqueue()
    assert (await client.read()).status == 200


async def test_when_the_server_stops_waiting_clients_get_204_and_close(server):
    clients = [await wait_for(server, f"/jobs/dequeue?wait=30&queue=q{n}") for n in range(3)]
    server.stop_waiting()
    for client in clients:
        answer = await client.read()
        assert (answer.status, answer.headers.get("connection")) == (204, "close")
    await server.waiting(0)
    server.front.close()
    for client in clients:
        assert await client.rest() == b""


async def test_a_dequeue_while_the_server_stops_is_204_at_once(server):
    await server.enqueue()
    server.engine.stop_waiting()
    assert (await server.post("/jobs/dequeue?wait=30")).status == 204


# -- requests behind one that waits -----------------------------------------------------------------


async def test_requests_pipelined_after_a_waiting_one_are_answered_in_order(server):
    client = await server.connect()
    client.ask("POST", "/jobs/dequeue?wait=30")
    client.ask("POST", "/jobs/enqueue", {"type": "behind"})
    client.ask("GET", "/nowhere")
    client.ask("HEAD", "/queues")
    client.ask("GET", "/queues/default")
    await server.waiting(1)
    assert (await server.get("/queues/default")).json["totals"]["enqueued"] == 0
    id = await server.enqueue()
    assert (await client.read()).json["id"] == id
    assert (await client.read()).json["type"] == "behind"
    assert (await client.read()).code == "no_such_route"
    assert (await client.read()).status == 200
    assert (await client.read()).json["totals"]["enqueued"] == 2


async def test_waiting_requests_may_be_pipelined_among_others(server):
    client = await server.connect()
    for path in ("/jobs/dequeue", "/jobs/dequeue?wait=30", "/jobs/dequeue?wait=30", "/jobs/dequeue"):
        client.ask("POST", path)
    await server.waiting(1)
    assert (await client.read()).status == 204
    for _ in range(2):
        await server.waiting(1)
        id = await server.enqueue()
        assert (await client.read()).json["id"] == id
    assert (await client.read()).status == 204


async def test_a_request_may_arrive_in_pieces_after_a_waiting_one(server):
    client = await wait_for(server)
    behind = request("POST", "/jobs/enqueue", {"type": "behind", "payload": "x" * 200})
    for start in range(0, len(behind), 50):
        client.send(behind[start : start + 50])
        await asyncio.sleep(0)
    await server.enqueue()
    assert (await client.read()).status == 200
    assert (await client.read()).json["type"] == "behind"


async def test_a_hundred_requests_at_once_are_answered_in_order(server):
    client = await server.connect()
    for n in range(100):
        client.ask("POST", "/jobs/enqueue", {"type": f"t{n}"})
    assert [(await client.read()).json["type"] for _ in range(100)] == [f"t{n}" for n in range(100)]


async def test_large_answers_to_pipelined_requests_are_complete(server):
    payload = "x" * 500_000
    await server.enqueue(payload=payload)
    client = await server.connect()
    for _ in range(20):
        client.ask("GET", "/jobs/1")
    for _ in range(20):
        assert json.loads((await client.read()).body)["payload"] == payload


async def test_many_waiters_are_all_served(server):
    clients = [await server.ask("POST", "/jobs/dequeue?wait=30") for _ in range(200)]
    await server.waiting(200)
    await server.post("/jobs/enqueue", [{"type": "x"}] * 200)
    ids = [(await client.read()).json["id"] for client in clients]
    assert sorted(ids) == list(range(1, 201))
    await until(lambda: server.engine.stats().consumers_waiting == 0)
