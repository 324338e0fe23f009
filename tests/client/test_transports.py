"""The two transports: TLS, Unix sockets, tokens, threads, forks, event loops, pools, and one's own."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import trustme
from fake import JOB, FakeServer, answer
from running import Program, environment
from test_faults import CLIENTS, LOOPS, Driver, dequeue, enqueue

from jobqueue import AnswerLost, AsyncClient, Client, Timeouts, Unreachable, errors
from jobqueue.client import Request, Response, address
from jobqueue.client.socket_transport import unreachable


class Certificates:
    """The files of a server and of a client that trust each other."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca, self.cert, self.key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        self.mine, self.mine_key = str(folder / "mine.pem"), str(folder / "mine-key.pem")
        authority.cert_pem.write_to_path(self.ca)
        server, client = (
            authority.issue_cert("localhost", "127.0.0.1"),
            authority.issue_cert("me@example.com"),
        )
        server.cert_chain_pems[0].write_to_path(self.cert)
        server.private_key_pem.write_to_path(self.key)
        client.cert_chain_pems[0].write_to_path(self.mine)
        client.private_key_pem.write_to_path(self.mine_key)
        self.both = str(folder / "both.pem")
        client.private_key_and_cert_chain_pem.write_to_path(self.both)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> Iterator[Program]:
    with Program(
        JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_TLS_CERT=certificates.cert, JOBQUEUE_TLS_KEY=certificates.key,
        JOBQUEUE_TLS_CLIENT_CA=certificates.ca,
    ) as program:  # fmt: skip
        yield program


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("files", ["one", "two"])
def test_tls_with_an_authority_and_a_certificate_of_the_client(kind, files, tls, certificates):
    cert = certificates.both if files == "one" else (certificates.mine, certificates.mine_key)
    with Driver(kind, f"https://localhost:{tls.port}", ca=certificates.ca, cert=cert) as call:
        for _ in range(3):
            assert call(enqueue).status == "queued"
        large = "y" * 300_000
        made = call(lambda client: client.jobs.enqueue("x", large))
        assert call(lambda client: client.jobs.get(made.id)).payload == large


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_whose_certificate_is_not_trusted_is_refused_at_once(kind, tls):
    with Driver(kind, f"https://localhost:{tls.port}") as call:
        with pytest.raises(Unreachable, match="certificate") as caught:
            call(enqueue)
        assert caught.value.facts["permanent"]


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_without_tls_is_refused_at_once(kind, url):
    with Driver(kind, url.replace("http:", "https:")) as call:
        with pytest.raises(
            Unreachable, match="no TLS is spoken there; write http:// in its address"
        ) as caught:
            call(enqueue)
        assert caught.value.facts["permanent"]


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_refused_connection_says_so_without_a_number(kind):
    with Driver(kind, "http://127.0.0.1:1", retry_for=0) as call, pytest.raises(Unreachable) as caught:
        call(enqueue)
    assert caught.value.detail == "cannot connect to http://127.0.0.1:1: Connection refused"


def test_a_name_that_could_not_be_looked_up_just_now_may_be_found_later():
    for number, permanent in ((socket.EAI_AGAIN, False), (socket.EAI_NONAME, True)):
        error = unreachable(address.address_of("http://a"), socket.gaierror(number, "no"))
        assert error.facts["permanent"] == permanent


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_with_another_name_than_its_certificate_is_refused(kind, tls, certificates):
    url = f"https://localhost.localdomain:{tls.port}"
    with (
        Driver(kind, url, ca=certificates.ca, retry_for=0) as call,
        pytest.raises(Unreachable),
    ):
        call(enqueue)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_unix_socket(kind, tmp_path):
    with (
        Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_HOST=f"unix:{tmp_path}/s"),
        Driver(kind, f"unix:{tmp_path}/s") as call,
    ):
        assert call(enqueue).status == "queued"
        assert call(dequeue).type == "x"


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("way", ["argument", "url", "environment"])
def test_a_token_is_sent(kind, way, monkeypatch):
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_ACCESS_TOKEN="a-good-token-of-16") as program:
        address, options = f"127.0.0.1:{program.port}", {}
        if way == "argument":
            options["token"] = "a-good-token-of-16"
        elif way == "url":
            address = ":a-good-token-of-16@" + address
        else:
            monkeypatch.setenv("JOBQUEUE_TOKEN", "a-good-token-of-16")
        with Driver(kind, f"http://{address}", **options) as call:
            assert call(enqueue).status == "queued"
            assert "good" not in repr(call.client)
        with (
            Driver(kind, f"http://127.0.0.1:{program.port}", token="wrong") as call,
            pytest.raises(errors.Unauthorized),
        ):
            call(enqueue)


