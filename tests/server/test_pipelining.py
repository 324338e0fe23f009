"""Requests that come in one read get the answers that they get one by one, also if their heads are known."""

import asyncio
import itertools
import random
import re
from typing import Any

import pytest
from http_client import request
from serving import Server

from jobqueue import Settings
from jobqueue.server.http1 import connection
from jobqueue.server.http1.front import FastFront
from jobqueue.testing import ManualClock

pytestmark = pytest.mark.parametrize("seed", range(8))
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
POOL = [
    *[request("POST", "/jobs/enqueue", {"type": "x", "payload": "y" * 20})] * 4,
    request("POST", "/queues/default/enqueue", {"type": "x"}),
    *[request("POST", "/jobs/dequeue")] * 3,
    request("POST", "/jobs/dequeue?queue=default"),
    *[request("POST", f"/jobs/{id}/conclude?next=1&consumer=me") for id in (1, 2, 3)],
    *[request("POST", "/jobs/dequeue?consumer=me")] * 2,
    request("POST", "/jobs/2/conclude", {"lease": "none"}),
    request("GET", "/jobs/1"), request("HEAD", "/jobs/1"), request("GET", "/nothing"), request("PUT", "/jobs/dequeue"),
    request("POST", "/jobs/enqueue", {"type": "x", "typ": "y"}), request("GET", "/queues/default/peek"),
    request("POST", "/jobs/enqueue", "é" * 9000), request("POST", "/jobs/enqueue", None, {"X-Request-Id": "mine"}),
    b"\r\n" + request("GET", "/healthz"), request("GET", "/healthz", None, {"Connection": "keep-alive"}, "HTTP/1.0"),
    b"POST /jobs/1/heartbeat HTTP/1.1\r\nHost: localhost\r\n" + _CHUNKED,
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
]  # fmt: skip


# So many of them may have heads that are known.
_PLAIN = 15


async def answers(seed: int, how: str, wishes: list[bytes]) -> list[Any]:
    """`how`: "one by one", with heads that are not known; or "together", in pieces, with heads that are."""
    random_ = random.Random(seed)
    server = Server("fast", Settings(first_id=1), ManualClock())
    assert isinstance(server.front, FastFront)
    try:
        client = await server.connect()
        if seed % 2:
            await server.connect()  # with one client only, answers are sent at once
        for data in sorted(set(wishes)) if how == "together" else ():
            _line, _, rest = data.removeprefix(b"\r\n").partition(b"\r\n")
            client.send(b"GET /healthz HTTP/1.1\r\n" + rest)
            await client.read()
        found = []
        if how == "together":
            whole, start = b"".join(wishes), 0
            for end in [*sorted(random_.sample(range(len(whole)), random_.choice([0, 0, 1, 3]))), len(whole)]:
                client.send(whole[start:end])
                start = end
                await asyncio.sleep(0)
        for data in wishes:
            if how == "one by one":
                server.front.state.head_cache.blocks.clear()
                server.front.state.head_cache._latest.clear()
                server.front.state.head_cache.requests[:] = [None] * 256
                client.send(data)
            answer = await client.read(data.split(None, 1)[0].decode())
            kept = {
                name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")
            }
            text = re.sub(rb'"lease":"[^"]+"|"request_id":"[^"]+"', b"", answer.body)
            kept.pop("content-length", None)
            found.append((answer.status, kept, text))
        return found
    finally:
        await server.close()


async def test_requests_in_one_read_get_the_same_answers(seed, monkeypatch):
    if seed > 3:  # so that slices are over after a few requests
        monkeypatch.setattr(connection, "monotonic", itertools.count(0, 0.0008).__next__)
    wishes = random.Random(seed).choices(POOL if seed % 2 else POOL[:_PLAIN], k=60)
    assert await answers(seed, "together", wishes) == await answers(seed, "one by one", wishes)
