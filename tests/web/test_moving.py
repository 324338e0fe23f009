"""Export and import: moving a queue from one server to another, or back into the same one."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from http_client import HANG_UPS, request
from serving import Server, check_problem, patch_engine, serving, until
from streams import StreamReader

from jobqueue import Settings
from jobqueue.model import NewJob
from jobqueue.testing import ManualClock


@pytest.fixture
def other(io_loop) -> Iterator[Server]:
    """Another server, with other ids."""
    yield from serving(io_loop, "fast", Settings(first_id=1001), ManualClock())


ATTEMPT = '{"attempt":1,"started_at":"2026-11-24T03:14:15Z","outcome":"stale"}'


async def lines(server, path="/queues/q/export"):
    answer = await server.get(path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson"), answer
    return [json.loads(line) for line in answer.body.splitlines()]


async def import_jobs(server, body, method="PUT"):
    answer = await server.call(method, "/import", body)
    assert answer.status == 200, answer
    return answer.json


async def queue_with_everything(server):
    """Enqueues one job of each kind in the queue q. Returns their ids by kind."""
    ids = {
        "plain": await server.enqueue(queue="q", payload={"n": 1}),
        "dressed": await server.enqueue(
            queue="q", type="mail", priority=-3, payload="ü", tags=["t"], key="k", unique_key="u",
            headers={"h": "x"}, max_attempts=None, backoff=["1s", "1m"], retain_for="1h", lease_for="7s",
            expires_in="1d",
        ),
        "bytes": await server.enqueue(
            queue="q", payload="AP8=", content_type="image/png", payload_encoding="base64"
        ),
    }  # fmt: skip
    ids["later"] = await server.enqueue(queue="q", delay="1h", priority=5)
    ids["failed"] = await server.enqueue(queue="q", priority=9, backoff=["0s"])
    for n in range(2):
        job = await server.dequeue(queue="q", consumer=f"c{n}")
        await server.post(f"/jobs/{job['id']}/fail", {"lease": job["lease"], "error": f"no {n}"})
    ids["dead"] = await server.enqueue(queue="q", priority=10)
    job = await server.dequeue(queue="q")
    await server.post(f"/jobs/{job['id']}/fail", {"lease": job["lease"], "error": "dead", "retry": False})
    ids["running"] = await server.enqueue(queue="q", priority=10)
    assert (await server.dequeue(queue="q"))["id"] == ids["running"]
    return ids


async def test_an_export_has_one_job_on_each_line(server):
    ids = await queue_with_everything(server)
    done = await server.enqueue(queue="q", priority=99)
    job = await server.dequeue(queue="q")
    await server.post(f"/jobs/{done}/conclude", {"lease": job["lease"]})
    await server.enqueue(queue="another")
    jobs = await lines(server)
    assert [job["id"] for job in jobs] == list(ids.values())
    for job in jobs:
        origin = job.pop("origin")
        assert job == await server.job(job["id"])
        assert origin == f"{server.engine.identity}/{job['id']}"
        assert "lease" not in job
    assert [job["id"] for job in await lines(server, "/queues/q/export?status=concluded,dead")] == [
        ids["dead"], done,
    ]  # fmt: skip
    assert await lines(server, "/queues/none/export") == []


async def test_an_imported_job_equals_the_exported_one(other, server):
    ids = await queue_with_everything(server)
    body = (await server.get("/queues/q/export")).body
    assert await import_jobs(other, body) == {"imported": 7, "known": 0}
    new = dict(zip(ids, [job["id"] for job in await lines(other)], strict=True))
    assert new["plain"] == 1001
    for name, id in ids.items():
        before, after = await server.job(id), await other.job(new[name])
        before.pop("id"), after.pop("id")
        if name == "running":
            assert (before.pop("status"), after.pop("status")) == ("in_progress", "queued")
            assert before.pop("lease_expires_at")
            assert [line["outcome"] for line in after.pop("history")] == ["stale"]
        assert after == before, name
    taken = [(await other.dequeue(queue="q", lease_for="2h"))["id"] for _ in range(5)]
    assert taken == [new[name] for name in ("running", "failed", "plain", "bytes", "dressed")]
    other.clock.advance("1h")
    other.engine.tick()
    assert (await other.dequeue(queue="q"))["id"] == new["later"]
    redriven = await other.post(f"/jobs/{new['dead']}/redrive")
    assert (redriven.json["status"], redriven.json["attempts"]) == ("queued", 0)
    assert [line["error"] for line in (await other.job(new["failed"]))["history"]] == ["no 0", "no 1"]


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_job_is_imported_only_once(other, server, method):
    for n in range(5):
        await server.enqueue(queue="q", payload=n)
    body = (await server.get("/queues/q/export")).body
    half = body[: body.index(b"\n", len(body) // 2) + 1]
    some = await import_jobs(other, half, method)
    assert 0 < some["imported"] < 5
    job = await other.dequeue(queue="q")
    await other.post(f"/jobs/{job['id']}/conclude", {"lease": job["lease"]})
    await other.post("/queues/q/purge", {"status": "concluded"})
    assert await import_jobs(other, body, method) == {
        "imported": 5 - some["imported"],
        "known": some["imported"],
    }
    assert await import_jobs(other, body, method) == {"imported": 0, "known": 5}
    assert await import_jobs(server, body, method) == {"imported": 0, "known": 5}
    assert other.engine.stats().jobs["queued"] == 4


async def test_lines_without_an_origin_are_new_jobs_each_time(server):
    body = '{"type":"a","payload":[1]}\n\n  {"Type":"b","queue":"q"}\r\n{"type":"c","unique_key":"u"}'
    assert await import_jobs(server, body) == {"imported": 3, "known": 0}
    # A job whose unique key is taken counts as known too.
    assert await import_jobs(server, body) == {"imported": 2, "known": 1}
    assert [(await server.dequeue())["type"] for _ in range(3)] == ["a", "c", "a"]


async def test_imported_jobs_go_to_waiting_consumers(server):
    waiting = await server.ask("POST", "/jobs/dequeue?queue=q&wait=30")
    await server.waiting(1)
    await import_jobs(server, '{"type":"a","queue":"q"}')
    assert (await waiting.read("POST")).json["type"] == "a"


@pytest.mark.parametrize(
    ("line", "code", "field"),
    [
        ('{"type":"a","status":"concluded"}', "invalid_field", "status"),
        ('{"type":"a","status":"odd"}', "invalid_field", "status"),
        ('{"type":"a","created_at":"yesterday"}', "invalid_field", "created_at"),
        ('{"type":"a","attempts":-1}', "invalid_field", "attempts"),
        ('{"type":"a","history":[{"attempt":1}]}', "invalid_field", "history"),
        ('{"type":"a","history":[%s]}' % ",".join([ATTEMPT] * 21), "invalid_field", "history"),
        ('{"type":"a","origin":""}', "invalid_field", "origin"),
        ('{"type":"a","orgin":"x"}', "unknown_field", "orgin"),
        ('{"queue":"a"}', "missing_field", "type"),
        ("{", "invalid_json", None), ("[]", "invalid_field", None), ('"\xff"', "invalid_json", None),
        ('{"type":"a"} {"type":"b"}', "invalid_json", None),
    ],
)  # fmt: skip
async def test_a_bad_line_is_named_and_the_lines_before_it_are_imported(server, line, code, field):
    good = '{"type":"good"}\n'
    answer = await server.call("PUT", "/import", (good * 3 + "\n" + line + "\n" + good).encode("latin-1"))
    problem = check_problem(answer, 400, code, field=field, line=5, imported=3, known=0)
    assert problem["detail"].startswith("line 5: ")
    assert server.engine.stats().jobs["queued"] == 3


BEYOND = [
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "1969-12-31T23:59:59Z",
    "9999-01-01T00:00:00Z",
]


@pytest.mark.parametrize("at", BEYOND)
@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({"expires_at": ""}, "expires_at"), ({"created_at": ""}, "created_at"), ({"run_at": ""}, "run_at"),
        ({"status": "dead", "finished_at": ""}, "finished_at"),
        ({"history": [{"attempt": 1, "started_at": "", "outcome": "stale"}]}, "history"),
    ],
)  # fmt: skip
async def test_an_instant_that_cannot_be_shown_is_refused(server, line, field, at):
    body = json.dumps({"type": "x", **line}).replace('""', f'"{at}"')
    answer = await server.call("PUT", "/import", body)
    check_problem(answer, 400, "invalid_field", field=field, line=1, imported=0)


@pytest.mark.parametrize("at", ["1970-01-01T00:00:00.000Z", "9998-12-31T23:59:59.999Z"])
async def test_every_accepted_instant_can_be_shown(server, at):
    line = {"attempt": 1, "started_at": at, "ended_at": at, "outcome": "stale"}
    job = {"type": "x", "status": "dead", "expires_at": at, "finished_at": at, "history": [line]}
    await import_jobs(server, json.dumps(job))
    [shown] = (await server.get("/jobs")).json["jobs"]
    whole = await server.job(shown["id"])
    assert (whole["expires_at"], whole["finished_at"], whole["history"][0]["ended_at"]) == (at, at, at)


async def test_an_import_into_a_full_queue_is_refused(server):
    await server.call("PATCH", "/queues/q", {"max_jobs": 3})
    answer = await server.call("PUT", "/import", '{"type":"a","queue":"q"}\n' * 5)
    check_problem(answer, 429, "queue_full", line=4, imported=3)


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_body=2000)])
async def test_an_import_is_limited_only_in_the_length_of_a_line(server):
    line = json.dumps({"type": "a", "payload": "x" * 1000}) + "\n"
    assert (await import_jobs(server, line * 200))["imported"] == 200
    answer = await server.call("PUT", "/import", line + json.dumps({"type": "a", "payload": "x" * 5000}))
    check_problem(answer, 413, "body_too_large", line=2, imported=1)
    answer = await server.call("PUT", "/import", b"x" * (Settings(max_body=2000).max_request + 1))
    check_problem(answer, 413, "body_too_large", line=1)


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_body=2000)])
async def test_a_chunked_import_is_processed_as_it_is_sent(server):
    client = await server.connect()
    client.send(b"PUT /import HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    for n in range(20):
        half = b'{"type":"t%d","payload":"%b' % (n, b"y" * 400)
        client.send(b"%x\r\n%b\r\n" % (len(half), half))
        client.send(b'4\r\n"}\n\n\r\n')
        if n % 5 == 0:
            await until(lambda n=n: server.engine.stats().jobs["queued"] == n + 1)
    client.send(b"0\r\n\r\n" + request("GET", "/healthz"))
    assert (await client.read("PUT")).json == {"imported": 20, "known": 0}
    assert (await client.read()).status == 200


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_body=2000)])
async def test_a_pipelined_import_waits_for_its_turn(server):
    """It follows a waiting request, in the same piece of bytes or in others."""
    lines = b'{"type":"x","payload":"%b"}\n' % (b"y" * 500)
    for count in (1, 30):
        for at_once in (True, False):
            client = await server.connect()
            client.send(request("POST", "/jobs/dequeue?queue=w&wait=30"))
            import_ = request("PUT", "/import", lines * count)
            if not at_once:
                await server.waiting(1)
            client.send(import_ + request("GET", "/healthz"))
            await server.waiting(1)
            before = server.engine.stats().jobs["queued"]
            await server.enqueue(queue="w")
            assert (await client.read("POST")).status == 200
            assert (await client.read("PUT")).json == {"imported": count, "known": 0}
            assert (await client.read()).status == 200
            assert server.engine.stats().jobs["queued"] == before + count


@pytest.mark.parametrize("how", HANG_UPS)
@pytest.mark.parametrize("settings", [Settings(first_id=1, max_body=2000)])
async def test_complete_lines_stay_imported_when_the_client_disconnects(server, how):
    client = await server.connect()
    line = b'{"type":"x","payload":"%b"}\n' % (b"y" * 500)
    client.send(request("PUT", "/import", line * 100)[: -len(line) * 50 - 7])
    await until(lambda: server.engine.stats().jobs["queued"] == 49)
    getattr(client, how)()
    await until(lambda: server.front.connections() == 0)
    assert server.engine.stats().jobs["queued"] == 49
    await until(lambda: len(server.dispatcher.streams) == 0)


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_body=2000)])
async def test_an_import_is_read_no_faster_than_it_is_processed(server, monkeypatch):
    """The memory that it takes in the server is bounded."""
    turn = asyncio.Event()
    known = server.engine.import_jobs

    async def slow(arrivals):
        await turn.wait()
        taken = known(arrivals)
        return await taken if isinstance(taken, asyncio.Future) else taken

    patch_engine(monkeypatch, server, import_jobs=lambda arrivals: asyncio.ensure_future(slow(arrivals)))
    client = await server.connect()
    line = b'{"type":"x","payload":"%b"}\n' % (b"y" * 500)
    client.send(request("PUT", "/import", line * 50_000))
    for _ in range(100):
        await asyncio.sleep(0.001)
    left = client._writer.transport.get_write_buffer_size()
    assert left > 15 << 20
    turn.set()
    async with asyncio.timeout(20):
        assert (await client.read("PUT")).json == {"imported": 50_000, "known": 0}


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_body=2000)])
async def test_a_refused_import_is_answered_however_much_is_sent(server):
    line = b'{"type":"x","payload":"%b"}\n' % (b"y" * 500)
    for headers in ({}, {"Expect": "100-continue"}):
        client = await server.connect()
        body = b"{\n" + line * 20
        answer = await client.call("PUT", "/import", body, headers)
        check_problem(answer, 400, "invalid_json", line=1)
        client = await server.connect()
        answer = await client.call("PUT", "/import?x=1", body, headers)
        check_problem(answer, 400, "unknown_field")
        client = await server.connect()
        answer = await client.call("PUT", "/import", body, {**headers, "Content-Encoding": "gzip"})
        check_problem(answer, 415, "unsupported_encoding")
        client = await server.connect()
        answer = await client.call("PUT", "/import", body, {**headers, "X-Forwarded-For": "10.0.0.1"})
        check_problem(answer, 403, "forbidden")
    answer = await server.call("PATCH", "/import", body)
    check_problem(answer, 405, "method_not_allowed")


async def test_export_and_import_are_administrative_calls(server):
    far = {"X-Forwarded-For": "10.0.0.1"}
    check_problem(await server.get("/queues/q/export", far), 403, "forbidden")
    check_problem(await server.call("PUT", "/import", '{"type":"a"}', far), 403, "forbidden")
    check_problem(await server.post("/import", '{"type":"a"}', far), 403, "forbidden")
    check_problem(
        await server.post("/import", '{"type":"a"}', {"Origin": "http://evil.example"}), 403, "cross_origin"
    )


async def test_an_import_ends_when_the_server_stops(server):
    client = await server.connect()
    client.send(b"PUT /import HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b'd\r\n{"type":"a"}\n\r\n')
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    server.stop_waiting()
    client.send(b'd\r\n{"type":"b"}\n\r\n0\r\n\r\n')
    check_problem(await client.read("PUT"), 503, "stopping", imported=1)


async def test_an_export_has_only_the_jobs_that_existed_at_its_start(server):
    """It ends however fast others are enqueued, and a reader that stops delays nobody."""
    server.engine.enqueue_many([NewJob("x", "q", payload=b'"%b"' % (b"y" * 10_000))] * 3000)
    reading = await StreamReader.begin(server, "GET", "/queues/q/export")
    first = await reading.line()
    reading.client._writer.transport.pause_reading()
    for _ in range(50):
        await server.enqueue(queue="q")
    reading.client._writer.transport.resume_reading()
    count = 1 + (await reading.rest()).count(b"\n")
    assert (json.loads(first)["id"], count) == (1, 3000)


async def test_an_export_finds_its_jobs_however_many_others_are_newer(server):
    ids = [await server.enqueue(queue="old") for _ in range(3)]
    server.engine.enqueue_many([NewJob("x", "busy")] * 11_000)
    assert [job["id"] for job in await lines(server, "/queues/old/export")] == ids
    ids.append(await server.enqueue(queue="old"))
    assert [job["id"] for job in await lines(server, "/queues/old/export")] == ids


async def test_a_job_with_a_requested_cancel_is_not_exported(server):
    id = await server.enqueue(queue="q")
    await server.dequeue(queue="q")
    await server.delete(f"/jobs/{id}")
    assert await lines(server) == []


async def test_a_job_that_was_to_be_cancelled_and_was_concluded_is_exported(server):
    id = await server.enqueue(queue="q")
    job = await server.dequeue(queue="q")
    await server.delete(f"/jobs/{id}")
    assert (await server.post(f"/jobs/{id}/conclude", {"lease": job["lease"]})).json["status"] == "concluded"
    [exported] = await lines(server, "/queues/q/export?status=concluded")
    assert (exported["id"], exported["cancel_requested"]) == (id, True)


async def test_the_trace_context_of_an_import_is_not_that_of_its_jobs(server):
    answer = await server.call("PUT", "/import", '{"type":"a"}', {"traceparent": "00-1-2-01"})
    assert answer.json == {"imported": 1, "known": 0}
    [job] = (await server.get("/jobs")).json["jobs"]
    assert "headers" not in job


async def test_nobody_can_use_the_last_lease_of_an_imported_job_but_its_consumer_may_repeat(server):
    line = {
        "type": "a", "consumer": "ann", "started_at": "2026-11-24T03:14:15.000Z", "attempts": 1, "leases": 1,
        "history": [{**json.loads(ATTEMPT), "outcome": "failed", "consumer": "ann", "error": "no"}],
    }  # fmt: skip
    await import_jobs(server, json.dumps(line))
    [job] = (await server.get("/jobs")).json["jobs"]
    assert (job["consumer"], job["started_at"], job["error"]) == ("ann", line["started_at"], "no")
    for token in ("", "x" * 16):
        answer = await server.post(f"/jobs/{job['id']}/fail", {"lease": token, "consumer": "ann"})
        assert answer.status in (400, 409), answer
    assert (await server.post(f"/jobs/{job['id']}/fail", {"consumer": "ann"})).json == job
    check_problem(await server.post(f"/jobs/{job['id']}/fail", {"consumer": "b"}), 409, "not_in_progress")
    history = (await server.job(job["id"]))["history"]
    assert [(line["outcome"], line["error"]) for line in history] == [("failed", "no")]
