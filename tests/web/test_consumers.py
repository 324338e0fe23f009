"""GET /consumers: who holds jobs, and who waits for one."""

import pytest
from leasing import NOW, later, leased, said
from serving import check_problem


async def test_consumers_are_shown_with_what_they_hold_and_when_they_were_last_seen(server):
    first = await leased(server, {"type": "a"}, consumer="ann", lease_for=60)
    await leased(server, {"queue": "q"}, consumer="ann", lease_for=60)
    await leased(server, lease_for=60)
    await later(server, 10)
    await server.post(f"/jobs/{first['id']}/heartbeat", said(first))
    answer = (await server.get("/consumers")).json
    ann, nobody = answer["consumers"]
    assert ann["jobs"][0] == {
        "id": first["id"], "queue": "default", "type": "a", "started_at": NOW,
        "lease_expires_at": "2027-01-15T08:01:10.000Z", "attempts": 1,
    }  # fmt: skip
    assert (ann["consumer"], ann["in_progress"], ann["last_seen"]) == ("ann", 2, "2027-01-15T08:00:10.000Z")
    assert ("consumer" in nobody, nobody["in_progress"], nobody["last_seen"]) == (False, 1, NOW)
    assert (answer["waiting"], answer["complete"]) == ([], True)


async def test_waiting_consumers_are_shown_once_with_their_queues(server):
    await server.ask("POST", "/jobs/dequeue?queues=a,b&wait=30&consumer=ann")
    await server.waiting(1)
    assert (await server.get("/consumers")).json == {
        "consumers": [],
        "waiting": [{"consumer": "ann", "queues": ["a", "b"], "wait_until": "2027-01-15T08:00:30.000Z"}],
        "complete": True,
    }


async def test_a_list_of_consumers_is_limited_and_says_so(server):
    for name in ("a", "b", "b"):
        await leased(server, consumer=name)
    answer = (await server.get("/consumers?limit=1")).json
    assert [each["consumer"] for each in answer["consumers"]] == ["b"]
    assert answer["complete"] is False
    for _ in range(12):
        await leased(server, consumer="b")
    busy = (await server.get("/consumers")).json["consumers"][0]
    assert (busy["in_progress"], len(busy["jobs"])) == (14, 10)
    check_problem(await server.get("/consumers?limit=0"), 400, "invalid_field", field="limit")


@pytest.mark.parametrize("many", ["leases", "waiters"])
async def test_a_list_that_leaves_out_some_is_not_complete(server, monkeypatch, many):
    """Only so many leases and waiting consumers are examined."""
    monkeypatch.setattr("jobqueue.engine.consumers._EXAMINED", 2)
    for number in range(2):
        await (leased(server) if many == "leases" else server.ask("POST", "/jobs/dequeue?wait=30"))
        if many == "waiters":
            await server.waiting(number + 1)
    assert (await server.get("/consumers")).json["complete"] is True
    await (leased(server) if many == "leases" else server.ask("POST", "/jobs/dequeue?wait=30"))
    if many == "waiters":
        await server.waiting(3)
    assert (await server.get("/consumers")).json["complete"] is False
