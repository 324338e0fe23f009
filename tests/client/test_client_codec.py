"""Answers are read the same, however they are cut into pieces and by whichever parser."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobqueue.client import codec
from jobqueue.client.codec import Malformed, RequestWriter, ResponseReader
from jobqueue.client.http import Request, Response, Timeouts

THOROUGH = settings(
    deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
PARSERS = {"httptools": codec._httptools_parser, "plain": codec._plain_parser}


def reader_of(parser):
    reader = ResponseReader()
    reader._parser = PARSERS[parser](reader)
    return reader


names = st.sampled_from(["X-Request-Id", "etag", "Date", "content-type", "Queue-State", "Connection-Hint"])
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
bodies = st.binary(max_size=200)


@st.composite
def answers(draw):
    """An answer as a server may send it, and what it says."""
    status = draw(st.sampled_from([200, 201, 202, 204, 400, 404, 409, 429, 503]))
    headers = draw(st.lists(st.tuples(names, values), max_size=5))
    body = b"" if status == 204 else draw(bodies)
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    lines = [f"HTTP/1.1 {status} Some words", *(f"{name}: {value}" for name, value in headers)]
    sent = body
    if status != 204 and draw(st.booleans()):
        lines.append("Transfer-Encoding: chunked")
        cuts = sorted(draw(st.sets(st.integers(1, max(len(body) - 1, 1)), max_size=4)))
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if body[a:b]]
        sent = b"".join(b"%X;x=y\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        sent += b"0\r\n" + draw(st.sampled_from([b"", b"X-Trailer: y\r\n"])) + b"\r\n"
    elif status != 204:
        lines.append(f"Content-Length: {len(body)}")
    close = draw(st.booleans())
    if close:
        lines.append("Connection: close")
    return interim + "\r\n".join(lines).encode() + b"\r\n\r\n" + sent, status, headers, body, close


@pytest.mark.parametrize("parser", PARSERS)
@THOROUGH
@given(made=st.lists(answers(), min_size=1, max_size=3), data=st.data())
def test_answers_are_read_however_they_are_cut(parser, made, data):
    reader = reader_of(parser)
    for sent, status, headers, body, close in made:
        reader.next()
        cuts = sorted(data.draw(st.sets(st.integers(0, len(sent)), max_size=8)))
        for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            assert not reader.done or start == end
            reader.feed(sent[start:end])
        assert reader.done
        response = reader.response()
        assert (response.status, response.body) == (status, body)
        for name, value in headers:
            assert (name.encode(), value.encode()) in response.headers
        assert reader.reusable != close
        if close:
            return


@pytest.mark.parametrize("parser", PARSERS)
@THOROUGH
@given(made=answers(), more=st.binary(min_size=1, max_size=20))
def test_what_comes_after_an_answer_is_not_part_of_it(parser, made, more):
    sent, status, _, body, _ = made
    reader = reader_of(parser)
    reader.feed(sent + more)
    assert reader.done
    assert (reader.response().status, reader.response().body) == (status, body)
    assert not reader.reusable or more.strip(b"\r\n") == b""


@pytest.mark.parametrize("parser", PARSERS)
@THOROUGH
@given(made=answers(), at=st.integers(0, 400), wrong=st.binary(max_size=10))
def test_a_damaged_answer_is_read_or_malformed_and_nothing_else(parser, made, at, wrong):
    sent = made[0]
    at = min(at, len(sent))
    reader = reader_of(parser)
    with suppress(Malformed):
        reader.feed(sent[:at] + wrong + sent[at + len(wrong) :])
    if reader.done:
        assert isinstance(reader.response(), Response)


@pytest.mark.parametrize("parser", PARSERS)
@THOROUGH
@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_is_malformed_or_not_done(parser, garbage):
    reader = reader_of(parser)
    try:
        reader.feed(garbage)
    except Malformed:
        return
    assert not reader.done


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX y: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_is_malformed(parser, head):
    with pytest.raises(Malformed):
        reader_of(parser).feed(head)


def test_a_request_has_the_headers_once_and_its_length():
    writer = RequestWriter(b"host:1")
    sent = writer.encode(Request("POST", "/a?b=c", [(b"X-Y", b"z")], b"{}", Timeouts()))
    assert sent == b"POST /a?b=c HTTP/1.1\r\nHost: host:1\r\nX-Y: z\r\nContent-Length: 2\r\n\r\n{}"
    sent = writer.encode(Request("GET", "/", [], b"", Timeouts()))
    assert sent == b"GET / HTTP/1.1\r\nHost: host:1\r\n\r\n"


@pytest.mark.parametrize("kind", [tuple, list])
def test_each_request_has_its_own_headers(kind):
    writer = RequestWriter(b"host")
    same, other = kind([(b"A", b"b")]), kind([(b"C", b"d")])
    for headers in (same, same, other, kind(), same):
        sent = writer.encode(Request("POST", "/", headers, b"", Timeouts()))
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        assert sent == b"POST / HTTP/1.1\r\nHost: host\r\n%bContent-Length: 0\r\n\r\n" % lines
    if kind is list:
        same.append((b"E", b"f"))
        assert b"E: f" in writer.encode(Request("POST", "/", same, b"", Timeouts()))


@pytest.mark.parametrize(
    ("method", "target", "header"),
    [
        ("GET", "/", (b"A", b"b\r\nC: d")),
        ("GET", "/", (b"A", b"b\nC: d")),
        ("GET", "/", (b"A", b"b\r")),
        ("GET", "/", (b"A: b\r\nC", b"d")),
        ("GET", "/ /", (b"A", b"b")),
        ("GET", "/\r\nA:", (b"A", b"b")),
        ("GET", "/\n", (b"A", b"b")),
        ("GET /", "/", (b"A", b"b")),
        ("GET\r\n", "/", (b"A", b"b")),
    ],
)
def test_no_value_becomes_a_header_or_a_request_of_its_own(method, target, header):
    request = Request(method, target, (header,), b"", Timeouts())
    writer = RequestWriter(b"host")
    for _ in range(2):
        with pytest.raises(ValueError, match="line break"):
            writer.encode(request)
