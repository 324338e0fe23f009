"""The two fronts side by side: thousands of made-up requests, sent to both.

Each front has an engine and a clock of its own, set up alike. Well-formed requests must get equal answers,
byte for byte but for what is drawn at random or tells the time. Broken ones must be refused by both, or
differ in one of the ways that `FAST_ONLY` and `TORNADO_ONLY` name. Seeds are fixed: a failure comes again.
"""

import asyncio
import json
import os
import random
import re
import string
from asyncio import IncompleteReadError
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
from http_client import Answer, Client
from manners import BROKEN, LENIENT
from serving import Server, until
from tornado.ioloop import IOLoop

from jobqueue import Settings
from jobqueue.testing import ManualClock

ALL = os.environ.get("TEST_ALL") == "1"
# Requests for each seed.
REQUESTS = 500 if ALL else 60
SEEDS = range(10 if ALL else 5)
_SETTINGS = Settings(first_id=1, lease="60s", max_body="4KiB", max_result="1KiB", max_batch=5, retain_jobs=20)
_TARGET = string.ascii_letters + string.digits + "/?&=-_.,:~%+!$'()*;@"


class Both(NamedTuple):
    fast: Server
    tornado: Server


@pytest.fixture
def both(io_loop: IOLoop) -> Iterator[Both]:
    async def start() -> Both:
        return Both(*(Server(front, _SETTINGS, ManualClock()) for front in ("fast", "tornado")))

    servers = io_loop.run_sync(start)
    yield servers
    for server in reversed(servers):  # the fast one has no tasks that closing the other would wait for
        io_loop.run_sync(partial(Server.close, server), timeout=10)


@pytest.fixture(autouse=True)
def _same_jitter(monkeypatch):
    """Retries of both fronts come after the same time."""
    monkeypatch.setattr(random, "random", lambda: 0.5)


# -- making up requests -----------------------------------------------------------------------------


class Made(NamedTuple):
    """One request. `{lease:N}` in it stands for the Nth lease that a server gave."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    chunked: bool = False

    def data(self, leases: list[str]) -> bytes:
        body = _with_leases(self.body, leases)
        headers = [*self.headers]
        if self.chunked:
            headers.append(("Transfer-Encoding", " chunked"))
            half = len(body) // 2
            pieces = [piece for piece in (body[:half], body[half:]) if piece]
            sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        else:
            sent = body
            if body or self.method == "POST":
                headers.append(("Content-Length", f" {len(body)}"))
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}:{value}" for name, value in headers)]
        return _with_leases("\r\n".join(lines).encode("latin-1"), leases) + b"\r\n\r\n" + sent


def _with_leases(text: bytes, leases: list[str]) -> bytes:
    def token(found: re.Match[bytes]) -> bytes:
        number = int(found[1])
        return leases[number % len(leases)].encode() if leases else b"none-yet"

    return re.sub(rb"\{lease:(\d+)\}", token, text)


def words(text: str) -> list[str]:
    return text.split()


# The parts of requests. `LEASE` becomes one of the leases given so far.
_IDS = [*map(str, range(1, 30)), "0", "007", "9" * 16, "9" * 17, "x", "-1", "1.0", "%31", "%2F", ""]
_NAMES = ["default", "a", "b", "a.b:c-d", "_", "a" * 128, "a" * 129, "-a", "a%20b", "%C3%A9", "%ff"]
_USUAL = [
    *["POST /jobs/enqueue"] * 3, *["POST /jobs/dequeue"] * 2, *["POST /jobs/ID/conclude"] * 2,
    "POST /jobs/ID/heartbeat", "GET /jobs/ID", "DELETE /jobs/ID", "GET /queues", "GET /queues/NAME",
    "GET /healthz", "GET /readyz", "GET /help", "GET /", "GET /stats",
    "POST /queues/NAME/enqueue", "POST /queues/NAME/dequeue", "GET /jobs/ID/explain", "GET /worker.sh",
]  # fmt: skip
_METHODS = words("GET POST PUT PATCH DELETE HEAD HEAD OPTIONS TRACE PURGE")
_PATHS = words("""
    /jobs/enqueue /jobs/dequeue /jobs/ID /jobs/ID/conclude /jobs/ID/nothing /jobs /jobs/ /jobs//conclude
    /jobs/ID/conclude/ //jobs/1 /nothing /queues/ /queues/a/b /queues/NAME /healthz /healthz/ /%68ealthz
    /HEALTHZ /.. /jobs/../healthz /jobs/enqueue/ /ODD
