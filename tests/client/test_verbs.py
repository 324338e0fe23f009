"""Both clients, verb by verb, against the real program. One text serves both: the blocking client is awaited
through `Awaited`.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec import Raw

from jobqueue import AsyncClient, Client, NewJob, errors
from jobqueue.client import Conclude, Fail, Heartbeat, JobError, Release


class Awaited:
    """A blocking client, or a part of it, whose results can be awaited and iterated as those of the other."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if not callable(found):
            return Awaited(found)

        def method(*given, **options):
            result = found(*given, **options)
            return Streamed(result) if isinstance(result, Iterator) else ready(result)

        return method


async def ready(result):
    return result


class Streamed:
    def __init__(self, items):
        self._items = items

    def __aiter__(self):
        return self

    async def __anext__(self):
        for item in self._items:
            return item
        raise StopAsyncIteration

    async def __aenter__(self):
        self._items.__enter__()
        return self

    async def __aexit__(self, *exception):
        self._items.__exit__(*exception)


@pytest.fixture(params=["blocking", "asyncio"])
def client(request, url, io_loop):
    if request.param == "blocking":
        with Client(url) as blocking:
            yield Awaited(blocking)
    else:
        made = AsyncClient(url)
        yield made
        io_loop.run_sync(made.close)


@pytest.fixture
def queue(request):
    """The name of a queue that only this test uses."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[-100:].lstrip("-")


async def test_a_job_is_enqueued_taken_and_concluded(client, queue):
    made = await client.jobs.enqueue("email", {"to": "ada"}, queue=queue, priority=3, tags=["a", "b"])
    assert (made.status, made.queue, made.type, made.priority, made.duplicate) == (
        "queued",
        queue,
        "email",
        3,
        False,
    )
    assert made.created_at.tzinfo is UTC or made.created_at.utcoffset() == timedelta(0)
    job = await client.jobs.dequeue(queue, lease_for="30s", consumer="me")
    assert (job.id, job.payload, job.attempts, job.lease_for, job.consumer) == (
        made.id,
        {"to": "ada"},
        1,
        30,
        "me",
    )
    beat = await client.jobs.heartbeat(job, progress=40, message="half", lease_for=timedelta(minutes=2))
    assert (beat.progress, beat.message, beat.lease_for, beat.cancel_requested) == (40, "half", 120, False)
    done = await client.jobs.conclude(job, {"sent": True})
    assert done.status == "concluded"
    again = await client.jobs.conclude(job, "ignored")
    assert again.status == "concluded"
    shown = await client.jobs.get(job.id)
    assert (shown.result, shown["result"], shown.finished, shown.tags) == (
        {"sent": True},
        {"sent": True},
        True,
        ("a", "b"),
    )
    assert [(attempt.outcome, attempt.consumer) for attempt in shown.history] == [("concluded", "me")]


async def test_a_dequeue_of_an_empty_queue_is_none(client, queue):
    assert await client.jobs.dequeue(queue) is None
    assert await client.jobs.dequeue(queue, wait=0.05) is None
    assert await client.jobs.dequeue_many(queue, count=5) == []


async def test_options_of_an_enqueue_may_be_timedeltas_and_datetimes(client, queue):
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    job = await client.jobs.enqueue("x", queue=queue, run_at=at, lease_for=timedelta(minutes=1))
    assert (job.run_at, job.status, job.lease_for) == (at, "scheduled", 60)
    job = await client.jobs.enqueue(
        "x", queue=queue, delay="1h", backoff=[timedelta(seconds=10), "5m"], max_attempts=None
    )
    assert (job.backoff, job.max_attempts) == ([10, 300], None)
    job = await client.jobs.enqueue("x", queue=queue, backoff={"base": timedelta(seconds=5), "factor": 3})
    assert job.backoff["base"] == 5


async def test_a_datetime_without_a_zone_is_refused_before_it_is_sent(client):
    with pytest.raises(ValueError, match="no zone"):
        await client.jobs.enqueue("x", run_at=datetime(2099, 1, 1))  # noqa: DTZ001


async def test_a_misspelt_option_is_refused_before_it_is_sent(client):
    with pytest.raises(TypeError, match="did you mean delay"):
        await client.jobs.enqueue("x", dealy=5)
    with pytest.raises(TypeError, match="did you mean older_than"):
        await client.jobs.count(oldr_than=5)


async def test_bytes_are_a_payload_that_comes_back(client, queue):
    made = await client.jobs.enqueue("png", b"\x89PNG\0", queue=queue, content_type="image/png")
    job = await client.jobs.get(made.id)
    assert (job.payload, job.content_type) == (b"\x89PNG\0", "image/png")
    made = await client.jobs.enqueue("bin", bytearray(b"\xff"), queue=queue)
    assert (await client.jobs.get(made.id)).payload == b"\xff"


@pytest.mark.parametrize("payload", [None, 0, "", [], {"a": [1, None, "é"]}, 2**53, 1.5])
async def test_a_payload_is_what_it_was(client, queue, payload):
    made = await client.jobs.enqueue("x", payload, queue=queue)
    assert (await client.jobs.get(made.id)).payload == payload


@dataclass
class Order:
    number: int
    at: datetime


class Model:
    """It is written as pydantic's models are."""

    def __init__(self, **fields):
        self._fields = fields

    def model_dump(self, mode):
        assert mode == "json"
        return self._fields


AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("payload", [Order(7, AT), Model(number=7, at=AT), {"number": 7, "at": AT}])
async def test_a_payload_may_be_an_object_and_is_decoded_as_one(client, queue, payload):
    made = await client.jobs.enqueue("x", payload, queue=queue)
    job = await client.jobs.get(made.id)
    assert job.payload == {"number": 7, "at": "2026-01-02T03:04:05Z"}
    assert job.payload_as(Order) == Order(7, AT)
    with pytest.raises(msgspec.ValidationError, match="Expected `array`"):
        job.payload_as(list[int])


async def test_what_is_not_json_is_refused_before_it_is_sent(client):
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        await client.jobs.enqueue("x", object())


async def test_many_jobs_go_in_requests_of_a_thousand_and_stay_in_order(client, queue):
    made = await client.jobs.enqueue_many(NewJob("x", n, {"queue": queue}) for n in range(2100))
    assert len({job.id for job in made}) == 2100
    assert [job.id for job in made] == sorted(job.id for job in made)
    assert await client.jobs.count(queue=queue) == 2100
    assert (await client.jobs.get(made[2099].id)).payload == 2099


async def test_many_large_jobs_go_in_requests_that_the_server_takes(client, queue):
    made = await client.jobs.enqueue_many(
        {"type": "x", "payload": "é" * 50_000, "queue": queue} for _ in range(40)
    )
    assert len(made) == 40


async def test_many_jobs_under_a_key_of_the_caller_are_enqueued_once(client, queue):
    jobs = [NewJob("x", n, {"queue": queue}) for n in range(1500)]
    first = await client.jobs.enqueue_many(jobs, idempotency_key=queue)
    second = await client.jobs.enqueue_many(jobs, idempotency_key=queue)
    assert [job.id for job in first] == [job.id for job in second]
    assert {job.duplicate for job in second} == {True}


async def test_an_error_of_many_says_which_job_and_how_many_were_enqueued(client, queue):
    jobs = [{"type": "x", "queue": queue} for _ in range(1203)]
    jobs[1201]["priority"] = "high"
    with pytest.raises(errors.InvalidField) as caught:
        await client.jobs.enqueue_many(jobs)
    assert caught.value.facts["index"] == 1201
    assert caught.value.facts["enqueued"] == 1000 == await client.jobs.count(queue=queue)


async def test_each_of_many_is_enqueued_by_itself(client, queue):
    outcomes = await client.jobs.enqueue_each(
        [
            {"type": "x", "queue": queue},
            {"type": "x", "queue": queue, "priority": "high"},
            NewJob("y", None, {"queue": queue}),
        ]
    )
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert outcomes[1].index == 1
    assert isinstance(outcomes[1].exception(), errors.InvalidField)
    with pytest.raises(errors.InvalidField):
        outcomes[1].get()
    assert outcomes[0].get().id == outcomes[0].id


