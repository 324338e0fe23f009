"""What readers remember of a query changes no answer: a request is read as by readers that know nothing."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobqueue import Settings
from jobqueue.errors import JobQueueError
from jobqueue.web.http import Request
from jobqueue.web.readers import decoder
from jobqueue.web.readers.consume import ConsumeReaders
from jobqueue.web.readers.limits import Limits
from jobqueue.web.readers.produce import ProduceReaders

LIMITS = Limits(Settings(max_result=1024, max_body=1024))
CONSUME, PRODUCE = ConsumeReaders(LIMITS), ProduceReaders(LIMITS)
KNOWN = (
    CONSUME._of_dequeue_query, CONSUME._of_conclude_query, PRODUCE._of_query,
    CONSUME._heartbeat._known, CONSUME._release._known, CONSUME._fail._known,
)  # fmt: skip
OPTIONS = [
    "lease=abc", "lease=abc", "lease=", "Lease=abc", "lease=a%20b", "%6Cease=abc", "consumer=me", "consumer=you",
    "consumer=%00", "raw=1", "raw=0", "next=1", "next=1", "Next=0", "next=x", "queue=a", "queue=b", "queue=", "queue=%2e",
    "queues=a,b", "order=priority", "order=x", "wait=30", "wait=0", "wait=99h", "lease_for=5s", "lease_for=1ms",
    "count=2", "count=0", "priority=5", "priority=-5", "priority=x", "type=t", "nothing=1", "release=1", "", "=", "a+b=c",
    "delay=5", "delay=0", "retry=false", "retry=1", "retry_in=5s", "retry_in=x", "progress=50", "progress=x", "message=m",
    "error=no", "Error=1",
]  # fmt: skip
FIELDS = [
    ("lease", "abc"), ("lease", "xyz"), ("lease", ""), ("lease", None), ("consumer", "me"), ("consumer", "\0"),
    ("result", {"a": [1]}), ("result", "x" * 1100), ("result", None), ("next", True), ("queue", "a"), ("queue", "b"),
    ("queue", ""), ("queue", None), ("priority", 5), ("priority", 0), ("type", "t"), ("type", "t" * 300), ("payload", [1]),
    ("payload", "x" * 1100), ("delay", 1), ("wait", 1), ("nothing", 1), ("Lease", "abc"), ("count", 1),
    ("retry", False), ("retry", True), ("retry_in", 5), ("error", "no"), ("error", {"message": "m"}), ("error", None),
    ("progress", 50), ("message", "m"), ("message", "m" * 2000), ("lease_for", "5s"), ("raw", True),
]  # fmt: skip
queries = st.lists(st.sampled_from(OPTIONS), max_size=4).map("&".join)
bodies = st.sampled_from(
    [b"", b" ", b"{", b"[]", b'{"type":"t"}\n{"type":"u"}', b'{"type":"t","payload":"\xff"}', b"\xff"]
)
bodies |= st.lists(st.sampled_from(FIELDS), max_size=4).map(lambda fields: json.dumps(dict(fields)).encode())
bodies |= bodies.map(lambda body: body.replace(b"{", b'{"type":"t",', 1))
headers = st.sampled_from([{}, {}, {}, {b"job-lease": b"abc"}, {b"queue-consumer": b"me"},
                           {b"content-type": b"application/x-ndjson"}, {b"content-type": b"application/json"},
                           {b"traceparent": b"00-1"}])  # fmt: skip


def read(call, *request):
    try:
        return repr(call(*request))
    except JobQueueError as refused:
        return type(refused), refused.detail, refused.facts


@pytest.mark.parametrize("verb", ["conclude", "dequeue", "enqueue", "heartbeat", "release", "fail"])
def test_a_known_query_is_read_like_a_new_one(verb):
    call, more = {
        "conclude": (CONSUME.conclude, (7,)), "dequeue": (CONSUME.dequeue, ()), "enqueue": (PRODUCE.enqueue, (lambda: 0,)),
        "heartbeat": (CONSUME.heartbeat, (7,)), "release": (CONSUME.release, (7,)), "fail": (CONSUME.fail, (7,)),
    }[verb]  # fmt: skip

    @given(queries, bodies, headers)
    @example("lease=abc&next=1", b"", {})
    @example("next=1&lease=abc&wait=30", b'{"result":1}', {})
    @example("queue=a&", b'{"type":"t","payload":"x"}', {})
    def same(query, body, sent):
        for known in KNOWN:
            known.clear()
        request = Request("POST", "/", query, sent, body, "", "")
        new = read(call, request, *more)
        rest, _ = decoder.without_lease(query)
        for taught in (b"", b'{"type":"t"}', b'{"lease":"abc"}'):
            for known in (query, rest):
                read(call, Request("POST", "/", known, {}, taught, "", ""), *more)
        assert read(call, request, *more) == new

    same()


@pytest.mark.parametrize(
    ("call", "query"),
    [
        (
            lambda request: CONSUME.conclude(request, 1),
            "next=1&wait=30&lease=abc&raw=1&queues=a,b&consumer=me",
        ),
        (CONSUME.dequeue, "queue=a&wait=30&lease_for=5s"),
        (lambda request: CONSUME.heartbeat(request, 1), "lease=abc&lease_for=60"),
        (lambda request: CONSUME.release(request, 1), "lease=abc&delay=5"),
        (lambda request: CONSUME.fail(request, 1), "retry_in=5s&lease=abc&raw=1"),
        (lambda request: PRODUCE.enqueue(request, lambda: 0), "queue=a&priority=5"),
    ],
)
def test_the_queries_of_workers_are_remembered(call, query):
    for known in KNOWN:
        known.clear()
    body = b'{"type":"t"}' if "priority" in query else b""
    first = call(Request("POST", "/", query, {}, body, "", ""))
    assert [len(known) for known in KNOWN].count(1) == 1
    assert repr(call(Request("POST", "/", query, {}, body, "", ""))) == repr(first)


def test_no_lease_is_remembered_and_the_number_of_queries_is_limited():
    for known in KNOWN:
        known.clear()
    for number in range(3000):
        CONSUME.conclude(Request("POST", "/", f"lease=secret{number}&next=1", {}, b"", "", ""), 1)
        CONSUME.fail(Request("POST", "/", f"retry_in=5&lease=secret{number}", {}, b"", "", ""), 1)
        CONSUME.heartbeat(Request("POST", "/", f"lease=x&message=m{number}", {}, b"", "", ""), 1)
        CONSUME.release(Request("POST", "/", f"lease=x&delay={number}", {}, b"", "", ""), 1)
        CONSUME.dequeue(Request("POST", "/", f"wait={number % 60}&consumer=c{number}", {}, b"", "", ""))
    assert list(CONSUME._of_conclude_query) == ["next=1"]
    assert list(CONSUME._fail._known) == ["retry_in=5&"]
    assert list(CONSUME._heartbeat._known) == []
    assert 0 < len(CONSUME._release._known) <= 1024
    assert 0 < len(CONSUME._of_dequeue_query) <= 1024
    CONSUME.dequeue(Request("POST", "/", "queues=" + ",".join(["a" * 100] * 10), {}, b"", "", ""))
    assert max(map(len, CONSUME._of_dequeue_query)) <= 512