""")
_OPTIONS = words("""
    lease=LEASE lease=LEASE Lease=none lease=a%20b consumer=me consumer=you consumer=%00 wait=0 wait=0s
    wait=2 wait=61 wait=-1 wait=x lease_for=30s lease_for=1ms count=2 count=0 count=9 count= queue=a queue=b
    queue=%2e queues=a,b queues= type=x type= type=%C3%A9 type=%ff TYPE=x priority=5 priority=-5
    priority=1.0 raw=1 raw=1 raw=0 next=1 next=1 payload=1 nothing=1 typ=x a+b=c = =x x % %zz=1 ODD
""")
_HEADERS = [tuple(line.strip().split(":", 1)) for line in """
    Content-Encoding: identity
    Content-Encoding:
    Connection: keep-alive
    Content-Type: application/x-ndjson
    content-type: application/jsonl; x=y
    Content-Type: application/x-www-form-urlencoded
    Content-Type: multipart/form-data
    Content-Type: application/json
    Content-Type: image/png
    Content-Type: text/csv; charset=utf-8
    Prefer: wait=0
    Prefer: respond-async, wait=2
    Prefer: wait=x
    Job-Lease: LEASE
    Job-Lease: !
    job-lease:
    Queue-Consumer: me
    queue-consumer: you
    X-Queue-Consumer: me
    QUEUE_CONSUMER: me
    Queue-Consumer: café
    Queue-Consumer:
    Accept: text/plain
    Origin: http://localhost
    Origin: http://evil
    Origin: null
    Sec-Fetch-Site: none
    Sec-Fetch-Site: cross-site
    Sec-Fetch-Mode: cors
    Via: 1.1 x
    X-Forwarded-For: 1
    X-Request-Id: mine
    X-Request-Id: not mine!
    X-Empty:
    Cookie: a=b; c
    If-None-Match: *
    Range: bytes=0-1
    TE: trailers
    X-Http-Method-Override: DELETE
    !#$%&'*+-.^_`|~: odd name
