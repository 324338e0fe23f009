"""HTTP/1.1 as both fronts speak it: valid, odd and broken requests.

Prints a table of the outcomes at the end of the run, with `-v`, `-s`, or TEST_ALL=1.
"""

import asyncio
import os
from asyncio import IncompleteReadError
from collections import defaultdict

import pytest
from http_client import HANG_UPS, Answer, Client, request
from manners import (
    BROKEN,
    CHUNKED,
    CHUNKS,
    CLOSES,
    ENQUEUE,
    HOST,
    JOB,
    LENGTH,
    LENIENT,
    POST,
    WAITS,
    Vector,
)  # fmt: skip
from serving import Server, until

from jobqueue import Settings
from jobqueue.model import DequeueRequest

ALL = os.environ.get("TEST_ALL") == "1"
# Bytes of the largest body.
LONGEST = Settings().max_request
_table: defaultdict[str, dict[str, str]] = defaultdict(lambda: {"fast": "-", "tornado": "-"})
_table["on a connection"] = {"fast": "fast", "tornado": "tornado"}
_HEALTHZ = request("GET", "/healthz")


# -- the table --------------------------------------------------------------------------------------


class _Summary:
    """A plugin of this run that writes the table below the results."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("what each front does with requests of each kind")
        if not self._shown:
            terminalreporter.write_line(f"{len(_table)} kinds were tested; -v shows the table")
            return
        notes = {vector.title: vector.note for vector in (*BROKEN, *LENIENT)}
        first, second = (
            max(map(len, column)) for column in (_table, (row["fast"] for row in _table.values()))
        )
        # Valid requests first, then odd and broken ones.
        for name in sorted(_table, key=notes.__contains__):
            fast, tornado = _table[name]["fast"], _table[name]["tornado"]
            why = f" ({notes[name]})" if notes.get(name) and fast[:3] != tornado[:3] else ""
            terminalreporter.write_line(f"{name:{first}}  {fast:{second}}  {tornado}{why}")


@pytest.fixture(scope="session", autouse=True)
def _summary(pytestconfig: pytest.Config) -> None:
    shown = pytestconfig.get_verbosity() > 0 or pytestconfig.getoption("capture") == "no" or ALL
    pytestconfig.pluginmanager.register(_Summary(shown), "manners")


def note(server: Server, name: str, what: str) -> None:
    _table[name][server.front.name] = what


# -- what is shared ---------------------------------------------------------------------------------


async def answers(server: Server, data: bytes, *methods: str) -> list[Answer]:
    """Sends `data` in one piece, and reads an answer for each of `methods`."""
    client = await server.connect()
    client.send(data)
    return [await client.read(method) for method in methods]


async def line(client: Client) -> bytes:
    return await client._reader.readline()


def performed_so_far(server: Server) -> int:
    """Number of jobs enqueued since the last call. Empties the queue."""
    performed = 0
    while handed := server.engine.dequeue(DequeueRequest(("default",), 1000, 1000)):
        performed += len(handed)
    return performed


def untouched(server: Server) -> bool:
    stats = server.engine.stats()
    return not any(stats.jobs.values()) and not stats.consumers_waiting


def is_fast(server: Server) -> bool:
    return server.front.name == "fast"


def refused(answer: Answer, status: int, code: str) -> None:
    """Checks that `answer` is a problem document that ends the connection."""
    assert (answer.status, answer.code) == (status, code)
    assert answer.json["status"] == status
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"


# -- broken and ambiguous ---------------------------------------------------------------------------


async def _outcome(server: Server, vector: Vector, waits: bool) -> str:
    client = await server.connect()
    client.send(vector.data)
    try:
        answer = await asyncio.wait_for(client.read("POST"), 0.1 if waits else 5)
    except TimeoutError:
        return WAITS
    except (IncompleteReadError, ConnectionError):
        return CLOSES
    if answer.status == 400:
        if is_fast(server):
            refused(answer, 400, "bad_request")
        if answer.headers.get("connection") == "close" or not answer.headers:
            assert await client.rest() == b"", "something came after the refusal"
    return str(answer.status)


@pytest.mark.parametrize("group", list(dict.fromkeys(vector.group for vector in BROKEN)))
async def test_broken_and_ambiguous_requests_are_refused_and_not_performed(server: Server, group: str):
    fast = is_fast(server)
    wrong = []
    for vector in BROKEN:
        if vector.group != group:
            continue
        expected = "400" if fast else vector.tornado
        outcome = await _outcome(server, vector, waits=expected == WAITS)
        note(server, vector.title, f"{outcome} bad_request" if fast else outcome)
        performed = performed_so_far(server)
        if outcome != expected or performed != (outcome == "201"):
            wrong.append(f"{vector.title}: {outcome}, not {expected}; {performed} performed")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("server", ["fast"], indirect=True)
async def test_no_request_after_a_refused_one_is_performed(server: Server):
    for vector in BROKEN:
        client = await server.connect()
        client.send(vector.data + ENQUEUE)
        refused(await client.read(), 400, "bad_request")
        assert await client.rest() == b"", vector
        assert untouched(server), vector


@pytest.mark.parametrize("server", ["fast"], indirect=True)
async def test_a_broken_request_is_refused_however_its_bytes_are_cut(server: Server):
    for vector in BROKEN if ALL else BROKEN[::9]:
        client = await server.connect()
        try:
            for byte in vector.data:
                client.send(bytes([byte]))
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        refused(await client.read(), 400, "bad_request")
        assert untouched(server), vector


@pytest.mark.parametrize("server", ["fast"], indirect=True)
async def test_a_broken_request_after_a_good_one_is_refused_after_its_answer(server: Server):
    for vector in BROKEN:
        client = await server.connect()
        client.send(_HEALTHZ + vector.data)
        assert (await client.read()).status == 200
        refused(await client.read(), 400, "bad_request")
        assert untouched(server), vector


@pytest.mark.parametrize("server", ["fast"], indirect=True)
async def test_cached_heads_do_not_make_a_broken_request_good(server: Server):
    """A broken request that resembles a cached head stays broken."""
    client = await server.connect()
    for good in (
        b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
    ):
        client.send(good)
        assert (await client.read()).status == 200
    for broken in (
        b"GET /healthz HTTP/1.1\r\nConnection: keep-alive\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.2\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /healthz x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
    ):
        client = await server.connect()
        client.send(broken)
        refused(await client.read(), 400, "bad_request")
    client = await server.connect()
    client.send(b"POST /jobs/enqueue HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n" + JOB)
    assert (await client.read("POST")).status == 400  # `{"` is not JSON
    refused(await client.read(), 400, "bad_request")  # and the rest is not a request
    assert untouched(server)


async def test_odd_but_unambiguous_requests_are_accepted_by_the_fast_front_only(server: Server):
    expected = "201" if is_fast(server) else "400"
    for vector in LENIENT:
        outcome = await _outcome(server, vector, waits=False)
        note(server, vector.title, outcome)
        assert outcome == expected, vector
    assert performed_so_far(server) == (len(LENIENT) if is_fast(server) else 0)


# -- connections ------------------------------------------------------------------------------------


async def test_a_connection_is_kept(server: Server):
    client = await server.connect()
    for _ in range(3):
        answer = await client.call("GET", "/healthz")
        assert answer.status == 200
        assert "connection" not in answer.headers
    note(server, "keep-alive", "kept")


async def test_http_1_0_ends_the_connection(server: Server):
    client = await server.connect()
    client.send(ENQUEUE.replace(b"1.1", b"1.0") + ENQUEUE)
    answer = await client.read("POST")
    assert answer.status == 201
    assert await client.rest() == b""
    assert server.engine.stats().jobs["queued"] == 1
    note(server, "HTTP/1.0", "answered, closed")


async def test_http_1_0_needs_no_host(server: Server):
    assert (await answers(server, b"GET /healthz HTTP/1.0\r\n\r\n", "GET"))[0].status == 200


async def test_http_1_0_with_keep_alive_is_kept_open_and_the_answer_says_so(server: Server):
    client = await server.connect()
    for _ in range(3):
        client.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.read()
        assert answer.status == 200
        assert answer.headers["connection"].lower() == "keep-alive"
    note(server, "HTTP/1.0, Connection: keep-alive", "kept, and the answer says so")


@pytest.mark.parametrize("value", ["close", "Close", "CLOSE"])
async def test_connection_close_ends_the_connection_and_the_answer_says_so(server: Server, value: str):
    client = await server.connect()
    client.send(request("GET", "/healthz", headers={"Connection": value}) + ENQUEUE)
    answer = await client.read()
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert await client.rest() == b""
    assert untouched(server)
    note(server, "Connection: close", "closed; what follows is dropped")


@pytest.mark.parametrize(
    "behind", [ENQUEUE, POST + HOST + LENGTH + b"Expect: 100-continue\r\n\r\n", b"NO\r\n\r\n"]
)
async def test_nothing_follows_an_answer_that_says_close(server: Server, behind: bytes):
    for turns in range(10):
        client = await server.connect()
        client.send(request("GET", "/healthz", headers={"Connection": "close"}) + (b"" if turns else behind))
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns:
            client.send(behind)
        assert (await client.read()).status == 200
        assert await client.rest() == b""
        assert untouched(server)


async def test_close_among_other_connection_options_ends_the_connection(server: Server):
    client = await server.connect()
    client.send(request("GET", "/healthz", headers={"Connection": "keep-alive, close"}))
    answer = await client.read()
    if not is_fast(server):
        note(server, "Connection: keep-alive, close", "kept (it knows close when alone only)")
        assert "connection" not in answer.headers
    else:
        note(server, "Connection: keep-alive, close", "answered, closed")
        assert answer.headers["connection"] == "close"
        assert await client.rest() == b""


@pytest.mark.parametrize("lead", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
async def test_an_empty_line_before_a_request_is_skipped(server: Server, lead: bytes):
    client = await server.connect()
    client.send(lead + _HEALTHZ)
    assert (await client.read()).status == 200
    client.send(lead + _HEALTHZ)
    assert (await client.read()).status == 200
    note(server, "empty line before a request", "skipped")


async def test_two_empty_lines_before_a_request(server: Server):
    (answer,) = await answers(server, b"\r\n\r\n" + _HEALTHZ, "GET")
    note(server, "two empty lines before a request", "skipped" if answer.status == 200 else "400, closes")
    assert answer.status == (200 if is_fast(server) else 400)


# -- pipelining -------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(server: Server):
    """Also those for unknown paths."""
    paths = ["/healthz", "/nothing", "/jobs/7", "/nothing/at/all", "/", "/queues", "/jobs/x", "/nothing/"]
    client = await server.connect()
    sent = [(path, f"id-{n}") for n, path in enumerate(paths * 4)]
    client.send(b"".join(request("GET", path, headers={"X-Request-Id": id}) for path, id in sent))
    for path, id in sent:
        answer = await client.read()
        assert answer.headers["x-request-id"] == id
        assert answer.status == (200 if path in ("/healthz", "/", "/queues") else 404), path
    note(server, "pipelining", "answered in order")


async def test_requests_after_a_long_poll_are_answered_after_it(server: Server):
    client = await server.connect()
    waits = request("POST", "/jobs/dequeue?wait=30")
    client.send(_HEALTHZ + waits + request("GET", "/nothing") + ENQUEUE + waits + _HEALTHZ)
    assert (await client.read()).status == 200
    await server.waiting(1)
    assert server.engine.stats().jobs["queued"] == 0, "a request after a waiting one was performed before it"
    await server.call("POST", "/jobs/enqueue", {"type": "first"})
    assert (await client.read()).json["type"] == "first"
    assert (await client.read()).status == 404
    assert (await client.read()).status == 201
    assert (await client.read()).json["type"] == "x"
    assert (await client.read()).json["status"] == "ok"
    note(server, "pipelining, a long-poll in the middle", "answered in order")


async def test_requests_that_come_while_an_earlier_one_is_answered_keep_their_order(server: Server):
    """At whatever moment the second piece comes."""
    for first in ("/nothing", "/healthz", "/help"):
        for turns in range(6):
            client = await server.connect()
            client.send(request("GET", first, headers={"X-Request-Id": "one"}))
            for _ in range(turns):
                await asyncio.sleep(0)
            client.send(request("GET", "/healthz", headers={"X-Request-Id": "two"}))
            client.send(request("GET", "/nothing", headers={"X-Request-Id": "three"}))
            client.send(request("GET", "/healthz", headers={"X-Request-Id": "four"}))
            ids = [(await client.read()).headers["x-request-id"] for _ in range(4)]
            assert ids == ["one", "two", "three", "four"]


# -- bodies -----------------------------------------------------------------------------------------


async def test_a_body_in_tiny_chunks_is_put_together(server: Server):
    body = b'{"type":"x","payload":"' + b"p" * 300 + b'"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    first, second = await answers(server, POST + HOST + CHUNKED + b"\r\n" + chunks + _HEALTHZ, "POST", "GET")
    assert first.status == 201
    assert second.status == 200
    assert (await server.call("GET", f"/jobs/{first.json['id']}")).json["payload"] == "p" * 300
    note(server, "chunked, a byte each", "put together")


async def test_chunk_extensions_are_skipped(server: Server):
    chunks = CHUNKS.replace(b"c\r\n", b'c;name=value;other="quoted"\r\n').replace(
        b"\r\n0\r\n", b"\r\n0;last\r\n"
    )
    client = await server.connect()
    client.send(POST + HOST + CHUNKED + b"\r\n" + chunks + _HEALTHZ)
    answer = await client.read("POST")
    if not is_fast(server):
        note(server, "chunk extensions", "400, closes")
        assert answer.status == 400
        return
    note(server, "chunk extensions", "skipped")
    assert answer.status == 201
    assert (await client.read()).status == 200


@pytest.mark.parametrize("server", ["fast"], indirect=True)
@pytest.mark.parametrize(
    "trailers",
    [
        b"X-Request-Id: trailer\r\n",
        b"Host: evil\r\n",
        b"X-Request-Id: trailer\r\nHost: evil\r\nJob-Lease: no\r\n",
    ],
)
async def test_a_trailer_counts_for_nothing_neither_here_nor_in_the_next_request(
    server: Server, trailers: bytes
):
    dequeue = POST.replace(b"enqueue", b"dequeue") + HOST + b"X-Request-Id: mine\r\n"
    data = dequeue + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n" + trailers + b"\r\n"
    data += request("GET", "/help", headers={"Host": "good"})
    data += request("GET", "/", headers={"X-Request-Id": "b"})
    answer, plain, named = await answers(server, data, "POST", "GET", "GET")
    assert (answer.status, answer.headers["x-request-id"]) == (204, "mine")
    assert plain.status == 200
    assert plain.headers["x-request-id"] not in ("trailer", "mine")
    assert b"good/jobs" in plain.body
    assert b"evil" not in plain.body
    assert (named.status, named.headers["x-request-id"]) == (200, "b")


async def test_trailers(server: Server):
    data = POST + HOST + CHUNKED + b"\r\n" + CHUNKS[:-2] + b"X-A: b\r\n\r\n"
    (answer,) = await answers(server, data, "POST")
    note(server, "trailers", "dropped" if answer.status == 201 else f"{answer.status}, closes")
    assert answer.status == (201 if is_fast(server) else 400)


@pytest.mark.parametrize("space", [b"", b" ", b"\t", b" \t "], ids=repr)
async def test_spaces_around_a_value_are_no_part_of_it(server: Server, space: bytes):
    await server.enqueue()
    lease = (await server.dequeue())["lease"].encode()
    head = POST.replace(b"enqueue", b"1/conclude") + b"Host:" + space + b"a" + space + b"\r\n"
    fields = {
        b"Job-Lease": lease,
        b"Content-Length": b"2",
        b"X-Request-Id": b"mine",
        b"Connection": b"close",
    }
    for name, value in fields.items():
        head += name + b":" + space + value + space + b"\r\n"
    client = await server.connect()
    client.send(head + b"\r\n{}" + ENQUEUE)
    answer = await client.read("POST")
    assert (answer.status, answer.headers["x-request-id"]) == (200, "mine")
    assert answer.headers["connection"] == "close"
    assert await client.rest() == b""


async def test_an_empty_value_is_no_part_of_the_next_name(server: Server):
    for cut in range(1, 60):
        data = b"GET /healthz HTTP/1.1\r\nX-A:\r\nX-B: \r\nHost: a\r\nX-C:\r\nX-Request-Id: mine\r\n\r\n"
        client = await server.connect()
        client.send(data[:cut])
        await asyncio.sleep(0)
        client.send(data[cut:])
        answer = await client.read()
        assert (answer.status, answer.headers["x-request-id"]) == (200, "mine")


async def test_close_counts_for_an_old_client_that_also_says_keep_alive(server: Server):
    client = await server.connect()
    client.send(b"GET /healthz HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n")
    assert (await client.read()).status == 200
    assert await client.rest() == b""


@pytest.mark.parametrize("server", ["fast"], indirect=True)
async def test_a_length_with_thousands_of_zeros_before_it_is_that_length(server: Server):
    data = POST + HOST + b"Content-Length: " + b"0" * 5000 + b"12\r\n\r\n" + JOB
    first, second = await answers(server, data + _HEALTHZ, "POST", "GET")
    assert (first.status, second.status) == (201, 200)


async def test_a_body_with_a_get_is_read_and_the_next_request_found(server: Server):
    first, second = await answers(server, request("GET", "/healthz", "{}") + _HEALTHZ, "GET", "GET")
    assert (first.status, second.status) == (200, 200)
    note(server, "a body with GET", "read")


async def test_head_answers_what_get_would_without_the_body(server: Server):
    client = await server.connect()
    for path in ("/healthz", "/jobs/7", "/nothing", "/", "/queues/a"):
        same = {"X-Request-Id": "a"}
        client.send(request("HEAD", path, headers=same) + request("GET", path, headers=same) + _HEALTHZ)
        head, get = await client.read("HEAD"), await client.read()
        assert (await client.read()).status == 200
        assert head.status == get.status
        assert head.body == b""
        assert get.body != b""
        names = ("content-type", "content-length", "cache-control")
        assert [head.headers[name] for name in names] == [get.headers[name] for name in names]
    note(server, "HEAD", "as GET, without the body")


# -- Expect -----------------------------------------------------------------------------------------


async def test_a_client_that_expects_100_continue_gets_it_and_then_the_answer(server: Server):
    client = await server.connect()
    for _ in range(2):
        client.send(POST + HOST + LENGTH + b"Expect: 100-continue\r\n\r\n")
        assert (await line(client)).startswith(b"HTTP/1.1 100 ")
        assert await line(client) == b"\r\n"
        client.send(JOB)
        assert (await client.read("POST")).status == 201
    note(server, "Expect: 100-continue", "100, then the answer")


async def test_a_body_that_is_refused_anyway_is_not_asked_for(server: Server):
    client = await server.connect()
    client.send(POST + HOST + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (LONGEST + 1))
    refused(await client.read("POST"), 413, "body_too_large")
    client = await server.connect()
    client.send(POST + HOST + LENGTH + b"Content-Encoding: gzip\r\nExpect: 100-continue\r\n\r\n")
    refused(await client.read("POST"), 415, "unsupported_encoding")
    note(server, "Expect: 100-continue, and too large", "413 at once, closes")


async def test_another_expectation_is_ignored(server: Server):
    (answer,) = await answers(server, POST + HOST + LENGTH + b"Expect: 200-ok\r\n\r\n" + JOB, "POST")
    assert answer.status == 201


async def test_a_client_of_http_1_0_is_not_sent_an_interim_response(server: Server):
    """It would take the 100 for the answer (RFC 9110, 10.1.1)."""
    for head in (POST, b"PUT /import HTTP/1.1\r\n"):
        client = await server.connect()
        head = head.replace(b"HTTP/1.1", b"HTTP/1.0")
        client.send(head + HOST + LENGTH + b"Expect: 100-continue\r\n\r\n")
        for _ in range(2):  # so that the head has been read
            assert (await (await server.connect()).call("GET", "/healthz")).status == 200
        client.send(JOB)
        assert (await line(client)).split()[1] in (b"200", b"201")
    note(server, "HTTP/1.0, Expect: 100-continue", "no 100")


async def test_a_stream_to_a_client_of_http_1_0_ends_with_the_connection(server: Server):
    """It is not in chunks, which such a client does not know, also if it asked to keep the connection."""
    for option in (b"", b"Connection: keep-alive\r\n"):
        client = await server.connect()
        client.send(b"GET /top?for=1ms HTTP/1.0\r\n" + HOST + option + b"\r\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert b"keep-alive" not in head.lower()
        assert body.startswith(b"\x1b[2J")


async def test_an_http_1_0_connection_is_kept_whatever_else_it_asks_for(server: Server):
    client = await server.connect()
    for _ in range(2):
        client.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive, te\r\n\r\n")
        answer = await client.read()
        assert answer.status == 200
        kept = answer.headers.get("connection", "close").lower() == "keep-alive"
        if not kept:  # Tornado does not look for it in a list
            assert await client.rest() == b""
            break
    assert kept or not is_fast(server)


# -- too much ---------------------------------------------------------------------------------------


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(server: Server):
    length = LONGEST + 1 if is_fast(server) else 17 * LONGEST
    client = await server.connect()
    client.send(POST + HOST + b"Content-Length: %d\r\n\r\n" % length)
    answer = await client.read("POST")
    refused(answer, 413, "body_too_large")
    assert answer.json["limit"] == LONGEST
    assert answer.json["setting"] == "JOBQUEUE_MAX_BODY"
    after = (
        "413 at once, closes" if is_fast(server) else "413 (at once above 16 times the limit, else when read)"
    )
    note(server, "Content-Length above the limit", after)


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_body="1KiB")])
async def test_the_largest_body_fits_and_one_byte_more_does_not(server: Server):
    longest = Settings(max_body="1KiB").max_request
    for size, status in ((longest, 201), (longest + 1, 413)):
        body = b'{"type":"x"}'.ljust(size)
        assert (await answers(server, request("POST", "/jobs/enqueue", body), "POST"))[0].status == status
        chunked = POST + HOST + CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        assert (await answers(server, chunked, "POST"))[0].status == status
    assert server.engine.stats().jobs["queued"] == 2


async def test_a_chunked_body_is_refused_once_it_is_too_large(server: Server):
    client = await server.connect()
    client.send(POST + HOST + CHUNKED + b"\r\n")
    for _ in range(LONGEST // 65536 + 1):
        client.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
    if not is_fast(server):
        client.send(b"0\r\n\r\n")
    answer = await client.read("POST")
    assert (answer.status, answer.code) == (413, "body_too_large")
    note(
        server,
        "chunked, above the limit",
        f"413 {'at once, closes' if is_fast(server) else 'when read'}",
    )


async def test_a_client_that_sends_on_after_a_refusal_still_reads_it(server: Server):
    """Closing a socket with unread bytes would take the answer away from the client."""
    client = await server.connect()
    client.send(POST + HOST + b"Content-Length: %d\r\n\r\n" % (LONGEST + 1) + b" " * (LONGEST + 1))
    assert (await client.read("POST")).code == "body_too_large"


@pytest.mark.parametrize(
    "head",
    [
        HOST + b"X: " + b"a" * (Settings().max_headers + 100) + b"\r\n",
        HOST + b"X-A: aaaaaaaaaaaaaaaaaaaaaaaa\r\n" * (Settings().max_headers // 30 + 10),
        HOST + b"X: " + b"a" * 500_000 + b"\r\n",
    ],
    ids=["one header", "many headers", "half a megabyte"],
)
async def test_a_head_of_more_than_64_kib_is_refused(server: Server, head: bytes):
    client = await server.connect()
    client.send(POST + head + LENGTH + b"\r\n" + JOB)
    if not is_fast(server):
        with pytest.raises((IncompleteReadError, ConnectionError)):
            await client.read("POST")
        note(server, "more than 64 KiB of headers", "closes without an answer")
    else:
        refused(await client.read("POST"), 431, "headers_too_large")
        note(server, "more than 64 KiB of headers", "431, closes")
    assert untouched(server)


async def test_a_target_of_more_than_64_kib_is_refused(server: Server):
    client = await server.connect()
    client.send(request("GET", "/jobs/" + "7" * (Settings().max_headers + 100)))
    if not is_fast(server):
        with pytest.raises((IncompleteReadError, ConnectionError)):
            await client.read()
    else:
        refused(await client.read(), 431, "headers_too_large")


async def test_a_head_of_60_kib_is_read(server: Server):
    data = POST + HOST + b"X: " + b"a" * 60_000 + b"\r\n" + LENGTH + b"\r\n" + JOB
    assert (await answers(server, data, "POST"))[0].status == 201


# -- what the server does not do --------------------------------------------------------------------

_OFFER = (
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
)


@pytest.mark.parametrize(
    "data",
    [
        POST + HOST + _OFFER + LENGTH + b"\r\n" + JOB,
        POST + HOST + _OFFER + CHUNKED + b"\r\n" + CHUNKS,
        POST + HOST + LENGTH + b"Upgrade: websocket\r\n\r\n" + JOB,
        POST + HOST + LENGTH + b"Connection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n" + JOB,
    ],
    ids=["length", "chunked", "no Connection", "two protocols"],
)
async def test_an_upgrade_is_declined_and_the_body_read_by_its_length(server: Server, data: bytes):
    first, second, third = await answers(server, data + _HEALTHZ + data, "POST", "GET", "POST")
    assert (first.status, second.status, third.status) == (201, 200, 201)
    assert "connection" not in first.headers
    note(server, "Upgrade: h2c", "ignored; body and next request read")


async def test_an_upgrade_is_declined_wherever_the_bytes_are_cut(server: Server):
    data = POST + HOST + _OFFER + LENGTH + b"\r\n" + JOB
    for cut in range(0, len(data), 1 if ALL else 17):
        client = await server.connect()
        client.send(data[:cut])
        await asyncio.sleep(0)
        client.send(data[cut:] + _HEALTHZ)
        assert [(await client.read("POST")).status, (await client.read()).status] == [201, 200]


@pytest.mark.parametrize("server", ["fast"], indirect=True)
async def test_two_thousand_upgrades_in_one_piece_are_declined(server: Server):
    data = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" * 2000
    client = await server.connect()
    client.send(data)
    for _ in range(2000):
        assert (await client.read()).status == 200


@pytest.mark.parametrize("server", ["fast"], indirect=True)
async def test_a_declined_upgrade_leaves_everything_else_of_its_request_as_it_was(server: Server):
    client = await server.connect()
    client.send(POST + HOST + LENGTH + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n" + JOB + _HEALTHZ)
    answer = await client.read("POST")
    assert (answer.status, answer.headers["connection"]) == (201, "close")
    assert await client.rest() == b""

    client = await server.connect()
    client.send((POST + HOST + LENGTH + _OFFER + b"\r\n" + JOB + _HEALTHZ).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await client.read("POST")).status == 201
    assert await client.rest() == b"", "an HTTP/1.0 client that did not ask for it is not kept"

    client = await server.connect()
    client.send(POST + HOST + LENGTH + _OFFER + b"Expect: 100-continue\r\n\r\n")
    assert await line(client) == b"HTTP/1.1 100 Continue\r\n"
    assert await line(client) == b"\r\n"
    client.send(JOB)
    assert await line(client) == b"HTTP/1.1 201 Created\r\n"


async def test_an_ambiguous_request_stays_refused_with_an_upgrade(server: Server):
    for broken in (
        POST + HOST + HOST + _OFFER + LENGTH + b"\r\n" + JOB,
        POST + HOST + _OFFER + LENGTH + CHUNKED + b"\r\n" + CHUNKS,
        POST + HOST + _OFFER + CHUNKED + CHUNKED + b"\r\n" + CHUNKS,
        POST + _OFFER + LENGTH + b"\r\n" + JOB,
    ):
        assert (await answers(server, broken, "POST"))[0].status == 400
    assert untouched(server)


@pytest.mark.parametrize("data", [b"", LENGTH], ids=["no body", "a body"])
async def test_the_server_is_not_a_proxy(server: Server, data: bytes):
    line = b"CONNECT localhost:80 HTTP/1.1\r\n"
    client = await server.connect()
    client.send(line + HOST + data + b"\r\n" + (JOB if data else b"") + ENQUEUE)
    answer = await client.read("POST")
    if is_fast(server):
        refused(answer, 400, "bad_request")
        assert await client.rest() == b""
        assert untouched(server)
    else:
        assert answer.status == 404
    note(server, "CONNECT", f"{answer.status} {answer.code}")


@pytest.mark.parametrize("origin", ["http://localhost", "http://elsewhere:8080", "HTTPS://localhost"])
async def test_a_target_in_absolute_form_means_its_path(server: Server, origin: str):
    client = await server.connect()
    client.send(ENQUEUE.replace(b" /jobs", f" {origin}/jobs".encode()))
    answer = await client.read("POST")
    assert answer.status == 201, answer
    id = answer.json["id"]
    for path, status in (
        (f"/jobs/{id}", 200), ("/jobs/999", 404), ("/queues/a", 200), ("/queues", 200), ("/", 200), ("", 200),
        ("/nothing", 404), ("//", 404),
    ):  # fmt: skip
        client.send(request("GET", origin + path))
        assert (await client.read()).status == status, path
    note(server, "absolute-form target", "its path counts")


async def test_an_asterisk_is_not_a_path(server: Server):
    (answer,) = await answers(server, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS")
    assert (answer.status, answer.code) == (404, "no_such_route")
    note(server, "OPTIONS *", "404 no_such_route")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "PURGE", "QUERY"])
async def test_an_unknown_method_of_a_path_is_405(server: Server, method: str):
    (answer,) = await answers(server, request(method, "/jobs/enqueue", "{}"), method)
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", "POST")
    note(server, f"{method} for POST", "405 with Allow")


# -- hanging up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HANG_UPS)
@pytest.mark.parametrize(
    "behind",
    [b"", _HEALTHZ, request("POST", "/jobs/x", b" " * 49_000), b" " * 49_000],
    ids=["nothing", "a request", "a large one", "noise"],
)
async def test_a_hang_up_ends_a_long_poll(server: Server, how: str, behind: bytes):
    client = await server.connect()
    client.send(request("POST", "/jobs/dequeue?wait=30") + behind)
    await server.waiting(1)
    getattr(client, how)()
    await server.waiting(0)
    await server.call("POST", "/jobs/enqueue", {"type": "x"})
    stats = server.engine.stats()
    assert stats.jobs["queued"] == 1
    note(server, "hang-up during a long poll", "seen at once, also with 49 KB after it")


async def test_a_hang_up_before_the_answer_is_written_gives_the_job_back(server: Server):
    """The job was delivered to it in the same loop pass."""
    client = await server.connect()
    client.send(request("POST", "/jobs/dequeue?wait=30"))
    await server.waiting(1)
    client.reset()
    await server.call("POST", "/jobs/enqueue", {"type": "x"})
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    answer = await server.call("POST", "/jobs/dequeue")
    assert answer.json["attempts"] == 1


# -- nothing is left behind -------------------------------------------------------------------------


async def test_connections_that_ended_are_forgotten(server: Server):
    for data in (
        _HEALTHZ,
        BROKEN[0].data,
        request("GET", "/nothing"),
        b"GET",
        request("POST", "/jobs/dequeue?wait=9"),
    ):
        client = await server.connect()
        client.send(data)
        await asyncio.sleep(0.002)
        await client.closed()

    def none_left() -> bool:
        server.front.sweep()
        return server.front.connections() == 0

    await until(none_left)
    await until(lambda: server.front.busy() == 0)
