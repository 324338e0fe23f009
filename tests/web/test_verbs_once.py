"""Jobs that are created only once: Idempotency-Key, and unique_key with its scopes and conflicts."""

import pytest
from leasing import dead, later, leased, said
from serving import check_problem

KEY = {"Idempotency-Key": "order-17"}


async def total(server):
    return sum((await server.get("/stats")).json["jobs"].values())


# -- Idempotency-Key --------------------------------------------------------------------------------


async def test_a_repeated_request_creates_nothing_and_shows_the_job(server):
    body = {"type": "x", "payload": {"n": 1}}
    first = await server.post("/jobs/enqueue", body, KEY)
    assert (first.status, first.json["id"]) == (201, 1)
    assert "duplicate" not in first.json
    again = await server.post("/jobs/enqueue", body, KEY)
    assert again.status == 200
    assert again.json == {**first.json, "duplicate": True}
    assert again.headers["etag"] == first.headers["etag"]
    assert await total(server) == 1
    assert await server.enqueue() == 2


async def test_the_job_is_shown_as_it_is_now(server):
    await server.post("/jobs/enqueue", {"type": "x"}, KEY)
    job = await server.dequeue(consumer="w1")
    again = (await server.post("/jobs/enqueue", {"type": "x"}, KEY)).json
    assert (again["status"], again["consumer"], again["duplicate"]) == ("in_progress", "w1", True)
    assert "lease" not in again
    assert "payload" not in again
    await server.post("/jobs/1/conclude", said(job, result=5))
    again = (await server.post("/jobs/enqueue", {"type": "x"}, KEY)).json
    assert (again["status"], again["result"], again["duplicate"]) == ("concluded", 5, True)


async def test_another_body_under_the_same_key_is_refused(server):
    await server.post("/jobs/enqueue?priority=1", '{"type":"x"}', KEY)
    for path, body in [
        ("/jobs/enqueue?priority=1", '{"type":"y"}'), ("/jobs/enqueue?priority=1", '{"type": "x"}'),
        ("/jobs/enqueue?priority=2", '{"type":"x"}'), ("/jobs/enqueue", '{"type":"x"}'),
        ("/jobs/enqueue?priority=1", '[{"type":"x"}]'), ("/jobs/enqueue?priority=1", "not even JSON"),
    ]:  # fmt: skip
        check_problem(await server.post(path, body, KEY), 422, "idempotency_mismatch")
    assert (await server.post("/jobs/enqueue?priority=1", '{"type":"x"}', KEY)).status == 200
    assert await total(server) == 1


async def test_another_key_is_another_request(server):
    for n, key in enumerate(("a", "A", "a b", "é", "x" * 255), 1):
        answer = await server.post("/jobs/enqueue", {"type": "x"}, {"idempotency-key": key})
        assert (answer.status, answer.json["id"]) == (201, n)


async def test_a_forgotten_job_is_shown_by_its_id(server):
    body = {"type": "x", "retain_for": 0}
    await server.post("/jobs/enqueue", body, KEY)
    await server.post("/jobs/1/conclude", said(await server.dequeue()))
    again = await server.post("/jobs/enqueue", body, KEY)
    assert (again.status, again.body) == (200, b'{"id":1,"duplicate":true}\n')


async def test_a_repeated_batch_creates_nothing(server):
    body = [{"type": "a", "retain_for": 0}, {"type": "b"}]
    first = await server.post("/jobs/enqueue", body, KEY)
    assert first.status == 201
    await server.delete("/jobs/1")
    again = await server.post("/jobs/enqueue", body, KEY)
    assert again.status == 200
    assert again.json == {
        "jobs": [{"id": 1, "duplicate": True}, {**first.json["jobs"][1], "duplicate": True}]
    }
    assert await total(server) == 1


async def test_a_batch_of_one_is_answered_as_a_batch(server):
    for status in (201, 200):
        answer = await server.post("/jobs/enqueue", [{"type": "a"}], KEY)
        assert (answer.status, list(answer.json)) == (status, ["jobs"])


async def test_a_key_is_remembered_for_a_day(server):
    await server.post("/jobs/enqueue", {"type": "x"}, KEY)
    assert (await server.get("/stats")).json["idempotency"] == {"keys": 1, "window": 86400}
    await later(server, "23h59m")
    assert (await server.post("/jobs/enqueue", {"type": "x"}, KEY)).status == 200
    await later(server, "2m")
    assert (await server.get("/stats")).json["idempotency"]["keys"] == 0
    answer = await server.post("/jobs/enqueue", {"type": "x"}, KEY)
    assert (answer.status, answer.json["id"]) == (201, 2)


