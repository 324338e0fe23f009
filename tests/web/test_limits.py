"""Limits as clients meet them, and where they are shown."""

import json

import pytest
from serving import check_problem

from jobqueue import Settings
from jobqueue.engine.memory_limit import MemoryLimit
from jobqueue.web.access.tokens import digest_of


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_queues=2, memory_limit="16GiB")])
async def test_too_many_queues_and_too_little_memory_are_refused(server):
    await server.enqueue(queue="a")
    await server.enqueue(queue="b")
    full = await server.post("/jobs/enqueue", {"type": "x", "queue": "c"})
    check_problem(full, 429, "queue_full", setting="JOBQUEUE_MAX_QUEUES", limit=2)
    server.engine.memory_limit = MemoryLimit(1, lambda: 2)
    server.engine.tick()
    refused = await server.post("/jobs/enqueue", {"type": "x", "queue": "a"})
    check_problem(refused, 507, "out_of_memory", setting="JOBQUEUE_MEMORY_LIMIT")
    job = await server.dequeue(queue="a")
    assert (await server.post(f"/jobs/{job['id']}/conclude?lease={job['lease']}")).status == 200


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_jobs=2)])
async def test_no_call_exceeds_the_limit_of_jobs(server):
    await server.enqueue()
    await server.enqueue(queue="b")
    one, two = {"type": "x"}, [{"type": "x"}, {"type": "x", "queue": "new"}]
    for path, body in (
        ("/jobs/enqueue", one),
        ("/jobs/enqueue", two),
        ("/jobs/enqueue?type=x&raw=1", b"bytes"),
        ("/queues/new/enqueue", one),
        ("/import", json.dumps(one)),
    ):
        refused = await server.post(path, body)
        check_problem(refused, 429, "queue_full", setting="JOBQUEUE_MAX_JOBS", limit=2)
        assert refused.headers["retry-after"] == "5"
    for more in ({"Idempotency-Key": "k"}, {"Prefer": "wait=1"}):
        check_problem(await server.post("/jobs/enqueue", one, more), 429, "queue_full")
    each = (await server.post("/jobs/enqueue?atomic=false", two)).json
    assert [result["error"]["code"] for result in each["results"]] == ["queue_full"] * 2
    stats = (await server.get("/stats")).json
    assert sum(stats["jobs"].values()) == 2
    assert sorted(queue["name"] for queue in (await server.get("/queues")).json["queues"]) == ["b", "default"]
    assert (await server.post("/queues/default/purge", {"all": True})).status == 200
    await server.enqueue()


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_waiters=1)])
async def test_too_many_waiting_requests_are_refused(server):
    await server.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(1)
    refused = await server.post("/jobs/dequeue?wait=30")
    check_problem(refused, 503, "overloaded", setting="JOBQUEUE_MAX_WAITERS")
    assert refused.headers["retry-after"] == "1"
    assert (await server.post("/jobs/dequeue")).status == 204


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_waiters=3)])
async def test_a_wait_counts_once_for_each_queue(server):
    waiting = await server.ask("POST", "/jobs/dequeue?queues=a,b,c,a&wait=30")
    await server.waiting(1)
    refused = await server.post("/jobs/dequeue?queue=d&wait=30")
    check_problem(refused, 503, "overloaded", setting="JOBQUEUE_MAX_WAITERS")
    await server.enqueue(queue="b")
    assert (await waiting.read()).status == 200
    await server.ask("POST", "/jobs/dequeue?queue=d&wait=30")
    await server.waiting(1)


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_headers="2KiB")])
async def test_too_large_headers_are_refused(server):
    answer = await server.get("/stats", {"X": "a" * 1500})
    assert answer.status == 200
    client = await server.connect()
    client.send(b"GET /stats HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 3000 + b"\r\n\r\n")
    said = await client.rest()
    if server.front.name == "fast":
        assert said.startswith(b"HTTP/1.1 431 ")
        assert b'"setting":"JOBQUEUE_MAX_HEADERS"' in said
    else:  # Tornado closes
        assert said == b"" or said.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("settings", [Settings(first_id=1, rate=5)])
async def test_the_rate_of_one_address_is_limited(server):
    statuses = [(await server.get("/stats")).status for _ in range(12)]
    assert statuses[:2] == [200, 200]
    assert statuses[-1] == 429
    refused = check_problem(await server.post("/jobs/enqueue", {"type": "x"}), 429, "too_many_requests")
    assert (refused["setting"], refused["limit"], refused["retry_after"]) == ("JOBQUEUE_RATE", 5, 1)
    assert (await server.get("/healthz")).status == 200


@pytest.mark.parametrize("settings", [Settings(first_id=1, rate=1)])
async def test_a_stream_counts_as_one_request(server):
    client = await server.connect()
    assert (await client.call("GET", "/top?for=1ms")).status == 200
    assert (await client.call("GET", "/top?for=1ms")).status == 429


@pytest.fixture
def two_tokens(tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text(
        "".join(f'[{name}]\ndigest = "{digest_of(name)}"\nrights = ["read"]\n' for name in ("one", "two"))
    )
    return Settings(first_id=1, rate=5, tokens_file=str(file))


class TestByToken:
    @pytest.fixture
    def settings(self, two_tokens):
        return two_tokens

    async def test_each_token_has_its_own_rate(self, server):
        one, two = ({"Authorization": f"Bearer {name}"} for name in ("one", "two"))
        for _ in range(12):
            last = await server.get("/stats", one)
        assert last.status == 429
        server.again = False
        assert (await server.get("/stats", two)).status == 200


@pytest.mark.parametrize(
    "settings", [Settings(first_id=1, max_jobs=7, rate=1000, memory_limit="8GiB", head_timeout="5s")]
)
async def test_stats_shows_every_limit(server):
    limits = (await server.get("/stats")).json["limits"]
    shown = {name for name in limits if limits[name] is not None}
    assert shown == {
        "max_body", "max_result", "max_depth", "max_batch", "max_connections", "wait_max", "lease_max",
        "retain", "retain_jobs", "retain_bytes", "max_headers", "max_jobs", "max_queues", "max_schedules", "max_waiters",
        "max_delay", "head_timeout", "body_timeout", "idle_timeout", "write_timeout", "rate",
    }  # fmt: skip
    assert (limits["max_jobs"], limits["head_timeout"], limits["rate"]) == (7, 5, 1000)
    memory = (await server.get("/stats")).json["memory"]
    assert memory["limit_bytes"] == 8 << 30
