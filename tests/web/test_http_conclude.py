"""POST /jobs/{id}/conclude and heartbeat; and who may use a lease, for all four verbs."""

import itertools

import pytest
from serving import check_problem

from jobqueue import Settings

STALE = {"lease": "A" * 16}
VERBS = ["conclude", "heartbeat", "release", "fail"]


async def leased(server, **options):
    await server.enqueue(payload={"n": 1})
    return await server.dequeue(**options)


async def stale(server, **options):
    """Returns a job as it was leased, after its lease went stale."""
    job = await leased(server, lease_for=1, **options)
    server.clock.advance("2s")
    assert server.engine.tick() == 1
    return job


def said(job):
    return {"lease": job["lease"]}


# -- conclude ---------------------------------------------------------------------------------------


async def test_a_conclude_returns_the_job_without_its_payload_and_its_lease(server):
    job = await leased(server, consumer="w1")
    server.clock.advance("1.5s")
    answer = await server.post(f"/jobs/{job['id']}/conclude", {**said(job), "result": {"sent": True}})
    assert answer.status == 200
    assert answer.body == (
        b'{"id":1,"status":"concluded","queue":"default","type":"x","priority":0,"attempts":1,"leases":1,'
        b'"created_at":"2027-01-15T08:00:00.000Z","started_at":"2027-01-15T08:00:00.000Z",'
        b'"finished_at":"2027-01-15T08:00:01.500Z","consumer":"w1","result":{"sent":true}}\n'
    )
    shown = await server.job(1)
    assert list(shown)[-3:] == ["history", "result", "payload"]
    attempt = {
        "attempt": 1, "consumer": "w1", "started_at": "2027-01-15T08:00:00.000Z",
        "ended_at": "2027-01-15T08:00:01.500Z", "outcome": "concluded",
    }  # fmt: skip
    assert shown == {**answer.json, "history": [attempt], "payload": {"n": 1}}


async def test_the_lease_may_be_sent_in_body_query_or_header(server):
    for in_body, in_query, in_header in [
        ("lease", 0, 0), ("LEASE", 0, 0), (None, 1, 0), (None, 0, 1), ("lease", 1, 0), (None, 1, 1),
        ("Lease", 1, 1),
    ]:  # fmt: skip
        job = await leased(server)
        lease = job["lease"]
        answer = await server.post(
            f"/jobs/{job['id']}/conclude" + f"?lease={lease}" * in_query,
            {in_body: lease} if in_body else None,
            {"Job-Lease": lease} if in_header else {},
        )
        assert (answer.status, answer.json["status"]) == (200, "concluded")


async def test_two_different_leases_in_one_request_are_refused(server):
    job = await leased(server)
    for path, body, headers in [
        (f"?lease={job['lease']}", STALE, {}), (f"?lease={job['lease']}", None, {"Job-Lease": "x"}),
        ("", said(job), {"Job-Lease": "x"}), (f"?lease={job['lease']}&lease=x", None, {}),
    ]:  # fmt: skip
        answer = await server.post(f"/jobs/1/conclude{path}", body, headers)
        check_problem(answer, 400, "invalid_field", field="lease")
    assert (await server.job(1))["status"] == "in_progress"


async def test_a_result_is_kept_byte_for_byte_and_shown(server):
    results = ["null", "false", "0", "1e999", '""', "[]", "{}", '{"a":[1, 2]}', '"é ✓"', "[1,\n2]"]
    forms = ['{{"lease":"{}","result":{}}}', '{{"Lease":"{}","Result":{}}}']
    for result, form in itertools.product(results, forms):
        job = await leased(server)
        answer = await server.post(f"/jobs/{job['id']}/conclude", form.format(job["lease"], result))
        expected = f'"result":{result.replace(chr(10), " ")}'.encode()
        assert answer.body.endswith(expected + b"}\n"), answer
        shown = (await server.get(f"/jobs/{job['id']}")).body
        assert shown.endswith(expected + b',"payload":{"n":1}}\n')


async def test_without_a_result_none_is_shown(server):
    for body in ({}, None, ""):
        job = await leased(server)
        answer = await server.post(f"/jobs/{job['id']}/conclude?lease={job['lease']}", body)
        assert "result" not in answer.json
        assert "result" not in await server.job(job["id"])


