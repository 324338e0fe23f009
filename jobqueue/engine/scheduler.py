"""Scheduler: the verbs of schedules. `core.schedules` has the rules, `calendar` the instants."""

import asyncio
import time
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from jobqueue.core.queue import JobQueue
from jobqueue.core.schedules import Schedules
from jobqueue.engine.api import MaybeFuture, refuse
from jobqueue.engine.calendar import PlanCalendar
from jobqueue.engine.versions import check_version
from jobqueue.errors import InvalidField, OtherGroup, PreconditionFailed
from jobqueue.model import ExistingJob, Job, Plan, Schedule, ScheduleChanges, ScheduleExplanation

T = TypeVar("T")
_encode = msgspec.msgpack.Encoder().encode
# Names of calls at the same place as a schedule.
RESERVED = frozenset({"preview", "import", "export"})
# Seconds after which a slice begins no further step. A step takes up to about 2 ms.
_SLICE_SECONDS = 0.002
# How many plans a slice of `after_checks` looks at.
CHECKED = 50


class Scheduler:
    """The schedules of an engine. `now` is monotonic milliseconds. `engine.api` has the contracts."""

    def __init__(self, queue: JobQueue, admit: Callable[[], None], made: Callable[[Job], None]) -> None:
        self.calendar = PlanCalendar()
        self._state = queue.state
        self._schedules = Schedules(queue, self.calendar, admit, made)
        self.restored = self._schedules.restored
        self.next_due = self._schedules.next_due
        self.figures = self._schedules.figures

    def run(self, now: int) -> bool:
        """Does a slice of what is due, in a few milliseconds. Returns whether more may be due."""
        end = time.perf_counter() + _SLICE_SECONDS
        return self._schedules.run(now, lambda: time.perf_counter() >= end)

    def after_missed(
        self, names: Sequence[str], now: Callable[[], int], act: Callable[[], T]
    ) -> MaybeFuture[T]:
        """Returns `act()`, which changes these schedules, once their missed instants are done with. See
        `_in_slices`."""
        return self._in_slices(lambda: self._run_missed(names, now()), names, act)

    def after_checks(
        self, plans: Sequence[tuple[Plan, bool | None]], now: Callable[[], int], act: Callable[[], T]
    ) -> MaybeFuture[T]:
        """Returns `act()`, which puts these plans, once each of them was looked at: `act` looks at them
        again, all at once, and that is fast then. Missed instants are done with before. Raises as
        `put_many`."""
        names = [plan.name for plan, _ in plans]
        checked = 0

        def check_some() -> bool:
            nonlocal checked
            if self._run_missed(names, now()):
                return True
            for index, (plan, _) in enumerate(plans[checked : checked + CHECKED], checked):
                self._check_one(index, plan, now())
            checked += CHECKED
            return checked < len(plans)

        return self._in_slices(check_some, names, act)

    def _in_slices(
        self, do_some: Callable[[], bool], names: Sequence[str], act: Callable[[], T]
    ) -> MaybeFuture[T]:
        """Returns `act()` once `do_some` returns False: at once if it does so the first time, otherwise as a
        Future, with one call of it in each pass of the loop. Nothing is changed if the Future is cancelled.
        `names`: the schedules that `act` changes."""
        if not do_some():
            return act()
        queues = self._queues_of(names)
        loop = asyncio.get_running_loop()
        future: Future[T] = loop.create_future()

        def proceed() -> None:
            if future.cancelled():
                return
            try:
                if do_some():
                    loop.call_soon(proceed)
                    return
                if self._queues_of(names) != queues:  # the caller may have no right to change this one
                    raise PreconditionFailed("the schedule has been replaced meanwhile; read it again")
                future.set_result(act())
            except Exception as refused:
                refuse(future, refused)

        loop.call_soon(proceed)
        return future

    def _run_missed(self, names: Sequence[str], now: int) -> bool:
        """Does a slice of what is due if one of these schedules has missed instants. Returns whether one
        has."""
        behind = any(self._schedules.is_behind(name, now) for name in names)
        if behind:
            self.run(now)
        return behind

    def _queues_of(self, names: Sequence[str]) -> list[str | None]:
        known = self._state.schedules
        return [known[name].plan.job.queue if name in known else None for name in names]

    def get(self, name: str) -> Schedule:
        return self._schedules.get(name)

    def listed(
        self,
        group: str | None,
        queues: frozenset[str] | None,
        paused: bool | None,
        limit: int,
        after: str | None,
        within: Callable[[str], bool] | None,
    ) -> list[Schedule]:
        found = []
        for name in sorted(self._state.schedules):
            schedule = self._state.schedules[name]
            if (
                (after is None or name > after)
                and (group is None or schedule.plan.group == group)
                and (queues is None or schedule.plan.job.queue in queues)
                and (paused is None or (schedule.paused_at is not None) is paused)
                and (within is None or within(schedule.plan.job.queue))
            ):
                found.append(schedule)
                if len(found) == limit:
                    break
        return found

    def put(self, plan: Plan, paused: bool | None, version: int | None, now: int) -> tuple[Schedule, bool]:
        """Returns the schedule, and whether it is new."""
        existing = self._state.schedules.get(plan.name)
        if existing is not None:
            check_version("schedule", existing.version, version)
        elif version is not None:
            raise PreconditionFailed("there is no such schedule; without If-Match it is created")
        self._check(plan, now)
        if existing is None:
            self._schedules.check_limit(1)
        return self._put(plan, paused, now), existing is None

    def put_many(
        self, plans: Sequence[tuple[Plan, bool | None]], group: str | None, dry_run: bool, now: int
    ) -> ScheduleChanges:
        known = self._state.schedules
        changes = ScheduleChanges([], [], [], [])
        names: set[str] = set()
        for index, (plan, paused) in enumerate(plans):
            self._check_one(index, plan, now)
            try:
                if plan.name in names:
                    raise InvalidField(f"name: {plan.name!r} is given twice", field="name")
                existing = known.get(plan.name)
                if group is not None and existing is not None and existing.plan.group != group:
                    other = (
                        "no group" if existing.plan.group is None else f"the group {existing.plan.group!r}"
                    )
                    raise OtherGroup(f"the schedule {plan.name!r} is in {other}; delete it there first")
            except (InvalidField, OtherGroup) as bad:
                bad.facts["index"] = index
                raise
            names.add(plan.name)
            if existing is None:
                changes.created.append(plan.name)
            elif _is_same(existing, plan, paused):
                changes.unchanged.append(plan.name)
            else:
                changes.changed.append(plan.name)
        if group is not None:
            changes.deleted.extend(
                sorted(
                    name
                    for name, schedule in known.items()
                    if schedule.plan.group == group and name not in names
                )
            )
        self._schedules.check_limit(len(changes.created) - len(changes.deleted))
        if not dry_run:
            for name in changes.deleted:
                self._schedules.delete(known[name])
            for plan, paused in plans:
                self._put(plan, paused, now)
        return changes

    def delete(self, name: str, version: int | None) -> Schedule:
        schedule = self._get(name, version)
        self._schedules.delete(schedule)
        return schedule

    def pause(self, name: str, reason: str | None, version: int | None, now: int) -> Schedule:
        schedule = self._get(name, version)
        self._schedules.pause(schedule, reason, now)
        return schedule

    def resume(self, name: str, version: int | None, now: int) -> Schedule:
        schedule = self._get(name, version)
        self._schedules.resume(schedule, now)
        return schedule

    def run_now(self, name: str, now: int) -> Job | ExistingJob:
        return self._schedules.run_now(self._schedules.get(name), now)

    def explain(self, name: str, now: int) -> ScheduleExplanation:
        return self._schedules.explain(self._schedules.get(name), now)

    def _put(self, plan: Plan, paused: bool | None, now: int) -> Schedule:
        schedule = self._state.schedules.get(plan.name)
        if schedule is None:
            schedule = self._schedules.add(plan, now)
        elif _encode(schedule.plan) != _encode(plan):
            self._schedules.replace(schedule, plan, now)
        if paused is True and schedule.paused_at is None:
            self._schedules.pause(schedule, None, now)
        elif paused is False:
            self._schedules.resume(schedule, now)
        return schedule

    def _check_one(self, index: int, plan: Plan, now: int) -> None:
        """`_check` of one of many. The error says which one it is."""
        try:
            self._check(plan, now)
        except InvalidField as bad:
            bad.facts["index"] = index
            raise

    def _check(self, plan: Plan, now: int) -> None:
        if plan.name in RESERVED:
            raise InvalidField(f"name: {plan.name!r} is the name of a call; take another one", field="name")
        self.calendar.check(plan, self._state.wall(now))

    def _get(self, name: str, version: int | None) -> Schedule:
        schedule = self._schedules.get(name)
        check_version("schedule", schedule.version, version)
        return schedule


def _is_same(schedule: Schedule, plan: Plan, paused: bool | None) -> bool:
    return _encode(schedule.plan) == _encode(plan) and paused in (None, schedule.paused_at is not None)
