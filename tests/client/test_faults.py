"""What the client does when the other side breaks: at every byte, by its end, a reset or garbage.

The rule: an enqueue without a key is never sent again once it was sent whole, and then says so. What may be
done twice is repeated until it is answered.
"""

import asyncio
import json
import re
import socket
import threading
import time
from contextlib import suppress

import pytest
import uvloop
from fake import CUTS, JOB, FakeServer, answer, chunked

from jobqueue import AnswerLost, AsyncClient, Client, MaybeEnqueued, Timeouts, Unreachable, errors
from jobqueue.client import BadAnswer, codec

CLIENTS = ("blocking", "asyncio", "uvloop")
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
QUICK = Timeouts(connect=5, read=20, total=20)


class Driver:
    """Makes calls with one of the clients: `driver(lambda client: client.jobs.get(7))`."""

    def __init__(self, kind, url, **options):
        options = {"timeout": QUICK} | options
        self.kind = kind
        self.loop = None
        if kind == "blocking":
            self.client = Client(url, **options)
        else:
            self.loop = LOOPS[kind]()
            self.client = AsyncClient(url, **options)

    def __call__(self, make):
        if self.loop is None:
            return make(self.client)
        return self.loop.run_until_complete(make(self.client))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.loop is None:
            self.client.close()
        else:
            self.loop.run_until_complete(self.client.close())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


@pytest.fixture(params=["httptools", "plain"])
def parser(request, monkeypatch):
    """Each of the parsers of answers."""
    if request.param == "plain":
        monkeypatch.setattr(codec, "new_parser", codec._plain_parser)


def enqueue(client):
    return client.jobs.enqueue("x", {"n": 1})


def enqueue_with_key(client):
    return client.jobs.enqueue("x", {"n": 1}, idempotency_key="k")


def enqueue_many(client):
    return client.jobs.enqueue_many([{"type": "x"}])


def conclude(client):
    return client.jobs.conclude(7, lease="l")


def get(client):
    return client.jobs.get(7)


def dequeue(client):
    return client.jobs.dequeue()


