"""The real program: how it starts, what it logs, how it stops.

Runs over both fronts, and by `scripts/run.sh` where that makes a difference.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from running import CLI, COMPILED, MODULE, SCRIPT, Connection, Program, environment, until

from jobqueue import Settings
from jobqueue.version import VERSION

ALL = os.environ.get("TEST_ALL") == "1"
slow = pytest.mark.skipif(not ALL, reason="one process more: with TEST_ALL=1")
fronts = pytest.mark.parametrize("front", ["fast", "tornado"])
# For tests in which the front should make no difference.
either_front = pytest.mark.parametrize("front", ["fast", pytest.param("tornado", marks=slow)])
_REST = "memory only: a stop loses all jobs; no access tokens: anyone who can reach it may use it"


def run(
    *arguments: str, command: tuple[str, ...] = MODULE, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Runs the program in a case in which it ends by itself."""
    return subprocess.run(
        [*command, *arguments], env=environment(**settings), cwd="/", capture_output=True, text=True,
        timeout=20, check=False,
    )  # fmt: skip


def requests_logged(program: Program) -> list[str]:
    return [line for line in program.lines if re.search(r" (GET|POST|HEAD|DELETE|PUT) ", line)]


# -- starting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("front", "number"),
    [
        ("fast", signal.SIGINT),
        ("tornado", signal.SIGTERM),
        pytest.param("fast", signal.SIGTERM, marks=slow),
        pytest.param("tornado", signal.SIGINT, marks=slow),
    ],
)
def test_the_first_line_has_the_address_and_either_signal_stops_an_idle_server_at_once(
    front: str, number: int
):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_DRAIN="60s") as program, program.connect() as idle:
        assert program.lines == [
            f"jobqueue {VERSION} on http://127.0.0.1:{program.port} ({front}{COMPILED}), {_REST}"
        ]
        assert idle.call("GET", "/healthz").status == 200
        started = time.monotonic()
        program.signal(number)
        assert program.exit_status() == 0
        assert time.monotonic() - started < 1
        assert idle.ended()
        assert program.lines[1:] == ["stopped; 0 queued, 0 in progress, 0 scheduled jobs discarded"]


def test_run_sh_serves_by_the_python_on_the_path_under_its_own_pid():
    with Program(SCRIPT) as program:
        assert program.start_line.endswith(f"(fast), {_REST}")
        assert program.call("GET", "/healthz")[0] == 200
        command = Path(f"/proc/{program.pid}/cmdline").read_text(encoding="utf-8").split("\0")
        assert command[1:4] == ["-P", "-m", "jobqueue"]
        assert program.stop() == 0


def test_run_sh_works_through_a_link_and_from_a_folder_with_a_module_of_our_name(tmp_path):
    (tmp_path / "jobqueue.py").write_text("raise SystemExit('the wrong module')\n")
    (tmp_path / "tornado.py").write_text("raise SystemExit('the wrong module')\n")
    link = tmp_path / "link with space"
    link.symlink_to(SCRIPT[0])
    done = subprocess.run(
        [str(link), "--version"], env=environment(PYTHONPATH=""), cwd=tmp_path, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"jobqueue {VERSION}\n", "")


def test_ipv6_and_ipv4_are_served_at_once():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with Program(JOBQUEUE_HOST="::") as program:
        assert f" on http://[::]:{program.port} " in program.start_line
        assert program.call("GET", "/healthz")[0] == 200
        with socket.create_connection(("::1", program.port), timeout=5) as six:
            six.sendall(b"DELETE /jobs/1 HTTP/1.0\r\n\r\n")
            assert b" 404 " in six.recv(1000)


def test_a_different_PORT_of_a_process_runner_is_mentioned():
    with Program(PORT="5000") as program:
        hint = "; PORT=5000 is not read: set JOBQUEUE_PORT=$PORT to use it"
        assert program.start_line.endswith(_REST + hint)


