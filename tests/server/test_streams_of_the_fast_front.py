"""Streams, uploads and unknown paths on the fast front: framing, order, back-pressure and the end of each."""

import asyncio
import itertools
import logging
from typing import Any

import pytest
from http_client import Client, request
from serving import check_problem, patch_engine, until
from streams import StreamReader

from jobqueue import Settings
from jobqueue.model import NewJob
from jobqueue.server.http1.read_ahead import READ_AHEAD

pytestmark = pytest.mark.parametrize("server", ["fast"], indirect=True)
_HEALTHZ = request("GET", "/healthz")
_EXPORT = request("GET", "/queues/default/export")
_CHUNKED = {"Transfer-Encoding": "chunked"}
_KIB = 1 << 10
_MIB = 1 << 20
_LINE = b'{"type":"x"}\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def upload(body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """The head of an import in chunks, and its first chunk."""
    head = request("PUT", "/import", None, {**_CHUNKED, **(headers or {})})
    return head + (chunk(body) if body else b"")


async def connection_of(server: Any) -> tuple[Client, Any]:
    client = await server.connect()
    await until(lambda: server.front.open)
    (connection,) = server.front.open
    return client, connection


def counted(server: Any, operation: str) -> dict[int, int]:
    """Responses of an operation, by status."""
    return {status: count for name, status, count in server.dispatcher.meter.answered() if name == operation}


# -- streams ----------------------------------------------------------------------------------------


async def test_a_stream_comes_in_chunks_and_the_next_request_is_answered_after_it(server):
    server.engine.enqueue_many([NewJob("x")] * 300)
    client = await server.connect()
    client.send(_EXPORT + _HEALTHZ + request("GET", "/events?for=1ms") + _HEALTHZ)
    answer = await client.read()
    assert (answer.status, answer.headers["transfer-encoding"]) == (200, "chunked")
    assert answer.body.count(b'"type":"x"') == 300
    assert {name: answer.headers.get(name) for name in ("x-accel-buffering", "cache-control")} == {
        "x-accel-buffering": "no", "cache-control": "no-store",
    }  # fmt: skip
    assert {"date", "x-request-id", "content-type"} < answer.headers.keys()
    assert {"content-length", "connection"}.isdisjoint(answer.headers)
    assert (await client.read()).body.startswith(b'{"status":"ok"')
    assert (await client.read()).headers["content-type"] == "text/event-stream"
    assert (await client.read()).status == 200


async def test_an_http_1_0_client_gets_a_stream_without_chunks(server):
    server.engine.enqueue_many([NewJob("x")] * 3)
    client = await server.connect()
    client.send(
        b"GET /queues/default/export HTTP/1.0\r\nHost: [::1]\r\nConnection: keep-alive\r\n\r\n" + _HEALTHZ
    )
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert b"\r\nConnection: close" in head
    assert (body.count(b"\n"), body[-1:]) == (3, b"\n")


async def test_a_HEAD_of_a_stream_gets_its_headers_and_runs_no_operation(server, monkeypatch):
    patch_engine(monkeypatch, server, list_jobs=None)
    client = await server.connect()
    client.send(request("HEAD", "/queues/default/export") + _HEALTHZ)
    answer = await client.read("HEAD")
    assert (answer.status, answer.headers.get("transfer-encoding")) == (200, None)
    assert (await client.read()).status == 200


async def test_requests_that_follow_a_stream_wait_for_it(server):
    client = await server.connect()
    client.send(request("GET", "/events?for=20ms") + _HEALTHZ + request("GET", "/nothing"))
    await asyncio.sleep(0.002)
    client.send(request("GET", "/queues") + b"GET /help HTTP/1.1\r\nHo")
    await asyncio.sleep(0.002)
    client.send(b"st: a\r\n\r\n")
    answers = [await client.read() for _ in range(5)]
    assert answers[0].body.startswith(b"retry: ")
    assert [answer.status for answer in answers] == [200, 200, 404, 200, 200]
    assert b'"queues"' in answers[3].body


async def test_connection_close_ends_the_connection_after_the_stream(server):
    client = await server.connect()
    client.send(request("GET", "/events?for=1ms", headers={"Connection": "close"}) + _HEALTHZ)
    answer = await client.read()
    assert (answer.headers["transfer-encoding"], answer.headers["connection"]) == ("chunked", "close")
    assert await client.rest() == b""


