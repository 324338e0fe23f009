"""The client against the real program; the tests of one module share it, each with queues of its own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "server"))
from running import Program  # the folder has to be on the path first


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Program(JOBQUEUE_ACCESS_LOG="off") as running:
        yield running
        running.stop()


@pytest.fixture(scope="module")
def url(program: Program) -> str:
    return f"http://127.0.0.1:{program.port}"


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBQUEUE_URL", raising=False)
    monkeypatch.delenv("JOBQUEUE_TOKEN", raising=False)
