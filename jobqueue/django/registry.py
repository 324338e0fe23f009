"""The tasks of each backend as jobs. Each thread makes its own backends; what they share is here."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Mapping
from typing import Any, Final, cast

from django.apps import apps
from django.utils.module_loading import import_string

from jobqueue.client.encoding import check_names
from jobqueue.django.running import TaskRun, TaskSignature
from jobqueue.django.tasks_api import InvalidTaskBackend, Task, task_backends
from jobqueue.jobs import DeclaredJob, Jobs
from jobqueue.jobs.options import DeclareOptions, EnqueueOptions, Running, timeout_of

_CONNECTION: Final = ("url", "token", "ca", "cert")
# Options of a declaration that need its function.
_NOT_HERE: Final = ("process", "key", "queue", "priority", "delay", "run_at")
# Options that say that a task may run again after an exception.
_RETRIES: Final = ("max_attempts", "backoff", "dead_on")
_logger = logging.getLogger("jobqueue.django")
_lock = threading.Lock()
_tasks: dict[str, dict[str, Task]] = {}
_made: dict[str, tuple[Mapping[str, Any], TaskJobs]] = {}


class TaskJobs(Jobs):
    """The tasks of the backend `alias`, whose OPTIONS are `options`. The type of a job is its task's path.

    Raises `TypeError` for an unknown option, and `ValueError` for a bad timeout.
    """

    def __init__(self, alias: str, options: Mapping[str, Any], sender: object) -> None:
        connection = {name: options[name] for name in _CONNECTION if name in options}
        given = {name: value for name, value in options.items() if name not in _CONNECTION}
        for name in _NOT_HERE:
            if name in given:
                raise TypeError(f"{name!r} is not an option of a backend")
        check_names(given, DeclareOptions, "a backend")
        self._alias = alias
        self._sender = sender
        # An exception fails a task for good, as with other backends, unless the options speak of retries.
        dead_on = () if any(name in given for name in _RETRIES) else (Exception,)
        self._running = Running(
            timeout_of(given.pop("timeout", None)), False, tuple(given.pop("dead_on", dead_on))
        )
        self._options: dict[str, Any] = given
        super().__init__(**connection)

    def know(self, task: Task) -> DeclaredJob[..., Any, Any]:
        """Returns the job of a task, which is declared if it is not yet."""
        type = task.module_path
        known = self.types.get(type)
        if known is not None and known.signature.function is task.func:
            return known
        run = TaskRun(task, self._alias, self._sender)
        is_async = inspect.iscoroutinefunction(task.func)
        # The names of the options were checked; their values are for the server.
        options = cast(EnqueueOptions, self._options)
        declared: DeclaredJob[..., Any, Any] = DeclaredJob(
            self.shared, run.arun if is_async else run.run, type, options, None, self._running
        )
        declared.signature = TaskSignature(task)
        self.types[type] = declared
        return declared

    def find(self, type: str) -> DeclaredJob[..., Any, Any] | None:
        """As `Jobs.find`. A task of an installed app whose module is not imported yet is imported."""
        declared = super().find(type)
        if declared is None and apps.get_containing_app_config(type) is not None:
            try:
                import_string(type)  # its decorator tells the backend
            except ImportError:
                return None
            except Exception:
                _logger.exception("the module of the task %s cannot be imported", type)
                return None
            declared = super().find(type)
        return declared

    def task(self, type: str) -> Task | None:
        """Returns the task that jobs of this type run."""
        return None if self.find(type) is None else _tasks[self._alias].get(type)


def know(alias: str, jobs: TaskJobs, task: Task) -> DeclaredJob[..., Any, Any]:
    """Returns the job of a task, and remembers the task for other threads and for settings that change."""
    tasks = _tasks.setdefault(alias, {})
    known = tasks.get(task.module_path)
    if known is None or known.func is not task.func:
        tasks[task.module_path] = task
    return jobs.know(task)


def shared_jobs(alias: str, options: Mapping[str, Any], sender: object) -> TaskJobs:
    """Returns the jobs of a backend, the same ones for all threads as long as its options are the same.

    Raises `InvalidTaskBackend` for options that are not allowed.
    """
    with _lock:
        found = _made.get(alias)
        if found is not None and found[0] == options:
            return found[1]
        try:
            jobs = TaskJobs(alias, options, sender)
        except (TypeError, ValueError) as bad:
            raise InvalidTaskBackend(f"TASKS[{alias!r}]: OPTIONS: {bad}") from bad
        for task in _tasks.get(alias, {}).values():
            jobs.know(task)
        _made[alias] = dict(options), jobs
        return jobs


def jobs_of(alias: str = "default") -> Jobs:
    """Returns the `Jobs` of a backend, for `around`, `on_start` and `on_stop`, and for its clients."""
    jobs: Jobs = task_backends[alias].jobs
    return jobs
