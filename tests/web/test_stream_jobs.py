"""POST /jobs/stream: jobs delivered over one connection, and what happens to them when it ends."""

import asyncio
import json

import pytest
from http_client import HANG_UPS, request
from serving import check_problem, until
from streams import consume

from jobqueue import Settings
from jobqueue.model import NewJob
from jobqueue.web.streams import job_stream


def held(server):
    return server.engine.stats().jobs["in_progress"]


async def put_in(server, jobs):
    """Enqueues without a pass of the loop if there is no journal."""
    made = server.engine.enqueue_many(jobs)
    return [job.id for job in (await made if isinstance(made, asyncio.Future) else made)]


async def conclude(server, job):
    answer = await server.post(f"/jobs/{job['id']}/conclude", {"lease": job["lease"]})
    assert answer.status == 200, answer


async def test_each_line_equals_the_answer_of_a_dequeue(server):
    id = await server.enqueue(payload={"a": 1}, tags=["t"])
    reading = await consume(server, consumer="c", lease_for="1m")
    assert (reading.status, reading.headers["content-type"]) == (200, "application/x-ndjson")
    line = await reading.line()
    await server.post(f"/jobs/{id}/release", {"lease": json.loads(line)["lease"]})
    again = json.loads(await reading.line())
    assert list(again)[:2] == ["id", "lease"]
    assert list(again)[-1] == "payload"
    await server.post(f"/jobs/{id}/release", {"lease": again["lease"]})
    reading.client.close()
    await until(lambda: server.engine.get(id).status == "queued")
    dequeued = await server.dequeue(consumer="c", lease_for="1m")
    for job in (again, dequeued):
        job.pop("lease"), job.pop("leases"), job.pop("attempts")
    assert again == dequeued


async def test_a_stream_may_take_by_priority(server):
    await server.enqueue(queue="a")
    high = await server.enqueue(queue="b", priority=1)
    reading = await consume(server, queues="a,b", order="priority")
    assert (await reading.job())["id"] == high
    reading.client.close()


async def test_a_stream_never_holds_more_than_prefetch(server):
    ids = [await server.enqueue() for _ in range(5)]
    reading = await consume(server, prefetch=2)
    first, second = await reading.job(), await reading.job()
    await server.get("/healthz")
    assert [first["id"], second["id"]] == ids[:2]
    assert held(server) == 2
    await conclude(server, second)
    third = await reading.job()
    assert (third["id"], held(server)) == (ids[2], 2)
    await server.post(f"/jobs/{first['id']}/fail", {"lease": first["lease"], "retry": False})
    assert (await reading.job())["id"] == ids[3]
    await server.delete(f"/jobs/{third['id']}?force=1")
    assert (await reading.job())["id"] == ids[4]


@pytest.mark.parametrize("report", ["conclude", "heartbeat", "fail", "release"])
async def test_a_stale_lease_lets_a_stream_that_reports_something_take_another_job(server, report):
    """The one job of a consumer takes too long, but it reports the other one in the meantime."""
    await server.enqueue()
    await server.enqueue()
    reading = await consume(server, prefetch=2, lease_for="2s")
    first, second = await reading.job(), await reading.job()
    more = {"lease_for": "1m"} if report == "heartbeat" else {}
    if report in ("fail", "release"):
        more = {"retry_in" if report == "fail" else "delay": "1h"}
    await server.post(f"/jobs/{second['id']}/{report}", {"lease": second["lease"], **more})
    server.clock.advance("3s")
    server.engine.tick()
    again = await reading.job()
    assert (again["id"], again["attempts"]) == (first["id"], 2)


async def test_a_stream_that_reports_nothing_while_its_leases_expire_gets_no_more_jobs_and_ends(server):
    ids = [await server.enqueue() for _ in range(5)]
    reading = await consume(server, prefetch=2, lease_for="2s")
    assert [(await reading.job())["id"], (await reading.job())["id"]] == ids[:2]
    server.clock.advance("3s")
    server.engine.tick()
    assert await reading.rest() == b""
    jobs = [server.engine.get(id) for id in ids]
    assert [(job.status, job.attempts) for job in jobs] == [("queued", 1)] * 2 + [("queued", 0)] * 3


async def test_a_stream_that_sends_heartbeats_until_max_run_for_is_over_goes_on(server):
    for _ in range(2):
        await server.enqueue(max_run_for="2s")
    reading = await consume(server, lease_for="1m")
    job = await reading.job()
    assert job["lease_for"] == 2
    server.clock.advance("1s")
    beat = await server.post(f"/jobs/{job['id']}/heartbeat", {"lease": job["lease"]})
    assert beat.json["lease_for"] == 1
    server.clock.advance("1s")
    server.engine.tick()
    assert (await reading.job())["attempts"] == 2
    reading.client.close()


