"""What clients see while the database is away, over both fronts."""

import json
from functools import partial

import pytest
from postgres_server import needs_postgres
from serving import Server, check_problem, until
from streams import consume, watch

from jobqueue.engine import commit

pytestmark = needs_postgres


@pytest.fixture(params=["fast", "tornado"])
def server(request, io_loop, settings, clock, postgres, database):
    async def start():
        server = Server(request.param, settings, clock, folder=postgres.url(database))
        await server.engine.load()
        return server

    server = io_loop.run_sync(start)
    yield server
    postgres.restore(database)
    io_loop.run_sync(partial(Server.close, server), timeout=20)


async def stay_away(server, logged):
    """Waits until the absence is noticed, and then for as long as answers are held."""
    await until(lambda: logged, 20)
    server.engine.tick()
    server.clock.advance_ms(commit.HELD)
    server.engine.tick()


async def test_an_absence_is_a_503_with_retry_after_and_streams_live_through_it(
    server, postgres, database, logged
):
    jobs, events = await consume(server, queue="streamed", prefetch=2), await watch(server)
    first = await server.enqueue(queue="streamed")
    assert (await jobs.job())["id"] == first
    clients = [await server.connect() for _ in range(3)]
    postgres.sever(database)
    for client, (path, body) in zip(
        clients,
        [
            ("/jobs/enqueue", {"type": "x"}),
            ("/jobs/enqueue", {"type": "x", "queue": "streamed"}),
            ("/jobs/dequeue", {}),
        ],
        strict=True,
    ):
        client.ask("POST", path, body)
    await until(lambda: server.engine.stats().journal.pending)
    await stay_away(server, logged)
    for client in clients:
        answer = await client.read()
        check_problem(answer, 503, "outcome_unknown", retry_after=1)
        assert answer.headers["retry-after"] == "1"
    assert (await server.get("/healthz")).json["durability"] == "PostgreSQL"
    for path in ("/readyz", "/queues"):
        answer = await server.get(path)
        assert check_problem(answer, 503, "not_ready")["detail"].startswith("the database is away: ")
        assert answer.headers["retry-after"] == "1"
    logged.clear()
    postgres.restore(database)
    await until(lambda: server.engine.refuses is None, 20)
    assert (await server.get("/readyz")).status == 200
    while not (line := await jobs.line()):  # an empty one only shows that the stream lives
        pass
    streamed = json.loads(line)
    assert streamed["queue"] == "streamed"
    assert streamed["id"] > first
    seen = set()
    while len(seen) < 3:  # also those that happened meanwhile
        event = await events.event()
        if event.name == "enqueued":
            seen.add(event.data["id"])
    assert first in seen


async def test_an_event_of_an_absence_comes_when_it_is_over_without_another_one(
    server, postgres, database, logged
):
    events = await watch(server)
    client = await server.connect()
    postgres.sever(database)
    client.ask("POST", "/jobs/enqueue", {"type": "x"})
    await stay_away(server, logged)
    check_problem(await client.read(), 503, "outcome_unknown")
    logged.clear()
    postgres.restore(database)
    await until(lambda: server.engine.refuses is None, 20)
    assert (await events.event()).name == "enqueued"
