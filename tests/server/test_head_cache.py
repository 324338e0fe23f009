"""The head cache recognises request lines with another number, and only those."""

from random import Random

import pytest

from jobqueue import MemoryEngine
from jobqueue.server.http1.head_cache import HeadCache, kind_of
from jobqueue.web.dispatch import Dispatcher

KNOWN = b"POST /jobs/12/conclude HTTP/1.1\r\n"


@pytest.fixture
def heads():
    heads = HeadCache(Dispatcher(MemoryEngine()).router, {})
    assert heads.line(KNOWN)[4] == "12"
    return heads


def test_a_line_with_another_number_is_known(heads):
    method, path, query, route, parameter = heads.line(b"POST /jobs/3456/conclude HTTP/1.1\r\n")
    assert (method, path, query, parameter) == ("POST", "/jobs/3456/conclude", "", "3456")
    assert route is heads.line(KNOWN)[3]


@pytest.mark.parametrize(
    "line",
    [
        b"POST /jobs//conclude HTTP/.\r\n", b"POST /jobs//conclude HTTP/1.\r\n", b"POST /jobs//conclude HTTP/1.1\r\n",
        b"POST /jobs/12/conclude HTTP/1.0\r\n", b"POST /jobs/12/conclude HTTP/.11\r\n",
        b"POST1 /jobs/2/conclude HTTP/1.1\r\n", b"POST /jobs/1/conclude1 HTTP/1.1\r\n",
    ],
)  # fmt: skip
def test_a_line_with_digits_in_other_places_goes_to_llhttp(heads, line):
    """Also a line shorter than the bytes around the number: compiled code cannot slice bytes backwards."""
    assert heads.line(line) is None


@pytest.mark.parametrize(
    "path", ["/jobs/dequeue", "/jobs/12/conclude", "/queues/a.b/enqueue", "/queues/7/dequeue"]
)
@pytest.mark.parametrize("query", ["next=1", "lease=abc&next=1", "", "?", "a=%20b+c&&=?/:,~"])
def test_a_line_with_a_query_is_known_by_its_path(heads, path, query):
    plain = heads.lines.get(f"POST {path} HTTP/1.1\r\n".encode()) or heads.line(
        f"POST {path} HTTP/1.1\r\n".encode()
    )
    method, found, _, route, parameter = plain
    assert heads.line(f"POST {path}?{query} HTTP/1.1\r\n".encode()) == (
        method,
        found,
        query,
        route,
        parameter,
    )


@pytest.mark.parametrize(
    "line",
    [
        b"POST /jobs/dequeue?a=\x00 HTTP/1.1\r\n", b"POST /jobs/dequeue?a=\xff HTTP/1.1\r\n", b"POST /?a=b HTTP/1.1\r\n",
        b"POST /jobs/dequeue?a b HTTP/1.1\r\n", b"POST /jobs/dequeue?a HTTP/1.0\r\n", b"POST /jobs/dequeue?\r\n",
        b"POST /jobs/12?lease=a\r\n", b"POST /jobs/12\r\nlease=", b"POST /jobs/12lease=\r\n", b"POST /jobs/12/conclude?lease=a",
        b"POST /jobs/12/conclude?lease=\x00 HTTP/1.1\r\n", b"POST /jobs/12/nothing?lease=a HTTP/1.1\r\n", b"?\r\n", b"POST /jobs/dequeue HTTP/1.1?\r\n", b"POST /nothing?a HTTP/1.1\r\n", b"PUT /jobs/dequeue?a HTTP/1.1\r\n",
        b"POST /jobs/dequeue#a?b HTTP/1.1\r\n", b"GET /?format=html HTTP/1.1\r\n",
    ],
)  # fmt: skip
def test_a_line_whose_query_is_not_plain_goes_to_llhttp(heads, line):
    assert heads.lines.get(line) is None
    assert heads.line(line) is None


def test_lines_with_names_are_remembered_up_to_a_limit(heads):
    before = len(heads.lines)
    for number in range(3000):
        line = f"POST /queues/q{number}.x/enqueue HTTP/1.1\r\n".encode()
        assert heads.line(line)[4] == f"q{number}.x"
        assert heads.lines[line] == heads.line(line)
    assert before < len(heads.lines) <= before + 1024
    assert heads.line(b"POST /queues/" + b"q" * 2000 + b"/enqueue HTTP/1.1\r\n")[4] == "q" * 2000
    assert max(map(len, heads.lines)) < 1000
    assert b"POST /jobs/enqueue HTTP/1.1\r\n" in heads.lines


def test_the_kind_of_a_request_is_a_letter_of_its_path_and_for_aws_sdks_its_length():
    enqueue = b"POST /jobs/enqueue HTTP/1.1\r\n\r\n"
    assert kind_of(enqueue, 0) == kind_of(b"POST /jobs/enqueue HTTP/1.1\r\nA: b\r\n\r\n", 0) == ord("e")
    assert kind_of(b"xx" + enqueue, 2) == ord("e")
    send, receive = b"POST / HTTP/1.1\r\n\r\nlonger", b"POST / HTTP/1.1\r\n\r\n"
    assert kind_of(send, 0) != kind_of(receive, 0)
    assert [kind_of(data, 0) for data in (b"", b"GET / HTTP/1", b"x" * 300)] == [0, ord("1"), ord("x")]


def test_no_line_with_a_lease_is_kept(heads):
    for number in range(20):
        for query in ("lease=secret", "next=1&Lease=secret", "%6cease=secret", "lease_for=5&lease=secret"):
            for path in (f"/jobs/{number}/conclude", "/jobs/conclude"):
                line = f"POST {path}?{query}{number} HTTP/1.1\r\n".encode()
                assert heads.line(line)[2] == f"{query}{number}"
                heads.line(line.replace(b"secret", b"").replace(b"ease=", b"ease_for="))
    kept = [*heads.lines, *heads._with_id[b"POST "]._after]
    assert not [line for line in kept if b"secret" in line]
    assert [line for line in kept if b"lease_for=" in line]


def test_what_is_known_of_a_line_is_what_the_router_says_whatever_came_before(heads):
    """Also of names that begin with a number, such as `/jobs/1.0`."""
    router = Dispatcher(MemoryEngine()).router
    ids = ["1", "22", "007", "1.0", "1.0.0", "1x", "1-", "%31", "-1", "a", "dequeue", "1:2", "_"]
    ends = ["", "/", "/conclude", "/dequeue", "/wait", "/conclude/1", "/pause"]
    queries = ["", "?", "?queue=a", "?next=1&wait=2", "?queue=1", "?lease=abc"]
    random = Random(1)
    for _ in range(20_000):
        method = random.choice(["POST", "GET", "DELETE"])
        path = random.choice(["/jobs/", "/queues/", "/schedules/"]) + random.choice(ids) + random.choice(ends)
        query = random.choice(queries)
        line = f"{method} {path}{query} HTTP/1.1\r\n".encode()
        found = heads.lines.get(line) or heads.line(line)
        if found is not None:
            route, parameter = router.find(method, path)
            assert (found[0], found[1], found[2], found[4]) == (method, path, query[1:], parameter), line
            assert found[3].operation.__name__ == route.operation.__name__
