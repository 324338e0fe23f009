"""Transfers: jobs that came into a queue of another shard go there.

A job changes its queue in the shard where it is: it dies, and that has a dead-letter queue; it is moved, or
returns from where it died. If the new queue is of another shard, the job is in it, but nobody can take it
there. So it is imported at its own shard, under an origin that names it, and then removed here. Imports
remember origins, so a transfer that is repeated after a crash makes one job. It has a new id there.
"""

import logging
from asyncio import Future
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from jobqueue.cluster.shard import Shard
from jobqueue.engine.local import LocalEngine
from jobqueue.errors import JobQueueError
from jobqueue.model import (
    Filter,
    ImportedHistory,
    ImportItem,
    ImportResult,
    Job,
    NewJob,
    last_attempt,
)
from jobqueue.steps import DEAD, QUEUED, SCHEDULED, Status

_log: Final = logging.getLogger("jobqueue")
# Whose origins they are.
_OWNER: Final = "between shards"
# Jobs that are moved at once.
_AT_ONCE: Final = 100
_MOVABLE: Final[frozenset[Status]] = frozenset({QUEUED, SCHEDULED, DEAD})


class Transfers:
    """`shard_of`: which shard has a queue."""

    def __init__(self, shard_of: Callable[[str], Shard]) -> None:
        self._shard_of = shard_of
        self._refused: set[str] = set()  # queues that refused jobs, which was logged

    async def run(self, engine: LocalEngine) -> bool:
        """Moves some jobs of an engine that belong elsewhere. Returns whether there were any."""
        moved = False
        for name in engine.foreign_queues():
            moved = await self._from(engine, name) or moved
        return moved

    async def _from(self, engine: LocalEngine, name: str) -> bool:
        where = Filter(queues=frozenset({name}), statuses=_MOVABLE)
        jobs, _ = engine.list_jobs(where, None, True, _AT_ONCE)
        if not jobs:
            return False
        wall = engine.wall_now()
        items = [item_of(job, f"{engine.identity}/{job.id}", wall, engine.wall) for job in jobs]
        versions = [job.version for job in jobs]
        engine.leaving.update(job.id for job in jobs)
        try:
            committed = engine.after_commit(None)  # what is not durable here must not be there
            if isinstance(committed, Future):
                await committed
            answer = self._shard_of(name).call("import_jobs", items, _OWNER, None)
            taken: ImportResult = await answer if isinstance(answer, Future) else answer
        except JobQueueError as refused:
            taken = ImportResult(0, 0, refused)
        finally:
            engine.leaving.clear()
        done = taken.imported + taken.known
        for job, version in zip(jobs[:done], versions, strict=False):
            engine.remove_transferred(job, version)
        if taken.refused is not None and name not in self._refused:
            self._refused.add(name)
            _log.warning("jobs wait for a place in the queue %s: %s", name, taken.refused.detail)
        elif taken.refused is None:
            self._refused.discard(name)
        return done > 0


def item_of(job: Job, origin: str, wall: int, wall_of: Callable[[int], int]) -> ImportItem:
    """Returns a job as it is imported elsewhere. `wall_of` converts an instant of the monotonic clock."""
    extras = job.extras
    new = NewJob(job.type, job.queue, job.priority, job.payload)
    trace = died_at = None
    if extras is not None:
        if extras.options is not None:  # a copy, without what belongs to its place here
            new.options = replace(extras.options, claim_seq=0, expires_due=None)
        trace = None if extras.trace is None else replace(extras.trace)
        if job.status == DEAD:
            died_at = extras.finished_at
        elif job.status == SCHEDULED:
            new.run_at = extras.run_at if extras.due is None else wall_of(extras.due)
    last = last_attempt(job) if job.lease is not None and job.lease.ended_by is not None else None
    past = ImportedHistory(job.created_at, job.attempts, job.leases, trace, died_at, last, True)
    return ImportItem(new, past, origin)