def test_the_token_of_workers_is_mentioned_if_the_server_requires_none():
    with Program(JOBQUEUE_TOKEN="secret") as program:
        assert program.start_line.endswith("set JOBQUEUE_ACCESS_TOKEN to require a token")
    with Program(JOBQUEUE_TOKEN="secret", JOBQUEUE_ACCESS_TOKEN="t" * 32) as program:
        assert "secret" not in program.start_line
        assert program.start_line.endswith("access tokens: 1")


@slow
def test_an_equal_PORT_of_a_process_runner_is_not_mentioned():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for given in (port, ""):
        with Program(PORT=given, JOBQUEUE_PORT=port) as program:
            assert program.start_line.endswith(_REST)


def test_a_port_of_kubernetes_is_ignored_with_one_line():
    settings = {
        "JOBQUEUE_PORT": "tcp://10.0.0.1:8080", "JOBQUEUE_SERVICE_HOST": "10.0.0.1", "JOBQUEUE_URL": "http://x",
        "JOBQUEUE_PORT_8080_TCP_ADDR": "10.0.0.1", "JOBQUEUE_TOKEN": "t", "JOBQUEUE_HOST": "127.0.0.77",
    }  # fmt: skip
    with contextlib.ExitStack() as taken:  # free, or taken by another server on all addresses
        with contextlib.suppress(OSError):
            taken.enter_context(socket.create_server(("127.0.0.77", 8080)))
        done = run(**settings)
    ignored, wanted = done.stderr.splitlines()
    assert "warning JOBQUEUE_PORT=tcp://10.0.0.1:8080 is" in ignored
    assert (
        wanted
        == "jobqueue: cannot listen on 127.0.0.77 port 8080: Address already in use; set JOBQUEUE_PORT or --port to use another port"
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"JOBQUEUE_LEAES": "1s"}, ["JOBQUEUE_LEAES", "JOBQUEUE_LEASE"]),
        ({"JOBQUEUE_LEASE": "soon"}, ["JOBQUEUE_LEASE=soon", "not a duration"]),
        pytest.param({"JOBQUEUE_PORT": "80 80"}, ["JOBQUEUE_PORT=80 80", "65535"], marks=slow),
        pytest.param({"JOBQUEUE_HTTP": "quick"}, ["JOBQUEUE_HTTP=quick", "fast", "tornado"], marks=slow),
        pytest.param(
            {"JOBQUEUE_LEASE": "2h", "JOBQUEUE_LEASE_MAX": "1h"}, ["JOBQUEUE_LEASE_MAX"], marks=slow
        ),
        pytest.param({"JOBQUEUE_ACCESS_LOG": ""}, ["JOBQUEUE_ACCESS_LOG", "auto"], marks=slow),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_2(settings: dict[str, str], says: list[str]):
    done = run(**settings)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("jobqueue: ")
    assert done.stderr.count("\n") == 1
    for part in says:
        assert part in done.stderr


def test_an_invalid_host_is_one_line_and_exit_1():
    done = run(JOBQUEUE_HOST="a..b", JOBQUEUE_PORT="0")
    assert done.returncode == 1
    assert done.stderr == "jobqueue: cannot listen on a..b port 0: not a valid host name\n"


@either_front
def test_a_port_that_is_taken_is_one_line_and_exit_1(front: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(JOBQUEUE_HOST="127.0.0.1", JOBQUEUE_PORT=port, JOBQUEUE_HTTP=front)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"jobqueue: cannot listen on 127.0.0.1 port {port}: Address already in use; set JOBQUEUE_PORT or --port to use another port\n"
    )


@slow
def test_an_address_of_another_machine_is_one_line_and_exit_1():
    for host in ("192.0.2.1", "no.such.host.invalid"):
        done = run(JOBQUEUE_HOST=host, JOBQUEUE_PORT="0")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert host in done.stderr