def test_the_address_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("JOBQUEUE_URL", "https://queue.example.com/prefix/")
    assert repr(Client()) == "<Client of https://queue.example.com/prefix>"
    monkeypatch.delenv("JOBQUEUE_URL")
    assert repr(AsyncClient()) == "<AsyncClient of http://localhost:8080>"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://a", ("a", 80, False, None, "", "a")),
        ("https://a:444/b/c/", ("a", 444, True, None, "/b/c", "a:444")),
        ("http://[::1]:80", ("::1", 80, False, None, "", "[::1]")),
        ("unix:/run/s", ("", 0, False, "/run/s", "", "localhost")),
        ("unix:///run/s", ("", 0, False, "/run/s", "", "localhost")),
    ],
)
def test_an_address_is_read(url, said):
    found = address.address_of(url)
    assert (*found[:5], found.authority) == said


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://a", "http://", "http://a:x", "unix:", "http://a?b", "http://u:secret@"]
)
def test_a_bad_address_is_a_value_error_that_hides_the_token(url):
    with pytest.raises(ValueError, match=r"address|socket") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


def test_a_prefix_comes_before_each_path():
    with FakeServer() as server, Client(server.url + "/queue") as client:
        client.jobs.get(7)
        assert server.requests[0].startswith(b"GET /queue/jobs/7 HTTP/1.1\r\n")


@pytest.mark.parametrize("kind", CLIENTS)
def test_options_make_another_client_over_the_same_connections(kind):
    with FakeServer() as server, Driver(kind, server.url, headers={"A": "1"}, consumer="me") as call:
        call(dequeue)
        other = call.client.options(headers={"traceparent": "00-1"}, retry_for=0, consumer="you", timeout=3)
        call(lambda _: dequeue(other))
        assert server.connections == 1
        assert b"\r\nA: 1\r\n" in server.requests[1]
        assert b"\r\ntraceparent: 00-1\r\n" in server.requests[1]
        assert [b'"me"' in request for request in server.requests] == [True, False]
        assert b'"you"' in server.requests[1]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_number_as_timeout_is_for_the_answer_and_changes_no_other_limit(kind):
    own = Timeouts(connect=1, read=2, total=3)
    for made, expected in (
        (kind(timeout=60), Timeouts(read=60)),
        (kind(timeout=300), Timeouts(read=300, total=300)),
        (kind(timeout=own).options(timeout=2.5), Timeouts(connect=1, read=2.5, total=3)),
        (kind(timeout=own).options(timeout=60), Timeouts(connect=1, read=60, total=60)),
        (kind(timeout=Timeouts(total=None)).options(timeout=60), Timeouts(read=60, total=None)),
        (kind(timeout=60).options(timeout=own), own),
    ):
        assert made._options.timeouts == expected


def test_a_header_cannot_smuggle_another_one():
    with FakeServer() as server, Client(server.url) as client:
        for smuggle in (
            lambda: client.jobs.enqueue("x", idempotency_key="a\r\nB: 2"),
            lambda: client.jobs.change(7, priority=1, if_match="a\r\nB: 2"),
            lambda: client.options(headers={"A": "1\r\nB: 2"}).jobs.get(7),
            lambda: client.options(headers={"A\r\nB": "2"}).jobs.get(7),
            lambda: Client(server.url, token="a\nb").jobs.get(7),
            lambda: client.server.events(after="1\nB: 2"),
            lambda: client.server.request("GET", "/x HTTP/1.1\r\nB: 2"),
            lambda: client.server.request("GET\r\n", "/x"),
        ):
            with pytest.raises(ValueError, match="line break"):
                smuggle()
        assert server.requests == []


