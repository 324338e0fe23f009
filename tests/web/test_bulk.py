"""Cancel, run now and move by filter; purge and redrive are in test_verbs_lists.py."""

import pytest
from leasing import dead, later, leased, said
from serving import check_problem


async def statuses(server, *ids):
    return [(await server.job(id))["status"] for id in ids]


async def six_jobs(server, queue="default"):
    """Enqueues a job of each status. The id of each is its line here."""
    await server.enqueue(queue=queue, type="a")
    await server.enqueue(queue=queue, type="a", delay=60)
    held = await leased(server, {"queue": queue, "type": "a", "priority": 1})
    job = await leased(server, {"queue": queue, "type": "a", "priority": 1})
    await server.post("/jobs/4/conclude", said(job))
    await dead(server, queue=queue, type="a", priority=1)
    await server.enqueue(queue=queue, type="a")
    await server.delete("/jobs/6")
    return held


@pytest.mark.parametrize("path", ["cancel", "run_now", "move?to=other", "move?back=1"])
async def test_an_operation_on_many_jobs_needs_a_filter(server, path):
    await server.enqueue(delay=60)
    for body in (None, {}, {"status": None, "dry_run": True}, {"all": False}, {"limit": 3}):
        answer = await server.post(f"/queues/default/{path}", body)
        check_problem(answer, 400, "missing_field", field="all")
    assert await statuses(server, 1) == ["scheduled"]
    answer = await server.post(f"/queues/default/{path}", {"all": True, "limit": 0})
    check_problem(answer, 400, "invalid_field", field="limit")
    answer = await server.post("/queues/a%20b/" + path, {"all": True})
    check_problem(answer, 400, "invalid_field", field="name")


@pytest.mark.parametrize(
    ("path", "query", "matched"),
    [
        ("cancel", "all=1", [1, 2]), ("cancel", "type=a", [1, 2]), ("cancel", "status=dead,queued", [1, 5]),
        ("cancel", "status=in_progress", [3]), ("run_now", "all=1", [2]), ("run_now", "type=b", []),
        ("run_now", "status=scheduled", [2]), ("move", "to=o&all=1", [1, 2]), ("move", "to=o&type=a", [1, 2]),
        ("move", "to=o&status=dead,scheduled", [2, 5]), ("move", "back=1&all=1", []),
    ],
)  # fmt: skip
async def test_a_dry_run_tells_what_the_operation_would_change(server, path, query, matched):
    await six_jobs(server)
    before = await statuses(server, *range(1, 7))
    answer = await server.post(f"/queues/default/{path}?{query}&dry_run=1")
    assert answer.json == {"matched": len(matched), "changed": 0, "sample": matched}
    assert await statuses(server, *range(1, 7)) == before
    answer = await server.post(f"/queues/default/{path}?{query}")
    assert answer.json == {"matched": len(matched), "changed": len(matched), "sample": matched}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("cancel", "concluded"), ("cancel", "cancelled,queued"), ("run_now", "queued"), ("run_now", "dead"),
        ("move?to=o", "in_progress"), ("move?to=o", "concluded,queued"), ("move?back=1", "in_progress"),
    ],
)  # fmt: skip
async def test_a_status_that_the_operation_cannot_act_on_is_refused(server, path, status):
    answer = await server.post(f"/queues/default/{path}", {"status": status})
    check_problem(answer, 400, "invalid_field", field="status")


async def test_cancel_takes_waiting_jobs_out_and_asks_the_consumers_of_others_to_stop(server):
    held = await six_jobs(server)
    await server.post("/queues/default/cancel?status=queued,scheduled,in_progress,dead")
    assert await statuses(server, 1, 2, 3, 4, 5) == [
        "cancelled", "cancelled", "in_progress", "concluded", "cancelled",
    ]  # fmt: skip
    assert (await server.post("/jobs/3/heartbeat", said(held))).json["cancel_requested"] is True
    await server.post("/queues/default/cancel?status=in_progress&force=1")
    assert await statuses(server, 3) == ["cancelled"]
    check_problem(await server.post("/jobs/3/conclude", said(held)), 409, "lease_lost")


async def test_jobs_that_are_run_now_are_ready_after_those_that_were_ready_before(server):
    job = await leased(server, {"type": "x"})
    await server.enqueue(type="x")
    await server.enqueue(type="x", delay=60)
    await server.post(f"/jobs/{job['id']}/fail", said(job, retry_in=60))
    answer = await server.post("/queues/default/run_now", {"all": True, "limit": 1})
    assert answer.json == {"matched": 1, "changed": 1, "sample": [1]}
    await server.post("/queues/default/run_now?type=x")
    taken = (await server.dequeue(count=9))["jobs"]
    assert [(each["id"], each["attempts"]) for each in taken] == [(2, 1), (1, 2), (3, 1)]


async def test_a_waiting_consumer_gets_a_job_that_is_run_now_or_moved(server):
    await server.enqueue(queue="a", delay=60)
    await server.enqueue(queue="b")
    for path in ("/queues/a/run_now?all=1", "/queues/b/move?to=a&all=1"):
        waiting = await server.ask("POST", "/queues/a/dequeue?wait=30")
        await server.post(path)
        assert (await waiting.read()).status == 200