CUT = dict(zip(("closed", "reset"), CUTS, strict=True))


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("ending", CUT)
@pytest.mark.parametrize("full", [answer(), chunked(JOB[:9], JOB[9:])], ids=["length", "chunks"])
@pytest.mark.usefixtures("parser")
def test_an_enqueue_whose_answer_is_cut_at_any_byte_may_be_enqueued(kind, ending, full):
    cut = 0

    def serve(peer, _):
        if server.take(peer):
            peer.send(full[:cut])
            CUT[ending](peer)

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        for cut in range(len(full)):
            with pytest.raises(MaybeEnqueued) as caught:
                call(enqueue)
            assert caught.value.code == "maybe_enqueued"
            assert len(server.requests) == cut + 1  # sent once


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("ending", CUT)
def test_a_dequeue_whose_answer_is_cut_at_any_byte_is_not_repeated(kind, ending):
    full, cut = answer(status="200 OK"), 0

    def serve(peer, _):
        if server.take(peer):
            peer.send(full[:cut])
            CUT[ending](peer)

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        for cut in range(len(full)):
            with pytest.raises(AnswerLost) as caught:
                call(dequeue)
            assert type(caught.value) is AnswerLost
            assert len(server.requests) == cut + 1


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(("ending", "verb"), [("closed", enqueue_with_key), ("reset", conclude)])
def test_what_may_be_done_twice_is_repeated_when_its_answer_is_cut_at_any_byte(kind, ending, verb):
    full, cut = answer(status="200 OK"), 0

    def serve(peer, number):
        while server.take(peer):
            if number % 2:
                peer.send(full[:cut])
                CUT[ending](peer)
                return
            peer.send(answer(JOB, "200 OK", "Connection: close"))

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        for cut in range(len(full)):
            assert call(verb).id == 7
            first, second = server.requests[-2:]
            assert first == second
            assert len(server.requests) == 2 * (cut + 1)


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_unknown_outcome_is_asked_for_again_only_where_doing_it_twice_changes_nothing(kind):
    unknown = b'{"status":503,"code":"outcome_unknown","detail":"the database is away","retry_after":0.01}'
    refusal = answer(unknown, "503 Service Unavailable", "Content-Type: application/problem+json")

    def serve(peer, number):
        if server.take(peer):
            peer.send(refusal)
            if server.take(peer):
                peer.send(answer())

    for verb, error in ((enqueue, MaybeEnqueued), (dequeue, errors.OutcomeUnknown)):
        with FakeServer(serve) as server, Driver(kind, server.url) as call:
            with pytest.raises(error):
                call(verb)
            assert len(server.requests) == 1
    for verb in (enqueue_with_key, conclude, get):
        with FakeServer(serve) as server, Driver(kind, server.url) as call:
            assert call(verb).id == 7
            assert len(server.requests) == 2


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_request_that_is_cut_at_any_byte_is_never_doubled(kind):
    """The server reads so many bytes and resets. Of an enqueue without a key it sees one request at most."""
    with FakeServer() as server, Driver(kind, server.url) as call:
        call(enqueue)
    whole, cut, seen = len(server.requests[0]), 0, 0

    def serve(peer, _):
        nonlocal seen
        got = b""
        while len(got) < cut and (data := peer.socket.recv(cut - len(got))):
            got += data
        seen += len(got) == cut
        peer.reset()

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        for cut in range(1, whole + 1):
            with pytest.raises(MaybeEnqueued):
                call(enqueue)
            assert server.connections == cut
    assert seen == whole


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_large_request_that_could_not_be_sent_whole_is_sent_again(kind):
    """The first connection is reset while the client still sends: nothing was enqueued."""

    def serve(peer, number):
        if number == 1:
            peer.socket.recv(100)
            peer.reset()
            return
        if server.take(peer):
            peer.send(answer())

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        try:
            made = call(lambda client: client.jobs.enqueue("x", "y" * (16 << 20)))
        except MaybeEnqueued:
            assert kind != "blocking"  # it hands all to the loop, and does not learn how much was sent
            assert server.requests == []
        else:
            assert made.id == 7
            assert len(server.requests) == 1


def import_jobs(*lines):
    return lambda client: client.queues.import_jobs(lines)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    "payload", [b'"%b"', b'{"origin":"a-1","text":"%b"}'], ids=["text", "with an origin"]
)
def test_an_import_of_lines_without_an_origin_that_was_sent_in_part_is_not_repeated(kind, payload):
    """The server imports lines as they come, so the first of them may be there."""

    def serve(peer, number):
        peer.socket.recv(100)
        peer.reset()

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        with pytest.raises(MaybeEnqueued):
            call(import_jobs(b'{"type":"x","payload":%b}' % (payload % (b"y" * (16 << 20)))))
        assert server.connections == 1


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_import_of_exported_lines_is_repeated(kind):
    def serve(peer, number):
        if number == 1:
            peer.socket.recv(100)
            peer.reset()
        elif server.take(peer):
            peer.send(answer(b'{"imported":1,"known":0}'))

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        line = b'{"origin":"a-1","type":"x","payload":"%b"}' % (b"y" * (16 << 20))
        assert call(import_jobs(line)).imported == 1
        assert server.connections == 2


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.usefixtures("parser")
def test_an_answer_may_come_byte_by_byte(kind):
    def serve(peer, _):
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while server.take(peer):
            for byte in chunked(JOB[:5], JOB[5:6], JOB[6:]):
                peer.send(bytes([byte]))

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        assert [call(enqueue).id for _ in range(3)] == [7, 7, 7]
        assert server.connections == 1


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\1\2\3\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nno length",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        answer(b"<html>", "200 OK"),
        answer(b'{"id":"seven"}', "200 OK"),
        answer(b"", "200 OK"),
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000,
    ],
)
@pytest.mark.usefixtures("parser")
def test_garbage_is_a_bad_answer_and_of_an_enqueue_it_may_be_enqueued(kind, garbage):
    def serve(peer, _):
        while server.take(peer):
            peer.send(garbage)

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        with pytest.raises(BadAnswer):
            call(get)
        with pytest.raises(MaybeEnqueued):
            call(enqueue)
        assert len(server.requests) == 2


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    ("status", "kind_of_error"),
    [
        ("301 Moved Permanently", BadAnswer),
        ("404 Not Found", BadAnswer),
        ("418 I'm a teapot", BadAnswer),
        ("401 Unauthorized", errors.Unauthorized),
        ("413 Too Large", errors.BodyTooLarge),
        ("503 Service Unavailable", errors.Unavailable),
        ("502 Bad Gateway", MaybeEnqueued),
        ("504 Gateway Timeout", MaybeEnqueued),
    ],
)
def test_an_answer_of_a_gateway_is_told_apart_from_one_of_the_server(kind, status, kind_of_error):
    def serve(peer, _):
        while server.take(peer):
            peer.send(answer(b"<html>", status, "Content-Type: text/html", "Location: https://else"))

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        with pytest.raises(errors.JobQueueError) as caught:
            call(enqueue)
        assert isinstance(caught.value, kind_of_error)
        assert caught.value.status == int(status[:3])
        assert len(server.requests) == 1