async def test_an_idempotency_key_makes_one_job(client, queue):
    one = await client.jobs.enqueue("x", queue=queue, idempotency_key=queue + "-1")
    two = await client.jobs.enqueue("x", queue=queue, idempotency_key=queue + "-1")
    assert (two.id, two.duplicate) == (one.id, True)
    with pytest.raises(errors.IdempotencyMismatch) as caught:
        await client.jobs.enqueue("y", queue=queue, idempotency_key=queue + "-1")
    assert (caught.value.status, caught.value.code) == (422, "idempotency_mismatch")
    assert caught.value.request_id


async def test_a_repeated_enqueue_of_a_forgotten_job_answers_its_id(client, queue):
    one = await client.jobs.enqueue("x", queue=queue, retain_for=0, idempotency_key=queue + "-2")
    await client.jobs.conclude(await client.jobs.dequeue(queue))
    two = await client.jobs.enqueue("x", queue=queue, retain_for=0, idempotency_key=queue + "-2")
    assert (two.id, two.status, two.duplicate, two.finished) == (one.id, "forgotten", True, True)
    with pytest.raises(errors.JobForgotten):
        await client.jobs.get(one.id)


async def test_an_enqueue_may_wait_for_the_result(client, queue):
    job = await client.jobs.enqueue("x", queue=queue, wait=0.05)
    assert (job.status, job.result) == ("queued", None)


async def test_a_wait_that_is_no_duration_is_refused_before_it_is_sent(client, queue):
    with pytest.raises(errors.InvalidField, match="not a duration"):
        await client.jobs.enqueue("x", queue=queue, wait="a while")
    assert await client.jobs.count(queue=queue) == 0


async def test_a_lease_that_is_lost_is_an_error_of_its_own(client, queue):
    await client.jobs.enqueue("x", queue=queue)
    job = await client.jobs.dequeue(queue)
    await client.jobs.release(job)
    taken = await client.jobs.dequeue(queue)
    with pytest.raises(errors.LeaseLost) as caught:
        await client.jobs.conclude(job)
    assert (caught.value.status, caught.value.facts["job_status"]) == (409, "in_progress")
    assert (await client.jobs.conclude(taken.id, lease=taken.lease)).status == "concluded"


async def test_a_job_fails_with_text_or_an_object_and_dies_without_retry(client, queue):
    await client.jobs.enqueue("x", queue=queue, max_attempts=3)
    job = await client.jobs.dequeue(queue)
    failed = await client.jobs.fail(job, "no such host", retry_in=0)
    assert failed.error == "no such host"
    assert failed.status in ("queued", "scheduled")
    job = await client.jobs.dequeue(queue, wait=5)
    dead = await client.jobs.fail(job, JobError("Timeout", "late", {"s": 3}), retry=False)
    assert (dead.status, dead.reason, dead.error) == (
        "dead",
        "no_retry",
        JobError("Timeout", "late", {"s": 3}),
    )
    assert (await client.jobs.redrive(job.id)).status == "queued"
    with pytest.raises(errors.NotDead):
        await client.jobs.redrive(job.id)


async def test_the_highest_priority_of_several_queues_is_taken(client, queue):
    names = [queue, f"{queue}-2"]
    made = [await client.jobs.enqueue("t", queue=name, priority=at) for at, name in enumerate(names * 2)]
    first = await client.jobs.dequeue(names, order="priority")
    assert first.id == made[3].id
    [second] = await client.jobs.dequeue_many(names, order="priority", count=1)
    assert second.id == made[2].id
    third = await client.jobs.conclude_and_next(first, queues=names, order="priority")
    assert third.id == made[1].id


async def test_a_queue_has_attributes(client, queue):
    changed = await client.queues.change(queue, attributes={"owner": "ada", "tags": [1, 2]})
    assert changed.settings.attributes == {"owner": "ada", "tags": [1, 2]}
    assert (await client.queues.change(queue, attributes=None)).settings.attributes is None


