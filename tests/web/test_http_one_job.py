"""GET and DELETE /jobs/{id}."""

import pytest
from serving import check_problem

from jobqueue import Settings

NO_IDS = [
    "0", "2", "9" * 16, "9" * 17, "9" * 5000, "abc", "-1", "+1", "1.0", "1e0", "0x1", "%20", "1%20", "%00",
    "%FF", ".",
    "%C2%B2", "%EF%BC%91", "a%20b", "a" * 5000,
]  # fmt: skip


async def test_a_queued_job_is_shown_with_its_payload_last(server):
    await server.enqueue(type="x", payload={"a": 1})
    assert (await server.get("/jobs/1")).body == (
        b'{"id":1,"status":"queued","queue":"default","type":"x","priority":0,"attempts":0,"leases":0,'
        b'"created_at":"2027-01-15T08:00:00.000Z","payload":{"a":1}}\n'
    )


async def test_a_job_in_progress_is_shown_without_its_lease(server):
    """A client that can read a job must not be able to finish it."""
    await server.enqueue()
    job = await server.dequeue(consumer="w1")
    answer = await server.get("/jobs/1")
    assert list(answer.json) == [
        "id", "status", "queue", "type", "priority", "attempts", "leases", "created_at", "started_at",
        "lease_expires_at", "consumer", "payload",
    ]  # fmt: skip
    assert job["lease"].encode() not in answer.body
    assert (answer.json["status"], answer.json["consumer"]) == ("in_progress", "w1")


async def test_a_job_that_went_stale_shows_its_last_consumer_and_times(server):
    await server.enqueue()
    await server.dequeue(consumer="w1", lease_for=1)
    server.clock.advance("2s")
    server.engine.tick()
    job = await server.job(1)
    assert (job["status"], job["attempts"], job["leases"], job["consumer"]) == ("queued", 1, 1, "w1")
    assert "lease_expires_at" not in job
    assert "started_at" in job


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
async def test_an_id_that_was_never_given_is_404(server, method):
    await server.enqueue()
    for id in NO_IDS:
        answer = await server.call(method, f"/jobs/{id}")
        assert answer.status == 404, id
        if method != "HEAD":
            problem = check_problem(answer, 404, "job_not_found")
            assert len(answer.body) < 500, "the id is not repeated at length"
            assert problem["detail"]
    assert (await server.job(1))["status"] == "queued"


async def test_an_id_may_have_leading_zeros(server):
    await server.enqueue()
    assert (await server.get("/jobs/0000000000000001")).json["id"] == 1
    check_problem(await server.get("/jobs/00000000000000001"), 404, "job_not_found")


@pytest.mark.parametrize("settings", [Settings(first_id=1, retain="1m")], ids=["remembers a minute"])
async def test_a_finished_job_is_remembered_for_a_while_and_then_forgotten(server):
    ids = [await server.enqueue() for _ in range(3)]
    job = await server.dequeue()
    await server.post("/jobs/1/conclude", {"lease": job["lease"]})
    await server.delete("/jobs/2")
    server.clock.advance("59s")
    server.engine.tick()
    assert [(await server.job(id))["status"] for id in ids] == ["concluded", "cancelled", "queued"]
    server.clock.advance("2s")
    assert server.engine.tick() == 2
    for id in (1, 2):
        for method in ("GET", "DELETE"):
            check_problem(await server.call(method, f"/jobs/{id}"), 410, "job_forgotten")
    assert (await server.job(3))["status"] == "queued"
    check_problem(await server.get("/jobs/4"), 404, "job_not_found")


@pytest.mark.parametrize("settings", [Settings(first_id=1000)], ids=["from 1000 on"])
async def test_an_id_below_the_first_was_never_given(server):
    assert await server.enqueue() == 1000
    check_problem(await server.get("/jobs/999"), 404, "job_not_found")


# -- DELETE -----------------------------------------------------------------------------------------


async def test_a_queued_job_may_be_cancelled_twice(server):
    await server.enqueue()
    await server.enqueue()
    first = await server.delete("/jobs/1")
    assert (first.status, first.json["status"]) == (200, "cancelled")
    assert "payload" not in first.json
    assert "finished_at" in first.json
    server.clock.advance("1s")
    again = await server.delete("/jobs/1")
    assert (again.status, again.body) == (200, first.body)
    assert (await server.dequeue())["id"] == 2


async def test_a_concluded_job_cannot_be_cancelled(server):
    await server.enqueue()
    await server.dequeue()
    await server.post("/jobs/1/conclude")
    for _ in range(2):
        check_problem(await server.delete("/jobs/1"), 409, "job_finished", job_status="concluded")


async def test_a_cancel_of_a_job_in_progress_asks_its_consumer_to_stop(server):
    await server.enqueue()
    job = await server.dequeue(lease_for="1m")
    for _ in range(2):
        answer = await server.delete("/jobs/1")
        assert answer.status == 202
        assert (answer.json["status"], answer.json["cancel_requested"]) == ("in_progress", True)
        assert "lease" not in answer.json
        assert "payload" not in answer.json
    assert (await server.job(1))["cancel_requested"] is True
    beat = await server.post("/jobs/1/heartbeat", {"lease": job["lease"]})
    assert (beat.status, beat.json["cancel_requested"]) == (200, True)
    server.clock.advance("61s")
    server.engine.tick()
    job = await server.job(1)
    assert (job["status"], job["attempts"]) == ("cancelled", 1)
    assert await server.dequeue() is None
    assert (await server.delete("/jobs/1")).status == 200


async def test_a_cancelled_job_is_not_delivered_to_a_waiting_consumer(server):
    await server.enqueue()
    await server.dequeue(lease_for=1)
    await server.delete("/jobs/1")
    client = await server.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(1)
    server.clock.advance("2s")
    server.engine.tick()
    await server.waiting(1)
    id = await server.enqueue()
    assert (await client.read()).json["id"] == id
