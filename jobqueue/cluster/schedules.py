"""Schedules of a cluster: each is in the shard of the queue of its jobs, so that its instants and their jobs
commit together. So a name does not tell where a schedule is, and one whose jobs go to another queue may move.
"""

import asyncio
from asyncio import Future
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from jobqueue.cluster import joining
from jobqueue.cluster.several import awaited, gathered, outcomes
from jobqueue.cluster.shard import Shard
from jobqueue.cluster.waiting import wait
from jobqueue.engine.api import MaybeFuture
from jobqueue.engine.versions import check_version
from jobqueue.errors import OtherGroup, ScheduleNotFound
from jobqueue.model import Plan, Schedule, ScheduleChanges
from jobqueue.shards import shard_of_queue

T = TypeVar("T")
# Schedules that are read at once from a shard.
_PAGE: Final = 1_000


class Schedules:
    """The verbs of an engine that are about schedules. `task` starts what takes several calls."""

    def __init__(
        self, shards: Sequence[Shard], task: Callable[[Coroutine[Any, Any, Any]], Future[Any]]
    ) -> None:
        self._shards = shards
        self._task = task

    def _of_queue(self, name: str) -> Shard:
        return self._shards[shard_of_queue(name, len(self._shards))]

    def shard_with(self, name: str) -> Shard:
        """Returns the shard that has a schedule: that of the queue of its jobs. Raises `ScheduleNotFound`."""
        return self._all_with(name)[0][0]

    def _all_with(self, name: str) -> list[tuple[Shard, Schedule]]:
        """Returns all that have it. They are two while it goes from one shard to another, and if the server
        ended then that moved it; the newer one comes first. Raises `ScheduleNotFound`."""
        found = wait(outcomes([partial(shard.call, "schedule", name) for shard in self._shards]))
        known = [
            (shard, schedule)
            for shard, schedule in zip(self._shards, found, strict=True)
            if isinstance(schedule, Schedule)
        ]
        if not known:
            raise next((error for error in found if not isinstance(error, ScheduleNotFound)), found[0])
        return sorted(known, key=lambda one: -one[1].created_at)

    def schedule(self, name: str) -> Schedule:
        return self._all_with(name)[0][1]

    def schedules(
        self,
        group: str | None,
        queues: frozenset[str] | None,
        paused: bool | None,
        limit: int,
        after: str | None = None,
        within: Callable[[str], bool] | None = None,
    ) -> list[Schedule]:
        found: list[Schedule] = []
        for shard in self._shards:
            last, more = after, True
            while more:
                part: list[Schedule] = shard.read("schedules", group, queues, paused, _PAGE, last, None)
                found += [one for one in part if within is None or within(one.plan.job.queue)]
                more = len(part) == _PAGE
                last = part[-1].plan.name if part else None
        return sorted(found, key=lambda schedule: schedule.plan.name)[:limit]

    def put(
        self, plan: Plan, paused: bool | None, version: int | None = None
    ) -> MaybeFuture[tuple[Schedule, bool]]:
        target = self._of_queue(plan.job.queue)
        try:
            known = self._all_with(plan.name)
        except ScheduleNotFound:
            return target.ask("put_schedule", plan, paused, version)
        shard, existing = known[0]
        if shard is target and len(known) == 1:
            return target.ask("put_schedule", plan, paused, version)
        check_version("schedule", existing.version, version)
        if paused is None:
            paused = existing.paused_at is not None
        others = [shard for shard, _ in known if shard is not target]
        return shielded(self._task(self._move(others, target, plan, paused)))

    async def _move(
        self, shards: Sequence[Shard], target: Shard, plan: Plan, paused: bool
    ) -> tuple[Schedule, bool]:
        """Replaces a schedule by one whose jobs go to a queue of another shard."""
        schedule, _ = await awaited(target.call("put_schedule", plan, paused, None))
        for shard in shards:
            await self._delete_at(shard, plan.name)
        return schedule, False

    async def _delete_at(self, shard: Shard, name: str) -> None:
        with suppress(ScheduleNotFound):
            await awaited(shard.call("delete_schedule", name, None))

    def put_all(
        self, plans: Sequence[tuple[Plan, bool | None]], group: str | None, dry_run: bool
    ) -> MaybeFuture[ScheduleChanges]:
        """All or nothing within each shard. What cannot be done is found out before anything changes."""
        known = self._places()
        parts: dict[int, list[tuple[Plan, bool | None]]] = {shard.index: [] for shard in self._shards}
        for plan, paused in plans:
            target = self._of_queue(plan.job.queue)
            if paused is None and (place := known.get(plan.name)) is not None and place[0] is not target:
                paused = True if place[1].paused_at is not None else None  # it stays so where it goes
            parts[target.index].append((plan, paused))
        elsewhere: dict[int, list[str]] = {}
        for number, (plan, _) in enumerate(plans):
            if (place := known.get(plan.name)) is None or place[0] is self._of_queue(plan.job.queue):
                continue
            shard, existing = place
            if group is not None and existing.plan.group != group:
                raise OtherGroup(f"the schedule {plan.name!r} belongs to another group", index=number)
            if existing.plan.group is None or existing.plan.group != group:
                elsewhere.setdefault(shard.index, []).append(plan.name)
        concerned = {
            index: part for index, part in parts.items() if part or (group is not None)
        }  # an empty part deletes what the group has there
        checked = gathered(
            [
                partial(self._shards[index].call, "put_schedules", part, group, True)
                for index, part in concerned.items()
            ],
            joining.changes,
        )
        if dry_run:
            return checked
        wait(checked)
        return shielded(self._task(self._put_parts(concerned, group, elsewhere)))

    def _places(self) -> dict[str, tuple[Shard, Schedule]]:
        known: dict[str, tuple[Shard, Schedule]] = {}
        for schedule in self.schedules(None, None, None, 1 << 30):
            known[schedule.plan.name] = (self._of_queue(schedule.plan.job.queue), schedule)
        return known

    async def _put_parts(
        self,
        parts: dict[int, list[tuple[Plan, bool | None]]],
        group: str | None,
        elsewhere: dict[int, list[str]],
    ) -> ScheduleChanges:
        results: list[ScheduleChanges] = []
        for index, part in parts.items():
            results.append(await awaited(self._shards[index].call("put_schedules", part, group, False)))
        for index, names in elsewhere.items():
            for name in names:
                await self._delete_at(self._shards[index], name)
                results.append(ScheduleChanges([], [], [], [name]))
        return joining.changes(results)

    def delete(self, name: str, version: int | None = None) -> MaybeFuture[Schedule]:
        known = self._all_with(name)
        if len(known) == 1:
            return known[0][0].ask("delete_schedule", name, version)
        check_version("schedule", known[0][1].version, version)
        return shielded(self._task(self._delete_all(name, known)))

    async def _delete_all(self, name: str, known: Sequence[tuple[Shard, Schedule]]) -> Schedule:
        for shard, _ in known:
            await self._delete_at(shard, name)
        return known[0][1]


def shielded(task: Future[T]) -> Future[T]:
    """Returns a Future of a task that goes on if whoever waits for it leaves: half of it would be wrong."""
    future: Future[T] = asyncio.shield(task)
    return future
