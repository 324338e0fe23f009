"""Conclude and next in one request, request and reply, and why a dequeue gets nothing."""

import asyncio

import pytest
from leasing import later, leased, said
from serving import check_problem, until

from jobqueue import Settings


async def test_one_request_concludes_and_takes_the_next_job(server):
    got = await leased(server)
    second = await server.enqueue(payload={"n": 2})
    answer = await server.post(f"/jobs/{got['id']}/conclude", said(got, result={"ok": True}, next=True))
    assert (answer.status, answer.json["id"], answer.json["payload"]) == (200, second, {"n": 2})
    assert answer.json["lease"] != got["lease"]
    first = await server.job(got["id"])
    assert (first["status"], first["result"]) == ("concluded", {"ok": True})


async def test_the_next_job_comes_from_the_same_queue_unless_another_is_named(server):
    await server.enqueue(queue="other")
    got = await leased(server, {"queue": "q"})
    mine = await server.enqueue(queue="q")
    got = (await server.post(f"/jobs/{got['id']}/conclude?next=1&lease={got['lease']}")).json
    assert got["id"] == mine
    got = (await server.post(f"/jobs/{mine}/conclude?next=1&queues=none,other", said(got))).json
    assert got["queue"] == "other"
    await server.enqueue(queue="q")
    got = (
        await server.post(f"/jobs/{got['id']}/conclude?next=1&queue=q&lease_for=7&consumer=me", said(got))
    ).json
    assert (got["queue"], got["lease_for"], got["consumer"]) == ("q", 7, "me")


async def test_the_next_job_may_be_the_one_of_the_highest_priority(server):
    got = await leased(server)
    await server.enqueue(queue="a")
    high = await server.enqueue(queue="b", priority=1)
    path = f"/jobs/{got['id']}/conclude"
    refused = check_problem(await server.post(f"{path}?order=priority"), 400, "missing_field", field="next")
    assert "order" in refused["detail"]
    answer = await server.post(f"{path}?next=1&queues=a,b&order=priority", said(got))
    assert answer.json["id"] == high


async def test_without_a_next_job_the_answer_is_204_and_the_job_is_concluded(server):
    got = await leased(server)
    answer = await server.post(f"/jobs/{got['id']}/conclude?next=1", said(got))
    assert (answer.status, answer.body, answer.headers["queue-state"]) == (204, b"", "empty")
    assert (await server.job(got["id"]))["status"] == "concluded"


async def test_conclude_and_next_waits_for_a_job(server):
    got = await leased(server)
    client = await server.ask("POST", f"/jobs/{got['id']}/conclude?next=1&wait=30", said(got))
    await server.waiting(1)
    assert (await server.job(got["id"]))["status"] == "concluded"
    id = await server.enqueue()
    assert (await client.read()).json["id"] == id


async def test_a_wait_for_the_next_job_that_is_over_is_204(server):
    got = await leased(server)
    client = await server.ask("POST", f"/jobs/{got['id']}/conclude?next=1&wait=5", said(got))
    await server.waiting(1)
    await later(server, "5s")
    assert (await client.read()).status == 204
    assert (await server.job(got["id"]))["status"] == "concluded"


async def test_a_refused_conclude_leases_no_job(server):
    got, id = await leased(server), await server.enqueue()
    answer = await server.post(f"/jobs/{got['id']}/conclude?next=1&lease=wrong")
    check_problem(answer, 409, "lease_lost")
    for query in ("wait=61", "queue=a%20b", "queue=a&queues=b", "lease_for=0", "count=2"):
        answer = await server.post(f"/jobs/{got['id']}/conclude?next=1&lease={got['lease']}&{query}")
        assert answer.status == 400, query
    assert (await server.job(got["id"]))["status"] == "in_progress"
    assert (await server.job(id))["leases"] == 0


@pytest.mark.parametrize("option", ["wait=1", "queue=a", "queues=a,b", "lease_for=5"])
async def test_options_of_the_next_dequeue_need_next(server, option):
    got = await leased(server)
    path = f"/jobs/{got['id']}/conclude?lease={got['lease']}"
    check_problem(await server.post(f"{path}&{option}"), 400, "missing_field", field="next")
    name, _, value = option.partition("=")
    check_problem(await server.post(path, {name: value, "next": False}), 400, "missing_field", field="next")
    assert (await server.job(got["id"]))["status"] == "in_progress"


async def test_a_repeated_request_concludes_once_and_dequeues_again(server):
    """A client whose answer was lost repeats the request. The job of the lost answer is leased to another by then."""
    got = await leased(server)
    ids = [await server.enqueue() for _ in range(2)]
    path = f"/jobs/{got['id']}/conclude?next=1&lease={got['lease']}"
    assert [(await server.post(path)).json["id"] for _ in ids] == ids
    assert server.engine.queue("default").totals["concluded"] == 1


