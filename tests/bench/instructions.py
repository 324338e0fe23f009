"""Instructions of each kind of request through the fast front, counted by callgrind.

The server runs in one process without sockets: requests go as bytes into 64 connections, whose transports only keep
what is written, and each pass of the loop answers one request of each. Only user instructions from receiving the bytes
to writing the answer count, so the figures are the same on a busy machine, and from run to run to 0.1 %. They are
no times: a miss of a cache counts nothing.

Each run of the compiled package is compared with `instructions.json`, and fails if a lifecycle takes 3 % more or fewer
instructions than recorded there, or a request 6 %. `--write` records what was counted.

The server remembers as many finished jobs as it may, so each conclude also forgets one. `BENCH_KEEP=FOLDER` keeps the
files of callgrind there, for `callgrind_annotate`: the first one is of the first row of the table, and so on.
"""

import asyncio
import ctypes
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from jobqueue.engine.local import LocalEngine
from jobqueue.server.http1 import connection
from jobqueue.server.http1.connection import Connection
from jobqueue.server.http1.front import FastFront
from jobqueue.server.log import AccessLog
from jobqueue.settings import Settings
from jobqueue.web.dispatch import Dispatcher
from tests.bench import processes, recorded, reference, subject
from tests.bench.processes import BUILD, HERE, PACKAGE
from tests.bench.report import Broken, Report, Skip, check

_CONNECTIONS = 64
_FINISHED = 200  # jobs that the server remembers
_HEADERS = "Host: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
_JOB = re.compile(rb'"id":(\d+),"lease":"([^"]+)"')
_TOTAL = re.compile(r"^totals: (\d+)$", re.MULTILINE)


class Held(NamedTuple):
    """A job that a connection has leased."""

    id: str
    lease: str


_NOTHING = Held("", "")


class Kind(NamedTuple):
    """A kind of request: the line after POST, and the body, for the job that the connection holds. `needs`:
    what is there before, "queued" or "held". `depth`: so many requests come in one read."""

    name: str
    needs: str
    target: Callable[[Held], str]
    body: Callable[[Held], str]
    depth: int = 1

    def request(self, held: Held) -> bytes:
        body = self.body(held)
        return f"POST {self.target(held)} HTTP/1.1\r\n{_HEADERS}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def _enqueue(name: str, path: str, depth: int = 1) -> Kind:
    payload = "x" * 98
    return Kind(name, "", lambda _: path, lambda _: f'{{"type":"bench","payload":"{payload}"}}', depth)


def _dequeue(name: str, path: str, depth: int = 1) -> Kind:
    return Kind(name, "queued", lambda _: path, lambda _: "", depth)


def _holding(name: str, call: str, body: str = "", needs: str = "held") -> Kind:
    """A call with the job that a connection holds. `call` and `body` may have LEASE in them."""
    return Kind(
        name, needs, lambda held: f"/jobs/{held.id}/{call}".replace("LEASE", held.lease),
        lambda held: body.replace("LEASE", held.lease),
    )  # fmt: skip


def _conclude(name: str, query: str, body: str = "", needs: str = "held") -> Kind:
    return _holding(name, f"conclude{query}", body, needs)


