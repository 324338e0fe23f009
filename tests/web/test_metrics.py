"""`GET /metrics`, read by Prometheus's own parser."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from serving import check_problem, until
from streams import StreamReader

from jobqueue import MemoryEngine, Settings
from jobqueue.errors import QueueFull
from jobqueue.model import DequeueRequest, LeaseClaim, NewJob, Options
from jobqueue.testing import ManualClock
from jobqueue.web.access.tokens import digest_of
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.operations import metrics
from jobqueue.web.request_metrics import BOUNDS


def read(text):
    """Returns samples by name and labels."""
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
    """Returns the value of the one sample with this name and these labels."""
    wanted = {f"{key}={value}" for key, value in labels.items()}
    found = [value for (known, *pairs), value in samples.items() if known == name and wanted <= set(pairs)]
    assert len(found) == 1, (name, labels, found)
    return found[0]


async def test_metrics_count_the_steps_of_the_jobs_of_each_queue(server):
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


async def test_metrics_count_and_time_requests_by_operation_and_status(server):
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


async def test_histogram_buckets_are_cumulative_and_end_with_the_total(server):
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


async def test_metrics_describe_the_process(server):
    samples = await scrape(server)
    for name in (
        "jobqueue_connections", "jobqueue_connections_limit", "jobqueue_resident_memory_bytes",
        "jobqueue_queues", "jobqueue_waiters", "jobqueue_uptime_seconds", "jobqueue_start_time_seconds",
    ):  # fmt: skip
        assert only(samples, name) >= 0
    assert only(samples, "jobqueue_info", auth="none", durability=server.engine.durability) == 1
    assert only(samples, "jobqueue_gc_collections_total", generation="0") > 0


@pytest.mark.parametrize("settings", [Settings(first_id=1, metrics_queues=2)])
async def test_queues_beyond_the_limit_are_reported_as_one(server):
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
async def test_metrics_for_a_token_show_only_its_queues(server, tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text(
        f'[mailer]\ndigest = "{digest_of("mailer")}"\nrights = ["read"]\nqueues = ["mail"]\n'
        f'[producer]\ndigest = "{digest_of("producer")}"\nrights = ["enqueue"]\n'
    )
    for queue in ("secret", "mail"):
        await server.enqueue(queue=queue)
        await server.call("PUT", f"/schedules/{queue}", {"every": 60, "job": {"type": "x", "queue": queue}})
    whole = {key[0] for key in await scrape(server)}
    server.dispatcher.auth = Dispatcher(MemoryEngine(Settings(tokens_file=str(file)))).auth
    samples = await scrape(server, Authorization="Bearer mailer")
    assert only(samples, "jobqueue_schedules", state="active") == 1
    assert {key[1] for key in samples if key[0] == "jobqueue_jobs"} == {"queue=mail"}
    assert only(samples, "jobqueue_queues") == 1
    told = {key[0] for key in samples}
    for others in (
        "http_requests_total",
        "slots",
        "remembered_jobs",
        "idempotency_keys",
        "schedule_outcomes_total",
    ):
        assert f"jobqueue_{others}" in whole - told
    check_problem(await server.get("/metrics"), 401, "unauthorized")
    check_problem(await server.get("/metrics", {"Authorization": "Bearer producer"}), 403, "forbidden")


async def test_a_client_that_hangs_up_during_metrics_does_no_harm(server):
    client = await server.ask("GET", "/metrics")
    client.reset()
    await until(lambda: server.front.connections() == 0 or server.again)
    assert only(await scrape(server), "jobqueue_queues") == 0


@pytest.mark.parametrize("settings", [Settings(first_id=1, dead_jobs=10)])
async def test_dead_jobs_that_are_forgotten_before_their_time_are_counted_and_are_events(server, logged):
    stream = await StreamReader.begin(server, "GET", "/events?event=dropped")
    for _ in range(25):
        await server.enqueue(queue="d", max_attempts=1, retain_for="30d")
        job = await server.dequeue(queue="d")
        await server.post(f"/jobs/{job['id']}/fail?lease={job['lease']}")
    assert only(await scrape(server), "jobqueue_dropped_total", kind="dead_jobs") == 15
    check_problem(await server.get("/jobs/1"), 410, "job_forgotten")
    text = b""
    while text.count(b"event: dropped") < 15:
        text += await stream.line()
    server.clock.advance("1s")  # the counts are looked at once a second
    server.engine.tick()
    assert [record.levelname for record in logged] == ["WARNING"]
    logged.clear()


# -- counters while queues come and go ----------------------------------------------------------------


class Counted:
    """A queue that is used at random, and what Prometheus has read of it so far."""

    def __init__(self):
        settings = Settings(metrics_queues=2, max_queues=4, first_id=1, retain="30m")
        self.clock = ManualClock()
        self.engine = MemoryEngine(settings, self.clock)
        self.context = Dispatcher(self.engine).context
        self.enqueued = self.unread = 0
        self.last = {}  # the last value of each series

    def use(self, queue, jobs, remembered):
        for _ in range(jobs):
            options = None if remembered else Options(retain_for=0)
            try:
                self.engine.enqueue(NewJob("x", queue, options=options))
            except QueueFull:  # all names are in use
                return
            self.enqueued += 1
            self.unread += 1
            [(job, lease)] = self.engine.dequeue(DequeueRequest((queue,)))
            self.engine.conclude(LeaseClaim(job.id, lease.token, None), None)

    def scrape(self):
        """Adds up what `rate()` would see: the increase of each series, and all of a new one."""
        text = b"".join(generate_latest(metrics._Only(family)) for family in metrics._families(self.context))
        samples = read(text.decode())
        series = {
            labels: value
            for labels, value in samples.items()
            if labels[0] in ("jobqueue_events_total", "jobqueue_run_seconds_count")
        }
        for labels, value in self.last.items():
            assert series.get(labels, -1) >= value, (labels, value, series.get(labels))
        enqueued = {labels: value for labels, value in series.items() if "event=enqueued" in labels}
        assert sum(enqueued.values()) == self.enqueued
        assert sum(value - self.last.get(labels, 0) for labels, value in enqueued.items()) == self.unread
        self.last, self.unread = series, 0


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("use"), st.sampled_from("abcdefgh"), st.integers(1, 3), st.booleans()),
            st.tuples(st.just("wait"), st.sampled_from(["1m", "31m", "61m"])),
            st.tuples(st.just("scrape")),
        ),
        max_size=40,
    )
)
def test_no_counter_falls_or_moves_to_another_series_however_queues_come_and_go(steps):
    counted = Counted()
    for step, *rest in [*steps, ("scrape",)]:
        if step == "use":
            counted.use(*rest)
        elif step == "wait":
            counted.clock.advance(*rest)
            counted.engine.tick()
        else:
            counted.scrape()


async def test_a_queue_that_comes_again_goes_on_counting_where_it_was(server):
    for expected in (1, 2):
        await server.enqueue(queue="a", retain_for=0)
        job = await server.dequeue(queue="a")
        await server.post(f"/jobs/{job['id']}/conclude?lease={job['lease']}")
        assert only(await scrape(server), "jobqueue_events_total", queue="a", event="concluded") == expected
        server.clock.advance("2h")
        server.engine.tick()
        assert (await server.get("/queues")).json["queues"] == []
        assert (await server.get("/queues/a")).json["totals"]["concluded"] == expected
        assert only(await scrape(server), "jobqueue_events_total", queue="a", event="concluded") == expected
        assert only(await scrape(server), "jobqueue_run_seconds_count", queue="a") == expected


async def test_schedules_are_counted_by_their_states_and_outcomes(server):
    every = {"every": "1m", "job": {"type": "x", "queue": "q"}}
    for name, more in {
        "runs": {"overlap": "allow"}, "skips": {}, "paused": {"paused": True},
        "ended": {"ends_at": "2027-01-15T08:00:30Z"}, "blocked": {"job": {"type": "x", "queue": "full"}},
    }.items():  # fmt: skip
        assert (await server.call("PUT", f"/schedules/{name}", {**every, **more})).status == 201
    samples = await scrape(server)
    assert only(samples, "jobqueue_schedules", state="active") == 3
    assert only(samples, "jobqueue_schedule_lag_seconds") == 0
    assert only(samples, "jobqueue_schedule_outcomes_total", outcome="enqueued") == 0
    assert (await server.call("PATCH", "/queues/full", {"max_jobs": 1})).status == 200
    await server.enqueue(queue="full")
    for _ in range(2):
        server.clock.advance("1m")
        server.engine.tick()
    await server.post("/schedules/paused/resume")
    await server.post("/schedules/paused/pause")
    await server.post("/schedules/runs/run")
    server.clock.advance("30s")
    samples = await scrape(server)
    states = {"active": 2, "blocked": 1, "paused": 1, "ended": 1}
    assert {state: only(samples, "jobqueue_schedules", state=state) for state in states} == states
    assert only(samples, "jobqueue_schedule_lag_seconds") == 30
    outcomes = {"enqueued": 3, "manual": 1, "skipped_overlap": 1, "skipped_paused": 1, "missed": 1}
    assert {
        outcome: only(samples, "jobqueue_schedule_outcomes_total", outcome=outcome) for outcome in outcomes
    } == outcomes
