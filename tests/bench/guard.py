"""The cost of metrics and access tokens for a request through the fast front.

Everything runs in one process, without sockets: requests go as bytes into a connection of the fast front, and its
transport only keeps what is written. A lifecycle is an enqueue with a payload of 100 bytes, a dequeue and a
conclude. Three servers take turns: one without tokens, one with a single token, and one with a hundred tokens of
which each is for one queue and each request carries the next one. All of them use a hundred queues.

The cost of metrics is measured on the sources, beside a server whose `perform` neither counts nor authenticates.
Nothing can be left out of compiled code, so there the counting is timed alone, as a call from Python. All times
are CPU times. Shares refer to a request as the real server answers it, sockets included.
"""

import asyncio
import hashlib
import re
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from jobqueue.engine.local import LocalEngine
from jobqueue.server.http1.front import FastFront
from jobqueue.server.log import AccessLog
from jobqueue.settings import Settings
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.http import Deferred, Request, Response
from jobqueue.web.routes import Route
from tests.bench import processes, subject
from tests.bench.client import lifecycle_script
from tests.bench.report import Report, check, figure, spread

_BARE, _PLAIN, _ONE, _MANY = "nothing", "metrics", "metrics, 1 token", "metrics, 100 tokens"
_COUNTING = "counting"
_TOKENS = 100
_LEASE = re.compile(rb'"id":(\d+),"lease":"([^"]+)"')


def run(quick: bool) -> Report:
    report = Report("guard: what metrics and access tokens cost on the way of a request")
    on_sources = processes.fresh("guard:measure", package=processes.ROOT, quick=quick, names=[_BARE, _PLAIN])
    found = processes.fresh("guard:measure", quick=quick, names=[_PLAIN, _ONE, _MANY])
    with processes.Server() as server:
        for seconds in (1, 0.3 if quick else 5):
            load = processes.load("http", server, 16, seconds, lifecycle_script())
    served = load.cost / 3
    report.at_most("metrics, a request", _more(on_sources, _PLAIN, _BARE), 0.3, "µs")
    rows = [
        [f"{name}; sources", spread(on_sources[name]), figure(_more(on_sources, name, _BARE)), ""]
        for name in (_BARE, _PLAIN)
    ]
    counting = median(found[_COUNTING])
    for name in (_PLAIN, _ONE, _MANY):
        lifecycles, more = found[name], counting + _more(found, name, _PLAIN)
        rows.append([name, spread(lifecycles), figure(more), f"{100 * more / served:.1f} %"])
        report.at_most(f"{name}: of a request served", 100 * more / served, 5, "%")
    report.table(
        f"Lifecycle through the fast front: median (least–most); a request served costs {figure(served)} µs",
        ["what is on", "µs", "more a request than nothing, µs", "of one served"],
        rows,
    )
    return report


def _more(found: dict[str, list[float]], name: str, than: str) -> float:
    """Returns the added cost in microseconds a request."""
    return median(a - b for a, b in zip(found[name], found[than], strict=True)) / 3


def _bare() -> type[Dispatcher]:
    class Bare(Dispatcher):
        """A server that neither counts requests nor checks tokens."""

        def perform(
            self, route: Route, request: Request, from_program: bool = False, *_: Any, **__: Any
        ) -> Response | Deferred:
            try:
                if not from_program:
                    self.browser_policy.check(request)
                answer: Any = route.operation(self.context, request)
                return answer
            except Exception as error:
                return self.failed(error, request.id)

    return Bare


