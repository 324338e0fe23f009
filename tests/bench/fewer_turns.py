"""Fewer turns a job, against beanstalkd's three requests, in the same run.

Two requests: a worker that concludes a job takes the next one with the same request, `conclude?next=1`. A
lifecycle of the generator is a run of 15 jobs then: 15 enqueues, a dequeue, 14 times conclude and next, and a
conclude; 31 requests. Pipelined: three requests a job, of 4 or 16 jobs at once, without waiting for an answer.
beanstalkd is not pipelined. Rates are jobs a second.
"""

import contextlib
from statistics import median

from tests.bench import processes
from tests.bench.lifecycles import PAYLOAD
from tests.bench.processes import Beanstalkd, Server
from tests.bench.report import Report, Skip, check, how_many, spread

_JOBS = 15
_PEER = "beanstalkd, three requests, not pipelined"


def _enqueue() -> str:
    payload = "x" * (PAYLOAD - 2)
    return f'POST /jobs/enqueue Content-Type: application/json\n{{"type":"bench","payload":"{payload}"}}\n'


def _two_requests() -> str:
    following = "POST /jobs/{id}/conclude?next=1&lease={lease}\n\n"
    last = "POST /jobs/{id}/conclude?lease={lease}\n\n"
    return "%%\n".join([*[_enqueue()] * _JOBS, "POST /jobs/dequeue\n\n", *[following] * (_JOBS - 1), last])


def _pipelined(depth: int) -> str:
    conclude = '*POST /jobs/{id}/conclude Content-Type: application/json\n{"lease":"{lease}"}\n'
    return "%%\n".join([f"={depth} {_enqueue()}", f"={depth} POST /jobs/dequeue\n\n", conclude])


# A script, how many jobs the generator counts as one lifecycle, and the ratios wanted for 1 and for 64 connections.
_WAYS = {
    "jobqueue, two requests": (_two_requests(), _JOBS, (None, 0.95)),
    "jobqueue, three, 4 jobs at once": (_pipelined(4), 1, (None, 1.0)),
    "jobqueue, three, 16 jobs at once": (_pipelined(16), 1, (None, 1.2)),
}


def run(quick: bool) -> Report:
    processes.generator()
    report = Report("fewer turns")
    rounds, seconds = (1, 0.5) if quick else (7, 3)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Server("fast"))
        try:
            peer = stack.enter_context(Beanstalkd())
        except Skip as missing:
            report.skip(str(missing))
            peer = None
        if not quick:
            processes.load("http", ours, 64, 8, _two_requests())
        for place, connections in enumerate((1, 8) if quick else (1, 64)):
            rates: dict[str, list[float]] = {name: [] for name in (*_WAYS, *([_PEER] if peer else []))}
            for _ in range(rounds):
                for name, (script, jobs, _) in _WAYS.items():
                    found = processes.load("http", ours, connections, seconds, script)
                    check(found.lifecycles > 0, f"{name}: no lifecycle in {seconds} s")
                    rates[name].append(found.rate * jobs)
                if peer is not None:
                    rates[_PEER].append(processes.load("beanstalk", peer, connections, seconds, PAYLOAD).rate)
            _table(report, connections, place, rounds, seconds, rates)
    return report


def _table(
    report: Report, connections: int, place: int, rounds: int, seconds: float, rates: dict[str, list[float]]
) -> None:
    over, theirs = how_many(connections, "connection"), rates.get(_PEER)
    rows = []
    for name, mine in rates.items():
        ratios = [] if theirs is None else [rate / other for rate, other in zip(mine, theirs, strict=True)]
        rows.append([name, spread(mine), spread(ratios) if ratios else "–"])
        wanted = _WAYS[name][2][place] if name in _WAYS else None
        if ratios and wanted is not None:
            report.at_least(f"{name}, against beanstalkd's rate, {over}", median(ratios), wanted, "times")
    report.table(
        f"{over}, {how_many(rounds, 'interleaved round')} of {seconds:g} s: median (least–most)",
        ["", "jobs/s", "rate : beanstalkd's"],
        rows,
    )
