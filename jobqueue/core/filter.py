"""Filter: which jobs are meant. Pure; used by lists, counts, purges and redrives."""

from collections.abc import Callable

from msgspec import Struct

from jobqueue.core.job import Job, Status


class Filter(Struct, gc=False, frozen=True):
    """Each part that is given must hold; within a part any of its values. `older_than`: enqueued so many
    milliseconds ago, or more. `within`: says of the name of a queue whether it may be looked into."""

    queues: frozenset[str] | None = None
    statuses: frozenset[Status] | None = None
    types: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    keys: frozenset[str] | None = None
    older_than: int | None = None
    within: Callable[[str], bool] | None = None

    def matches(self, job: Job, wall: int) -> bool:
        """`wall`: now, milliseconds."""
        if self.queues is not None and job.queue not in self.queues:
            return False
        if self.statuses is not None and job.status not in self.statuses:
            return False
        if self.types is not None and job.type not in self.types:
            return False
        if self.older_than is not None and job.created_at > wall - self.older_than:
            return False
        options = job.more.options if job.more is not None else None
        if self.tags is not None and (options is None or self.tags.isdisjoint(options.tags)):
            return False
        if self.keys is not None and (options is None or options.key not in self.keys):
            return False
        return self.within is None or self.within(job.queue)
