"""The workers when the server, the network, the machine or the command fails. With TEST_ALL=1 every test runs with each
of them and each shell."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running import Program, until
from test_workers import ALL, WORKERS, Worker, has_status, job_of, put, some

SHELLS = ["dash", "bash", "busybox"] if ALL else ["dash"]
pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
    pytest.mark.skipif(not ALL, reason="many processes: with TEST_ALL=1"),
]
shells = pytest.mark.parametrize("kind", SHELLS)
signals = pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name
)

JOB = (
    b"HTTP/1.1 200 OK\r\nJob-Id: 7\r\nJob-Queue: q\r\nJob-Type: t\r\nJob-Priority: 0\r\nJob-Attempts: 1\r\n"
    b"Job-Lease: abc\r\nJob-Lease-For: 300\r\nJob-Lease-Expires-At: 2026-01-01T00:00:00.000Z\r\n"
    b"Content-Type: a/b\r\nConnection: close\r\nContent-Length: 5\r\n\r\n"
)
NOTHING = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def refusal(status: int, *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 {status} No\r\nConnection: close\r\nContent-Length: 3\r\n{head}\r\nno\n".encode()


class Scripted:
    """A server that gives the scripted answers, one for each request, and then says that there is no job."""

    def __init__(self, *answers: bytes) -> None:
        self.asked: list[tuple[float, str]] = []
        self._answers = list(answers)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                with client, suppress(OSError):
                    self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        left = int(length[1]) - len(body) if length else 0
        while left > 0:
            left -= len(client.recv(65536))
        line = head.split(b" ")[1].decode()
        if line.startswith("/worker."):
            kind = line[1:]
            body = (Path(__file__).parents[2] / "jobqueue" / "web" / "static" / kind).read_bytes()
            body = body.replace(b"localhost:8080", f"127.0.0.1:{self.port}".encode())
            client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)
            return
        self.asked.append((time.monotonic(), line))
        client.sendall(self._answers.pop(0) if self._answers else NOTHING)

    def paths(self) -> list[str]:
        return [line.partition("?")[0] for _, line in self.asked]

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def program() -> Iterator[Program]:
    with Program(
        JOBQUEUE_ACCESS_LOG="off",
        JOBQUEUE_FIRST_ID="1",
        JOBQUEUE_MAX_BODY="16MiB",
        JOBQUEUE_MAX_RESULT="16MiB",
    ) as program:
        yield program


@pytest.fixture
def begin(tmp_path: Path) -> Iterator:
    made: list[Worker] = []

    def begin(kind: str, server: Program | Scripted, *arguments: str, **variables: str) -> Worker:
        made.append(Worker(kind, server, *arguments, folder=tmp_path, **variables))
        return made[-1]

    yield begin
    for worker in made:
        worker.kill()


@pytest.fixture
def scripted() -> Iterator:
    made: list[Scripted] = []

    def start(*answers: bytes) -> Scripted:
        made.append(Scripted(*answers))
        return made[-1]

    yield start
    for server in made:
        server.close()


def said_by(worker: Worker, seconds: float = 20) -> tuple[int, str]:
    said, _ = worker.process.communicate(timeout=seconds)
    return worker.process.returncode, said


# -- signals ----------------------------------------------------------------------------------------


@some
@signals
def test_each_signal_ends_a_wait(program, begin, kind, number):
    worker = begin(kind, program, "-j", "8", "q", "true")
    until(lambda: program.call("GET", "/queues/q")[1]["consumers_waiting"] == 8)
    worker.signal(number)
    worker.ended(5)
    assert program.call("GET", "/queues/q")[1]["consumers_waiting"] == 0


@some
@signals
def test_each_signal_lets_the_command_end(program, begin, kind, tmp_path, number):
    id = put(program)
    worker = begin(kind, program, "q", "--", "sh", "-c", f"touch {tmp_path}/begun; sleep 0.5; echo done")
    until((tmp_path / "begun").exists)
    worker.signal(number)
    worker.ended()
    assert job_of(program, id)["result"] == "done\n"


@some
def test_a_signal_ends_a_pause_between_requests(scripted, begin, kind):
    server = scripted(*[refusal(503, "Retry-After: 60")] * 9)
    worker = begin(kind, server, "-j", "2", "q", "true")
    until(lambda: len(server.asked) >= 2)
    time.sleep(0.3)
    worker.signal()
    assert "no answer" in worker.ended(5)


def busy(program: Program) -> tuple[int, int]:
    """Returns the numbers of waiting consumers and of jobs in progress."""
    stats = program.call("GET", "/stats")[1]
    return stats["consumers_waiting"], stats["jobs"]["in_progress"]


@some
def test_a_signal_at_any_moment_ends_the_worker_and_releases_its_jobs(program, begin, kind):
    """While it starts, dequeues, works or concludes."""
    for moment in range(16):
        put(program, query="retain_for=0")
        worker = begin(kind, program, "-j", "2", "q", "true")
        pid = worker.pid
        time.sleep(moment * 0.012)
        os.kill(pid, signal.SIGTERM)
        code, said = said_by(worker)
        assert code == 0 or (code, said) == (
            128 + signal.SIGTERM,
            "Terminated\n",
        )  # the signal came before its handler was set
        # The server may read the end of a connection a moment after the next request.
        until(lambda: busy(program) == (0, 0))


# -- the command ------------------------------------------------------------------------------------


@some
def test_eight_slots_work_at_once(program, begin, kind, tmp_path):
    ids = [put(program) for _ in range(24)]
    count = (
        f"echo >{tmp_path}/run-$JOB_ID; ls {tmp_path} | grep -c run-; sleep 0.3; rm {tmp_path}/run-$JOB_ID"
    )
    begin(kind, program, "-j", "8", "-o", "-w", "0", "q", "sh", "-c", count).ended(30)
    results = [int(job_of(program, id)["result"]) for id in ids]
    assert max(results) == 8


@some
def test_a_command_that_ignores_sigterm_is_killed(program, begin, kind, tmp_path):
    id = put(program)
    command = f'trap "" TERM; echo $$ >{tmp_path}/pid; while :; do sleep 0.2; done'
    worker = begin(kind, program, "-l", "3", "q", "sh", "-c", command)
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    worker.signal()
    time.sleep(0.2)
    worker.signal()
    worker.ended(12)
    job = job_of(program, id)
    assert (job["status"], job["attempts"]) == ("queued", 0)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


@pytest.mark.parametrize("kind", ["dash", "bash", "busybox"])
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_result_whose_file_is_gone_is_not_sent_as_empty(program, begin, kind):
    """The files of a worker whose first process has gone were removed before curl could read the result."""
    id = put(program)
    worker = begin(kind, program, "-v", "q", "sh", "-c", 'rm "$(readlink /proc/$$/fd/1)"')
    until(lambda: job_of(program, id)["status"] == "in_progress")
    time.sleep(1)
    assert job_of(program, id)["status"] == "in_progress"
    worker.signal()
    assert f"job {id}: could not be concluded (000)" in worker.ended(20)


@some
def test_large_payloads_and_results_pass_unchanged(program, begin, kind):
    payload = os.urandom(10 << 20)
    kept, ignored = put(program, payload, "type=cat"), put(program, payload, "type=true")
    begin(kind, program, "-o", "-w", "0", "q", "sh", "-c", 'exec "$JOB_TYPE"').ended(60)
    job = job_of(program, kept)
    assert job["result_encoding"] == "base64"
    assert job["result"] == job["payload"]
    assert job_of(program, ignored)["status"] == "concluded"


@some
def test_the_output_of_the_command_may_be_any_bytes(program, begin, kind):
    id = put(program)
    begin(kind, program, "-o", "-w", "0", "q", "sh", "-c", r"printf 'a\377\000\033é' >&2; exit 3").ended()
    job = job_of(program, id)
    assert (job["status"], job["attempts"]) == ("scheduled", 1)
    assert "exit 3" in str(job["error"])


@some
def test_arguments_reach_the_command_unchanged(program, begin, kind):
    id = put(program, queue="a.b:c-d_e")
    given = ["a b", "*", "it's", "", '"', "$HOME", "-x", "new\nline", "\\"]
    begin(kind, program, "-o", "-w", "0", "a.b:c-d_e", "sh", "-c", 'printf "<%s>" "$@"', "sh", *given).ended()
    assert job_of(program, id)["result"] == "".join(f"<{one}>" for one in given)


@some
def test_the_command_runs_as_it_would_from_the_shell(program, begin, kind):
    """It has the caller's files, signals and folder."""
    id = put(program)
    command = "umask; pwd; grep -E 'Sig(Blk|Ign)' /proc/self/status"
    mask = os.umask(0o027)
    try:
        worker = begin(kind, program, "-o", "-w", "0", "q", "sh", "-c", command)
    finally:
        os.umask(mask)
    worker.ended()
    umask, folder, blocked, ignored = job_of(program, id)["result"].split("\n")[:4]
    assert umask == "0027"
    assert folder == str(worker.folder)
    assert int(blocked.split()[1], 16) == 0
    wrongly = int(ignored.split()[1], 16) & sum(
        1 << (number - 1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2)
    )
    assert not wrongly, hex(wrongly)


