"""Pages: what open pages of the dashboard cost the requests that run meanwhile.

Each page does what the scripts of one do: it holds `GET /live`, and when that says that something has changed it
loads its page again, at most every two seconds. Rounds with the pages open and without them are taken in pairs.
The load is that of `http`: 64 connections, a lifecycle at a time each. With so many pages each is told about every
20 seconds, so a round is longer than that.
"""

import asyncio
import threading
from statistics import median
from typing import Self

from tests.bench import processes
from tests.bench.client import Client, lifecycle_script
from tests.bench.processes import HOST, Load, Server
from tests.bench.report import Report, check, figure, how_many, spread

_OPEN = 50
_CONNECTIONS = 64
# Queues that the overview shows besides that of the load.
_QUEUES = 30
_QUIET = 2.0  # seconds between two times that a page is loaded again
_LIMIT = 1.05


def run(quick: bool) -> Report:
    processes.generator()
    report = Report("pages: open pages of the dashboard")
    pairs, seconds, count = (1, 0.5, 5) if quick else (3, 45.0, _OPEN)
    found: dict[bool, list[Load]] = {False: [], True: []}
    loaded = 0
    with Server() as server:
        with Client(server.port) as client:
            for number in range(_QUEUES):
                client.send(client.request("POST", f"/queues/queue-{number}/enqueue", b'{"type":"x"}'))
                check(client.receive().status == 201, "a job was refused")
        if not quick:
            processes.load("http", server, _CONNECTIONS, 6, lifecycle_script())  # warm
        for number in range(pairs):
            for with_pages in (number % 2 == 0, number % 2 == 1):
                if not with_pages:
                    found[False].append(
                        processes.load("http", server, _CONNECTIONS, seconds, lifecycle_script())
                    )
                    continue
                with Pages(server.port, count) as pages:
                    found[True].append(
                        processes.load("http", server, _CONNECTIONS, seconds, lifecycle_script())
                    )
                loaded += pages.loaded
    check(quick or loaded > 0, "no page was loaded again, so nothing was measured")
    rows = [
        [
            f"{count} pages open" if with_pages else "none",
            spread([load.rate for load in loads]),
            spread([load.cost for load in loads]),
            figure(median(load.p99 for load in loads) / 1000),
        ]
        for with_pages, loads in found.items()
    ]
    report.table(
        f"{how_many(pairs, 'pair')} of rounds of {seconds:g} s, overview of {_QUEUES + 1} queues",
        ["", "lifecycles/s", "server's CPU, µs each", "p99, ms"],
        rows,
    )
    report.note(f"Pages were loaded again {loaded:,} times.")
    ratios = [with_pages.cost / without.cost for without, with_pages in zip(*found.values(), strict=True)]
    report.at_most(f"CPU of a lifecycle with {count} pages open, ratio", median(ratios), _LIMIT)
    return report


class Pages:
    """Open overviews of the dashboard, on a thread. `loaded`: how often they were loaded again."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._all_open = threading.Barrier(2, timeout=20)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.loaded = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._all_open.wait()
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)
        check(not self._thread.is_alive(), "the pages do not close")

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        streams = [await self._open() for _ in range(self._count)]
        pages = [asyncio.ensure_future(self._keep(*each)) for each in streams]
        await self._loop.run_in_executor(None, self._all_open.wait)
        await self._over.wait()
        for page in pages:
            page.cancel()
        for _, writer in streams:
            writer.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(HOST, self._port)
        writer.write(f"GET /live HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/event-stream\r\n\r\n".encode())
        await reader.readuntil(b"retry: 2000\n\n")
        return reader, writer

    async def _keep(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        page, ask = await asyncio.open_connection(HOST, self._port)
        try:
            while True:
                await reader.readuntil(b"event: changed\ndata:\n\n")
                ask.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\n\r\n".encode())
                head = (await page.readuntil(b"\r\n\r\n")).lower()
                size = head.partition(b"content-length: ")[2].partition(b"\r")[0]
                await page.readexactly(int(size))
                self.loaded += 1
                await asyncio.sleep(_QUIET)
        finally:
            ask.close()