async def test_a_result_that_is_too_large_is_refused(server):
    job = await leased(server)
    fits = {**said(job), "result": "x" * (256 * 1024 - 2)}
    answer = await server.post("/jobs/1/conclude", {**fits, "result": fits["result"] + "x"})
    check_problem(
        answer, 413, "body_too_large", field="result", limit=256 * 1024, setting="JOBQUEUE_MAX_RESULT"
    )
    assert (await server.job(1))["status"] == "in_progress"
    assert (await server.post("/jobs/1/conclude", fits)).status == 200
    assert len((await server.job(1))["result"]) == 256 * 1024 - 2


async def test_a_result_does_not_belong_in_the_query(server):
    job = await leased(server)
    answer = await server.post(f"/jobs/1/conclude?lease={job['lease']}&result=1")
    check_problem(answer, 400, "invalid_field", field="result")


async def test_a_job_asked_to_be_cancelled_may_still_be_concluded(server):
    job = await leased(server)
    assert (await server.delete("/jobs/1")).status == 202
    answer = await server.post("/jobs/1/conclude", said(job))
    assert (answer.status, answer.json["status"]) == (200, "concluded")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_bad_body_is_refused(server, verb):
    await leased(server)
    for body, code, field in [
        ({"lease": 7}, "invalid_field", "lease"), ({"lease": ""}, "invalid_field", "lease"),
        ({"lease": "x" * 65}, "invalid_field", "lease"), ({"lease": ["x"]}, "invalid_field", "lease"),
        ({"consumer": ""}, "invalid_field", "consumer"), ({"consumer": 1}, "invalid_field", "consumer"),
        ({"consumer": "a\n"}, "invalid_field", "consumer"), ({"leas": "x"}, "unknown_field", "leas"),
        ({"id": 1}, "unknown_field", "id"), ([], "invalid_field", None), ("[{}]", "invalid_field", None),
        ("7", "invalid_field", None), ("null", "invalid_field", None), ("{", "invalid_json", None),
    ]:  # fmt: skip
        check_problem(await server.post(f"/jobs/1/{verb}", body), 400, code, field=field)
    assert (await server.job(1))["status"] == "in_progress"


# -- who may: the table, row by row -----------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
async def test_row_1_an_id_never_given_is_404_and_a_forgotten_one_410(server, verb):
    for id in (
        "1",
        "999",
        "0",
        "9" * 16,
        "9" * 17,
        "9" * 5000,
        "abc",
        "1.0",
        "-1",
        "+1",
        "1e3",
        "%00",
        "%C2%B2",
    ):
        check_problem(await server.post(f"/jobs/{id}/{verb}", STALE), 404, "job_not_found")
    job = await leased(server)
    await server.post("/jobs/1/conclude", said(job))
    server.clock.advance("1h")
    server.clock.advance("1s")
    server.engine.tick()
    check_problem(await server.post(f"/jobs/1/{verb}", said(job)), 410, "job_forgotten")


@pytest.mark.parametrize("verb", VERBS)
async def test_row_2_the_current_lease_is_enough_whatever_the_consumer(server, verb):
    for consumer in (None, "w1", "somebody else"):
        job = await leased(server, consumer="w1")
        body = {**said(job), "consumer": consumer}
        assert (await server.post(f"/jobs/{job['id']}/{verb}", body)).status == 200
        assert (await server.job(job["id"]))["consumer"] == "w1"


async def test_row_3_the_lease_that_concluded_the_job_may_conclude_again(server):
    job = await leased(server)
    first = await server.post("/jobs/1/conclude", {**said(job), "result": 1})
    server.clock.advance("5s")
    for body in ({**said(job), "result": 2}, said(job), {**said(job), "consumer": "x"}):
        again = await server.post("/jobs/1/conclude", body)
        assert (again.status, again.body) == (200, first.body)


async def test_row_3_does_not_hold_for_another_verb(server):
    job = await leased(server)
    await server.post("/jobs/1/conclude", said(job))
    check_problem(
        await server.post("/jobs/1/heartbeat", said(job)),
        409,
        "lease_lost",
        job_status="concluded",
        attempts=1,
    )


