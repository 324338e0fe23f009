"""The workers that the server hands out, against the real program: fetched by curl, run by each shell that is
installed and by Python. With TEST_ALL=1 every test runs with each of them."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
from running import Program, environment, until

from jobqueue.version import VERSION

ALL = os.environ.get("TEST_ALL") == "1"
STATIC = Path(__file__).parents[2] / "jobqueue" / "web" / "static"
WORKERS = {
    "dash": ("worker.sh", ["dash"]), "bash": ("worker.sh", ["bash"]), "busybox": ("worker.sh", ["busybox", "sh"]),
    "python": ("worker.py", [sys.executable]),
}  # fmt: skip
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
each = pytest.mark.parametrize("kind", WORKERS)
some = pytest.mark.parametrize("kind", WORKERS if ALL else ["dash"])
only_all = pytest.mark.skipif(not ALL, reason="long: set TEST_ALL=1")


@pytest.fixture
def program() -> Iterator[Program]:
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_FIRST_ID="1") as program:
        yield program


class Server(Protocol):
    """The server that the worker is fetched from."""

    @property
    def port(self) -> int: ...


def children(pid: int) -> list[str]:
    """Process id and command of each child."""
    done = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()


class Worker:
    """One worker, fetched and started through a pipe as the docs show it, in a process group of its own."""

    def __init__(self, kind: str, server: Server, *arguments: str, folder: Path, **variables: str) -> None:
        file, command = WORKERS[kind]
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        take = {"worker.sh": "-s --", "worker.py": "-"}[file]
        line = f'curl -s "$Q/{file}" | {shlex.join(command)} {take} "$@"'
        self.process = subprocess.Popen(
            ["sh", "-c", line, "sh", *arguments],
            env=environment(**{"Q": f"http://127.0.0.1:{server.port}", "TMPDIR": str(folder)} | variables),
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
        self.folder = folder

    def ended(self, seconds: float = 15) -> str:
        """Returns its output. It must end by itself, with status 0, and leave no files."""
        said, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, said
        until(lambda: not list(self.folder.glob("jobqueue-worker.*")))
        return said

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Signals the worker, not the shell around it."""
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        """The last process of the pipe, once it runs."""
        found: list[str] = []

        def runs() -> bool:
            # Both begin as a copy of the shell. During its exec a process has no arguments, and a name in brackets.
            for number, command in (line.split(None, 1) for line in children(self.process.pid)):
                if "curl" not in command and command[0] != "[":
                    found[:] = [number]
            return bool(found)

        until(runs)
        return int(found[0])

    def kill(self) -> None:
        """Kills its remaining processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(program: Program, tmp_path: Path) -> Iterator[Any]:
    made: list[Worker] = []

    def start(kind: str, *arguments: str, **variables: str) -> Worker:
        made.append(Worker(kind, program, *arguments, folder=tmp_path, **variables))
        return made[-1]

    yield start
    for worker in made:
        worker.kill()


def put(program: Program, body: bytes = b"x", query: str = "", queue: str = "q", **headers: str) -> int:
    status, job = program.call("POST", f"/queues/{queue}/enqueue?raw=1&{query}", body, **headers)
    assert status == 201, job
    return int(job["id"])


def job_of(program: Program, id: int) -> Any:
    return program.call("GET", f"/jobs/{id}")[1]


def has_status(program: Program, id: int, status: str) -> None:
    until(lambda: job_of(program, id)["status"] == status)


# -- the files --------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_worker_sh_is_clean():
    done = subprocess.run(
        ["shellcheck", "--severity=style", "--exclude=SC2317", STATIC / "worker.sh"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@some
def test_it_prints_its_usage_and_refuses_bad_arguments_at_once(start, kind):
    assert start(kind, "-V").ended() == f"jobqueue worker {VERSION}\n"
    said = start(kind, "-h").ended()
    assert "-j N" in said
    assert "JOBQUEUE_TOKEN" in said
    for arguments in (
        [],
        ["q"],
        ["q", "--"],
        ["-x", "q", "true"],
        ["-j", "x", "q", "true"],
        ["q", "no-such-command"],
    ):
        worker = start(kind, *arguments)
        said, _ = worker.process.communicate(timeout=10)
        assert (worker.process.returncode, bool(said)) == (2, True), arguments
    worker = start(kind, "-w", "999", "q", "true")  # the server refuses this
    said, _ = worker.process.communicate(timeout=10)
    assert worker.process.returncode == 1
    assert "wait: from 0 to 60 seconds" in said


# -- one job after the other ------------------------------------------------------------------------


@each
def test_the_exit_status_of_the_command_decides_the_outcome(program, start, kind):
    payload = bytes(range(256)) * 9
    ids = {
        name: put(program, payload, f"type={name}", **{"Content-Type": "a/b"})
        for name in ("good", "json", "later", "bad", "empty", "binary")
    }
    command = """
        case $JOB_TYPE in
            good) wc -c; echo "$JOB_ID $JOB_QUEUE $JOB_PRIORITY $JOB_ATTEMPTS $JOB_LEASE_FOR $JOB_CONTENT_TYPE" ;;
            later) exit 75 ;;
            bad) echo trouble >&2; echo worse >&2; exit 3 ;;
            binary) cat ;;
        esac
    """
    said = start(kind, "-o", "-w", "0", "-j", "2", "-d", "60", "-v", "q", "--", "sh", "-c", command).ended()
    jobs = {name: job_of(program, id) for name, id in ids.items()}
    good, later, bad = jobs["good"], jobs["later"], jobs["bad"]
    assert (good["status"], good["result"].split()) == (
        "concluded", ["2304", str(ids["good"]), "q", "0", "1", "300", "a/b"]
    )  # fmt: skip
    assert (later["status"], later["attempts"]) == ("scheduled", 0)
    assert (bad["status"], bad["error"].strip()) == ("scheduled", "exit 3\ntrouble\nworse")
    assert (jobs["empty"]["status"], "result" in jobs["empty"]) == ("concluded", False)
    assert jobs["binary"]["result_encoding"] == "base64"
    assert jobs["binary"]["result"] == jobs["binary"]["payload"]
    assert f"job {ids['bad']}: exit 3: worse" in said
    assert f"job {ids['good']}: concluded" in said


@only_all
@some
def test_results_may_be_json_and_a_worker_may_have_several_queues(program, start, kind):
    id = put(program, b'{"n":1}', "type=%C3%A9%20%25", queue="second")
    first = put(program, b"", queue="first")
    start(
        kind,
        "-o",
        "-w",
        "0",
        "-t",
        "application/json",
        "first,second",
        "sh",
        "-c",
        'echo "[\\"$JOB_TYPE\\"]"',
    ).ended()
    assert [job_of(program, one)["result"] for one in (first, id)] == [["first"], ["é %"]]


@some
def test_a_result_that_is_refused_fails_the_job(program, start, kind):
    id = put(program)
    start(kind, "-o", "-w", "0", "-t", "application/json", "q", "echo", "no json").ended()
    job = job_of(program, id)
    # The work was done; doing it again would not change its result.
    assert (job["status"], job["attempts"]) == ("dead", 1)
    assert "the result was refused" in job["error"]


@pytest.mark.parametrize("kind", WORKERS if ALL else ["dash", "python"])
def test_it_goes_on_to_the_next_address_when_a_server_is_away(program, start, kind):
    id = put(program)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        live = f"http://127.0.0.1:{program.port}"
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        worker = start(
            kind, "q", "--", "sh", "-c", 'echo "$JOB_URL $JOBQUEUE_URL"', JOBQUEUE_URL=f"{dead}/, {live}/"
        )
        has_status(program, id, "concluded")
        job_url, urls = job_of(program, id)["result"].split(maxsplit=1)
        assert job_url == f"{live}/jobs/{id}"
        assert {url.strip().rstrip("/") for url in urls.split(",")} == {dead, live}
        worker.signal()
        worker.ended()


@only_all
@some
def test_no_job_is_taken_twice_by_slots_that_work_at_once(program, start, kind):
    ids = [put(program) for _ in range(12)]
    start(kind, "-o", "-w", "0", "-j", "4", "q", "sh", "-c", "echo $JOB_ID").ended()
    jobs = [job_of(program, id) for id in ids]
    assert [(job["result"], job["leases"]) for job in jobs] == [(f"{id}\n", 1) for id in ids]
    assert len({job["consumer"] for job in jobs}) > 1


# -- while the command runs -------------------------------------------------------------------------


@only_all
@some
def test_the_lease_is_renewed_while_the_command_runs(program, start, kind):
    id = put(program)
    start(kind, "-o", "-w", "0", "-l", "3", "q", "sleep", "3.5").ended()
    job = job_of(program, id)
    assert (job["status"], job["leases"]) == ("concluded", 1)


@some
def test_with_o_the_worker_does_not_wait_for_a_first_job(program, start, kind):
    began = time.monotonic()
    start(kind, "-o", "q", "true").ended()
    assert time.monotonic() - began < 20  # without -o it would wait for 30 seconds


@some
def test_a_command_whose_job_is_cancelled_is_stopped(program, start, kind, tmp_path):
    id = put(program)
    lease = ("-l", "3") if ALL else ()  # whatever the length of the lease, the worker asks every few seconds
    worker = start(kind, *lease, "q", "sh", "-c", f"sleep 60 & echo $! >{tmp_path}/pid; wait")
    has_status(program, id, "in_progress")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    assert program.call("DELETE", f"/jobs/{id}")[0] == 202
    has_status(program, id, "cancelled")
    until(lambda: not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists())
    worker.signal()
    worker.ended()


@only_all
@some
def test_a_command_whose_lease_is_lost_is_stopped(program, start, kind):
    id = put(program)
    worker = start(kind, "-o", "-l", "3", "-w", "0", "q", "sleep", "60")
    has_status(program, id, "in_progress")
    assert program.call("DELETE", f"/jobs/{id}?force=1")[0] == 200
    assert "its lease is lost" in worker.ended()


# -- the end ----------------------------------------------------------------------------------------


@some
def test_a_signal_ends_a_wait_at_once(program, start, kind):
    worker = start(kind, "-j", "2", "q", "true")
    until(lambda: program.call("GET", "/queues/q")[1]["consumers_waiting"] == 2)
    worker.signal()
    assert worker.ended(5).startswith(f"worker: waits for jobs of q at http://127.0.0.1:{program.port}\n")
    assert program.call("GET", "/queues/q")[1]["consumers_waiting"] == 0


class Relay:
    """A proxy that keeps the end of what a client sends to itself while an answer is due, as HAProxy does."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._open = [self._socket]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [client, server]
                for source, sink, ends in ((client, server, False), (server, client, True)):
                    carrying = threading.Thread(target=self._carry, args=(source, sink, ends))
                    self._threads.append(carrying)
                    carrying.start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, ends: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            if ends:
                sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for each in self._open:
            each.close()