def refusing(status, code, *headers):
    body = b'{"code":"%b","status":%b,"detail":"later","request_id":"r-1"%b}' % (
        code.encode(), status[:3].encode(), b',"retry_after":%d' % int(headers[0].split()[1]) if headers else b"",
    )  # fmt: skip
    return answer(body, status, "Content-Type: application/problem+json", *headers)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    "refusal",
    [
        refusing("503 Service Unavailable", "not_ready", "Retry-After: 0"),
        refusing("429 Too Many Requests", "queue_full", "Retry-After: 0"),
        answer(b"", "503 Service Unavailable", "Retry-After: 0"),
        refusing("408 Request Timeout", "request_timeout"),
    ],
)
def test_what_was_refused_for_now_is_sent_again(kind, refusal):
    def serve(peer, _):
        for number in range(3):
            server.take(peer)
            peer.send(answer() if number == 2 else refusal)

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        assert call(enqueue).id == 7
        assert len(server.requests) == 3
        assert server.connections == 1


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    ("refusal", "kind_of_error"),
    [
        (refusing("429 Too Many Requests", "queue_full", "Retry-After: 31"), errors.QueueFull),
        (refusing("503 Service Unavailable", "stopping"), errors.Stopping),
        (refusing("507 Insufficient Storage", "disk_full"), errors.DiskFull),
        (refusing("500 Internal Server Error", "internal"), errors.JobQueueError),
    ],
)
def test_what_will_not_be_better_soon_is_raised_at_once(kind, refusal, kind_of_error):
    def serve(peer, _):
        while server.take(peer):
            peer.send(refusal)

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        with pytest.raises(kind_of_error) as caught:
            call(enqueue)
        assert (caught.value.request_id, len(server.requests)) == ("r-1", 1)


@pytest.mark.parametrize("kind", CLIENTS)
def test_without_retry_for_nothing_is_sent_again(kind):
    def serve(peer, _):
        if server.take(peer):
            peer.send(refusing("503 Service Unavailable", "not_ready", "Retry-After: 0"))

    with FakeServer(serve) as server, Driver(kind, server.url, retry_for=0) as call:
        with pytest.raises(errors.NotReady):
            call(get)
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", CLIENTS)
def test_jobs_for_queues_of_several_servers_are_enqueued_family_by_family_in_order(kind):
    def serve(peer, _):
        while (request := server.take(peer)) is not None:
            jobs = json.loads(request.partition(b"\r\n\r\n")[2])
            if len({job["queue"].partition(":")[0] for job in jobs}) > 1:
                peer.send(refusing("400 Bad Request", "several_families"))
            else:
                made = [{"id": int(job["queue"][-1]), "queue": job["queue"]} for job in jobs]
                peer.send(answer(json.dumps({"jobs": made}).encode()))

    queues = ["a:1", "b:2", "a:3", "b:4"]
    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        jobs = [{"type": "x", "queue": queue} for queue in queues]
        made = call(lambda client: client.jobs.enqueue_many(jobs, idempotency_key="k"))
        assert [job.queue for job in made] == queues
        keys = [re.search(rb"(?i)idempotency-key: (\S+)", request)[1] for request in server.requests]
        assert keys == [b"k-0", b"k-0-0", b"k-0-1"]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("verb", [enqueue_with_key, enqueue_many], ids=lambda verb: verb.__name__)
