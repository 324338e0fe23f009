"""`max_run_for`: the longest an attempt may take, however often its consumer sends a heartbeat."""

import pytest
from leasing import later, leased, said
from serving import check_problem

from jobqueue import Settings


async def beat(server, job, **more):
    return await server.post(f"/jobs/{job['id']}/heartbeat", said(job, **more))


async def line(server, job):
    """Returns the last line of the history of a job."""
    return (await server.job(job["id"]))["history"][-1]


async def test_heartbeats_go_no_further_than_max_run_for(server):
    job = await leased(server, {"max_run_for": "10m"}, lease_for="4m")
    assert (job["lease_for"], job["max_run_for"]) == (240, 600)
    lengths = []
    for _ in range(3):
        await later(server, "3m")
        lengths.append((await beat(server, job)).json["lease_for"])
    assert lengths == [240, 240, 60]
    answer = await beat(server, job, lease_for="1h")
    assert (answer.json["lease_for"], answer.json["lease_expires_at"]) == (60, "2027-01-15T08:10:00.000Z")
    await later(server, 59)
    assert (await server.job(1))["status"] == "in_progress"
    await later(server, 1)
    shown = await server.job(1)
    assert (shown["status"], shown["attempts"]) == ("queued", 1)
    assert shown["history"][-1]["outcome"] == "stale"
    assert shown["history"][-1]["reason"] == "max_run_for"
    for verb in ("heartbeat", "conclude", "fail", "release"):
        check_problem(await server.post(f"/jobs/1/{verb}", said(job)), 409, "lease_lost")


@pytest.mark.parametrize("settings", [Settings(first_id=1, lease_max=86_400)])
async def test_a_longer_lease_is_cut(server):
    job = await leased(server, {"max_run_for": 60}, lease_for="1h")
    assert job["lease_for"] == 60
    assert (await beat(server, job, lease_for=5)).json["lease_for"] == 5
    assert (await beat(server, job)).json["lease_for"] == 60  # as it was dequeued for, and cut again


async def test_a_lease_that_expired_before_the_end_has_no_reason(server):
    job = await leased(server, {"max_run_for": "10m"}, lease_for=60)
    await later(server, 60)
    assert "reason" not in await line(server, job)


async def test_each_attempt_has_the_whole_time(server):
    job = await leased(server, {"max_run_for": 60}, lease_for=40)
    await later(server, 30)
    await server.post("/jobs/1/release", said(job))
    job = await server.dequeue(lease_for=50)
    await later(server, 40)
    assert (await beat(server, job)).json["lease_for"] == 20


async def test_a_queue_has_a_default_and_a_job_its_own(server):
    await server.call("PATCH", "/queues/default", {"max_run_for": "1m"})
    assert (await server.get("/queues/default")).json["settings"] == {"max_run_for": 60}
    assert (await leased(server))["lease_for"] == 60
    assert (await leased(server, {"max_run_for": 30}))["lease_for"] == 30
    assert (await leased(server, {"max_run_for": "2m"}))["lease_for"] == 120
    await server.call("PATCH", "/queues/default", {"max_run_for": None})
    assert (await leased(server))["lease_for"] == 300


async def test_a_change_of_the_queue_leaves_current_leases_alone(server):
    job = await leased(server)
    await server.call("PATCH", "/queues/default", {"max_run_for": 60})
    assert (await beat(server, job, lease_for="1h")).json["lease_for"] == 3600


async def test_a_waiting_job_is_changed(server):
    id = await server.enqueue(max_run_for="1h")
    for value, shown in (("2m", 120), (None, None)):
        answer = await server.call("PATCH", f"/jobs/{id}", {"max_run_for": value})
        assert (answer.status, answer.json.get("max_run_for")) == (200, shown)


async def test_after_the_second_overrun_in_a_row_a_job_rests_and_after_the_last_attempt_it_is_dead(server):
    job = await leased(server, {"max_run_for": 60, "max_attempts": 3, "backoff": ["1m"]})
    await later(server, 60)
    job = await server.dequeue()
    await later(server, 60)
    assert (await server.job(1))["status"] == "scheduled"
    await later(server, "2m")
    job = await server.dequeue()
    await later(server, 60)
    shown = await server.job(job["id"])
    assert (shown["status"], shown["reason"]) == ("dead", "attempts")
    assert [each["reason"] for each in shown["history"]] == ["max_run_for"] * 3


async def test_a_lost_stream_is_no_overrun(server):
    job = await leased(server, {"max_run_for": 60})
    held = server.engine.get(job["id"])
    server.engine.lose([(held, held.lease)])
    assert "reason" not in await line(server, job)


@pytest.mark.parametrize("value", [0, 0.999, "367d", -1, "x", True, []])
async def test_a_bad_length_is_refused(server, value):
    answer = await server.post("/jobs/enqueue", {"type": "x", "max_run_for": value})
    check_problem(answer, 400, "invalid_field", field="max_run_for")
    answer = await server.call("PATCH", "/queues/q", {"max_run_for": value})
    check_problem(answer, 400, "invalid_field", field="max_run_for")


async def test_an_import_keeps_the_reason(server):
    job = await leased(server, {"queue": "q", "max_run_for": 60})
    for _ in range(2):
        await later(server, 60)
        await server.dequeue(queue="q")
        await later(server, "1h")
    before = (await server.job(job["id"]))["history"]
    exported = (await server.get("/queues/q/export")).body
    await server.post("/queues/q/purge?status=queued,scheduled")
    line = exported.replace(b'"origin":"', b'"origin":"elsewhere-')
    assert (await server.post("/import", line)).json["imported"] == 1
    [again] = (await server.get("/jobs?queue=q")).json["jobs"]
    assert again["max_run_for"] == 60
    assert (await server.job(again["id"]))["history"] == before
