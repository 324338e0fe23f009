"""Waiting: the cost of idle long-polls, and how fast a job reaches a waiting consumer.

Thousands of connections each wait for a job that does not come: measured are the server's RSS for each, and its CPU
time. Then one consumer waits at a time, at light load: measured is the time from sending an enqueue on one
connection to receiving the answer of the waiting dequeue on another, with nobody else waiting and with all the
idle ones. A plain request at the same pace is the control: most of its time is the wake-up of a sleeping machine.
"""

import resource
import time
from statistics import median, quantiles

from tests.bench import processes
from tests.bench.client import Client
from tests.bench.processes import Server
from tests.bench.report import Report, check, figure

WAITERS = 10_000
# Seconds between two rounds of light load.
_BETWEEN = 0.004
# Descriptors that this process and the server need besides.
_SPARE = 200
_COLUMNS = ["", "p50, ms", "p99, ms", "longest, ms"]


def run(quick: bool) -> Report:
    report = Report("waiting: idle long-polls and delivery")
    wanted = 200 if quick else WAITERS
    waiters = min(wanted, _raise_file_limit() - _SPARE)
    if waiters < wanted:
        report.note(
            f"{waiters:,} waiters instead of {wanted:,}: the limit on open files (ulimit -n) is lower."
        )
    rounds = 30 if quick else 500
    with Server(max_waiters=100_000, max_connections_by_address=100_000) as server:
        rows = [_row("control: GET /healthz", _plain_requests(server, rounds))]
        rows.append(_row("delivery, nobody else waiting", alone := _deliveries(server, rounds)))
        report.at_most("enqueue to delivery, p99", _p99(alone), 2, "ms")
        _idle(report, server, waiters, rounds, quick, rows)
    report.table(f"From enqueue to delivery at light load, {rounds} rounds", _COLUMNS, rows)
    return report


def _idle(
    report: Report, server: Server, waiters: int, rounds: int, quick: bool, rows: list[list[str]]
) -> None:
    seconds = 0.5 if quick else 8
    with Client(server.port) as client:
        before = processes.rss(server.pid)
        clients = []
        try:
            # The longest wait there is: what follows must be over by then.
            start = time.monotonic()
            for _ in range(waiters):
                clients.append(waiter := Client(server.port))
                waiter.send(waiter.request("POST", "/jobs/dequeue", b'{"queue":"idle","wait":60}'))
            _until(lambda: client.stats()["consumers_waiting"] == waiters, "the waiters do not all wait")
            opened = time.monotonic() - start
            each = (processes.rss(server.pid) - before) / waiters
            cpu, clock = processes.cpu_seconds(server.pid), time.monotonic()
            time.sleep(seconds)
            idle = (processes.cpu_seconds(server.pid) - cpu) / (time.monotonic() - clock)
            rows.append(_row(f"delivery, {waiters:,} others waiting", _deliveries(server, rounds)))
            left = client.stats()["consumers_waiting"]
            check(left == waiters, f"{left} of {waiters} still wait, after {time.monotonic() - start:.0f} s")
        finally:
            for waiter in clients:
                waiter.close()
        _until(lambda: client.stats()["consumers_waiting"] == 0, "waiters that hung up still wait")
    report.table(
        f"{waiters:,} idle long-polls, opened in {opened:.1f} s",
        ["", "measured"],
        [
            ["RSS of the server for each, KiB", figure(each / 1024)],
            [f"CPU of the server over {seconds:g} s", f"{idle:.2%}"],
        ],
    )
    report.at_most("an idle long-poll", each / 1024, 10, "KiB")
    report.at_most("idle CPU", idle * 100, 1, "%")


def _deliveries(server: Server, rounds: int) -> list[float]:
    """Returns milliseconds from enqueue to delivery, one for each job."""
    found = []
    with Client(server.port) as producer, Client(server.port) as consumer:
        ask = consumer.request("POST", "/jobs/dequeue", b'{"queue":"lively","wait":20}')
        put = producer.request("POST", "/jobs/enqueue", b'{"type":"bench","queue":"lively","payload":1}')
        for _ in range(rounds):
            consumer.send(ask)
            time.sleep(_BETWEEN)  # it waits by now; if not, the figure shows it
            start = time.perf_counter()
            producer.send(put)
            answer = consumer.receive()
            found.append((time.perf_counter() - start) * 1000)
            check(answer.status == 200, f"the waiter got {answer.status}")
            check(producer.receive().status == 201, "the enqueue failed")
            id = answer.body[6 : answer.body.index(b",")].decode()
            consumer.ask("POST", f"/jobs/{id}/conclude")
    return found


def _plain_requests(server: Server, rounds: int) -> list[float]:
    """Returns milliseconds of requests that need nothing of the queue."""
    found = []
    with Client(server.port) as client:
        for _ in range(rounds):
            time.sleep(_BETWEEN)
            start = time.perf_counter()
            client.ask("GET", "/healthz")
            found.append((time.perf_counter() - start) * 1000)
    return found


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98]


def _row(name: str, found: list[float]) -> list[str]:
    return [name, figure(median(found)), figure(_p99(found)), figure(max(found))]


def _until(holds, said: str) -> None:
    until = time.monotonic() + 30
    while not holds():
        check(time.monotonic() < until, said)
        time.sleep(0.05)


def _raise_file_limit() -> int:
    """Raises the limit of open files of this process; the server raises its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WAITERS + 1000 if hard == resource.RLIM_INFINITY else min(hard, WAITERS + 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
