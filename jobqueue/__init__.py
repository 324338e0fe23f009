"""jobqueue: a job queue behind a REST API that can be used with curl.

For Python programs: `Jobs` declares jobs as functions and enqueues them, `Worker` runs them. `Client` and
`AsyncClient` are the API, call by call. For embedders: `make_app()` returns a Tornado application,
`MemoryEngine` is the queue it serves, `Settings` are its settings. `jobqueue.testing` is for tests: it runs
the real queue inside of them, with a clock that is moved by hand. What a name needs is imported when the name
is first used, so that a client does not load the server.
"""

from typing import TYPE_CHECKING, Any

from jobqueue.version import VERSION as __version__

if TYPE_CHECKING:
    from jobqueue.client import (
        AnswerLost,
        AsyncClient,
        Client,
        MaybeEnqueued,
        NewJob,
        Timeouts,
        Unreachable,
    )
    from jobqueue.engine.local import LocalEngine as MemoryEngine
    from jobqueue.errors import JobQueueError
    from jobqueue.jobs import (
        Context,
        Dead,
        GiveBack,
        Handle,
        JobFailed,
        Jobs,
        NotFinished,
        Prepared,
        Retry,
        current,
    )
    from jobqueue.settings import Settings
    from jobqueue.web.tornado_app import make_app
    from jobqueue.worker import Worker

__all__ = [
    "AnswerLost",
    "AsyncClient",
    "Client",
    "Context",
    "Dead",
    "GiveBack",
    "Handle",
    "JobFailed",
    "JobQueueError",
    "Jobs",
    "MaybeEnqueued",
    "MemoryEngine",
    "NewJob",
    "NotFinished",
    "Prepared",
    "Retry",
    "Settings",
    "Timeouts",
    "Unreachable",
    "Worker",
    "__version__",
    "current",
    "make_app",
]

# Each name: the module that has it, and its name there if that is another one.
_HOMES = {
    "AnswerLost": ("jobqueue.client", ""),
    "AsyncClient": ("jobqueue.client", ""),
    "Client": ("jobqueue.client", ""),
    "Context": ("jobqueue.jobs", ""),
    "Dead": ("jobqueue.jobs", ""),
    "GiveBack": ("jobqueue.jobs", ""),
    "Handle": ("jobqueue.jobs", ""),
    "JobFailed": ("jobqueue.jobs", ""),
    "JobQueueError": ("jobqueue.errors", ""),
    "Jobs": ("jobqueue.jobs", ""),
    "MaybeEnqueued": ("jobqueue.client", ""),
    "MemoryEngine": ("jobqueue.engine.local", "LocalEngine"),
    "NewJob": ("jobqueue.client", ""),
    "NotFinished": ("jobqueue.jobs", ""),
    "Prepared": ("jobqueue.jobs", ""),
    "Retry": ("jobqueue.jobs", ""),
    "Settings": ("jobqueue.settings", ""),
    "Timeouts": ("jobqueue.client", ""),
    "Unreachable": ("jobqueue.client", ""),
    "Worker": ("jobqueue.worker", ""),
    "current": ("jobqueue.jobs", ""),
    "make_app": ("jobqueue.web.tornado_app", ""),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jobqueue' has no attribute {name!r}")
    from importlib import import_module

    module, there = _HOMES[name]
    found = globals()[name] = getattr(import_module(module), there or name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
