"""Bugs of the server: each is logged once with its traceback and the id of the request, the client gets no
details, and the server goes on."""

import asyncio
import logging

import pytest
from msgspec import UNSET
from serving import check_problem, patch_engine, until

from jobqueue.errors import JobForgotten
from jobqueue.web.schema.responses import JobView
from jobqueue.web.writers import encoder

SECRET = "a secret of the inside"
CALLS = {
    "enqueue": ("POST", "/jobs/enqueue", '{"type":"x"}'),
    "enqueue_many": ("POST", "/jobs/enqueue", '[{"type":"x"}]'),
    "dequeue": ("POST", "/jobs/dequeue", "{}"), "conclude": ("POST", "/jobs/1/conclude", "{}"),
    "heartbeat": ("POST", "/jobs/1/heartbeat", "{}"), "release": ("POST", "/jobs/1/release", "{}"),
    "fail": ("POST", "/jobs/1/fail", "{}"), "wait_for": ("GET", "/jobs/1", None),
    "cancel": ("DELETE", "/jobs/1", None), "change": ("PATCH", "/jobs/1", '{"type":"y"}'),
    "enqueue_each": ("POST", "/jobs/enqueue?atomic=false", '[{"type":"x"}]'),
    "dequeue_job": ("POST", "/jobs/1/dequeue", "{}"), "each": ("POST", "/jobs/conclude", '[{"id":1}]'),
    "list_jobs": ("GET", "/jobs", None),
    "consumers": ("GET", "/consumers", None),
    "group_jobs": ("GET", "/jobs/groups", None),
    "count_jobs": ("GET", "/jobs/count", None), "configure": ("PATCH", "/queues/a", "{}"),
    "pause": ("POST", "/queues/a/pause", None), "resume": ("POST", "/queues/a/resume", None),
    "purge": ("POST", "/queues/a/purge?all=1", None),
    "redrive_many": ("POST", "/queues/a/redrive?all=1", None),
    "cancel_many": ("POST", "/queues/a/cancel?all=1", None),
    "run_many_now": ("POST", "/queues/a/run_now?all=1", None),
    "move_many": ("POST", "/queues/a/move?all=1&to=b", None),
    "queue": ("GET", "/queues/a", None), "queues": ("GET", "/queues", None), "stats": ("GET", "/stats", None),
}  # fmt: skip


class Bug(Exception):
    pass


def explode(*_, **__):
    raise Bug(SECRET)


def check_logged_once(logged, id):
    [record] = logged
    assert (record.name, record.levelno) == ("jobqueue", logging.ERROR)
    assert id in record.getMessage()
    assert record.exc_info[0] is Bug
    assert record.exc_info[2] is not None
    logged.clear()


@pytest.mark.parametrize("error", [Bug, AssertionError, RecursionError, KeyError, MemoryError])
async def test_any_exception_is_a_500(server, monkeypatch, logged, error):
    def fail(*_):
        raise error(SECRET)

    patch_engine(monkeypatch, server, enqueue=fail)
    answer = await server.post("/jobs/enqueue", {"type": "x"})
    check_problem(answer, 500, "internal")
    assert SECRET.encode() not in answer.body
    assert [record.exc_info[0] for record in logged] == [error]
    logged.clear()


@pytest.mark.parametrize("verb", CALLS)
async def test_a_verb_that_raises_is_logged_and_answered_and_the_server_goes_on(
    server, monkeypatch, logged, verb
):
    method, path, body = CALLS[verb]
    with monkeypatch.context() as patched:
        patch_engine(patched, server, **{verb: explode})
        client = await server.connect()
        answer = await client.call(method, path, body, {"X-Request-Id": "find-me"})
    problem = check_problem(answer, 500, "internal", request_id="find-me")
    assert "find-me" in problem["detail"]
    for inside in (SECRET, "Traceback", "Bug", ".py", "explode"):
        assert inside.encode() not in answer.body
        assert inside not in str(answer.headers)
    check_logged_once(logged, "find-me")
    # The same connection, the same call.
    await server.enqueue()
    if verb in ("conclude", "heartbeat", "release", "fail"):
        await server.dequeue()
    assert (await client.call(method, path, body)).status in (200, 201)


async def conclude_later(server, monkeypatch):
    """A client that concludes with an engine that takes its time, asks for /healthz behind it, and the Future
    that the engine answers with: as an engine that writes to a disk will."""
    futures = []

    def later(*_):
        futures.append(asyncio.get_running_loop().create_future())
        return futures[-1]

    patch_engine(monkeypatch, server, conclude=later)
    client = await server.connect()
    client.ask("POST", "/jobs/1/conclude", "{}", {"X-Request-Id": "later"})
    client.ask("GET", "/healthz")
    await until(lambda: futures)
    return client, futures[0]


async def test_a_verb_that_fails_later_is_a_500_too(server, monkeypatch, logged):
    client, future = await conclude_later(server, monkeypatch)
    future.set_exception(Bug(SECRET))
    answer = await client.read()
    check_problem(answer, 500, "internal", request_id="later")
    assert SECRET.encode() not in answer.body
    check_logged_once(logged, "later")
    assert (await client.read()).status == 200


async def test_a_verb_that_answers_or_refuses_later_has_the_same_answer(server, monkeypatch):
    await server.enqueue()
    client, future = await conclude_later(server, monkeypatch)
    future.set_result(server.engine.get(1))
    assert (await client.read()).json["id"] == 1
    assert (await client.read()).status == 200
    client, future = await conclude_later(server, monkeypatch)
    future.set_exception(JobForgotten("gone by now"))
    check_problem(await client.read(), 410, "job_forgotten", request_id="later")
    assert (await client.read()).status == 200


def explode_where(monkeypatch, so):
    """Makes the encoding of views fail for which `so` is true."""
    encode = encoder._encode
    monkeypatch.setattr(encoder, "_encode", lambda view: explode() if so(view) else encode(view))


async def test_an_answer_that_cannot_be_encoded_is_a_500(server, monkeypatch, logged):
    await server.enqueue()
    explode_where(monkeypatch, lambda view: isinstance(view, JobView))
    check_problem(await server.get("/jobs/1", {"X-Request-Id": "render"}), 500, "internal")
    check_logged_once(logged, "render")


async def test_a_waiting_client_whose_answer_cannot_be_encoded_gets_a_500(server, monkeypatch, logged):
    client = await server.connect()
    client.ask("POST", "/jobs/dequeue?wait=30", None, {"X-Request-Id": "waited"})
    await server.waiting(1)
    explode_where(monkeypatch, lambda view: isinstance(view, JobView) and view.lease is not UNSET)
    await server.enqueue(tags=["this is no plain job"])
    check_problem(await client.read(), 500, "internal")
    check_logged_once(logged, "waited")
    monkeypatch.undo()
    assert (await client.call("GET", "/healthz")).status == 200
