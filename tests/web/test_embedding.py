"""The queue inside other programs and their tests, as docs/embedding.md shows it."""

import json
import os
import subprocess
import sys

import pytest
from http_client import Client
from serving import until
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from jobqueue import MemoryEngine, Settings, make_app
from jobqueue.errors import SettingError
from jobqueue.testing import ManualClock


@pytest.fixture
def clock(): return ManualClock()  # fmt: skip  # these lines are the README's


@pytest.fixture
def engine(clock): return MemoryEngine(Settings(lease="2s", first_id=1), clock=clock)  # fmt: skip


@pytest.fixture
def app(engine): return make_app(engine)  # fmt: skip


async def test_stale(http_server_client, clock, engine):
    await http_server_client.fetch("/jobs/enqueue", method="POST", body='{"type":"x"}')
    await http_server_client.fetch("/jobs/dequeue", method="POST", body="")
    clock.advance("2s"); engine.tick()  # fmt: skip  # noqa: E702
    again = await http_server_client.fetch("/jobs/dequeue", method="POST", body="{}")
    assert json.loads(again.body)["id"] == 1
    assert json.loads(again.body)["attempts"] == 2


async def test_a_tick_returns_the_number_of_moved_jobs_and_answers_waits(http_server_client, clock, engine):
    for _ in range(3):
        await http_server_client.fetch("/jobs/enqueue", method="POST", body='{"type":"x"}')
    await http_server_client.fetch("/jobs/dequeue?count=3", method="POST", body="")
    waiting = http_server_client.fetch("/jobs/dequeue?wait=10", method="POST", body="")
    await until(lambda: engine.stats().consumers_waiting == 1)
    clock.advance("3s")
    assert engine.tick() == 3
    assert engine.tick() == 0
    assert json.loads((await waiting).body)["id"] == 1


async def test_waits_follow_the_clock_of_the_engine(http_server_client, clock, engine):
    waiting = http_server_client.fetch("/jobs/dequeue?wait=1m", method="POST", body="")
    await until(lambda: engine.stats().consumers_waiting == 1)
    clock.advance("61s")
    engine.tick()
    assert (await waiting).code == 204


async def test_a_jump_of_the_wall_clock_ends_no_lease(http_server_client, clock, engine):
    await http_server_client.fetch("/jobs/enqueue", method="POST", body='{"type":"x"}')
    await http_server_client.fetch("/jobs/dequeue", method="POST", body="")
    for jump in (86_400, -172_800):
        clock.wall_jump(jump)
        assert engine.tick() == 0
    job = json.loads((await http_server_client.fetch("/jobs/1")).body)
    assert job["status"] == "in_progress"
    assert job["lease_expires_at"] < job["created_at"]


async def test_closing_the_engine_answers_waiting_clients(http_server_client, engine):
    waiting = http_server_client.fetch("/jobs/dequeue?wait=30", method="POST", body="")
    await until(lambda: engine.stats().consumers_waiting == 1)
    engine.close()
    assert (await waiting).code == 204


async def test_the_test_client_sees_refusals_as_they_are(http_server_client):
    answer = await http_server_client.fetch("/jobs/7", raise_error=False)
    assert answer.code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer.body)["code"] == "job_not_found"


async def serve(app):
    server = HTTPServer(app)
    server.listen(0, "127.0.0.1")
    [listening] = server._sockets.values()
    return server, await Client.connect(listening.getsockname()[1])


async def test_make_app_alone_is_a_working_queue_with_the_systems_clock(io_loop):
    server, client = await serve(make_app())
    answer = await client.call("POST", "/jobs/enqueue", {"type": "x"})
    assert answer.status == 201
    # (seconds since 2026-01-01) × 1,000,000 + 1
    assert 10**12 < answer.json["id"] < 2**53
    job = (await client.call("POST", "/jobs/dequeue")).json
    assert (job["id"], job["lease_for"]) == (answer.json["id"], 300)
    # The tick runs on this loop without help.
    assert (await client.call("POST", "/jobs/dequeue?wait=50ms")).status == 204
    stats = (await client.call("GET", "/stats")).json
    assert stats["ticks"]["count"] > 0
    assert "connections" not in stats
    assert "max_connections" not in stats["limits"]
    await client.closed()
    server.stop()
    await server.close_all_connections()


async def test_two_apps_in_one_process_are_independent(io_loop):
    clocks = [ManualClock(), ManualClock()]
    engines = [
        MemoryEngine(Settings(first_id=n), clock=clock) for n, clock in zip((1, 1000), clocks, strict=True)
    ]
    served = [await serve(make_app(engine)) for engine in engines]
    (_, one), (_, two) = served
    assert (await one.call("POST", "/jobs/enqueue", {"type": "x"})).json["id"] == 1
    assert (await two.call("POST", "/jobs/enqueue", {"type": "x"})).json["id"] == 1000
    assert (await two.call("GET", "/jobs/1")).status == 404
    assert (await one.call("POST", "/jobs/dequeue")).json["id"] == 1
    assert (await two.call("GET", "/stats")).json["jobs"]["queued"] == 1
    engines[0].stop_waiting()
    assert ((await one.call("GET", "/readyz")).status, (await two.call("GET", "/readyz")).status) == (
        503,
        200,
    )
    for server, client in served:
        await client.closed()
        server.stop()
        await server.close_all_connections()


async def test_the_app_may_be_mounted_in_another_application(io_loop, engine):
    """Tornado routes between applications, and the queue gets only its own paths."""

    class Own(RequestHandler):
        def get(self):
            self.write("own")

    from tornado.routing import PathMatches, Rule

    served = Application([("/own", Own), Rule(PathMatches("/(jobs|queues)/?.*"), make_app(engine))])
    server, client = await serve(served)
    assert (await client.call("GET", "/own")).body == b"own"
    assert (await client.call("POST", "/jobs/enqueue", {"type": "x"})).status == 201
    assert (await client.call("GET", "/jobs/1")).json["type"] == "x"
    await client.closed()
    server.stop()
    await server.close_all_connections()


CONSTRUCTED = """
import asyncio, sys, threading
def no_loop(*_): raise AssertionError("the loop was touched")
asyncio.get_event_loop = asyncio.new_event_loop = asyncio.get_running_loop = asyncio.set_event_loop = no_loop
from jobqueue import MemoryEngine, Settings, make_app
from jobqueue.testing import ManualClock
engine = MemoryEngine()
assert engine.settings.port == 8080 and engine.settings.lease == 300_000
make_app(), make_app(engine), MemoryEngine(Settings(lease="2s"), clock=ManualClock())
engine.close()
assert threading.active_count() == 1
assert not {"httptools", "uvloop"} & set(sys.modules), "only the program needs them"
import logging
assert not logging.getLogger().handlers and not logging.getLogger("jobqueue").handlers
"""


def test_importing_and_constructing_reads_no_environment_and_touches_no_loop():
    environment = {**os.environ, "JOBQUEUE_LEASE": "nonsense", "JOBQUEUE_PORT": "1", "JOBQUEUE_UNKNOWN": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CONSTRUCTED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_bad_setting_is_refused_when_the_app_is_made():
    for bad in ({"leese": 1}, {"lease": "soon"}, {"port": 70_000}):
        with pytest.raises(SettingError):
            Settings(**bad)
