"""Many clients watch the events of the real program, and most of them stop reading. The others miss nothing, and the
memory that the program spends on the stuck ones is bounded. With TEST_ALL=1 there are 1,000 of them."""

import asyncio
import json
import os
import re
import resource
import socket
import time
from functools import partial
from pathlib import Path

import pytest
from running import Program

ALL = os.environ.get("TEST_ALL") == "1"
WATCHERS = 1000 if ALL else 40
READING = 100 if ALL else 20
REQUESTS, JOBS = 8, 1000
# The type of each job. It makes events long: each watcher is sent more than the sockets in between hold.
TYPE = "t" * 256
REQUEST = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Bytes of memory allowed for each watcher: the piece being written, and its connection.
EACH = 32 << 10


def resident(program):
    pages = int(Path(f"/proc/{program.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def watch(program):
    """A connection that watches; its first bytes have been read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", program.port))
    connection.sendall(REQUEST)
    head = b""
    while b"retry:" not in head:
        head += connection.recv(4096)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
    connection.setblocking(False)
    return connection


async def hear(connection, count):
    """The numbers of the next `count` events, in order."""
    loop = asyncio.get_running_loop()
    numbers, left = [], b""
    while len(numbers) < count:
        data = await loop.sock_recv(connection, 1 << 16)
        assert data, "cut off"
        whole, _, left = (left + data).rpartition(b"\n\n")
        numbers += map(int, re.findall(rb"^id: (\d+)$", whole, re.MULTILINE))
    return numbers


async def put_in(program):
    """Enqueues the jobs, one request after the other."""
    body = json.dumps([{"type": TYPE}] * JOBS).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port, limit=8 << 20)
    for _ in range(REQUESTS):
        writer.write(
            b"POST /jobs/enqueue HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 201"), head
        await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))
    writer.close()


async def all_that_read_hear_all(program, reading):
    putting = asyncio.ensure_future(put_in(program))
    heard = await asyncio.gather(*(hear(connection, REQUESTS * JOBS) for connection in reading))
    await putting
    return heard


@pytest.mark.parametrize("io_loop", ["uvloop"], indirect=True)  # of the watchers; the program has its own
def test_watchers_that_read_miss_nothing_and_those_that_do_not_cost_little(io_loop):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, WATCHERS + 500)), hard))
    with Program(JOBQUEUE_ACCESS_LOG="off") as program:
        before = resident(program)
        watchers = [watch(program) for _ in range(WATCHERS)]
        reading = watchers[:: WATCHERS // READING]
        stuck = WATCHERS - len(reading)
        heard = io_loop.run_sync(partial(all_that_read_hear_all, program, reading), timeout=120)
        first = heard[0]
        assert first == list(range(first[0], first[0] + REQUESTS * JOBS))
        assert all(numbers == first for numbers in heard)
        grown = resident(program) - before
        unread = stuck * REQUESTS * JOBS * len(TYPE)
        # The jobs, the ring, and a bounded amount for each watcher; not the events the stuck ones have not read.
        assert grown < (20 << 20) + WATCHERS * EACH, f"{grown:,} bytes more, of {unread:,} not read"
        if ALL:  # they are cut off after 30 seconds
            until = time.monotonic() + 45
            while program.call("GET", "/stats")[1]["connections"] > len(reading) + 10:
                assert time.monotonic() < until
                time.sleep(0.5)
        for connection in watchers:
            connection.close()
        program.stop()
