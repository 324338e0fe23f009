"""Fixtures for pytest, which finds them by itself: `jobqueue` and `jobqueue_server`.

    def test_it(jobqueue):
        add.enqueue(1, 2)
        assert jobqueue.run_all() == 1

Nothing of the queue is imported before a test uses one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jobqueue.jobs.registry import Jobs
    from jobqueue.testing.kit import Inline
    from jobqueue.testing.server import RunningServer


@pytest.fixture
def jobqueue_jobs() -> Iterable[Jobs] | Jobs | None:
    """Override this fixture to name the `Jobs` that tests use; by default all of the program."""
    return None


@pytest.fixture
def jobqueue_settings() -> dict[str, Any]:
    """Override this fixture to give the server other settings, such as `{"max_attempts": 1}`."""
    return {}


@pytest.fixture(name="jobqueue")
def _jobqueue(
    jobqueue_jobs: Iterable[Jobs] | Jobs | None, jobqueue_settings: dict[str, Any]
) -> Iterator[Inline]:
    """The real queue in this process, with a clock that is moved by hand: see `jobqueue.testing.inline`."""
    _check()
    from jobqueue.testing.kit import Inline

    with Inline(_named(jobqueue_jobs), None, jobqueue_settings) as queue:
        yield queue


@pytest.fixture(name="jobqueue_server")
def _jobqueue_server(
    jobqueue_jobs: Iterable[Jobs] | Jobs | None,
    jobqueue_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[RunningServer]:
    """A real server, new for each test. All `Jobs`, and JOBQUEUE_URL for other processes, point to it."""
    _check()
    from jobqueue.testing.replaced_clients import ReplacedClients
    from jobqueue.testing.server import RunningServer

    with RunningServer(jobqueue_settings) as server:
        monkeypatch.setenv("JOBQUEUE_URL", server.url)
        if server.token is None:
            monkeypatch.delenv("JOBQUEUE_TOKEN", raising=False)
        else:
            monkeypatch.setenv("JOBQUEUE_TOKEN", server.token)
        with ReplacedClients(_named(jobqueue_jobs), server.client, server.aclient):
            yield server


def _check() -> None:
    from jobqueue.testing.requirements import check_server

    try:
        check_server()
    except ModuleNotFoundError as missing:
        pytest.fail(str(missing), pytrace=False)


def _named(jobs: Iterable[Jobs] | Jobs | None) -> list[Jobs] | None:
    if jobs is None:
        return None
    from jobqueue.jobs.registry import Jobs

    return [jobs] if isinstance(jobs, Jobs) else list(jobs)
