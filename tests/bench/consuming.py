"""Three ways to consume, by one consumer and over both fronts: separate calls, conclude-and-next, and a stream.

The client is one blocking Python process with a socket for its calls and one for its stream. Most of the time is
spent on round trips, as with a real consumer. First come lifecycles, one job after the other: enqueue, take,
conclude. Then a backlog: only take and conclude. Payloads have 100 bytes. Another connection is open and idle,
since a server rarely has only one.
"""

import json
import socket
import time
from collections.abc import Callable
from statistics import median

from tests.bench import processes
from tests.bench.client import Client, fill
from tests.bench.processes import HOST, Server
from tests.bench.report import Report, check, figure, how_many, spread

JOB = b'{"type":"bench","payload":"%b"}' % (b"x" * 98)
HUNDRED = 100


class Taken:
    """A job that was taken."""

    def __init__(self, body: bytes) -> None:
        job = json.loads(body)
        self.conclude = f"/jobs/{job['id']}/conclude"
        self.lease = b'{"lease":"%b"}' % job["lease"].encode()
        self.item = b'{"id":%d,"lease":"%b"}' % (job["id"], job["lease"].encode())


class Stream:
    """Jobs as a stream, over a connection of its own."""

    def __init__(self, port: int, prefetch: int) -> None:
        self._socket = socket.create_connection((HOST, port), 60)
        request = (
            f"POST /jobs/stream?prefetch={prefetch} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"
        )
        self._socket.sendall(request.encode())
        self._kept = b""
        self._jobs: list[bytes] = []

    def take(self) -> Taken:
        """Returns the next job. A piece holds whole lines, with the framing of chunks between them."""
        while not self._jobs:
            data = self._socket.recv(1 << 20)
            check(bool(data), "the stream ended")
            *lines, self._kept = (self._kept + data).split(b"\n")
            self._jobs = [line for line in reversed(lines) if line.startswith(b"{")]
        return Taken(self._jobs.pop())

    def close(self) -> None:
        self._socket.close()


Way = Callable[[Client, int, int], None]


def _enqueue(client: Client) -> None:
    client.ask("POST", "/jobs/enqueue", JOB)


def _conclude(client: Client, job: Taken) -> None:
    client.ask("POST", job.conclude, job.lease)


def three_calls(client: Client, port: int, count: int) -> None:
    for _ in range(count):
        _enqueue(client)
        _conclude(client, Taken(client.ask("POST", "/jobs/dequeue").body))


def three_calls_waiting(client: Client, port: int, count: int) -> None:
    """The consumer asks, and waits, before the job comes."""
    with Client(port) as consumer:
        dequeue = consumer.request("POST", "/jobs/dequeue?wait=30")
        for _ in range(count):
            consumer.send(dequeue)
            _enqueue(client)
            _conclude(consumer, Taken(consumer.receive().body))


def and_next(client: Client, port: int, count: int) -> None:
    _enqueue(client)
    job = Taken(client.ask("POST", "/jobs/dequeue").body)
    for _ in range(count - 1):
        _enqueue(client)
        job = Taken(client.ask("POST", job.conclude + "?next=1", job.lease).body)
    _conclude(client, job)


def streamed(client: Client, port: int, count: int) -> None:
    stream = Stream(port, 1)
    for _ in range(count):
        _enqueue(client)
        _conclude(client, stream.take())
    stream.close()


def two_calls(client: Client, port: int, count: int) -> None:
    for _ in range(count):
        _conclude(client, Taken(client.ask("POST", "/jobs/dequeue").body))


def backlog_and_next(client: Client, port: int, count: int) -> None:
    job = Taken(client.ask("POST", "/jobs/dequeue").body)
    for _ in range(count - 1):
        job = Taken(client.ask("POST", job.conclude + "?next=1", job.lease).body)
    _conclude(client, job)


def backlog_streamed(prefetch: int) -> Way:
    def way(client: Client, port: int, count: int) -> None:
        stream = Stream(port, prefetch)
        for _ in range(count):
            _conclude(client, stream.take())
        stream.close()

    return way


def by_hundreds(client: Client, port: int, count: int) -> None:
    stream = Stream(port, 2 * HUNDRED)
    for _ in range(count // HUNDRED):
        items = [stream.take().item for _ in range(HUNDRED)]
        client.ask("POST", "/jobs/conclude", b"[" + b",".join(items) + b"]")
    stream.close()


LIFECYCLES: dict[str, Way] = {
    "enqueue, dequeue, conclude": three_calls,
    "dequeue that waits, enqueue, conclude": three_calls_waiting,
    "enqueue, conclude and next": and_next,
    "enqueue, stream, conclude": streamed,
}
BACKLOG: dict[str, Way] = {
    "dequeue, conclude": two_calls,
    "conclude and next": backlog_and_next,
    "stream, prefetch 1, conclude": backlog_streamed(1),
    "stream, prefetch 10, conclude": backlog_streamed(10),
    "stream, prefetch 200, conclude by hundreds": by_hundreds,
}


def run(quick: bool) -> Report:
    report = Report("consuming: separate calls, conclude and next, a stream")
    rounds, count = (1, 100) if quick else (5, 2000)
    for caption, ways, filled in (
        ("Lifecycles, one after the other", LIFECYCLES, False), ("A backlog", BACKLOG, True)
    ):  # fmt: skip
        rows = []
        for front in ("fast", "tornado"):
            with Server(front) as server, Client(server.port) as client, Client(server.port):
                rows += _measured(front, server, client, ways, filled, rounds, count)
        report.table(
            f"{caption}; one consumer; {how_many(rounds, 'interleaved round')} of {count:,} jobs; median "
            "(least–most)",
            ["", "front", "jobs/s", "against the first", "server's CPU, µs a job"],
            rows,
        )
    return report


def _measured(
    front: str, server: Server, client: Client, ways: dict[str, Way], filled: bool, rounds: int, count: int
) -> list[list[str]]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    three_calls(client, server.port, count // 10)  # warm
    for _ in range(rounds):
        for name, way in ways.items():
            if filled:
                fill(client, count)
            before, began = processes.cpu_seconds(server.pid), time.perf_counter()
            way(client, server.port, count)
            rates[name].append(count / (time.perf_counter() - began))
            cpu[name].append((processes.cpu_seconds(server.pid) - before) / count * 1e6)
            jobs = client.stats()["jobs"]
            check(jobs["queued"] == 0 and jobs["in_progress"] == 0, f"jobs are left behind: {jobs}")
    first = next(iter(rates.values()))
    return [
        [
            name, front, spread(rates[name]),
            f"{median(a / b for a, b in zip(rates[name], first, strict=True)):.2f} ×",
            figure(median(cpu[name])),
        ]
        for name in ways
    ]  # fmt: skip
