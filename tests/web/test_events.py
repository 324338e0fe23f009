"""GET /events: server-sent events."""

import asyncio
import threading
from collections import deque

import pytest
from http_client import HANG_UPS
from serving import check_problem, until
from streams import StreamReader, watch

from jobqueue import Settings
from jobqueue.web.streams import event_log, events, flow


async def test_each_step_of_a_job_has_an_event_name(server):
    reading = await watch(server)
    assert reading.headers["content-type"] == "text/event-stream"
    assert reading.headers["cache-control"] == "no-store"
    id = await server.enqueue(delay="1m", type="mail", queue="q")
    await server.call("PATCH", f"/jobs/{id}", {"delay": None})
    await server.call("PATCH", f"/jobs/{id}", {"type": "other"})
    for verb in ("release", "fail"):
        job = await server.dequeue(queue="q", consumer="c")
        await server.post(
            f"/jobs/{id}/{verb}", {"lease": job["lease"], **({"retry": False} if verb == "fail" else {})}
        )
    await server.post(f"/jobs/{id}/redrive")
    await server.dequeue(queue="q", lease_for="1s")
    server.clock.advance("2s")
    server.engine.tick()
    job = await server.dequeue(queue="q")
    await server.post(f"/jobs/{id}/conclude", {"lease": job["lease"], "result": "secret"})
    await server.post("/queues/q/pause")
    await server.post("/queues/q/resume")
    await server.enqueue(queue="q", payload="secret")
    await server.post("/queues/q/purge", {"all": True})
    seen = [await reading.event() for _ in range(16)]
    assert [event.name for event in seen] == [
        "scheduled", "changed", "changed", "dequeued", "released", "dequeued", "dead", "redriven", "dequeued",
        "stale", "dequeued", "concluded", "paused", "resumed", "enqueued", "purged",
    ]  # fmt: skip
    assert [event.id for event in seen] == list(range(seen[0].id, seen[0].id + 16))
    first, leased = seen[0].data, seen[3].data
    assert list(first) == ["at", "id", "queue", "type", "status", "attempts"]
    assert (first["id"], first["queue"], first["type"], first["status"]) == (id, "q", "mail", "scheduled")
    assert (leased["status"], leased["attempts"], leased["consumer"]) == ("in_progress", 1, "c")
    assert seen[12].data == {"at": seen[12].data["at"], "queue": "q"}
    assert "secret" not in repr(seen)
    assert job["lease"] not in repr(seen)


async def test_a_watcher_gets_only_the_events_that_match_its_filter(server):
    await server.enqueue(queue="a")
    id = await server.enqueue(queue="b")
    every = await watch(server)
    of_queue, of_names = await watch(server, "?queue=a,c"), await watch(server, "?event=concluded,paused")
    of_job, of_both = (
        await watch(server, f"?job={id},7777"),
        await watch(server, f"?job={id}&event=paused,concluded"),
    )
    for queue in ("a", "b"):
        job = await server.dequeue(queue=queue)
        await server.post(f"/jobs/{job['id']}/conclude")
    await server.post("/queues/a/pause")
    assert [(await every.event()).name for _ in range(5)] == ["dequeued", "concluded"] * 2 + ["paused"]
    assert [(await of_queue.event()).name for _ in range(3)] == ["dequeued", "concluded", "paused"]
    assert [(await of_names.event()).data["queue"] for _ in range(3)] == ["a", "b", "a"]
    assert [(await of_job.event()).name for _ in range(2)] == ["dequeued", "concluded"]
    assert (await of_both.event()).name == "concluded"


@pytest.mark.parametrize("query", ["event=nothing", "job=x", "job=", "queue=", "for=0", "event="])
async def test_an_invalid_option_is_refused(server, query):
    check_problem(await server.get(f"/events?{query}"), 400, "invalid_field", field=query.partition("=")[0])