_IN_BODY = '{"lease":"LEASE"}'
ENQUEUE, DEQUEUE = _enqueue("enqueue", "/jobs/enqueue"), _dequeue("dequeue", "/jobs/dequeue")
KINDS = (
    ENQUEUE,
    DEQUEUE,
    _conclude("conclude", "", _IN_BODY),
    _conclude("conclude?next=1", "?next=1", _IN_BODY, "held and queued"),
    _conclude("conclude?next=1&queue=…&wait=…", "?next=1&queue=default&wait=30", _IN_BODY, "held and queued"),
    _conclude("conclude?lease=…&next=1", "?lease=LEASE&next=1", needs="held and queued"),
    _conclude("conclude?lease=…", "?lease=LEASE"),
    _dequeue("dequeue?queue=…&wait=…", "/jobs/dequeue?queue=default&wait=30"),
    _enqueue("enqueue?queue=…", "/jobs/enqueue?queue=default"),
    _enqueue("queues/…/enqueue", "/queues/default/enqueue"),
    _dequeue("queues/…/dequeue", "/queues/default/dequeue"),
    _enqueue("enqueue, 4 in one read", "/jobs/enqueue", 4),
    _dequeue("dequeue, 4 in one read", "/jobs/dequeue", 4),
    _enqueue("enqueue, 16 in one read", "/jobs/enqueue", 16),
    _holding("heartbeat", "heartbeat", _IN_BODY),
    _holding("heartbeat?lease=…", "heartbeat?lease=LEASE"),
    _holding("heartbeat?lease_for=…", "heartbeat?lease_for=60", _IN_BODY),
    _holding("release?lease=…", "release?lease=LEASE"),
    _holding("release?delay=…", "release?delay=5", _IN_BODY),
    _holding("fail?lease=…&retry=…", "fail?lease=LEASE&retry=false"),
    _holding("fail?retry_in=…", "fail?retry_in=5", '{"lease":"LEASE","error":"no"}'),
)
LIFECYCLES = {
    "enqueue, dequeue, conclude": ("enqueue", "dequeue", "conclude"),
    "enqueue, conclude?next=1": ("enqueue", "conclude?next=1"),
}


REFERENCE = "the reference workload"


def run(quick: bool) -> Report:  # a quick run counts the same: fewer requests would be other figures
    report = Report("instructions: user instructions of a request, without sockets")
    rounds = 16
    found = _count(_helper(), rounds)
    report.table(
        f"Instructions of a request, {_CONNECTIONS} connections, {rounds} requests each",
        ["request", "instructions"],
        [[name, f"{number:,.0f}"] for name, number in found.items() if name != REFERENCE],
    )
    report.table(
        "Instructions of a lifecycle",
        ["lifecycle", "instructions"],
        [[name, f"{sum(found[part] for part in parts):,.0f}"] for name, parts in LIFECYCLES.items()],
    )
    _compare(found, report)
    return report


def _compare(found: dict[str, float], report: Report) -> None:
    """Compares with what was recorded for this version of Python."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if PACKAGE == processes.ROOT:
        report.skip("recorded figures are of the compiled package, and this ran the sources")
        return
    report.on_write(lambda: recorded.save(python, found))
    known = recorded.load(python)
    if known is None:
        report.skip(f"there are no recorded figures for Python {python}; `instructions --write` records them")
        return
    differences = recorded.differences(found, known, LIFECYCLES, REFERENCE)
    if differences:
        report.fail(
            "; ".join([
                *differences, "if that is meant: ./scripts/bench.sh instructions --write records the new figures",
            ])
        )  # fmt: skip


def _count(helper: Path, rounds: int) -> dict[str, float]:
    """Returns the instructions of one request of each kind, and of the reference workload."""
    valgrind = processes.find("valgrind")
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(os.environ.get("BENCH_KEEP", scratch)).absolute()
        options = ["--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out", "-q"]
        _start([valgrind, *options, sys.executable], helper, rounds)
        counted = {kind.name: rounds * _CONNECTIONS * kind.depth for kind in KINDS}
        for number, (name, requests) in enumerate([*counted.items(), (REFERENCE, 1)], 1):
            written = (folder / f"out.{number}").read_text()
            check(f"Client Request: {name}\n" in written, f"{name}: callgrind has counted nothing")
            found[name] = sum(int(total) for total in _TOTAL.findall(written)) / requests
    return found


def _start(python: list[str], helper: Path, rounds: int) -> None:
    """Runs this module in a process of its own, whose hashes are the same each time."""
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": f"{PACKAGE}{os.pathsep}{processes.ROOT}",
        "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [*python, "-P", "-m", "tests.bench.instructions", helper, str(rounds)],
        cwd=processes.ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Broken(f"sending the requests failed: {done.stderr[-2000:]}")


def _helper() -> Path:
    """Returns the path of the library that begins and ends counting. Raises `Skip` without a compiler."""
    compiler = processes.find("gcc")
    BUILD.mkdir(exist_ok=True)
    library = BUILD / f"callgrind.{os.getpid()}.so"
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, HERE / "callgrind.c"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise Skip("needs the header valgrind/callgrind.h, which comes with valgrind")
    return library.rename(BUILD / "callgrind.so")


# -- under callgrind --------------------------------------------------------------------------------


class _Transport:
    """A transport that keeps the bytes written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, name: str) -> None: ...

    def is_closing(self) -> bool:
        return False