def test_each_thread_has_a_connection_and_it_ends_with_the_thread():
    def serve(peer, _):
        while server.take(peer):
            peer.send(answer())
        gone.release()

    gone = threading.Semaphore(0)
    with FakeServer(serve) as server, Client(server.url) as client:
        together = threading.Barrier(8)

        def work():
            for _ in range(20):
                assert client.jobs.enqueue("x").id == 7
                together.wait()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        threads.clear()
        gc.collect()
        assert all(gone.acquire(timeout=10) for _ in range(8))
        assert server.connections == 8
        assert len(server.requests) == 160


FORKED = """
import os, sys
from jobqueue import Client
client = Client(sys.argv[1])
client.jobs.get(1)
pid = os.fork()
for n in range(5):
    client.jobs.get(2 if pid == 0 else 1)
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_after_a_fork_both_processes_have_their_own_connection():
    asked = {}

    def serve(peer, number):
        while request := peer.request():
            asked.setdefault(number, set()).add(request.split()[1])
            peer.send(answer(JOB, "200 OK"))

    with FakeServer(serve) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", FORKED, server.url], env=environment(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert asked == {1: {b"/jobs/1"}, 2: {b"/jobs/2"}}


def test_a_closed_client_connects_again():
    with FakeServer() as server:
        client = Client(server.url)
        client.jobs.get(7)
        client.close()
        assert client.jobs.get(7).id == 7
        client.close()
        assert server.connections == 2


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_connection_in_use_is_closed_when_its_call_has_ended(kind):
    def serve(peer, _):
        server.take(peer)
        asked.set()
        assert over.wait(10)
        peer.send(answer())
        if peer.request() is None:
            gone.set()

    asked, over, gone = threading.Event(), threading.Event(), threading.Event()
    made = []

    def block():
        client = Client(server.url)
        calling = threading.Thread(target=lambda: made.append(client.jobs.get(7)) or gone.wait(10))
        calling.start()
        assert asked.wait(10)
        client.close()
        over.set()
        calling.join()

    async def main():
        client = AsyncClient(server.url)
        calling = asyncio.create_task(client.jobs.get(7))
        assert await asyncio.to_thread(asked.wait, 10)
        await client.close()
        over.set()
        made.append(await calling)
        await asyncio.to_thread(gone.wait, 10)

    with FakeServer(serve) as server:
        if kind == "blocking":
            block()
        else:
            with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
                runner.run(main())
        assert gone.is_set()
        assert (made[0].id, server.connections) == (7, 1)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("kind", LOOPS)
def test_a_client_does_not_keep_a_loop_that_is_over(kind):
    """Nor the connections that nobody has closed."""

    def serve(peer, _):
        while server.take(peer):
            peer.send(answer())
        gone.set()

    def use():
        loop = LOOPS[kind]()
        for _ in range(3):
            loop.run_until_complete(client.jobs.get(7))
            gc.collect()
        loop.close()
        return weakref.ref(loop)

    gone = threading.Event()
    with FakeServer(serve) as server:
        client = AsyncClient(server.url)
        loop = use()
        gc.collect()
        assert loop() is None
        assert gone.wait(10)
        assert server.connections == 1


def test_a_stream_that_another_thread_reads_ends_with_the_client():
    def serve(peer, _):
        server.take(peer)
        peer.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"id":7}\n\r\n')
        peer.request()

    ended = []

    def read():
        with client.jobs.stream() as jobs:
            for _ in range(2):
                try:
                    next(jobs)
                    first.set()
                except AnswerLost as error:
                    ended.append(error)

    first = threading.Event()
    with FakeServer(serve) as server:
        client = Client(server.url)
        reading = threading.Thread(target=read)
        reading.start()
        assert first.wait(10)
        client.close()
        reading.join(10)
        assert len(ended) == 1


def test_requests_that_overlap_have_connections_of_a_pool_up_to_its_size():
    def serve(peer, _):
        while server.take(peer):
            peer.send(answer())

    async def main():
        async with AsyncClient(server.url, connections=3) as client:
            made = await asyncio.gather(*[client.jobs.enqueue("x") for _ in range(60)])
            assert [job.id for job in made] == [7] * 60
            await client.jobs.get(7)

    with FakeServer(serve) as server:
        asyncio.run(main())
        assert server.connections == 3


def test_a_call_that_is_cancelled_gives_up_its_connection_and_its_place():
    """The server sees the end of the connection, so that a job that is handed over returns."""

    def serve(peer, number):
        server.take(peer)
        if number <= 2:
            asked.release()
            assert peer.request() is None
            gone.release()
        peer.send(answer())

    asked, gone = threading.Semaphore(0), threading.Semaphore(0)

    async def main():
        async with AsyncClient(server.url, connections=1) as client:
            for _ in range(2):
                taking = asyncio.create_task(client.jobs.dequeue(wait=30))
                await asyncio.to_thread(asked.acquire)
                waiting = asyncio.create_task(client.jobs.get(7))  # waits for the only connection
                await asyncio.sleep(0)
                waiting.cancel()
                taking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await taking
                assert await asyncio.to_thread(gone.acquire, timeout=10)
            assert (await client.jobs.get(7)).id == 7

    with FakeServer(serve) as server:
        asyncio.run(main())
        assert server.connections == 3


def test_a_call_that_is_cancelled_when_its_turn_has_come_passes_it_on():
    async def main():
        async with AsyncClient(server.url, connections=1) as client:

            async def first():
                await client.jobs.get(7)
                second.cancel()  # the connection is free, and it was to have it

            going = asyncio.create_task(first())
            await asyncio.sleep(0)
            second = asyncio.create_task(client.jobs.get(7))
            third = asyncio.create_task(client.jobs.get(7))
            await going
            async with asyncio.timeout(10):
                assert (await third).id == 7
            assert second.cancelled()

    with FakeServer() as server:
        asyncio.run(main())


def test_a_call_that_finds_no_free_connection_in_time_is_unreachable():
    def serve(peer, _):
        while server.take(peer):
            if len(server.requests) == 1:
                asked.set()
                assert over.wait(10)
            peer.send(answer())

    asked, over = threading.Event(), threading.Event()

    async def main():
        limits = Timeouts(total=0.1)
        async with AsyncClient(server.url, connections=1, retry_for=0) as client:
            taking = asyncio.create_task(client.jobs.dequeue(wait=30))
            assert await asyncio.to_thread(asked.wait, 10)
            with pytest.raises(Unreachable, match="none of 1 connections"):
                await client.options(timeout=limits).jobs.get(7)
            over.set()
            assert (await taking).id == 7
            assert (await client.jobs.get(7)).id == 7

    with FakeServer(serve) as server:
        asyncio.run(main())
        assert server.connections == 1


def test_a_client_may_be_used_on_several_loops():
    with FakeServer() as server:
        client = AsyncClient(server.url)

        async def main():
            async with client:
                await client.jobs.get(7)
                await client.jobs.get(7)

        asyncio.run(main())
        asyncio.run(main())
        threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (server.connections, len(server.requests)) == (5, 10)


def test_a_slow_reader_of_a_stream_makes_the_server_wait():
    """Nothing is read from the socket while much is unread."""
    sent = 0

    def serve(peer, _):
        nonlocal sent
        server.take(peer)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        line = b"{" + b" " * 65_000 + b'"id":7}\n'
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.socket.settimeout(0.2)
        while sent < 1000:
            rest = memoryview(b"%x\r\n%b\r\n" % (len(line), line))
            while rest:
                try:
                    rest = rest[peer.socket.send(rest) :]
                except TimeoutError:
                    if paused.is_set():
                        full.set()
                        return
            sent += 1

    paused, full = threading.Event(), threading.Event()

    async def main():
        async with AsyncClient(server.url) as client, client.jobs.stream() as jobs:
            assert (await anext(jobs)).id == 7
            transport = jobs._opened._connection._transport
            async with asyncio.timeout(30):
                while transport.is_reading():
                    await asyncio.sleep(0.001)
            paused.set()
            assert await asyncio.to_thread(full.wait, 30)
            assert not transport.is_reading()
            assert 4 < sent < 900
            assert [(await anext(jobs)).id for _ in range(sent - 1)] == [7] * (sent - 1)

    with FakeServer(serve) as server:
        asyncio.run(main())


class Own:
    """A transport of somebody else."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def send(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(200, [(b"ETag", b'"5"')], b'{"id":9}')

    def stream(self, request: Request) -> "OwnStream":
        self.requests.append(request)
        return OwnStream()

    def close(self) -> None:
        self.requests.clear()


