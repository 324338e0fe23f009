"""Workers against the real program. The tests of one module share a server; each has queues of its own."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS / "server"))
from running import Program, until  # noqa: E402  # the folder has to be on the path first
from working import Working  # noqa: E402


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Program(JOBQUEUE_ACCESS_LOG="off") as running:
        yield running
        running.stop()


@pytest.fixture
def url(program: Program, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the server, which is also in the environment."""
    address = f"http://127.0.0.1:{program.port}"
    monkeypatch.setenv("JOBQUEUE_URL", address)
    monkeypatch.delenv("JOBQUEUE_TOKEN", raising=False)
    return address


@pytest.fixture
def work(url: str) -> Iterator[Callable[..., Working]]:
    """Starts workers, and kills those that still run at the end."""
    started: list[Working] = []

    def start(queues: str, *options: str, module: str = "shop") -> Working:
        started.append(Working(url, queues, *options, module=module))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.fixture
def clock() -> Callable[[], float]:
    return time.monotonic


__all__ = ["Program", "until"]
