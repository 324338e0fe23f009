"""Every HTTP test runs over both fronts, and over the fast one's short cut for heads that it has seen."""

import os
from collections.abc import Iterator

import pytest
from serving import Server, serving
from tornado.ioloop import IOLoop

from jobqueue import Settings
from jobqueue.testing import ManualClock

# "fast again" is the fast front with cached heads. In CI there is also the engine with a journal, which gives the
# same answers later; there the fast front sees each head for the first time.
FRONTS = (
    ["fast passed on"]
    if os.environ.get("PASSED_ON")
    else ["fast again", "tornado", *(["fast journal"] if os.environ.get("TEST_ALL") else [])]
)


@pytest.fixture(params=FRONTS)
def server(
    request: pytest.FixtureRequest, io_loop: IOLoop, settings: Settings, clock: ManualClock
) -> Iterator[Server]:
    yield from serving(io_loop, request.param, settings, clock)
