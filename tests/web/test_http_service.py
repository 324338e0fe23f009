"""Queues, and the calls about the service itself."""

import re

import pytest
from serving import check_problem

from jobqueue import Settings, __version__
from jobqueue.web.writers.help_page import help_text

NO_JOBS = {"scheduled": 0, "queued": 0, "in_progress": 0, "concluded": 0, "dead": 0, "cancelled": 0}
NO_TOTALS = {
    "enqueued": 0,
    "dequeued": 0,
    "concluded": 0,
    "stale": 0,
    "released": 0,
    "failed": 0,
    "dead": 0,
    "cancelled": 0,
}


async def test_an_unused_queue_is_shown_with_zeros_and_is_not_created(server):
    answer = await server.get("/queues/unused")
    assert answer.status == 200
    assert answer.json == {
        "name": "unused", "paused": False, "jobs": NO_JOBS, "retrying": 0, "consumers_waiting": 0,
        "rates": {"in": 0, "out": 0}, "totals": NO_TOTALS, "settings": {},
    }  # fmt: skip
    assert list(answer.json) == [
        "name", "paused", "jobs", "consumers_waiting", "retrying", "rates", "totals", "settings"
    ]  # fmt: skip
    assert list(answer.json["jobs"]) == list(NO_JOBS)
    assert list(answer.json["totals"]) == list(NO_TOTALS)
    await server.dequeue(queue="unused")
    assert (await server.get("/queues")).json == {"queues": []}


async def test_queues_are_listed_by_name(server):
    for name in ("b", "a", "B", "_", "9", "a.b"):
        await server.enqueue(queue=name)
    names = [queue["name"] for queue in (await server.get("/queues")).json["queues"]]
    assert names == sorted(["b", "a", "B", "_", "9", "a.b"])


async def test_a_queue_counts_its_jobs_and_its_totals(server):
    for _ in range(5):
        await server.enqueue(queue="q")
    jobs = (await server.dequeue(queue="q", count=3, lease_for=1))["jobs"]
    await server.post(f"/jobs/{jobs[0]['id']}/conclude", {"lease": jobs[0]["lease"]})
    await server.delete("/jobs/5")
    server.clock.advance("2s")
    server.engine.tick()
    queue = (await server.get("/queues/q")).json
    assert queue["jobs"] == {**NO_JOBS, "queued": 3, "concluded": 1, "cancelled": 1}
    assert queue["totals"] == {
        **NO_TOTALS,
        "enqueued": 5,
        "dequeued": 3,
        "concluded": 1,
        "stale": 2,
        "cancelled": 1,
    }
    assert (await server.get("/queues")).json["queues"] == [queue]


async def test_a_queue_shows_the_age_of_its_oldest_queued_job(server):
    await server.enqueue(queue="q")
    server.clock.advance("1.5s")
    await server.enqueue(queue="q", priority=5)
    assert (await server.get("/queues/q")).json["oldest_age"] == 1.5
    await server.dequeue(queue="q")
    await server.dequeue(queue="q")
    queue = (await server.get("/queues/q")).json
    assert "oldest_age" not in queue
    assert list(queue)[:3] == ["name", "paused", "jobs"]


async def test_a_queue_with_a_waiting_consumer_is_listed(server):
    await server.ask("POST", "/jobs/dequeue?queues=w1,w2&wait=30")
    await server.waiting(1)
    listed = (await server.get("/queues")).json["queues"]
    assert [(queue["name"], queue["consumers_waiting"]) for queue in listed] == [("w1", 1), ("w2", 1)]
    assert (await server.get("/queues/w1")).json["consumers_waiting"] == 1


@pytest.mark.parametrize("settings", [Settings(retain="1s", first_id=1)], ids=["forgets soon"])
async def test_a_queue_without_jobs_leaves_the_list_after_an_hour(server):
    await server.enqueue(queue="q")
    await server.delete("/jobs/1")
    server.clock.advance("2s")
    server.engine.tick()
    assert len((await server.get("/queues")).json["queues"]) == 1
    server.clock.advance("1h")
    server.engine.tick()
    assert (await server.get("/queues")).json == {"queues": []}
    assert (await server.get("/queues/q")).status == 200


