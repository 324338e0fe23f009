"""What is no operation of the API is answered by the Tornado application, through the fast front."""

import asyncio
from collections.abc import Iterator

import pytest
from http_client import Client, request
from serving import Server, check_problem, until
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, stream_request_body

pytestmark = pytest.mark.parametrize("server", ["fast"], indirect=True)
_HEALTHZ = request("GET", "/healthz")
_MIB = 1 << 20


class Page(RequestHandler):
    def get(self, name: str) -> None:
        self.set_header("X-Name", name)
        self.write(f"page {name} {self.get_query_argument('q', '')} {self.request.remote_ip}")

    head = get

    def post(self, name: str) -> None:
        self.write(self.request.body)

    def delete(self, name: str) -> None:
        self.set_status(204)


class Slow(RequestHandler):
    """Answers once the test says so."""

    turn: asyncio.Event

    async def get(self) -> None:
        await self.turn.wait()
        self.write("slow")


class Stream(RequestHandler):
    """Writes lines until the client is gone, each once the one before it is on its way."""

    ended: list[str]
    written: int = 0
    line = b"line\n"

    async def get(self) -> None:
        for _ in range(int(self.get_query_argument("lines"))):
            self.write(self.line)
            try:
                await self.flush()
            except StreamClosedError:
                self.ended.append("flush")
                return
            type(self).written += len(self.line)

    def on_connection_close(self) -> None:
        self.ended.append("closed")


class Forever(Stream):
    async def get(self) -> None:
        await self.flush()
        self.gone = asyncio.Event()
        await self.gone.wait()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self.gone.set()


class Broken(RequestHandler):
    def get(self, when: str) -> None:
        if when == "refused":
            raise HTTPError(403, reason="Not You")
        if when == "late":
            self.write("half")
            self.flush()
        raise RuntimeError("a bug in a page")

    def log_exception(self, *_: object) -> None:
        """Not of interest here."""


class Liar(RequestHandler):
    def get(self) -> None:
        self.set_header("Content-Length", self.get_query_argument("length"))
        self.write(b"four")

    def log_exception(self, *_: object) -> None:
        """Not of interest here."""


@stream_request_body
class Upload(RequestHandler):
    """Takes its time with each piece of a body."""

    def prepare(self) -> None:
        self.pieces: list[bytes] = []
        if self.get_query_argument("refuse", None):
            raise HTTPError(403)

    async def data_received(self, piece: bytes) -> None:
        await asyncio.sleep(0.002)
        self.pieces.append(piece)

    def post(self) -> None:
        self.write(b"".join(self.pieces))

    def log_exception(self, *_: object) -> None:
        """Not of interest here."""


@pytest.fixture
def pages(server: Server) -> Iterator[None]:
    """Handlers beside the API, as an embedder may add them."""
    Slow.turn = asyncio.Event()
    Stream.ended, Stream.written = [], 0
    Forever.ended = Stream.ended
    server.front.app.add_handlers(".*", [
        (r"/pages/(\w+)", Page), (r"/slow", Slow), (r"/stream", Stream), (r"/forever", Forever),
        (r"/broken/(\w+)", Broken), (r"/upload", Upload), (r"/liar", Liar),
    ])  # fmt: skip
    return


pytestmark = [pytestmark, pytest.mark.usefixtures("pages")]


async def test_a_page_is_answered_and_the_connection_kept(server):
    client = await server.connect()
    for name in ("one", "two"):
        answer = await client.call("GET", f"/pages/{name}?q=a%20b")
        assert (answer.status, answer.body) == (200, f"page {name} a b 127.0.0.1".encode())
        assert answer.headers["x-name"] == name
        assert answer.headers["content-length"] == str(len(answer.body))
        assert (await client.call("GET", "/healthz")).status == 200


async def test_a_page_gets_the_body_whole(server):
    body = bytes(range(256)) * 2000
    client = await server.connect()
    assert (await client.call("POST", "/pages/a", body)).body == body
    client.send(b"POST /pages/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n" + _HEALTHZ)
    assert (await client.read("POST")).body == b"abcd"
    assert (await client.read()).status == 200


async def test_head_and_204_have_no_body(server):
    client = await server.connect()
    client.send(request("HEAD", "/pages/a") + request("DELETE", "/pages/a") + _HEALTHZ)
    head = await client.read("HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len("page a  127.0.0.1"))
    none = await client.read("DELETE")
    assert (none.status, none.headers.get("transfer-encoding")) == (204, None)
    assert (await client.read()).status == 200


async def test_a_page_that_was_not_modified_is_304_without_a_body(server):
    client = await server.connect()
    tag = (await client.call("GET", "/pages/a")).headers["etag"]
    client.send(request("GET", "/pages/a", headers={"If-None-Match": tag}) + _HEALTHZ)
    assert (await client.read()).status == 304
    assert (await client.read()).status == 200


async def test_a_stream_comes_in_chunks_and_the_next_request_behind_it(server):
    client = await server.connect()
    client.send(request("GET", "/stream?lines=100") + _HEALTHZ + request("GET", "/stream?lines=1") + _HEALTHZ)
    answer = await client.read()
    assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"line\n" * 100)
    assert (await client.read()).status == 200
    assert (await client.read()).body == b"line\n"
    assert (await client.read()).status == 200


