"""Faults that the tests of the whole OpenAPI document (tests/server/test_schemathesis.py) have found."""


async def test_a_queued_job_may_get_another_key_and_stays_in_its_place(server):
    """It was a 500, since two lanes were in the index under one place."""
    for key in ("a", "b", "b"):
        await server.enqueue(key=key)
    for key in ("b", "c", "a", "b"):
        answer = await server.call("PATCH", "/jobs/1", {"key": key})
        assert (answer.status, answer.json["key"]) == (200, key)
    assert [(await server.dequeue())["id"] for _ in range(3)] == [1, 2, 3]


async def test_a_list_with_payloads_may_be_requested_in_the_query(server):
    """It was a 400, since other calls have a field of that name in the body."""
    await server.enqueue(payload={"a": 1})
    assert (await server.get("/jobs?payload=1")).json["jobs"][0]["payload"] == {"a": 1}
    assert "payload" not in (await server.get("/jobs?payload=0")).json["jobs"][0]
