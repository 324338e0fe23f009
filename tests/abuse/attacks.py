"""The attacks. Each does what an attacker would do, and checks what must hold for it. The harness checks the rest: a
second client's p99, memory, size of the log, no traceback, and that the server stops."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from shlex import quote

from http_client import Client, request
from manners import BROKEN

from tests.abuse.harness import Attack, Check, Target
from tests.abuse.markup import scripts_in_fields

_SLOW = {"HEAD_TIMEOUT": "2s", "BODY_TIMEOUT": "2s", "IDLE_TIMEOUT": "1m", "WRITE_TIMEOUT": "2s"}
_HOST = b"Host: localhost\r\n"


def _all_of(found: int, count: int, must: str) -> list[Check]:
    return [Check(must, f"{found:,} of {count:,}", found == count)]


# -- slow -------------------------------------------------------------------------------------------


def _send_to_open(clients: Sequence[Client], data: bytes) -> None:
    """Sends `data` over the connections that the server has not ended."""
    for client in clients:
        if not client._writer.is_closing():
            with suppress(ConnectionError):
                client.send(data)


async def slowloris(target: Target, scale: float) -> list[Check]:
    """Sends heads a byte at a time."""
    clients = await target.many(max(int(1000 * scale), 20))

    async def drip() -> None:
        for byte in b"GET /healthz HTTP/1.1\r\nX-A: " + b"a" * 100:
            _send_to_open(clients, bytes([byte]))
            await asyncio.sleep(0.2)

    dripping = asyncio.ensure_future(drip())
    closed = await target.until_closed(clients, 10)
    dripping.cancel()
    return _all_of(closed, len(clients), "all are cut off within 10 s (JOBQUEUE_HEAD_TIMEOUT=2s)")


async def slow_body(target: Target, scale: float) -> list[Check]:
    """Sends bodies a byte at a time."""
    clients = await target.many(max(int(1000 * scale), 20))
    for client in clients:
        client.send(b"POST /jobs/enqueue HTTP/1.1\r\n" + _HOST + b"Content-Length: 100000\r\n\r\n{")

    async def drip() -> None:
        for _ in range(60):
            _send_to_open(clients, b" ")
            await asyncio.sleep(0.2)

    dripping = asyncio.ensure_future(drip())
    closed = await target.until_closed(clients, 10)
    dripping.cancel()
    return _all_of(closed, len(clients), "all are cut off within 10 s (JOBQUEUE_BODY_TIMEOUT=2s)")


async def slow_reader(target: Target, scale: float) -> list[Check]:
    """Requests megabytes again and again, and reads nothing."""
    for _ in range(8):
        await target.call("POST", "/jobs/enqueue", {"type": "x", "queue": "big", "payload": "y" * 500_000})
    count = max(int(50 * scale), 4)
    asked = request("GET", "/jobs?queue=big&payload=1") * 50
    peak = 0.0
    with ExitStack() as open_:
        for _ in range(count):
            reader = open_.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", target.port))
            reader.setblocking(False)
            with suppress(BlockingIOError):
                reader.send(asked)
        end = time.monotonic() + 15
        left = count
        while left and time.monotonic() < end:
            await asyncio.sleep(0.2)
            peak = max(peak, target.rss())
            # The others are the second client's connection, and the one of this request.
            left = max((await target.stats())["connections"] - 2, 0)
    return [
        *_all_of(count - left, count, "all are cut off within 15 s (JOBQUEUE_WRITE_TIMEOUT=2s)"),
        Check("memory meanwhile ≤ 600 MiB", f"{peak:.0f} MiB", peak <= 600),
    ]


async def unfinished_bodies(target: Target, scale: float) -> list[Check]:
    """Sends bodies but for their last byte, also of imports."""
    large = b"x" * ((1 << 20) - 1)
    enqueue = b"POST /jobs/enqueue HTTP/1.1\r\n" + _HOST + b"Content-Length: 1048576\r\n\r\n" + large
    upload = b"PUT /import HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n" + large
    before = peak = target.rss()
    count = max(int(300 * scale), 10)
    for number in range(count):
        client = await target.connect()
        client.send(upload if number % 2 else enqueue)
        with suppress(ConnectionError):
            await client._writer.drain()
        peak = max(peak, target.rss())
    small = await target.call("POST", "/jobs/enqueue", {"type": "x"})
    target.hang_up()
    return [
        Check(
            "memory grows by ≤ 100 MiB (MEMORY_LIMIT=150MiB)",
            f"{peak - before:.0f} MiB",
            peak - before <= 100,
        ),
        Check("a small body is taken meanwhile", str(small.status), small.status == 201),
    ]


async def unread_lists(target: Target, scale: float) -> list[Check]:
    """Requests jobs with their payloads, 100 MB if scale is 1, and reads nothing."""
    for _ in range(max(int(100 * scale), 5)):
        await target.call("POST", "/jobs/enqueue", {"type": "x", "queue": "big", "payload": "y" * 1_000_000})
    before = peak = target.rss()
    paths = ("/jobs?payload=1&limit=1000", "/queues/big/peek?payload=1&limit=1000", "/queues/big/export")
    with ExitStack() as open_:
        for number in range(max(int(100 * scale), 10)):
            reader = open_.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", target.port))
            reader.sendall(request("GET", paths[number % 3]))
            await target.call("GET", "/healthz")
            peak = max(peak, target.rss())
        healthy = (await target.call("GET", "/healthz")).status
    return [
        Check(
            "memory grows by ≤ 200 MiB (MEMORY_LIMIT=400MiB)",
            f"{peak - before:.0f} MiB",
            peak - before <= 200,
        ),
        Check("others are served meanwhile", str(healthy), healthy == 200),
    ]


async def idle_long_polls(target: Target, scale: float) -> list[Check]:
    """Waits for jobs that never come."""
    count = max(int(10_000 * scale), 100)
    before = target.rss()
    clients = []
    for _ in range(count // 50):
        clients += await target.many(50)
        for client in clients[-50:]:
            client.ask("POST", "/jobs/dequeue?queue=never&wait=60")
    for _ in range(200):
        if (await target.stats())["consumers_waiting"] >= count:
            break
        await asyncio.sleep(0.1)
    waiting = (await target.stats())["consumers_waiting"]
    each = (target.rss() - before) * 1024 / count
    await asyncio.sleep(3 * scale)
    return [
        *_all_of(min(waiting, count), count, "all of them wait"),
        Check("each costs ≤ 32 KiB", f"{each:.1f} KiB", each <= 32 or count < 1000),
    ]


async def descriptors(target: Target, scale: float) -> list[Check]:
    """Opens more connections than there are descriptors, and closes them."""
    clients = []
    for _ in range(300):
        with suppress(OSError):
            clients.append(await target.connect())
    await asyncio.sleep(0.5)
    before = target.program.cpu_seconds()
    await asyncio.sleep(1)
    spent = target.program.cpu_seconds() - before
    target.hang_up()
    for _ in range(50):
        with suppress(OSError, AssertionError, asyncio.IncompleteReadError):
            if (await target.call("GET", "/healthz")).status == 200:
                break
        await asyncio.sleep(0.1)
    answer = await target.call("GET", "/healthz")
    return [
        Check("no spinning meanwhile: ≤ 0.5 s of CPU a second", f"{spent:.2f} s", spent <= 0.5),
        Check("it takes connections again", str(answer.status), answer.status == 200),
    ]


# -- malformed --------------------------------------------------------------------------------------


async def framing(target: Target, scale: float) -> list[Check]:
    """Sends requests that two parsers might read in two ways. Tornado accepts some of them, in the way that the
    `note` of the vector calls harmless; the bytes after those are a request."""
    refuses_all = target.front == "fast"
    vectors = [each for each in BROKEN if refuses_all or (each.tornado == "400" and not each.note)]
    refused = smuggled = 0
    for vector in vectors:
        said = await target.send(vector.data + request("POST", "/jobs/enqueue", {"type": "smuggled"}))
        refused += said[:12] == b"HTTP/1.1 400"
        smuggled += said.count(b"HTTP/1.1 201") > 0
    jobs = (await target.call("GET", "/jobs?type=smuggled")).json["jobs"]
    return [
        *_all_of(refused, len(vectors), "all are refused with 400"),
        Check(
            "nothing behind them is performed",
            f"{len(jobs)} jobs, {smuggled} answers",
            not jobs and not smuggled,
        ),
    ]


async def header_floods(target: Target, scale: float) -> list[Check]:
    """Sends heads of megabytes: one long header, and very many."""
    good = 0
    floods = [
        b"X: " + b"a" * 5_000_000, b"X: a\r\n" * 500_000, b"".join(b"X-%d: a\r\n" % n for n in range(300_000)),
        b"Cookie: " + b"a=b; " * 400_000,
    ] * max(int(10 * scale), 1)  # fmt: skip
    for flood in floods:
        said = await target.send(b"GET /healthz HTTP/1.1\r\n" + _HOST + flood)
        good += said[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"")
    return _all_of(good, len(floods), "all are refused, or cut off")


async def tiny_chunks(target: Target, scale: float) -> list[Check]:
    """Sends bodies in chunks of one byte, and an endless one in large chunks. Tornado's front reads 16 times the
    limit before it refuses that."""
    count = max(int(40 * scale), 4)
    size = 20_000
    body = b'{"type":"x","payload":"' + b"a" * size + b'"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = b"POST /jobs/enqueue HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    made = sum([(await target.send(head + chunks))[:12] == b"HTTP/1.1 201" for _ in range(count)])
    endless = head + (b"10000\r\n" + b"a" * 65536 + b"\r\n") * 700
    said = await target.send(endless, 20)
    return [
        *_all_of(made, count, "they are understood"),
        Check("more than the limit is refused", said[:12].decode(), said[:12] in (b"HTTP/1.1 413", b"")),
    ]


async def lengths(target: Target, scale: float) -> list[Check]:
    """Sends giant and false lengths."""

    def post(length: bytes, body: bytes) -> bytes:
        return b"POST /jobs/enqueue HTTP/1.1\r\n" + _HOST + b"Content-Length: " + length + b"\r\n\r\n" + body

    giant = [await target.send(post(length, b"{")) for length in (b"10000000000", b"9" * 18)]
    long = await target.send(
        post(b"5000", b"{}"), 1
    )  # longer than what follows: the server waits, then cuts it off
    short = await target.send(post(b"4", b'{"type":"x"}GET / HTTP/1.1\r\n\r\n'))
    many = [await target.send(post(b"4000000", b"x" * 4_000_000)) for _ in range(max(int(20 * scale), 2))]
    jobs = (await target.call("GET", "/jobs/count?queue=default")).json["count"]
    good = all(said[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 400", b"") for said in (*giant, *many))
    return [
        Check("giant ones are refused", giant[0][:12].decode(), good),
        Check("what is missing is waited for", long.decode()[:12], long == b"nothing"),
        Check("what is left over is no request", short[:12].decode(), short[:12] == b"HTTP/1.1 400"),
        Check("nothing is put in", str(jobs), jobs == 0),
    ]


async def compression_bombs(target: Target, scale: float) -> list[Check]:
    """Sends bodies that would be a gigabyte if the server unpacked them."""
    import gzip

    bomb = gzip.compress(b"0" * 50_000_000)
    count = max(int(50 * scale), 5)
    refused = 0
    for coding in ["gzip", "deflate", "br", "gzip, gzip", "x-gzip"] * (count // 5):
        answer = await target.call("POST", "/jobs/enqueue", bomb, Content_Encoding=coding)
        refused += answer.status == 415
    return _all_of(refused, count // 5 * 5, "all are refused with 415")


async def odd_json(target: Target, scale: float) -> list[Check]:
    """Sends deep JSON, and text that is almost JSON."""
    odd: list[bytes] = [
        b"[" * 500_000, b'{"a":' * 100_000, b'{"type":"x","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type":"x","payload":' + b"[" * 65 + b"]" * 65 + b"}", b'{"type":"\\ud800"}', b'{"type":"x","payload":NaN}',
        b'{"type":"x","priority":1e400}', b'{"type":"x","priority":' + b"9" * 100_000 + b"}", b'\xff\xfe{"type":"x"}',
        b'{"type":"x","payload":"\xc3\x28"}', b"{" + b'"a":1,' * 100_000 + b'"type":"x"}', b'{"type":"x"}' * 1000,
        b'{"type":"' + b"x" * 900_000 + b'"}', b'[{"type":"x"}' + b',{"type":"x"}' * 1000 + b"]", b"\x00" * 1000,
        b'{"type":"x","type":"y","payload":{"a":1,"a":2}}', b'"' + b"\\u0000" * 100_000, b"1" * 900_000, b"nul",
        b'{"type":"x","delay":"' + b"9" * 1000 + b's"}', b'{"type":"x","tags":' + json.dumps(["t"] * 10_000).encode() + b"}",
    ]  # fmt: skip
    statuses = [(await target.call("POST", "/jobs/enqueue", body)).status for body in odd]
    bad = [status for status in statuses if status not in (201, 400, 413)]
    return [Check("each is 201, 400 or 413", f"{len(odd)} sent, else {bad or 'none'}", not bad)]


# -- much -------------------------------------------------------------------------------------------


async def queue_names(target: Target, scale: float) -> list[Check]:
    """Enqueues a job in each of very many queues, and waits at queues that do not exist."""
    refused = made = 0
    for start in range(0, int(1_000_000 * scale), 1000):
        jobs = [{"type": "x", "queue": f"q{number}"} for number in range(start, start + 1000)]
        answer = await target.call("POST", "/jobs/enqueue?atomic=false", jobs)
        made += answer.json["ok"]
        refused += answer.json["failed"]
        if refused and start % 100_000:
            continue
        await target.call("POST", "/jobs/dequeue", {"queues": [f"n{start + n}" for n in range(100)]})
        await target.call("GET", f"/queues/other{start}")
    stats = await target.stats()
    started = time.perf_counter()
    scrape = await target.call("GET", "/metrics")
    took = (time.perf_counter() - started) * 1000
    return [
        Check("no more than JOBQUEUE_MAX_QUEUES", f"{stats['queues']:,}", stats["queues"] <= 10_000),
        Check(
            "the others are refused with 429", f"{refused:,}", refused > 0 or int(1_000_000 * scale) <= 10_000
        ),
        Check(
            "/metrics ≤ 1 MiB",
            f"{len(scrape.body) / (1 << 20):.2f} MiB in {took:.0f} ms",
            len(scrape.body) <= 1 << 20,
        ),
    ]


async def memory(target: Target, scale: float) -> list[Check]:
    """Enqueues until the memory limit; then the queue is drained, and jobs are accepted again."""
    jobs = [{"type": "x", "queue": "flood", "payload": "y" * 50_000}] * 15
    statuses: dict[int, int] = {}
    peak = 0.0
    for _ in range(2000):
        status = (await target.call("POST", "/jobs/enqueue", jobs)).status
        statuses[status] = statuses.get(status, 0) + 1
        peak = max(peak, target.rss())
        if statuses.get(507, 0) >= max(int(300 * scale), 30):
            break
        if status == 507:
            await asyncio.sleep(0.002)
    queued = (await target.stats())["jobs"]["queued"]
    drained = 0
    while True:
        answer = await target.call("POST", "/jobs/dequeue?queue=flood&count=20")
        if answer.status != 200:
            break
        held = [{"id": job["id"], "lease": job["lease"]} for job in answer.json["jobs"]]
        drained += (await target.call("POST", "/jobs/conclude", held)).json["ok"]
    await asyncio.sleep(0.3)
    again = (await target.call("POST", "/jobs/enqueue", jobs)).status
    limit = 160
    return [
        Check("then 507, and nothing else", str(statuses), set(statuses) == {201, 507}),
        Check(f"memory ≤ {limit} MiB and a quarter", f"{peak:.0f} MiB", peak <= limit * 1.25),
        Check("what is in can be drained, all of it", f"{drained:,} of {queued:,}", drained == queued),
        Check("then it is taken in again", str(again), again == 201),
    ]


async def log_floods(target: Target, scale: float) -> list[Check]:
    """Sends as many 404s as possible, with line breaks and colours in the path."""
    client = await target.connect()
    many = request("GET", "/none%0a%1b[31m" + "x" * 150) * 100
    end = time.monotonic() + max(10 * scale, 1)
    sent = 0
    while time.monotonic() < end:
        client.send(many)
        for _ in range(100):
            await client.read()
        sent += 100
    lines = len(target.program.lines)
    most = 1200 * (max(10 * scale, 1) + 2)
    return [Check(f"≤ {most:,.0f} lines", f"{lines:,} lines of {sent:,} requests", lines <= most)]


async def unread_log(target: Target, scale: float) -> list[Check]:
    """Makes the server log while nobody reads its stderr; then somebody reads again."""
    target.program.read_log(False)
    answered = await _log_much(target, scale)
    lost = await _lost_lines(target)
    target.program.read_log(True)
    lines = target.program.lines
    for _ in range(1000):
        said = [line for line in list(lines) if line.endswith(" log lines were lost")]
        if said:
            break
        await asyncio.sleep(0.01)
    return [
        *answered,
        Check("lines are lost and counted", f"{lost:,.0f}", lost > 0),
        Check("a line says how many", said[0] if said else "none", bool(said)),
    ]


async def log_without_reader(target: Target, scale: float) -> list[Check]:
    """Closes the other end of the server's stderr, and makes it log."""
    target.program.drop_log()
    answered = await _log_much(target, scale)
    lost = await _lost_lines(target)
    return [*answered, Check("lines are lost and counted", f"{lost:,.0f}", lost > 0)]