async def test_a_client_that_reconnects_is_sent_what_it_missed(server):
    reading = await watch(server, "?queue=default")
    ids = [await server.enqueue() for _ in range(3)]
    seen = [await reading.event() for _ in range(3)]
    reading.client.close()
    await until(lambda: len(server.dispatcher.context.events) == 0)
    ids += [await server.enqueue() for _ in range(3)]
    again = await watch(server, "?queue=default", last=seen[0].id)
    assert [(await again.event()).data["id"] for _ in range(5)] == ids[1:]
    of_job = await watch(server, f"?job={ids[4]}", last=seen[0].id)
    assert (await of_job.event()).data["id"] == ids[4]
    up_to_date = await watch(server, last=seen[0].id + 5)
    id = await server.enqueue()
    assert (await up_to_date.event()).data["id"] == id


async def test_events_that_are_no_longer_kept_are_reported_as_a_gap(server, monkeypatch):
    monkeypatch.setattr(event_log, "RING_EVENTS", 3)
    reading = await watch(server)
    first = await server.enqueue()
    known = await reading.event()
    reading.client.close()
    await until(lambda: len(server.dispatcher.context.events) == 0)
    ids = [await server.enqueue() for _ in range(5)]
    again = await watch(server, last=known.id)
    gap = await again.event()
    assert (gap.name, gap.data["after"], gap.data["next"]) == ("gap", known.id, known.id + 3)
    assert [(await again.event()).data["id"] for _ in range(3)] == ids[-3:]
    # Its id is that of the last missing event: a client that reconnects with it gets the rest, and no gap.
    after = await watch(server, last=gap.id)
    assert (await after.event()).data["id"] == ids[-3]
    assert first not in ids


@pytest.mark.parametrize("last", [0, 5, 10**17])
async def test_an_id_that_was_never_given_is_a_gap(server, last):
    await server.enqueue()
    reading = await watch(server, last=last)
    assert (await reading.event()).name == "gap"
    id = await server.enqueue()
    assert (await reading.event()).data["id"] == id


async def test_nothing_is_recorded_while_nobody_watches(server, monkeypatch):
    hub = server.dispatcher.context.events
    assert not hub.recording
    monkeypatch.setattr(events, "KEEP", 0.01)
    reading = await watch(server)
    await server.enqueue()
    known = await reading.event()
    reading.client.close()
    await until(lambda: not hub.recording)
    await until(lambda: server.engine._queue.state.event is None)
    assert not hub.log._ring
    await server.enqueue()
    # Events were not recorded meanwhile, which is reported.
    again = await watch(server, last=known.id)
    assert (await again.event()).name == "gap"


async def test_the_ring_is_kept_if_a_client_reconnects_in_time(server, monkeypatch):
    monkeypatch.setattr(events, "KEEP", 0.05)
    reading = await watch(server)
    await server.enqueue()
    known = await reading.event()
    reading.client.close()
    await until(lambda: len(server.dispatcher.context.events) == 0)
    again = await watch(server, last=known.id)
    await asyncio.sleep(0.1)
    assert server.dispatcher.context.events.recording
    id = await server.enqueue()
    assert (await again.event()).data["id"] == id


async def test_a_comment_is_sent_when_nothing_happens(server, monkeypatch):
    monkeypatch.setattr(events, "BEAT", 0.01)
    reading = await watch(server)
    assert await reading.frame() == b":"
    id = await server.enqueue()
    assert (await reading.event()).data["id"] == id


async def test_more_events_than_fit_one_piece_are_all_sent(server, monkeypatch):
    monkeypatch.setattr(event_log, "BATCH_BYTES", 100)
    reading, of_queue = await watch(server), await watch(server, "?queue=default")
    ids = [await server.enqueue() for _ in range(100)]
    assert [(await reading.event()).data["id"] for _ in ids] == ids
    assert [(await of_queue.event()).data["id"] for _ in ids] == ids


class Ring(deque):
    """Counts look-ups by index, which are slow in the middle of a deque."""

    looked_up = 0

    def __getitem__(self, index):
        self.looked_up += 1
        return super().__getitem__(index)


