"""POST /jobs/{id}/dequeue takes one particular job."""

import asyncio

import pytest
from leasing import dead, later, leased, said
from serving import check_problem

from jobqueue.model import DequeueRequest


async def take(server, id, options=None):
    return await server.post(f"/jobs/{id}/dequeue", options)


async def test_a_job_is_taken_before_those_ahead_of_it(server):
    first, second, third = [await server.enqueue(payload=[number]) for number in range(3)]
    answer = await take(server, second, {"lease_for": "30s", "consumer": "ann"})
    assert answer.status == 200
    job = answer.json
    assert list(job)[:2] == ["id", "lease"]
    assert (job["id"], job["status"], job["payload"], job["attempts"]) == (second, "in_progress", [1], 1)
    assert (job["lease_for"], job["consumer"]) == (30, "ann")
    assert answer.headers["etag"]
    assert [(await server.dequeue())["id"] for _ in range(2)] == [first, third]
    assert await server.dequeue() is None
    assert (await server.post(f"/jobs/{second}/conclude", said(job))).status == 200


async def test_a_job_of_any_queue_and_priority_is_taken(server):
    await server.enqueue(queue="mail", priority=9)
    id = await server.enqueue(queue="mail", priority=-9)
    assert (await take(server, id)).json["queue"] == "mail"


@pytest.mark.parametrize("how", [{"delay": "1h"}, {"run_at": "2027-02-01T00:00:00Z"}])
async def test_a_scheduled_job_is_taken_at_once(server, how):
    id = await server.enqueue(**how)
    job = (await take(server, id)).json
    assert (job["id"], job["status"]) == (id, "in_progress")
    assert "run_at" not in job
    await server.post(f"/jobs/{id}/release", said(job))
    assert (await server.dequeue())["id"] == id


async def test_a_job_that_waits_for_its_retry_is_taken_at_once(server):
    job = await leased(server)
    await server.post(f"/jobs/{job['id']}/fail", said(job, retry_in="1h"))
    again = (await take(server, job["id"])).json
    assert (again["id"], again["attempts"]) == (job["id"], 2)
    shown = (await server.get("/queues/default")).json
    assert (shown["jobs"]["scheduled"], shown["retrying"]) == (0, 0)


async def test_raw_has_the_payload_as_the_body(server):
    id = await server.enqueue(payload={"a": 1})
    answer = await take(server, f"{id}", {"raw": True})
    assert (answer.status, answer.body) == (200, b'{"a":1}')
    assert answer.headers["job-id"] == str(id)


# -- refusals ---------------------------------------------------------------------------------------


async def test_a_job_that_does_not_wait_is_409(server):
    job = await leased(server)
    check_problem(await take(server, job["id"]), 409, "not_waiting", job_status="in_progress")
    await server.post(f"/jobs/{job['id']}/conclude", said(job))
    check_problem(await take(server, job["id"]), 409, "not_waiting", job_status="concluded")
    check_problem(await take(server, await dead(server)), 409, "not_waiting", job_status="dead")


async def test_an_unknown_job_is_404_and_a_forgotten_one_is_410(server):
    check_problem(await take(server, 99), 404, "job_not_found")
    check_problem(await take(server, "x"), 404, "job_not_found")
    id = await server.enqueue()
    await server.post("/queues/default/purge?all=1")
    check_problem(await take(server, id), 410, "job_forgotten")


@pytest.mark.parametrize(
    ("option", "field"), [({"lease_for": 0}, "lease_for"), ({"consumer": ""}, "consumer")]
)
async def test_the_options_are_checked(server, option, field):
    id = await server.enqueue()
    check_problem(await take(server, id, option), 400, "invalid_field", field=field)
    for unknown in ("wait", "count", "queue"):
        check_problem(await take(server, id, {unknown: 1}), 400, "unknown_field", field=unknown)
    assert server.untouched(id)


# -- limits -----------------------------------------------------------------------------------------


async def held_back(server, id, state):
    """Checks that the job has to wait, and is left as it was."""
    before = await server.job(id)
    answer = await take(server, id)
    assert (answer.status, answer.body, answer.headers["queue-state"]) == (204, b"", state)
    assert await server.job(id) == before


@pytest.mark.parametrize("delay", [0, 60])
async def test_a_paused_queue_gives_no_job(server, delay):
    id = await server.enqueue(delay=delay)
    await server.post("/queues/default/pause")
    await held_back(server, id, "paused")
    await server.post("/queues/default/resume")
    assert (await take(server, id)).status == 200


@pytest.mark.parametrize("delay", [0, 60])
@pytest.mark.parametrize("limits", [{"max_in_progress": 1}, {"rate": {"count": 1, "per": "1h", "burst": 1}}])
@pytest.mark.parametrize("by_key", [False, True])
async def test_the_limits_of_the_queue_and_of_the_key_hold(server, by_key, limits, delay):
    await server.call("PATCH", "/queues/default", {"key_limits": limits} if by_key else limits)
    id = await server.enqueue(key="k", delay=delay)
    other = await server.enqueue(key="k", priority=1)
    assert (await take(server, other)).status == 200
    await held_back(server, id, "limited")
    await server.call("PATCH", "/queues/default", dict.fromkeys([*limits, "key_limits"]))
    assert (await take(server, id)).status == 200


async def test_a_job_that_was_taken_counts_towards_the_limits(server):
    await server.call("PATCH", "/queues/default", {"max_in_progress": 1})
    await server.enqueue()
    job = (await take(server, await server.enqueue())).json
    assert await server.dequeue() is None
    await server.post(f"/jobs/{job['id']}/conclude", said(job))
    assert await server.dequeue()


async def test_of_a_key_in_strict_order_only_the_first_job_is_taken(server):
    await server.call("PATCH", "/queues/default", {"key_limits": {"ordered": True}})
    first, second = [await server.enqueue(key="k") for _ in range(2)]
    late = await server.enqueue(key="k", delay=60)
    other = await server.enqueue(key="other")
    for id in (second, late):
        await held_back(server, id, "limited")
    assert (await take(server, other)).status == 200
    job = (await take(server, first)).json
    await held_back(server, second, "limited")
    await server.post(f"/jobs/{first}/fail", said(job, retry_in=60))
    for id in (second, late):
        await held_back(server, id, "limited")
    job = (await take(server, first)).json  # it is the one that the others wait for
    await server.post(f"/jobs/{first}/conclude", said(job))
    await held_back(server, late, "limited")
    urgent = await server.enqueue(key="k", priority=1)
    await held_back(server, second, "limited")
    job = (await take(server, urgent)).json
    await server.post(f"/jobs/{urgent}/conclude", said(job))
    job = (await take(server, second)).json
    await server.post(f"/jobs/{second}/conclude", said(job))
    assert (await take(server, late)).status == 200


async def test_a_server_that_stops_gives_no_job(server):
    id = await server.enqueue()
    server.engine.stop_waiting()
    answer = await take(server, id)
    assert (answer.status, answer.headers["queue-state"]) == (204, "stopping")


async def test_a_consumer_that_waits_is_not_given_a_job_that_was_taken(server):
    id = await server.enqueue(delay=60)
    waiting = await server.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(1)
    assert (await take(server, id)).json["id"] == id
    await later(server, 31)
    assert (await waiting.read("POST")).status == 204


async def test_a_job_that_did_not_reach_its_consumer_returns_uncharged(server):
    id = await server.enqueue()
    taken = server.engine.dequeue_job(id, DequeueRequest(()))
    server.engine.give_back(await taken if isinstance(taken, asyncio.Future) else taken)
    assert server.untouched(id)