async def _log_much(target: Target, scale: float) -> list[Check]:
    client = await target.connect()
    count = max(int(500 * scale), 60)
    found = 0
    for _ in range(count):
        client.send(request("GET", "/" + "y" * 190) * 100)
        for _ in range(100):
            found += (await client.read()).status == 404
    healthy = (await target.call("GET", "/healthz")).status
    return [*_all_of(found, count * 100, "all are answered"), Check("/healthz", str(healthy), healthy == 200)]


async def _lost_lines(target: Target) -> float:
    text = (await target.call("GET", "/metrics")).body.decode()
    return float(text.partition("\njobqueue_log_lines_lost_total ")[2].partition("\n")[0])


# -- browsers and guessed tokens --------------------------------------------------------------------------


async def cross_origin(target: Target, scale: float) -> list[Check]:
    """Sends what a foreign page makes a browser send."""
    refused = 0
    pages = [
        {"Origin": "http://evil.example", "Content_Type": "text/plain"},
        {"Origin": "null", "Content_Type": "application/x-www-form-urlencoded"},
        {"Sec_Fetch_Site": "cross-site", "Content_Type": "multipart/form-data; boundary=x"},
        {"Sec_Fetch_Site": "same-site"},
    ]
    for page in pages:
        for path in ("/jobs/enqueue", "/jobs/dequeue", "/queues/default/purge?all=true", "/jobs/1/conclude"):
            refused += (await target.call("POST", path, {"type": "x"}, **page)).status == 403
    jobs = (await target.stats())["jobs"]
    return [
        *_all_of(refused, len(pages) * 4, "all are refused with 403"),
        Check(
            "nothing is put in by it",
            "",
            (await target.call("GET", "/jobs/count?type=x")).json["count"] == 0 and bool(jobs),
        ),
    ]


