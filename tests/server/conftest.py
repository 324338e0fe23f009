"""Here the loop is uvloop's, as in the program; with TEST_ALL=1 each test also runs on asyncio's own."""

import asyncio
import os
from collections.abc import Iterator

import pytest
import uvloop
from tornado.ioloop import IOLoop

_LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(params=list(_LOOPS) if os.environ.get("TEST_ALL") == "1" else ["uvloop"])
def io_loop(request: pytest.FixtureRequest) -> Iterator[IOLoop]:
    loop = IOLoop(asyncio_loop=_LOOPS[request.param]())
    yield loop
    loop.close(all_fds=True)
