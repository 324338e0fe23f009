"""Times of a job: when it is ready, when it expires, how long it is leased and remembered."""

import pytest
from leasing import dead, later, leased, said, watched
from serving import check_problem, until

from jobqueue import Settings

# -- delay and run_at -------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [90, "90s", "90", "1m30s", 90.0, "90000ms"])
async def test_a_delayed_job_is_scheduled_and_then_queued(server, delay):
    answer = await server.post("/jobs/enqueue", {"type": "x", "delay": delay})
    assert answer.status == 201
    assert answer.headers["location"] == "/jobs/1"
    assert answer.body == (
        b'{"id":1,"status":"scheduled","queue":"default","type":"x","priority":0,"attempts":0,"leases":0,'
        b'"created_at":"2027-01-15T08:00:00.000Z","run_at":"2027-01-15T08:01:30.000Z"}\n'
    )
    assert (await server.get("/queues/default")).json["jobs"]["scheduled"] == 1
    await later(server, "89s")
    assert await server.dequeue() is None
    await later(server, "2s")
    job = await server.dequeue()
    assert (job["id"], job["attempts"]) == (1, 1)
    assert "run_at" not in job


async def test_a_delayed_job_goes_to_a_waiting_consumer(server):
    client = await server.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(1)
    id = await server.enqueue(delay=10)
    await server.waiting(1)
    await later(server, 11)
    assert (await client.read()).json["id"] == id


async def test_a_job_gets_its_place_when_it_is_first_ready(server):
    await server.enqueue(type="first", delay=10)
    await server.enqueue(type="second")
    await later(server, 11)
    await server.enqueue(type="third")
    assert [(await server.dequeue())["type"] for _ in range(3)] == ["second", "first", "third"]


@pytest.mark.parametrize(
    "run_at",
    ["2027-01-15T10:00:00+01:00", "2027-01-15T09:00:00Z", "2027-01-15t09:00:00.000z",
     "2027-01-15T03:30:00-05:30", "2027-01-15T10:00:00.000987654+01", "2027-01-15T09:00Z",
     "2027-01-15T08:00:00,000999-0100"],
)  # fmt: skip
async def test_an_instant_needs_an_offset(server, run_at):
    answer = await server.post("/jobs/enqueue", {"type": "x", "run_at": run_at})
    assert (answer.status, answer.json["status"]) == (201, "scheduled")
    assert answer.json["run_at"] == "2027-01-15T09:00:00.000Z"
    await later(server, "59m")
    assert await server.dequeue() is None
    await later(server, "2m")
    assert (await server.dequeue())["id"] == 1


async def test_a_space_before_the_offset_in_a_query_is_read_as_a_plus(server):
    for run_at in ("2027-01-15T10:00:00+01:00", "2027-01-15T10:00:00%2B01:00", "2027-01-15T10:00:00%2b01:00",
                   "2027-01-15T10:00:00.5+01:00", "2027-01-15t10:00:00%2001:00",
                   "2027-01-15T10:00:00.123456789+01", "2027-01-15T10:00:00,5+0100"):  # fmt: skip
        answer = await server.post(f"/jobs/enqueue?type=x&run_at={run_at}")
        assert answer.status == 201, answer
        assert answer.json["run_at"].startswith("2027-01-15T09:00:00.")


async def test_nanoseconds_are_accepted_wherever_an_instant_is(server):
    nanos, shown = "2027-01-15T08:00:01.123456789Z", "2027-01-15T08:00:01.123Z"
    for path, body in [
        ("/jobs/enqueue", {"type": "x", "run_at": nanos}), (f"/jobs/enqueue?type=x&run_at={nanos}", None),
        (f"/queues/default/enqueue?raw=1&run_at={nanos}", b"x"),
    ]:  # fmt: skip
        answer = await server.post(path, body)
        assert (answer.status, answer.json["run_at"]) == (201, shown)
    id = await server.enqueue(delay=1000)
    assert (await server.call("PATCH", f"/jobs/{id}", {"run_at": nanos})).json["run_at"] == shown
    before = nanos.replace("08:00:01", "07:59:59")
    attempt = {"attempt": 1, "started_at": before, "ended_at": before, "outcome": "stale"}
    bring = {"type": "x", "run_at": nanos, "created_at": before, "expires_at": nanos, "history": [attempt]}
    answer = await server.call("PUT", "/import", bring)
    assert answer.json == {"imported": 1, "known": 0}
    job = await server.job(id + 1)
    assert (job["run_at"], job["expires_at"]) == (shown, shown)
    assert {job["created_at"], job["history"][0]["started_at"], job["history"][0]["ended_at"]} == {
        "2027-01-15T07:59:59.123Z"
    }
    buried = {"type": "x", "status": "dead", "reason": "attempts", "finished_at": before}
    await server.call("PUT", "/import", buried)
    assert (await server.job(id + 2))["finished_at"] == "2027-01-15T07:59:59.123Z"


