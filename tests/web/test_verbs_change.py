"""PATCH, DELETE with force, and redrive of one job; ETag and If-Match; tags, headers and progress."""

import json

import pytest
from leasing import NOW, dead, later, leased, said
from serving import check_problem

# -- PATCH ------------------------------------------------------------------------------------------


async def test_a_patch_changes_the_given_fields_only(server):
    await server.enqueue(type="a", payload={"n": 1}, priority=3, tags=["t"], queue="q", key="k")
    before = await server.job(1)
    answer = await server.call("PATCH", "/jobs/1", {"type": "b"})
    assert answer.status == 200
    assert list(answer.json)[:2] == ["id", "status"]
    assert "payload" not in answer.json
    assert await server.job(1) == {**before, "type": "b"}


@pytest.mark.parametrize(
    ("field", "old", "new", "null"),
    [
        ("queue", "a", "b", "default"), ("priority", 1, 2, 0), ("payload", {"a": 1}, [2], None),
        ("lease_for", 10, 20, ...), ("retain_for", 10, 20, ...), ("max_attempts", 1, 2, None),
        ("backoff", [1], [2], ...), ("tags", ["a"], ["b", "c"], ...), ("key", "a", "b", ...),
        ("headers", {"a": "b"}, {"c": "d"}, ...), ("type", "a", "b", "refused"),
    ],
)  # fmt: skip
async def test_null_restores_the_default(server, field, old, new, null):
    await server.enqueue(**{field: old})
    assert (await server.job(1))[field] == old
    for value in (new, old):
        answer = await server.call("PATCH", "/jobs/1", {field: value})
        assert answer.status == 200, answer
        assert (await server.job(1))[field] == value
    answer = await server.call("PATCH", "/jobs/1", {field.upper(): None})
    if null == "refused":
        check_problem(answer, 400, "invalid_field", field=field)
        return
    assert answer.status == 200, answer
    assert (await server.job(1)).get(field, ...) == null


async def test_the_start_time_may_be_changed(server):
    await server.enqueue(delay=60)
    for body, run_at in [
        ({"delay": 120}, "2027-01-15T08:02:00.000Z"),
        ({"run_at": "2027-01-15T09:00:00Z"}, "2027-01-15T09:00:00.000Z"),
    ]:
        answer = await server.call("PATCH", "/jobs/1", body)
        assert (answer.json["status"], answer.json["run_at"]) == ("scheduled", run_at)
    for body in ({"delay": None}, {"run_at": None}, {"delay": 0}, {"run_at": "2027-01-15T07:00:00Z"}):
        await server.call("PATCH", "/jobs/1", {"delay": 60})
        answer = await server.call("PATCH", "/jobs/1", body)
        assert answer.json["status"] == "queued", body
        assert "run_at" not in answer.json
    answer = await server.call("PATCH", "/jobs/1?run_at=2027-01-15T10:00:00+01:00")
    assert answer.json["run_at"] == "2027-01-15T09:00:00.000Z"
    check_problem(
        await server.call("PATCH", "/jobs/1", {"delay": 1, "run_at": "2027-01-15T09:00:00Z"}),
        400, "invalid_field", field="delay",
    )  # fmt: skip


async def test_the_expiry_may_be_changed(server):
    await server.enqueue(expires_in=60)
    answer = await server.call("PATCH", "/jobs/1", {"expires_in": "2m"})
    assert answer.json["expires_at"] == "2027-01-15T08:02:00.000Z"
    await later(server, 61)
    assert (await server.job(1))["status"] == "queued"
    answer = await server.call("PATCH", "/jobs/1", {"expires_in": None})
    assert "expires_at" not in answer.json
    await later(server, "10m")
    assert (await server.job(1))["status"] == "queued"


async def test_a_job_that_changes_queue_or_priority_goes_to_the_end(server):
    first, second, third = [await server.enqueue() for _ in range(3)]
    await server.enqueue(queue="q")
    await server.call("PATCH", f"/jobs/{first}", {"priority": 1})
    await server.call("PATCH", f"/jobs/{second}", {"priority": 1})
    await server.call("PATCH", f"/jobs/{first}", {"priority": 0})
    await server.call("PATCH", f"/jobs/{third}", {"queue": "q"})
    assert [(await server.dequeue())["id"] for _ in range(2)] == [second, first]
    assert [(await server.dequeue(queue="q"))["id"] for _ in range(2)] == [4, third]


@pytest.mark.parametrize(
    "change",
    [{"type": "y"}, {"payload": 1}, {"tags": ["a"]}, {"expires_in": 60}, {"key": "k"}, {"queue": "default"},
     {"priority": 0}, {"max_attempts": 3}, {"delay": 0}],
)  # fmt: skip
async def test_any_other_change_keeps_the_place(server, change):
    for _ in range(3):
        await server.enqueue()
    assert (await server.call("PATCH", "/jobs/1", change)).status == 200
    assert [(await server.dequeue())["id"] for _ in range(3)] == [1, 2, 3]


