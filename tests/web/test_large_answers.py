"""Answers with many jobs are limited in bytes, however large the jobs are."""

import pytest
from leasing import said

from jobqueue import Settings
from jobqueue.core.matching import BATCH_BYTES
from jobqueue.web.writers.answer_size import PAGE_BYTES

JOB = 300_000  # bytes of a payload
RESULT = 200_000
FITS = PAGE_BYTES // JOB + 1  # the last one may reach beyond


async def large_jobs(server, count, **more):
    return [await server.enqueue(payload="x" * JOB, **more) for _ in range(count)]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_large_jobs_are_short_and_lose_none(server, order):
    ids = await large_jobs(server, 2 * FITS + 1)
    seen, cursor, lengths = [], "", []
    while True:
        answer = await server.get(f"/jobs?payload=1&limit=1000&order={order}{cursor}")
        assert len(answer.body) < PAGE_BYTES + JOB + 10_000
        lengths.append(len(answer.json["jobs"]))
        seen += [job["id"] for job in answer.json["jobs"]]
        if "next" not in answer.json:
            break
        cursor = f"&cursor={answer.json['next']}"
    assert seen == sorted(ids, reverse=order == "desc")
    assert lengths == [FITS, FITS, 1]


async def test_without_payloads_a_page_of_large_jobs_is_whole(server):
    await large_jobs(server, FITS + 1)
    answer = await server.get("/jobs?limit=1000")
    assert (len(answer.json["jobs"]), "next" in answer.json) == (FITS + 1, False)


async def concluded(server, count):
    """Concludes so many jobs with long results; returns their ids and leases."""
    held = []
    for _ in range(count):
        await server.enqueue()
        job = await server.dequeue()
        assert (
            await server.post(f"/jobs/{job['id']}/conclude", said(job, result="x" * RESULT))
        ).status == 200
        held.append({"id": job["id"], "lease": job["lease"]})
    return held


async def test_results_count_too(server):
    await concluded(server, 20)
    answer = await server.get("/jobs?limit=1000")
    assert 1 < len(answer.json["jobs"]) < 20
    assert "next" in answer.json


@pytest.mark.parametrize("face", ["html", "text"])
async def test_a_list_in_another_format_continues_too(server, face):
    await large_jobs(server, FITS + 1)
    answer = await server.get(f"/jobs?payload=1&limit=1000&format={face}")
    assert f"cursor={FITS}" in answer.body.decode()


async def test_the_page_of_a_queue_continues_after_long_results(server):
    await concluded(server, 20)
    assert b">more</a>" in (await server.get("/queues/default?format=html")).body


async def test_peek_ends_after_the_same_number_of_bytes(server):
    ids = await large_jobs(server, FITS + 1)
    answer = await server.get("/queues/default/peek?payload=1&limit=1000")
    assert [job["id"] for job in answer.json["jobs"]] == ids[:FITS]


async def test_a_dequeue_of_many_takes_fewer_if_they_are_large(server):
    ids = await large_jobs(server, FITS + 1)
    first = await server.dequeue(count=1000)
    assert [job["id"] for job in first["jobs"]] == ids[:FITS]
    assert server.untouched(ids[FITS])
    last = await server.dequeue(count=1000)
    assert [job["id"] for job in last["jobs"]] == ids[FITS:]


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_body=2 * BATCH_BYTES)], ids=["large"])
async def test_a_dequeue_takes_one_job_that_is_larger_than_the_limit(server):
    for _ in range(2):
        await server.enqueue(payload="x" * (BATCH_BYTES + 1))
    assert len((await server.dequeue(count=10))["jobs"]) == 1
    answer = await server.get("/jobs?payload=1")
    assert (len(answer.json["jobs"]), "next" in answer.json) == (1, True)


async def test_a_waiting_dequeue_takes_fewer_too(server):
    client = await server.ask("POST", "/jobs/dequeue", {"count": 1000, "wait": 10})
    await server.waiting(1)
    await server.call("PATCH", "/queues/default", {"max_in_progress": 1000})
    await server.call("POST", "/queues/default/pause")
    ids = await large_jobs(server, FITS + 1)
    await server.call("POST", "/queues/default/resume")
    answer = await client.read()
    assert [job["id"] for job in answer.json["jobs"]] == ids[:FITS]


async def test_long_errors_and_headers_make_a_batch_shorter(server):
    ids = [await server.enqueue(headers={"a": "x" * 4000}) for _ in range(1000)]
    batch = await server.dequeue(count=1000)
    assert BATCH_BYTES // 4100 < len(batch["jobs"]) < 1000
    assert server.untouched(ids[-1])


async def test_in_an_answer_for_many_later_jobs_have_no_long_fields(server):
    """A conclude that is repeated is answered with the job as it is, and so a thousand may be."""
    held = await concluded(server, 1)
    answer = await server.post("/jobs/conclude", held * 100)
    assert len(answer.body) < 2 * PAGE_BYTES
    assert answer.json["ok"] == 100
    first, last = answer.json["results"][0]["job"], answer.json["results"][-1]["job"]
    assert first["result"] == "x" * RESULT
    assert (last["id"], last["status"], "result" in last) == (held[0]["id"], "concluded", False)
    assert (await server.job(held[0]["id"]))["result"] == "x" * RESULT


@pytest.mark.parametrize("how", ["", "?atomic=false", "idempotent"])
async def test_nor_have_jobs_that_were_there_before(server, how):
    job = {"type": "x", "unique_key": "u", "unique_while": "exists"}
    await server.post("/jobs/enqueue", job)
    taken = await server.dequeue()
    headers = {"Idempotency-Key": "k"} if how == "idempotent" else {}
    if headers:
        await server.post("/jobs/enqueue", [job] * 100, headers)
    await server.post(f"/jobs/{taken['id']}/conclude", said(taken, result="x" * RESULT))
    answer = await server.post("/jobs/enqueue" + how.removeprefix("idempotent"), [job] * 100, headers)
    assert answer.status == 200
    assert len(answer.body) < 2 * PAGE_BYTES
    jobs = answer.json["jobs"] if "jobs" in answer.json else [one["job"] for one in answer.json["results"]]
    assert len(jobs) == 100
    assert all(one["duplicate"] for one in jobs)
    assert "result" in jobs[0]
    assert "result" not in jobs[-1]