async def rebinding(target: Target, scale: float) -> list[Check]:
    """Sends requests of a page whose host name resolves to this machine."""
    browser = {"User_Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/140", "Accept_Language": "en"}
    refused = 0
    paths = ["/jobs", "/queues", "/stats", "/", "/events", "/top", "/metrics", "/openapi.json"]
    for path in paths:
        refused += (
            await target.call("GET", path, Host=f"evil.example:{target.port}", **browser)
        ).status == 403
    own = await target.call("GET", "/jobs", Host=f"localhost:{target.port}", **browser)
    return [
        *_all_of(refused, len(paths), "all are refused with 403"),
        Check("by our own name it is answered", str(own.status), own.status == 200),
    ]


async def guessing(target: Target, scale: float) -> list[Check]:
    """Guesses tokens while a client with a valid one works."""
    good = {"Authorization": "Bearer one-token-for-everything"}
    assert (await target.call("GET", "/stats", **good)).status == 200
    started = time.monotonic()
    statuses: dict[int, int] = {}
    served = 0
    count = max(int(2000 * scale), 100)
    for number in range(count):
        status = (await target.call("GET", "/stats", Authorization=f"Bearer guess-{number}")).status
        statuses[status] = statuses.get(status, 0) + 1
        if number % 10 == 0:
            served += (await target.call("GET", "/stats", **good)).status == 200
    looked_at = statuses.get(401, 0)
    most = 11 + (time.monotonic() - started)
    return [
        Check(f"≤ 10 guesses and one a second are looked at: {most:.0f}", str(statuses), looked_at <= most),
        *_all_of(served, -(-count // 10), "the one with a good token is served"),
    ]


# -- consumers, and the end -------------------------------------------------------------------------


async def one_name(target: Target, scale: float) -> list[Check]:
    """Two consumers use the same name, and one is too slow."""
    count = max(int(200 * scale), 10)
    lost = stolen = done = 0
    for _ in range(count):
        await target.call("POST", "/jobs/enqueue", {"type": "x", "queue": "n"})
        wanted = {"queue": "n", "consumer": "worker", "lease_for": 3600}
        slow = (await target.call("POST", "/jobs/dequeue", wanted)).json
        released = await target.call("POST", f"/jobs/{slow['id']}/release?lease={slow['lease']}")
        assert released.status == 200
        quick = (await target.call("POST", "/jobs/dequeue", wanted)).json
        late = await target.call("POST", f"/jobs/{slow['id']}/conclude?lease={slow['lease']}&consumer=worker")
        lost += late.status == 409
        other = await target.call("POST", f"/jobs/{slow['id']}/conclude?consumer=somebody")
        stolen += other.status == 200
        done += (
            await target.call("POST", f"/jobs/{quick['id']}/conclude?lease={quick['lease']}")
        ).status == 200
    return [
        *_all_of(lost, count, "the slow one is told: lease_lost"),
        *_all_of(done, count, "the other one concludes"),
        Check("nobody of another name does", str(stolen), stolen == 0),
    ]


async def terminated(target: Target, scale: float) -> list[Check]:
    """SIGTERM while many clients enqueue."""
    acknowledged = 0

    async def put_in() -> None:
        nonlocal acknowledged
        client = await Client.connect(target.port)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                answer = await client.call("POST", "/jobs/enqueue", {"type": "x"})
                if answer.status != 201:
                    break
                acknowledged += 1
        client.close()

    storm = [asyncio.ensure_future(put_in()) for _ in range(20)]
    await asyncio.sleep(max(2 * scale, 0.5))
    started = time.monotonic()
    target.program.signal(signal.SIGTERM)
    await asyncio.wait(storm, timeout=10)
    status = await asyncio.to_thread(target.program.exit_status)
    took = time.monotonic() - started
    said = target.program.lines[-1]
    queued = int(said.partition("; ")[2].partition(" queued")[0].replace(",", "")) if "queued" in said else -1
    return [
        Check(
            "what was acknowledged was there",
            f"{acknowledged:,} acknowledged, {queued:,} at the end",
            queued == acknowledged,
        ),
        Check("it ends with 0 within 6 s", f"{status} after {took:.1f} s", status == 0 and took < 6),
    ]


_FEW_FILES = ("sh", "-c", f"ulimit -n 160; exec {quote(sys.executable)} -m jobqueue serve")
ATTACKS = (
    Attack("slowloris", slowloris, _SLOW),
    Attack("slow body", slow_body, _SLOW),
    Attack("slow reader", slow_reader, _SLOW),
    Attack("unfinished bodies", unfinished_bodies, {"MEMORY_LIMIT": "150MiB"}),
    Attack("unread lists", unread_lists, {"MEMORY_LIMIT": "400MiB"}, "drain"),
    Attack("idle long-polls", idle_long_polls, {"MAX_CONNECTIONS_BY_ADDRESS": "19000"}),
    Attack("descriptors used up", descriptors, {"MAX_CONNECTIONS_BY_ADDRESS": "100000"}, "", command=_FEW_FILES),
    Attack("framing", framing),
    Attack("header floods", header_floods),
    Attack("tiny chunks", tiny_chunks),
    Attack("lengths", lengths),
    Attack("compression bombs", compression_bombs),
    Attack("deep and odd JSON", odd_json),
    Attack("a million queue names", queue_names),
    Attack("memory", memory, {"MEMORY_LIMIT": "160MiB", "RETAIN_BYTES": "1MiB"}, "drain"),
    Attack("log floods", log_floods),
    Attack("log that nobody reads", unread_log, {"ACCESS_LOG": "all"}),
    Attack("log without a reader", log_without_reader, {"ACCESS_LOG": "all"}),
    Attack("cross-origin posts", cross_origin),
    Attack("rebinding", rebinding),
    Attack("token guessing", guessing, {"ACCESS_TOKEN": "one-token-for-everything"}, ""),
    Attack("scripts in fields", scripts_in_fields),
    Attack("two consumers, one name", one_name),
    Attack("SIGTERM in the middle", terminated, {}, "", ends_it=True),
)  # fmt: skip