async def test_a_raw_conclude_returns_the_next_payload_raw(server):
    got = await leased(server)
    await server.call("POST", "/jobs/enqueue?raw=1", b"\xff", {"Content-Type": "a/b"})
    answer = await server.post(f"/jobs/{got['id']}/conclude?raw=1&next=1&lease={got['lease']}", b"done")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"\xff", "a/b")
    assert (await server.job(got["id"]))["result"] == "done"
    last = answer.headers
    answer = await server.post(f"/jobs/{last['job-id']}/conclude?raw=1&next=1&lease={last['job-lease']}", b"")
    assert (answer.status, answer.headers["queue-state"]) == (204, "empty")


async def test_a_conclude_of_many_has_no_next(server):
    got = await leased(server)
    answer = await server.post("/jobs/conclude", [{"id": got["id"], "lease": got["lease"], "next": True}])
    assert answer.json["results"][0]["error"]["code"] == "unknown_field"


async def test_a_stopping_server_concludes_and_delivers_nothing(server):
    got = await leased(server)
    await server.enqueue()
    server.stop_waiting()
    client = await server.connect()
    answer = await client.call("POST", f"/jobs/{got['id']}/conclude?next=1&wait=30", said(got))
    assert (answer.status, answer.headers["queue-state"]) == (204, "stopping")
    assert server.engine.get(got["id"]).status == "concluded"


# -- ask and wait -----------------------------------------------------------------------------------


async def asked(server, wait="30", body=None, path="/jobs/enqueue", **headers):
    """Returns a client that has enqueued and waits for the outcome."""
    client = await server.connect()
    client.ask("POST", path, body or {"type": "x"}, {"Prefer": f"wait={wait}", **headers})
    await until(lambda: server.engine._queue.state.outcomes.count == 1)
    return client


async def test_an_enqueue_can_wait_for_the_result(server):
    client = await asked(server)
    job = await server.dequeue()
    await server.post(f"/jobs/{job['id']}/conclude", said(job, result={"n": 42}))
    answer = await client.read()
    assert (answer.status, answer.json["id"], answer.json["result"]) == (200, job["id"], {"n": 42})
    assert answer.json["status"] == "concluded"
    assert "payload" not in answer.json
    assert answer.headers["preference-applied"] == "wait=30"


@pytest.mark.parametrize("end", ["dead", "cancelled"])
async def test_a_job_that_finished_in_any_way_is_answered_with_200(server, end):
    client = await asked(server)
    id = server.engine._queue.state.last_number
    if end == "dead":
        job = await server.dequeue()
        await server.post(f"/jobs/{id}/fail", said(job, retry=False, error="no"))
    else:
        await server.delete(f"/jobs/{id}")
    answer = await client.read()
    assert (answer.status, answer.json["status"]) == (200, end)


async def test_a_job_that_is_not_finished_in_time_is_answered_with_202_and_goes_on(server):
    client = await asked(server, "5")
    await later(server, "5s")
    answer = await client.read()
    id = answer.json["id"]
    assert (answer.status, answer.json["status"], answer.headers["location"]) == (
        202,
        "queued",
        f"/jobs/{id}",
    )
    assert answer.headers["preference-applied"] == "wait=5"
    assert (await server.dequeue())["id"] == id


async def test_the_job_stays_when_the_waiting_client_hangs_up(server):
    client = await asked(server)
    client.reset()
    await until(lambda: server.engine._queue.state.outcomes.count == 0)
    assert server.engine.stats().jobs["queued"] == 1


async def test_raw_and_wait_and_the_queue_in_the_path(server):
    client = await asked(server, "30", b"\xff", "/queues/q/enqueue?raw=1")
    job = await server.dequeue(queue="q")
    await server.post(f"/jobs/{job['id']}/conclude?raw=1&lease={job['lease']}", b"\xfe")
    answer = await client.read()
    assert (answer.json["result"], answer.json["result_encoding"]) == ("/g==", "base64")