async def test_a_number_that_no_float_holds_becomes_the_largest_one(client, queue):
    await client.queues.change(queue, attributes=Raw(b'{"a":[-1e999,"1e999",2e3]}'))
    attributes = (await client.queues.get(queue)).settings.attributes
    assert attributes == {"a": [-sys.float_info.max, "1e999", 2e3]}
    await client.jobs.enqueue("x", Raw(b"1e400"), queue=queue, max_attempts=2)
    job = await client.jobs.dequeue(queue)
    assert job.payload == sys.float_info.max
    details = Raw(b"[" + b"7" * 310 + b".0]")
    failed = await client.jobs.fail(job, JobError("T", "late", details), retry_in=0)
    assert failed.error.details == [sys.float_info.max]


async def test_a_job_is_taken_by_its_id(client, queue):
    made = [await client.jobs.enqueue("t", queue=queue, delay="1h") for _ in range(2)]
    job = await client.jobs.dequeue_job(made[1].id, lease_for="30s", consumer="ann")
    assert (job.id, job.lease_for, job.consumer) == (made[1].id, 30, "ann")
    released = await client.jobs.release(job, priority=7)
    assert (released.status, released.priority) == ("queued", 7)
    await client.queues.pause(queue)
    assert await client.jobs.dequeue_job(made[1].id) is None


async def test_a_release_may_have_a_delay(client, queue):
    await client.jobs.enqueue("x", queue=queue)
    job = await client.jobs.release(await client.jobs.dequeue(queue), delay="1h")
    assert (job.status, job.attempts) == ("scheduled", 0)


async def test_a_conclude_can_take_the_next_job(client, queue):
    await client.jobs.enqueue_many([NewJob("x", n, {"queue": queue}) for n in range(2)])
    job = await client.jobs.dequeue(queue)
    job = await client.jobs.conclude_and_next(job, "first", lease_for=60)
    assert (job.payload, job.lease_for) == (1, 60)
    assert await client.jobs.conclude_and_next(job, wait=0.05) is None
    assert [job.result async for job in client.jobs.iterate(queue=queue)] == ["first", None]


async def test_verbs_for_many_answer_each_in_order(client, queue):
    made = await client.jobs.enqueue_many([NewJob("x", None, {"queue": queue})] * 4)
    jobs = await client.jobs.dequeue_many(queue, count=10)
    assert [job.id for job in jobs] == [job.id for job in made]
    beats = await client.jobs.heartbeat_many(
        [Heartbeat(job.id, job.lease, "1m", 5) for job in jobs] + [Heartbeat(1, "no")]
    )
    assert [beat.ok for beat in beats] == [True] * 4 + [False]
    assert isinstance(beats[4].exception(), errors.JobNotFound)
    assert beats[0].get().lease_for == 60
    [released] = await client.jobs.release_many([Release(jobs[0].id, jobs[0].lease, delay="1h")])
    assert released.get().status == "scheduled"
    [failed] = await client.jobs.fail_many([Fail(jobs[1].id, jobs[1].lease, "bad", retry=False)])
    assert (failed.get().status, failed.get().error) == ("dead", "bad")
    done = await client.jobs.conclude_many(
        [Conclude(jobs[2].id, jobs[2].lease, [1]), Conclude(jobs[3].id, jobs[3].lease)]
    )
    assert [outcome.get().status for outcome in done] == ["concluded", "concluded"]
    assert (await client.jobs.get(jobs[2].id)).result == [1]


async def test_a_waiting_job_can_be_changed_and_cancelled(client, queue):
    job = await client.jobs.enqueue("x", 1, queue=queue, delay="1h")
    changed = await client.jobs.change(job.id, payload={"n": 2}, delay=None, priority=7, if_match=job.etag)
    assert (changed.status, changed.priority) == ("queued", 7)
    with pytest.raises(errors.PreconditionFailed):
        await client.jobs.change(job.id, priority=8, if_match=job.etag)
    assert (await client.jobs.get(job.id)).payload == {"n": 2}
    assert (await client.jobs.cancel(job.id)).status == "cancelled"
    assert (await client.jobs.cancel(job.id)).status == "cancelled"