@pytest.mark.parametrize("verb", VERBS)
async def test_row_4_any_other_lease_token_is_lease_lost(server, verb):
    job = await stale(server, consumer="w1")
    path = f"/jobs/1/{verb}"
    problem = check_problem(
        await server.post(path, said(job)), 409, "lease_lost", job_status="queued", attempts=1
    )
    assert "lease" in problem["detail"]
    again = await server.dequeue(consumer="w1")
    for body in (said(job), STALE, {**said(job), "consumer": "w1"}):
        check_problem(await server.post(path, body), 409, "lease_lost", job_status="in_progress", attempts=2)
    await server.post("/jobs/1/conclude", said(again))
    check_problem(await server.post(path, said(job)), 409, "lease_lost", job_status="concluded", attempts=2)
    await server.enqueue()
    check_problem(
        await server.post(f"/jobs/2/{verb}", STALE), 409, "lease_lost", job_status="queued", attempts=0
    )
    await server.delete("/jobs/2")
    check_problem(
        await server.post(f"/jobs/2/{verb}", STALE), 409, "lease_lost", job_status="cancelled", attempts=0
    )


async def test_row_4_the_lease_of_a_job_cancelled_when_stale_is_lost(server):
    job = await leased(server, lease_for=1)
    await server.delete("/jobs/1")
    server.clock.advance("2s")
    server.engine.tick()
    for verb in VERBS:
        check_problem(
            await server.post(f"/jobs/1/{verb}", said(job)),
            409,
            "lease_lost",
            job_status="cancelled",
            attempts=1,
        )


async def test_row_5_the_consumer_that_concluded_may_conclude_again_without_the_lease(server):
    job = await leased(server, consumer="w1")
    first = await server.post("/jobs/1/conclude", {**said(job), "result": 1})
    again = await server.post("/jobs/1/conclude", {"consumer": "w1", "result": 2})
    assert (again.status, again.body) == (200, first.body)
    again = await server.post("/jobs/1/conclude", None, {"Queue-Consumer": "w1"})
    assert (again.status, again.body) == (200, first.body)


@pytest.mark.parametrize("verb", VERBS)
async def test_row_6_without_a_lease_the_job_must_be_in_progress(server, verb):
    await server.enqueue()
    path = f"/jobs/1/{verb}"
    check_problem(await server.post(path), 409, "not_in_progress", job_status="queued", attempts=0)
    job = await server.dequeue(consumer="w1")
    await server.post("/jobs/1/conclude", said(job))
    for body in ({}, {"consumer": "w2"}):
        check_problem(await server.post(path, body), 409, "not_in_progress", job_status="concluded")
    if verb != "conclude":
        check_problem(
            await server.post(path, {"consumer": "w1"}), 409, "not_in_progress", job_status="concluded"
        )
    await server.enqueue()
    await server.delete("/jobs/2")
    check_problem(await server.post(f"/jobs/2/{verb}"), 409, "not_in_progress", job_status="cancelled")


async def test_row_6_a_consumer_whose_lease_ended_otherwise_did_not_finish_it(server):
    await stale(server, consumer="w1")
    check_problem(
        await server.post("/jobs/1/conclude", {"consumer": "w1"}), 409, "not_in_progress", job_status="queued"
    )


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("settings", [Settings(require_lease=True, first_id=1)], ids=["lease required"])
async def test_row_7_a_lease_may_be_required(server, verb):
    job = await leased(server, consumer="w1")
    for body in (None, {"consumer": "w1"}, {"lease": None}):
        problem = check_problem(
            await server.post(f"/jobs/1/{verb}", body), 400, "lease_required", field="lease",
            setting="JOBQUEUE_REQUIRE_LEASE",
        )  # fmt: skip
        assert "lease" in problem["detail"]
    assert (await server.post(f"/jobs/1/{verb}", said(job))).status == 200


@pytest.mark.parametrize("settings", [Settings(require_lease=True, first_id=1)], ids=["lease required"])
async def test_rows_5_and_6_come_before_row_7(server):
    job = await leased(server, consumer="w1")
    await server.post("/jobs/1/conclude", said(job))
    assert (await server.post("/jobs/1/conclude", {"consumer": "w1"})).status == 200
    check_problem(await server.post("/jobs/1/conclude"), 409, "not_in_progress")


