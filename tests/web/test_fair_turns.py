"""`fair_keys` of a queue, through the API."""

from leasing import said
from serving import check_problem


async def fair(server, value=True, **more):
    answer = await server.call("PATCH", "/queues/default", {"fair_keys": value, **more})
    assert answer.status == 200, answer
    return answer.json["settings"]


async def put(server, keys, **job):
    """Enqueues a job of each key; of `-` one without a key. Returns their ids."""
    return [await server.enqueue(**({} if key == "-" else {"key": key}), **job) for key in keys]


async def taken(server, count=100):
    answer = await server.dequeue(count=count)
    return [job["id"] for job in answer["jobs"]] if answer else []


async def test_the_keys_of_a_queue_take_turns(server):
    assert await fair(server) == {"fair_keys": True}
    ids = await put(server, "aaab-c-")
    assert await taken(server) == [ids[index] for index in (0, 3, 4, 5, 1, 6, 2)]


async def test_a_dequeue_of_one_job_after_the_other_gives_the_same_order(server):
    await fair(server)
    ids = await put(server, "aaaab")
    assert [(await server.dequeue())["id"] for _ in range(2)] == [ids[0], ids[4]]
    late = await put(server, "c")
    assert [(await server.dequeue())["id"] for _ in range(2)] == [ids[1], *late]


async def test_peek_shows_the_order_of_the_turns(server):
    await fair(server)
    await put(server, "aaab")
    await put(server, "ab", priority=1)
    shown = [job["id"] for job in (await server.get("/queues/default/peek")).json["jobs"]]
    assert shown == await taken(server) == [5, 6, 1, 4, 2, 3]


async def test_explain_says_how_many_may_be_ahead(server):
    await fair(server)
    ids = await put(server, "aaaab")
    assert (await server.get(f"/jobs/{ids[4]}/explain")).json["ahead"] == 1
    assert (await server.get(f"/jobs/{ids[3]}/explain")).json["ahead"] == 4


async def test_the_limits_of_keys_hold_and_a_key_at_its_limit_keeps_nobody_waiting(server):
    await fair(server, key_limits={"ordered": True})
    ids = await put(server, "aabb")
    jobs = (await server.dequeue(count=9))["jobs"]
    assert [job["id"] for job in jobs] == [ids[0], ids[2]]
    await server.post(f"/jobs/{ids[0]}/conclude", said(jobs[0]))
    assert await taken(server) == [ids[1]]


async def test_a_waiting_consumer_gets_the_job_of_the_key_whose_turn_it_is(server):
    await fair(server)
    ids = await put(server, "aab")
    await server.dequeue()
    await server.post("/queues/default/pause")
    waiting = await server.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(1)
    await server.post("/queues/default/resume")
    assert (await waiting.read("POST")).json["id"] == ids[2]


async def test_the_setting_is_unset_by_null_or_false(server):
    await fair(server)
    ids = await put(server, "aab")
    assert await fair(server, None) == {}
    assert await taken(server) == ids
    await fair(server)
    assert await fair(server, False) == {}
    answer = await server.call("PATCH", "/queues/default", {"fair_keys": "yes"})
    check_problem(answer, 400, "invalid_field", field="fair_keys")
    answer = await server.call("PATCH", "/queues/default?fair_keys=1")
    assert answer.json["settings"] == {"fair_keys": True}
