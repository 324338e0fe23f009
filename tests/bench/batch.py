"""Many jobs in one request.

- Enqueue of 1,000 jobs in one request, as an array and as NDJSON, over 1 and 4 connections; closed loop. A
  server of its own for each line, since the queue only grows.
- Full lifecycles by hundreds: enqueue 100 in one request, dequeue with count=100, conclude all in one request
  to `POST /jobs/conclude`; and the same with a conclude for each, pipelined on the connection.

Payloads have 100 bytes.
"""

from statistics import median

from tests.bench import processes
from tests.bench.client import Client
from tests.bench.processes import Load, Server
from tests.bench.report import Report, check, figure, how_many, spread

HUNDRED = 100
PAYLOAD = '"' + "x" * 98 + '"'
JOB = f'{{"type":"bench","payload":{PAYLOAD}}}'
_COLUMNS = [
    "",
    "connections",
    "jobs/s",
    "p50 of a request, ms",
    "p99, ms",
    "server's CPU, µs a job",
    "generator, of a core",
]


def run(quick: bool) -> Report:
    processes.generator()
    report = Report("batch: many jobs in one request")
    rounds, seconds = (1, 0.2) if quick else (5, 2)
    at_once = 100 if quick else 1000
    rows, most = [], 0.0
    for name, body in (
        ("array", "[" + ",".join([JOB] * at_once) + "]"),
        ("NDJSON", "\n".join([JOB] * at_once)),
    ):
        kind = "application/json" if name == "array" else "application/x-ndjson"
        script = f"POST /jobs/enqueue Content-Type: {kind}\n{body}\n"
        for connections in (1,) if quick else (1, 4):
            loads = []
            for _ in range(rounds):
                with Server() as server, Client(server.port) as client:
                    loads.append(processes.load("http", server, connections, seconds, script))
                    queued = client.stats()["jobs"]["queued"]
                    check(queued >= loads[-1].requests * at_once, f"only {queued} jobs are queued")
            rates = [load.requests * at_once / load.seconds for load in loads]
            most = max(most, median(rates))
            rows.append(_row(f"enqueue {at_once:,}, {name}", connections, rates, loads))
    report.table(
        f"Enqueue; {how_many(rounds, 'round')} of {seconds:g} s; median (least–most)", _COLUMNS, rows
    )
    report.at_least("jobs enqueued by the thousand", most, 300_000, "a second")
    _lifecycles(report, rounds, seconds, quick)
    return report


def _lifecycles(report: Report, rounds: int, seconds: float, quick: bool) -> None:
    enqueue = "\n".join([JOB] * HUNDRED)
    begin = (
        f"POST /jobs/enqueue Content-Type: application/x-ndjson\n{enqueue}\n%%\n"
        f'POST /jobs/dequeue Content-Type: application/json\n{{"count":{HUNDRED}}}\n%%\n'
    )
    ways = {
        "one conclude for all": "+POST /jobs/conclude Content-Type: application/x-ndjson\n"
        '{"id":{id},"lease":"{lease}"}\n',
        "a conclude each": '*POST /jobs/{id}/conclude Content-Type: application/json\n{"lease":"{lease}"}\n',
    }
    rows, most = [], 0.0
    with Server() as server, Client(server.port) as client:
        for name, conclude in ways.items():
            for connections in (1,) if quick else (1, 4):
                loads = [
                    processes.load("http", server, connections, seconds, begin + conclude)
                    for _ in range(rounds)
                ]
                jobs = client.stats()["jobs"]
                check(jobs["queued"] == 0 and jobs["in_progress"] == 0, f"jobs are left behind: {jobs}")
                rates = [load.rate for load in loads]
                most = max(most, median(rates))
                rows.append(_row(f"lifecycles by {HUNDRED}, {name}", connections, rates, loads))
    report.table(
        f"Lifecycles by hundreds; {how_many(rounds, 'round')} of {seconds:g} s; median (least–most)",
        _COLUMNS,
        rows,
    )
    report.at_least("lifecycles by hundreds", most, 60_000, "a second")
    report.at_least("the same; the aim", most, 100_000, "a second")


def _row(name: str, connections: int, rates: list[float], loads: list[Load]) -> list[str]:
    p50, p99 = (figure(median(getattr(load, key) for load in loads) / 1000) for key in ("p50", "p99"))
    costs = [load.server_cpu / load.seconds * 1e6 / rate for load, rate in zip(loads, rates, strict=True)]
    share = f"{median(load.cpu for load in loads):.0%}"
    return [name, f"{connections}", spread(rates), p50, p99, figure(median(costs)), share]
