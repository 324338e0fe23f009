"""Work inside the server does not delay concurrent requests.

A real server, driven by the closed-loop generator over 16 connections while something else happens to other
jobs of the same server. Each situation has a server of its own and a control beside it:

- *compaction*: jobs of another queue are cancelled at a fixed pace until more than half of its slots are
  empty and the lane is compacted. Control: the same cancels with `JOBQUEUE_COMPACT_ABOVE=0.95`.
- *stale jobs*: 100,000 leases end while the load runs; over about a second, or all in the same instant.
  Control: as many jobs leased, none ending.
- *slices*: much work that comes due in one instant, in the core: the longest single call.
- *depth*: the load runs on the queue that holds 5 million jobs, in turn with a server whose queue is empty.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from tests.bench import processes, subject
from tests.bench.client import Client, fill, lifecycle_script
from tests.bench.processes import Load, Loading, Server
from tests.bench.report import Report, Skip, check, figure, how_many, spread

CONNECTIONS = 16
CANCELS_A_SECOND = 8000
CANCELS_AT_ONCE = 8
_HELD, _SPREAD, _AT_ONCE = "leases held", "leases end over a second", "leases end at once"
_COLUMNS = ["situation", "lifecycles/s", "p50, ms", "p99, ms", "p99.9, ms", "longest, ms"]


def run(quick: bool) -> Report:
    report = Report("pauses: requests that run meanwhile")
    try:
        processes.generator()
    except Skip as missing:
        report.skip(f"all but the slices: {missing}")
    else:
        _meanwhile(report, quick)
        _depth(report, quick)
    _slices(report, quick)
    return report


def _meanwhile(report: Report, quick: bool) -> None:
    rows = [
        *_compaction(6000 if quick else 1_000_000, 0.6 if quick else 10),
        *_stale(2000 if quick else 100_000, 0.6 if quick else 6, quick),
    ]
    report.table(
        f"Requests over {CONNECTIONS} connections while something happens to other jobs",
        [*_COLUMNS, "longest tick slice, ms", "longest compaction slice, ms"],
        rows,
    )
    report.note("The slices beside the requests are as `/stats` tells them, by the clock.")


def _row(name: str, load: Load, stats: Any) -> list[str]:
    ticks, lanes = stats["ticks"], stats["lanes"]
    return [
        name, figure(load.rate), *(figure(us / 1000) for us in (load.p50, load.p99, load.p999, load.max)),
        figure(ticks["max_ms"]), figure(lanes["compaction_max_ms"]) if lanes["compactions"] else "–",
    ]  # fmt: skip


# -- compaction -------------------------------------------------------------------------------------


def _compaction(jobs: int, seconds: float) -> list[list[str]]:
    """Nearly half of the jobs are cancelled beforehand, so that the lane crosses the limit under load."""
    rows = []
    for name, above in (("cancels alone", 0.95), ("cancels and compaction", 0.5)):
        with Server(compact_above=above) as server, Client(server.port) as client:
            first, _ = fill(client, jobs, "bulk")
            paced = min(int(CANCELS_A_SECOND * seconds * 0.8), jobs // 4)
            before = jobs // 2 - paced // 2
            order = [first + number * 1_000_003 % jobs for number in range(before + paced)]
            _cancel(client, order[:before], at_once=100)
            check(client.stats()["lanes"]["compactions"] == 0, "compacted too early")
            with Loading("http", server, CONNECTIONS, seconds, lifecycle_script()) as loading:
                _cancel(client, order[before:], CANCELS_AT_ONCE, CANCELS_A_SECOND)
                load = loading.result()
            stats = client.stats()
            wanted = int(above == 0.5)
            check(stats["lanes"]["compactions"] >= wanted, "was not compacted")
            check(bool(wanted) == (stats["lanes"]["slots"] < jobs), f"slots after: {stats['lanes']}")
            rows.append(_row(f"{name}, {jobs:,} jobs", load, stats))
    return rows


def _cancel(client: Client, ids: list[int], at_once: int, a_second: float = 0) -> None:
    """Cancels jobs by pipelined requests, at a fixed pace (0: as fast as possible)."""
    start = time.monotonic()
    for at in range(0, len(ids), at_once):
        some = ids[at : at + at_once]
        client.send(b"".join(client.request("DELETE", f"/jobs/{id}") for id in some))
        for _ in some:
            answer = client.receive()
            check(answer.status == 200, f"cancel: {answer.status} {answer.body[:200]!r}")
        if a_second:
            time.sleep(max(start + (at + len(some)) / a_second - time.monotonic(), 0))


# -- stale jobs -------------------------------------------------------------------------------------


def _stale(jobs: int, seconds: float, quick: bool) -> list[list[str]]:
    rows = []
    for name in (_HELD, _AT_ONCE) if quick else (_HELD, _SPREAD, _AT_ONCE):
        with Server() as server, Client(server.port) as client:
            fill(client, jobs, "bulk")
            end = time.monotonic() + jobs / 25_000 + 1.2
            _lease_all(client, jobs, name, end)
            if name != _HELD:
                time.sleep(max(end - seconds / 3 - time.monotonic(), 0))
            load = processes.load("http", server, CONNECTIONS, seconds, lifecycle_script())
            stats, bulk = client.stats(), client.json("GET", "/queues/bulk")
            queued = 0 if name == _HELD else jobs
            check(bulk["jobs"]["queued"] == queued, f"{name}: {bulk['jobs']}")
            check(bulk["totals"]["stale"] == queued, f"{name}: {bulk['totals']}")
            rows.append(_row(f"{jobs:,} {name}", load, stats))
    return rows


def _lease_all(client: Client, jobs: int, name: str, end: float) -> None:
    batches = max(jobs // 1000, 1)
    for number in range(batches):
        left = end - time.monotonic()
        if name == _SPREAD:
            left += number / batches - 0.5
        lease = 300_000 if name == _HELD else max(int(left * 1000), 1000)
        ask = b'{"queue":"bulk","count":1000,"lease_for":"%dms"}' % lease
        client.ask("POST", "/jobs/dequeue", ask)


# -- depth ------------------------------------------------------------------------------------------


def _depth(report: Report, quick: bool) -> None:
    jobs = 20_000 if quick else 5_000_000
    rounds, seconds = (1, 0.3) if quick else (5, 4)
    try:
        processes.need_memory(jobs * 600 / 1e9)
    except Skip as missing:
        report.skip(f"depth: {missing}")
        return
    loads: dict[str, list[Load]] = {"an empty queue": [], f"{jobs:,} queued": []}
    with Server() as empty, Server() as deep, Client(deep.port) as client:
        fill(client, jobs)
        for server in () if quick else (empty, deep):
            processes.load("http", server, CONNECTIONS, 8, lifecycle_script())  # warm
        for _ in range(rounds):
            for server, found in zip((empty, deep), loads.values(), strict=True):
                found.append(processes.load("http", server, CONNECTIONS, seconds, lifecycle_script()))
        queued = client.stats()["jobs"]["queued"]
        check(queued == jobs, f"{queued} jobs are queued, of {jobs}")
    rows = []
    for name, found in loads.items():
        times = [[getattr(load, key) / 1000 for load in found] for key in ("p50", "p99", "p999", "max")]
        rows.append([name, spread([load.rate for load in found]), *map(spread, times)])
    report.table(
        f"Depth: {how_many(rounds, 'round')} of {seconds:g} s, in turn; median (least–most)", _COLUMNS, rows
    )
    empty_p999, deep_p999 = (median(load.p999 for load in found) for found in loads.values())
    report.at_most(f"p99.9 with {jobs:,} queued against an empty queue", deep_p999 / empty_p999, 1.5, "times")


# -- slices -----------------------------------------------------------------------------------------


def _slices(report: Report, quick: bool) -> None:
    rows = []
    work = [
        ("leases that end at once", "stale_slices", size)
        for size in ([2000] if quick else [100_000, 1_000_000])
    ]
    work.append(("idle queues to drop at once", "idle_slices", 2000 if quick else 100_000))
    for name, function, size in work:
        longest, calls, total = processes.fresh(f"pauses:{function}", size=size)
        rows.append([f"{size:,} {name}", figure(longest), f"{calls:,}", figure(total / calls)])
        report.at_most(f"longest slice of {size:,} {name}, CPU time", longest, 5, "ms")
    report.table("Slices of work in the core, ms of CPU time", ["", "longest", "slices", "on average"], rows)


def stale_slices(size: int) -> tuple[float, int, float]:
    """Returns the duration of the longest tick in milliseconds, the number of ticks and their sum."""
    queue, now, want = subject.new_queue(), subject.milliseconds(), subject.want(count=1000)
    for new in subject.new_jobs(size):
        queue.enqueue(new, now)
    while queue.dequeue(want, now):
        pass
    found = _ticked(queue, now + subject.LEASE)
    check(queue.state.counts.jobs()["queued"] == size, "not all leases ended")
    return found


def idle_slices(size: int) -> tuple[float, int, float]:
    queue, now = subject.new_queue(retain=0), subject.milliseconds()
    names = [f"queue-{number}" for number in range(size)]
    for name in names:
        queue.enqueue(next(subject.new_jobs(1, 0, name)), now)
        job, lease = queue.dequeue(subject.want(name), now)[0]
        queue.conclude(job.id, lease.token, None, None, now)
    while queue.tick(now)[1]:
        pass
    found = _ticked(queue, now + 2 * 3_600_000, lambda: bool(queue.state.queues))
    check(not queue.state.queues, "not all queues were dropped")
    return found


def _ticked(
    queue: subject.JobQueue, now: int, more: Callable[[], bool] = lambda: False
) -> tuple[float, int, float]:
    """Ticks until nothing is due, and `more` is false."""
    subject.as_the_program_does()
    watch, calls, start = subject.Stopwatch(), 0, time.thread_time()
    while watch.call("tick", queue.tick, now)[1] or more():
        calls += 1
        check(calls < 1_000_000, "the ticks do not come to an end")
    return watch.cpu["tick"], calls + 1, (time.thread_time() - start) * 1000
