"""Schedules: which of their instants become jobs, and when.

The core knows no calendar. It asks a `Calendar` for the instants of a plan. All instants are milliseconds of
the wall clock in UTC. The instants of a schedule are done with one after the other:

    ── done ──┤├────────── missed ──────────┤├── on time ──┤
    ──────────●──────○──────○──────○──────○──────○──────○──────────▶
              done_until                             wall - late  wall

A step runs one instant at most: it enqueues a job and sets `done_until` in the same pass, so that both are in
one record of the journal, and an instant never gives two jobs. A wall clock that is set back changes nothing:
instants up to `done_until` do not run again. One that is set forward makes instants missed ones.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, get_args

from jobqueue.core.queue import JobQueue
from jobqueue.core.schedule_causes import causes, obstacles
from jobqueue.core.timers import Timers
from jobqueue.errors import (
    DuplicateJob,
    JobQueueError,
    NoRoom,
    ScheduleNotFound,
    TooMany,
    TooManySchedules,
    Unavailable,
)
from jobqueue.model import (
    ExistingJob,
    Fired,
    Firing,
    Job,
    NewJob,
    Plan,
    Schedule,
    ScheduleCause,
    ScheduleExplanation,
    ScheduleFigures,
)

# An instant has been missed if the server comes to it later than this, in milliseconds, or than two ticks. A
# loop that was busy for a moment has missed nothing.
LATE = 5_000
# How many missed instants run at most with `misfire` "all": the latest ones.
MOST_MISSED = 100
# Entries of a history.
KEPT = 50
# Milliseconds after which an instant whose job was refused, or that failed, is tried again.
RETRY = 1_000
# How many instants one slice of work runs at most.
SLICE = 20
# The default of `grace` for "once", and for "all".
GRACE = 3_600_000
_NO_LIMIT = 1 << 60
_FAILED = "an internal error; see the log"


class Calendar(Protocol):
    """Knows the instants of a plan, and makes the job of one. Never raises."""

    def next_after(self, plan: Plan, instant: int) -> int | None:
        """Returns the first instant after `instant`; None: there is none."""

    def last_until(self, plan: Plan, instant: int, after: int, count: int) -> list[int]:
        """Returns the last instants that are not after `instant` but after `after`, at most `count`, in
        order."""

    def new_job(self, plan: Plan, due: int, manual: bool) -> NewJob:
        """Returns the job for the instant `due`; `manual`: one that was demanded."""

    def fault(self, plan: Plan) -> str | None:
        """Returns why the plan has no instants at all, such as a zone that is unknown here; None: it has."""


class Schedules:
    """The schedules of a queue. They are kept in its state, by name.

    `admit` raises if no new jobs are accepted at present; `made` is called with each new job.
    """

    def __init__(
        self, queue: JobQueue, calendar: Calendar, admit: Callable[[], None], made: Callable[[Job], None]
    ) -> None:
        self._queue = queue
        self._calendar = calendar
        self._admit = admit
        self._made = made
        self._by_name: dict[str, Schedule] = queue.state.schedules
        self._timers: Timers[Schedule] = Timers()  # by the wall clock
        self._outcomes: dict[Fired, int] = dict.fromkeys(get_args(Fired), 0)  # entries since the start
        self._late = max(LATE, 2 * queue.state.limits.tick)

    def next_due(self) -> int | None:
        """Returns the monotonic time at which the next instant is due; None: there is none."""
        wall = self._timers.earliest()
        return None if wall is None else wall - self._queue.state.wall_offset

    def restored(self) -> Iterator[None]:
        """Sets the timers of schedules that were read from a journal, and yields after each slice."""
        for number, schedule in enumerate(self._by_name.values(), 1):
            self._plan(schedule)
            if number % SLICE == 0:
                yield

    def figures(self, now: int, within: Callable[[str], bool] | None) -> ScheduleFigures:
        """Returns the figures of the schedules whose queues are in `within`; the outcomes are of all. O(all
        schedules)."""
        first = wall = self._queue.state.wall(now)
        states = {"active": 0, "blocked": 0, "paused": 0, "ended": 0}
        for schedule in self._by_name.values():
            if within is not None and not within(schedule.plan.job.queue):
                continue
            next_at = schedule.next_at
            if next_at is not None and next_at < first:
                first = next_at
            if schedule.paused_at is not None:
                states["paused"] += 1
            elif schedule.blocked is not None:
                states["blocked"] += 1
            else:
                states["ended" if next_at is None else "active"] += 1
        return ScheduleFigures(states, wall - first, self._outcomes)

    # -- verbs ------------------------------------------------------------------------------------------

    def get(self, name: str) -> Schedule:
        """Returns a schedule. Raises `ScheduleNotFound`."""
        schedule = self._by_name.get(name)
        if schedule is None:
            raise ScheduleNotFound(f"there is no schedule {name!r}")
        return schedule

    def check_limit(self, more: int) -> None:
        """Raises `TooManySchedules` if there may not be that many more."""
        limit = self._queue.state.limits.max_schedules
        if more > 0 and len(self._by_name) + more > limit:
            raise TooManySchedules(
                f"there are {len(self._by_name):,} schedules; the limit is {limit:,}",
                limit=limit,
                setting="JOBQUEUE_MAX_SCHEDULES",
                retry_after=60,
            )

    def add(self, plan: Plan, now: int) -> Schedule:
        """Adds a schedule of a new name. Its first instant is after now."""
        wall = self._queue.state.wall(now)
        schedule = self._by_name[plan.name] = Schedule(plan, wall, wall)
        self._note(schedule)
        return schedule

    def replace(self, schedule: Schedule, plan: Plan, now: int) -> None:
        """Gives a schedule another plan, by which no instant of the past runs. One that is due by the plan
        before still does, unless it is refused or the schedule is paused."""
        self._run_due(schedule, now)
        self._skip(schedule, self._queue.state.wall(now))
        schedule.plan = plan
        schedule.version += 1
        self._note(schedule)

    def delete(self, schedule: Schedule) -> None:
        self._unset(schedule)
        del self._by_name[schedule.plan.name]
        schedule.next_at = None
        self._report(schedule)

    def pause(self, schedule: Schedule, reason: str | None, now: int) -> None:
        """Pauses a schedule until it is resumed: no instant runs."""
        if schedule.paused_at is None:
            self._run_due(schedule, now)
            schedule.paused_at = self._queue.state.wall(now)
        elif schedule.pause_reason == reason:
            return
        schedule.pause_reason = reason
        schedule.version += 1
        self._note(schedule)

    def resume(self, schedule: Schedule, now: int) -> None:
        """Ends a pause. What came due meanwhile is not run."""
        if schedule.paused_at is None:
            return
        self._skip(schedule, self._queue.state.wall(now))
        schedule.paused_at = schedule.pause_reason = None
        schedule.version += 1
        self._note(schedule)

    def run_now(self, schedule: Schedule, now: int) -> Job | ExistingJob:
        """Enqueues a job beside the plan. Returns the unfinished job if `overlap` allows no further one.
        Raises as `JobQueue.enqueue`."""
        wall = self._queue.state.wall(now)
        self._admit()
        made = self._queue.enqueue(self._calendar.new_job(schedule.plan, wall, True), now)
        if isinstance(made, Job):
            self._made(made)
            self._enter(schedule, wall, wall, "manual", made.id)
        else:
            reason = "an earlier job is not finished; this one was demanded"
            self._enter(schedule, wall, wall, "skipped_overlap", made.job.id, reason)
        self._report(schedule)
        return made

    def explain(self, schedule: Schedule, now: int) -> ScheduleExplanation:
        """Tells why a schedule makes no jobs, and why its last instant gave none."""
        state, plan = self._queue.state, schedule.plan
        wall = state.wall(now)
        found = causes(schedule, wall, self._calendar.fault(plan))
        if schedule.next_at is not None:
            try:
                self._admit()
            except JobQueueError as refused:
                found.append(ScheduleCause("refused", why=refused.detail))
            found += obstacles(state, self._calendar.new_job(plan, schedule.next_at, False))
        last = schedule.history[-1] if schedule.history else None
        if last is not None and last.outcome != "enqueued" and last.outcome != "manual":
            since = last.due_at if last.since is None else last.since
            found.append(ScheduleCause(last.outcome, None, since, last.reason, last.job, last.due_at))
        return ScheduleExplanation(schedule, found)

    # -- the passage of time ----------------------------------------------------------------------------

    def run(self, now: int, is_over: Callable[[], bool]) -> bool:
        """Does a slice of what is due: at least one step, and more until `is_over()`. Returns whether more
        may be due."""
        wall = self._queue.state.wall(now)
        due = self._timers.due(wall, SLICE)
        for number, schedule in enumerate(due):
            searches = schedule.plan.misfire == "all" and self._is_late(schedule, wall)  # that takes longest
            if number and (searches or is_over()):
                break
            self._unset(schedule)
            self._step(schedule, now)
        return bool(due)

    def is_behind(self, name: str, now: int) -> bool:
        """Tells whether missed instants of a schedule are still to be run, or to be noted, by slices."""
        schedule, wall = self._by_name.get(name), self._queue.state.wall(now)
        return (
            schedule is not None
            and schedule.next_at is not None
            and wall - schedule.next_at > self._late
            and schedule.wakes_at is not None
            and schedule.wakes_at <= wall
        )

    def _is_late(self, schedule: Schedule, wall: int) -> bool:
        """Tells whether instants of a schedule were missed, of which some are still to be looked for."""
        first = schedule.next_at
        return first is not None and wall - first > self._late and not schedule.catching_up

    def _run_due(self, schedule: Schedule, now: int) -> None:
        """Runs the instants of one schedule that are due, before it is changed. They are one or none, since
        the caller waits while the schedule `is_behind`; at most `SLICE` if it does not."""
        wall = self._queue.state.wall(now)
        for _ in range(SLICE):
            if schedule.wakes_at is None or schedule.wakes_at > wall:
                break
            self._unset(schedule)
            self._step(schedule, now)

    def _step(self, schedule: Schedule, now: int) -> None:
        """Runs the next instant of a schedule, which is due, or notes why it does not. One that fails is
        tried again."""
        try:
            self._run_next(schedule, now)
        except Exception:
            self._unset(schedule)
            self._set(schedule, self._queue.state.wall(now) + RETRY)
            schedule.blocked = _FAILED
            raise

    def _run_next(self, schedule: Schedule, now: int) -> None:
        wall, first = self._queue.state.wall(now), schedule.next_at
        if first is None or first <= schedule.done_until:  # the step before failed when its job was there
            self._note(schedule)
            return
        chosen: int | None = first
        if self._is_late(schedule, wall):
            chosen = self._choose(schedule.plan, schedule.done_until, wall)
            if chosen != first:
                self._miss(schedule, first, chosen, wall)
            schedule.catching_up = schedule.plan.misfire == "all" and chosen is not None
        if chosen is None or self._fire(schedule, chosen, wall, now):
            schedule.blocked = None
            self._note(schedule)
            if schedule.next_at is None or wall - schedule.next_at <= self._late:
                schedule.catching_up = False
        else:
            schedule.catching_up = False  # it is chosen again then: more may have been missed
            self._set(schedule, wall + RETRY)
            if chosen != first:  # those before it were missed
                schedule.next_at = chosen
                self._report(schedule)

    def _choose(self, plan: Plan, after: int, wall: int) -> int | None:
        """Returns the first of the instants after `after` that is to run now although some were missed; None:
        none is."""
        calendar, on_time = self._calendar, wall - self._late
        if plan.misfire == "all":
            grace = self._grace(plan)
            for due in calendar.last_until(plan, wall, after, MOST_MISSED):
                if wall - due <= grace:
                    return due
            return None
        if plan.misfire == "once":
            (last,) = calendar.last_until(plan, wall, after, 1) or (0,)
            if last < on_time:
                return last if wall - last <= self._grace(plan) else None
        due_on_time = calendar.next_after(plan, max(on_time - 1, after))
        return due_on_time if due_on_time is not None and due_on_time <= wall else None

    def _miss(self, schedule: Schedule, first: int, chosen: int | None, wall: int) -> None:
        """Notes that the instants from `first` on, before `chosen`, were missed."""
        plan = schedule.plan
        until = wall if chosen is None else chosen - 1
        last = self._calendar.last_until(plan, until, schedule.done_until, 1)
        if not last:
            return
        late = f"the server came to it {(wall - last[0]) / 1000:.0f} s late"
        if schedule.blocked is not None:
            reason = schedule.blocked
        elif plan.misfire == "skip":
            reason = f"{late}; misfire is skip"
        elif chosen is None or plan.misfire == "all":
            reason = f"{late}; that is more than its grace allows"
            if chosen is not None and wall - last[0] <= self._grace(plan):
                reason = f"{late}; at most {MOST_MISSED} missed instants are run"
        else:
            reason = f"{late}; of those missed the latest is run"
        self._enter(schedule, last[0], wall, "missed", None, reason, first)
        schedule.done_until = last[0]

    def _fire(self, schedule: Schedule, due: int, wall: int, now: int) -> bool:
        """Enqueues the job of an instant, or notes why there is none. Returns False if it is to be tried
        again."""
        try:
            self._admit()
            made = self._queue.enqueue(self._calendar.new_job(schedule.plan, due, False), now)
        except DuplicateJob as taken:
            owner = taken.facts.get("job_id")
            job = owner if isinstance(owner, int) else None
            self._enter(schedule, due, wall, "skipped_overlap", job, "an earlier job is not finished")
        except (TooMany, NoRoom, Unavailable) as refused:
            if wall - due <= self._grace(schedule.plan):
                schedule.blocked = refused.detail
                return False
            self._enter(schedule, due, wall, "missed", None, refused.detail)
        else:
            schedule.done_until = due
            if isinstance(made, Job):
                self._made(made)
                self._enter(schedule, due, wall, "enqueued", made.id)
            else:
                reason = "an earlier job is not finished"
                self._enter(schedule, due, wall, "skipped_overlap", made.job.id, reason)
        schedule.done_until = due
        return True

    def _grace(self, plan: Plan) -> int:
        """Returns how old an instant may be that is run, in milliseconds."""
        if plan.misfire == "skip":
            return self._late
        if plan.grace is not None:
            return max(plan.grace, self._late)
        return GRACE if plan.misfire == "once" else _NO_LIMIT

    def _skip(self, schedule: Schedule, wall: int) -> None:
        """Is done with the instants until `wall`, and notes in the history that they are not run."""
        plan, after = schedule.plan, schedule.done_until
        # While it is paused it has no `next_at`, and still instants to note.
        due = schedule.next_at is None or schedule.next_at <= wall
        usable = due and self._calendar.fault(plan) is None
        if usable and (last := self._calendar.last_until(plan, wall, after, 1)):
            paused = schedule.paused_at is not None
            outcome: Fired = "skipped_paused" if paused else "missed"
            reason = (schedule.pause_reason or "paused") if paused else schedule.blocked
            first = self._calendar.next_after(plan, after)
            self._enter(schedule, last[0], wall, outcome, None, reason or "the schedule was changed", first)
        schedule.done_until = max(after, wall)

    # -- bookkeeping --------------------------------------------------------------------------------------

    def _enter(
        self,
        schedule: Schedule,
        due: int,
        wall: int,
        outcome: Fired,
        job: int | None,
        reason: str | None = None,
        since: int | None = None,
    ) -> None:
        """Adds an entry to the history."""
        self._outcomes[outcome] += 1
        entry = Firing(due, wall, outcome, job, reason, None if since == due else since)
        schedule.history = (*schedule.history[1 - KEPT :], entry)

    def _note(self, schedule: Schedule) -> None:
        """Reports a change to the journal, and sets the timer of the next instant."""
        self._plan(schedule)
        self._report(schedule)

    def _report(self, schedule: Schedule) -> None:
        if self._queue.state.changed is not None:
            self._queue.state.changed(schedule)

    def _plan(self, schedule: Schedule) -> None:
        """Finds the next instant and sets its timer."""
        self._unset(schedule)
        schedule.next_at = None
        schedule.blocked = self._calendar.fault(schedule.plan)
        if schedule.paused_at is None and schedule.blocked is None:
            schedule.next_at = self._calendar.next_after(schedule.plan, schedule.done_until)
            if schedule.next_at is not None:
                self._set(schedule, schedule.next_at)

    def _set(self, schedule: Schedule, at: int) -> None:
        schedule.wakes_at = at
        self._timers.add(schedule, at)

    def _unset(self, schedule: Schedule) -> None:
        if schedule.wakes_at is not None:
            self._timers.drop(schedule, schedule.wakes_at)
            schedule.wakes_at = None
