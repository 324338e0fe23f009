"""Kills workers at random every second, and checks that no job is lost.

    PYTHONPATH=. .venv/bin/python tests/server/killed_workers.py dash --jobs 10000

Three workers (the file that the server hands out, run by dash, bash, busybox or python; or, as `python-worker`,
`jobqueue work` with jobs that are tasks, threads and processes) work on a queue. Every second (`--every`), or
whenever so many more jobs are concluded (`--after`), one of them is killed: all its processes, the first, or any
other one; and another worker is started. At the end each job must be concluded with its own result. Prints what
happened as JSON.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from running import Program, environment
from test_workers import WORKERS

_WORKERS = 3
_PYTHON_WORKER = "python-worker"
# Seconds after which a killed worker's job returns to the queue.
_LEASE = 2
# A job whose process was killed has failed. It is tried again at once, and without end.
_OPTIONS = {"max_attempts": None, "backoff": [0]}
_LIMIT = 1800


class Killer:
    def __init__(self, kind: str, program: Program, folder: Path, seed: int) -> None:
        if kind == _PYTHON_WORKER:
            options = ["-q", "q", "-c", "8", "-l", str(_LEASE)]
            self._command = [sys.executable, "-P", "-m", "jobqueue", "work", "killed_jobs:jobs", *options]
        else:
            file, command = WORKERS[kind]
            script = folder / file
            script.write_bytes(program.call("GET", f"/{file}")[1])
            job = 'printf "%s:" "$JOB_ID"; cat'
            options = ["-j", "2", "-w", "2", "-l", str(_LEASE), "q", "--", "sh", "-c", job]
            self._command = [*command, str(script), *options]
        self._folder = folder
        self._url = f"http://127.0.0.1:{program.port}"
        self._random = random.Random(seed)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.killed: Counter[str] = Counter()

    def start(self) -> None:
        self.workers.append(
            subprocess.Popen(
                self._command,
                cwd=Path(__file__).parent, env=environment(TMPDIR=str(self._folder), JOBQUEUE_URL=self._url), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip

    def kill_one(self) -> None:
        worker = self.workers.pop(self._random.randrange(len(self.workers)))
        how = self._random.choice(["all of it", "the first process", "one of its processes"])
        self.killed[how] += 1
        if how == "one of its processes":
            others = [pid for pid in _of_session(worker.pid) if pid != worker.pid]
            if others:
                _kill(self._random.choice(others))
            self.workers.append(worker)  # it may go on with a slot fewer, or with a failed job
            if self.killed[how] % 3 == 0:
                self.end(self.workers.pop())
        else:
            if how == "all of it":
                for pid in _of_session(worker.pid):
                    _kill(pid)
            _kill(worker.pid)
            worker.wait()
        while len(self.workers) < _WORKERS:
            self.start()

    def end(self, worker: "subprocess.Popen[bytes]") -> None:
        worker.send_signal(signal.SIGTERM)
        worker.wait(20)

    def end_all(self) -> None:
        for worker in self.workers:
            self.end(worker)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _of_session(leader: int) -> list[int]:
    """The processes of a worker. Its commands have sessions of their own if there is `setsid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def run(kind: str, jobs: int, seed: int, every: float, after: int | None = None) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_RETAIN_JOBS="1000000", JOBQUEUE_RETAIN="24h") as program,
    ):
        ids: list[int] = []
        new_job = _python_job if kind == _PYTHON_WORKER else _command_job
        for start in range(0, jobs, 1000):
            made = program.call("POST", "/queues/q/enqueue", [
                new_job(number) for number in range(start, min(start + 1000, jobs))
            ])[1]  # fmt: skip
            ids += [job["id"] for job in made["jobs"]]
        killer = Killer(kind, program, Path(folder), seed)
        for _ in range(_WORKERS):
            killer.start()
        began, next_kill = time.monotonic(), after or 0
        while True:
            time.sleep(every if after is None else 0.02)
            queue = program.call("GET", "/queues/q")[1]
            if queue["jobs"]["concluded"] + queue["jobs"]["dead"] + queue["jobs"]["cancelled"] >= jobs:
                break
            assert time.monotonic() < began + _LIMIT, queue
            if queue["totals"]["concluded"] >= next_kill:
                next_kill += after or 0
                killer.kill_one()
        seconds = time.monotonic() - began
        killer.end_all()
        queue = program.call("GET", "/queues/q")[1]
        _check(program, ids)
        assert queue["totals"]["concluded"] == jobs, queue
        return {
            "worker": kind, "jobs": jobs, "concluded": queue["totals"]["concluded"],
            "stale": queue["totals"]["stale"], "released": queue["totals"]["released"],
            "failed": queue["totals"]["failed"], "killed": killer.killed.total(), **killer.killed,
            "seconds": round(seconds, 1),
        }  # fmt: skip


def _command_job(number: int) -> dict[str, Any]:
    return {"type": "t", "payload": number, **_OPTIONS}


def _python_job(number: int) -> dict[str, Any]:
    kind = "process" if number % 20 == 0 else "thread" if number % 2 else "task"
    return {"type": kind, "payload": {"number": number}, **_OPTIONS}


def _check(program: Program, ids: list[int]) -> None:
    """Checks that each job exists and was concluded once, with its own result."""
    seen: list[dict[str, Any]] = []
    path = "/jobs?queue=q&limit=1000&payload=1"
    cursor = ""
    while True:
        page = program.call("GET", path + cursor)[1]
        seen += page["jobs"]
        if "next" not in page:
            break
        cursor = f"&cursor={page['next']}"
    assert [job["id"] for job in seen] == ids
    for number, job in enumerate(seen):
        assert job["status"] == "concluded", job
        assert job["result"] == f"{job['id']}:{number}", job


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("worker", choices=[*WORKERS, _PYTHON_WORKER])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--every", type=float, default=1, help="seconds between two kills")
    parser.add_argument("--after", type=int, help="jobs that are concluded between two kills, instead")
    given = parser.parse_args()
    result = run(given.worker, given.jobs, given.seed, given.every, given.after)
    print(json.dumps(result | {"seed": given.seed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
