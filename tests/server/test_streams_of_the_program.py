"""Streams of the real program, read from bare sockets; and curl, which moves a queue."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from running import Program, until

STREAMS = [("GET", "/events"), ("GET", "/top"), ("POST", "/jobs/stream?prefetch=5"),
           ("POST", "/jobs/stream?queue=none"), ("GET", "/queues?format=events")]  # fmt: skip


def read_head(connection):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection._file.read(1)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head


@pytest.mark.parametrize("front", ["fast", "tornado"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_all_streams_cleanly_and_at_once(front, number):
    with Program(JOBQUEUE_HTTP=front) as program:
        connections = [program.connect() for _ in STREAMS]
        for connection, (method, path) in zip(connections, STREAMS, strict=True):
            connection.ask(method, path)
            read_head(connection)
        for _ in range(3):
            assert program.call("POST", "/jobs/enqueue", {"type": "x"})[0] == 201
        until(lambda: program.call("GET", "/queues/default")[1]["jobs"]["in_progress"] == 3)
        started = time.monotonic()
        program.signal(number)
        bodies = [connection._file.read() for connection in connections]
        assert program.exit_status() == 0
        assert time.monotonic() - started < 2
        for connection, body in zip(connections, bodies, strict=True):
            assert body.endswith(b"0\r\n\r\n"), body[-100:]
            connection.close()
        assert bodies[2].count(b'"lease":') == 3
        assert program.lines[-1].startswith("stopped; 0 queued, 3 in progress")


def move(a, b):
    """Moves a queue with the command of the docs."""
    line = f"curl -s 127.0.0.1:{a.port}/queues/q/export | curl -s -T - 127.0.0.1:{b.port}/import"
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=30, check=True)
    return json.loads(done.stdout)


def ready(program):
    until(lambda: program.call("GET", "/readyz")[0] == 200)


with_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@with_curl
@pytest.mark.parametrize(("source", "target"), [("fast", "tornado"), ("tornado", "fast")])
def test_curl_moves_a_queue_from_one_program_to_another(source, target):
    with Program(JOBQUEUE_HTTP=source) as a, Program(JOBQUEUE_HTTP=target) as b:
        for start in range(0, 5000, 1000):
            jobs = [{"type": "x", "queue": "q", "payload": n} for n in range(start, start + 1000)]
            assert a.call("POST", "/jobs/enqueue", jobs)[0] == 201
        for expected in ({"imported": 5000, "known": 0}, {"imported": 0, "known": 5000}):
            assert move(a, b) == expected
        taken = b.call("POST", "/jobs/dequeue", {"queue": "q", "count": 1000})[1]["jobs"]
        assert [job["payload"] for job in taken] == list(range(1000))
        assert (a.stop(), b.stop()) == (0, 0)


@with_curl
def again(folder):
    """A server on an existing journal. It may get requests while it loads."""
    return Program(expect_5xx=True, JOBQUEUE_DATA=str(folder))


@pytest.mark.skipif(os.environ.get("TEST_ALL") != "1", reason="long: set TEST_ALL=1")
def test_moved_jobs_are_known_after_both_programs_were_killed(tmp_path):
    with Program(JOBQUEUE_DATA=str(tmp_path / "b")) as b:
        with Program(JOBQUEUE_DATA=str(tmp_path / "a")) as a:
            ready(a), ready(b)
            a.call("POST", "/jobs/enqueue", [{"type": "x", "queue": "q"}] * 500)
            assert move(a, b) == {"imported": 500, "known": 0}
            a.signal(signal.SIGKILL)
        b.signal(signal.SIGKILL)
    with again(tmp_path / "a") as a, again(tmp_path / "b") as b:
        ready(a), ready(b)
        assert move(a, b) == {"imported": 0, "known": 500}
        assert move(b, b) == {"imported": 0, "known": 500}
        assert b.call("GET", "/queues/q")[1]["jobs"]["queued"] == 500
        assert (a.stop(), b.stop()) == (0, 0)
