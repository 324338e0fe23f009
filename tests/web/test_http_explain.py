"""The sentences of `GET /jobs/{id}/explain`; `tests/core/test_explain.py` tests that they are true."""

import pytest
from leasing import dead, leased
from serving import check_problem


async def reasons(server, id):
    answer = await server.get(f"/jobs/{id}/explain")
    assert answer.status == 200, answer
    assert list(answer.json) == ["id", "status", "ahead", "reasons"]
    assert answer.json["id"] == id
    return {reason["code"]: reason for reason in answer.json["reasons"]}


async def test_each_cause_is_explained_by_a_sentence(server):
    first = await server.enqueue(queue="q")
    second = await server.enqueue(queue="q")
    third = await server.enqueue(queue="q")
    assert (await server.get(f"/jobs/{third}/explain")).json["ahead"] == 2
    assert (await reasons(server, third))["behind"]["detail"] == "at most 2 jobs ahead of it"
    assert "nobody has asked it for a job yet" in (await reasons(server, first))["no_consumer"]["detail"]
    await server.dequeue(queue="q", consumer="ann")
    server.clock.advance("9m")
    assert await reasons(server, second) == {
        "no_consumer": {
            "code": "no_consumer",
            "detail": "no consumer waits for a job of the queue q: nobody has asked it for 9 minutes; 1 job in "
            "progress",
        }
    }
    running = (await reasons(server, first))["running"]
    assert running["detail"] == "attempt 1 is under way by ann, leased until 2027-01-15T08:05:00.000Z"
    assert running["until"] == "2027-01-15T08:05:00.000Z"


async def test_a_scheduled_job_is_explained(server):
    id = await server.enqueue(delay="1h")
    assert await reasons(server, id) == {
        "scheduled": {
            "code": "scheduled", "detail": "it rests and is queued at 2027-01-15T09:00:00.000Z",
            "until": "2027-01-15T09:00:00.000Z",
        }
    }  # fmt: skip
    got = await leased(server, {"queue": "q"})
    await server.post(f"/jobs/{got['id']}/fail?retry_in=5&lease={got['lease']}")
    assert "after attempt 1" in (await reasons(server, got["id"]))["scheduled"]["detail"]


async def test_a_paused_queue_is_explained(server):
    id = await server.enqueue(queue="q")
    await server.post("/queues/q/pause?for=10m&reason=deploy")
    assert (await reasons(server, id))["paused"]["detail"] == (
        "the queue q is paused until 2027-01-15T08:10:00.000Z: deploy"
    )
    await server.post("/queues/q/pause")
    assert (await reasons(server, id))["paused"] == {
        "code": "paused", "detail": "the queue q is paused until it is resumed"
    }  # fmt: skip


async def test_limits_are_explained(server):
    await server.call("PATCH", "/queues/q", {"key_limits": {"max_in_progress": 1}})
    ids = [await server.enqueue(queue="q", key="ada") for _ in range(2)]
    await server.dequeue(queue="q")
    assert (await reasons(server, ids[1]))["key_limit"]["detail"] == (
        f"the key ada may have no more jobs in progress than the 1 job it has: {ids[0]}"
    )
    await server.call("PATCH", "/queues/q", {"max_in_progress": 1, "key_limits": None})
    assert (await reasons(server, ids[1]))["queue_limit"]["detail"] == (
        f"the queue q may have no more jobs in progress than the 1 job it has: {ids[0]}"
    )
    await server.call("PATCH", "/queues/r", {"rate": {"count": 1, "per": "1m"}})
    ids = [await server.enqueue(queue="r") for _ in range(2)]
    await server.dequeue(queue="r")
    limit = (await reasons(server, ids[1]))["rate_limit"]
    assert limit["until"] == "2027-01-15T08:01:00.000Z"
    assert limit["detail"].endswith("; the next one may start at 2027-01-15T08:01:00.000Z")


async def test_a_finished_job_is_explained(server):
    id = await dead(server)
    assert await reasons(server, id) == {
        "finished": {"code": "finished", "detail": "it is dead, reason no_retry"}
    }


@pytest.mark.parametrize(("path", "status", "code"), [
    ("/jobs/99/explain", 404, "job_not_found"), ("/jobs/x/explain", 404, "job_not_found"),
    ("/jobs/1/explain?x=1", 400, "unknown_field"),
])  # fmt: skip
async def test_a_bad_request_to_explain_is_refused(server, path, status, code):
    await server.enqueue()
    check_problem(await server.get(path), status, code)