async def test_a_time_in_the_past_means_at_once(server):
    for job in ({"run_at": "2027-01-15T07:59:59Z"}, {"run_at": "1970-01-01T00:00:00Z"}, {"delay": 0},
                {"run_at": "2027-01-15T08:00:00Z"}, {"delay": "0s"}):  # fmt: skip
        answer = await server.post("/jobs/enqueue", {"type": "x", **job})
        assert (answer.status, answer.json["status"]) == (201, "queued")
        assert "run_at" not in answer.json


async def test_delay_and_run_at_exclude_each_other(server):
    answer = await server.post("/jobs/enqueue", {"type": "x", "delay": 5, "run_at": "2027-01-15T09:00:00Z"})
    problem = check_problem(answer, 400, "invalid_field", field="delay")
    assert "run_at" in problem["detail"]


async def test_a_bare_number_is_refused_as_an_instant_with_the_reason(server):
    for path, body in [
        ("/jobs/enqueue", {"type": "x", "run_at": 1800000000}),
        ("/jobs/enqueue", {"type": "x", "run_at": "1800000000"}),
        ("/jobs/enqueue", {"type": "x", "run_at": "1800000000.5"}),
        ("/jobs/enqueue?type=x&run_at=1800000000", None),
    ]:
        problem = check_problem(await server.post(path, body), 400, "invalid_field", field="run_at")
        assert "bare number" in problem["detail"]
        assert "offset" in problem["detail"]


async def test_an_invalid_instant_is_refused(server):
    for run_at in (
        "", "now", "2027-01-15", "2027-01-15T09:00:00", "2027-01-15 09:00:00Z", "2027-02-30T00:00:00Z",
        "2027-01-15T25:00:00Z", "2027-01-15T09:00:00+25:00", "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59Z", True, [], {}, "x" * 1000,
    ):  # fmt: skip
        answer = await server.post("/jobs/enqueue", {"type": "x", "run_at": run_at})
        check_problem(answer, 400, "invalid_field", field="run_at")


async def test_more_than_a_year_ahead_is_refused(server):
    for job in ({"run_at": "2028-01-17T08:00:00Z"}, {"run_at": "9999-12-31T23:59:59Z"}, {"delay": "367d"}):
        [field] = job
        problem = check_problem(
            await server.post("/jobs/enqueue", {"type": "x", **job}), 400, "invalid_field", field=field
        )
        assert "year" in problem["detail"] or "seconds" in problem["detail"]
    for job in ({"run_at": "2028-01-15T08:00:00Z"}, {"delay": "365d"}):
        assert (await server.post("/jobs/enqueue", {"type": "x", **job})).status == 201


async def test_run_at_follows_the_wall_clock_and_delay_does_not(server):
    await server.enqueue(run_at="2027-01-15T09:00:00Z")
    await server.enqueue(delay="1h")
    server.clock.wall_jump(3601)
    server.engine.tick()
    job = await server.dequeue()
    assert job["id"] == 1
    await server.post("/jobs/1/conclude", said(job))
    assert await server.dequeue() is None
    server.clock.wall_jump(-7200)
    await later(server, "61m")
    assert (await server.dequeue())["id"] == 2


async def test_a_scheduled_job_may_be_cancelled(server):
    id = await server.enqueue(delay=5)
    assert (await server.delete(f"/jobs/{id}")).json["status"] == "cancelled"
    await later(server, 6)
    assert await server.dequeue() is None


# -- expiry -----------------------------------------------------------------------------------------


async def test_a_job_that_is_not_started_in_time_is_dead(server):
    answer = await server.post("/jobs/enqueue", {"type": "x", "expires_in": "1m"})
    assert (answer.status, answer.json["status"]) == (201, "queued")
    assert answer.json["expires_at"] == "2027-01-15T08:01:00.000Z"
    await later(server, "59s")
    assert (await server.job(1))["status"] == "queued"
    await later(server, "2s")
    job = await server.job(1)
    assert (job["status"], job["reason"], job["attempts"]) == ("dead", "expired", 0)
    assert job["finished_at"] == "2027-01-15T08:01:01.000Z"
    assert await server.dequeue() is None
    totals = (await server.get("/queues/default")).json["totals"]
    assert (totals["dead"], totals["failed"], totals["stale"]) == (1, 0, 0)