def test_help_ends_quietly_if_its_reader_does():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*CLI, "--help"], stdout=writing, stderr=subprocess.PIPE, timeout=20, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_the_help_of_serve_names_every_setting():
    told = run("--help")
    assert (told.returncode, told.stderr) == (0, "")
    for name in Settings.declared:
        assert re.search(rf"^  --{name.replace('_', '-')} ", told.stdout, re.MULTILINE)
        assert re.search(rf"\bJOBQUEUE_{name.upper()}$", told.stdout, re.MULTILINE)


def test_an_unknown_argument_is_one_line_and_exit_2():
    for arguments, command in ((["--port", "80"], SCRIPT), (["--prot", "80"], MODULE)):
        odd = run(*arguments, command=command)
        assert (odd.returncode, odd.stdout, odd.stderr.count("\n")) == (2, "", 1)
        assert arguments[0] in odd.stderr


# -- serving ----------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    ("front", "command"), [("fast", SCRIPT), ("tornado", MODULE)], ids=["fast", "tornado"]
)
def test_the_three_curls_of_the_tour(front: str, command: tuple[str, ...]):
    with Program(command, JOBQUEUE_HTTP=front, JOBQUEUE_FIRST_ID="1") as program:
        at = f"localhost:{program.port}"

        def curl(*arguments: str) -> str:
            return subprocess.run(
                ["curl", "-sS", "--noproxy", "*", *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout

        new = curl("-d", '{"type":"email","payload":{"to":"ada@example.com"}}', f"{at}/jobs/enqueue")
        assert json.loads(new)["status"] == "queued"
        assert new.startswith('{"id":1,"status":')
        taken = curl("-X", "POST", f"{at}/jobs/dequeue")
        assert re.fullmatch(
            r'\{"id":1,"lease":"[A-Za-z0-9_-]{1,64}",.*,"payload":\{"to":"ada@example.com"\}\}\n', taken
        )
        lease = json.loads(taken)["lease"]
        done = curl("-X", "POST", f"{at}/jobs/1/conclude?lease={lease}")
        assert json.loads(done)["status"] == "concluded"
        assert curl("-X", "POST", f"{at}/jobs/dequeue") == ""
        assert at in curl(f"{at}/help")


@either_front
def test_a_lease_goes_stale_in_real_time_and_the_late_conclude_is_refused(front: str):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_LEASE="1s", JOBQUEUE_TICK="20ms") as program:
        id = program.call("POST", "/jobs/enqueue", {"type": "x"})[1]["id"]
        first = program.call("POST", "/jobs/dequeue", {"consumer": "a"})[1]
        started = time.monotonic()
        status, second = program.call("POST", "/jobs/dequeue?wait=5")
        took = time.monotonic() - started
        assert (status, second["id"], second["attempts"]) == (200, id, 2)
        assert 0.9 < took < 1.5
        status, refused = program.call("POST", f"/jobs/{id}/conclude?lease={first['lease']}")
        assert (status, refused["code"], refused["attempts"]) == (409, "lease_lost", 2)
        assert (
            program.call("POST", f"/jobs/{id}/conclude?lease={second['lease']}")[1]["status"] == "concluded"
        )


@either_front
def test_a_long_poll_gets_its_job_within_ten_milliseconds(front: str):
    with Program(JOBQUEUE_HTTP=front) as program, program.connect() as worker, program.connect() as producer:
        took = []
        for _ in range(10):
            worker.ask("POST", "/jobs/dequeue?wait=10")
            until(lambda: producer.call("GET", "/stats").json["consumers_waiting"] == 1)
            started = time.monotonic()
            producer.ask("POST", "/jobs/enqueue", {"type": "x"})
            assert worker.read().status == 200
            took.append(time.monotonic() - started)
            assert producer.read().status == 201
        assert sorted(took)[5] < 0.01, took


# -- stopping ---------------------------------------------------------------------------------------


@fronts
def test_a_stop_answers_waiting_clients_and_logs_the_lost_jobs(front: str):
    with Program(JOBQUEUE_HTTP=front) as program:
        for _ in range(3):
            program.call("POST", "/jobs/enqueue", {"type": "x"})
        program.call("POST", "/jobs/dequeue")
        waiting = [program.connect() for _ in range(20)]
        for connection in waiting:
            connection.ask("POST", "/jobs/dequeue?wait=60&queue=other")
        until(lambda: program.call("GET", "/stats")[1]["consumers_waiting"] == 20)
        started = time.monotonic()
        program.signal()
        for connection in waiting:
            answer = connection.read("POST")
            assert (answer.status, answer.body, answer.headers["connection"]) == (204, b"", "close")
            assert connection.ended()
            connection.close()
        assert program.exit_status() == 0
        assert time.monotonic() - started < 2
        assert program.lines[-1] == "stopped; 2 queued, 1 in progress, 0 scheduled jobs discarded"


class HalfSent(Connection):
    """A request whose body is not complete yet."""

    def __init__(self, program: Program, method: str = "POST", path: str = "/jobs/enqueue") -> None:
        super().__init__(program.port)
        self.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{{".encode())
        # The server has read the first part once it answers this.
        assert program.call("GET", "/healthz")[0] == 200


def refuses_connections(program: Program) -> bool:
    try:
        program.connect().close()
    except OSError:
        return True
    return False


@fronts
def test_an_incomplete_request_is_cut_off_after_the_drain_time(front: str):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_DRAIN="300ms") as program, HalfSent(program) as half:
        started = time.monotonic()
        program.signal()
        assert program.exit_status() == 0
        assert 0.25 < time.monotonic() - started < 1.5
        assert half.ended()


@fronts
def test_during_a_stop_incomplete_requests_may_end_and_the_server_is_healthy_but_not_ready(front: str):
    with Program(JOBQUEUE_HTTP=front, expect_5xx=True) as program:
        asked = {"/readyz": 503, "/healthz": 200, "/jobs/dequeue?wait=5": 204, "/jobs/enqueue": 503}
        half = [HalfSent(program, "POST" if "jobs" in path else "GET", path) for path in asked]
        program.signal()
        until(lambda: refuses_connections(program))
        assert program.running
        for connection, (path, status) in zip(half, asked.items(), strict=True):
            connection.send(b'"type":"x"}' if path == "/jobs/enqueue" else b"          }")
            answer = connection.read()
            assert (answer.status, answer.headers["connection"]) == (status, "close"), path
            if status == 503:
                # A job enqueued now would be lost in a moment.
                assert answer.json["code"] == ("stopping" if path == "/jobs/enqueue" else "not_ready")
                assert int(answer.headers["retry-after"]) > 0
            if front == "fast":  # Tornado leaves the close to the client
                assert connection.ended()
            connection.close()
        assert program.exit_status() == 0
        assert program.lines[-1] == "stopped; 0 queued, 0 in progress, 0 scheduled jobs discarded"


@fronts
def test_a_second_signal_ends_it_at_once(front: str):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_DRAIN="60s") as program, HalfSent(program) as half:
        program.signal()
        until(lambda: refuses_connections(program))
        started = time.monotonic()
        program.signal(signal.SIGINT)
        assert program.exit_status() == 1
        assert time.monotonic() - started < 1
        assert half.ended()


@either_front
def test_a_stop_under_load_loses_no_answer(front: str):
    """A client that got an answer got all of it; one that got none was refused or cut off before."""
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_ACCESS_LOG="off") as program:
        enqueued = []
        odd: list[BaseException] = []

        def work() -> None:
            try:
                with program.connect() as connection:
                    while True:
                        answer = connection.call("POST", "/jobs/enqueue", {"type": "x"})
                        if answer.status == 503:
                            assert answer.json["code"] == "stopping"
                            assert answer.headers["connection"] == "close"
                        else:
                            enqueued.append(answer.json["id"])
                        if answer.headers.get("connection") == "close":
                            return
            except OSError:
                return
            except BaseException as error:
                odd.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: len(enqueued) > 200)
        program.signal()
        assert program.exit_status() == 0
        for thread in threads:
            thread.join()
        assert not odd
        found = re.fullmatch(
            r"stopped; ([\d,]+) queued, 0 in progress, 0 scheduled jobs discarded", program.lines[-1]
        )
        assert found
        kept = int(found[1].replace(",", ""))
        assert len(set(enqueued)) == len(enqueued) <= kept <= len(enqueued) + len(threads)