async def test_a_bad_queue_name_is_refused(server):
    problem = check_problem(await server.get("/queues/a%20b"), 400, "invalid_field", field="name")
    assert "letters" in problem["detail"]


# -- the service ------------------------------------------------------------------------------------


async def test_healthz_shows_version_durability_and_access_control(server):
    answer = await server.get("/healthz")
    assert answer.status == 200
    assert answer.json == {
        "status": "ok",
        "version": __version__,
        "durability": server.engine.durability,
        "auth": "none",
    }


async def test_a_stopping_server_is_healthy_but_not_ready_and_accepts_no_jobs(server):
    await server.enqueue()
    job = await server.dequeue()
    assert (await server.get("/readyz")).status == 200
    server.engine.stop_waiting()
    assert (await server.get("/healthz")).status == 200
    answer = await server.get("/readyz")
    check_problem(answer, 503, "not_ready")
    assert int(answer.headers["retry-after"]) > 0
    for path, body in [("/jobs/enqueue", {"type": "x"}), ("/jobs/enqueue", [{"type": "x"}]),
                       ("/jobs/enqueue?atomic=false", [{"type": "x"}])]:  # fmt: skip
        answer = await server.post(path, body)
        check_problem(answer, 503, "stopping")
        assert int(answer.headers["retry-after"]) > 0
    assert (await server.post("/jobs/1/conclude", {"lease": job["lease"]})).status == 200


async def test_a_stopping_server_closes_each_connection_after_its_answer(server):
    server.stop_waiting()
    for path in ("/healthz", "/readyz", "/queues", "/nowhere"):
        assert (await server.get(path)).headers["connection"] == "close"
    assert (await server.post("/jobs/enqueue", {"type": "x"})).headers["connection"] == "close"


async def test_stats_shows_the_figures_of_the_server(server):
    await server.enqueue()
    await server.enqueue(queue="other")
    await server.dequeue()
    await server.ask("POST", "/jobs/dequeue?queue=none&wait=30")
    await server.waiting(1)
    server.engine.tick()
    stats = (await server.get("/stats")).json
    journal = [] if stats["durability"] == "memory" else ["journal"]
    assert list(stats) == [
        "version", "started_at", "uptime", "durability", "auth", "jobs", "queues", "consumers_waiting", "connections",
        "ticks", "lanes", "remembered", "idempotency", *journal, "new_errors", "memory",
        "limits",
    ]  # fmt: skip
    assert not journal or stats["journal"]["rows"] > stats["journal"]["commits"] > 0
    assert stats["version"] == __version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stats["started_at"])
    assert stats["uptime"] >= 0
    assert stats["jobs"] == {**NO_JOBS, "queued": 1, "in_progress": 1}
    assert (stats["queues"], stats["consumers_waiting"]) == (2, 1)
    assert stats["connections"] == server.front.connections() >= 2
    assert set(stats["ticks"]) == {"count", "last_ms", "max_ms"}
    assert stats["ticks"]["count"] == 1 + len(journal)  # one before a journal serves
    assert set(stats["lanes"]) == {"count", "slots", "empty", "compactions", "compaction_max_ms"}
    assert stats["idempotency"] == {"keys": 0, "window": 86_400}
    assert stats["memory"]["rss_bytes"] > 1_000_000
    assert stats["limits"]["max_body"] == 1024 * 1024
    assert stats["limits"]["wait_max"] == 60
    assert None not in stats.values()
    assert None not in stats["limits"].values()


async def test_help_is_one_screen_of_text_with_lines_to_paste(server):
    for path, accept in (("/", "*/*"), ("/help", "text/html")):
        answer = await server.get(path, {"Host": "queue.example:8080", "Accept": accept})
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        text = answer.body.decode()
        assert "curl -X POST queue.example:8080/jobs/dequeue" in text
        assert len(text.splitlines()) <= 40
        assert all(len(line) <= 110 for line in text.splitlines())
        assert __version__ in text


