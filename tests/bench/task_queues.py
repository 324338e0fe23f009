"""The load test by which Python task queues are compared: 20,000 no-op jobs, 10 at a time.

Jobs are enqueued one by one by one program, then a worker is started and drains them: ours with its server,
the others with Redis, all at their defaults but for 10 jobs at a time. Each job appends its number to a file,
so what was lost or ran twice is counted. Each peer is installed into a virtual environment of its own, in
tests/bench/.build/task-queues; a quick run installs nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from tests.bench import processes
from tests.bench.processes import BUILD, HERE, PACKAGE, Process, Redis, Server
from tests.bench.report import Report, Skip, check, figure

APPS = HERE / "task_queue_apps"
VENVS = BUILD / "task-queues"
OURS = "jobqueue"
# What is installed for each, and its worker of 10 jobs at a time. {bin} is the folder of its programs.
PEERS = {
    "rq": ("rq==3.0.0", "{bin}/rq worker-pool apps -n 10 -q --url {url} default"),
    "huey": ("huey==3.5.4 redis==8.1.0", "{bin}/huey_consumer apps.huey -k thread -w 10 -q"),
    "dramatiq": ("dramatiq[redis]==2.2.1", "{bin}/dramatiq apps -p 1 -t 10"),
    "celery": ("celery[redis]==5.7.0 packaging", "{bin}/celery -A apps worker -c 10 -l error"),
    "arq": ("arq==0.28.0", "{bin}/arq apps.WorkerSettings"),
    "taskiq": ("taskiq-redis==1.2.4", "{bin}/taskiq worker apps:broker -w 1 --max-async-tasks 10 --log-level ERROR"),
}  # fmt: skip
HOW = {
    OURS: "async, 1 process", "jobqueue-def": "10 threads, 1 process", "rq": "10 processes",
    "huey": "10 threads, 1 process", "dramatiq": "10 threads, 1 process", "celery": "10 processes",
    "arq": "async, 1 process", "taskiq": "async, 1 process",
}  # fmt: skip
_RECORD = 8  # bytes that a job writes
_STALLED = 30.0  # seconds without a job after which the rest counts as lost
_LIMIT = 60.0  # seconds after which a slow one is stopped; its rate is that of the jobs until then
_AFTERWARDS = 2.0  # seconds in which a job may run again


class Drained(NamedTuple):
    """Rates a second; CPU in microseconds a job: of the program that enqueues, of the worker, of the server."""

    enqueued: float
    drained: float
    enqueue_cpu: float
    worker_cpu: float
    server_cpu: float
    lost: int | None
    doubled: int


def run(quick: bool) -> Report:
    report = Report("task-queues: beside the task queues of Python")
    count = 200 if quick else 20_000
    found: dict[str, Drained] = {}
    with Server(access_log="off") as server:
        for name in (OURS, "jobqueue-def"):
            found[name] = _measured(name, server, count)
    with ExitStack() as stack:
        try:
            redis: Redis | None = stack.enter_context(Redis())
        except Skip as missing:
            report.skip(str(missing))
            redis = None
        for name in PEERS if redis is not None else ():
            try:
                _install(name, quick)
                assert redis is not None
                found[name] = _measured(name, redis, count)
            except Skip as missing:
                report.skip(str(missing))
    _tables(report, found, count)
    return report


def _install(name: str, quick: bool) -> None:
    """Installs a peer unless it is there. Raises `Skip`."""
    if (VENVS / name / f"{name}.installed").exists():
        return
    if quick:
        raise Skip(f"{name} is not installed; ./scripts/bench.sh task-queues without --quick installs it")
    packages, venv = PEERS[name][0].split(), VENVS / name
    try:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120)
        subprocess.run(
            [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
            check=True, timeout=300, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        raise Skip(f"{name}: {PEERS[name][0]} could not be installed into {venv}") from None
    (venv / f"{name}.installed").touch()


def _measured(name: str, server: Process, count: int) -> Drained:
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("JOBQUEUE_")},
            "PYTHONPATH": f"{PACKAGE}{os.pathsep}{APPS}" if name not in PEERS else str(APPS),
            "TASK_QUEUE": name, "TASK_QUEUE_PORT": str(server.port), "TASK_QUEUE_FILE": str(record),
        }  # fmt: skip
        python = sys.executable if name not in PEERS else str(VENVS / name / "bin" / "python")
        done = subprocess.run(
            [python, "-P", "-c", f"import apps; apps.main({count})"],
            env=environment, cwd=APPS, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        check(done.returncode == 0, f"{name} could not enqueue: {done.stderr[-500:]}")
        put = json.loads(done.stdout.splitlines()[-1])
        if name in PEERS:
            places = {"bin": VENVS / name / "bin", "url": f"redis://127.0.0.1:{server.port}/0"}
            command = [word.format(**places) for word in PEERS[name][1].split()]
        else:
            command = [python, "-P", "-m", "jobqueue", "work", "apps:jobs", "-c", "10"]
        with (Path(folder) / "log").open("w+") as log:
            before = processes.cpu_seconds(server.pid)
            worker = subprocess.Popen(
                command, env=environment, cwd=APPS, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            try:
                seconds = _drain(record, count, worker)
                ran = record.stat().st_size // _RECORD if record.exists() else 0
                worker_cpu = _cpu_of_tree(worker.pid)
                server_cpu = processes.cpu_seconds(server.pid) - before
                time.sleep(_AFTERWARDS)
            finally:
                _end(worker)
            log.seek(0)
            said = log.read()
        numbers = Counter(record.read_bytes().split()) if record.exists() else Counter()
        check(len(numbers) > 0, f"the worker of {name} ran no job: {said[-500:]}")
        return Drained(
            count / put["seconds"],
            ran / seconds,
            put["cpu"] * 1e6 / count,
            worker_cpu * 1e6 / ran,
            server_cpu * 1e6 / ran,
            None if seconds >= _LIMIT - 1 else count - len(numbers),
            numbers.total() - len(numbers),
        )


def _drain(record: Path, count: int, worker: "subprocess.Popen[bytes]") -> float:
    """Waits until all jobs have run, or too long. Returns the seconds from the first to the last of them."""
    size, began, changed = 0, 0.0, time.monotonic()
    while (
        size < count * _RECORD
        and time.monotonic() < (began + _LIMIT if began else changed + _STALLED)
        and time.monotonic() < changed + _STALLED
        and worker.poll() is None
    ):
        time.sleep(0.002)
        now = record.stat().st_size if record.exists() else 0
        if now != size:
            changed = time.monotonic()
            began = began or changed
            size = now
    return max(changed - began, 0.001)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text().split():
                found += _tree(int(child))
    return found


def _cpu_of_tree(pid: int) -> float:
    """Returns the seconds of CPU of a process, its children, and those that have ended."""
    total = 0
    for one in _tree(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / os.sysconf("SC_CLK_TCK")


def _end(worker: "subprocess.Popen[bytes]") -> None:
    pids = _tree(worker.pid)
    worker.terminate()
    with suppress(subprocess.TimeoutExpired):
        worker.wait(10)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
    worker.wait()


def _tables(report: Report, found: dict[str, Drained], count: int) -> None:
    ours = found[OURS]
    report.table(
        f"{count:,} no-op jobs, enqueued one by one, then drained 10 at a time; one run each",
        [
            "", "worker", "enqueued/s", "drained/s", f"drained : {OURS}'s", "CPU to enqueue, µs", "worker's CPU, µs a job",
            "server's CPU, µs a job", "lost", "doubled",
        ],
        [
            [
                name, HOW[name], figure(one.enqueued), figure(one.drained), figure(one.drained / ours.drained),
                figure(one.enqueue_cpu), figure(one.worker_cpu), figure(one.server_cpu),
                f"stopped after {_LIMIT:.0f} s" if one.lost is None else str(one.lost), str(one.doubled),
            ]
            for name, one in found.items()
        ],
    )  # fmt: skip
    report.at_least("async jobs of one process", ours.drained, 5000, "/s")
    for name, times in (("rq", 5.0), ("dramatiq", 1.5), ("taskiq", 1.5)):
        if name in found:
            report.at_least(f"drained against {name}", ours.drained / found[name].drained, times, "times")
    others = [one.drained for name, one in found.items() if name in PEERS]
    if others:
        report.at_least("drained against the fastest of them", ours.drained / max(others), 1, "times")
    check(
        all(found[name].lost == found[name].doubled == 0 for name in (OURS, "jobqueue-def")),
        "jobs of ours were lost or ran twice",
    )