async def test_a_moved_job_goes_to_a_consumer_waiting_there(server):
    await server.enqueue()
    client = await server.ask("POST", "/jobs/dequeue?queue=q&wait=30")
    await server.waiting(1)
    await server.call("PATCH", "/jobs/1", {"queue": "q"})
    assert (await client.read()).json["id"] == 1


async def test_only_a_queued_or_scheduled_job_can_be_changed(server):
    await leased(server)
    await server.post("/jobs/1/conclude")
    await dead(server)
    await server.enqueue()
    await server.delete("/jobs/3")
    await leased(server)
    for id, status in enumerate(("concluded", "dead", "cancelled", "in_progress"), 1):
        answer = await server.call("PATCH", f"/jobs/{id}", {"type": "y"})
        check_problem(answer, 409, "not_waiting", job_status=status)
    check_problem(await server.call("PATCH", "/jobs/9", {"type": "y"}), 404, "job_not_found")
    check_problem(await server.call("PATCH", "/jobs/x", {"type": "y"}), 404, "job_not_found")


async def test_fields_that_cannot_change_are_unknown(server):
    await server.enqueue()
    for field in ("unique_key", "status", "attempts", "id", "result", "lease", "expires_at"):
        answer = await server.call("PATCH", "/jobs/1", {field: 1})
        check_problem(answer, 400, "unknown_field", field=field)


# -- DELETE with force ------------------------------------------------------------------------------


async def test_a_forced_cancel_ends_the_lease_of_a_running_job(server):
    job = await leased(server)
    assert (await server.delete("/jobs/1?force=0")).status == 202
    for force in ("1", "true", ""):
        answer = await server.delete(f"/jobs/1?force={force}")
        assert (answer.status, answer.json["status"]) == (200, "cancelled")
        assert answer.json["finished_at"] == NOW
    for verb in ("conclude", "heartbeat", "release", "fail"):
        problem = await server.post(f"/jobs/1/{verb}", said(job))
        check_problem(problem, 409, "lease_lost", job_status="cancelled")


async def test_a_scheduled_and_a_dead_job_are_cancelled(server):
    for id in (await server.enqueue(delay=60), await dead(server)):
        for _ in range(2):
            answer = await server.delete(f"/jobs/{id}")
            assert (answer.status, answer.json["status"]) == (200, "cancelled")
    check_problem(await server.delete("/jobs/1?force=perhaps"), 400, "invalid_field", field="force")


async def test_a_forced_cancel_does_not_cancel_a_concluded_job(server):
    await leased(server)
    await server.post("/jobs/1/conclude")
    check_problem(await server.delete("/jobs/1?force=1"), 409, "job_finished", job_status="concluded")


# -- redrive ----------------------------------------------------------------------------------------


async def test_a_redriven_job_keeps_its_history(server):
    id = await dead(server)
    await server.enqueue()
    answer = await server.post(f"/jobs/{id}/redrive")
    assert answer.status == 200
    job = answer.json
    assert (job["status"], job["attempts"], job["leases"], job["error"]) == ("queued", 0, 1, "no good")
    assert "reason" not in job
    assert "finished_at" not in job
    assert [line["outcome"] for line in (await server.job(id))["history"]] == ["failed"]
    assert [(await server.dequeue())["id"] for _ in range(2)] == [2, id]
    assert (await server.job(id))["attempts"] == 1


async def test_a_redriven_expired_job_has_no_expiry(server):
    await server.enqueue(expires_in=5)
    await later(server, 6)
    assert (await server.post("/jobs/1/redrive")).json["status"] == "queued"
    await later(server, 60)
    assert (await server.job(1))["status"] == "queued"


async def test_only_a_dead_job_is_redriven(server):
    await server.enqueue()
    check_problem(await server.post("/jobs/1/redrive"), 409, "not_dead", job_status="queued")
    await server.dequeue()
    check_problem(await server.post("/jobs/1/redrive"), 409, "not_dead", job_status="in_progress")
    check_problem(await server.post("/jobs/2/redrive"), 404, "job_not_found")


# -- ETag and If-Match ------------------------------------------------------------------------------


async def test_every_answer_that_shows_one_job_has_its_version(server):
    tags = [(await server.post("/jobs/enqueue", {"type": "x"})).headers["etag"]]
    answer = await server.post("/jobs/dequeue")
    lease = said(answer.json)
    tags.append(answer.headers["etag"])
    # Heartbeats do not raise the version.
    tags += [(await server.post("/jobs/1/heartbeat", lease)).headers["etag"] for _ in range(2)]
    tags.append((await server.get("/jobs/1")).headers["etag"])
    tags.append((await server.call("HEAD", "/jobs/1")).headers["etag"])
    assert tags == ['"1"'] + ['"2"'] * 5
    tags = [
        (await server.post("/jobs/1/fail", said(lease, retry_in=60))).headers["etag"],
        (await server.call("PATCH", "/jobs/1", {"type": "y"})).headers["etag"],
        (await server.call("PATCH", "/jobs/1", {"delay": 0})).headers["etag"],
        (await server.delete("/jobs/1")).headers["etag"],
    ]
    numbers = [int(json.loads(tag)) for tag in tags]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 3
    assert (await server.delete("/jobs/1")).headers["etag"] == tags[-1]