async def test_a_silent_stream_that_reports_at_last_gets_jobs_again(server):
    await server.enqueue()
    reading = await consume(server, prefetch=2, lease_for="2s")
    first = await reading.job()
    server.clock.advance("1s")
    second = await server.enqueue()
    assert (await reading.job())["id"] == second
    server.clock.advance("1500ms")
    server.engine.tick()
    assert held(server) == 1  # the first job is stale, and not given to this stream
    await server.post(f"/jobs/{second}/conclude", {"lease": server.engine.get(second).lease.token})
    while not (line := await reading.line()):
        pass
    assert json.loads(line)["id"] == first["id"]


async def test_jobs_are_delivered_as_they_are_enqueued(server):
    reading = await consume(server, queues=["a", "b"], prefetch=10)
    await server.waiting(1)
    for queue in ("b", "a", "b"):
        id = await server.enqueue(queue=queue)
        job = await reading.job()
        assert (job["id"], job["queue"]) == (id, queue)


async def test_a_stream_waits_in_line_with_dequeues(server):
    first = await server.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(1)
    reading = await consume(server, prefetch=2)
    await server.waiting(2)
    last = await server.ask("POST", "/jobs/dequeue?wait=30")
    await server.waiting(3)
    ids = [await server.enqueue() for _ in range(3)]
    assert (await first.read("POST")).json["id"] == ids[0]
    assert (await reading.job())["id"] == ids[1]
    # It may take another job, but is at the end of the line of waiting consumers.
    assert (await last.read("POST")).json["id"] == ids[2]


async def test_an_empty_line_keeps_an_idle_stream_alive(server):
    reading = await consume(server)
    await server.waiting(1)
    server.clock.advance("15s")
    server.engine.tick()
    assert await reading.line() == b""
    await server.waiting(1)
    id = await server.enqueue()
    assert (await reading.job())["id"] == id


async def test_the_options_may_be_sent_in_the_query(server):
    id = await server.enqueue(queue="b")
    server.engine.pause("a", None, None)
    answer = await server.post("/jobs/stream?queues=a,b&prefetch=10&for=50ms&consumer=c")
    assert answer.status == 200
    job = json.loads(answer.body)
    assert (job["id"], job["consumer"]) == (id, "c")


@pytest.mark.parametrize(
    ("query", "field"),
    [("prefetch=0", "prefetch"), ("prefetch=1001", "prefetch"), ("queue=a&queues=b", "queue"),
     ("queues=a,,b", "queues"), ("lease_for=1ms", "lease_for"), ("for=0", "for"), ("for=soon", "for")],
)  # fmt: skip
async def test_invalid_options_are_refused_before_the_stream_begins(server, query, field):
    check_problem(await server.post(f"/jobs/stream?{query}"), 400, "invalid_field", field=field)


async def test_a_misspelt_option_is_named(server):
    answer = await server.post("/jobs/stream", {"prefetsch": 1})
    check_problem(answer, 400, "unknown_field", nearest="prefetch")


# -- its end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HANG_UPS)
async def test_unfinished_jobs_return_as_after_an_expired_lease_when_the_client_disconnects(server, how):
    ids = [await server.enqueue() for _ in range(5)]
    reading = await consume(server, prefetch=3)
    done = await reading.job()
    await conclude(server, done)
    await reading.job()
    getattr(reading.client, how)()
    await until(lambda: held(server) == 0)
    assert all(server.engine.get(id).status == "queued" for id in ids[1:])
    assert server.engine.get(ids[1]).attempts == 1
    assert server.engine.get(ids[1]).lease.ended_by == "stale"
    assert server.untouched(ids[4])
    assert server.engine.get(done["id"]).status == "concluded"
    assert [(await server.dequeue())["id"] for _ in ids[1:]] == ids[1:]


@pytest.mark.parametrize("how", HANG_UPS)
async def test_a_client_that_disconnects_while_it_waits_is_forgotten(server, how):
    reading = await consume(server, prefetch=3)
    await server.waiting(1)
    getattr(reading.client, how)()
    await server.waiting(0)
    assert server.untouched(await server.enqueue())


@pytest.mark.parametrize("how", HANG_UPS)
async def test_a_client_that_disconnects_as_a_job_comes_does_not_keep_it(server, how):
    for order in ("before", "after"):
        reading = await consume(server, prefetch=3)
        await server.waiting(1)
        if order == "before":
            getattr(reading.client, how)()
        ids = await put_in(server, [NewJob("x")] * 4)
        if "journal" not in server.engine.durability:
            assert held(server) == 3
        if order == "after":
            getattr(reading.client, how)()
        await until(lambda ids=ids: all(server.engine.get(id).status == "queued" for id in ids))
        assert all(server.engine.get(id).attempts <= 1 for id in ids)  # whether they were written depends
        assert server.untouched(ids[3])
        for id in ids:
            server.engine.cancel(id)
    await server.waiting(0)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_jobs_that_were_not_written_return_without_an_attempt(server, how):
    """They are larger than the socket buffers, and the client reads nothing."""
    jobs = [NewJob("x", payload=b'"%s"' % (b"y" * 200_000))] * 100
    ids = await put_in(server, jobs)
    client = await server.connect()
    client._writer.transport.pause_reading()
    client.ask("POST", "/jobs/stream?prefetch=100")
    await until(lambda: held(server) >= 10)
    assert (await server.get("/healthz")).status == 200
    getattr(client, how)()
    await until(lambda: held(server) == 0)
    assert all(server.engine.get(id).status == "queued" for id in ids)
    assert sum(not server.untouched(id) for id in ids) < 90
    assert server.untouched(ids[-1])


