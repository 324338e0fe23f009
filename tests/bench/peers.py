"""Ours and theirs in the same run: beanstalkd over its protocol, Redis with three list commands.

All run at their defaults, in memory (Redis therefore without snapshots). A peer that is not installed is skipped
by name.

Redis moves the job to a second list (LPUSH, LMOVE, LREM): there is no lease that ends, no id, no priority.
"""

import contextlib
import socket
from statistics import median

from tests.bench import plot, processes
from tests.bench.client import Client, fill
from tests.bench.lifecycles import PAYLOAD, Rounds, Subject, beside
from tests.bench.processes import HOST, Beanstalkd, Redis, Server
from tests.bench.report import Report, Skip, check, figure, how_many, spread

OURS, REFERENCE, BEANSTALKD, REDIS = "jobqueue", "jobqueue, reference front", "beanstalkd", "Redis"


def run(quick: bool) -> Report:
    processes.generator()
    report = Report("peers: in the same run")
    with contextlib.ExitStack() as stack:
        subjects: dict[str, Subject] = {
            OURS: ("http", stack.enter_context(Server("fast"))),
            REFERENCE: ("http", stack.enter_context(Server("tornado"))),
        }
        for name, protocol, start in ((BEANSTALKD, "beanstalk", Beanstalkd), (REDIS, "redis", Redis)):
            try:
                subjects[name] = (protocol, stack.enter_context(start()))
            except Skip as missing:
                report.skip(str(missing))
        rounds = beside(subjects, quick, 8)
    for count in rounds.connections:
        _table(report, count, rounds)
    if not quick:
        report.plots["peers.svg"] = plot.bars(
            "Job lifecycles a second (median, least to most)",
            {
                how_many(count, "connection"): {
                    name: [load.rate for load in loads] for name, loads in rounds.of(count).items()
                }
                for count in rounds.connections
            },
        )
    _memory(report, 20_000 if quick else 1_000_000)
    return report


def _table(report: Report, count: int, rounds: Rounds) -> None:
    found, over = rounds.of(count), how_many(count, "connection")
    peer = found.get(BEANSTALKD)
    rows = []
    for name, loads in found.items():
        rates, p99s = [load.rate for load in loads], [load.p99 / 1000 for load in loads]
        row = [name, spread(rates), figure(median(load.p50 for load in loads) / 1000), spread(p99s)]
        if peer is None:
            row += ["–", "–"]
        else:
            row.append(spread([mine.rate / theirs.rate for mine, theirs in zip(loads, peer, strict=True)]))
            row.append(spread([mine.p99 / theirs.p99 for mine, theirs in zip(loads, peer, strict=True)]))
        cost = figure(median(load.cost for load in loads))
        rows.append([*row, cost, f"{median(load.cpu for load in loads):.0%}"])
    report.table(
        rounds.caption(count),
        [
            "",
            "lifecycles/s",
            "p50, ms",
            "p99, ms",
            "rate : beanstalkd's",
            "p99 : beanstalkd's",
            "server's CPU, µs each",
            "generator, of a core",
        ],
        rows,
    )
    if peer is not None:
        ratio = median(mine.rate / theirs.rate for mine, theirs in zip(found[OURS], peer, strict=True))
        report.at_least(f"rate against beanstalkd's, {over}", ratio, 0.5, "times")
        if count > 1:
            report.at_least(f"the same; the aim, {over}", ratio, 0.9, "times")
            slower = median(mine.p99 / theirs.p99 for mine, theirs in zip(found[OURS], peer, strict=True))
            report.at_most(f"p99 against beanstalkd's, {over}", slower, 3, "times")
    if count > 1:
        pairs = zip(found[OURS], found[REFERENCE], strict=True)
        faster = median(fast.rate / slow.rate for fast, slow in pairs)
        report.at_least(f"rate against the reference front's, {over}", faster, 10, "times")


# -- memory -----------------------------------------------------------------------------------------


def _memory(report: Report, jobs: int) -> None:
    rows = []
    for name, start, put in (
        (OURS, Server, _fill_ours), (BEANSTALKD, Beanstalkd, _fill_beanstalkd), (REDIS, Redis, _fill_redis)
    ):  # fmt: skip
        try:
            with start() as process:
                put(process.port, 1000)
                before = processes.rss(process.pid)
                put(process.port, jobs)
                rows.append([name, figure((processes.rss(process.pid) - before) / jobs)])
        except Skip:
            continue  # said above
    report.table(
        f"Memory: RSS growth over {jobs:,} queued jobs with a distinct payload of {PAYLOAD} bytes",
        ["", "bytes a job"],
        rows,
    )


def _fill_ours(port: int, jobs: int) -> None:
    with Client(port) as client:
        fill(client, jobs)


def _fill_beanstalkd(port: int, jobs: int) -> None:
    _pipelined(port, jobs, lambda number: b"put 0 0 300 100\r\n%0100d\r\n" % number, b"INSERTED")


def _fill_redis(port: int, jobs: int) -> None:
    put = b"*3\r\n$5\r\nLPUSH\r\n$1\r\nq\r\n$100\r\n%0100d\r\n"
    _pipelined(port, jobs, lambda number: put % number, b":")


def _pipelined(port: int, jobs: int, put, expected: bytes) -> None:
    with socket.create_connection((HOST, port), 60) as connection:
        for start in range(0, jobs, 500):
            some = range(start, min(start + 500, jobs))
            connection.sendall(b"".join(put(number) for number in some))
            answers = b""
            while answers.count(b"\n") < len(some):
                answers += connection.recv(65536)
            check(answers.count(expected) == len(some), f"put: {answers[:200]!r}")