async def test_a_job_started_in_time_is_not_expired(server):
    job = await leased(server, {"expires_in": 60})
    assert job["expires_at"] == "2027-01-15T08:01:00.000Z"
    await later(server, "2m")
    assert (await server.post("/jobs/1/conclude", said(job))).json["status"] == "concluded"


@pytest.mark.parametrize("back", ["release", "fail"])
async def test_a_job_expires_also_when_it_waits_again(server, back):
    job = await leased(server, {"expires_in": 60})
    await server.post(f"/jobs/1/{back}", said(job, **({"retry_in": 600} if back == "fail" else {})))
    await later(server, "61s")
    assert [(await server.job(1))[name] for name in ("status", "reason")] == ["dead", "expired"]


async def test_a_job_expires_while_it_is_scheduled(server):
    await server.enqueue(expires_in=60, delay=600)
    await later(server, "61s")
    assert (await server.job(1))["reason"] == "expired"


# -- the length of a lease --------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [Settings(lease="3m", first_id=1)], ids=["3 minutes"])
async def test_the_lease_is_that_of_the_dequeue_then_the_job_then_the_queue_then_the_setting(server):
    await server.call("PATCH", "/queues/q", {"lease_for": "2m"})
    for queue, job, dequeue, length in [
        ("q", 40, 50, 50), ("q", 40, None, 40), ("q", None, None, 120), ("default", None, None, 180),
        ("default", "40s", None, 40), ("default", None, "50s", 50),
    ]:  # fmt: skip
        id = await server.enqueue(queue=queue, lease_for=job)
        got = await server.dequeue(queue=queue, lease_for=dequeue)
        assert (got["id"], got["lease_for"]) == (id, length)
        assert (await server.job(id)).get("lease_for") == (int(str(job).rstrip("s")) if job else None)
        beat = await server.post(f"/jobs/{id}/heartbeat", said(got))
        assert beat.json["lease_for"] == length
        await server.post(f"/jobs/{id}/conclude", said(got))


async def test_a_job_with_its_own_lease_length_goes_stale_after_it(server):
    await leased(server, {"lease_for": "2s"})
    await later(server, 1)
    assert (await server.job(1))["status"] == "in_progress"
    await later(server, 2)
    assert (await server.job(1))["status"] == "queued"


# -- how long it is remembered ----------------------------------------------------------------------


async def test_a_finished_job_is_remembered_for_its_own_retention(server):
    for retain_for in ("1m", "2h"):
        job = await leased(server, {"retain_for": retain_for})
        await server.post(f"/jobs/{job['id']}/conclude", said(job))
    await later(server, "59s")
    assert [(await server.job(id))["retain_for"] for id in (1, 2)] == [60, 7200]
    await later(server, "2s")
    check_problem(await server.get("/jobs/1"), 410, "job_forgotten")
    await later(server, "90m")
    assert (await server.job(2))["status"] == "concluded"
    await later(server, "30m")
    check_problem(await server.get("/jobs/2"), 410, "job_forgotten")


async def test_a_job_with_retention_zero_is_forgotten_at_once(server):
    job = await leased(server, {"retain_for": 0})
    answer = await server.post("/jobs/1/conclude", said(job, result=5))
    assert (answer.status, answer.json["status"], answer.json["result"]) == (200, "concluded", 5)
    check_problem(await server.get("/jobs/1"), 410, "job_forgotten")
    check_problem(await server.post("/jobs/1/conclude", said(job)), 410, "job_forgotten")
    id = await server.enqueue(retain_for="0s")
    assert (await server.delete(f"/jobs/{id}")).json["status"] == "cancelled"
    check_problem(await server.delete(f"/jobs/{id}"), 410, "job_forgotten")
    id = await dead(server, retain_for=0)
    check_problem(await server.get(f"/jobs/{id}"), 410, "job_forgotten")


async def test_the_retention_of_the_queue_applies_to_jobs_without_their_own(server):
    await server.call("PATCH", "/queues/q", {"retain_for": "10s"})
    for job in ({"queue": "q"}, {"queue": "q", "retain_for": "1m"}, {}):
        got = await leased(server, job)
        await server.post(f"/jobs/{got['id']}/conclude", said(got))
    await later(server, 11)
    assert [(await server.get(f"/jobs/{id}")).status for id in (1, 2, 3)] == [410, 200, 200]


# -- waiting for the outcome ------------------------------------------------------------------------


