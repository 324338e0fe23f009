"""For tests: `inline` runs the real queue inside of a test, and `ManualClock` moves time by hand.

`jobqueue.testing.pytest_plugin` has the same as fixtures. docs/testing-your-jobs.md shows all of it. Nothing
of the server is imported before `inline` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobqueue.testing.clock import ManualClock
from jobqueue.testing.requirements import check_server

if TYPE_CHECKING:
    from jobqueue.jobs.registry import Jobs
    from jobqueue.testing.kit import Inline
    from jobqueue.testing.runner import UnknownJobs
    from jobqueue.testing.server import RunningServer

__all__ = ["Inline", "ManualClock", "RunningServer", "UnknownJobs", "check_server", "inline"]

_HOMES = {"Inline": "kit", "RunningServer": "server", "UnknownJobs": "runner"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jobqueue.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"jobqueue.testing.{_HOMES[name]}"), name)


def inline(*jobs: Jobs, clock: ManualClock | None = None, **settings: Any) -> Inline:
    """Returns a context manager that gives `jobs` a queue in this process, with a clock that stands still.

        with inline(jobs) as queue:
            add.enqueue(1, 2)
            queue.run_all()

    Without `jobs` all `Jobs` of the program use it, also those that are made later. `settings` are those of
    the server, such as `max_attempts=1`. The clock begins at the present time. Raises `ModuleNotFoundError`
    if the server is not installed.
    """
    check_server()
    from jobqueue.testing.kit import Inline

    return Inline(jobs or None, clock, settings)