class _Transport:
    """A transport that keeps the bytes written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def writelines(self, lines: list[bytes]) -> None:
        self.written += lines

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, name: str) -> None: ...

    def is_closing(self) -> bool:
        return False


class _Subject:
    def __init__(self, kind: type[Dispatcher], settings: Settings, tokens: list[str]) -> None:
        self.dispatcher = kind(LocalEngine(settings))
        front = FastFront(self.dispatcher, AccessLog("off"))
        self.transport = _Transport()
        self.warm = False
        self.connection = front.new_connection("10.0.0.1")
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self._senders = [
            (f"Authorization: Bearer {tokens[n % len(tokens)]}\r\n" if tokens else "", f"q{n}")
            for n in range(_TOKENS)
        ]

    def _requests(self, count: int, line: Any, body: Any) -> list[bytes]:
        """`line`, `body`: of the number of a request and its queue."""
        made = []
        for number in range(count):
            sender, queue = self._senders[number % len(self._senders)]
            sent = body(queue)
            made.append(
                f"POST {line(number)} HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: bench\r\n{sender}"
                f"Content-Length: {len(sent)}\r\n\r\n{sent}".encode()
            )
        return made

    def _send(self, requests: list[bytes], status: bytes) -> tuple[int, list[bytes]]:
        """Nanoseconds, and the answers."""
        receive, written = self.connection.data_received, self.transport.written
        written.clear()
        start = time.thread_time_ns()
        for request in requests:
            receive(request)
            if not self.warm:  # heads that are new are answered at the end of a loop pass
                self.connection.send()
        spent = time.thread_time_ns() - start
        answers = list(written)
        check(len(answers) == len(requests), f"{len(requests)} requests, {len(answers)} answers")
        for answer in answers:
            check(answer[9:12] == status, answer.decode())
        return spent, answers

    def lifecycles(self, count: int) -> float:
        """Microseconds of one."""
        payload = "x" * 98
        enqueue, _ = self._send(
            self._requests(
                count, lambda _: "/jobs/enqueue",
                lambda queue: f'{{"type":"t","queue":"{queue}","payload":"{payload}"}}',
            ), b"201",
        )  # fmt: skip
        dequeue, answers = self._send(
            self._requests(count, lambda _: "/jobs/dequeue", lambda queue: f'{{"queue":"{queue}"}}'), b"200"
        )
        held = [found.groups() for answer in answers if (found := _LEASE.search(answer))]
        conclude, _ = self._send(
            self._requests(
                count, lambda n: f"/jobs/{held[n][0].decode()}/conclude?lease={held[n][1].decode()}",
                lambda _: "",
            ), b"200",
        )  # fmt: skip
        self.warm = True
        return (enqueue + dequeue + conclude) / count / 1000


def _file(tokens: list[str], folder: str) -> str:
    path = Path(folder) / "tokens.toml"
    path.write_text("".join(
        f'[t{number}]\ndigest = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
        f'rights = ["enqueue", "dequeue"]\nqueues = ["q{number}"]\n'
        for number, token in enumerate(tokens)
    ))  # fmt: skip
    return str(path)


def _subject(name: str, folder: str) -> _Subject:
    tokens = [f"jq_{hashlib.sha256(str(number).encode()).hexdigest()[:43]}" for number in range(_TOKENS)]
    if name == _BARE:
        return _Subject(_bare(), Settings(), [])
    if name == _PLAIN:
        return _Subject(Dispatcher, Settings(), [])
    if name == _ONE:
        return _Subject(Dispatcher, Settings(access_token=tokens[0]), tokens[:1])
    return _Subject(Dispatcher, Settings(tokens_file=_file(tokens, folder)), tokens)


# -- in a process of its own ------------------------------------------------------------------------


def measure(quick: bool, names: list[str]) -> dict[str, list[float]]:
    """Returns microseconds a lifecycle for each kind of server, and microseconds for counting one request."""
    return asyncio.run(_measure(quick, names))


async def _measure(quick: bool, names: list[str]) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        subjects = {name: _subject(name, folder) for name in names}
        subject.as_the_program_does()
        count, rounds = (200, 1) if quick else (2000, 41)
        found: dict[str, list[float]] = {name: [] for name in subjects}
        for turn in range(rounds + 1):
            for name, one in subjects.items():
                cost = one.lifecycles(count)
                if turn:
                    found[name].append(cost)
        found[_COUNTING] = [_counting(subjects[_PLAIN].dispatcher, count) for _ in range(rounds)]
        for one in subjects.values():
            one.dispatcher.engine.close()
    return found


def _counting(dispatcher: Dispatcher, times: int) -> float:
    """Returns microseconds for counting one request."""
    count, operation = dispatcher.meter.count, dispatcher.router.find("POST", "/jobs/enqueue")[0].operation
    start = time.thread_time_ns()
    for _ in range(times):
        count(operation, 201, 0.0)
    return (time.thread_time_ns() - start) / times / 1000