""".strip().splitlines()]  # fmt: skip
# After a request with one of these, one of the fronts ends the connection.
_LAST = [("Content-Encoding", " gzip"), ("Connection", " close"), ("Expect", " 100-continue")]
_SPACES = ["", " ", " ", " ", " ", "  ", "\t", " \t"]
_BODIES = [
    b"", b" ", b"{", b"[]", b"null", b"1", b'"x"', b"{}{}", b"{} x", b"{}\n{}\n", b"\xff", b"\xef\xbb\xbf{}",
    b"NaN", b"&a=b", b"a" * 5000, b'{"type":"' + b"x" * 5000 + b'"}', b"[" * 100, b'{"a":' * 100, b"\0",
    b'{"type":"x","payload":"\xff"}', b'{"type":"x","payload":NaN}', b'{"type":"\\ud800"}',
    b'{"type":"x","type":"y"}', b'{"type":"x","payload":' + b"[" * 70 + b"]" * 70 + b"}",
]  # fmt: skip
_FIELDS: dict[str, list[tuple[str, Any]]] = {
    "enqueue": [
        ("type", "x"), ("type", "é"), ("queue", "a"), ("queue", "b"), ("priority", -1), ("priority", 2),
        ("id", 7), ("payload", {"n": 1, "text": "line\nbreak é"}), ("payload", None), ("status", "dead"),
        ("consumer", 5),
    ],
    "dequeue": [
        ("queue", "a"), ("queues", ["a", "b", "default"]), ("queues", "b,a"), ("wait", 0), ("wait", "1s"),
        ("lease_for", "10s"), ("lease_for", 5), ("count", 1), ("count", 3), ("consumer", "me"),
    ],
    "conclude": [
        ("lease", "LEASE"), ("lease", "LEASE"), ("consumer", "me"), ("result", {"a": [1, 2.5]}),
        ("result", None), ("result", "x" * 2000),
    ],
    "heartbeat": [("lease", "LEASE"), ("lease", "LEASE"), ("consumer", "me"), ("lease_for", "90s")],
}  # fmt: skip
_ODD_FIELDS = words("type queue priority wait count lease nothing Type lease_for")
_ODD_VALUES = [None, 5, 5.0, -1, 2**40, "5", "", "x", [], ["a"], {}, True]


class Maker:
    """Makes up requests, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.some = self.random.choice

    def odds(self, chance: float) -> bool:
        return self.random.random() < chance

    def request(self, plain: bool = False) -> Made:
        """`plain`: a request after which neither front ends the connection."""
        method, path = self.some(_USUAL).split()
        if self.odds(0.25):
            method, path = self.some(_METHODS), self.some(_PATHS)
        if plain and method in ("TRACE", "PURGE"):
            method = "GET"
        body = b""
        if method not in ("TRACE", "PURGE") and (method not in ("GET", "HEAD", "DELETE") or self.odds(0.1)):
            body = self.fill(self.body(path))[: 4000 if plain else None]
        target = self.fill((path + self.query()).encode("latin-1")).decode("latin-1")
        if self.odds(0.03):
            target = self.some(["http://localhost", "http://elsewhere:1", "HTTPS://a.b"]) + target
        headers = [("Host", " " + self.some(["localhost", "localhost:8080", "[::1]:80", "EXAMPLE.org", ""]))]
        if self.odds(0.9):
            headers.append(("X-Request-Id", f" r{self.random.randrange(10)}"))
        for _ in range(self.some([0, 0, 0, 1, 1, 2, 3])):
            name, value = self.some([*_HEADERS, *([] if plain else _LAST)])
            if name != "Content-Encoding" or name not in dict(headers):
                value = self.fill(value.strip().encode("latin-1")).decode("latin-1")
                headers.append((name, self.some(_SPACES) + value + self.some(_SPACES)))
        self.random.shuffle(headers)
        return Made(method, target, tuple(headers), body, bool(body) and self.odds(0.2))

    def fill(self, text: bytes) -> bytes:
        """Replaces each word in capitals with something random."""
        draw: dict[bytes, Callable[[], str]] = {
            b"ID": lambda: self.some(_IDS),
            b"NAME": lambda: self.some(_NAMES),
            b"ODD": lambda: "".join(self.random.choices(_TARGET, k=6)),
            b"LEASE": lambda: "{lease:%d}" % self.random.randrange(20),  # braces
        }
        return re.sub(rb"(?<![A-Za-z-])(ID|NAME|ODD|LEASE)\b", lambda word: draw[word[0]]().encode(), text)

    def query(self) -> str:
        if self.odds(0.6):
            return self.some(["", "", "", "?", "?&", "??"])
        return "?" + "&".join(self.random.choices(_OPTIONS, k=self.some([1, 1, 1, 2, 3])))

    def body(self, path: str) -> bytes:
        if self.odds(0.1):
            return self.some(_BODIES)
        if "enqueue" in path and self.odds(0.2):
            texts = [json.dumps(self.fields(path)) for _ in range(self.random.randrange(7))]
            return self.some(["[" + ",".join(texts) + "]", "\n".join(texts), " ".join(texts)]).encode()
        text = json.dumps(self.fields(path), ensure_ascii=self.odds(0.5), indent=self.some([None, None, 2]))
        return text.replace("\n", self.some(["\n", "\r\n"])).encode()

    def fields(self, path: str) -> dict[str, Any]:
        pairs = next((pairs for name, pairs in _FIELDS.items() if name in path), [("x", 1)])
        found = dict(self.random.sample(pairs, self.random.randrange(len(pairs))))
        if "enqueue" in path and self.odds(0.9):
            found.setdefault("type", "x")
        if self.odds(0.15):
            found[self.some(_ODD_FIELDS)] = self.some(_ODD_VALUES)
        return found


# -- sending them to both ---------------------------------------------------------------------------