@pytest.mark.parametrize("verb", VERBS)
async def test_row_8_a_job_leased_under_a_name_needs_that_name(server, verb):
    await leased(server, consumer="w1")
    for body in (None, {}, {"consumer": "w2"}, {"consumer": "W1"}):
        check_problem(
            await server.post(f"/jobs/1/{verb}", body), 403, "not_the_consumer", job_status="in_progress"
        )
    check_problem(
        await server.post(f"/jobs/1/{verb}", None, {"Queue-Consumer": "w2"}), 403, "not_the_consumer"
    )
    assert (await server.post(f"/jobs/1/{verb}", {"consumer": "w1"})).status == 200


@pytest.mark.parametrize("verb", VERBS)
async def test_row_8_the_name_may_come_in_a_header(server, verb):
    for header in ("Queue-Consumer", "X-Queue-Consumer", "QUEUE_CONSUMER"):
        job = await leased(server, consumer="w1")
        assert (await server.post(f"/jobs/{job['id']}/{verb}", None, {header: "w1"})).status == 200


@pytest.mark.parametrize("verb", VERBS)
async def test_row_9_a_job_leased_without_a_name_may_be_concluded_by_anyone(server, verb):
    for body in (None, {}, {"consumer": "anybody"}):
        job = await leased(server)
        assert (await server.post(f"/jobs/{job['id']}/{verb}", body)).status == 200
        assert "consumer" not in await server.job(job["id"])
        await server.post(f"/jobs/{job['id']}/conclude", said(job))


async def test_a_lease_is_valid_until_a_tick_ends_it(server):
    job = await leased(server, lease_for=1)
    server.clock.advance("10m")
    assert (await server.post("/jobs/1/conclude", said(job))).status == 200


# -- heartbeat --------------------------------------------------------------------------------------


async def test_a_heartbeat_returns_the_lease_and_whether_to_stop(server):
    job = await leased(server, lease_for="1m", consumer="w1")
    server.clock.advance("30s")
    answer = await server.post("/jobs/1/heartbeat", said(job))
    assert answer.status == 200
    assert answer.body.decode() == (
        f'{{"id":1,"lease":"{job["lease"]}","status":"in_progress","queue":"default","type":"x","priority":0,'
        '"attempts":1,"leases":1,"created_at":"2027-01-15T08:00:00.000Z","started_at":"2027-01-15T08:00:00.000Z",'
        '"lease_expires_at":"2027-01-15T08:01:30.000Z","lease_for":60,"consumer":"w1","cancel_requested":false}\n'
    )


async def test_heartbeats_keep_a_job_leased(server):
    job = await leased(server, lease_for="1m")
    for _ in range(5):
        server.clock.advance("50s")
        server.engine.tick()
        assert (await server.post("/jobs/1/heartbeat", said(job))).json["lease"] == job["lease"]
    assert (await server.job(1))["attempts"] == 1
    server.clock.advance("61s")
    assert server.engine.tick() == 1
    check_problem(await server.post("/jobs/1/heartbeat", said(job)), 409, "lease_lost")


async def test_a_heartbeat_without_a_length_uses_the_length_of_the_dequeue(server):
    job = await leased(server, lease_for="1m")
    for path, body, length in [
        ("?lease_for=2h", None, 7200), ("", {"lease_for": "5s"}, 5), ("", {"lease_for": 1.5}, 1.5),
        ("", None, 60),
        ("", {"lease_for": None}, 60), ("?lease_for=24h", {}, 86400),
    ]:  # fmt: skip
        answer = await server.post(f"/jobs/1/heartbeat{path}", body)
        assert answer.json["lease_for"] == length, (path, body)
    await server.post("/jobs/1/heartbeat", {**said(job), "lease_for": 1})
    server.clock.advance("1200ms")
    assert server.engine.tick() == 1


async def test_a_heartbeat_respects_the_limits_of_a_lease(server):
    job = await leased(server)
    for value in (0, 0.5, "24h1s", -1, "x", True, [], 2**70):
        answer = await server.post("/jobs/1/heartbeat", {**said(job), "lease_for": value})
        check_problem(answer, 400, "invalid_field", field="lease_for")
    assert (await server.job(1))["lease_expires_at"] == job["lease_expires_at"]


async def test_a_heartbeat_tells_that_a_cancel_was_requested(server):
    job = await leased(server)
    await server.delete("/jobs/1")
    answer = await server.post("/jobs/1/heartbeat", said(job))
    assert (answer.status, answer.json["cancel_requested"]) == (200, True)