def test_an_enqueue_that_was_sent_once_and_then_finds_no_server_may_be_enqueued(kind, verb):
    """The first answer is lost and the server is gone: what raises is not `Unreachable`."""

    def serve(peer, number):
        server.take(peer)
        server._listening.shutdown(socket.SHUT_RDWR)
        peer.close()

    with FakeServer(serve) as server, Driver(kind, server.url, retry_for=0.3) as call:
        with pytest.raises(MaybeEnqueued):
            call(verb)
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    "second",
    [
        refusing("503 Service Unavailable", "stopping"),
        answer(b"", "503 Service Unavailable"),
        answer(b"", "429 Too Many Requests"),
        answer(b"", "404 Not Found"),
        b"garbage\r\n\r\n",
    ],
)
def test_an_enqueue_that_was_sent_once_and_is_then_refused_on_the_way_may_be_enqueued(kind, second):
    def serve(peer, number):
        server.take(peer)
        if number == 2:
            peer.send(second)
        peer.close()

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        with pytest.raises(MaybeEnqueued):
            call(enqueue_with_key)
        assert len(server.requests) == 2


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_enqueue_that_was_sent_once_and_is_then_refused_by_the_server_is_refused(kind):
    def serve(peer, number):
        server.take(peer)
        if number == 2:
            peer.send(refusing("400 Bad Request", "invalid_field"))
        peer.close()

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        with pytest.raises(errors.InvalidField):
            call(enqueue_with_key)
        assert len(server.requests) == 2


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.usefixtures("parser")
def test_an_answer_to_head_has_a_length_and_no_body(kind):
    def serve(peer, _):
        while request := server.take(peer):
            head = request.startswith(b"HEAD")
            peer.send(answer().removesuffix(JOB) if head else answer())

    with FakeServer(serve) as server, Driver(kind, server.url, timeout=Timeouts(total=5)) as call:
        for _ in range(2):
            found = call(lambda client: client.server.request("HEAD", "/jobs/7"))
            assert (found.status, found.header("content-length"), found.body) == (201, str(len(JOB)), b"")
            assert call(get).id == 7
        assert server.connections == 1


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_connection_that_the_server_closed_meanwhile_is_not_used(kind):
    def serve(peer, _):
        if server.take(peer):
            peer.send(answer())
        peer.close()
        closed.set()

    closed = threading.Event()
    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        for _ in range(20):
            closed.clear()
            assert call(enqueue).id == 7
            assert closed.wait(10)
        assert server.connections == len(server.requests) == 20


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("unasked", [b"x", answer(b'{"id":666}')])
def test_a_connection_on_which_something_unasked_came_is_not_used(kind, unasked):
    def serve(peer, _):
        while server.take(peer):
            peer.send(answer() + unasked)

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        assert [call(enqueue).id for _ in range(5)] == [7] * 5
        assert server.connections == 5


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_connection_is_kept_and_is_closed_when_the_server_says_so(kind):
    def serve(peer, number):
        while server.take(peer):
            last = len(server.requests) == 3
            peer.send(answer(JOB, "200 OK", *["Connection: close"] * last))

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        for _ in range(5):
            call(enqueue)
        assert server.connections == 2


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.usefixtures("parser")
def test_interim_answers_are_skipped(kind):
    def serve(peer, _):
        while server.take(peer):
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer())

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        assert [call(enqueue).id for _ in range(2)] == [7, 7]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.usefixtures("parser")
def test_an_answer_without_content_is_none(kind):
    def serve(peer, _):
        while server.take(peer):
            peer.send(b"HTTP/1.1 204 No Content\r\nQueue-State: empty\r\n\r\n")

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        assert [call(dequeue) for _ in range(3)] == [None] * 3
        assert server.connections == 1


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("timeouts", [Timeouts(read=0.1), Timeouts(read=10, total=0.1)])
def test_a_server_that_is_silent_is_given_up(kind, timeouts):
    def serve(peer, _):
        server.take(peer)
        peer.request()  # until the client gives up

    with FakeServer(serve) as server, Driver(kind, server.url, timeout=timeouts, retry_for=0) as call:
        with pytest.raises(AnswerLost, match="time is over"):
            call(get)
        with pytest.raises(MaybeEnqueued, match="time is over"):
            call(enqueue)


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_answer_that_drips_for_ever_is_given_up(kind):
    """Each byte comes in time, the answer does not."""

    def serve(peer, _):
        server.take(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with suppress(OSError):
            while True:
                peer.socket.sendall(b"a")
                never.wait(0.01)

    never = threading.Event()
    limits = Timeouts(read=10, total=0.2)
    with FakeServer(serve) as server, Driver(kind, server.url, timeout=limits, retry_for=0) as call:
        before = time.monotonic()
        with pytest.raises(AnswerLost, match="time is over"):
            call(get)
        assert time.monotonic() - before < 8


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_wait_is_added_to_the_time_limits(kind):
    """A long poll of 20 s is answered after 0.15 s; the limits alone are 0.1 s."""

    def serve(peer, _):
        while server.take(peer):
            never.wait(0.15)
            peer.send(answer(JOB, "200 OK"))

    never = threading.Event()
    limits = Timeouts(read=0.1, total=0.1)
    with FakeServer(serve) as server, Driver(kind, server.url, timeout=limits, retry_for=0) as call:
        assert call(lambda client: client.jobs.dequeue(wait="20s")).id == 7
        assert call(lambda client: client.jobs.get(7, wait=20)).id == 7


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_refused_connection_is_tried_again_until_the_server_is_there(kind, tmp_path):
    path = str(tmp_path / "socket")
    listening = socket.socket(socket.AF_UNIX)

    def start():
        listening.bind(path)
        listening.listen()
        connected, _ = listening.accept()
        connected.recv(1 << 16)
        connected.sendall(answer())
        connected.close()

    with Driver(kind, f"unix:{path}") as call:
        timer = threading.Timer(0.1, start)
        timer.start()
        assert call(enqueue).id == 7
        timer.join()
    listening.close()


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_that_is_not_there_is_unreachable(kind):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        Driver(kind, f"http://127.0.0.1:{port}", retry_for=0.2) as call,
        pytest.raises(Unreachable) as caught,
    ):
        call(enqueue)
    assert f"http://127.0.0.1:{port}" in caught.value.detail
    assert caught.value.status is None


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_host_that_does_not_exist_is_not_tried_again(kind):
    with Driver(kind, "http://no-such-host.invalid") as call:
        before = time.monotonic()
        with pytest.raises(Unreachable):
            call(enqueue)
        assert time.monotonic() - before < 25  # not for 30 seconds


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_stream_that_is_cut_is_an_error_and_its_end_is_not(kind):
    def serve(peer, number):
        server.take(peer)
        line = b'{"id":7}\n\n{"id":8}\n{"id"'
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(line), line))
        if number == 2:
            peer.send(b"4\r\n:9}\n\r\n0\r\n\r\n")
        peer.close()

    def ids(client):
        return [job.id for job in client.jobs.stream()]

    async def ids_async(client):
        return [job.id async for job in client.jobs.stream()]

    with FakeServer(serve) as server, Driver(kind, server.url) as call:
        read = ids if kind == "blocking" else ids_async
        with pytest.raises(AnswerLost):
            call(read)
        assert call(read) == [7, 8, 9]
