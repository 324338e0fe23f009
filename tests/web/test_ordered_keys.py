"""Keys whose jobs go in strict order."""

import pytest
from leasing import later, said


async def order(server):
    answer = await server.call("PATCH", "/queues/default", {"key_limits": {"ordered": True}})
    assert answer.json["settings"]["key_limits"] == {"ordered": True}


async def three_of_a_key(server):
    """Enqueues three jobs of one key and one of another, and takes the first one and the other one."""
    ids = [await server.enqueue(key="k") for _ in range(3)]
    other = await server.enqueue(key="other", priority=-1)
    job = await server.dequeue()
    assert job["id"] == ids[0]
    return job, ids, other


async def all_in_order(server):
    """Takes and concludes jobs until there is none, and returns their ids."""
    found = []
    while job := await server.dequeue():
        found.append(job["id"])
        await server.post(f"/jobs/{job['id']}/conclude", said(job))
    return found


@pytest.mark.parametrize(
    ("call", "options"),
    [("fail", {"retry_in": 10}), ("fail", {"retry_in": 0}), ("release", {"delay": 10}), ("release", {})],
)
async def test_nothing_after_a_job_that_comes_back_goes_before_it(server, call, options):
    await order(server)
    job, ids, other = await three_of_a_key(server)
    assert await all_in_order(server) == [other]
    await server.post(f"/jobs/{job['id']}/{call}", said(job, **options))
    if 10 in options.values():
        assert await server.dequeue() is None
        await later(server, 10)
    assert await all_in_order(server) == ids


async def test_nothing_after_a_stale_job_goes_before_it(server):
    await order(server)
    _, ids, other = await three_of_a_key(server)
    assert await all_in_order(server) == [other]
    await later(server, "10m")
    assert (await server.dequeue())["id"] == ids[0]
    await later(server, "10m")  # the second time it rests
    assert (await server.job(ids[0]))["status"] == "scheduled"
    assert await server.dequeue() is None
    await later(server, "1h")
    assert await all_in_order(server) == ids


@pytest.mark.parametrize("end", ["conclude", "cancel", "dead", "purge", "move"])
async def test_the_next_job_goes_when_the_first_one_is_finished_or_gone_also_while_it_rests(server, end):
    await order(server)
    job, ids, other = await three_of_a_key(server)
    assert await all_in_order(server) == [other]
    waiting = await server.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(1)
    path = f"/jobs/{job['id']}"
    if end == "conclude":
        await server.post(f"{path}/conclude", said(job))
    elif end == "dead":
        await server.post(f"{path}/fail", said(job, retry=False))
    else:
        await server.post(f"{path}/fail", said(job, retry_in=60))
        if end == "cancel":
            await server.delete(path)
        else:
            await server.post(f"/queues/default/{end}?status=scheduled" + ("&to=o" if end == "move" else ""))
    assert (await waiting.read("POST")).json["id"] == ids[1]


async def test_a_job_with_a_delay_has_its_place_in_the_order_when_it_is_ready(server):
    await order(server)
    late = await server.enqueue(key="k", delay=10)
    soon = await server.enqueue(key="k")
    assert await all_in_order(server) == [soon]
    await later(server, 10)
    assert await all_in_order(server) == [late]


@pytest.mark.parametrize("leased_before", [False, True])
async def test_a_change_of_the_time_of_a_job_keeps_those_before_it_going(server, leased_before):
    await order(server)
    ids = [await server.enqueue(key="k") for _ in range(3)]
    put_off = ids[0] if leased_before else ids[1]
    if leased_before:
        await server.post(f"/jobs/{put_off}/release", said(await server.dequeue()))
    await server.call("PATCH", f"/jobs/{put_off}", {"delay": "1h"})
    assert await all_in_order(server) == ([] if leased_before else [ids[0], ids[2]])
    await later(server, "1h")
    assert await all_in_order(server) == (ids if leased_before else [put_off])


async def test_without_the_setting_others_go_past_a_job_that_rests(server):
    job, ids, other = await three_of_a_key(server)
    await server.post(f"/jobs/{job['id']}/fail", said(job, retry_in=60))
    assert await all_in_order(server) == [*ids[1:], other]


async def test_explain_says_that_an_earlier_job_of_the_key_rests(server):
    await order(server)
    job, ids, _ = await three_of_a_key(server)
    await server.post(f"/jobs/{job['id']}/fail", said(job, retry_in=60))
    [reason, *_] = (await server.get(f"/jobs/{ids[1]}/explain")).json["reasons"]
    assert reason["code"] == "key_limit"
    assert "strict order" in reason["detail"]