class Side:
    """One of the two servers, the connection to it, and the leases that it gave."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.leases: list[str] = []
        self._client: Client | None = None

    async def rehearse(self, made: Made) -> None:
        """Sends a harmless request with the same headers and body, so that the fast front has this head in its
        cache."""
        client = await self.server.connect()
        client.send(b"GET /healthz HTTP/1.1\r\n" + made.data(self.leases).partition(b"\r\n")[2])
        await client.read()
        client.close()

    async def exchange(self, made: list[Made], cuts: list[int]) -> list[dict[str, Any]]:
        """Sends all requests at once, in pieces that end at `cuts`. Returns their answers in comparable form."""
        client = self._client or await self.server.connect()
        self._client = None
        data = b"".join(one.data(self.leases) for one in made)
        start = 0
        for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
            client.send(data[start:cut])
            start = cut
            await asyncio.sleep(0)
        answers: list[dict[str, Any]] = []
        ended = False
        for one in made:
            reading = asyncio.ensure_future(client.read(one.method))
            reading.add_done_callback(lambda done: done.exception())  # it is raised where it is awaited
            await until(
                lambda reading=reading: (
                    reading.done()
                    or self.server.engine.stats().consumers_waiting
                    or self.server.engine._queue.state.outcomes.count
                )
            )
            if not reading.done():
                self.server.clock.advance("3s")
                self.server.engine.tick()
            answer = await asyncio.wait_for(reading, 5)
            answers.append(self.comparable(one, answer))
            ended = answer.headers.get("connection") == "close"
        if not ended:
            self._client = client
        return answers

    def comparable(self, made: Made, answer: Answer) -> dict[str, Any]:
        text = answer.body.decode(errors="backslashreplace")
        headers = {
            name: value for name, value in answer.headers.items() if name not in ("date", "connection")
        }
        for token in [*re.findall(r'"lease":"([^"]+)"', text), headers.get("job-lease")]:
            if token and token not in self.leases:
                self.leases.append(token)
        for number, token in enumerate(self.leases):
            text = text.replace(token, f"<lease {number}>")
            headers = {name: value.replace(token, f"<lease {number}>") for name, value in headers.items()}
        id = headers.pop("x-request-id")
        sent = [value.strip() for name, value in made.headers if name == "X-Request-Id"]
        if sent == [id]:
            text = text.replace(id, "<its own>")
        else:
            assert re.fullmatch(r"[0-9a-f]{8}-\d+", id), (id, sent)
            text = text.replace(id, "<a new one>")
            headers.pop("content-length", None)
        if '"uptime"' in text:
            headers.pop("content-length", None)
            text = str(sorted(json.loads(text)))
        if made.method == "HEAD" and "/stats" in made.target:
            headers.pop("content-length", None)
        return {"status": answer.status, "reason": answer.reason, "headers": headers, "body": text}


@pytest.mark.parametrize("seed", SEEDS)
async def test_well_formed_requests_get_equal_answers(both: Both, seed: int):
    maker = Maker(seed)
    fast, tornado = Side(both.fast), Side(both.tornado)
    statuses: Counter[int] = Counter()
    for number in range(REQUESTS):
        many = maker.odds(0.15)
        made = [maker.request(plain=many) for _ in range(maker.random.randrange(2, 6) if many else 1)]
        cuts = [maker.random.randrange(10**6) for _ in range(maker.some([0, 0, 1, 4]))]
        try:
            if not many and maker.odds(0.5):
                cuts = []
                await fast.rehearse(*made)
                await tornado.rehearse(*made)
            seen = await fast.exchange(made, cuts), await tornado.exchange(made, cuts)
        except Exception as failed:
            pytest.fail(f"seed {seed}, request {number}: {made}: {failed!r}")
        assert seen[0] == seen[1], f"seed {seed}, request {number}: {made}"
        statuses.update(answer["status"] for answer in seen[0])
        if maker.odds(0.1):
            pause = maker.some(["1s", "30s", "61s"])
            for server in both:
                server.clock.advance(pause)
                server.engine.tick()
        assert both.fast.engine.stats().jobs == both.tornado.engine.stats().jobs
    assert {200, 201, 400, 404} <= statuses.keys(), statuses
    assert 500 not in statuses


# -- breaking them ----------------------------------------------------------------------------------

# Harmless requests: whatever they become, both queues stay as they are.
_HARMLESS = (
    b"GET /queues/a HTTP/1.1\r\nHost: a\r\nX-Request-Id: one\r\nAccept: */*\r\n\r\n",
    b"POST /jobs/dequeue HTTP/1.1\r\nHost: a\r\nX-Request-Id: one\r\nContent-Length: 13\r\n\r\n"
    b'{"queue":"a"}',
    b"POST /jobs/5/heartbeat HTTP/1.1\r\nHost: a\r\nX-Request-Id: one\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\nX-Request-Id: one\r\nConnection: keep-alive\r\n\r\n",
    b"POST /jobs/5/conclude?lease=a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    b"X-Request-Id: one\r\nContent-Length: 2\r\n\r\n{}",
)  # fmt: skip
_BEHIND = b"GET /queues/behind HTTP/1.1\r\nHost: a\r\nX-Request-Id: two\r\nConnection: close\r\n\r\n"
_PIECES = (
    b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b"\x80", b"\xff", b";", b",", b"0", b"1", b"\x7f",
    b"\x0b", b"Content-Length: 2\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"Transfer-Encoding: identity\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b" x: y\r\n",
    b"Content-Length: 0\r\n", b"HTTP/1.1", b"chunked, ", b"Upgrade: x\r\n", b"\r\n\r\n", b"X:\r\n",
)  # fmt: skip


def broken(maker: Maker) -> bytes:
    """A request with one or two places changed."""
    if maker.odds(0.1):
        return maker.some([*BROKEN, *LENIENT]).data.replace(b"/jobs/enqueue", b"/jobs/5/conclude")
    data = bytearray(maker.some(_HARMLESS))
    for _ in range(maker.some([1, 1, 2])):
        # Most mistakes of parsers are about the ends of lines.
        edges = [found.start() for found in re.finditer(rb"\r\n", data)]
        at = maker.some([maker.random.randrange(len(data)), maker.some(edges), maker.some(edges) + 2])
        length, piece = maker.some([(1, b""), (1, maker.some(_PIECES)), (0, maker.some(_PIECES))])
        data[at : at + length] = piece
    return bytes(data)


class Story(NamedTuple):
    """The answers of a server to a broken request and a good one after it. `refused`: it answered 400 and closed,
    closed without an answer, or waits for more."""

    answers: list[tuple[int, str]]
    refused: str


async def stories(server: Server, many: list[bytes]) -> list[Story]:
    """Sends all at once, each on a connection of its own."""
    tasks = []
    for data in many:
        client = await server.connect()
        client.send(data + _BEHIND)
        tasks.append(asyncio.ensure_future(_story(client, data)))
    # A server that has answered others for a while and not this one waits for more bytes.
    quiet = 0
    while quiet < 10 and not all(task.done() for task in tasks):
        before = sum(task.done() for task in tasks)
        await server.get("/healthz")
        quiet = quiet + 1 if sum(task.done() for task in tasks) == before else 0
    for task in tasks:
        task.cancel()
    return [await task for task in tasks]


async def _story(client: Client, data: bytes) -> Story:
    answers: list[tuple[int, str]] = []
    method = data.lstrip().split(b" ")[0].decode("latin-1")
    try:
        for _ in range(3):
            answer = await client.read(method)
            framing = answer.status in (400, 431) and b'"code"' not in answer.body
            if (
                framing
                or b'"code":"bad_request"' in answer.body
                or b'"code":"headers_too_large"' in answer.body
            ):
                return Story(answers, "goes on" if await client.rest() else "refuses")
            body = re.sub(
                r'"request_id":"[0-9a-f]{8}-\d+"', '"request_id":"new"', answer.body.decode("latin-1")
            )
            answers.append((answer.status, body))
            method = "GET"
    except asyncio.CancelledError:
        return Story(answers, "waits")
    except (IncompleteReadError, ConnectionError):
        return Story(answers, "" if answers and '"behind"' in answers[-1][1] else "closes")
    finally:
        client.reset()
    return Story(answers, "goes on")


def _head(data: bytes) -> bytes:
    return re.split(rb"\r\n\r\n|\n\n|\n\r\n", data.lstrip(b"\r\n"))[0]


def _line(data: bytes) -> bytes:
    return _head(data).split(b"\n")[0].rstrip(b"\r")


# Requests that Tornado's front performs and the fast one refuses.
TORNADO_ONLY: dict[str, Callable[[bytes], object]] = {
    "a lone LF ends a line": lambda data: re.search(rb"(?<!\r)\n", data),
    "a CR too many": lambda data: b"\r\r\n" in data,
    "a length of more than 64 bits": lambda data: re.search(rb": *\d{20}", data),
    "the same length twice": lambda data: len(re.findall(rb"(?i)content-length|\d, *\d", data)) > 1,
    "chunked in HTTP/1.0": lambda data: b"HTTP/1.0" in data and b"ransfer" in data,
    "any minor version": lambda data: re.search(rb"HTTP/1\.[2-9]", _line(data)),
    "any token is a method": lambda data: (
        not re.match(rb"(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) ", _line(data))
    ),
    "any byte above 32 in a target": lambda data: re.search(rb" [^ ]*[^!-~][^ ]* HTTP", _line(data)),
    "a target without a slash": lambda data: not re.match(rb"[A-Z]+ /", _line(data)),
    "lines behind the last chunk": lambda data: b"chunked" in data,
    "Connection: close only when alone": lambda data: b"close" in data,
    "upgrade": lambda data: b"pgrade" in data,
}
# Requests that the fast front performs and Tornado's refuses.
FAST_ONLY: dict[str, Callable[[bytes], object]] = {
    "empty lines before a request": lambda data: data[:1] in b"\r\n" or re.search(rb"\n\r?\n[\r\n]", data),
    "keep-alive among other options, in HTTP/1.0": lambda data: re.search(rb"1\.0\r\n(.*\n)*Conn.*,", data),
    "spaces in the request line": lambda data: b"  " in _line(data),
    "another protocol's name": lambda data: b"RTSP/1." in _line(data),
    "extensions of a chunk": lambda data: b"chunked" in data and b";" in data,
    "trailers": lambda data: b"chunked" in data and re.search(rb"\r\n0+\r\n.*:", data, re.DOTALL),
}


def _named(ways: dict[str, Callable[[bytes], object]], data: bytes) -> str | None:
    return next((name for name, holds in ways.items() if holds(data)), None)


@pytest.mark.parametrize("seed", SEEDS)
async def test_broken_requests_are_refused_by_both_or_differ_as_documented(both: Both, seed: int):
    maker = Maker(seed + 1000)
    outcomes: Counter[str] = Counter()
    made = [broken(maker) for _ in range(REQUESTS)]
    for start in range(0, REQUESTS, 100):
        some = made[start : start + 100]
        told = [await stories(server, some) for server in both]
        for data, fast, tornado in zip(some, *told, strict=True):
            common = min(len(fast.answers), len(tornado.answers))
            what = f"seed {seed}: {data!r}\nfast {fast}\ntornado {tornado}"
            assert fast.refused in ("", "refuses", "waits", "closes"), what
            assert fast.answers[:common] == tornado.answers[:common], what
            if fast == tornado or (fast.refused and tornado.refused and fast.answers == tornado.answers):
                outcomes["alike"] += 1
            elif len(tornado.answers) > common:
                assert fast.refused in ("refuses", "closes"), what
                way = _named(TORNADO_ONLY, data) or (
                    # The rest of the second request, if the first took a part of it.
                    "any token is a method" if tornado.answers[common][0] in (404, 405) else None
                )
                assert way, what
                outcomes[f"Tornado: {way}"] += 1
            else:
                way = _named(FAST_ONLY, data)
                assert way, what
                outcomes[f"fast: {way}"] += 1
    for server in both:
        assert not any(server.engine.stats().jobs.values())
    assert outcomes["alike"] > REQUESTS // 2, outcomes
