"""Clients of a cluster: what concerns one shard goes to the server that an answer has named as its owner."""

import asyncio
import socket
from collections import Counter

import pytest
from fake import JOB, FakeServer, answer, chunked
from test_faults import CLIENTS, Driver, dequeue, enqueue, enqueue_with_key

from jobqueue import AnswerLost, Client, MaybeEnqueued, Timeouts, Unreachable, errors
from jobqueue.client import Conclude, Request, Response, owners
from jobqueue.client.address import address_of
from jobqueue.client.direct import DirectTransport
from jobqueue.client.owners import Owners

# An id of a job that was made in shard 3, and one of shard 4.
ID = (1 << 52) + (3 << 46) + 5
OTHER = (1 << 52) + (4 << 46) + 5


def naming(url, body=JOB, status="201 Created", *headers):
    """Returns what a server does that answers every request, and names another one as the owner."""

    def serve(peer, _):
        while peer.server.take(peer) is not None:
            peer.send(answer(body, status, f"Job-Server: {url}", *headers))

    return serve


class Server(FakeServer):
    def __init__(self, serve=None):
        super().__init__()
        if serve is not None:
            self.does(serve)

    def does(self, serve):
        def with_server(peer, number):
            peer.server = self
            serve(peer, number)

        self.serve = with_server


def problem(status, code):
    body = b'{"status":%d,"code":"%b","detail":"no","retry_after":0}' % (status, code.encode())
    return answer(body, f"{status} No", "Content-Type: application/problem+json")


def to(queue):
    return lambda client: client.jobs.enqueue("x", queue=queue)


