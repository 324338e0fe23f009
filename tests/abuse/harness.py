"""Attacks on the real program: their definition, what must hold meanwhile, and how it is measured."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from http_client import Client
from running import Program

P99_MS = 100.0
SECOND = Path(__file__).with_name("second.py")


class Check(NamedTuple):
    """One condition that must hold. `holds` is None if it could not be measured; `measured` then says why."""

    must: str
    measured: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        return {True: "holds", False: "DOES NOT HOLD", None: "SKIPPED"}[self.holds]


class Attack(NamedTuple):
    """`run(target, scale)`: scale 1 is the long form. `settings`: of the server. `second`: what the second client does:
    "work", "drain" (enqueues nothing), or "" for no second client. `fronts`: those to attack."""

    name: str
    run: Callable[["Target", float], Awaitable[list[Check]]]
    settings: Mapping[str, str] = MappingProxyType({})
    second: str = "work"
    fronts: tuple[str, ...] = ("fast", "tornado")
    command: tuple[str, ...] | None = None
    ends_it: bool = False  # the attack stops the server


class Target:
    """The server under attack."""

    def __init__(self, program: Program, front: str) -> None:
        self.program = program
        self.front = front
        self.port = program.port
        self._open: list[Client] = []

    async def connect(self) -> Client:
        client = await Client.connect(self.port)
        self._open.append(client)
        return client

    async def many(self, count: int) -> list[Client]:
        return [await self.connect() for _ in range(count)]

    async def send(self, data: bytes, seconds: float = 5) -> bytes:
        """Sends `data` on a connection of its own. Returns the first bytes of the answer; b"": it was closed."""
        client = await Client.connect(self.port)
        try:
            client.send(data)
            return await asyncio.wait_for(client._reader.read(4096), seconds)
        except TimeoutError:
            return b"nothing"
        except ConnectionError:
            return b""
        finally:
            with suppress(OSError):
                client.reset()

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        client = await Client.connect(self.port)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.call(method, path, body, given)
        finally:
            client.close()

    async def stats(self) -> Any:
        return (await self.call("GET", "/stats")).json

    def rss(self) -> float:
        """Resident memory in MiB."""
        pages = int(Path(f"/proc/{self.program.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    async def until_closed(self, clients: list[Client], seconds: float) -> int:
        """Number of connections that the server ends within `seconds`."""

        async def ended(client: Client) -> bool:
            try:
                while await client._reader.read(1 << 16):
                    pass
            except ConnectionError:
                pass
            return True

        done, left = await asyncio.wait([asyncio.ensure_future(ended(c)) for c in clients], timeout=seconds)
        for task in left:
            task.cancel()
        return len(done)

    def hang_up(self) -> None:
        for client in self._open:
            with suppress(OSError):  # the server closed it first
                client.reset()
        self._open.clear()


def carry_out(attack: Attack, front: str, scale: float, p99: float = P99_MS) -> list[Check]:
    """Starts a server and attacks it. Returns the attack's own checks, and those of all attacks."""
    settings = {f"JOBQUEUE_{name}": value for name, value in attack.settings.items()}
    options: dict[str, Any] = {"JOBQUEUE_HTTP": front, "JOBQUEUE_ACCESS_LOG": "auto", **settings}
    program = Program(*([attack.command] if attack.command else []), expect_5xx=True, **options)
    with program:
        second = None
        if attack.second:
            second = subprocess.Popen(
                [sys.executable, str(SECOND), str(program.port), attack.second],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert second.stdout is not None
            assert second.stdout.readline() == "ready\n"
        started = time.monotonic()
        try:
            checks = asyncio.run(_attack(attack, Target(program, front), scale))
            time.sleep(max(started + 0.3 - time.monotonic(), 0))
        finally:
            said = json.loads(second.communicate("")[0]) if second is not None else None
        if said is not None:
            checks.append(Check(
                f"p99 of a second client ≤ {p99:g} ms", f"{said['p99']:.1f} ms of {said['count']} requests",
                said["p99"] <= p99 and said["count"] > 0,
            ))  # fmt: skip
            if said["troubles"] and not attack.ends_it:
                checks.append(
                    Check("it is answered well", f"{said['troubles']}: {said['trouble'][0]}", False)
                )
        if not attack.ends_it:
            checks.append(
                Check("it goes on, and stops when it is told", "", program.running and program.stop() == 0)
            )
    traces = [line for line in program.lines if "Traceback" in line or "unexpected error" in line]
    checks.append(Check("no traceback", traces[0] if traces else "none", not traces))
    size = sum(len(line) + 1 for line in program.lines)
    checks.append(Check("log ≤ 4 MiB", f"{size / (1 << 20):.2f} MiB", size <= 4 << 20))
    return checks


async def _attack(attack: Attack, target: Target, scale: float) -> list[Check]:
    before = target.rss()
    try:
        checks = await attack.run(target, scale)
    finally:
        target.hang_up()
    if not attack.ends_it:
        grown = target.rss() - before
        checks.append(Check("memory grows by ≤ 400 MiB", f"{grown:.0f} MiB", grown <= 400))
    return checks
