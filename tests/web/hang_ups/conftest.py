"""These tests also run over uvloop, which the program uses: it reads and closes sockets in another order than
asyncio. `blunt()` makes a client; `http_client` has the ways to hang up."""

from collections.abc import Callable, Iterator

import pytest
from http_client import Blunt
from serving import LOOPS, Server, looping, serving
from tornado.ioloop import IOLoop

from jobqueue import Settings
from jobqueue.testing import ManualClock


@pytest.fixture(params=LOOPS)
def io_loop(request: pytest.FixtureRequest) -> Iterator[IOLoop]:
    yield from looping(request.param)


@pytest.fixture(params=["fast", "tornado"])
def server(
    request: pytest.FixtureRequest, io_loop: IOLoop, settings: Settings, clock: ManualClock
) -> Iterator[Server]:
    yield from serving(io_loop, request.param, settings, clock)


@pytest.fixture
def blunt(server: Server) -> Iterator[Callable[[], Blunt]]:
    made: list[Blunt] = []

    def make() -> Blunt:
        made.append(Blunt(server.port))
        return made[-1]

    yield make
    for client in made:
        client.close()