async def test_a_stream_that_begins_while_the_server_stops_ends_at_once_and_says_close(server):
    client, _ = await connection_of(server)
    client.send(b"GET /events HTTP/1.1\r\n")
    await asyncio.sleep(0.002)
    server.stop_waiting()
    client.send(b"Host: a\r\n\r\n")
    assert (await client.read()).headers["connection"] == "close"
    assert await client.rest() == b""


async def test_a_stream_that_was_under_way_when_the_server_stops_ends_and_so_does_its_connection(server):
    reading = await StreamReader.begin(server, "GET", "/events")
    assert server.front.busy() == 1
    server.stop_waiting()
    await reading.rest()
    assert await reading.client.rest() == b""


async def test_a_bug_in_the_middle_of_a_stream_is_logged_and_cuts_the_connection(server, monkeypatch, logged):
    server.engine.enqueue_many([NewJob("x")] * 300)
    looks = itertools.count()

    def list_jobs(*arguments):
        if next(looks):
            raise RuntimeError("a bug")
        return server.engine.list_jobs(*arguments)

    patch_engine(monkeypatch, server, list_jobs=list_jobs)
    client = await server.connect()
    client.send(_EXPORT + _HEALTHZ)
    rest = await client.rest()
    assert not rest.endswith(b"0\r\n\r\n")
    assert b'"ok"' not in rest
    assert logged.pop().getMessage().startswith("unexpected error rid=")
    assert len(server.dispatcher.streams) == 0


async def test_a_hang_up_ends_a_stream_at_once(server):
    await server.get("/healthz")
    before = len(asyncio.all_tasks())
    reading = await StreamReader.begin(server, "GET", "/events")
    reading.client.close()
    await until(lambda: len(server.dispatcher.streams) == 0)
    assert server.front.busy() == 0
    await until(lambda: len(asyncio.all_tasks()) <= before)
    assert counted(server, "events") == {499: 1}


async def test_a_stream_pauses_while_its_client_reads_nothing_and_goes_on_afterwards(server, monkeypatch):
    payload = b'"%b"' % (b"p" * 100_000)
    server.engine.enqueue_many([NewJob("x", payload=payload)] * 400)
    looks = []

    def list_jobs(*arguments):
        looks.append(arguments)
        return server.engine.list_jobs(*arguments)

    patch_engine(monkeypatch, server, list_jobs=list_jobs)
    client = await server.connect()
    client._writer.transport.pause_reading()
    client.send(request("GET", "/queues/default/export", headers={"Connection": "close"}))
    for _ in range(50):
        assert (await server.get("/healthz")).status == 200
        await asyncio.sleep(0.001)
    assert len(looks) < 4, "each look is for 100 jobs, so for 10 MB"
    client._writer.transport.resume_reading()
    assert (await client.rest()).count(payload) == 400


async def test_a_client_that_resets_while_it_reads_nothing_ends_the_stream(server):
    server.engine.enqueue_many([NewJob("x", payload=b'"%b"' % (b"p" * 100_000))] * 400)
    client = await server.connect()
    client._writer.transport.pause_reading()
    client.send(_EXPORT)
    await until(lambda: any(each._writing for each in server.dispatcher.streams._open))
    client.reset()
    await until(lambda: len(server.dispatcher.streams) == 0)
    assert counted(server, "export_queue") == {499: 1}


@pytest.mark.parametrize("settings", [Settings(first_id=1, rate=2)])
async def test_a_stream_counts_once_against_the_rate(server):
    for expected in (200, 200, 429):
        client = await server.connect()
        client.send(request("GET", "/events?for=1ms"))
        assert (await client.read()).status == expected


async def test_the_access_log_has_the_size_and_the_status_of_streams_and_uploads(server, caplog):
    caplog.set_level(logging.INFO, "jobqueue.access")
    server.engine.enqueue_many([NewJob("x")] * 3)
    body = (await server.get("/queues/default/export")).body
    await server.call("PUT", "/import", _LINE)
    reading = await StreamReader.begin(server, "GET", "/events")
    reading.client.close()
    client = await server.connect()
    client.send(upload(_LINE))
    await until(lambda: server.engine.stats().jobs["queued"] == 5)
    client.close()
    await until(lambda: len(server.dispatcher.streams) == 0)
    told: list[Any] = [record.members for record in caplog.records]  # type: ignore[attr-defined]
    assert [(one["path"], one["status"]) for one in told] == [
        ("/queues/default/export", 200), ("/import", 200), ("/events", 499), ("/import", 499),
    ]  # fmt: skip
    assert told[0]["bytes"] == len(body)