@pytest.fixture
def dead():
    """The address of a server that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_call_about_the_same_family_goes_to_the_server_that_an_answer_has_named(kind):
    with (
        Server() as owner,
        Server(naming(owner.url)) as listed,
        Driver(kind, listed.url, token="secret") as call,
    ):
        call(to("mail:high"))
        assert (len(listed.requests), len(owner.requests)) == (1, 0)
        for queue in ("mail", "mail:low"):
            assert call(to(queue)).id == 7
        assert (len(listed.requests), len(owner.requests)) == (1, 2)
        assert b"Authorization: Bearer secret" in owner.requests[0]
        assert f"Host: {owner.url[7:]}".encode() in owner.requests[0]
        call(to("sms"))
        assert (len(listed.requests), len(owner.requests)) == (2, 2)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_call_about_a_job_goes_to_the_server_that_was_named_for_its_shard(kind):
    with Server() as owner, Server(naming(owner.url)) as listed, Driver(kind, listed.url) as call:
        call(lambda client: client.jobs.get(ID))
        call(lambda client: client.jobs.conclude(ID + 1, lease="l"))
        call(lambda client: client.jobs.get(OTHER))
        call(lambda client: client.jobs.get(7))  # it tells no shard
        call(lambda client: client.jobs.get(7))
        assert [request.split()[1] for request in owner.requests] == [b"/jobs/%d/conclude" % (ID + 1)]
        assert len(listed.requests) == 4


class Recorded:
    """A transport that answers with a job, and names `url`."""

    def __init__(self, url=None):
        self.headers = [] if url is None else [(b"job-server", url.encode())]
        self.targets = []
        self.outcome = None
        self.closed = 0

    def send(self, request):
        self.targets.append(request.target)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome is not None:
            return self.outcome
        body = JOB
        if request.target.startswith("/jobs/conclude"):
            body = b'{"results":[]}'
        elif request.method == "POST" and request.body.startswith(b"["):
            body = b'{"jobs":[%b]}' % JOB
        return Response(200, self.headers, body)

    def close(self):
        self.closed += 1


class Recording:
    """A client of one listed server that names `http://owner` for everything, and of that one."""

    def __init__(self, urls="http://listed", name="http://owner"):
        self.listed, self.others = Recorded(name), {}
        self.direct = DirectTransport(self.listed, {address_of(urls): self.listed}, self._connect)
        self.client = Client(urls, transport=self.direct)

    def _connect(self, address):
        return self.others.setdefault(str(address), Recorded())

    def counts(self):
        return len(self.listed.targets), {url: len(other.targets) for url, other in self.others.items()}


@pytest.mark.parametrize(
    "make",
    [
        lambda jobs: jobs.enqueue("x"),
        lambda jobs: jobs.enqueue_many([{"type": "x", "queue": "default:a"}, {"type": "x"}]),
        lambda jobs: jobs.dequeue("default:high,default"),
        lambda jobs: jobs.dequeue_job(ID),
        lambda jobs: jobs.conclude(ID, lease="l"),
        lambda jobs: jobs.conclude_many([Conclude(ID, "l"), Conclude(ID + 1, "l")]),
        lambda jobs: jobs.conclude_and_next(ID, lease="l", queues=["default"]),
        lambda jobs: jobs.heartbeat(ID, lease="l"),
        lambda jobs: jobs.release(ID, lease="l"),
        lambda jobs: jobs.fail(ID, "e", lease="l"),
        lambda jobs: jobs.get(ID),
        lambda jobs: jobs.change(ID, priority=1),
        lambda jobs: jobs.cancel(ID),
        lambda jobs: jobs.redrive(ID),
    ],
)
def test_calls_that_one_server_can_answer_are_sent_to_it(make):
    both = Recording()
    make(both.client.jobs)
    assert both.counts() == (1, {"http://owner": 0})
    make(both.client.jobs)
    assert both.counts() == (1, {"http://owner": 1})


@pytest.mark.parametrize(
    "make",
    [
        lambda client: client.jobs.dequeue(["mail", "sms"]),
        lambda client: client.jobs.conclude_many([Conclude(ID, "l"), Conclude(OTHER, "l")]),
        lambda client: client.jobs.enqueue_many([{"type": "x", "queue": 5}]),
        lambda client: client.server.request("GET", "/jobs"),
    ],
)
def test_calls_that_may_need_several_servers_go_to_the_listed_ones(make):
    both = Recording()
    for _ in range(2):
        make(both.client)
    assert both.counts() == (2, {})


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_owner_that_refuses_connections_is_left_at_once_and_not_asked_again(kind, dead):
    with Server(naming(dead)) as listed, Driver(kind, listed.url, retry_for=0) as call:
        for _ in range(3):
            assert call(enqueue).id == 7
        assert len(listed.requests) == 3


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("answers", [True, False])
def test_an_owner_that_speaks_no_tls_is_left_in_the_time_to_connect(kind, answers, monkeypatch):
    monkeypatch.setattr(owners, "_CONNECT", 0.2)

    def serve(peer, _):
        peer.socket.recv(1000)
        if answers:
            peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        else:
            peer.socket.recv(1000)

    with Server(serve) as owner:
        name = owner.url.replace("http:", "https:")
        with Server(naming(name)) as listed, Driver(kind, listed.url, retry_for=0) as call:
            for _ in range(3):
                assert call(enqueue).id == 7
            assert (len(listed.requests), owner.connections) == (3, 1)


@pytest.mark.parametrize(
    "refusal",
    [
        problem(503, "not_ready"),
        problem(503, "stopping"),
        problem(401, "unauthorized"),
        problem(403, "forbidden"),
        problem(404, "no_such_route"),
        answer(b"<html>", "404 Not Found", "Content-Type: text/html"),
        answer(b"", "503 Service Unavailable"),
        answer(b"", "301 Moved Permanently", "Location: https://example.com/"),
    ],
)
@pytest.mark.parametrize("kind", CLIENTS)
def test_what_is_refused_because_another_server_should_be_asked_goes_to_a_listed_one(kind, refusal):
    def serve(peer, _):
        while owner.take(peer) is not None:
            peer.send(refusal)

    with (
        Server(serve) as owner,
        Server(naming(owner.url)) as listed,
        Driver(kind, listed.url, retry_for=0) as call,
    ):
        for _ in range(3):
            assert call(enqueue).id == 7
        assert (len(listed.requests), len(owner.requests)) == (3, 1)


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (problem(404, "job_not_found"), errors.JobNotFound),
        (problem(403, "not_the_consumer"), errors.NotTheConsumer),
        (problem(409, "lease_lost"), errors.LeaseLost),
        (problem(429, "queue_full"), errors.QueueFull),
    ],
)
def test_what_the_owner_says_of_a_job_is_the_answer(refusal, error):
    def serve(peer, _):
        while owner.take(peer) is not None:
            peer.send(refusal)

    with (
        Server(serve) as owner,
        Server(naming(owner.url)) as listed,
        Client(listed.url, retry_for=0) as client,
    ):
        enqueue(client)
        for _ in range(2):
            with pytest.raises(error):
                enqueue(client)
        assert (len(listed.requests), len(owner.requests)) == (1, 2)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("gateway", [b"", answer(b"", "502 Bad Gateway"), problem(503, "outcome_unknown")])
def test_a_call_whose_answer_the_owner_has_lost_is_not_sent_again_but_the_next_goes_to_a_listed_server(
    kind, gateway
):
    def serve(peer, _):
        owner.take(peer)
        peer.send(gateway)

    with Server(serve) as owner, Server(naming(owner.url)) as listed, Driver(kind, listed.url) as call:
        call(enqueue)
        with pytest.raises(MaybeEnqueued):
            call(enqueue)
        assert (len(listed.requests), len(owner.requests)) == (1, 1)
        call(enqueue)
        assert (len(listed.requests), len(owner.requests)) == (2, 1)
    with Server(serve) as owner, Server(naming(owner.url)) as listed, Driver(kind, listed.url) as call:
        call(dequeue)
        with pytest.raises((AnswerLost, errors.OutcomeUnknown)):
            call(dequeue)
        assert (len(listed.requests), len(owner.requests)) == (1, 1)


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_enqueue_with_a_key_whose_answer_the_owner_has_lost_is_repeated_at_a_listed_server(kind):
    def serve(peer, _):
        owner.take(peer)

    with Server(serve) as owner, Server(naming(owner.url)) as listed, Driver(kind, listed.url) as call:
        for _ in range(2):
            assert call(enqueue_with_key).id == 7
        assert (len(listed.requests), len(owner.requests)) == (2, 1)


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_owner_that_does_not_answer_is_left_for_the_next_call(kind):
    def serve(peer, _):
        owner.take(peer)
        peer.request()  # until the client leaves

    options = {"timeout": Timeouts(5, 0.2, None), "retry_for": 0}
    with (
        Server(serve) as owner,
        Server(naming(owner.url)) as listed,
        Driver(kind, listed.url, **options) as call,
    ):
        call(enqueue)
        with pytest.raises(MaybeEnqueued):
            call(enqueue)
        call(enqueue)
        assert (len(listed.requests), len(owner.requests)) == (2, 1)


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_owner_that_names_another_one_is_followed(kind):
    with (
        Server() as second,
        Server(naming(second.url)) as first,
        Server(naming(first.url)) as listed,
        Driver(kind, listed.url) as call,
    ):
        for _ in range(4):
            call(enqueue)
        assert [len(server.requests) for server in (listed, first, second)] == [1, 1, 2]


@pytest.mark.parametrize("kind", CLIENTS)
def test_of_two_servers_that_name_each_other_each_call_asks_one(kind):
    with Server() as first, Server(naming(first.url)) as second:
        first.does(naming(second.url))
        with Driver(kind, first.url) as call:
            for _ in range(6):
                call(enqueue)
        assert (len(first.requests), len(second.requests)) == (3, 3)
        assert (first.connections, second.connections) == (1, 1)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_listed_server_that_is_named_is_asked_over_the_connection_that_there_is(kind):
    def once(peer, _):
        listed.take(peer)
        peer.send(answer(JOB, "201 Created", f"Job-Server: {owner.url}", "Connection: close"))

    with Server() as owner, Server(once) as listed, Driver(kind, f"{listed.url},{owner.url}") as call:
        call(enqueue)
        call(enqueue)
        listed.does(lambda peer, _: listed.take(peer))
        with pytest.raises(MaybeEnqueued):
            call(to("sms"))
        call(to("sms"))  # now the second one of the listed servers is asked
        assert (len(owner.requests), owner.connections) == (2, 1)


def test_a_server_with_another_path_is_asked_with_its_own():
    both = Recording("http://listed/queue", "http://owner/a/b/")
    for _ in range(2):
        both.client.jobs.get(ID)
    assert both.listed.targets == [f"/queue/jobs/{ID}"]
    assert both.others["http://owner/a/b"].targets == [f"/a/b/jobs/{ID}"]


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("https://listed", "http://owner"),
        ("https://listed,http://listed", "http://owner"),
        ("unix:/run/jobqueue", "http://owner"),
        ("http://listed", "http://me:secret@owner"),
        ("http://listed", "http://me@owner"),
        ("http://listed", "unix:/run/jobqueue"),
        ("http://listed", "ftp://owner"),
        ("http://listed", "//owner"),
        ("http://listed", "http://"),
        ("http://listed", "http://owner?a=b"),
        ("http://listed", "http://owner#a"),
        ("http://listed", "http://owner/a b"),
        ("http://listed", "http://owner:70000"),
        ("http://listed", "http://owner:0"),
        ("http://listed", "http://a..b"),
        ("http://listed", f"http://{'a' * 64}"),
        ("http://listed", f"http://owner/{'a' * 1000}"),
        ("http://listed", "http://own\xe9r"),
        ("http://listed", "http://owner,http://other"),
        ("http://listed", ""),
    ],
)
def test_a_url_to_which_nothing_may_be_sent_is_not_followed(listed, url):
    connected = []
    known = Owners(dict.fromkeys(map(address_of, listed.split(",")), "listed"), connected.append)
    known.learn("mail", url)
    assert known.owner("mail") is None
    assert connected == []


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("http://listed", "https://owner"),
        ("https://listed", "https://owner:8443/path"),
        ("unix:/run/jobqueue", "https://owner"),
        ("http://listed", "http://[::1]:8080/"),
        ("http://listed", "http://owner.example.com.:65535"),
    ],
)
def test_a_url_that_is_no_less_safe_is_followed(listed, url):
    known = Owners({address_of(listed): "listed"}, lambda address: "other")
    known.learn("mail", url)
    assert known.owner("mail").address == address_of(url)


def test_an_owner_with_bad_files_for_tls_is_not_followed():
    with Server(naming("https://owner")) as listed, Client(listed.url, ca="/nowhere") as client:
        for _ in range(2):
            enqueue(client)
        assert len(listed.requests) == 2


def test_a_server_is_left_alone_for_longer_after_each_failure_in_a_row(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(owners, "monotonic", lambda: now)
    known = Owners({address_of("http://listed"): "listed"}, lambda address: "other")

    def left_for():
        nonlocal now
        known.learn("mail", "http://owner")
        server = known.owner("mail")
        known.failed(server)
        known.failed(server)  # of another thread, at the same time
        left = server.until - now
        now = server.until - 0.001
        known.learn("mail", "http://owner")
        assert known.owner("mail") is None
        now += 0.001
        return server, left

    assert [left_for()[1] for _ in range(7)] == [30, 60, 120, 240, 480, 960, 960]
    known.answered(left_for()[0])
    assert left_for()[1] == 30


def test_a_bounded_number_of_families_and_servers_is_remembered():
    both = Recording()
    for number in range(1100):
        both.client.jobs.enqueue("x", queue=f"q{number}")
    assert both.counts()[0] == 1100
    both.client.jobs.enqueue("x", queue="q1099")
    assert both.counts()[0] == 1100
    both.client.jobs.enqueue("x", queue="q0")
    assert both.counts()[0] == 1101
    for number in range(100):
        both.listed.headers = [(b"Job-Server", b"http://other%d" % number)]
        both.client.jobs.enqueue("x", queue=f"other{number}")
    closed = Counter(other.closed for other in both.others.values())
    assert closed == {0: 64, 1: 37}
    both.client.close()
    assert {other.closed for other in both.others.values()} == {1}
    assert both.listed.closed == 1


@pytest.mark.parametrize("kind", CLIENTS)
def test_nothing_is_sent_to_other_servers_where_that_is_turned_off(kind, monkeypatch):
    with Server() as owner, Server(naming(owner.url)) as listed:
        for said in ("false", "0", "False"):
            monkeypatch.setenv("JOBQUEUE_DIRECT", said)
            with Driver(kind, listed.url) as call:
                call(enqueue)
                call(enqueue)
        with Driver(kind, listed.url, direct=True) as call:
            call(enqueue)
            call(enqueue)
        monkeypatch.setenv("JOBQUEUE_DIRECT", "")
        with Driver(kind, listed.url, direct=False) as call:
            call(enqueue)
            call(enqueue)
        assert (len(listed.requests), len(owner.requests)) == (9, 1)
        monkeypatch.setenv("JOBQUEUE_DIRECT", "maybe")
        with pytest.raises(ValueError, match="JOBQUEUE_DIRECT=maybe: must be true or false"):
            Client()


def test_a_limit_of_the_client_itself_says_nothing_of_a_server():
    both = Recording()
    enqueue(both.client)
    [owner] = both.others.values()
    owner.outcome = Unreachable("no connection is free", busy=True)
    with pytest.raises(Unreachable):
        enqueue(both.client.options(retry_for=0))
    assert both.counts()[0] == 1
    owner.outcome = None
    enqueue(both.client)
    assert both.counts()[0] == 1


LINE = b'{"id":1,"type":"x","queue":"default"}\n'


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    ("opened", "asked"),
    [
        (chunked(LINE), (1, 2)),
        (problem(503, "not_ready"), (3, 1)),
        (problem(404, "no_such_route"), (3, 2)),
        (b"", (2, 1)),
    ],
    ids=["a stream", "not ready", "another server", "cut"],
)
def test_a_stream_is_opened_at_the_owner_or_else_at_a_listed_server(kind, opened, asked):
    def owns(peer, _):
        owner.take(peer)
        peer.send(opened)

    def serve(peer, _):
        while (request := listed.take(peer)) is not None:
            named = answer(JOB, "201 Created", f"Job-Server: {owner.url}")
            peer.send(chunked(LINE) if b"/stream" in request else named)

    async def read(client):
        async with client.jobs.stream() as jobs:
            return [job async for job in jobs]

    with Server(owns) as owner, Server(serve) as listed, Driver(kind, listed.url) as call:
        call(enqueue)
        for number in range(2):
            try:
                found = call(read if call.loop is not None else lambda client: list(client.jobs.stream()))
            except AnswerLost:
                assert (opened, number) == (b"", 0)
            else:
                assert len(found) == 1
        assert (len(listed.requests), len(owner.requests)) == asked


def test_waits_at_an_owner_are_ended_as_well():
    def serve(peer, _):
        owner.take(peer)
        assert peer.request() is None  # the client says that nothing more will be sent
        peer.send(answer(b"", "204 No Content"))

    with Server(serve) as owner, Server(naming(owner.url)) as listed, Driver("asyncio", listed.url) as call:

        async def waits(client):
            await client.jobs.dequeue()
            waiting = asyncio.create_task(client.jobs.dequeue(wait=20))
            while not owner.requests:
                await asyncio.sleep(0.01)
            client.end_waits()
            return await waiting

        assert call(waits) is None


def test_a_transport_of_ones_own_sees_what_a_request_is_about():
    class Own(Recorded):
        def send(self, request):
            self.about = request.about
            return super().send(request)

    own = Own("http://owner")
    client = Client(transport=own)
    client.jobs.enqueue("x", queue="mail")
    assert own.about == "mail"
    client.jobs.get(7)
    assert own.about == 7
    client.server.request("GET", "/jobs")
    assert own.about == ()
    assert Request("GET", "/", [], b"", Timeouts()).about == ()
