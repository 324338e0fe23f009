"""How the answers of several shards become one."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import TypeVar

from jobqueue.histogram import Histogram
from jobqueue.model import (
    BulkResult,
    Consumers,
    EngineStats,
    Holder,
    Job,
    JobGroup,
    JobGroups,
    JournalStats,
    QueueView,
    ScheduleChanges,
    ScheduleFigures,
)

K = TypeVar("K")
# Ids and jobs that are shown of many.
_SAMPLE = 10
# Why a dequeue gets nothing: the first of these that holds.
_STATES = ("stopping", "paused", "limited", "scheduled", "empty")


def added(parts: Iterable[Mapping[K, int]]) -> dict[K, int]:
    """Returns the sums of dicts with the same keys."""
    total: dict[K, int] = {}
    for part in parts:
        for name, number in part.items():
            total[name] = total.get(name, 0) + number
    return total


def state(states: Sequence[str]) -> str:
    return min(states, key=_STATES.index)


def bulk(results: Sequence[BulkResult]) -> BulkResult:
    return BulkResult(
        sum(result.matched for result in results),
        sum(result.changed for result in results),
        [id for result in results for id in result.sample][:_SAMPLE],
        next((result.refused for result in results if result.refused is not None), None),
    )


def page(
    parts: Sequence[tuple[list[Job], int | None]], ascending: bool, limit: int
) -> tuple[list[Job], int | None]:
    """Joins lists of jobs in the order of ids. Each part is complete up to its second item, where its next
    part begins; None: it is complete."""
    sign = 1 if ascending else -1
    ends = [end for _, end in parts if end is not None]
    end = (min if ascending else max)(ends) if ends else None
    jobs = merge(*(part for part, _ in parts), key=lambda job: sign * job.id)
    if end is not None:
        jobs = (job for job in jobs if sign * job.id <= sign * end)
    found = list(islice(jobs, limit + 1))
    if len(found) > limit:
        return found[:limit], found[limit - 1].id
    return found, end


def queues(parts: Sequence[list[QueueView]], limit: int) -> list[QueueView]:
    return list(islice(merge(*parts, key=lambda view: view.name), limit))


def groups(parts: Sequence[JobGroups], limit: int) -> JobGroups:
    """Joins groups with the same values. A group that is among the largest of no shard may be missing."""
    found: dict[tuple[str | None, ...], JobGroup] = {}
    for part in parts:
        for group in part.groups:
            key = tuple(group.values.values())
            if (known := found.get(key)) is None:
                found[key] = group
            else:
                found[key] = JobGroup(
                    known.values,
                    known.dead + group.dead,
                    known.retrying + group.retrying,
                    (known.sample + group.sample)[:_SAMPLE],
                )
    largest = sorted(found.values(), key=lambda group: -(group.dead + group.retrying))
    rest = sum(part.rest for part in parts) + sum(group.dead + group.retrying for group in largest[limit:])
    return JobGroups(largest[:limit], rest)


def consumers(parts: Sequence[Consumers], limit: int) -> Consumers:
    holding: dict[str | None, Holder] = {}
    for part in parts:
        for holder in part.holding:
            if (known := holding.get(holder.consumer)) is not None:
                holder = Holder(
                    holder.consumer,
                    known.in_progress + holder.in_progress,
                    max(known.seen_at, holder.seen_at),
                    (known.jobs + holder.jobs)[:_SAMPLE],
                )
            holding[holder.consumer] = holder
    waiting = [consumer for part in parts for consumer in part.waiting]
    complete = all(part.complete for part in parts) and len(holding) <= limit and len(waiting) <= limit
    return Consumers(list(holding.values())[:limit], waiting[:limit], complete)


def changes(parts: Sequence[ScheduleChanges]) -> ScheduleChanges:
    """Joins what changed. A schedule that went from one shard to another was changed."""
    created = {name for part in parts for name in part.created}
    deleted = {name for part in parts for name in part.deleted}
    moved = created & deleted
    return ScheduleChanges(
        sorted(created - moved),
        sorted(moved.union(*(part.changed for part in parts))),
        sorted(name for part in parts for name in part.unchanged),
        sorted(deleted - moved),
    )


def figures(parts: Sequence[ScheduleFigures]) -> ScheduleFigures:
    return ScheduleFigures(
        added(part.states for part in parts),
        max(part.lag for part in parts),
        added(part.outcomes for part in parts),
    )


def histogram(parts: Sequence[Histogram]) -> Histogram:
    return parts[0].joined(parts[1:])


def journal(parts: Sequence[JournalStats]) -> JournalStats | None:
    """Joins the figures of the shards of one server, or of several."""
    if not parts:
        return None
    first = parts[0]
    database = [part.database for part in parts if part.database is not None]
    return JournalStats(
        histogram([part.rows for part in parts]),
        histogram([part.seconds for part in parts]),
        sum(part.pending for part in parts),
        max(part.size for part in parts),  # of the one table
        any(part.full for part in parts),
        any(part.behind for part in parts),
        next((part.away for part in parts if part.away is not None), None),
        None
        if first.database is None
        else first.database._replace(
            doubts=sum(each.doubts for each in database),
            snapshot=max(each.snapshot for each in database),
            dead_rows=max(each.dead_rows for each in database),
        ),
    )


def stats(parts: Sequence[EngineStats], memory: int | None, memory_limit: int | None) -> EngineStats:
    return EngineStats(
        jobs=added(part.jobs for part in parts),
        queues=sum(part.queues for part in parts),
        consumers_waiting=sum(part.consumers_waiting for part in parts),
        ticks=sum(part.ticks for part in parts),
        tick_last=max((part.tick_last for part in parts), default=0.0),
        tick_max=max((part.tick_max for part in parts), default=0.0),
        lanes=sum(part.lanes for part in parts),
        slots=sum(part.slots for part in parts),
        empty_slots=sum(part.empty_slots for part in parts),
        compactions=sum(part.compactions for part in parts),
        compaction_max=max((part.compaction_max for part in parts), default=0.0),
        remembered=sum(part.remembered for part in parts),
        remembered_bytes=sum(part.remembered_bytes for part in parts),
        idempotency_keys=sum(part.idempotency_keys for part in parts),
        idempotency_window=min((part.idempotency_window for part in parts), default=0),
        totals=added(part.totals for part in parts),
        memory=memory,
        memory_limit=memory_limit,
        journal=journal([part.journal for part in parts if part.journal is not None]),
        dropped=added(part.dropped for part in parts),
    )