async def test_a_refused_request_is_not_remembered(server):
    await server.call("PATCH", "/queues/default", {"max_jobs": 1})
    await server.enqueue()
    check_problem(await server.post("/jobs/enqueue", {"typ": "x"}, KEY), 400, "unknown_field")
    check_problem(await server.post("/jobs/enqueue", {"type": "x"}, KEY), 429, "queue_full")
    await server.dequeue()
    assert (await server.post("/jobs/enqueue", {"type": "y"}, KEY)).status == 201


async def test_an_idempotency_key_is_checked(server):
    for key in ("", "x" * 256, "a\tb"):
        answer = await server.post("/jobs/enqueue", {"type": "x"}, {"Idempotency-Key": key})
        check_problem(answer, 400, "invalid_field", field="Idempotency-Key")
    assert await total(server) == 0


async def test_a_request_with_atomic_0_cannot_have_a_key(server):
    answer = await server.post("/jobs/enqueue?atomic=false", [{"type": "x"}], KEY)
    check_problem(answer, 400, "invalid_field", field="atomic")
    assert await total(server) == 0


# -- unique_key: scopes -----------------------------------------------------------------------------

STATES = ["scheduled", "queued", "in_progress", "concluded", "dead", "cancelled", "forgotten"]
TAKEN = {"queued": 2, "active": 3, "exists": 6}  # in so many of the states, from the first


async def brought(server, state, **options):
    """Brings a job into a state. Returns its id."""
    if state in ("scheduled", "queued", "cancelled"):
        id = await server.enqueue(delay=60 if state == "scheduled" else 0, **options)
        if state == "cancelled":
            await server.delete(f"/jobs/{id}")
        return id
    if state == "dead":
        return await dead(server, **options)
    job = await leased(server, {**options, **({"retain_for": 0} if state == "forgotten" else {})})
    if state != "in_progress":
        await server.post(f"/jobs/{job['id']}/conclude", said(job))
    return job["id"]


@pytest.mark.parametrize("scope", [None, "queued", "active", "exists"])
@pytest.mark.parametrize("state", STATES)
async def test_a_unique_key_is_taken_as_long_as_its_scope_says(server, scope, state):
    options = {"unique_key": "k", "unique_while": scope}
    id = await brought(server, state, **options)
    answer = await server.post("/jobs/enqueue", {"type": "y", **options})
    if STATES.index(state) < TAKEN[scope or "active"]:
        assert (answer.status, answer.json["id"], answer.json["duplicate"]) == (200, id, True)
        assert (answer.json["status"], answer.json["type"]) == (state, "x")
        assert answer.headers["location"] == f"/jobs/{id}"
    else:
        assert (answer.status, answer.json["id"]) == (201, id + 1)
        assert "duplicate" not in answer.json


async def test_the_unique_key_of_a_job_is_shown(server):
    answer = await server.post("/jobs/enqueue", {"type": "x", "unique_key": "k"})
    assert [answer.json[n] for n in ("unique_key", "unique_while", "on_conflict")] == [
        "k",
        "active",
        "ignore",
    ]
    answer = await server.post("/jobs/enqueue?type=x&unique_key=l&unique_while=exists&on_conflict=reject")
    assert [answer.json[n] for n in ("unique_key", "unique_while", "on_conflict")] == [
        "l",
        "exists",
        "reject",
    ]


async def test_a_unique_key_belongs_to_one_queue(server):
    for queue in ("a", "b"):
        for status in (201, 200):
            answer = await server.post("/jobs/enqueue", {"type": "x", "queue": queue, "unique_key": "k"})
            assert (answer.status, answer.json["queue"]) == (status, queue)


async def test_a_job_that_is_queued_again_claims_its_key_again(server):
    job = await leased(server, {"unique_key": "k", "unique_while": "queued"})
    await server.post("/jobs/1/release", said(job))
    answer = await server.post("/jobs/enqueue", {"type": "x", "unique_key": "k", "unique_while": "queued"})
    assert (answer.status, answer.json["id"]) == (200, 1)


async def test_a_redriven_job_claims_its_key_again(server):
    id = await dead(server, unique_key="k")
    await server.post(f"/jobs/{id}/redrive")
    assert (await server.post("/jobs/enqueue", {"type": "x", "unique_key": "k"})).json["id"] == id


# -- unique_key: conflicts --------------------------------------------------------------------------