@some
def test_a_missing_command_fails_the_job(program, begin, kind, tmp_path):
    command = tmp_path / "command"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o700)
    worker = begin(kind, program, "q", str(command))
    until(lambda: program.call("GET", "/queues/q")[1]["consumers_waiting"] == 1)
    command.unlink()
    id = put(program)
    has_status(program, id, "scheduled")
    worker.signal()
    worker.ended()


# -- the server -------------------------------------------------------------------------------------


@some
@pytest.mark.parametrize("status", [401, 403, 404])
def test_it_ends_with_a_reason_if_asking_again_is_useless(scripted, begin, kind, status):
    server = scripted(refusal(status))
    code, said = said_by(begin(kind, server, "q", "true"))
    assert (code, "refused: no" in said, len(server.asked)) == (1, True, 1), said


@some
@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_it_asks_again_after_a_temporary_failure(scripted, begin, kind, status):
    server = scripted(refusal(status), refusal(status), NOTHING)
    code, said = said_by(begin(kind, server, "-o", "q", "true"))
    assert (code, len(server.asked)) == (0, 3)
    assert said.count(f"no answer from http://127.0.0.1:{server.port} ({status})") == 1


@some
def test_it_respects_retry_after(scripted, begin, kind):
    server = scripted(refusal(429, "Retry-After: 3"), NOTHING)
    said_by(begin(kind, server, "-o", "q", "true"))
    (first, _), (second, _) = server.asked
    assert 3 <= second - first < 8


