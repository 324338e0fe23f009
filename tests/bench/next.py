"""Conclude and next: what one request for finishing a job and taking the next one saves against two.

Closed loop on one queue: each connection enqueues eight jobs, a request each, then takes and concludes eight. With
separate calls that is a dequeue and a conclude for each, 24 requests; with `next=1` on all concludes but the last it
is 17. Both fronts; payloads have 100 bytes; interleaved rounds.
"""

from statistics import median

from tests.bench import processes
from tests.bench.processes import Load, Server
from tests.bench.report import Report, check, figure, how_many, spread

JOBS = 8
_ENQUEUE = (
    'POST /jobs/enqueue Content-Type: application/json\n{"type":"bench","payload":"' + "x" * 98 + '"}\n'
)
_DEQUEUE = "POST /jobs/dequeue\n\n"
_CONCLUDE = 'POST /jobs/{id}/conclude Content-Type: application/json\n{"lease":"{lease}"}\n'
_NEXT = 'POST /jobs/{id}/conclude Content-Type: application/json\n{"lease":"{lease}","next":true}\n'
SCRIPTS = {
    "separate calls": [_ENQUEUE] * JOBS + [_DEQUEUE, _CONCLUDE] * JOBS,
    "conclude and next": [_ENQUEUE] * JOBS + [_DEQUEUE] + [_NEXT] * (JOBS - 1) + [_CONCLUDE],
}


def run(quick: bool) -> Report:
    processes.generator()
    report = Report("next: conclude and next in one request")
    rounds, seconds = (1, 0.3) if quick else (5, 3)
    found: dict[tuple[str, int, str], list[Load]] = {}
    with Server("fast") as fast, Server("tornado") as reference:
        fronts = {"fast front": fast, "reference front": reference}
        if not quick:
            for server in fronts.values():
                processes.load("http", server, 16, 5, "%%\n".join(SCRIPTS["separate calls"]))  # warm
        for _ in range(rounds):
            for connections in (1, 16):
                for front, server in fronts.items():
                    for way, script in SCRIPTS.items():
                        load = processes.load("http", server, connections, seconds, "%%\n".join(script))
                        check(load.lifecycles > 0, f"{front}: nothing was finished in {seconds} s")
                        found.setdefault((front, connections, way), []).append(load)
    rows = []
    for (front, connections, way), loads in found.items():
        rates = [load.rate * JOBS for load in loads]
        gains = [
            rate / (other.rate * JOBS)
            for rate, other in zip(rates, found[front, connections, "separate calls"], strict=True)
        ]
        cost = figure(median(load.cost / JOBS for load in loads))
        p50 = figure(median(load.p50 for load in loads) / 1000)
        rows.append([f"{front}, {way}", f"{connections}", spread(rates), spread(gains), p50, cost])
    report.table(
        f"{how_many(rounds, 'interleaved round')} of {seconds:g} s: median (least–most); gains round by round",
        [
            "",
            "connections",
            "jobs/s",
            "against separate calls",
            "p50 of a request, ms",
            "server's CPU, µs a job",
        ],
        rows,
    )
    return report