async def test_the_same_request_again_waits_for_the_same_job(server):
    clients = [await asked(server, **{"Idempotency-Key": "k"})]
    again = await server.connect()
    again.ask("POST", "/jobs/enqueue", {"type": "x"}, {"Prefer": "wait=30", "Idempotency-Key": "k"})
    await until(lambda: server.engine._queue.state.outcomes.count == 2)
    clients.append(again)
    job = await server.dequeue()
    await server.post(f"/jobs/{job['id']}/conclude", said(job, result=1))
    answers = [await client.read() for client in clients]
    assert [answer.status for answer in answers] == [200, 200]
    assert [answer.json.get("duplicate") for answer in answers] == [None, True]
    assert {(answer.json["id"], answer.json["result"]) for answer in answers} == {(job["id"], 1)}
    third = await server.call(
        "POST", "/jobs/enqueue", {"type": "x"}, {"Prefer": "wait=3", "Idempotency-Key": "k"}
    )
    assert (third.status, third.json["result"], third.json["duplicate"]) == (200, 1, True)
    other = await server.call(
        "POST", "/jobs/enqueue", {"type": "y"}, {"Prefer": "wait=3", "Idempotency-Key": "k"}
    )
    check_problem(other, 422, "idempotency_mismatch")


async def test_an_existing_unique_job_is_waited_for(server):
    job = {"type": "x", "unique_key": "u"}
    id = await server.enqueue(unique_key="u")
    client = await asked(server, "30", job)
    await server.delete(f"/jobs/{id}")
    answer = await client.read()
    assert (answer.status, answer.json["id"], answer.json["duplicate"]) == (200, id, True)


@pytest.mark.parametrize(
    "prefer", ["respond-async, wait=0", "respond-async; wait=0", 'WAIT="0"', "wait = 0", "a=b,wait=0,c"]
)
async def test_a_wait_is_found_among_other_preferences(server, prefer):
    answer = await server.call("POST", "/jobs/enqueue", {"type": "x"}, {"Prefer": prefer})
    assert (answer.status, answer.headers["preference-applied"]) == (202, "wait=0")


@pytest.mark.parametrize("prefer", ["respond-async", "", "await=5", "return=minimal", "wait"])
async def test_other_preferences_change_nothing(server, prefer):
    answer = await server.call("POST", "/jobs/enqueue", {"type": "x"}, {"Prefer": prefer})
    assert (answer.status, answer.headers.get("preference-applied")) == (201, None)


@pytest.mark.parametrize("wait", ["61", "-1", "x", ""])
async def test_a_malformed_wait_is_refused_before_a_job_is_created(server, wait):
    answer = await server.call("POST", "/jobs/enqueue", {"type": "x"}, {"Prefer": f"wait={wait}"})
    check_problem(answer, 400, "invalid_field", field="wait")
    assert (await server.get("/queues")).json == {"queues": []}


async def test_a_wait_for_many_jobs_is_refused(server):
    for body, path in (([{"type": "x"}], "/jobs/enqueue"), ([{"type": "x"}], "/jobs/enqueue?atomic=false")):
        answer = await server.call("POST", path, body, {"Prefer": "wait=30"})
        assert answer.status in (200, 201)
        assert "preference-applied" not in answer.headers


@pytest.mark.parametrize("settings", [Settings(first_id=1, retain="0s")], ids=["forgotten at once"])
async def test_the_outcome_of_a_job_that_is_forgotten_at_once_is_answered(server):
    client = await asked(server)
    job = await server.dequeue()
    await server.post(f"/jobs/{job['id']}/conclude", said(job, result=1))
    answer = await client.read()
    assert (answer.status, answer.json["result"]) == (200, 1)


# -- Queue-State ------------------------------------------------------------------------------------


async def test_an_empty_dequeue_tells_why(server):
    async def state(query="queue=q", verb="/jobs/dequeue"):
        answer = await server.post(f"{verb}?{query}")
        assert answer.status == 204, answer
        return answer.headers["queue-state"]

    assert await state() == "empty"
    await server.enqueue(queue="q", delay="1h")
    assert await state() == "scheduled"
    assert await state("count=3", "/queues/q/dequeue") == "scheduled"
    assert await state("raw=1", "/queues/q/dequeue") == "scheduled"
    await server.call("PATCH", "/queues/limited", {"max_in_progress": 1})
    await server.enqueue(queue="limited")
    await server.enqueue(queue="limited")
    await server.dequeue(queue="limited")
    assert await state("queue=limited") == "limited"
    assert await state("queues=none,q,limited") == "limited"
    await server.post("/queues/paused/pause")
    assert await state("queue=paused") == "paused"
    await server.enqueue(queue="paused")
    assert await state("queues=q,limited,paused") == "paused"


async def test_a_wait_in_vain_tells_the_state_at_its_end(server):
    client = await server.ask("POST", "/jobs/dequeue?queue=q&wait=30")
    await server.waiting(1)
    await server.enqueue(queue="q", delay="1h")
    await later(server, "30s")
    assert (await client.read()).headers["queue-state"] == "scheduled"
    client = await server.ask("POST", "/jobs/dequeue?queue=q&wait=30")
    await server.waiting(1)
    server.stop_waiting()
    assert (await client.read()).headers["queue-state"] == "stopping"
    await asyncio.sleep(0)