async def test_a_conflict_may_be_refused(server):
    await server.enqueue(unique_key="k")
    answer = await server.post("/jobs/enqueue", {"type": "y", "unique_key": "k", "on_conflict": "reject"})
    check_problem(answer, 409, "duplicate_job", job_id=1)
    assert await total(server) == 1


@pytest.mark.parametrize("state", ["queued", "scheduled"])
async def test_a_conflict_may_replace_a_job_that_has_not_started(server, state):
    id = await brought(server, state, unique_key="k", payload={"old": 1}, priority=1)
    answer = await server.post(
        "/jobs/enqueue",
        {"type": "y", "unique_key": "k", "on_conflict": "replace", "payload": {"new": 1}, "priority": 5,
         "run_at": "2027-01-15T09:00:00Z"},
    )  # fmt: skip
    assert (answer.status, answer.json["id"], answer.json["duplicate"]) == (200, id, True)
    assert (answer.json["status"], answer.json["priority"]) == ("scheduled", 5)
    assert answer.json["run_at"] == "2027-01-15T09:00:00.000Z"
    job = await server.job(id)
    assert (job["payload"], job["priority"], job["type"]) == ({"new": 1}, 5, "x")
    answer = await server.post(
        "/jobs/enqueue", {"type": "y", "unique_key": "k", "on_conflict": "replace", "payload": 2}
    )
    assert (answer.json["status"], answer.json["priority"]) == ("queued", 0)
    got = await server.dequeue()
    assert (got["id"], got["payload"]) == (id, 2)


async def test_a_conflict_does_not_replace_a_job_that_has_started(server):
    job = await leased(server, {"unique_key": "k", "payload": "old"})
    new = {"type": "y", "unique_key": "k", "on_conflict": "replace", "payload": "new", "priority": 7}
    for status in ("in_progress", "queued"):
        answer = await server.post("/jobs/enqueue", new)
        assert (answer.status, answer.json["id"], answer.json["duplicate"]) == (200, 1, True)
        assert (answer.json["status"], answer.json["priority"]) == (status, 0)
        assert (await server.job(1))["payload"] == "old"
        await server.post("/jobs/1/release", said(job))


async def test_in_an_atomic_batch_one_refused_conflict_refuses_all(server):
    await server.enqueue(unique_key="k")
    for first in ({}, {"unique_key": "l"}):
        answer = await server.post(
            "/jobs/enqueue",
            [
                {"type": "a", **first},
                {"type": "b", "unique_key": "k", "on_conflict": "reject"},
                {"type": "c"},
            ],
        )
        check_problem(answer, 409, "duplicate_job", job_id=1, index=1)
    check_problem(
        await server.post(
            "/jobs/enqueue",
            [{"type": "a", "unique_key": "m"}, {"type": "b", "unique_key": "m", "on_conflict": "reject"}],
        ),
        409, "duplicate_job", index=1,
    )  # fmt: skip
    assert await total(server) == 1


async def test_in_an_atomic_batch_an_ignored_conflict_shows_the_job_in_its_place(server):
    await server.enqueue(unique_key="k")
    answer = await server.post(
        "/jobs/enqueue",
        [{"type": "a"}, {"type": "b", "unique_key": "k"}, {"type": "c", "unique_key": "l"},
         {"type": "d", "unique_key": "l"}],
    )  # fmt: skip
    assert answer.status == 201
    shown = [(job["id"], job["type"], job.get("duplicate")) for job in answer.json["jobs"]]
    assert shown == [(2, "a", None), (1, "x", True), (3, "c", None), (3, "c", True)]


async def test_with_atomic_0_a_conflict_affects_only_its_item(server):
    await server.enqueue(unique_key="k")
    answer = await server.post(
        "/jobs/enqueue?atomic=false",
        [{"type": "a"}, {"type": "b", "unique_key": "k", "on_conflict": "reject"},
         {"type": "c", "unique_key": "k"}],
    )  # fmt: skip
    assert (answer.status, answer.json["ok"], answer.json["failed"]) == (200, 2, 1)
    made, refused, there = answer.json["results"]
    assert made["job"]["id"] == 2
    assert (refused["index"], refused["error"]["code"], refused["error"]["job_id"]) == (1, "duplicate_job", 1)
    assert (there["job"]["id"], there["job"]["duplicate"]) == (1, True)


async def test_scope_and_conflict_need_a_key(server):
    for option in ({"unique_while": "active"}, {"on_conflict": "reject"}):
        answer = await server.post("/jobs/enqueue", {"type": "x", **option})
        check_problem(answer, 400, "missing_field", field="unique_key")