async def test_an_http_1_0_client_gets_a_stream_without_chunks(server):
    client = await server.connect()
    client.send(b"GET /stream?lines=3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"line\n" * 3


async def test_requests_behind_a_page_wait_for_it(server):
    client = await server.connect()
    client.send(request("GET", "/slow") + _HEALTHZ + request("GET", "/pages/a"))
    await asyncio.sleep(0.002)
    client.send(_HEALTHZ + b"GET /pages/b HTTP/1.1\r\nHo")
    await asyncio.sleep(0.002)
    client.send(b"st: a\r\n\r\n")
    await asyncio.sleep(0.002)
    Slow.turn.set()
    bodies = [(await client.read()).body for _ in range(5)]
    assert bodies[0] == b"slow"
    assert b'"ok"' in bodies[1]
    assert b'"ok"' in bodies[3]
    assert [body[:6] for body in (bodies[2], bodies[4])] == [b"page a", b"page b"]


async def test_connection_close_ends_it_after_the_page(server):
    client = await server.connect()
    client.send(request("GET", "/pages/a", headers={"Connection": "close"}) + _HEALTHZ)
    answer = await client.read()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await client.rest() == b""


async def test_a_page_that_refuses_says_so(server):
    client = await server.connect()
    answer = await client.call("GET", "/broken/refused")
    assert (answer.status, answer.reason) == (403, "Not You")
    assert (await client.call("GET", "/healthz")).status == 200


async def test_a_bug_in_a_page_is_500_and_harms_nobody(server):
    client = await server.connect()
    assert (await client.call("GET", "/broken/early")).status == 500
    assert (await client.call("GET", "/healthz")).status == 200


async def test_a_bug_in_the_middle_of_an_answer_ends_it_there_as_tornado_does(server, logged):
    client = await server.connect()
    client.send(request("GET", "/broken/late") + _HEALTHZ)
    assert (await client.read()).body == b"half"
    assert (await client.read()).status == 200
    assert logged.pop().getMessage() == "Cannot send error response after headers written"


@pytest.mark.parametrize("said", [3, 5])
async def test_an_answer_of_another_length_than_it_says_is_cut_off(server, logged, said):
    client = await server.connect()
    client.send(request("GET", f"/liar?length={said}") + _HEALTHZ)
    assert b'"ok"' not in await asyncio.wait_for(client.rest(), 5)
    logged.clear()


async def test_a_request_that_the_application_cannot_read_is_refused(server):
    client = await server.connect()
    client.send(request("GET", "/pages/a", headers={"Host": "%zz"}) + _HEALTHZ)
    check_problem(await client.read(), 400, "bad_request")
    assert await client.rest() == b""


@pytest.mark.parametrize("value", ["caf\xe9", "", "a, ", "\xff\xfe"])
async def test_odd_headers_reach_the_application(server, value):
    client = await server.connect()
    twice = f"GET /pages/a HTTP/1.1\r\nHost: a\r\nX-Odd: {value}\r\nX-Odd: {value}\r\n\r\n".encode("latin-1")
    client.send(twice + _HEALTHZ)
    assert (await client.read()).status == 200
    assert (await client.read()).status == 200


async def test_an_old_client_needs_no_host_here_either(server):
    for waits in (b"", request("POST", "/jobs/dequeue?wait=30")):
        client = await server.connect()
        client.send(waits + b"GET /nothing HTTP/1.0\r\n\r\n")
        if waits:
            await server.waiting(1)
            await server.enqueue()
            assert (await client.read("POST")).status == 200
        assert (await client.read()).code == "no_such_route"
        assert await client.rest() == b""


async def test_a_body_is_fed_no_faster_than_it_is_taken(server):
    client = await server.connect()
    assert (await client.call("POST", "/upload", b"b" * 200_000)).body == b"b" * 200_000
    assert (await client.call("POST", "/upload", b"")).body == b""


async def test_a_page_may_refuse_before_it_takes_the_body(server):
    client = await server.connect()
    client.send(request("POST", "/upload?refuse=1", b"body") + _HEALTHZ)
    assert (await client.read("POST")).status == 403
    assert (await client.read()).status == 200


async def test_a_page_learns_that_its_client_hung_up(server):
    client = await server.connect()
    client.send(request("GET", "/forever"))
    await client._reader.readuntil(b"\r\n\r\n")
    client.close()
    await until(lambda: Stream.ended)
    assert Stream.ended == ["closed"]
    assert server.front.busy() == 0


async def test_a_page_that_writes_on_after_a_hang_up_is_told_so(server):
    client = await server.connect()
    client._writer.transport.pause_reading()
    client.send(request("GET", "/stream?lines=100000000"))
    await until(lambda: Stream.written > 100)
    client.reset()
    await until(lambda: "flush" in Stream.ended)
    assert "closed" in Stream.ended


async def test_a_stream_that_nobody_reads_waits_with_its_writing(server):
    Stream.line = b"\x01" * 100_000
    try:
        client = await server.connect()
        client._writer.transport.pause_reading()
        client.send(request("GET", "/stream?lines=400", headers={"Connection": "close"}))
        for _ in range(50):
            assert (await server.get("/healthz")).status == 200
            await asyncio.sleep(0.001)
        assert Stream.written < 20 * _MIB
        client._writer.transport.resume_reading()
        assert (await client.rest()).count(b"\x01") == 40_000_000
    finally:
        Stream.line = b"line\n"


async def test_the_server_stops_after_the_page_that_is_being_answered(server):
    client: Client = await server.connect()
    client.send(request("GET", "/slow"))
    await until(lambda: server.front.busy() == 1)
    server.stop_waiting()
    assert server.front.busy() == 1
    Slow.turn.set()
    answer = await client.read()
    assert (answer.body, answer.headers["connection"]) == (b"slow", "close")
    assert await client.rest() == b""


async def test_what_the_application_does_not_have_is_no_such_route(server):
    for path in ("/nothing", "/pages", "/jobs/1/2/3", "/queues/", "//"):
        answer = await server.get(path)
        assert (answer.status, answer.code) == (404, "no_such_route")
        assert answer.headers["x-request-id"] == answer.json["request_id"]