# -- the log ----------------------------------------------------------------------------------------


@either_front
def test_the_access_log_has_a_line_for_each_request_and_no_secret(front: str):
    with Program(JOBQUEUE_HTTP=front) as program, program.connect() as connection:
        connection.call(
            "POST",
            "/jobs/enqueue",
            {"type": "secret-type", "payload": "secret-payload"},
            X_Request_Id="rid-1",
        )
        taken = connection.call("POST", "/jobs/dequeue").json
        path = f"/jobs/{taken['id']}/conclude"
        connection.call("POST", f"{path}?lease={taken['lease']}", {"result": "secret-result"})
        connection.call("POST", f"{path}?lease=secret-lease")
        connection.call("GET", "/jobs/%0a%1b[31m")
        connection.call("GET", "/nothing%7f")
        connection.call("GET", "/jobs/" + "x" * 2000)
        connection.call("GET", "/healthz")
        connection.call("HEAD", "/readyz")
        connection.call("POST", "/healthz")
        program.stop()
        lines = requests_logged(program)
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z info POST /jobs/enqueue 201 \d+ms 127\.0\.0\.1 rid=rid-1",
            lines[0],
        )
        assert [line.split()[2:5] for line in lines[1:6]] == [
            ["POST", "/jobs/dequeue", "200"], ["POST", path, "200"], ["POST", path, "409"],
            ["GET", "/jobs/%0a%1b[31m", "404"], ["GET", "/nothing%7f", "404"],
        ]  # fmt: skip
        assert len(lines[6]) < 400
        assert [line.split()[3:5] for line in lines[7:]] == [["/healthz", "405"]]
        everything = "\n".join(program.lines)
        assert taken["lease"] not in everything
        assert "secret" not in everything
        assert "?" not in everything.replace(program.start_line, "")