class OwnStream:
    status = 200
    headers = ()

    def __iter__(self) -> Iterator[bytes]:
        yield from (b'{"id"', b':1}\n{"id":2}\n')

    def close(self) -> None:
        pass


def test_a_transport_of_ones_own_carries_the_requests():
    own = Own()
    with Client("http://a", transport=own, token="t") as client:
        job = client.jobs.get(9)
        assert (job.id, job.etag) == (9, '"5"')
        [request] = own.requests
        assert (request.method, request.target, request.body) == ("GET", "/jobs/9", b"")
        assert (b"Authorization", b"Bearer t") in request.headers
        assert request.timeouts == Timeouts()
        with client.jobs.stream() as jobs:
            assert [job.id for job in jobs] == [1, 2]
    assert own.requests == []


@pytest.mark.parametrize("wait", ["a while", -1, float("nan"), True, "", timedelta(seconds=-1)])
def test_a_wait_that_is_no_duration_is_refused_before_anything_is_sent(wait):
    own = Own()
    jobs = Client("http://a", transport=own).jobs
    for call in (
        lambda: jobs.enqueue("x", wait=wait),
        lambda: jobs.dequeue(wait=wait),
        lambda: jobs.dequeue_many(count=2, wait=wait),
        lambda: jobs.conclude_and_next(7, lease="l", wait=wait),
        lambda: jobs.get(7, wait=wait),
    ):
        with pytest.raises(errors.InvalidField, match="duration"):
            call()
    assert own.requests == []