# -- uploads ----------------------------------------------------------------------------------------


async def test_an_upload_is_taken_however_its_body_is_framed(server):
    lines = _LINE * 100_000  # 1.3 MB: more than a body may have
    client = await server.connect()
    for count, body in ((1, _LINE), (0, b""), (100_000, lines)):
        answer = await client.call("PUT", "/import", body)
        assert answer.json == {"imported": count, "known": 0}
        pieces = [body[start : start + 100_000] for start in range(0, len(body), 100_000)]
        client.send(upload() + b"".join(map(chunk, pieces)) + b"0\r\n\r\n" + _HEALTHZ)
        assert (await client.read("PUT")).json == {"imported": count, "known": 0}
        assert (await client.read()).status == 200
    assert counted(server, "put_jobs") == {200: 6}


async def test_two_uploads_in_one_piece_are_taken_one_after_the_other(server):
    client = await server.connect()
    client.send(upload(_LINE))
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    client.send(chunk(_LINE * 2) + b"0\r\n\r\n" + upload(_LINE * 3) + b"0\r\n\r\n" + upload(_LINE))
    assert (await client.read("PUT")).json["imported"] == 3
    assert (await client.read("PUT")).json["imported"] == 3
    client.send(b"0\r\n\r\n" + _HEALTHZ)
    assert (await client.read("PUT")).json["imported"] == 1
    assert (await client.read()).status == 200


async def test_a_body_is_read_no_faster_than_it_is_taken(server, monkeypatch):
    turn = asyncio.Event()
    waits: list[asyncio.Future[Any]] = []

    def import_jobs(items):
        async def later():
            await turn.wait()
            return server.engine.import_jobs(items)

        waits.append(asyncio.ensure_future(later()))
        return waits[-1]

    patch_engine(monkeypatch, server, import_jobs=import_jobs)
    client, connection = await connection_of(server)
    lines = _LINE * 200_000
    client.send(request("PUT", "/import", lines))
    await until(lambda: len(connection._read_ahead.kept) > READ_AHEAD and waits)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(connection._read_ahead.kept) <= READ_AHEAD + 256 * _KIB
    assert not connection._transport.is_reading()
    assert len(waits) == 1
    monkeypatch.undo()
    turn.set()
    assert (await client.read("PUT")).json["imported"] == 200_000


async def test_an_upload_that_is_refused_before_its_body_is_read_to_its_end(server):
    client = await server.connect()
    body = b"b" * (2 * _MIB)
    for headers in (None, _CHUNKED):
        sent = request("POST", "/import?x=1", body if headers is None else None, headers)
        client.send(sent + (chunk(body) + b"0\r\n\r\n" if headers else b"") + _HEALTHZ)
        check_problem(await client.read("POST"), 400, "unknown_field")
        assert (await client.read()).status == 200
    assert counted(server, "import_jobs") == {400: 2}


async def test_an_upload_that_is_refused_and_waits_for_100_continue_is_answered_at_once(server):
    client = await server.connect()
    client.send(upload(headers={"Expect": "100-continue"}).replace(b"/import", b"/import?x=1"))
    assert await client._reader.readline() == b"HTTP/1.1 400 Bad Request\r\n"
    assert b"\r\nConnection: close\r\n" in await client.rest()


async def test_an_upload_is_asked_for_when_its_turn_comes(server):
    client = await server.connect()
    client.send(request("GET", "/events?for=5ms") + upload(headers={"Expect": "100-continue"}))
    assert (await client.read()).headers["content-type"] == "text/event-stream"
    assert await client._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(chunk(_LINE) + b"0\r\n\r\n")
    assert (await client.read("PUT")).json["imported"] == 1


async def test_an_upload_that_is_refused_in_the_middle_is_read_to_its_end_and_the_connection_kept(server):
    client = await server.connect()
    client.send(upload(_LINE + b"no\n" + _LINE))
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    client.send(chunk(_LINE * 10_000) + b"0\r\n\r\n" + _HEALTHZ)
    document = check_problem(await client.read("PUT"), 400, "invalid_json")
    assert (document["line"], document["imported"]) == (2, 1)
    assert (await client.read()).status == 200
    assert server.engine.stats().jobs["queued"] == 1