def test_control_characters_in_a_path_are_escaped_in_the_log():
    """Tornado accepts control characters above 127; a terminal may take them for commands."""
    with Program(JOBQUEUE_HTTP="tornado") as program:
        with program.connect() as connection:
            connection.send(b"GET /jobs/\x9b31m\x85 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.read().status == 404
        program.stop()
        (line,) = requests_logged(program)
        assert r" GET /jobs/\x9b31m\x85 404 " in line
        assert line.isprintable()


def test_a_broken_request_is_one_line_of_the_log():
    with Program() as program:
        for data in (
            b"GET /\x1b[31m\n2026 HTTP/1.1\r\n\r\n",
            b"\x00\x01\n\r\n\r\n",
            b"GET /a HTTP/1.1\r\nX : y\r\n\r\n",
        ):
            with program.connect() as connection:
                connection.send(data)
                assert connection.read().status == 400
        program.stop()
        lines = requests_logged(program) + [line for line in program.lines if " - - 400" in line]
        assert all(line.isprintable() for line in program.lines)
        assert len(program.lines) == 5, program.lines
        assert lines


@pytest.mark.parametrize(
    ("front", "mode"),
    [
        ("fast", "auto"), ("tornado", "auto"), ("fast", "errors"),
        pytest.param("fast", "off", marks=slow),
        pytest.param("fast", "all", marks=slow), pytest.param("tornado", "all", marks=slow),
        pytest.param("tornado", "errors", marks=slow), pytest.param("tornado", "off", marks=slow),
    ],
)  # fmt: skip
def test_each_mode_of_the_access_log_has_its_lines(front: str, mode: str):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_ACCESS_LOG=mode) as program:
        with program.connect() as connection:
            connection.send(
                b"GET /queues HTTP/1.1\r\nHost: a\r\n\r\n" * 400
                + b"GET /jobs/1 HTTP/1.1\r\nHost: a\r\n\r\n" * 3
            )
            for _ in range(403):
                connection.read()
        program.stop()
        lines = requests_logged(program)
        fine = [line for line in lines if " 200 " in line]
        failed = [line for line in lines if " 404 " in line]
        summed = [
            int(found[1])
            for line in program.lines
            if (found := re.search(r" info (\d+) more requests", line))
        ]
        assert len(failed) == (0 if mode == "off" else 3)
        if mode == "auto":  # the second may have changed once or twice meanwhile
            assert 100 <= len(fine) <= 300
            assert len(fine) + sum(summed) == 400
            assert 1 <= len(summed) <= 3
        else:
            assert (len(fine), summed) == (400 if mode == "all" else 0, [])