@pytest.mark.parametrize("call", ["PATCH", "DELETE", "redrive"])
async def test_if_match_refuses_a_job_that_has_changed(server, call):
    id = await dead(server) if call == "redrive" else await server.enqueue()
    method, path = ("POST", f"/jobs/{id}/redrive") if call == "redrive" else (call, f"/jobs/{id}")
    body = {"type": "y"} if call == "PATCH" else None
    before = await server.get(f"/jobs/{id}")
    for tag in ('"0"', '"99"', "nonsense", '""', '"-1"', "0"):
        answer = await server.call(method, path, body, {"If-Match": tag})
        check_problem(answer, 412, "precondition_failed", job_status=before.json["status"])
    assert (await server.get(f"/jobs/{id}")).body == before.body
    answer = await server.call(method, path, body, {"If-Match": before.headers["etag"]})
    assert answer.status == 200
    assert answer.headers["etag"] != before.headers["etag"]


async def test_a_star_matches_any_version(server):
    await server.enqueue()
    assert (await server.call("PATCH", "/jobs/1", {"type": "y"}, {"If-Match": "*"})).status == 200


async def test_the_version_is_checked_before_the_status(server):
    await leased(server)
    answer = await server.call("PATCH", "/jobs/1", {"type": "y"}, {"If-Match": '"1"'})
    check_problem(answer, 412, "precondition_failed")
    answer = await server.call("PATCH", "/jobs/1", {"type": "y"}, {"If-Match": '"2"'})
    check_problem(answer, 409, "not_waiting")
    check_problem(await server.call("DELETE", "/jobs/9", None, {"If-Match": '"1"'}), 404, "job_not_found")


# -- tags, key, headers, traceparent ----------------------------------------------------------------

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_tags_and_headers_are_shown_and_delivered(server):
    carried = {"key": "k", "tags": ["a", "b é"], "headers": {"Trace-Id": "7", "x": ""}}
    answer = await server.post("/jobs/enqueue", {"type": "x", **carried})
    for shown in (answer.json, await server.job(1), await server.dequeue()):
        assert {name: shown[name] for name in carried} == carried


async def test_tags_may_come_in_a_query_and_each_counts_once(server):
    answer = await server.post("/jobs/enqueue?type=x&tags=a,b,a")
    assert answer.json["tags"] == ["a", "b"]


async def test_the_trace_context_of_the_request_is_kept_and_delivered(server):
    trace = {"traceparent": TRACE}
    for body in ({"type": "x"}, [{"type": "x"}], {"type": "x", "headers": {"a": "b"}}, {"Type": "x"}):
        assert (await server.post("/jobs/enqueue", body, trace)).status == 201
        headers = (await server.dequeue())["headers"]
        assert headers["traceparent"] == TRACE
        assert set(headers) - {"traceparent"} == ({"a"} if "headers" in body else set())
    own = {"type": "x", "headers": {"a": "b" * 4080}}  # the trace is not counted
    assert (await server.post("/jobs/enqueue", own, trace)).status == 201
    own = {"type": "x", "headers": {"traceparent": "mine"}}
    answer = await server.post("/jobs/enqueue", own, trace)
    assert answer.json["headers"] == {"traceparent": "mine"}
    assert "headers" not in (await server.post("/jobs/enqueue", {"type": "x"})).json


# -- progress and message ---------------------------------------------------------------------------


async def test_the_last_reported_progress_is_shown(server):
    job = await leased(server)
    for body, progress, message in [
        ({"progress": 0}, 0, None), ({"message": "half\nway é"}, 0, "half\nway é"),
        ({"progress": 50}, 50, "half\nway é"),
        ({}, 50, "half\nway é"), ({"progress": 100, "message": ""}, 100, ""),
    ]:  # fmt: skip
        for shown in ((await server.post("/jobs/1/heartbeat", said(job, **body))).json, await server.job(1)):
            assert (shown["progress"], shown.get("message")) == (progress, message)
    await server.post("/jobs/1/conclude", said(job))
    assert (await server.job(1))["progress"] == 100


async def test_a_new_attempt_begins_without_progress(server):
    job = await leased(server)
    await server.post("/jobs/1/heartbeat", said(job, progress=50, message="half"))
    await server.post("/jobs/1/release", said(job))
    assert (await server.job(1))["progress"] == 50
    job = await server.dequeue()
    assert "progress" not in job
    assert "message" not in job


async def test_null_in_the_body_and_a_length_in_the_query_are_two_values(server):
    id = await server.enqueue()
    answer = await server.call("PATCH", f"/jobs/{id}?retain_for=30", {"retain_for": None})
    check_problem(answer, 400, "invalid_field")
