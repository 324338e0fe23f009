"""The options of declared jobs, as type checkers see them, and their check at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jobqueue.client import Duration, JobOptions
from jobqueue.client.encoding import seconds
from jobqueue.errors import InvalidField


class EnqueueOptions(JobOptions, total=False):
    """Options of one call: those of a job, and `idempotency_key`."""

    idempotency_key: str


class DeclareOptions(EnqueueOptions, total=False):
    """Options of a declaration: those of every job of it, and how workers run it.

    - `timeout`: how long an attempt may take.
    - `process`: run in a process of its own, which a timeout can kill; for a `def`.
    - `dead_on`: exceptions after which there is no retry.
    - `key`: the key, or a function of the job's arguments that returns it.
    """

    timeout: Duration | None
    process: bool
    dead_on: tuple[type[BaseException], ...]
    key: str | Callable[..., str]  # type: ignore[misc]  # a declaration may compute it


class Running(NamedTuple):
    """How a worker runs a job.

    - `timeout`: seconds after which an attempt is stopped and failed; None: never.
    - `process`: in a process of its own, which a timeout can kill.
    - `dead_on`: exceptions after which there is no retry.
    """

    timeout: float | None
    process: bool
    dead_on: tuple[type[BaseException], ...]


def timeout_of(timeout: Duration | None) -> float | None:
    """Returns a timeout in seconds. Raises `ValueError` if it is not above 0."""
    if timeout is None:
        return None
    try:
        length = seconds(timeout)
    except InvalidField:
        length = 0.0
    if length <= 0:
        raise ValueError(f"timeout: a duration above 0, such as 60 or '5m'; not {timeout!r}")
    return length