async def test_a_consumer_sees_that_its_job_is_to_be_cancelled(client, queue):
    await client.jobs.enqueue("x", queue=queue)
    job = await client.jobs.dequeue(queue)
    assert (await client.jobs.cancel(job.id)).cancel_requested
    assert (await client.jobs.heartbeat(job)).cancel_requested
    assert (await client.jobs.cancel(job.id, force=True)).status == "cancelled"


async def test_why_a_job_waits_is_explained(client, queue):
    job = await client.jobs.enqueue("x", queue=queue, delay="1h")
    why = await client.jobs.explain(job.id)
    assert (why.id, why.status, why.reasons[0].code) == (job.id, "scheduled", "scheduled")
    assert why.reasons[0].until > datetime.now(UTC)


async def test_lists_have_pages_and_iterators_go_through_them(client, queue):
    made = [job.id for job in await client.jobs.enqueue_many([NewJob("x", 5, {"queue": queue})] * 5)]
    page = await client.jobs.list(queue=queue, limit=2, order="desc", payload=True)
    assert [job.id for job in page.jobs] == made[:2:-1]
    assert page.jobs[0].payload == 5
    rest = await client.jobs.list(queue=queue, limit=2, order="desc", cursor=page.next)
    assert [job.id for job in rest.jobs] == made[2:0:-1]
    assert [
        job.id async for job in client.jobs.iterate(queue=queue, limit=2, status=["queued", "dead"])
    ] == made
    assert [job.id async for job in client.jobs.iterate(queue=iter([queue]), limit=2)] == made
    assert await client.jobs.count(queue=[queue, "other"], type="x") == 5
    assert await client.jobs.count(queue=queue, older_than=timedelta(days=1)) == 0
    assert queue in [found.name async for found in client.queues.iterate(limit=1)]
    assert queue in [found.name for found in (await client.queues.list()).queues]


async def test_a_queue_is_shown_changed_paused_and_resumed(client, queue):
    shown = await client.queues.change(
        queue, lease_for="10m", max_in_progress=4, rate={"count": 100, "per": timedelta(minutes=1)},
        key_limits={"max_in_progress": 1}, backoff=["10s"], dead_letter="dead-" + queue[:100],
    )  # fmt: skip
    assert (shown.settings.lease_for, shown.settings.rate.per, shown.settings.key_limits.max_in_progress) == (
        600,
        60,
        1,
    )
    assert (await client.queues.change(queue, rate=None)).settings.rate is None
    paused = await client.queues.pause(queue, reason="deploy", for_="10m")
    assert (paused.paused, paused.pause.reason) == (True, "deploy")
    assert paused.pause.until - paused.pause.at == timedelta(minutes=10)
    with pytest.raises(errors.PreconditionFailed):
        await client.queues.resume(queue, if_match='"999"')
    assert not (await client.queues.resume(queue, if_match=paused.etag)).paused
    await client.jobs.enqueue("x", "p", queue=queue)
    shown = await client.queues.series(queue, for_="30s", step=10)
    assert (shown.queue, shown.step, shown.until.tzinfo is not None) == (queue, 10, True)
    assert shown.from_ <= shown.until
    assert len(shown.enqueued) == len(shown.queued) <= 3
    [job] = await client.queues.peek(queue, payload=True)
    assert job.payload == "p"
    found = await client.queues.get(queue)
    assert (found.jobs.queued, found.by_priority, found.totals.enqueued) == (1, {"0": 1}, 1)


async def test_jobs_are_purged_and_redriven_in_bulk(client, queue):
    await client.jobs.enqueue_many([NewJob("x", None, {"queue": queue})] * 3)
    [job] = await client.jobs.dequeue_many(queue, count=1)
    await client.jobs.fail(job, retry=False)
    assert (await client.queues.redrive(queue, type="x", dry_run=True)).matched == 1
    assert (await client.queues.redrive(queue, all=True)).changed == 1
    assert (await client.queues.purge(queue, all=True, dry_run=True)).changed == 0
    assert (await client.queues.purge(queue, status=["queued"], type=["x", "y"])).changed == 3
    with pytest.raises(errors.MissingField):
        await client.queues.purge(queue)


