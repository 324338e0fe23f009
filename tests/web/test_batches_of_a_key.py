"""`key_limits.batch`: jobs of one key that one dequeue takes together count as one towards the limit."""

import pytest
from leasing import later, said
from serving import check_problem

LIMITS = [{"ordered": True, "batch": 3}, {"max_in_progress": 1, "batch": 3}]


async def limit(server, limits):
    answer = await server.call("PATCH", "/queues/default", {"key_limits": limits})
    assert answer.json["settings"]["key_limits"] == limits


async def put(server, count, key="k", **job):
    return [await server.enqueue(key=key, **job) for _ in range(count)]


async def take(server, count):
    """Returns the jobs that one dequeue takes."""
    answer = await server.dequeue(count=count)
    return answer["jobs"] if answer else []


def ids(jobs):
    return [job["id"] for job in jobs]


async def end(server, job, call="conclude", **options):
    answer = await server.post(f"/jobs/{job['id']}/{call}", said(job, **options))
    assert answer.status == 200, answer


@pytest.mark.parametrize("limits", LIMITS)
async def test_a_dequeue_takes_a_run_and_the_next_one_waits_for_all_of_it(server, limits):
    await limit(server, limits)
    made = await put(server, 7)
    run = await take(server, 10)
    assert ids(run) == made[:3]
    assert await take(server, 10) == []
    await end(server, run[1])
    await end(server, run[0], "fail", retry=False)
    assert await take(server, 10) == []
    waiting = await server.ask("POST", "/jobs/dequeue?count=2&wait=30")
    await server.waiting(1)
    await end(server, run[2])
    assert ids((await waiting.read("POST")).json["jobs"]) == made[3:5]
    assert await take(server, 10) == []


@pytest.mark.parametrize("limits", LIMITS)
async def test_a_dequeue_of_one_job_is_a_run_of_one(server, limits):
    await limit(server, limits)
    made = await put(server, 3)
    job = await server.dequeue()
    assert await take(server, 10) == []
    await end(server, job)
    answer = await server.post(f"/jobs/{made[1]}/dequeue")
    assert await take(server, 10) == []
    await end(server, answer.json)
    assert ids(await take(server, 10)) == made[2:]


async def test_jobs_go_in_the_order_of_the_queue_and_each_key_has_its_run(server):
    await limit(server, LIMITS[0])
    made = [await server.enqueue(key=key) for key in ("a", "b", "a", "b", "a", "a", "b", "b")]
    urgent = await server.enqueue(key="b", priority=1)
    plain = await server.enqueue()
    taken = ids(await take(server, 100))
    assert taken == [urgent, made[0], made[1], made[2], made[3], made[4], plain]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("call", ["release", "fail"])
async def test_what_comes_back_is_next_when_the_others_have_ended(server, limits, call):
    await limit(server, limits)
    made = await put(server, 5)
    run = await take(server, 3)
    options = {"retry_in": 0} if call == "fail" else {}
    for job in (run[2], run[1]):
        await end(server, job, call, **options)
    assert await take(server, 10) == []
    await end(server, run[0])
    assert ids(await take(server, 10)) == made[1:4]


async def test_a_run_that_expires_returns_in_order(server):
    await limit(server, LIMITS[0])
    made = await put(server, 5)
    assert ids(await take(server, 3)) == made[:3]
    await later(server, "10m")
    assert ids(await take(server, 2)) == made[:2]
    assert await take(server, 2) == []


async def test_in_strict_order_a_job_that_rests_holds_up_what_is_after_the_run(server):
    await limit(server, LIMITS[0])
    made = await put(server, 5)
    run = await take(server, 3)
    await end(server, run[1], "fail", retry_in=10)
    for job in (run[0], run[2]):
        await end(server, job)
    assert await take(server, 10) == []
    await later(server, 10)
    assert ids(await take(server, 10)) == [made[1], *made[3:]]


async def test_several_runs_of_a_key_may_go_at_once(server):
    await limit(server, {"max_in_progress": 2, "batch": 2})
    made = await put(server, 9)
    assert ids(await take(server, 9)) == made[:4]  # two runs
    assert await take(server, 9) == []


async def test_one_run_ends_and_the_other_goes_on(server):
    await limit(server, {"max_in_progress": 2, "batch": 2})
    made = await put(server, 9)
    first, second = await take(server, 2), await take(server, 2)
    await end(server, first[0])
    await end(server, second[0])
    assert await take(server, 9) == []
    await end(server, second[1])
    assert ids(await take(server, 9)) == made[4:6]


async def test_each_job_of_a_run_counts_towards_a_rate(server):
    rate = {"count": 2, "per": 3600, "burst": 2}
    await limit(server, {"max_in_progress": 1, "rate": rate, "batch": 5})
    made = await put(server, 5)
    assert ids(await take(server, 9)) == made[:2]


async def test_a_purge_of_a_run_ends_it(server):
    await limit(server, LIMITS[0])
    made = await put(server, 4)
    await take(server, 3)
    await server.post("/queues/default/purge?status=in_progress")
    assert ids(await take(server, 9)) == made[3:]


async def test_explain_counts_the_jobs_of_a_run(server):
    await limit(server, LIMITS[0])
    made = await put(server, 4)
    await take(server, 3)
    [reason, *_] = (await server.get(f"/jobs/{made[3]}/explain")).json["reasons"]
    assert reason["code"] == "key_limit"
    assert "than the 3 jobs it has" in reason["detail"]


async def test_a_batch_needs_a_limit_and_is_limited(server):
    for limits in (
        {"batch": 0},
        {"ordered": True, "batch": 1001},
        {"batch": 2},
        {"rate": {"count": 1}, "batch": 2},
    ):
        answer = await server.call("PATCH", "/queues/default", {"key_limits": limits})
        check_problem(answer, 400, "invalid_field", field="key_limits")
    answer = await server.call("PATCH", "/queues/default", {"key_limits": {"batch": 1}})
    assert answer.json["settings"]["key_limits"] == {}