@some
@pytest.mark.parametrize("status", [401, 403, 409, 410])
def test_a_refused_conclude_does_not_fail_the_job(scripted, begin, kind, status):
    server = scripted(JOB + b"hello", refusal(status), NOTHING)
    code, said = said_by(begin(kind, server, "-o", "q", "true"))
    assert code == 0
    assert server.paths() == ["/jobs/dequeue", "/jobs/7/conclude", "/jobs/dequeue"]
    assert f"could not be concluded ({status})" in said


@some
@pytest.mark.parametrize("answers", [[500], [429, 503]], ids=str)
def test_a_request_without_an_answer_is_repeated(scripted, begin, kind, answers):
    done = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    server = scripted(JOB + b"hello", *map(refusal, answers), done, NOTHING)
    code, said = said_by(begin(kind, server, "-o", "-v", "q", "true"))
    assert (code, "job 7: concluded" in said) == (0, True), said
    assert server.paths().count("/jobs/7/conclude") == len(answers) + 1


@some
def test_a_proxy_may_leave_out_the_length(scripted, begin, kind):
    server = scripted(JOB.replace(b"Content-Length: 5\r\n", b"") + b"hello", NOTHING, NOTHING)
    begin(kind, server, "-o", "q", "grep", "-qx", "hello").ended()
    assert server.paths()[1] == "/jobs/7/conclude"


@some
@pytest.mark.parametrize("length", [b"Content-Length: 5", b"Transfer-Encoding: chunked"], ids=bytes.decode)
def test_an_incomplete_payload_is_not_processed(scripted, begin, kind, tmp_path, length):
    head = JOB.replace(b"Content-Length: 5", length)
    server = scripted(head + (b"5\r\nhel" if b"chunked" in length else b"hel"), NOTHING, NOTHING, NOTHING)
    worker = begin(kind, server, "q", "touch", str(tmp_path / "ran"))
    until(lambda: len(server.asked) >= 2)
    worker.signal()
    worker.ended()
    assert not (tmp_path / "ran").exists()


