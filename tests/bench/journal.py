"""The cost of a journal.

Compared with beanstalkd and its binlog, synced at each write (`-b DIR -f 0`), on the same disk in the same run, and
with our own server without a journal. Also measured: a start with a million jobs, the size of the file after a
million jobs came and went, and a disk on which every sync takes half a second.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median
from typing import TypeVar

from tests.bench import processes
from tests.bench.client import Client, lifecycle_script
from tests.bench.lifecycles import PAYLOAD, Rounds, Subject, beside, load
from tests.bench.processes import HOST, Beanstalkd, Load, Process, Server
from tests.bench.report import Report, Skip, check, figure, how_many, spread

P = TypeVar("P", bound=Process)
ALWAYS, OS, INTERVAL, MEMORY = "sync always", "sync os", "sync interval", "memory only"
BEANSTALKD = "beanstalkd -b -f 0"
_FILE_FLOOR = 16 << 20
_USUAL_MS = 1
# Of the least that is synced: a file that has its size already, as the log of either has; a record of beanstalkd.
_LOG, _A_RECORD = 8 << 20, 80


def run(quick: bool) -> Report:
    processes.generator()
    report = Report("journal: what being durable costs")
    with tempfile.TemporaryDirectory(prefix="jobqueue-bench-", dir="/var/tmp") as scratch:
        folder = Path(scratch)
        _peers(report, folder, quick)
        _load_time(report, folder / "load", 20_000 if quick else 1_000_000)
        _come_and_gone(report, folder / "gone", 20_000 if quick else 1_000_000)
        if shutil.which("strace") is None:
            report.skip("slow disks: strace is not installed; on Debian and Ubuntu: apt install strace")
        else:
            _usual_disk(report, folder / "usual", quick)
            _slow_sync(report, folder / "slow", 3 if quick else 20)
    return report


class Durable(Server):
    """A server with a journal in `folder`. It counts as up once it has read the journal."""

    def __init__(self, folder: Path, sync: str, **settings: object) -> None:
        super().__init__("fast", data=str(folder), sync=sync, **settings)

    def is_up(self) -> bool:
        return super().is_up() and "loaded" in self.output()


# -- lifecycles -------------------------------------------------------------------------------------


def _peers(report: Report, folder: Path, quick: bool) -> None:
    with contextlib.ExitStack() as stack:
        subjects: dict[str, Subject] = {
            ALWAYS: ("http", stack.enter_context(Durable(folder / "always", "always"))),
            OS: ("http", stack.enter_context(Durable(folder / "os", "os"))),
            INTERVAL: ("http", stack.enter_context(Durable(folder / "interval", "interval"))),
            MEMORY: ("http", stack.enter_context(Server())),
        }
        try:
            (folder / "binlog").mkdir()
            peer = stack.enter_context(Beanstalkd(folder / "binlog"))
            subjects[BEANSTALKD] = ("beanstalk", peer)
        except Skip as missing:
            report.skip(str(missing))
        rounds = beside(subjects, quick, 5)
    for count in rounds.connections:
        _table(report, count, rounds)
    _bare_syncs(report, folder / "bare", 0.3 if quick else 3, rounds)


def _table(report: Report, count: int, rounds: Rounds) -> None:
    found, over = rounds.of(count), how_many(count, "connection")
    against = rounds.against(count)
    rows = [
        [
            name,
            spread([load.rate for load in loads]),
            figure(median(load.p50 for load in loads) / 1000),
            spread([load.p99 / 1000 for load in loads]),
            spread(against(name, BEANSTALKD)) if BEANSTALKD in found else "–",
            spread(against(name, MEMORY)),
            figure(median(load.cost for load in loads)),
        ]
        for name, loads in found.items()
    ]
    report.table(
        rounds.caption(count),
        [
            "",
            "lifecycles/s",
            "p50, ms",
            "p99, ms",
            "rate : beanstalkd's",
            "rate : memory only",
            "server's CPU, µs each",
        ],
        rows,
    )
    if BEANSTALKD in found:
        ratio = median(against(ALWAYS, BEANSTALKD))
        report.at_least(f"{ALWAYS} against {BEANSTALKD}, {over}", ratio, 0.5 if count == 1 else 4, "times")
        if count > 1:
            report.at_least(f"the same; the aim, {over}", ratio, 6, "times")
    if count > 1:
        report.at_least(
            f"{INTERVAL} against {MEMORY}, {over}", median(against(INTERVAL, MEMORY)), 0.5, "times"
        )


def _bare_syncs(report: Report, folder: Path, seconds: float, rounds: Rounds) -> None:
    """Computes the highest rate of one connection if writing cost nothing but the syncs.

    Each of its three answers waits for a sync of its own; the rest is the lifecycle in memory.
    """
    times = []
    with folder.open("wb", buffering=0) as file:
        file.write(bytes(_LOG))
        os.fsync(file.fileno())
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            os.pwrite(file.fileno(), bytes(_A_RECORD), len(times) * _A_RECORD % _LOG)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    found = rounds.of(1)
    sync, memory = median(times), median(load.rate for load in found[MEMORY])
    most = 1 / (1 / memory + 3 * sync)
    theirs = median(load.rate for load in found[BEANSTALKD]) if BEANSTALKD in found else None
    report.table(
        f"1 connection: three syncs of {_A_RECORD} bytes, and nothing else added to what memory only takes",
        ["", "a sync, µs", "lifecycles/s at most", "rate : beanstalkd's"],
        [["", figure(sync * 1e6), figure(most), figure(most / theirs) if theirs else "–"]],
    )


# -- a start ----------------------------------------------------------------------------------------


def _fill(client: Client, jobs: int, size: int) -> None:
    for start in range(0, jobs, 1000):
        lines = [
            b'{"type":"bench","payload":"%0*d"}' % (size - 2, number)
            for number in range(start, min(start + 1000, jobs))
        ]
        client.ask("POST", "/jobs/enqueue", b"\n".join(lines), "application/x-ndjson")


def _load_time(report: Report, folder: Path, jobs: int) -> None:
    """Kills a server that holds many jobs, starts it again, and sends requests all the while."""
    with Durable(folder, "os") as server, Client(server.port) as client:
        _fill(client, jobs, 300)
    started = time.monotonic()
    statuses: dict[int, int] = {}
    slowest = 0.0
    with Server("fast", data=str(folder)) as server:
        while statuses.get(200, 0) == 0:
            asked = time.monotonic()
            status = _status(server.port, "/readyz")
            statuses[status] = statuses.get(status, 0) + 1
            if status == 503:
                _status(server.port, "/stats")
                slowest = max(slowest, time.monotonic() - asked)
            time.sleep(0.05)
        ready = time.monotonic() - started
        with Client(server.port) as client:
            check(client.stats()["jobs"]["queued"] == jobs, "jobs are missing after a start")
        size = processes.rss(server.pid)
    report.table(
        f"A start with {jobs:,} queued jobs of 300 bytes",
        ["", "seconds until ready", "answers of 503 meanwhile", "slowest two of them, ms", "RSS then, MB"],
        [["", figure(ready), str(statuses.get(503, 0)), figure(slowest * 1000), figure(size / 1e6)]],
    )
    report.at_most("ready with a million jobs", ready, 15, "s")
    report.at_most("the same; the aim", ready, 10, "s")


def _status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def _come_and_gone(report: Report, folder: Path, jobs: int) -> None:
    """Enqueues a million jobs, purges them all, and enqueues 10,000 more."""
    sizes: list[int] = []
    with Durable(folder, "os") as server, Client(server.port) as client:
        _fill(client, jobs, 300)
        sizes.append(_size(folder))
        client.json("POST", "/queues/default/purge", {"all": True})
        kept = max(jobs // 100, 1000)
        _fill(client, kept, 300)
        until = time.monotonic() + 60
        live = kept * 400
        while _size(folder) > 3 * live + _FILE_FLOOR and time.monotonic() < until:
            time.sleep(0.5)
        sizes.append(_size(folder))
    sizes.append(_size(folder))
    report.table(
        f"The files after {jobs:,} jobs of 300 bytes came and went, and {kept:,} are left",
        ["", "with all in it, MB", "a minute later at most, MB", "after the stop, MB", "live bytes, MB"],
        [["", *(figure(size / 1e6) for size in sizes), figure(live / 1e6)]],
    )
    report.at_most("files after all went", sizes[1] / (1 << 20), (3 * live + _FILE_FLOOR) / (1 << 20), "MiB")


def _size(folder: Path) -> int:
    """Returns the bytes that the journal and its log occupy, without the reserve."""
    return sum(path.stat().st_blocks * 512 for path in folder.glob("journal.sqlite*"))


# -- a slow disk ------------------------------------------------------------------------------------


def _slowed(process: P, milliseconds: int) -> P:
    """Slows down every sync of `process`; other system calls keep their speed."""
    process.command = (
        "strace", "-D", "-f", "-q", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync,fsync",
        "-e", f"inject=fdatasync,fsync:delay_enter={milliseconds}000", *process.command,
    )  # fmt: skip
    return process


def _usual_disk(report: Report, folder: Path, quick: bool) -> None:
    """Measures with syncs of milliseconds, as most disks have; this machine's disk may be faster."""
    rounds, seconds = (1, 1) if quick else (5, 3)
    folder.mkdir()
    (folder / "binlog").mkdir()
    for count in (1, 64):
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(_slowed(Durable(folder / f"ours-{count}", "always"), _USUAL_MS))
            try:
                theirs = stack.enter_context(_slowed(Beanstalkd(folder / "binlog"), _USUAL_MS))
            except Skip as missing:
                report.skip(str(missing))
                return
            found: list[tuple[Load, Load]] = [
                (load(("http", ours), count, seconds), load(("beanstalk", theirs), count, seconds))
                for _ in range(rounds)
            ]
        report.table(
            f"Every sync takes {_USUAL_MS} ms more (strace), {how_many(count, 'connection')}, "
            f"{how_many(rounds, 'interleaved round')} of {seconds:g} s",
            ["", "lifecycles/s", "p50, ms", "p99, ms", "rate : beanstalkd's"],
            [
                [
                    ALWAYS,
                    spread([mine.rate for mine, _ in found]),
                    figure(median(mine.p50 for mine, _ in found) / 1000),
                    spread([mine.p99 / 1000 for mine, _ in found]),
                    spread([mine.rate / its.rate for mine, its in found]),
                ],
                [
                    BEANSTALKD,
                    spread([its.rate for _, its in found]),
                    figure(median(its.p50 for _, its in found) / 1000),
                    spread([its.p99 / 1000 for _, its in found]),
                    "1",
                ],
            ],
        )


def _slow_sync(report: Report, folder: Path, seconds: float) -> None:
    with _slowed(Durable(folder, "always"), 500) as server:
        loading = processes.Loading("http", server, 16, seconds, lifecycle_script(PAYLOAD))
        with loading, Client(server.port) as client:
            times = []
            until = time.monotonic() + seconds - 0.2
            while time.monotonic() < until:
                asked = time.perf_counter()
                check(json.loads(client.ask("GET", "/healthz").body)["status"] == "ok", "not well")
                times.append(time.perf_counter() - asked)
                time.sleep(0.01)
            done = loading.result()
    times.sort()
    p99 = times[int(len(times) * 0.99)] * 1000
    report.table(
        "Every sync takes 500 ms more (strace), 16 connections under load",
        ["", "requests a second", "/healthz asked", "p50, ms", "p99, ms", "most, ms"],
        [
            [
                "",
                figure(done.requests / done.seconds),
                str(len(times)),
                figure(median(times) * 1000),
                figure(p99),
                figure(times[-1] * 1000),
            ]
        ],
    )
    check(done.requests / done.seconds < 200, "syncs were not slow")
    report.at_most("p99 of /healthz", p99, 50, "ms")
