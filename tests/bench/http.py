"""Lifecycles over HTTP: our server in a process of its own, both fronts, 1, 16 and 64 connections.

Closed loop: each connection sends enqueue, dequeue and conclude of a job one after the other, a request each,
payload 100 bytes. The generator's own ceiling is what it reaches against a program that answers every read
with the same bytes; its share of a core while it drives ours says the same from the other side.
"""

from statistics import median

from tests.bench import processes
from tests.bench.client import lifecycle_script
from tests.bench.processes import Load, Server, Static
from tests.bench.report import Report, check, figure, how_many, spread


def run(quick: bool) -> Report:
    processes.generator()
    report = Report("http: lifecycles a second")
    rounds, seconds = (1, 0.3) if quick else (5, 3)
    connections = [1, 16] if quick else [1, 16, 64]
    with Server("fast") as fast, Server("tornado") as reference, Static(3600) as static:
        subjects = {"fast front": fast, "reference front": reference, "the ceiling: a static answer": static}
        if not quick:
            for server in (fast, reference):
                processes.load("http", server, 64, 8, lifecycle_script())  # warm
        found: dict[tuple[str, int], list[Load]] = {}
        for _ in range(rounds):
            for count in connections:
                for name, server in subjects.items():
                    load = processes.load("http", server, count, seconds, lifecycle_script())
                    check(load.lifecycles > 0, f"{name}: no lifecycle in {seconds} s")
                    found.setdefault((name, count), []).append(load)
    rows = []
    for name in subjects:
        for count in connections:
            loads = found[name, count]
            p50, p99 = (figure(median(getattr(load, key) for load in loads) / 1000) for key in ("p50", "p99"))
            cost = figure(median(load.cost for load in loads))
            cpu = f"{median(load.cpu for load in loads):.0%}"
            rows.append([name, f"{count}", spread([load.rate for load in loads]), p50, p99, cost, cpu])
    report.table(
        f"{how_many(rounds, 'interleaved round')} of {seconds:g} s: median (least–most); times of a request",
        [
            "",
            "connections",
            "lifecycles/s",
            "p50, ms",
            "p99, ms",
            "server's CPU, µs each",
            "generator, of a core",
        ],
        rows,
    )
    most = connections[-1]
    rate = {name: median(load.rate for load in found[name, most]) for name in subjects}
    fast_rate, reference_rate, ceiling = rate.values()
    report.at_least(
        f"the fast front against the reference, {most} connections", fast_rate / reference_rate, 10, "times"
    )
    report.at_least("the generator's ceiling against the fast front", ceiling / fast_rate, 2, "times")
    return report