@pytest.mark.parametrize("kind", ["python", "dash"])
def test_a_signal_ends_a_wait_also_through_a_proxy_that_says_nothing_of_it(program, tmp_path, kind):
    relay = Relay(program.port)
    worker = Worker(kind, relay, "-j", "2", "-w", "60", "q", "true", folder=tmp_path)
    try:
        until(lambda: program.call("GET", "/queues/q")[1]["consumers_waiting"] == 2)
        worker.signal()
        worker.ended(20)
    finally:
        worker.kill()
        relay.close()


@some
def test_after_a_signal_the_command_may_finish(program, start, kind, tmp_path):
    ids = [put(program), put(program)]
    worker = start(kind, "q", "sh", "-c", f"touch {tmp_path}/begun; sleep 1; echo done")
    until((tmp_path / "begun").exists)
    worker.signal()
    worker.ended()
    jobs = [job_of(program, id) for id in ids]
    assert [(job["status"], job.get("result")) for job in jobs] == [("concluded", "done\n"), ("queued", None)]
    assert jobs[1]["leases"] == 0


@some
@pytest.mark.parametrize("how", ["its time is over", "a second signal"])
def test_a_command_that_takes_too_long_is_stopped_and_its_job_given_back(program, start, kind, tmp_path, how):
    id = put(program)
    grace = "1" if how == "its time is over" else "60"
    worker = start(kind, "-g", grace, "q", "sh", "-c", f"touch {tmp_path}/begun; sleep 60")
    until((tmp_path / "begun").exists)
    worker.signal()
    if how == "a second signal":
        time.sleep(0.3)
        worker.signal()
    worker.ended()
    job = job_of(program, id)
    assert (job["status"], job["attempts"], job["leases"]) == ("queued", 0, 1)


