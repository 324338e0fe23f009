"""jobqueue as a backend of Django Tasks. docs/frameworks.md shows how it is set up.

    INSTALLED_APPS = [..., "jobqueue.django"]
    TASKS = {"default": {"BACKEND": "jobqueue.django.JobQueueBackend"}}

`manage.py jobqueue_worker` runs the tasks. It needs Django 6, or an older Django with `django-tasks`. Django
is imported when a name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobqueue.django.backend import JobQueueBackend
    from jobqueue.django.registry import jobs_of

__all__ = ["JobQueueBackend", "jobs_of"]

_HOMES = {"JobQueueBackend": "backend", "jobs_of": "registry"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jobqueue.django' has no attribute {name!r}")
    from importlib import import_module

    import_module("jobqueue.django.tasks_api")  # first, since its error says what to install
    return getattr(import_module(f"jobqueue.django.{_HOMES[name]}"), name)
