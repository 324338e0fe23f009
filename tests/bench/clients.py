"""The Python client's transports against http.client and aiohttp: requests a second, and CPU of the client.

All enqueue the same job: they encode it as JSON, send an access token, and decode the answer. Our two clients
make the whole call, with a struct as its result; of the others only that is done which any program would do.
aiohttp is measured if it is installed.
"""

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import Any

from jobqueue import AsyncClient, Client
from tests.bench.processes import HOST, Server
from tests.bench.report import Report, check, figure, how_many, spread

TOKEN = "t" * 20
AT_ONCE = 32
PAYLOAD = {"to": "ada@example.com", "template": "welcome", "n": 17}
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}

Way = Callable[[int, int], None]
Enqueue = Callable[[], Awaitable[int]]


def client(port: int, count: int) -> None:
    with Client(f"http://{HOST}:{port}", token=TOKEN) as made:
        for _ in range(count):
            check(made.jobs.enqueue("x", PAYLOAD).id > 0, "not enqueued")


def http_client(port: int, count: int) -> None:
    connection = http.client.HTTPConnection(HOST, port)
    for _ in range(count):
        body = json.dumps({"type": "x", "payload": PAYLOAD}).encode()
        connection.request("POST", "/jobs/enqueue", body, HEADERS)
        answer = connection.getresponse()
        check(json.loads(answer.read())["id"] > 0 and answer.status == 201, "not enqueued")
    connection.close()


async def _at_once(enqueue: Enqueue, count: int) -> None:
    """Has `AT_ONCE` tasks enqueue `count` jobs in all."""

    async def task() -> None:
        for _ in range(count // AT_ONCE):
            check(await enqueue() > 0, "not enqueued")

    await asyncio.gather(*[task() for _ in range(AT_ONCE)])


async def _async_client(port: int, count: int) -> None:
    async with AsyncClient(f"http://{HOST}:{port}", token=TOKEN) as made:

        async def enqueue() -> int:
            return (await made.jobs.enqueue("x", PAYLOAD)).id

        await _at_once(enqueue, count)


async def _aiohttp(port: int, count: int) -> None:
    import aiohttp

    url = f"http://{HOST}:{port}/jobs/enqueue"
    async with AsyncExitStack() as stack:
        session: Any = await stack.enter_async_context(aiohttp.ClientSession(headers=HEADERS))

        async def enqueue() -> int:
            body = json.dumps({"type": "x", "payload": PAYLOAD}).encode()
            async with session.post(url, data=body) as answer:
                return int(json.loads(await answer.read())["id"])

        await _at_once(enqueue, count)


def _on_uvloop(main: Callable[[int, int], Awaitable[None]], port: int, count: int) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(port, count))  # type: ignore[arg-type]  # a coroutine


def _on_asyncio(main: Callable[[int, int], Any], port: int, count: int) -> None:
    asyncio.run(main(port, count))


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def run(quick: bool) -> Report:
    report = Report("clients: the Python client against http.client and aiohttp")
    blocking: dict[str, Way] = {"Client": client, "http.client": http_client}
    awaiting: dict[str, Way] = {"AsyncClient": partial(_on_asyncio, _async_client)}
    if _installed("uvloop"):
        awaiting["AsyncClient, uvloop"] = partial(_on_uvloop, _async_client)
    if _installed("aiohttp"):
        awaiting["aiohttp"] = partial(_on_asyncio, _aiohttp)
        if _installed("uvloop"):
            awaiting["aiohttp, uvloop"] = partial(_on_uvloop, _aiohttp)
    else:
        report.skip("aiohttp: not installed (.venv/bin/python -m pip install aiohttp)")
    rounds, count = (1, AT_ONCE * 4) if quick else (5, AT_ONCE * 200)
    with Server(access_token=TOKEN, access_log="off") as server:
        for caption, ways in (
            ("Blocking, one connection", blocking), (f"asyncio, {AT_ONCE} requests at once", awaiting)
        ):  # fmt: skip
            rates, cpu = _measured(server.port, ways, rounds, count)
            first = next(iter(ways))
            report.table(
                f"{caption}; {how_many(rounds, 'round')} in rotation of {count:,} enqueues; median (least–most)",
                ["", "requests/s", "client's CPU, µs a request", f"CPU of {first} to it"],
                [
                    [
                        name, spread(rates[name]), spread(cpu[name]),
                        f"1 : {median(b / a for a, b in zip(cpu[first], cpu[name], strict=True)):.2f}",
                    ]
                    for name in ways
                ],
            )  # fmt: skip
            for name, wanted in (("http.client", 2.8), ("aiohttp", 2.2)):
                if name in ways:
                    times = median(b / a for a, b in zip(cpu[first], cpu[name], strict=True))
                    report.at_least(f"CPU of {name}, as a multiple of {first}'s", times, wanted)
    report.note(
        f"The server runs beside the client, its CPU not counted; {figure(AT_ONCE)} tasks share a loop."
    )
    return report


def _measured(
    port: int, ways: dict[str, Way], rounds: int, count: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(port, AT_ONCE * 2)  # warm
    order = list(ways)
    for _ in range(rounds):
        for name in order:
            used, began = time.process_time(), time.perf_counter()
            ways[name](port, count)
            rates[name].append(count / (time.perf_counter() - began))
            cpu[name].append((time.process_time() - used) / count * 1e6)
        order = order[1:] + order[:1]
    return rates, cpu
