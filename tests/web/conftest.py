"""Every HTTP test runs over both fronts, and over the fast one's short cut for heads that it has seen."""

from collections.abc import Iterator

import pytest
from serving import Server, serving
from tornado.ioloop import IOLoop

from jobqueue import Settings
from jobqueue.testing import ManualClock


@pytest.fixture(params=["fast", "fast again", "tornado"])
def server(
    request: pytest.FixtureRequest, io_loop: IOLoop, settings: Settings, clock: ManualClock
) -> Iterator[Server]:
    yield from serving(io_loop, request.param, settings, clock)
