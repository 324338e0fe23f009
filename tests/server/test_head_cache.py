"""The head cache recognises request lines with another number, and only those."""

import pytest

from jobqueue import MemoryEngine
from jobqueue.server.http1.head_cache import HeadCache
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
