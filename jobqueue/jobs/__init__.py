"""Declares jobs as Python functions, and enqueues them: `Jobs`. docs/python.md shows how they are used.

It knows the client, and neither the worker nor the server.
"""

from jobqueue.jobs.context import Context, current
from jobqueue.jobs.declared import DeclaredJob, Prepared
from jobqueue.jobs.handle import Handle, JobFailed, NotFinished
from jobqueue.jobs.outcomes import Dead, GiveBack, Retry
from jobqueue.jobs.registry import Jobs

__all__ = [
    "Context",
    "Dead",
    "DeclaredJob",
    "GiveBack",
    "Handle",
    "JobFailed",
    "Jobs",
    "NotFinished",
    "Prepared",
    "Retry",
    "current",
]