class Paged(Own):
    """Answers with two empty pages, again and again."""

    def send(self, request: Request) -> Response:
        self.requests.append(request)
        more = b"null" if "cursor" in request.target else b'"c"'
        return Response(200, [], b'{"jobs":[],"schedules":[],"next":%b}' % more)


def test_filters_may_be_iterators_and_are_those_of_every_page():
    own = Paged()
    client = Client("http://a", transport=own)
    assert list(client.jobs.iterate(queue=iter(["p", "q"]), tag=iter(["t"]))) == []
    assert list(client.schedules.iterate(queue=iter(["p", "q"]))) == []
    assert list(client.schedules.iterate()) == []
    assert [request.target for request in own.requests] == [
        "/jobs?queue=p,q&order=asc&limit=100&tag=t",
        "/jobs?queue=p,q&order=asc&limit=100&tag=t&cursor=c",
        "/schedules?queue=p,q",
        "/schedules?queue=p,q&cursor=c",
        "/schedules",
        "/schedules?cursor=c",
    ]


def test_without_httptools_the_client_has_a_parser_of_its_own(url):
    code = (
        "import sys\nsys.modules['httptools'] = None\n"
        "from jobqueue import Client\nclient = Client(sys.argv[1])\n"
        "made = client.jobs.enqueue('x', 5)\nprint(client.jobs.get(made.id).payload)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, url], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout == "5\n", done.stderr


def test_no_descriptor_is_left_open(url):
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs /proc")
    with Client(url) as client:
        client.jobs.get(client.jobs.enqueue("x").id)
    before = len(os.listdir(folder))
    for _ in range(20):
        with Client(url) as client:
            client.jobs.count()
            with client.jobs.stream(for_="1ms") as jobs:
                list(jobs)
    gc.collect()
    assert len(os.listdir(folder)) <= before
