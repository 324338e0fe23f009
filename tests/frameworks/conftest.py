"""Frameworks around jobs. Each file is skipped by name where its framework is not installed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqueue.testing import RunningServer

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "server"))
sys.path.append(str(HERE / "project"))


@pytest.fixture(scope="module")
def served() -> Iterator[RunningServer]:
    """A server in a process of its own, for the tests of a module."""
    with RunningServer({}) as server:
        yield server
