"""Grouping: counts dead and retrying jobs by their queue, type, error, reason or key."""

from collections.abc import Sequence

from jobqueue.core.named_queue import key_of
from jobqueue.model import Job, JobGroup, JobGroups, error_name, retries
from jobqueue.steps import DEAD

# Groups that are counted, and ids of each group in the answer.
_GROUPS = 10_000
_SAMPLE = 3


class Grouping:
    """Groups of jobs with the same values of the fields `by`. Jobs beyond the first groups are counted as
    `rest`."""

    def __init__(self, by: Sequence[str]) -> None:
        self._by = by
        self._groups: dict[tuple[str | None, ...], JobGroup] = {}
        self._rest = 0

    def add(self, job: Job, now: int) -> None:
        """Counts a job, if it is dead or waits for a retry."""
        dead = job.status == DEAD
        if not dead and not retries(job):
            return
        values = tuple([_value(job, name) for name in self._by])
        group = self._groups.get(values)
        if group is None:
            if len(self._groups) >= _GROUPS:
                self._rest += 1
                return
            group = JobGroup(dict(zip(self._by, values, strict=True)), 0, 0, [])
        if len(group.sample) < _SAMPLE:
            group.sample.append(job.id)
        self._groups[values] = group._replace(dead=group.dead + dead, retrying=group.retrying + (not dead))

    def largest(self, limit: int) -> JobGroups:
        """Returns the `limit` groups with most jobs; of equal ones the one whose first job is older."""
        groups = sorted(self._groups.values(), key=_size, reverse=True)
        return JobGroups(groups[:limit], self._rest + sum(map(_size, groups[limit:])))


def _size(group: JobGroup) -> int:
    return group.dead + group.retrying


def _value(job: Job, name: str) -> str | None:
    if name == "queue":
        return job.queue
    if name == "type":
        return job.type
    if name == "key":
        return key_of(job)
    trace = job.extras.trace if job.extras is not None else None
    if trace is None:
        return None
    return trace.reason if name == "reason" else error_name(trace.error)
