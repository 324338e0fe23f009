"""Many items in one request: each has an answer, and a bad one does not affect the others."""

import pytest
from leasing import VERBS, leased, said
from serving import check_problem

NDJSON = {"Content-Type": "application/x-ndjson"}
DONE = {"conclude": "concluded", "heartbeat": "in_progress", "release": "queued", "fail": "scheduled"}


def check_part(part, status, code, **members):
    """Checks that `part` is a complete problem document, as a single call would answer."""
    assert list(part)[:5] == ["code", "status", "title", "detail", "request_id"]
    assert (part["status"], part["code"]) == (status, code), part
    assert {name: part.get(name) for name in members} == members
    return part


@pytest.mark.parametrize("verb", VERBS)
async def test_each_item_has_an_answer_in_order(server, verb):
    await server.post("/jobs/enqueue", [{"type": str(n), "payload": n} for n in range(3)])
    jobs = (await server.dequeue(count=3, consumer="w1"))["jobs"]
    items = [{"id": job["id"], "lease": job["lease"]} for job in reversed(jobs)]
    answer = await server.post(f"/jobs/{verb}", items)
    assert answer.status == 200
    assert list(answer.json) == ["ok", "failed", "results"]
    assert (answer.json["ok"], answer.json["failed"]) == (3, 0)
    assert [result["id"] for result in answer.json["results"]] == [3, 2, 1]
    for result in answer.json["results"]:
        assert list(result) == ["id", "job"]
        assert (result["job"]["id"], result["job"]["status"]) == (result["id"], DONE[verb])
        assert "payload" not in result["job"]
        assert ("lease" in result["job"]) is (verb == "heartbeat")
    assert "etag" not in answer.headers


@pytest.mark.parametrize("verb", VERBS)
async def test_one_bad_item_does_not_affect_the_others(server, verb):
    first, second = await leased(server), await leased(server)
    lost = await leased(server, lease_for=1)
    server.clock.advance(2)
    server.engine.tick()
    items = [
        {"id": 1, **said(first)}, {"id": 99, "lease": "x"}, {"id": 3, **said(lost)}, 7, {"lease": "x"},
        {"id": "1"}, {"id": 2, **said(second), "leas": 1}, {"id": 2, "consumer": ""},
        {"id": 2, **said(second)},
    ]  # fmt: skip
    answer = await server.post(f"/jobs/{verb}", items)
    assert (answer.status, answer.json["ok"], answer.json["failed"]) == (200, 2, 7)
    results = answer.json["results"]
    assert [result.get("id") for result in results] == [1, 99, 3, None, None, None, None, None, 2]
    assert [result.get("index") for result in results] == [None, None, None, 3, 4, 5, 6, 7, None]
    assert results[0]["job"]["status"] == results[8]["job"]["status"] == DONE[verb]
    check_part(results[1]["error"], 404, "job_not_found", request_id=answer.headers["x-request-id"])
    check_part(results[2]["error"], 409, "lease_lost", job_status="queued", attempts=1)
    check_part(results[3]["error"], 400, "invalid_field")
    check_part(results[4]["error"], 400, "missing_field", field="id")
    check_part(results[5]["error"], 400, "invalid_field", field="id")
    check_part(results[6]["error"], 400, "unknown_field", field="leas", nearest="lease")
    check_part(results[7]["error"], 400, "invalid_field", field="consumer")


@pytest.mark.parametrize("verb", VERBS)
async def test_the_status_is_200_even_if_all_items_failed(server, verb):
    answer = await server.post(f"/jobs/{verb}", [{"id": 1}, {"id": 2}])
    assert (answer.status, answer.json["ok"], answer.json["failed"]) == (200, 0, 2)
    assert [result["error"]["code"] for result in answer.json["results"]] == ["job_not_found"] * 2


@pytest.mark.parametrize("verb", VERBS)
async def test_items_may_be_lines_with_common_options_in_the_query(server, verb):
    await server.post("/jobs/enqueue", [{"type": "a"}, {"type": "b"}])
    await server.dequeue(count=2, consumer="w1")
    for path, headers in [(f"/jobs/{verb}?consumer=w1", NDJSON), (f"/jobs/{verb}", {"Queue-Consumer": "w1"})]:
        answer = await server.post(path, '{"id":1}\n{"ID":2}\n', headers)
        assert (answer.status, answer.json["ok"]) == (200, 2), answer
        if verb != "heartbeat":  # the same again, by the name alone
            assert [result["job"]["status"] for result in answer.json["results"]] == [DONE[verb]] * 2