async def test_a_queue_is_exported_and_imported(client, queue):
    await client.jobs.enqueue_many([NewJob("x", n, {"queue": queue}) for n in range(1100)])
    lines = [line async for line in client.queues.export(queue)]
    assert len(lines) == 1100
    await client.queues.purge(queue, all=True)
    assert (await client.queues.import_jobs(lines)).imported == 1100
    again = await client.queues.import_jobs(lines)
    assert (again.imported, again.known) == (0, 1100)
    with pytest.raises(errors.BadInput) as caught:
        await client.queues.import_jobs([*lines[:3], b'{"typo":1}'])
    assert (caught.value.facts["line"], caught.value.facts["known"]) == (4, 3)


async def test_jobs_come_as_a_stream(client, queue):
    await client.jobs.enqueue_many([NewJob("x", n, {"queue": queue}) for n in range(4)])
    seen = []
    async with client.jobs.stream(queue, prefetch=2) as jobs:
        async for job in jobs:
            seen.append(job.payload)
            if len(seen) == 4:
                break
            await client.jobs.conclude(job)
    assert seen == [0, 1, 2, 3]


async def test_a_stream_ends_by_itself_after_its_time(client, queue):
    async with client.jobs.stream(queue, for_="50ms") as jobs:
        assert [job async for job in jobs] == []


async def test_a_stream_that_is_refused_raises_the_refusal(client, queue):
    with pytest.raises(errors.InvalidField):
        async with client.jobs.stream(queue, prefetch=0):
            pass


async def test_events_tell_what_happens(client, queue):
    start = [event async for event in client.server.events(queue=queue, for_=0.05)]
    assert start == []
    job = await client.jobs.enqueue("x", queue=queue)
    await client.jobs.cancel(job.id)
    found = [event async for event in client.server.events(queue=queue, after="1", for_=0.2)]
    assert [event.event for event in found if event.event != "gap"] == ["enqueued", "cancelled"]
    assert found[-1].data["id"] == job.id
    assert int(found[-1].id) > 0


async def test_the_server_tells_about_itself(client):
    health = await client.server.health()
    assert (health.status, (await client.server.ready()).status) == ("ok", "ready")
    assert (await client.server.stats()).limits["max_batch"] == 1000
    assert (await client.server.cluster()).servers == []
    assert "jobqueue_jobs" in await client.server.metrics()
    assert (await client.server.openapi())["openapi"].startswith("3.")
    assert "/jobs/enqueue" in await client.server.help()
    assert (await client.server.worker_sh()).startswith("#!")
    assert "python" in await client.server.worker_py()
    screen = "".join([piece async for piece in client.server.top(for_="100ms")])
    assert "jobqueue" in screen


async def test_a_payload_over_the_limit_is_refused_and_the_client_goes_on(client, queue):
    with pytest.raises(errors.BodyTooLarge) as caught:
        await client.jobs.enqueue("x", "y" * (3 << 20), queue=queue)
    assert caught.value.facts["setting"] == "JOBQUEUE_MAX_BODY"
    assert (await client.jobs.enqueue("x", queue=queue)).status == "queued"


async def test_a_text_comes_back_as_text_also_if_its_escapes_make_it_long(client, queue):
    for size, encoding in ((10, None), (1 << 20, "base64")):
        made = await client.jobs.enqueue("x", b'"' * size, queue=queue, content_type="text/csv")
        job = await client.jobs.get(made.id)
        assert (job.payload_encoding, job.payload) == (encoding, '"' * size)
    latin = await client.jobs.enqueue("x", b"\xe9", queue=queue, content_type="text/csv")
    assert (await client.jobs.get(latin.id)).payload == b"\xe9"


async def test_any_request_can_be_made(client, queue):
    answer = await client.server.request("GET", "/queues", query={"format": "text"})
    assert (answer.status, answer.header("content-type")) == (200, "text/plain; charset=utf-8")
    answer = await client.server.request("POST", f"/queues/{queue}/enqueue", json={"type": "x"})
    assert answer.status == 201
    assert answer.header("location").startswith("/jobs/")
    with pytest.raises(errors.NoSuchRoute):
        await client.server.request("GET", "/shiny")