async def test_a_job_that_ends_whoever_takes_it_by_a_stream_is_dead_after_its_attempts(server):
    """From the second time on it also rests, and so leaves the next consumer to the other jobs."""
    poison = await server.enqueue(max_attempts=3, backoff=["10s"], priority=1)
    other = await server.enqueue()
    for attempt in (1, 2):
        reading = await consume(server)
        assert (await reading.job())["id"] == poison
        reading.client.close()
        await until(lambda: held(server) == 0)
        job = server.engine.get(poison)
        assert (job.attempts, job.status) == (attempt, "queued" if attempt == 1 else "scheduled")
    reading = await consume(server)
    assert (await reading.job())["id"] == other
    await server.post(f"/jobs/{other}/conclude", {"lease": server.engine.get(other).lease.token})
    server.clock.advance("11s")
    server.engine.tick()
    assert (await reading.job())["id"] == poison
    reading.client.close()
    await until(lambda: server.engine.get(poison).status == "dead")
    assert server.engine.get(poison).extras.trace.reason == "attempts"


async def test_a_client_that_disconnects_at_once_is_charged_at_most_one_attempt_each_time(server):
    ids = [await server.enqueue(max_attempts=None, backoff=["0"]) for _ in range(3)]
    for how in HANG_UPS:
        for _ in range(5):
            client = await server.connect()
            client.send(request("POST", "/jobs/stream?prefetch=2"))
            getattr(client, how)()
    await until(lambda: server.front.connections() <= 1)
    await until(lambda: all(server.engine.get(id).status == "queued" for id in ids))
    assert all(server.engine.get(id).attempts <= 15 for id in ids)


async def test_a_stream_that_ends_by_itself_leaves_its_jobs_to_the_client(server):
    id = await server.enqueue()
    reading = await consume(server, **{"for": "20ms"})
    job = json.loads(await reading.rest())
    assert (job["id"], held(server)) == (id, 1)
    # The connection is intact: the next request uses it.
    answer = await reading.client.call("POST", f"/jobs/{id}/conclude", {"lease": job["lease"]})
    assert answer.json["status"] == "concluded"


async def test_the_stream_ends_when_the_server_stops_and_its_jobs_can_be_concluded(server):
    await server.enqueue()
    busy, idle = await consume(server), await consume(server, queue="other")
    job = await busy.job()
    await server.waiting(1)
    server.stop_waiting()
    assert [await busy.rest(), await idle.rest()] == [b"", b""]
    client = await server.connect()
    answer = await client.call("POST", f"/jobs/{job['id']}/conclude", {"lease": job["lease"]})
    assert answer.json["status"] == "concluded"
    await until(lambda: server.front.busy() == 0)


async def test_a_stream_that_begins_while_the_server_stops_gets_no_jobs(server):
    await server.enqueue()
    server.stop_waiting()
    answer = await (await server.connect()).call("POST", "/jobs/stream")
    assert (answer.status, answer.body) == (200, b"")
    assert held(server) == 0


@pytest.mark.parametrize("settings", [Settings(first_id=1, access_log="all")])
async def test_many_streams_get_each_job_once(server):
    readings = [await consume(server, prefetch=5, consumer=f"c{n}") for n in range(10)]
    await server.waiting(10)
    seen = []

    async def work(reading):
        while True:
            job = await reading.job()
            seen.append(job["id"])
            await conclude(server, job)

    tasks = [asyncio.ensure_future(work(reading)) for reading in readings]
    ids = [await server.enqueue() for _ in range(200)]
    await until(lambda: len(seen) == 200)
    await until(lambda: held(server) == 0)
    for task in tasks:
        task.cancel()
    assert sorted(seen) == ids
    assert server.engine.stats().jobs["concluded"] == 200


async def test_a_stream_is_kept_alive_while_its_consumer_works(server, monkeypatch):
    monkeypatch.setattr(job_stream, "BEAT", 0.02)
    await server.enqueue()
    reading = await consume(server)
    job = await reading.job()
    assert [await reading.line() for _ in range(2)] == [b"", b""]
    await conclude(server, job)
    id = await server.enqueue()
    line = b""
    while not line:
        line = await reading.line()
    assert json.loads(line)["id"] == id


async def test_many_large_jobs_are_sent_in_pieces(server, monkeypatch):
    jobs = [NewJob("x", payload=b'"%b"' % (b"y" * 50_000))] * 100
    ids = await put_in(server, jobs)
    reading = await consume(server, prefetch=100)
    assert [(await reading.job())["id"] for _ in ids] == ids