class _SteadyTime:
    """A time that moves by two milliseconds with each pass of the loop: what depends on the time, such as texts of
    instants that are remembered, and slices of work, must not depend on how much slower callgrind is."""

    def __init__(self) -> None:
        self._monotonic, self._wall = 10**15, 18 * 10**17
        connection.monotonic = repeat(0.0).__next__  # type: ignore[attr-defined]
        self.move()

    def move(self) -> None:
        self._monotonic += 2_000_000
        self._wall += 2_000_000
        time.monotonic_ns = repeat(self._monotonic).__next__
        time.time_ns = repeat(self._wall).__next__


class _Clients:
    def __init__(self, helper: str) -> None:
        self.callgrind = ctypes.CDLL(helper)
        self._time = _SteadyTime()
        self._dispatcher = Dispatcher(
            LocalEngine(Settings(retain_jobs=_FINISHED, max_jobs=None), subject.HandTickedClock())
        )
        front = FastFront(self._dispatcher, AccessLog("off"))
        self._connections: list[tuple[Connection, _Transport]] = []
        self._held = [_NOTHING] * _CONNECTIONS
        for number in range(_CONNECTIONS):
            client, transport = front.new_connection(f"10.0.0.{number}"), _Transport()
            client.connection_made(transport)  # type: ignore[arg-type]
            self._connections.append((client, transport))

    async def measure(self, kind: Kind, rounds: int, counted: bool) -> None:
        """Sends the requests of a kind in rounds, one read of each connection in a round."""
        if "queued" in kind.needs:
            for _ in range(rounds * kind.depth):
                await self._round(ENQUEUE)
        batches = []
        for _ in range(rounds):
            held = self._held
            if "held" in kind.needs:
                await self._round(ENQUEUE)
                await self._round(DEQUEUE)
                held = self._jobs()
            batches.append([kind.request(job) * kind.depth for job in held])
        for _, transport in self._connections:
            transport.written.clear()
        receivers = [client.data_received for client, _ in self._connections]
        if counted:
            self.callgrind.begin()
        for batch in batches:
            for receive, data in zip(receivers, batch, strict=True):
                receive(data)
            await self._pass()
        if counted:
            self.callgrind.end(kind.name.encode())
        for _, transport in self._connections:
            answers = b"".join(transport.written)
            good = answers.count(b"HTTP/1.1 200") + answers.count(b"HTTP/1.1 201")
            check(good == rounds * kind.depth, f"{kind.name}: {answers[-500:].decode()}")
            transport.written.clear()

    async def _round(self, kind: Kind) -> None:
        for client, transport in self._connections:
            transport.written.clear()
            client.data_received(kind.request(_NOTHING))
        await self._pass()

    async def _pass(self) -> None:
        """The rest of a pass of the loop: requests are answered, then answers are sent."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._time.move()

    def _jobs(self) -> list[Held]:
        found = [_JOB.search(transport.written[-1]) for _, transport in self._connections]
        return [Held(*[part.decode() for part in one.groups()]) for one in found if one is not None]


async def _measure(helper: str, rounds: int) -> None:
    clients = _Clients(helper)
    for kind in (*KINDS, *KINDS):  # so that all that is remembered is known, and as many jobs as may be
        await clients.measure(kind, 3, False)
    subject.as_the_program_does()
    for kind in KINDS:
        await clients.measure(kind, rounds, True)
    reference.work(100)
    clients.callgrind.begin()
    reference.work(2000)
    clients.callgrind.end(REFERENCE.encode())


if __name__ == "__main__":
    asyncio.run(_measure(sys.argv[1], int(sys.argv[2])))