@pytest.mark.parametrize("settings", [Settings(first_id=1, max_body="1KiB")])
@pytest.mark.parametrize("start", [b"no\n", b""], ids=["in the middle", "before"])
async def test_a_refused_upload_that_goes_on_for_long_is_answered_before_its_end(server, start):
    client, connection = await connection_of(server)
    head = upload(start) if start else upload().replace(b"PUT", b"DELETE")
    client.send(head)
    await until(lambda: connection._upload is not None and connection._upload.response is not None)
    for _ in range(17):
        client.send(chunk(b" " * _KIB))
    answer = await client.read("PUT")
    assert (answer.status, answer.headers["connection"]) == (400 if start else 405, "close")
    client.send(chunk(b" " * _KIB))
    assert await client.rest() == b""


@pytest.mark.parametrize("begun", [True, False])
async def test_a_body_that_breaks_off_in_the_middle_of_an_upload_cuts_the_connection(server, begun):
    client = await server.connect()
    client.send(upload(_LINE))
    if begun:
        await until(lambda: server.engine.stats().jobs["queued"] == 1)
    client.send(b"no chunk\r\n" + _HEALTHZ)
    assert b'"ok"' not in await client.rest()
    await until(lambda: len(server.dispatcher.streams) == 0)
    assert server.front.busy() == 0


async def test_a_refused_upload_that_falls_silent_is_answered_after_the_body_timeout(server):
    client, connection = await connection_of(server)
    client.send(upload().replace(b"PUT", b"DELETE"))
    await until(lambda: connection.state() == "body")
    connection.check_deadline(1000.0)
    connection.check_deadline(1000.0 + server.dispatcher.settings.body_timeout / 1000 + 1)
    answer = await client.read("DELETE")
    assert (answer.status, answer.headers["connection"]) == (405, "close")
    assert await client.rest() == b""


async def test_a_hang_up_ends_an_upload_and_the_imported_jobs_stay(server):
    await server.get("/healthz")
    before = len(asyncio.all_tasks())
    for how in ("close", "reset", "half_close"):
        client = await server.connect()
        client.send(upload(_LINE))
        await until(lambda: len(server.dispatcher.streams) == 1)
        getattr(client, how)()
        await until(lambda: len(server.dispatcher.streams) == 0)
    await until(lambda: len(asyncio.all_tasks()) <= before)
    assert counted(server, "put_jobs") == {499: 3}


async def test_an_upload_under_way_when_the_server_stops_is_refused_and_its_connection_ends(server):
    client = await server.connect()
    client.send(upload(_LINE))
    await until(lambda: server.engine.stats().jobs["queued"] == 1)
    server.stop_waiting()
    assert server.front.busy() == 1
    client.send(chunk(_LINE) + b"0\r\n\r\n")
    answer = await client.read("PUT")
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert await client.rest() == b""


# -- paths that do not exist ------------------------------------------------------------------------


async def test_an_unknown_path_is_no_such_route(server):
    for path in ("/nothing", "/pages", "/jobs/1/2/3", "/queues/", "//"):
        answer = await server.get(path)
        check_problem(answer, 404, "no_such_route")
    assert counted(server, "none") == {404: 5}


@pytest.mark.parametrize("value", ["caf\xe9", "", "a, ", "\xff\xfe"])
async def test_odd_headers_of_a_request_for_an_unknown_path_do_no_harm(server, value):
    client = await server.connect()
    twice = f"GET /nothing HTTP/1.1\r\nHost: a\r\nX-Odd: {value}\r\nX-Odd: {value}\r\n\r\n".encode("latin-1")
    client.send(twice + _HEALTHZ)
    assert (await client.read()).status == 404
    assert (await client.read()).status == 200


async def test_a_body_for_an_unknown_path_is_read(server):
    client = await server.connect()
    body = bytes(range(256)) * 2000
    client.send(request("POST", "/nothing", body) + _HEALTHZ)
    assert [(await client.read("POST")).status, (await client.read()).status] == [404, 200]
    client.send(request("POST", "/nothing", None, _CHUNKED) + chunk(b"abc") + b"0\r\n\r\n" + _HEALTHZ)
    assert [(await client.read("POST")).status, (await client.read()).status] == [404, 200]


async def test_an_http_1_0_client_needs_no_host_for_an_unknown_path(server):
    for waits in (b"", request("POST", "/jobs/dequeue?wait=30")):
        client = await server.connect()
        client.send(waits + b"GET /nothing HTTP/1.0\r\n\r\n")
        if waits:
            await server.waiting(1)
            await server.enqueue()
            assert (await client.read("POST")).status == 200
        assert (await client.read()).code == "no_such_route"
        assert await client.rest() == b""