async def test_missed_events_are_read_in_order_without_look_ups_by_index(server):
    ring = server.dispatcher.context.events.log._ring = Ring()
    first = await watch(server)
    for _ in range(3):
        await server.post("/jobs/enqueue", [{"type": "x"}] * 1000)
    id = await server.enqueue(queue="other")
    numbers = [(await first.event()).id for _ in range(3001)]
    ring.looked_up = 0
    missed = await watch(server, "?queue=other", numbers[0])
    assert (await missed.event()).data["id"] == id
    none = await watch(server, "?queue=none", numbers[0])
    id = await server.enqueue(queue="none")
    assert (await none.event()).data["id"] == id
    assert ring.looked_up < 100


async def test_a_watcher_that_does_not_read_is_disconnected_and_others_miss_nothing(server, monkeypatch):
    monkeypatch.setattr(event_log, "RING_BYTES", 1 << 20)
    monkeypatch.setattr(flow, "LOOK", 0.05)
    stuck = await StreamReader.begin(server, "GET", "/events")
    stuck.client._writer.transport.pause_reading()
    other = await watch(server)
    sent, told = 0, 0
    while len(server.dispatcher.context.events) == 2:
        made = await server.post("/jobs/enqueue", [{"type": "x" * 256}] * 1000)
        sent += len(made.json["jobs"])
        while told < sent:
            assert (await other.event()).data["type"] == "x" * 256
            told += 1
        assert sent < 100_000
    stuck.client._writer.transport.resume_reading()
    assert (await stuck.client.rest()).count(b"event: enqueued") < sent
    assert server.dispatcher.context.events.log._bytes <= 1 << 20


@pytest.mark.parametrize("how", HANG_UPS)
async def test_a_watcher_that_hangs_up_is_forgotten(server, how):
    reading = await watch(server)
    getattr(reading.client, how)()
    await until(lambda: len(server.dispatcher.context.events) == 0)
    assert len(server.dispatcher.streams) == 0


async def test_the_stream_ends_cleanly_when_the_server_stops(server):
    reading = await watch(server)
    server.stop_waiting()
    assert await reading.rest() == b""
    await until(lambda: server.front.busy() == 0)


async def test_a_head_request_is_answered_at_once(server):
    answer = await server.call("HEAD", "/events")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert not server.dispatcher.context.events.recording


async def test_an_http_1_0_client_reads_the_stream_until_the_connection_closes(server):
    client = await server.connect()
    client.send(b"GET /events?for=50ms HTTP/1.0\r\n\r\n")
    await until(lambda: len(server.dispatcher.context.events) == 1)
    id = await server.enqueue()
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b'"id":%d' % id in body


@pytest.mark.parametrize("settings", [Settings(first_id=1)])
async def test_queues_and_jobs_can_be_watched_by_content_negotiation(server):
    ids = [await server.enqueue(queue=queue) for queue in ("a", "b")]
    readings = [
        await StreamReader.begin(server, "GET", path, None, {"Accept": "text/event-stream"})
        for path in ("/queues", "/queues/b", f"/jobs/{ids[1]}")
    ]
    for reading in readings:
        assert await reading.frame() == b"retry: 2000"
    await server.dequeue(queues=["a"])
    await server.dequeue(queues=["b"])
    assert [(await reading.event()).data["id"] for reading in readings] == [ids[0], ids[1], ids[1]]
    check_problem(await server.get("/jobs/99?format=events"), 404, "job_not_found")


@pytest.mark.parametrize("server", ["fast journal"], indirect=True)
async def test_an_event_is_sent_once_the_change_is_on_disk(server):
    reading, of_job = await watch(server), await watch(server, "?job=1")
    turn = threading.Event()
    store = server.engine._commit._store
    commit = store.commit

    def slow(rows):
        assert turn.wait(10)
        commit(rows)

    store.commit = slow
    enqueuing = await server.ask("POST", "/jobs/enqueue", {"type": "x"})
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    late = await watch(server, last=1)
    assert (await late.event()).name == "gap"
    heard = [asyncio.ensure_future(one.event()) for one in (reading, of_job, late)]
    await asyncio.sleep(0.1)
    assert not any(one.done() for one in heard)
    turn.set()
    assert [(await one).name for one in heard] == ["enqueued"] * 3
    assert (await enqueuing.read("POST")).status == 201
