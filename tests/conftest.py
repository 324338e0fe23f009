"""What all tests share.

- Every test fails on a log record of level WARNING or above that it did not take out of `logged`. That also
  covers a Task whose exception nobody saw: asyncio logs it. (Warnings, and exceptions that nobody could
  raise, fail a test by pytest's `filterwarnings = error`.)
- `server`: a `serving.Server` in this process, once for each front, on the test's `io_loop` and a free port.

        async def test_it(server):
            answer = await server.post("/jobs/enqueue", {"type": "x"})
            assert answer.status == 201
            server.clock.advance("5m"); server.engine.tick()

  With other settings: `@pytest.mark.parametrize("settings", [Settings(lease="2s", first_id=1)])`, or a
  fixture `settings` in the module. With one front only: `@pytest.mark.parametrize("server", ["fast"],
  indirect=True)`. `http_client` says how to hang up on it.
"""

import asyncio
import gc
import logging
import resource
import signal
import sys
from collections.abc import Iterator

import pytest
from postgres_server import database, postgres
from serving import Server, serving
from tornado.ioloop import IOLoop

from jobqueue import Settings
from jobqueue.testing import ManualClock

__all__ = ["database", "postgres"]  # fixtures for all tests

# How much memory a process of the tests, and each of those that it starts, may take: 8 GiB.
MOST_MEMORY = 8 << 30


def pytest_configure() -> None:
    """Limits the memory, so that what takes all of it fails alone and does not take the machine with it. And a job in
    the background of a shell ignores Ctrl-C; the programs that the tests start must not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "linux":
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if hard == resource.RLIM_INFINITY or hard > MOST_MEMORY:
            resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, hard))


_shared_loop = asyncio.new_event_loop()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Makes one loop current, which `async def` tests without `io_loop` share. Otherwise tornado would make one,
    the next `asyncio.run` would drop it unclosed, and whichever test runs then would fail for it."""
    asyncio.set_event_loop(_shared_loop)


# With TEST_ALL=1 they take a minute or more. Were they the last ones, the other processes would wait for them.
_LONG = (
    "test_schemathesis",
    "test_many_watchers",
    "test_image",
    "test_crash",
    "test_restart_model_on_postgres",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in _LONG)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there by now stays; so the collection after each test looks at that test's objects only."""
    gc.collect()
    gc.freeze()


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def logged(request: pytest.FixtureRequest) -> Iterator[list[logging.LogRecord]]:
    """The log records of level WARNING or above. What is left in it when the test is over fails the test:
    a test that expects a record takes it out (`logged.pop()`, `logged.clear()`)."""
    handler = _Records()
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler.records
    if "io_loop" in request.fixturenames:
        gc.collect(1)  # a Task whose exception nobody saw tells when it is collected; it is young
    root.removeHandler(handler)
    if handler.records:
        lines = logging.Formatter("%(levelname)s %(name)s: %(message)s")
        pytest.fail(
            "unexpected log records:\n" + "\n".join(map(lines.format, handler.records)), pytrace=False
        )


@pytest.fixture
def settings() -> Settings:
    return Settings(first_id=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["fast", "tornado"])
def server(
    request: pytest.FixtureRequest, io_loop: IOLoop, settings: Settings, clock: ManualClock
) -> Iterator[Server]:
    yield from serving(io_loop, request.param, settings, clock)
