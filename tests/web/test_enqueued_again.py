"""JOBQUEUE_MAX_BODY limits the payload as it is stored, whatever form it comes in. So a job that is fetched
as JSON, where its payload may be longer, can be enqueued again as it is."""

import base64
import json

import pytest
from leasing import said
from serving import check_problem

from jobqueue import Settings

LIMIT = Settings().max_body
JSON = "application/json"
# Forms of a payload with `size` bytes, and their media types.
RAW = {
    "bytes": (lambda size: b"\xff" * size, "image/jpeg"),
    "quotes": (lambda size: b'"' * size, "text/csv"),
    "control characters": (lambda size: b"\x01" * size, "text/plain; charset=utf-8"),
    "letters": (lambda size: b"x" * size, "text/plain"),
    "JSON": (lambda size: b'"%b"' % (b"\\n" * ((size - 2) // 2)).ljust(size - 2, b"n"), JSON),
}
TOO_LARGE = {"field": "payload", "limit": LIMIT, "setting": "JOBQUEUE_MAX_BODY"}


def in_base64(payload: bytes, kind: str = "image/jpeg"):
    return {
        "type": "x",
        "content_type": kind,
        "payload_encoding": "base64",
        "payload": base64.b64encode(payload).decode(),
    }


def forms(size: int):
    """Jobs in JSON, each with a payload of `size` bytes."""
    return {
        "JSON": {"type": "x", "payload": "y" * (size - 2)},
        "text": {"type": "x", "content_type": "text/csv", "payload": "y" * size},
        "escaped text": {"type": "x", "content_type": "text/csv", "payload": '"' * size},
        "base64": in_base64(b"\0" * size),
        "base64 of JSON": in_base64(b'"%b"' % (b"y" * (size - 2)), JSON),
    }


FITTING = [name for name in forms(2) if name != "escaped text"]  # as text it is longer than in base64


async def enqueued_again(server, id):
    """Enqueues a job as GET shows it; returns both as they are stored."""
    shown = await server.get(f"/jobs/{id}")
    again = await server.post("/jobs/enqueue", shown.body)
    assert again.status == 201, again
    return server.engine.get(id), server.engine.get(again.json["id"])


@pytest.mark.parametrize("form", RAW)
async def test_the_largest_raw_job_is_enqueued_again_as_it_is(server, form):
    make, kind = RAW[form]
    headers = {"Content-Type": kind}
    made = await server.call("POST", "/jobs/enqueue?raw=1", make(LIMIT), headers)
    assert made.status == 201
    first, second = await enqueued_again(server, made.json["id"])
    assert first.payload == second.payload == make(LIMIT)
    shown = [await server.job(job.id) for job in (first, second)]
    assert shown[0].get("content_type") == shown[1].get("content_type") == (None if kind == JSON else kind)
    answer = await server.call("POST", "/jobs/enqueue?raw=1", make(LIMIT + 1), headers)
    check_problem(answer, 413, "body_too_large", **TOO_LARGE)


@pytest.mark.parametrize("form", FITTING)
async def test_the_largest_job_in_json_is_enqueued_again_as_it_is(server, form):
    made = await server.post("/jobs/enqueue", forms(LIMIT)[form])
    assert made.status == 201
    first, second = await enqueued_again(server, made.json["id"])
    assert len(first.payload) == LIMIT
    assert first.payload == second.payload
    check_problem(
        await server.post("/jobs/enqueue", forms(LIMIT + 1)[form]), 413, "body_too_large", **TOO_LARGE
    )


async def test_a_payload_counts_without_the_space_and_the_escapes_around_it(server):
    spaced = b'{"type":"x","payload":   "%b"%b}' % (b"y" * (LIMIT - 2), b" " * 1000)
    assert (await server.post("/jobs/enqueue", spaced)).status == 201
    spaced = b" " * 1000 + b'"%b"\n' % (b"y" * (LIMIT - 2))
    answer = await server.call("POST", "/jobs/enqueue?raw=1", spaced, {"Content-Type": JSON})
    assert answer.status == 201
    half = forms(LIMIT // 2 + 1)["escaped text"]
    assert len(json.dumps(half)) > LIMIT
    assert (await server.post("/jobs/enqueue", half)).status == 201


@pytest.mark.parametrize("lines", [False, True], ids=["array", "lines"])
@pytest.mark.parametrize("form", FITTING)
async def test_of_many_jobs_only_the_one_with_a_larger_payload_is_refused(server, form, lines):
    small = {"type": "x", "payload": 1}
    items = [small, forms(LIMIT + 1)[form], small]
    texts = [json.dumps(item) for item in items]
    body = "\n".join(texts) if lines else f"[{','.join(texts)}]"
    check_problem(await server.post("/jobs/enqueue", body), 413, "body_too_large", index=1, **TOO_LARGE)
    assert server.engine.stats().jobs["queued"] == 0
    answer = await server.post("/jobs/enqueue?atomic=false", body)
    results = answer.json["results"]
    assert [result.get("error", {}).get("code") for result in results] == [None, "body_too_large", None]
    error = results[1]["error"]
    assert {name: error[name] for name in TOO_LARGE} == TOO_LARGE
    assert server.engine.stats().jobs["queued"] == 2


async def test_a_change_a_schedule_and_an_import_have_the_same_limit(server):
    id = await server.enqueue()
    good, bad = ({"payload": "y" * size} for size in (LIMIT - 2, LIMIT - 1))
    assert (await server.call("PATCH", f"/jobs/{id}", good)).status == 200
    check_problem(await server.call("PATCH", f"/jobs/{id}", bad), 413, "body_too_large", **TOO_LARGE)
    plan = {"every": "1h", "job": {"type": "x", **good}}
    assert (await server.call("PUT", "/schedules/s", plan)).status == 201
    plan["job"] |= bad
    check_problem(await server.call("PUT", "/schedules/s", plan), 413, "body_too_large", **TOO_LARGE)
    group = {
        "schedules": [{"name": "a", "every": "1h", "job": {"type": "x"}}, {"name": "b", **plan}],
        "group": "g",
    }
    check_problem(await server.call("PUT", "/schedules", group), 413, "body_too_large", index=1, **TOO_LARGE)
    lines = [json.dumps({"type": "x", **payload}) for payload in (good, bad)]
    answer = await server.call("PUT", "/import", "\n".join(lines))
    check_problem(answer, 413, "body_too_large", line=2, imported=1, **TOO_LARGE)


async def test_a_schedule_with_the_largest_payload_is_put_again_as_it_is(server):
    job = in_base64(b"\x01" * LIMIT, "text/plain")
    made = await server.call("PUT", "/schedules/s", {"every": "1h", "job": job})
    assert made.status == 201
    shown = await server.get("/schedules/s")
    again = await server.call("PUT", "/schedules/t", shown.body.replace(b'"name":"s"', b'"name":"t"'))
    assert again.status == 201
    assert again.json["job"] == made.json["job"]


async def test_a_job_with_all_that_a_job_can_have_is_enqueued_again_as_it_is(server):
    """The request may be as long as the longest answer."""
    made = await server.post(
        "/jobs/enqueue",
        {
            **in_base64(b"\xff" * LIMIT),
            "headers": {"h": "x" * 4000},
            "tags": [f"{n:064}" for n in range(16)],
            "key": "k" * 200,
            "max_attempts": 100,
        },
    )
    assert made.status == 201
    for _ in range(20):
        job = await server.dequeue(consumer="\x80" * 100)
        report = said(job, error={"type": "t", "message": "\x01" * 20_000}, retry_in=0)
        assert (await server.post(f"/jobs/{job['id']}/fail", report)).status == 200
    job = await server.dequeue()
    path = f"/jobs/{job['id']}/conclude?raw=1&lease={job['lease']}"
    assert (await server.post(path, b"\xff" * (Settings().max_result - 1))).status == 200
    size = len((await server.get(f"/jobs/{job['id']}")).body)
    assert Settings().max_request - 300_000 < size <= Settings().max_request
    first, second = await enqueued_again(server, job["id"])
    assert first.payload == second.payload


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_body="1KiB")], ids=["1 KiB"])
async def test_an_export_is_imported_whatever_the_history_of_its_jobs(server):
    """Errors may be longer than the largest payload."""
    id = await server.enqueue(queue="q")
    for _ in range(2):
        job = await server.dequeue(queue="q")
        report = said(job, error="e" * 10_000, retry_in=0)
        assert (await server.post(f"/jobs/{id}/fail", report)).status == 200
    lines = (await server.get("/queues/q/export")).body
    assert len(lines) > 20_000
    assert (await server.post("/queues/q/purge?all=1")).json["changed"] == 1
    assert (await server.call("PUT", "/import", lines)).json == {"imported": 1, "known": 0}


async def test_a_text_is_shown_in_base64_only_if_it_would_be_too_long(server):
    for size, encoding in ((LIMIT // 6, None), (LIMIT // 2, "base64")):
        headers = {"Content-Type": "text/plain"}
        made = await server.call("POST", "/jobs/enqueue?raw=1", b"\x01" * size, headers)
        shown = await server.job(made.json["id"])
        listed = (await server.get("/jobs?payload=1&order=desc&limit=1")).json["jobs"][0]
        taken = await server.dequeue()
        for job in (shown, listed, taken):
            assert job.get("payload_encoding") == encoding