async def test_a_finished_job_is_shown_at_once(server):
    job = await leased(server)
    await server.post("/jobs/1/conclude", said(job, result={"n": 1}))
    answer = await server.get("/jobs/1?wait=30")
    assert (answer.status, answer.json["result"]) == (200, {"n": 1})
    assert answer.body == (await server.get("/jobs/1")).body
    for query in ("", "?wait=0", "?wait=0s"):
        assert (await server.get("/jobs/1" + query)).status == 200


@pytest.mark.parametrize("end", ["concluded", "dead", "cancelled", "forgotten at once", "expired"])
async def test_a_client_that_waits_for_the_outcome_gets_it_at_once(server, end):
    options = {"forgotten at once": {"retain_for": 0}, "expired": {"expires_in": 5}}.get(end, {})
    await server.enqueue(payload={"a": 1}, **options)
    clients = [await watched(server, 1) for _ in range(2)]
    if end == "expired":
        await later(server, 6)
    elif end == "cancelled":
        await server.delete("/jobs/1")
    else:
        job = await server.dequeue()
        if end == "dead":
            await server.post("/jobs/1/fail", said(job, error="e", retry=False))
        else:
            await server.post("/jobs/1/conclude", said(job, result=7))
    status = {"expired": "dead", "forgotten at once": "concluded"}.get(end, end)
    for client in clients:
        answer = await client.read()
        assert (answer.status, answer.json["status"]) == (200, status)
        assert answer.json["payload"] == {"a": 1}
        assert "finished_at" in answer.json
        assert answer.headers["cache-control"] == "no-store"
        assert "etag" in answer.headers
        assert answer.json.get("result") == (7 if status == "concluded" else None)
    assert server.engine._queue.state.outcomes.count == 0


async def test_a_wait_for_the_outcome_that_ends_returns_the_job_as_it_is(server):
    await server.enqueue()
    client = await watched(server, 1, "10s")
    await server.dequeue(consumer="w1", lease_for="1m")
    await later(server, "9s")
    assert server.engine._queue.state.outcomes.count == 1
    await later(server, "2s")
    answer = await client.read()
    assert (answer.status, answer.json["status"], answer.json["consumer"]) == (200, "in_progress", "w1")
    assert "lease" not in answer.json


async def test_a_retry_is_no_outcome(server):
    await server.enqueue()
    client = await watched(server, 1)
    await server.post("/jobs/1/fail", said(await server.dequeue(), retry_in=1))
    await later(server, 2)
    await server.post("/jobs/1/release", said(await server.dequeue()))
    assert server.engine._queue.state.outcomes.count == 1
    await server.post("/jobs/1/conclude", said(await server.dequeue()))
    assert (await client.read()).json["status"] == "concluded"


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_client_that_hangs_up_waits_no_longer_and_the_job_goes_on(server, leave):
    await server.enqueue()
    client = await watched(server, 1)
    stays = await watched(server, 1)
    getattr(client, leave)()
    await until(lambda: server.engine._queue.state.outcomes.count == 1)
    job = await server.dequeue()
    await server.post("/jobs/1/conclude", said(job))
    assert (await stays.read()).json["status"] == "concluded"


async def test_when_the_server_stops_a_waiting_client_gets_the_job_as_it_is(server):
    await server.enqueue()
    client = await watched(server, 1)
    server.stop_waiting()
    answer = await client.read()
    assert (answer.status, answer.json["status"]) == (200, "queued")
    client = await server.connect()
    assert (await client.call("GET", "/jobs/1?wait=30")).json["status"] == "queued"


async def test_a_job_that_is_purged_during_the_wait_is_forgotten(server):
    await server.enqueue()
    client = await watched(server, 1)
    await server.post("/queues/default/purge?all=1")
    check_problem(await client.read(), 410, "job_forgotten")


async def test_a_job_that_goes_on_to_a_dead_letter_queue_is_not_finished(server):
    await server.call("PATCH", "/queues/default", {"dead_letter": "letters"})
    await server.enqueue()
    client = await watched(server, 1)
    await server.post("/jobs/1/fail", said(await server.dequeue(), retry=False))
    await server.post("/jobs/1/conclude", said(await server.dequeue(queue="letters")))
    assert (await client.read()).json["status"] == "concluded"


async def test_the_wait_for_an_outcome_is_limited(server):
    await server.enqueue()
    for wait in ("61", "-1", "x", "1h", ""):
        problem = check_problem(await server.get(f"/jobs/1?wait={wait}"), 400, "invalid_field", field="wait")
        assert "wait" in problem["detail"]
    problem = check_problem(await server.get("/jobs/1?wait=61"), 400, "invalid_field", limit=60)
    assert problem["setting"] == "JOBQUEUE_WAIT_MAX"
    check_problem(await server.get("/jobs/2?wait=30"), 404, "job_not_found")