async def test_moved_jobs_keep_what_they_are_and_go_to_the_end_of_their_new_queue(server):
    await server.enqueue(queue="new", type="first")
    late = await server.enqueue(queue="old", type="x", delay=60, expires_in=90, key="k", tags=["t"])
    urgent = await server.enqueue(queue="old", type="x", priority=5)
    plain = await server.enqueue(queue="old", type="x", payload={"n": 1})
    before = await server.job(late)
    answer = await server.post("/queues/old/move?to=new&type=x")
    assert answer.json == {"matched": 3, "changed": 3, "sample": [late, urgent, plain]}
    assert await server.job(late) == before | {"queue": "new"}
    taken = (await server.dequeue(queues=["new"], count=9))["jobs"]
    assert [job["id"] for job in taken] == [urgent, 1, plain]
    assert taken[2]["payload"] == {"n": 1}
    await later(server, 60)
    assert (await server.dequeue(queues=["new"]))["id"] == late


async def test_a_dead_job_is_queued_where_it_is_moved_as_by_a_redrive(server):
    await dead(server, queue="old", type="x", max_attempts=1)
    await server.post("/queues/old/move?to=new&status=dead")
    job = await server.job(1)
    assert (job["status"], job["queue"], job["attempts"]) == ("queued", "new", 0)
    assert "reason" not in job
    assert "finished_at" not in job


async def test_jobs_go_back_from_a_dead_letter_queue_to_where_each_died(server):
    for name in ("a", "b"):
        await server.call("PATCH", f"/queues/{name}", {"dead_letter": "letters"})
    died = [await dead(server, queue=name, type="x") for name in ("a", "b", "a")]
    own = await server.enqueue(queue="letters", type="x")
    again = await server.dequeue(queues=["letters"])  # this one also dies in the dead-letter queue
    await server.post(f"/jobs/{again['id']}/fail", said(again, retry=False))
    assert await statuses(server, *died) == ["dead", "queued", "queued"]
    answer = await server.post("/queues/letters/move?back=1&all=1")
    assert answer.json == {"matched": 3, "changed": 3, "sample": died}
    jobs = [await server.job(id) for id in died]
    assert [(job["queue"], job["status"], job["attempts"]) for job in jobs] == [
        ("a", "queued", 0), ("b", "queued", 0), ("a", "queued", 0),
    ]  # fmt: skip
    assert not any("dead_from" in job for job in jobs)
    assert (await server.job(own))["queue"] == "letters"
    job = await server.dequeue(queues=["b"])
    await server.post(f"/jobs/{job['id']}/fail", said(job, retry=False))
    assert (await server.job(job["id"]))["queue"] == "letters"  # it may die again


async def test_a_job_that_goes_back_while_it_waits_for_a_retry_is_scheduled_but_retries_no_more(server):
    await server.call("PATCH", "/queues/a", {"dead_letter": "letters"})
    id = await dead(server, queue="a", type="x")
    await server.post(f"/jobs/{id}/fail", said(await server.dequeue(queues=["letters"]), retry_in=60))
    assert (await server.get("/queues/letters")).json["retrying"] == 1
    await server.post("/queues/letters/move?back=1&all=1")
    for name in ("a", "letters"):
        assert (await server.get(f"/queues/{name}")).json["retrying"] == 0, name
    assert (await server.get("/queues/a")).json["jobs"]["scheduled"] == 1
    await later(server, 60)
    assert (await server.get("/queues/a")).json["retrying"] == 0


async def test_a_move_says_where_and_only_one_way(server):
    for body, code, field in [
        ({"all": True}, "missing_field", "to"),
        ({"all": True, "to": "o", "back": True}, "invalid_field", "to"),
        ({"all": True, "to": "default"}, "invalid_field", "to"),
        ({"all": True, "to": "a b"}, "invalid_field", "to"),
    ]:
        check_problem(await server.post("/queues/default/move", body), 400, code, field=field)


async def test_a_move_ends_when_the_queue_is_full_and_tells_how_many_it_moved(server):
    await server.call("PATCH", "/queues/small", {"max_jobs": 401})
    await server.enqueue(queue="small")
    await server.post("/jobs/enqueue", [{"type": "x", "queue": "big"}] * 500)
    answer = await server.post("/queues/big/move?to=small&all=1")
    check_problem(answer, 429, "queue_full", changed=400, limit=401)
    assert (await server.get("/queues/small")).json["jobs"]["queued"] == 401
    assert (await server.get("/queues/big")).json["jobs"]["queued"] == 100
    answer = await server.post("/queues/big/move?to=small&all=1&dry_run=1")
    assert answer.json["matched"] == 100


async def test_operations_on_many_jobs_work_in_slices(server):
    for _ in range(2):
        await server.post("/jobs/enqueue", [{"type": "x", "delay": 60}] * 1000)
    for path in ("/queues/default/move?to=o&all=1", "/queues/o/run_now?all=1", "/queues/o/cancel?all=1"):
        answer = await (await server.ask("POST", path)).read()
        assert (answer.json["matched"], answer.json["changed"]) == (2000, 2000), path
    assert (await server.get("/jobs/count?queue=o&status=cancelled")).json == {"count": 2000}
