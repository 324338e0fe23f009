"""Gives `Jobs` other clients for the length of a block."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from jobqueue.client import AsyncClient, Client
from jobqueue.jobs.registry import Jobs, all_jobs, observing_new
from jobqueue.jobs.shared import Clients


class ReplacedClients:
    """A context manager.

    `jobs`: whose clients are replaced; None: those of all `Jobs` of the program, also of those that are made
    later. `members`: the `Jobs` whose clients are replaced now.
    """

    def __init__(
        self, jobs: Iterable[Jobs] | None, client: Client, aclient: AsyncClient, hint: str = ""
    ) -> None:
        self._jobs = None if jobs is None else list(jobs)
        self._new: Clients = client, aclient, hint
        self._restoring = ExitStack()
        self.members: list[Jobs] = []

    def __enter__(self) -> Self:
        if self._jobs is None:
            self._restoring.enter_context(observing_new(self._replace))
        for jobs in _living() if self._jobs is None else self._jobs:
            self._replace(jobs)
        return self

    def _replace(self, jobs: Jobs) -> None:
        before = jobs.shared.use_clients(*self._new)
        self._restoring.callback(jobs.shared.use_clients, *before)
        self.members.append(jobs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restoring.close()
        self.members.clear()


def _living() -> list[Jobs]:
    """Returns all `Jobs` of the program. A `Jobs` is in a circle of references, so one that nobody uses is
    there until it is collected; that is done if two of them declare the same type."""
    found = all_jobs()
    types = [type for jobs in found for type in jobs.types]
    if len(types) == len(set(types)):
        return found
    del found
    gc.collect()
    return all_jobs()