# -- the machine ------------------------------------------------------------------------------------


def path_without(folder: Path, *names: str) -> str:
    """Returns a PATH with all commands but these."""
    tools = folder / "tools"
    tools.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for file in Path(place).glob("*"):
            if file.name not in names:
                (tools / file.name).unlink(missing_ok=True)
                (tools / file.name).symlink_to(file)
    return str(tools)


@shells
def test_it_needs_few_commands(program, begin, kind, tmp_path):
    id = put(program)
    path = path_without(tmp_path, "mktemp", "setsid")
    begin(kind, program, "-o", "-w", "0", "q", "cat", PATH=path).ended()
    assert job_of(program, id)["result"] == "x"


@shells
def test_it_reports_a_missing_curl(program, tmp_path, kind):
    if shutil.which(WORKERS[kind][1][0]) is None:
        pytest.skip(f"{kind} is not installed")
    script = tmp_path / "worker.sh"
    script.write_bytes(program.call("GET", "/worker.sh")[1])
    done = subprocess.run(
        [*WORKERS[kind][1], str(script), "q", "true"], env={"PATH": path_without(tmp_path, "curl")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "worker: curl is not installed\n")


@shells
@pytest.mark.parametrize(
    "arguments",
    [
        ["-j", "0", "q", "true"],
        ["-w", "08", "q", "true"],
        ["-j", "", "q", "true"],
        ["q/x", "true"],
        ["q x", "true"],
    ],
    ids=" ".join,
)
def test_bad_options_are_refused_at_once(program, begin, kind, arguments):
    code, said = said_by(begin(kind, program, *arguments))
    assert code == 2, said


@pytest.mark.parametrize(
    "arguments", [["-j", "0", "q", "true"], ["q/x", "true"], ["q x", "true"]], ids=" ".join
)
def test_bad_options_are_refused_by_the_python_worker_too(program, begin, arguments):
    code, said = said_by(begin("python", program, *arguments))
    assert code == 2, said


@shells
def test_a_missing_folder_is_named(program, begin, kind, tmp_path):
    code, said = said_by(begin(kind, program, "q", "true", TMPDIR=f"{tmp_path}/no such"))
    assert code == 2
    assert "no such" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@shells
def test_a_full_disk_costs_no_job(program, begin, kind, small_disk):
    """A job without space for its payload is released; without any space no job is taken."""
    worker = begin(kind, program, "-d", "0", "q", "cat", TMPDIR=str(small_disk))

    def is_waiting() -> bool:
        return program.call("GET", "/queues/q")[1]["consumers_waiting"] == 1

    def is_given_back(id: int) -> bool:  # one request: it is dequeued again at once
        job = job_of(program, id)
        return (job["leases"] >= 1, job["status"], job["attempts"]) == (True, "queued", 0)

    until(is_waiting)
    large = put(program, b"x" * 400_000)
    until(lambda: is_given_back(large))
    program.call("DELETE", f"/jobs/{large}?force=1")
    until(is_waiting)
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    small = put(program, b"x" * 5000)
    until(lambda: is_given_back(small))
    time.sleep(1.2)
    assert (job_of(program, small)["leases"], job_of(program, small)["attempts"]) == (1, 0)
    filler.unlink()
    has_status(program, small, "concluded")
    assert job_of(program, small)["result"] == "x" * 5000
    worker.signal()
    said, _ = worker.process.communicate(timeout=15)
    assert "its payload is incomplete" in said
    assert "no space" in said


@some
def test_it_goes_on_when_the_reader_of_its_output_is_gone(program, begin, kind):
    worker = begin(kind, program, "-v", "q", "true")
    until(lambda: program.call("GET", "/queues/q")[1]["consumers_waiting"] == 1)
    assert worker.process.stdout is not None
    worker.process.stdout.close()
    ids = [put(program) for _ in range(3)]
    for id in ids:
        has_status(program, id, "concluded")
    worker.signal()
    assert worker.process.wait(10) == 0
