"""Clients of several servers: calls go to the next one when one is away, and nothing is done twice."""

import socket
from collections.abc import Iterator

import pytest
from fake import JOB, FakeServer, answer, chunked
from test_faults import CLIENTS, Driver, dequeue, enqueue, enqueue_with_key, get

from jobqueue import AnswerLost, AsyncClient, Client, MaybeEnqueued, Timeouts, Unreachable
from jobqueue.client import Request, Response, address
from jobqueue.client.failover import FailoverTransport


@pytest.fixture
def dead() -> Iterator[str]:
    """The address of a server that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_address_that_refuses_is_passed_over_at_once_and_not_asked_again(kind, dead, monkeypatch):
    with FakeServer() as server:
        monkeypatch.setenv("JOBQUEUE_URL", f"{dead},{dead}, {server.url}")
        with Driver(kind, None, retry_for=0) as call:
            for _ in range(3):
                assert call(enqueue).id == 7
            assert call.client.url == f"{dead},{dead},{server.url}"
            assert call.client.options(retry_for=1).url == call.client.url
    assert (len(server.requests), server.connections) == (3, 1)


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_enqueue_whose_answer_was_lost_is_not_sent_to_another_server_but_the_next_call_is(kind):
    def serve(peer, _):
        bad.take(peer)

    with FakeServer(serve) as bad, FakeServer() as good, Driver(kind, f"{bad.url},{good.url}") as call:
        with pytest.raises(MaybeEnqueued, match="with an idempotency_key the client asks again"):
            call(enqueue)
        assert (len(bad.requests), len(good.requests)) == (1, 0)
        assert call(enqueue).id == 7
        assert (len(bad.requests), len(good.requests)) == (1, 1)
    with FakeServer(serve) as bad, FakeServer() as good, Driver(kind, f"{bad.url},{good.url}") as call:
        with pytest.raises(AnswerLost):
            call(dequeue)
        assert (len(bad.requests), len(good.requests)) == (1, 0)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("verb", [enqueue_with_key, get])
def test_what_may_be_done_twice_goes_to_the_next_server_when_its_answer_was_lost(kind, verb):
    def serve(peer, _):
        bad.take(peer)

    with FakeServer(serve) as bad, FakeServer() as good, Driver(kind, f"{bad.url},{good.url}") as call:
        assert call(verb).id == 7
        assert (len(bad.requests), len(good.requests)) == (1, 1)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_that_is_not_ready_is_left(kind):
    def serve(peer, _):
        while bad.take(peer):
            peer.send(answer(b"", "503 Service Unavailable", "Retry-After: 0"))

    with FakeServer(serve) as bad, FakeServer() as good, Driver(kind, f"{bad.url},{good.url}") as call:
        assert call(enqueue).id == 7
        assert (len(bad.requests), len(good.requests)) == (1, 1)


@pytest.mark.parametrize("kind", CLIENTS)
def test_after_the_last_server_comes_the_first_again(kind):
    def once(peer, _):
        first.take(peer)
        peer.send(answer(JOB, "201 Created", "Connection: close"))

    with FakeServer(once) as first:
        with FakeServer() as second, Driver(kind, f"{first.url},{second.url}") as call:
            call(enqueue)
            first.serve = lambda peer, _: first.take(peer)
            with pytest.raises(MaybeEnqueued):
                call(enqueue)
            call(enqueue)
            first.serve, second.serve = once, lambda peer, _: second.take(peer)
            call.client.close() if call.loop is None else call.loop.run_until_complete(call.client.close())
            with pytest.raises(MaybeEnqueued):
                call(enqueue)
            assert call(enqueue).id == 7
        assert (len(first.requests), len(second.requests)) == (3, 2)


@pytest.mark.parametrize("kind", CLIENTS)
def test_if_no_server_can_be_reached_the_error_names_all(kind, dead):
    urls = f"{dead},https://127.0.0.1:1"
    with Driver(kind, urls, retry_for=0) as call, pytest.raises(Unreachable) as caught:
        call(enqueue)
    refused = "Connection refused"
    assert caught.value.detail == (
        f"cannot connect to {dead}: {refused}; cannot connect to https://127.0.0.1:1: {refused}"
    )
    assert caught.value.facts["permanent"] is False


def test_a_stream_is_opened_at_the_next_server(dead):
    def serve(peer, _):
        server.take(peer)
        peer.send(chunked(b'{"id":1,"type":"x","queue":"q"}\n'))

    with FakeServer(serve) as server:
        urls = f"{dead},{server.url}"
        with Client(urls) as client:
            assert len(list(client.queues.export("q"))) == 1
        with Driver("asyncio", urls) as call:

            async def lines(client):
                client.end_waits()
                return [line async for line in client.queues.export("q")]

            assert len(call(lines)) == 1


class Recorded:
    """A transport that does the same with each request."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.count = 0

    def send(self, request):
        self.count += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def close(self):
        pass


@pytest.mark.parametrize(
    ("fact", "then"), [("sent_partly", 1), ("busy", 0)], ids=["a part was sent", "the client's own limit"]
)
def test_a_request_that_may_not_go_to_another_server_is_only_sent_once(fact, then):
    """An import acts on the parts that it has; a client without a free connection says nothing of the server."""
    first, second = Recorded(Unreachable("no", **{fact: True})), Recorded(Response(200, [], b""))
    both = FailoverTransport([first, second])
    request = Request("POST", "/", [], b"", Timeouts())
    with pytest.raises(Unreachable):
        both.send(request)
    assert (first.count, second.count) == (1, 0)
    if then:
        both.send(request)
        assert (first.count, second.count) == (1, 1)


def test_several_addresses_are_read_and_share_a_token_and_a_path():
    found = address.addresses_of("http://:to,ken@a:1/p,q/ , https://b/p,q")
    assert [(each.host, each.port, each.tls, each.prefix, each.token) for each in found] == [
        ("a", 1, False, "/p,q", "to,ken"), ("b", 443, True, "/p,q", "to,ken"),
    ]  # fmt: skip
    assert address.shown(found) == "http://a:1/p,q,https://b/p,q"
    assert "ken" not in repr(AsyncClient("http://:to,ken@a,http://b"))


@pytest.mark.parametrize(
    ("urls", "told"),
    [
        ("http://a:8080,b:8080", "write each of several addresses whole"),
        ("http://a,b:8080", "write each of several addresses whole"),
        ("http://a,", "write each of several addresses whole"),
        ("http://a,http://b/c", "the same path"),
        ("http://:secret@a,http://:secret2@b", "the same token"),
    ],
)
def test_several_addresses_that_do_not_fit_are_a_value_error(urls, told):
    with pytest.raises(ValueError, match=told) as caught:
        Client(urls)
    assert "secret" not in str(caught.value)
