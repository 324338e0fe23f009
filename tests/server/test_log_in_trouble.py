"""The real program when its standard streams are in trouble: nobody reads them, they are closed, or their disk is full.

No failure to log may change what the server does. It listens on a Unix socket here, since its first line, which
would tell the port, may be lost.
"""

import contextlib
import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from running import CLI, MODULE, Program, environment, until

import jobqueue

COMMAND = shlex.join(MODULE)
slow = pytest.mark.skipif(os.environ.get("TEST_ALL") != "1", reason="one process more: with TEST_ALL=1")


def some(quick, others):
    """`quick`, and with TEST_ALL=1 the others too."""
    return [
        *quick,
        *(pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=slow) for one in others),
    ]


# What a shell does to the standard streams.
REDIRECTIONS = some(
    ["<&- >&- 2>&-", "reader gone"], ["2>&-", "2>/dev/full", ">&- 2>&-", ">/dev/full 2>/dev/full"]
)
fronts = pytest.mark.parametrize("front", ["fast", "tornado"])


class _Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Server:
    """The program on a Unix socket, with stderr as given, or as `redirection` says."""

    def __init__(self, folder, stderr=subprocess.DEVNULL, redirection="", before="", **settings):
        self.path = str(folder / "sock")
        self.process = subprocess.Popen(
            ["sh", "-c", f"{before} exec {COMMAND} {redirection}"],
            env=environment(JOBQUEUE_HOST=f"unix:{self.path}", **settings), cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
        )  # fmt: skip

    def __enter__(self):
        until(lambda: self.process.poll() is not None or self.is_ready(), 30)
        assert self.process.poll() is None, f"it ended with {self.process.poll()}"
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def is_ready(self):
        with contextlib.suppress(OSError):
            return self.call("GET", "/readyz")[0] == 200
        return False

    def call(self, method, path, body=None):
        with contextlib.closing(_Unix(self.path)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def many(self, count, path):
        """Sends requests, a hundred at once. Returns the number of answers with status 404."""
        found = 0
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(self.path)
            for _ in range(count // 100):
                connection.sendall(request * 100)
                text = b""
                while text.count(b"HTTP/1.1 404 ") < 100:
                    more = connection.recv(1 << 16)
                    assert more
                    text += more
                found += 100
        return found

    def lost(self):
        text = self.call("GET", "/metrics")[1]
        return float(re.search(r"^jobqueue_log_lines_lost_total (\S+)$", text, re.MULTILINE)[1])

    def stop(self):
        self.process.terminate()
        return self.process.wait(10)


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def fill(descriptor):
    """Writes to a pipe until it takes no more."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x" * 4096)
    os.set_blocking(descriptor, True)


def is_served(server):
    status, answer = server.call("POST", "/jobs/enqueue", {"type": "x"})
    assert status == 201
    assert server.call("GET", f"/jobs/{json.loads(answer)['id']}")[0] == 200
    assert server.call("GET", "/nothing")[0] == 404


@fronts
def test_a_server_whose_stderr_nobody_reads_answers_every_request_and_stops(tmp_path, pipe, front):
    _, writing = pipe
    settings = {"JOBQUEUE_HTTP": front, "JOBQUEUE_ACCESS_LOG": "all"}
    with Server(tmp_path, stderr=writing, **settings) as server:
        os.close(writing)
        # Its lines are more than the pipe and the buffer hold.
        assert server.many(6000, "/" + "y" * 190) == 6000
        is_served(server)
        assert server.lost() > 0
        assert server.stop() == 0


def test_once_somebody_reads_again_a_line_says_how_many_were_lost(tmp_path, pipe):
    reading, writing = pipe
    with Server(tmp_path, stderr=writing, JOBQUEUE_ACCESS_LOG="all", JOBQUEUE_LOG_FORMAT="json") as server:
        os.close(writing)
        server.many(5000, "/" + "y" * 190)
        lost = server.lost()
        assert lost > 0
        lines = []

        def read():
            with open(reading, closefd=False) as file:
                lines.extend(map(json.loads, file))

        reader = threading.Thread(target=read)
        reader.start()
        until(lambda: any(line["event"] == "lost_lines" for line in lines))
        assert server.stop() == 0
        reader.join()
    (said,) = [line for line in lines if line["event"] == "lost_lines"]
    assert (said["level"], said["count"] >= lost) == ("warning", True)
    assert lines[-1]["event"] == "stop"


@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_without_a_usable_stderr_it_starts_serves_and_stops(tmp_path, pipe, redirection):
    reading, writing = pipe
    stderr = subprocess.DEVNULL
    if redirection == "reader gone":
        os.close(reading)
        stderr, redirection = writing, ""
    data = {"JOBQUEUE_DATA": str(tmp_path / "data"), "JOBQUEUE_ACCESS_LOG": "all"}
    with Server(tmp_path, stderr, redirection, **data) as server:
        is_served(server)
        server.process.send_signal(signal.SIGHUP)
        is_served(server)
        # Nothing else has taken the number of a closed stream.
        for number in (1, 2):
            target = os.readlink(f"/proc/{server.process.pid}/fd/{number}")
            assert target.startswith(("/dev/", "pipe:")), target
        assert server.lost() > 0
        assert server.stop() == 0


def test_the_reader_of_stderr_may_go_while_it_serves(tmp_path, pipe):
    reading, writing = pipe
    with Server(tmp_path, stderr=writing) as server:
        os.close(writing)
        is_served(server)
        os.close(reading)
        is_served(server)
        assert server.stop() == 0


@pytest.mark.parametrize("redirection", some(["2>/dev/full"], ["2>&-"]))
@pytest.mark.parametrize(
    ("settings", "status"),
    [({"JOBQUEUE_LEASE": "soon"}, 2), ({"JOBQUEUE_HOST": "a..b"}, 1), ({"JOBQUEUE_DATA": "/dev/null"}, 1)],
)
def test_a_start_that_fails_has_its_exit_status_also_without_stderr(redirection, settings, status):
    done = subprocess.run(
        ["sh", "-c", f"exec {COMMAND} {redirection}"],
        env=environment(**{"JOBQUEUE_PORT": "0", "JOBQUEUE_HOST": "127.0.0.1"} | settings),
        cwd="/", timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == status


@pytest.mark.parametrize("stderr", ["gone", "not read"])
def test_with_a_journal_that_cannot_be_written_it_ends_with_74_whatever_stderr_is(tmp_path, pipe, stderr):
    reading, writing = pipe
    if stderr == "gone":
        os.close(reading)
    else:
        fill(writing)
    data = {"JOBQUEUE_DATA": str(tmp_path / "data")}
    # 24,000 blocks of 512 bytes: no file may be larger.
    with Server(tmp_path, writing, before="ulimit -f 24000;", **data) as server:
        with contextlib.suppress(OSError, http.client.HTTPException):
            for _ in range(400):
                if server.call("POST", "/jobs/enqueue", {"type": "x", "payload": "x" * 200_000})[0] != 201:
                    break
        assert server.process.wait(15) == 74


@pytest.mark.parametrize(
    ("arguments", "redirection", "status"),
    some(
        [("token", ">&-", 1), ("token ann", "2>&-", 1), ("journal dump", ">/dev/full", 1), ("bogus", "2>&-", 2)],
        [
            ("token", ">/dev/full", 1), ("--help", ">/dev/full", 1), ("--version", ">&-", 1), ("token", "2>&-", 0),
            ("token ann bad-right", "2>&-", 2), ("journal dump", ">&-", 1), ("journal verify", ">/dev/full", 1),
            ("journal verify", "2>&-", 0), ("journal nonsense", "2>/dev/full", 2),
        ],
    ),
)  # fmt: skip
def test_a_command_whose_output_cannot_be_written_says_so_without_a_traceback(
    tmp_path, arguments, redirection, status
):
    data = {"JOBQUEUE_DATA": str(tmp_path)}
    if "journal" in arguments:
        with Server(tmp_path, **data) as server:
            server.call("POST", "/jobs/enqueue", {"type": "x"})
            assert server.stop() == 0
    done = subprocess.run(
        ["sh", "-c", f"exec {shlex.join(CLI)} {arguments} {redirection}"], env=environment(**data), cwd="/",
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert "Traceback" not in done.stderr + done.stdout
    if status == 1 and redirection[0] == ">":
        assert done.stderr.startswith("jobqueue: cannot read the input or write the output: ")


@pytest.mark.parametrize("arguments", ["token", "journal dump"])
def test_a_command_whose_reader_has_gone_ends_quietly(tmp_path, pipe, arguments):
    reading, writing = pipe
    os.close(reading)
    with Server(tmp_path, JOBQUEUE_DATA=str(tmp_path)) as server:
        server.call("POST", "/jobs/enqueue", {"type": "x"})
        assert server.stop() == 0
    done = subprocess.run(
        [*CLI, *arguments.split()], env=environment(JOBQUEUE_DATA=str(tmp_path)), cwd="/",
        stdout=writing, stderr=subprocess.PIPE, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_an_exception_that_python_reports_does_not_block_on_stderr(pipe):
    """Exceptions of destructors and threads are printed to `sys.stderr`."""
    script = """if True:
        import sys, threading
        from jobqueue.server.log_writer import LogStream, LogWriter
        class Bad:
            def __del__(self):
                raise ValueError("x" * 1000)
        sys.stderr = LogStream(writer := LogWriter())
        for _ in range(200):
            Bad()
        writer.stop(0.05)
        print("done")
    """
    _, writing = pipe
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, stderr=writing, timeout=30,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.parametrize(
    ("kind", "stderr"), [("worker.py", "closed"), ("worker.py", "not read"), ("worker.sh", "closed")]
)
def test_a_worker_whose_stderr_is_closed_or_that_nobody_reads_goes_on(pipe, kind, stderr):
    _, writing = pipe
    if stderr == "not read":
        fill(writing)
    worker = Path(jobqueue.__file__).parent / "web" / "static" / kind
    with Program(JOBQUEUE_MAX_ATTEMPTS="1") as program:
        for _ in range(3):
            program.call("POST", "/queues/q/enqueue", {"type": "x"})
        shell = "sh" if kind == "worker.sh" else sys.executable
        command = f"exec {shlex.join([shell, str(worker)])} -v -o -w 1 q -- sh -c 'exit 3'"
        done = subprocess.run(
            ["sh", "-c", command + (" 2>&-" if stderr == "closed" else "")],
            env=environment(JOBQUEUE_URL=f"http://127.0.0.1:{program.port}"), stdin=subprocess.DEVNULL,
            stderr=writing, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        assert program.call("GET", "/stats")[1]["jobs"]["dead"] == 3