def test_with_access_tokens_each_line_of_the_help_sends_one():
    text = help_text("http", "h", "1", 300, in_memory=True, tokens=True).decode()
    calls = [line for line in text.splitlines() if "curl " in line and "for curl" not in line]
    assert len(calls) > 15
    assert all('curl -u ":$TOKEN" ' in line for line in calls)
    workers = [line for line in calls if "/worker." in line]
    assert len(workers) == 2
    assert all('| JOBQUEUE_TOKEN="$TOKEN" ' in line for line in workers)


async def test_the_lines_of_the_help_work_as_written(server):
    text = (await server.get("/help", {"Host": "h"})).body.decode()
    body = re.search(r"curl -d '(.*)' h/jobs/enqueue", text)[1]
    under_a_lease = re.findall(r"curl -X POST 'h(/jobs/ID/\S+)'()", text)
    under_a_lease += [(path, sent) for sent, path in re.findall(r"curl -d '(.*)' h(/jobs/ID/\S+)", text)]
    assert {path.split("?")[0] for path, _ in under_a_lease} == {
        "/jobs/ID/conclude", "/jobs/ID/heartbeat", "/jobs/ID/release", "/jobs/ID/fail"
    }  # fmt: skip
    for line, sent in under_a_lease:
        assert (await server.post("/jobs/enqueue", body)).status == 201
        job = (await server.post(re.search(r"'h(/jobs/dequeue\?\S+)'", text)[1])).json
        line, sent = (s.replace("ID", str(job["id"])).replace("LEASE", job["lease"]) for s in (line, sent))
        assert (await server.post(line.replace("wait=30", "wait=0"), sent)).status in (200, 204), line
    for path in re.findall(r"curl '?h(/[a-z./]+)'?(?: |$)", text, re.MULTILINE) + re.findall(
        r" h(/[a-z]+) ", text
    ):
        if path not in ("/jobs/enqueue", "/openapi.json"):
            assert (await server.get(path)).status == 200, path
    assert (await server.get(re.search(r"'h(/jobs\?\S+)'", text)[1])).json == {"jobs": []}


async def test_help_shows_the_address_of_the_request(server):
    for host in ("a.b-c:1", "[::1]:8080", "192.0.2.7", "LOCALHOST"):
        assert f" {host}/queues " in (await server.get("/help", {"Host": host})).body.decode()


async def test_help_never_repeats_an_invalid_host(server):
    """Such a request is refused, or the answer has a name that is safe to paste."""
    for host in (
        "<script>alert(1)</script>", "a b", "a;rm -rf /", "$(id)", "`id`", "a'b", 'a"b', "a/b", "a@b", "é",
        "x" * 256,
    ):  # fmt: skip
        client = await server.connect()
        client.send(f"GET /help HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        said = await client.rest()
        assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
        assert host.encode() not in said
        if said.startswith(b"HTTP/1.1 200"):
            assert b" localhost:8080/queues " in said


async def test_help_works_without_a_host_header(server):
    client = await server.connect()
    client.send(b"GET /help HTTP/1.0\r\n\r\n")
    assert b" localhost:8080/queues " in await client.rest()


@pytest.mark.parametrize("server", ["fast journal", "tornado journal"], indirect=True)
async def test_while_the_engine_refuses_requests_the_api_is_healthy_but_not_ready(server):
    server.engine._refuses = "the server is reading its journal"
    for method, path in [
        ("GET", "/jobs/1"),
        ("POST", "/jobs/enqueue"),
        ("GET", "/stats"),
        ("GET", "/readyz"),
    ]:
        answer = await server.call(method, path)
        check_problem(answer, 503, "not_ready", detail="the server is reading its journal")
        assert answer.headers["retry-after"] == "1"
    for path in ("/healthz", "/help", "/openapi.json"):
        assert (await server.get(path)).status == 200