@pytest.mark.parametrize("kind", ["dash", "bash", "busybox"] if ALL else ["dash"])
def test_the_slots_end_when_their_supervisors_are_killed(program, start, kind, tmp_path):
    worker = start(kind, "-j", "2", "-w", "1", "q", "true")
    until(lambda: program.call("GET", "/queues/q")[1]["consumers_waiting"] == 2)
    first = worker.pid
    watcher = min(int(line.split()[0]) for line in children(first))  # it was started first
    for pid in (watcher, first):
        os.kill(pid, signal.SIGKILL)
    until(lambda: program.call("GET", "/queues/q")[1]["consumers_waiting"] == 0)
    time.sleep(0.3)
    assert program.call("GET", "/queues/q")[1]["consumers_waiting"] == 0


@pytest.mark.parametrize("kind", ["dash", "bash", "busybox"] if ALL else ["dash"])
def test_when_the_first_process_is_killed_the_others_end_and_release_their_jobs(
    program, start, kind, tmp_path
):
    id = put(program)
    worker = start(kind, "-j", "2", "-g", "0", "q", "sh", "-c", f"touch {tmp_path}/begun; sleep 60")
    until((tmp_path / "begun").exists)
    worker.signal(signal.SIGKILL)
    has_status(program, id, "queued")
    until(lambda: program.call("GET", "/queues/q")[1]["consumers_waiting"] == 0)
    until(lambda: not list(tmp_path.glob("jobqueue-worker.*")))
    assert job_of(program, id)["attempts"] == 0


@only_all
@some
def test_a_worker_continues_when_the_server_is_back(tmp_path, kind):
    with Program(JOBQUEUE_ACCESS_LOG="off") as first:
        port = str(first.port)
        worker = Worker(kind, first, "q", "sh", "-c", "echo done", folder=tmp_path)
        try:
            until(lambda: first.call("GET", "/queues/q")[1]["consumers_waiting"] == 1)
            first.stop()
            with Program(JOBQUEUE_PORT=port, JOBQUEUE_ACCESS_LOG="off") as again:
                id = put(again)
                has_status(again, id, "concluded")
                worker.signal()
                assert worker.ended().count("trying again") <= 2
        finally:
            worker.kill()


# -- nothing is lost --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WORKERS if ALL else ["dash"])
def test_workers_that_are_killed_at_random_lose_no_job(kind):
    """`tests/server/killed_workers.py` is the long form: 10,000 jobs."""
    if shutil.which(WORKERS[kind][1][0]) is None:
        pytest.skip(f"{WORKERS[kind][1][0]} is not installed")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_workers.py"), kind,
         "--jobs", "1000" if ALL else "60", "--every", "0.3"],
        env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["concluded"] == said["jobs"]
    assert said["killed"] > 0
