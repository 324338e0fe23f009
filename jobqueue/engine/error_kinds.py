"""ErrorKinds: which kinds of errors there were, and when each was first seen."""

from collections.abc import Callable, Iterable
from itertools import islice

from jobqueue.model import Job, NewError, error_name

# Kinds that are known. Beyond, the one that has not been seen for longest is forgotten.
_KINDS = 2000


class ErrorKinds:
    """Kinds of errors by queue, type of job and name of the error. They are in memory: after a restart those
    are known that jobs still have as their last error."""

    def __init__(self) -> None:
        # When it was first seen, in wall-clock milliseconds, and how often; the one seen last is at the end.
        self._kinds: dict[tuple[str, str, str], tuple[int, int]] = {}

    def add(self, job: Job, error: bytes, wall: int) -> None:
        """Counts an error that a job has just failed with."""
        self._add(job, error, wall, 1)

    def restore(self, jobs: Iterable[Job], some: int) -> int | None:
        """Takes the last errors of up to `some` jobs for known since these were created. Returns the id of
        the last job; None: there were no more."""
        last = None
        for job in islice(jobs, some):
            last = job.id
            if job.extras is not None and job.extras.trace is not None and job.extras.trace.error is not None:
                self._add(job, job.extras.trace.error, job.created_at, 0)
        return last

    def _add(self, job: Job, error: bytes, wall: int, count: int) -> None:
        name = error_name(error)
        if name is None:
            return
        trace = job.extras.trace if job.extras is not None else None
        died_in = trace.dead_from if trace is not None else None  # it may be in a dead-letter queue by now
        kind = (died_in or job.queue, job.type, name)
        first, before = self._kinds.pop(kind, (wall, 0))
        self._kinds[kind] = (min(first, wall), before + count)
        if len(self._kinds) > _KINDS:
            del self._kinds[next(iter(self._kinds))]

    def since(self, wall: int, limit: int, within: Callable[[str], bool] | None = None) -> list[NewError]:
        """Returns the kinds that were first seen after `wall`, those seen most often first."""
        found = [
            NewError(*kind, first, count)
            for kind, (first, count) in self._kinds.items()
            if first > wall and count and (within is None or within(kind[0]))
        ]
        return sorted(found, key=_times, reverse=True)[:limit]


def _times(error: NewError) -> int:
    return error.times
