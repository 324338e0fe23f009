"""`GET /metrics`, read by Prometheus's own parser."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import check_problem, until

from jobqueue import MemoryEngine, Settings
from jobqueue.web.access.tokens import digest_of
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.request_metrics import BOUNDS


def read(text):
    """Samples by name and labels."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation for family in families)
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def scrape(server, **headers):
    answer = await server.get("/metrics", headers)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return read(answer.body.decode())


def only(samples, name, **labels):
    """The value of the one sample with this name and these labels."""
    wanted = {f"{key}={value}" for key, value in labels.items()}
    found = [value for (known, *pairs), value in samples.items() if known == name and wanted <= set(pairs)]
    assert len(found) == 1, (name, labels, found)
    return found[0]


async def test_it_says_what_happened_to_the_jobs_of_each_queue(server):
    for queue in ("a", "a", "b"):
        await server.enqueue(queue=queue)
    job = await server.dequeue(queue="a")
    server.clock.advance("3s")
    await server.post(f"/jobs/{job['id']}/conclude?lease={job['lease']}")
    dead = await server.dequeue(queue="b")
    await server.post(f"/jobs/{dead['id']}/fail?lease={dead['lease']}&retry=0")
    server.clock.advance("2s")
    samples = await scrape(server)
    statuses = {
        (queue, status): only(samples, "jobqueue_jobs", queue=queue, status=status)
        for queue in "ab"
        for status in ("queued", "concluded", "dead")
    }
    assert statuses == {
        ("a", "queued"): 1, ("a", "concluded"): 1, ("a", "dead"): 0,
        ("b", "queued"): 0, ("b", "concluded"): 0, ("b", "dead"): 1,
    }  # fmt: skip
    for event, count in {"enqueued": 2, "dequeued": 1, "concluded": 1, "stale": 0, "failed": 0}.items():
        assert only(samples, "jobqueue_events_total", queue="a", event=event) == count
    assert only(samples, "jobqueue_events_total", queue="b", event="dead") == 1
    assert only(samples, "jobqueue_oldest_age_seconds", queue="a") == 5
    assert only(samples, "jobqueue_wait_seconds_count", queue="a") == 1
    assert only(samples, "jobqueue_run_seconds_sum", queue="a") == 3
    assert only(samples, "jobqueue_run_seconds_bucket", queue="a", le="1") == 0
    assert only(samples, "jobqueue_run_seconds_bucket", queue="a", le="5") == 1
    assert only(samples, "jobqueue_run_seconds_bucket", queue="a", le="+Inf") == 1


async def test_it_counts_requests_by_operation_and_status_and_times_them(server):
    before = await scrape(server)
    await server.enqueue()
    await server.post("/jobs/enqueue", b"{")
    await server.get("/nowhere")
    await server.get("/jobs/enqueue")
    waiting = await server.ask("POST", "/jobs/dequeue?queue=later&wait=30")
    await server.waiting(1)
    await server.enqueue(queue="later")
    assert (await waiting.read()).status == 200
    samples = await scrape(server)

    def more(operation, status):
        labels = (f"operation={operation}", f"status={status}")
        name = ("jobqueue_http_requests_total", *labels)
        return samples.get(name, 0) - before.get(name, 0)

    assert more("enqueue", 201) == 2
    assert more("enqueue", 400) == 1
    assert more("dequeue", 200) == 1
    assert more("none", 404) == 1
    assert more("none", 405) == 1
    assert only(samples, "jobqueue_http_request_seconds_count", operation="enqueue") == 3
    assert 0 < only(samples, "jobqueue_http_request_seconds_sum", operation="dequeue") < 5
    assert not any("operation=none" in key for key in samples if key[0].startswith("jobqueue_http_request_s"))


async def test_buckets_are_cumulative_and_end_with_all(server):
    for _ in range(3):
        await server.enqueue()
    samples = await scrape(server)
    buckets = [
        value
        for (name, *pairs), value in samples.items()
        if name == "jobqueue_http_request_seconds_bucket" and "operation=enqueue" in pairs
    ]
    assert len(buckets) == len(BOUNDS) + 1
    assert buckets == sorted(buckets)
    assert buckets[-1] == 3


async def test_it_says_how_the_process_is(server):
    samples = await scrape(server)
    for name in (
        "jobqueue_connections", "jobqueue_connections_limit", "jobqueue_resident_memory_bytes",
        "jobqueue_queues", "jobqueue_waiters", "jobqueue_uptime_seconds", "jobqueue_start_time_seconds",
    ):  # fmt: skip
        assert only(samples, name) >= 0
    assert only(samples, "jobqueue_info", auth="none", durability=server.engine.durability) == 1
    assert only(samples, "jobqueue_gc_collections_total", generation="0") > 0


@pytest.mark.parametrize("settings", [Settings(first_id=1, metrics_queues=2)])
async def test_queues_beyond_the_limit_are_told_together(server):
    for queue in ("a", "b", "c", "d"):
        await server.enqueue(queue=queue)
    await server.dequeue(queue="d")
    samples = await scrape(server)
    named = {key[1] for key in samples if key[0] == "jobqueue_jobs"}
    assert named == {"queue=a", "queue=b", "queue=(others)"}
    assert only(samples, "jobqueue_jobs", queue="(others)", status="queued") == 1
    assert only(samples, "jobqueue_events_total", queue="(others)", event="enqueued") == 2
    assert only(samples, "jobqueue_queues") == 4


@pytest.mark.parametrize("server", ["fast"], indirect=True)
async def test_an_access_token_sees_its_own_queues(server, tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text(
        f'[mailer]\ndigest = "{digest_of("mailer")}"\nrights = ["read"]\nqueues = ["mail"]\n'
        f'[producer]\ndigest = "{digest_of("producer")}"\nrights = ["enqueue"]\n'
    )
    for queue in ("secret", "mail"):
        await server.enqueue(queue=queue)
    whole = {key[0] for key in await scrape(server)}
    server.api.auth = Dispatcher(MemoryEngine(Settings(tokens_file=str(file)))).auth
    samples = await scrape(server, Authorization="Bearer mailer")
    assert {key[1] for key in samples if key[0] == "jobqueue_jobs"} == {"queue=mail"}
    assert only(samples, "jobqueue_queues") == 1
    told = {key[0] for key in samples}
    for others in ("http_requests_total", "slots", "remembered_jobs", "idempotency_keys"):
        assert f"jobqueue_{others}" in whole - told
    check_problem(await server.get("/metrics"), 401, "unauthorized")
    check_problem(await server.get("/metrics", {"Authorization": "Bearer producer"}), 403, "forbidden")


async def test_a_client_that_hangs_up_meanwhile_does_no_harm(server):
    client = await server.ask("GET", "/metrics")
    client.reset()
    await until(lambda: server.front.connections() == 0 or server.again)
    assert only(await scrape(server), "jobqueue_queues") == 0