async def test_each_item_has_the_fields_of_the_single_call(server):
    await server.post("/jobs/enqueue", [{"type": "a"}] * 4)
    jobs = (await server.dequeue(count=4))["jobs"]
    held = [{"id": job["id"], "lease": job["lease"]} for job in jobs]
    beat = await server.post("/jobs/heartbeat", [{**held[0], "lease_for": 9, "progress": 50, "message": "m"}])
    [shown] = beat.json["results"]
    assert [shown["job"][name] for name in ("lease_for", "progress", "message")] == [9, 50, "m"]
    assert shown["job"]["cancel_requested"] is False
    done = await server.post("/jobs/conclude", [{**held[0], "result": {"a": [1, 2]}}])
    assert done.json["results"][0]["job"]["result"] == {"a": [1, 2]}
    back = await server.post("/jobs/release", [{**held[1], "delay": "1m"}])
    assert back.json["results"][0]["job"]["run_at"] == "2027-01-15T08:01:00.000Z"
    failed = await server.post(
        "/jobs/fail", [{**held[2], "error": "e", "retry": False}, {**held[3], "retry_in": 60}]
    )
    first, second = [result["job"] for result in failed.json["results"]]
    assert (first["status"], first["reason"], first["error"]) == ("dead", "no_retry", "e")
    assert (second["status"], second["run_at"]) == ("scheduled", "2027-01-15T08:01:00.000Z")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_request_may_have_1_to_1000_items(server, verb):
    for body, headers in [("[]", {}), ("", {}), ("", NDJSON), ("\n\n", NDJSON)]:
        check_problem(await server.post(f"/jobs/{verb}", body, headers), 400, "invalid_field")
    answer = await server.post(f"/jobs/{verb}", [{"id": 1}] * 1001)
    check_problem(answer, 400, "invalid_field", limit=1000, setting="JOBQUEUE_MAX_BATCH")
    assert (await server.post(f"/jobs/{verb}", [{"id": 1}] * 1000)).json["failed"] == 1000
    check_problem(await server.post(f"/jobs/{verb}", "[{}"), 400, "invalid_json")
    check_problem(await server.post(f"/jobs/{verb}?qqq=1", [{"id": 1}]), 400, "unknown_field", field="qqq")


async def test_a_repeated_job_is_answered_twice(server):
    job = await leased(server)
    item = {"id": 1, **said(job)}
    answer = await server.post("/jobs/conclude", [item, item])
    assert (answer.json["ok"], answer.json["failed"]) == (2, 0)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_single_call_takes_no_id_besides_the_one_in_its_path(server, verb):
    await leased(server)
    check_problem(await server.post(f"/jobs/1/{verb}", {"id": 1}), 400, "unknown_field", field="id")


# -- enqueue?atomic=false ---------------------------------------------------------------------------


async def test_with_atomic_0_each_job_has_an_answer(server):
    answer = await server.post(
        "/jobs/enqueue?atomic=false", [{"type": "a"}, {"type": ""}, {"typ": 1}, {"type": "b", "delay": 5}]
    )
    assert answer.status == 200
    assert "location" not in answer.headers
    assert (answer.json["ok"], answer.json["failed"]) == (2, 2)
    first, second, third, fourth = answer.json["results"]
    assert (list(first), first["job"]["id"], first["job"]["status"]) == (["job"], 1, "queued")
    assert (list(second), second["index"]) == (["index", "error"], 1)
    check_part(second["error"], 400, "invalid_field", field="type")
    check_part(third["error"], 400, "unknown_field", field="typ", nearest="type")
    assert third["index"] == 2
    assert (fourth["job"]["id"], fourth["job"]["status"]) == (2, "scheduled")


async def test_atomic_0_works_with_lines(server):
    for atomic in ("false", "0", "False"):
        answer = await server.post(
            f"/jobs/enqueue?atomic={atomic}&queue=q", '{"type":"a"}\n{"type":"b"\n7\n{"type":"c"}\n', NDJSON
        )
        assert (answer.status, answer.json["ok"], answer.json["failed"]) == (200, 2, 2)
        codes = [result.get("error", {}).get("code") for result in answer.json["results"]]
        assert codes == [None, "invalid_json", "invalid_field", None]
        assert answer.json["results"][0]["job"]["queue"] == "q"


async def test_atomic_is_the_default_and_belongs_in_the_query(server):
    for atomic in ("true", "1", ""):
        answer = await server.post(f"/jobs/enqueue?atomic={atomic}", [{"type": "a"}, {"type": ""}])
        check_problem(answer, 400, "invalid_field", index=1, field="type")
    for body in ({"type": "a", "atomic": False}, [{"type": "a", "atomic": False}]):
        problem = check_problem(
            await server.post("/jobs/enqueue", body), 400, "invalid_field", field="atomic"
        )
        assert "query" in problem["detail"]
    assert (await server.get("/stats")).json["jobs"]["queued"] == 0


async def test_only_the_jobs_beyond_a_limit_are_refused(server):
    await server.call("PATCH", "/queues/q", {"max_jobs": 2})
    jobs = [{"type": "a", "queue": queue} for queue in ("q", "q", "q", "default")]
    answer = await server.post("/jobs/enqueue?atomic=false", jobs)
    assert (answer.json["ok"], answer.json["failed"]) == (3, 1)
    part = check_part(answer.json["results"][2]["error"], 429, "queue_full", limit=2)
    assert part["retry_after"] >= 1
