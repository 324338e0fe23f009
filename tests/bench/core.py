"""The core alone: one lifecycle, each verb, and the memory of a queued job.

A lifecycle is enqueue, dequeue, conclude of one job, called straight on `JobQueue`; the requests (`NewJob`,
`DequeueRequest`) are made beforehand. In the steady state as many finished jobs are remembered as the defaults allow
(100,000), so each conclude also forgets one; until then there is nothing to forget. Beside every round runs a
fixed Python loop, so that figures of two machines can be compared. All times are CPU time.
"""

import time
from statistics import median

from tests.bench import processes, subject, verbs
from tests.bench.client import Client, fill
from tests.bench.report import Report, check, figure, spread


def run(quick: bool) -> Report:
    report = Report("core: lifecycle, verbs and memory")
    depths = [0, 1000] if quick else [0, 10_000, 1_000_000]
    cycle_rows, verb_rows = [], []
    for depth in depths:
        found = processes.fresh("core:measure", depth=depth, quick=quick)
        ratios = [us * 1000 / ns for us, ns in zip(found["lifecycle"], found["calibration"], strict=True)]
        cycle_rows.append([
            f"{depth:,}", spread(found["lifecycle"]), spread(found["first"]), spread(found["calibration"]),
            spread(ratios),
        ])  # fmt: skip
        each = [median(costs[verb] for costs in found["verbs"]) / 1000 for verb in verbs.VERBS]
        verb_rows.append([f"{depth:,}", *map(figure, each), figure(median(found["tick"]))])
        if depth == 0:
            report.at_most(
                "enqueue + dequeue + conclude in the core, steady", median(found["lifecycle"]), 8, "µs"
            )
            report.at_most("the same; the aim", median(found["lifecycle"]), 6, "µs")
    report.table(
        "Lifecycle: median (least–most)",
        [
            "jobs queued",
            "steady state, µs",
            "nothing to forget yet, µs",
            "calibration loop, ns a turn",
            "ratio",
        ],
        cycle_rows,
    )
    report.table("Each verb alone, µs", ["jobs queued", *verbs.VERBS, "tick, nothing due"], verb_rows)
    _memory(report, 20_000 if quick else 1_000_000)
    return report


def _memory(report: Report, jobs: int) -> None:
    in_engine = processes.fresh("core:bytes_per_job", jobs=jobs)
    with processes.Server() as server, Client(server.port) as client:
        fill(client, 1000)
        before = processes.rss(server.pid)
        fill(client, jobs)
        in_server = (processes.rss(server.pid) - before) / jobs
    report.table(
        f"Memory of a queued job with a distinct payload of 100 bytes: RSS growth over {jobs:,} jobs",
        ["where", "bytes a job"],
        [
            ["engine, in a fresh process", figure(in_engine)],
            ["server, enqueued over HTTP by the thousand", figure(in_server)],
        ],
    )
    report.at_most("a queued job in the engine", in_engine, 295, "bytes")
    report.at_most("a queued job in the server", in_server, 295, "bytes")


# -- in a process of their own ----------------------------------------------------------------------


def measure(depth: int, quick: bool) -> dict[str, object]:
    """Microseconds of a lifecycle, nanoseconds of the calibration loop, of each verb, and of an idle tick."""
    queue = subject.new_queue(**({"retain_jobs": 500} if quick else {}))
    now = subject.milliseconds()
    for new in subject.new_jobs(depth):
        queue.enqueue(new, now)
    subject.as_the_program_does()
    count, rounds = (500, 1) if quick else (20_000, 15)
    new, want = next(subject.new_jobs(1)), subject.want()
    found: dict[str, list[object]] = {
        "first": [], "lifecycle": [], "calibration": [], "verbs": [], "tick": [],
    }  # fmt: skip
    while queue.state.remembered + count <= queue.state.limits.retain_jobs:
        found["first"].append(verbs.lifecycles(queue, count, new, want, now) / count / 1000)
    for _ in range(rounds):
        now += 1000
        while queue.tick(now)[1]:
            pass
        found["calibration"].append(verbs.calibration(count))
        found["lifecycle"].append(verbs.lifecycles(queue, count, new, want, now) / count / 1000)
        found["verbs"].append(verbs.costs(queue, [new] * (count // 10), [want] * (count // 10), now))
        found["tick"].append(_idle_tick(queue, now))
    queued = queue.state.counts.jobs()["queued"]
    check(queued == depth, f"{depth} jobs should be queued, there are {queued}")
    return found


def _idle_tick(queue: subject.JobQueue, now: int) -> float:
    start = time.thread_time_ns()
    for _ in range(100):
        queue.tick(now)
        queue.compact()
    return (time.thread_time_ns() - start) / 100_000


def bytes_per_job(jobs: int) -> float:
    engine = subject.new_engine()
    subject.as_the_program_does()
    for new in subject.new_jobs(1000):
        engine.enqueue(new)
    before = processes.rss()
    for new in subject.new_jobs(jobs):
        engine.enqueue(new)
    return (processes.rss() - before) / jobs
