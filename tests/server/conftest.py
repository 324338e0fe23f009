"""The loop is uvloop's, as in the program; with TEST_ALL=1 each test also runs on asyncio's own."""

import os
from collections.abc import Iterator

import pytest
from serving import LOOPS, looping
from tornado.ioloop import IOLoop


@pytest.fixture(params=LOOPS if os.environ.get("TEST_ALL") == "1" else ["uvloop"])
def io_loop(request: pytest.FixtureRequest) -> Iterator[IOLoop]:
    yield from looping(request.param)