@either_front
def test_the_json_log_is_json(front: str):
    with Program(JOBQUEUE_HTTP=front, JOBQUEUE_LOG_FORMAT="json") as program:
        program.call("POST", '/jobs/enqueue?lease=secret"', {"type": "x"}, X_Request_Id="a.b")
        program.call("POST", "/jobs/enqueue", {"type": "x"})
        program.call("GET", '/nothing"\\%00')
        program.stop()
        lines = [json.loads(line) for line in program.lines]
        assert [line["event"] for line in lines] == ["start", "request", "request", "request", "stop"]
        assert lines[0]["message"].startswith(f"jobqueue {VERSION} on http://")
        assert lines[-1]["message"].startswith("stopped; 1 queued")
        assert all(list(line)[:2] == ["at", "level"] for line in lines)
        first = lines[1]
        assert list(first) == [
            "at",
            "level",
            "event",
            "method",
            "path",
            "status",
            "ms",
            "bytes",
            "peer",
            "request_id",
        ]
        assert (first["level"], first["method"], first["path"], first["status"]) == (
            "info",
            "POST",
            "/jobs/enqueue",
            400,
        )
        assert (first["peer"], first["request_id"]) == ("127.0.0.1", "a.b")
        assert first["bytes"] > 0
        assert lines[3]["path"] == '/nothing"\\%00'


@slow
def test_at_level_error_only_the_first_and_the_last_line_remain():
    with Program(JOBQUEUE_LOG_LEVEL="error") as program:
        program.call("GET", "/nothing")
        program.stop()
        assert len(program.lines) == 2


@either_front
def test_bad_input_of_every_kind_leaves_the_log_clean_and_the_server_up(front: str):
    with Program(JOBQUEUE_HTTP=front) as program:
        deep = b'{"type":"x","payload":' + b"[" * 100_000
        for path, body in (
            ("/jobs/enqueue", b"\xff\xfe"), ("/jobs/enqueue", b'{"type":"x","payload":"\xff"}'),
            ("/jobs/enqueue", deep), ("/jobs/enqueue", b'{"type":"x","priority":%d}' % 2**70),
            ("/jobs/enqueue", b"a=b&c=d" * 1000), ("/jobs/enqueue", b" " * (3 << 20)), ("/jobs/enqueue", b""),
            ("/jobs/enqueue", b'{"type":"a\\nb"}'), ("/jobs/" + "9" * 5000 + "/conclude", b"{}"),
            ("/jobs/dequeue?wait=-1", b""), ("/jobs/dequeue?wait=61", b""), ("/jobs/dequeue?queue=../x", b""),
            ("/jobs/dequeue", b'{"queues":["a\\u0000"]}'),
        ):  # fmt: skip
            status, problem = program.call("POST", path, body)
            assert 400 <= status < 500, (path, body[:40])
            assert problem["status"] == status
        assert program.call("GET", "/healthz")[0] == 200
        assert program.stop() == 0
