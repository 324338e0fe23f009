"""NamedQueue: one named queue, with its jobs in order, its limiters, its settings and its counts.

Jobs are ordered by priority, and by place inside one priority. There are two levels, so that jobs whose key
is at its limit are skipped as a whole:

    _heap         the groups of keys whose limiter has capacity, as far as known
      KeyGroup    the lanes of one key, by priority and place
        Lane      the jobs of one key and priority, by place
    _keyless      the one group of all jobs without a key
    _blocked      the groups whose limiter was found exhausted, by when its rate allows the next job

A group that is blocked by `max_in_progress` is in neither heap; the end of a lease brings it back. Both heaps
are lazy, as that of a `KeyGroup` is. An entry of `_heap` is outdated if it does not have the `rank` and
`place` of its group; an entry of `_blocked`, if its group is no longer blocked.

With the setting `fair_keys` all groups, also that of the jobs without a key, take turns inside a priority.
They are in `_turns` instead of `_heap`, and the `place` of a group is its turn.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace, merge
from itertools import islice
from typing import Final

from jobqueue.core.counts import TransitionCounts
from jobqueue.core.fair_turns import FairTurns
from jobqueue.core.key_group import GroupLane, Jobs, KeyGroup, in_order
from jobqueue.core.lane import Lane
from jobqueue.core.limiter import Limiter
from jobqueue.core.unique_keys import UniqueKeys
from jobqueue.histogram import DecayingHistogram
from jobqueue.model import Job, KeyLimits, Pause, QueueSettings
from jobqueue.steps import DEAD, IN_PROGRESS, SCHEDULED

# How many lanes `ahead` examines.
_EXAMINED: Final = 1000


def key_of(job: Job) -> str | None:
    extras = job.extras
    return extras.options.key if extras is not None and extras.options is not None else None


class PastQueue:
    """What is left of a queue that was dropped: the number of its finished jobs, and its counts and times.
    The counts continue if the queue comes again: counters never fall."""

    __slots__ = ("counts", "measured", "runs", "size", "waits")

    def __init__(self, queue: "NamedQueue") -> None:
        self.size = queue.size
        self.measured = queue.measured
        self.counts = queue.counts
        self.waits = queue.waits
        self.runs = queue.runs


class NamedQueue:
    """One named queue. Jobs are added by `append` and `put_back`, and leave by `take` and `remove`; no status
    changes here.

    `lane_shape` is what `Lane` takes. `schedule_wake(limiter, at)` is called for a limiter that will have
    capacity at `at`, earlier than its `wakes_at` if it has one; the owner must then call `wake`.
    """

    __slots__ = (
        "_blocked",
        "_heap",
        "_keyless",
        "_lane_shape",
        "_lanes",
        "_only_lane",
        "_rate_marks",
        "_schedule_wake",
        "_turns",
        "asked_at",
        "bounded",
        "bytes",
        "counts",
        "groups",
        "limiter",
        "max_run_for",
        "measured",
        "name",
        "open_runs",
        "pause",
        "queued",
        "resumes_at",
        "retrying",
        "runs",
        "scheduled",
        "settings",
        "size",
        "steps",
        "unique",
        "used_at",
        "version",
        "waits",
    )

    def __init__(
        self,
        name: str,
        lane_shape: tuple[int, int, float],
        schedule_wake: Callable[[Limiter, int], None] | None = None,
        now: int = 0,
    ) -> None:
        self.name = name
        self.counts = TransitionCounts()
        self.steps = self.counts.steps
        self.queued = 0
        self.scheduled = 0
        self.retrying = 0  # those of the scheduled jobs whose last attempt failed
        self.size = 0  # jobs of any status
        self.bytes = 0  # payloads of the queued and scheduled jobs
        self.settings = QueueSettings()
        self.bounded = False  # by `max_jobs` or `max_bytes`
        self.max_run_for: int | None = None  # that of its settings, as each lease asks for it
        self.pause: Pause | None = None
        # When a pause for a length that began in this run ends, in monotonic milliseconds.
        self.resumes_at: int | None = None
        self.version = 0  # of its settings and its pause
        self.unique = UniqueKeys()
        self.used_at = 0  # when it last ran out of jobs; monotonic milliseconds
        self.asked_at: int | None = None  # when a consumer last asked for a job, or stopped waiting for one
        self.waits = DecayingHistogram()  # from enqueue to the first lease, milliseconds
        self.runs = DecayingHistogram()  # from the last lease to conclude, milliseconds
        self.measured = False  # it has metrics of its own, which outlive it
        self.limiter: Limiter | None = None
        self.groups: dict[str, KeyGroup] = {}  # by key: with jobs, or a limiter that is in use
        self.open_runs: list[Limiter] = []  # of keys that may give more jobs to the dequeue under way
        self._lane_shape = lane_shape
        self._schedule_wake = schedule_wake
        self._rate_marks = ((now, (0, 0)), (now, (0, 0)))  # two times, with the counts of `rates` then
        self._lanes: dict[int | tuple[int, str], GroupLane] = {}
        self._keyless = KeyGroup(None)
        self._heap: list[tuple[int, int, KeyGroup]] = []
        self._blocked: list[tuple[int, KeyGroup]] = []
        self._turns: FairTurns | None = None
        self._only_lane: GroupLane | None = None  # the lane, if there is one only and it has no key

    def go_on_from(self, past: PastQueue, now: int) -> None:
        """Continues with what was left of a queue of this name. Call before anything else."""
        self.size = past.size
        self.measured = past.measured
        self.counts = past.counts
        self.steps = past.counts.steps
        self.waits = past.waits
        self.runs = past.runs
        totals = past.counts.totals()
        mark = (now, (totals["enqueued"], totals["dequeued"]))
        self._rate_marks = (mark, mark)

    # -- jobs ---------------------------------------------------------------------------------------

    def append(self, job: Job) -> None:
        """Puts a job at the end of its priority; its place is above all others."""
        lane = self._lanes.get(job.priority) if job.extras is None else self._lane_of(job)
        if lane is None:
            lane = self._new_lane(job.priority)
        lane.append(job)
        self.queued += 1
        self.bytes += len(job.payload)
        if lane.indexed_place < 0:
            self._index(lane, job.place)

    def put_back(self, job: Job) -> None:
        """Puts a job that was taken before at its place."""
        lane = self._lane_of(job)
        lane.put_back(job)
        self.queued += 1
        self.bytes += len(job.payload)
        if job.place < lane.indexed_place or lane.indexed_place < 0:
            self._index(lane, job.place)

    def take(self, now: int) -> Job | None:
        """Takes the next job: of those whose limiters have capacity, the one of the highest priority, and of
        these the one with the lowest place."""
        if not self.queued or self.pause is not None:
            return None
        if self.limiter is not None and self._exhausts(self.limiter, now):
            return None
        if self._only_lane is not None:
            job = self._only_lane.pop()
        elif (lane := self._first_lane(now)) is not None:
            job = self._pop(lane, now)
        else:
            return None
        self.queued -= 1
        self.bytes -= len(job.payload)
        return job

    def take_in_run_of(self, job: Job, now: int) -> Job | None:
        """Takes the next job of the key of `job`, which has just been leased, if it has the same priority and
        may join its run. Returns None if there is none; and with `fair_keys`, where the next turn is that of
        another key."""
        key = key_of(job)
        if key is None or not self.open_runs or self.pause is not None or self._turns is not None:
            return None
        if self.limiter is not None and self._exhausts(self.limiter, now):
            return None
        group, limiter = self._group_of(key)
        if not limiter.room or limiter.exhausted(now) is not None:
            return None
        lane = group.first_lane()
        if lane is None or lane.priority != job.priority:
            return None
        following = self._pop(lane, now)
        self.queued -= 1
        self.bytes -= len(following.payload)
        return following

    def _pop(self, lane: GroupLane, now: int) -> Job:
        """Takes the first job of `lane`, which is the first one of its group. The counts are left to the
        caller."""
        job = lane.pop()
        lane.group.popped(lane)
        if self._turns is not None:
            self._end_turn(self._turns, lane.group)
        if not lane.live:
            self._drop_lane(lane, now)
        return job

    def first(self, now: int) -> Job | None:
        """Returns the job that `take` would take."""
        if not self.queued or self.pause is not None:
            return None
        if self.limiter is not None and self._exhausts(self.limiter, now):
            return None
        lane = self._only_lane if self._only_lane is not None else self._first_lane(now)
        return lane.peek() if lane is not None else None

    def remove(self, job: Job, now: int) -> Lane:
        """Removes a queued job from wherever it is, and returns its lane. Raises `KeyError` if the job is not
        queued here."""
        lane = self._lane_of(job)
        lane.remove(job)
        self.queued -= 1
        self.bytes -= len(job.payload)
        if not lane.live:
            self._drop_lane(lane, now)
        return lane

    # -- reading ------------------------------------------------------------------------------------

    @property
    def configured(self) -> bool:
        """It has settings or a pause, which are kept over a restart."""
        return self.pause is not None or self.settings != _UNSET

    @property
    def idle(self) -> bool:
        """It has no jobs of any status, no settings and no pause."""
        return self.size == 0 and not self.configured

    @property
    def spent(self) -> bool:
        """It has at most concluded and cancelled jobs, no settings, no pause and no unique keys."""
        if self.queued or self.scheduled or self.configured:
            return False
        jobs = self.counts.jobs()
        return not (jobs[IN_PROGRESS] or jobs[DEAD] or self.unique.owner)

    @property
    def ready(self) -> bool:
        """It has queued jobs and is not paused. Its limiters may be exhausted."""
        return self.queued > 0 and self.pause is None

    @property
    def lanes(self) -> list[GroupLane]:
        return list(self._lanes.values())

    def rates(self, now: int) -> tuple[float, float]:
        """Returns how many jobs a second were added and leased lately. It measures from the last call but
        one, of calls at least ten seconds apart. If called every ten seconds, it covers the last ten to
        twenty."""
        totals = self.counts.totals()
        counts = (totals["enqueued"], totals["dequeued"])
        if now - self._rate_marks[1][0] >= 10_000:
            self._rate_marks = (self._rate_marks[1], (now, counts))
        since, then = self._rate_marks[0]
        seconds = max(now - since, 1000) / 1000
        return (counts[0] - then[0]) / seconds, (counts[1] - then[1]) / seconds

    def upcoming(self, limit: int, now: int) -> list[Job]:
        """Returns up to `limit` jobs in the order in which `take` would return them, as if there were no
        pause and no limiter of the queue. Jobs whose key is at its limit are left out."""
        self._unblock_due(now)
        if self._only_lane is not None:
            return list(islice(self._only_lane, limit))
        if self._turns is not None:
            return list(islice(self._turns.upcoming(lambda group: _has_capacity(group, now)), limit))

        def jobs_of(_: int, group: KeyGroup) -> Jobs:
            return group.jobs() if group.place >= 0 and _has_capacity(group, now) else iter(())

        both = merge(self._keyless.jobs(), in_order(self._heap, jobs_of))
        return [job for _, _, job in islice(both, limit)]

    def oldest(self) -> Job | None:
        """Returns the job that was created first, of the first jobs of all lanes. O(lanes)."""
        oldest, created_at = None, 0
        for lane in self._lanes.values():  # a plain loop, as there may be as many lanes as jobs
            head = lane.peek()
            if head is not None and (oldest is None or head.created_at < created_at):
                oldest, created_at = head, head.created_at
        return oldest

    def lane_figures(self) -> tuple[int, int, int]:
        """Returns the numbers of lanes, of their slots, and of those that are empty. O(lanes)."""
        slots = empty = 0
        for lane in self._lanes.values():
            slots += lane.slots
            empty += lane.empty
        return len(self._lanes), slots, empty

    def by_priority(self) -> dict[int, int]:
        """Returns how many jobs are queued at each priority, the highest first. O(lanes)."""
        counts: dict[int, int] = {}
        priority = live = 0
        for lane in self._lanes.values():  # neighbouring lanes often have the same priority
            if lane.priority != priority:
                counts[priority] = counts.get(priority, 0) + live
                priority, live = lane.priority, 0
            live += lane.live
        counts[priority] = counts.get(priority, 0) + live
        counts = {priority: live for priority, live in counts.items() if live}
        return dict(sorted(counts.items(), reverse=True))

    def ahead(self, job: Job) -> int:
        """Returns an upper bound for the number of queued jobs that are leased before `job`, which is queued
        here. It counts jobs whose key is at its limit, and beyond the first `_EXAMINED` lanes all jobs."""
        own = self._lane_of(job)
        count, seen = own.before(job.place), own.live
        turns = count + 1 if self._turns is not None else None  # of each key until it is the turn of `job`
        for lane in islice(self._lanes.values(), _EXAMINED):
            head = lane.peek()
            if lane is own or head is None:
                continue
            seen += lane.live
            if lane.priority > job.priority:
                count += lane.live
            elif lane.priority == job.priority and turns is not None:
                count += min(lane.live, turns)
            elif lane.priority == job.priority and head.place < job.place:
                count += lane.before(job.place)
        return count + self.queued - seen

    def exhausted_limiters(self, job: Job, now: int) -> list[Limiter]:
        """Returns the limiters that keep `job`, which is queued here, from being taken."""
        limiters = (self.limiter, self._lane_of(job).group.limiter)
        return [limiter for limiter in limiters if limiter is not None and limiter.exhausted(now) is not None]

    def rate_allows(self, now: int) -> bool:
        """Returns whether a rate, of the queue or of a key, may allow a job that it did not allow before. Its
        waiters may not know of it until the next tick."""
        return self.limiter is not None or (len(self._blocked) > 0 and self._blocked[0][0] <= now)

    def may_take(self, job: Job, now: int) -> bool:
        """Returns whether `job`, which is queued or scheduled here, may be leased before its turn: the queue
        is not paused, its limiters have capacity, and in a key in strict order it is the first one."""
        if self.pause is not None or (self.limiter is not None and self.limiter.exhausted(now) is not None):
            return False
        key = key_of(job)
        group = self.groups.get(key) if key is not None else None
        if group is None or group.limiter is None:
            return True
        rests = int(job.status == SCHEDULED and job.place > 0)
        if group.limiter.exhausted(now, rests) is not None:
            return False
        lane = group.first_lane() if group.limiter.ordered else None
        first = lane.peek() if lane is not None else None
        if first is None or first is job:
            return True
        if first.priority != job.priority:
            return first.priority < job.priority
        return 0 < job.place < first.place

    # -- limiters -----------------------------------------------------------------------------------

    def configure(self, settings: QueueSettings, in_progress: int) -> None:
        """Sets all settings. `in_progress` is the number of its jobs in progress. O(keys) if the limits of
        keys or `fair_keys` change."""
        before, self.settings = self.settings, settings
        self.bounded = settings.max_jobs is not None or settings.max_bytes is not None
        self.max_run_for = settings.max_run_for
        self.version += 1
        if settings.max_in_progress is None and settings.rate is None:
            self.limiter = None
        else:
            self.limiter = self.limiter or Limiter(self.name, None, None, None)
            self.limiter.in_progress = in_progress
            self.limiter.set_limits(settings.max_in_progress, settings.rate)
        if settings.key_limits != before.key_limits:
            limits = settings.key_limits or KeyLimits()
            self._blocked.clear()
            for group in self.groups.values():
                assert group.limiter is not None
                _set_key_limits(group.limiter, limits)
                self._unblock(group)
        if settings.fair_keys != before.fair_keys:
            self._reorder(settings.fair_keys)

    def count_start(self, job: Job, now: int) -> None:
        """Counts a job of this queue that was leased."""
        if self.limiter is not None:
            self.limiter.count_start(now)
        if (key := key_of(job)) is not None:
            limiter = self._group_of(key)[1]
            if limiter.batch == 1:
                limiter.count_start(now)
            else:
                if not limiter.room:
                    self.open_runs.append(limiter)
                limiter.count_start_in_run(job.id, now)

    def close_runs(self) -> None:
        """Ends a dequeue: no further job joins the runs in `open_runs`."""
        for limiter in self.open_runs:
            limiter.room = 0
        self.open_runs.clear()

    def restore_in_progress(self, job: Job) -> None:
        """Counts a job that was leased in an earlier run. It takes no token of a rate."""
        if self.limiter is not None:
            self.limiter.in_progress += 1
        if (key := key_of(job)) is not None:
            self._group_of(key)[1].in_progress += 1

    def count_end(self, job: Job, now: int) -> bool:
        """Counts the end of a lease. Returns whether a limiter has capacity again."""
        has_capacity = self.limiter is not None and self.limiter.count_end()
        if (key := key_of(job)) is not None:
            group, limiter = self._group_of(key)
            if limiter.count_end_of(job.id) if limiter.runs else limiter.count_end():
                self._unblock(group)
                has_capacity = True
            self._drop_unused_group(group, limiter, now)
        return has_capacity

    def is_ordered(self, key: str | None) -> bool:
        """Returns whether the jobs of `key` are served in strict order."""
        limits = self.settings.key_limits
        return key is not None and limits is not None and limits.ordered

    def count_rest(self, job: Job) -> None:
        """Counts a job that is scheduled and keeps its place."""
        if (key := key_of(job)) is not None:
            self._group_of(key)[1].resting += 1

    def count_rest_end(self, job: Job, now: int, returns: bool) -> bool:
        """Counts a job that no longer rests; with `returns` it is put back next. Returns whether the next one
        of its key may start."""
        if (key := key_of(job)) is None:
            return False
        group, limiter = self._group_of(key)
        limiter.resting -= 1
        if limiter.ordered and not limiter.resting:
            self._unblock(group)
        if not returns:
            self._drop_unused_group(group, limiter, now)
        return limiter.ordered

    def wake(self, limiter: Limiter, now: int) -> None:
        """Handles the timer of a limiter, which has been dropped."""
        limiter.wakes_at = None
        group = self.groups.get(limiter.key) if limiter.key is not None else None
        if group is not None and group.limiter is limiter:  # the key may have got a new limiter since
            self._drop_unused_group(group, limiter, now)

    def _unblock_due(self, now: int) -> None:
        while self._blocked and self._blocked[0][0] <= now:
            self._unblock(heappop(self._blocked)[1])

    def _unblock(self, group: KeyGroup) -> None:
        if group.blocked:
            group.blocked = False
            if (lane := group.first_lane()) is not None:
                self._index_group(group, -lane.priority, lane.indexed_place)

    def _group_of(self, key: str) -> tuple[KeyGroup, Limiter]:
        group = self.groups.get(key)
        if group is None:
            limits = self.settings.key_limits or KeyLimits()
            limiter = Limiter(self.name, key, None, None)
            _set_key_limits(limiter, limits)
            group = self.groups[key] = KeyGroup(limiter)
        assert group.limiter is not None
        return group, group.limiter

    def _exhausts(self, limiter: Limiter, now: int) -> bool:
        """Returns whether the limiter of the queue is exhausted. If so, it is woken when it has capacity."""
        if limiter.exhausted(now) is None:
            return False
        self._wake_limiter_at(limiter, limiter.available_at(now))
        return True

    def _wake_limiter_at(self, limiter: Limiter, at: int | None) -> None:
        """Makes sure that the limiter is woken at `at` or earlier."""
        if (
            at is not None
            and (limiter.wakes_at is None or at < limiter.wakes_at)
            and self._schedule_wake is not None
        ):
            self._schedule_wake(limiter, at)

    def _drop_unused_group(self, group: KeyGroup, limiter: Limiter, now: int) -> None:
        """Drops a group without jobs. While its limiter is not as a new one would be, this waits for
        its timer."""
        unused = group.lanes == 0 and limiter.in_progress == 0 and limiter.resting == 0
        if unused and limiter.key is not None:
            fresh_at = limiter.fresh_at(now)
            if fresh_at > now:
                self._wake_limiter_at(limiter, fresh_at)
            else:
                del self.groups[limiter.key]

    # -- lanes --------------------------------------------------------------------------------------

    def _lane_of(self, job: Job) -> GroupLane:
        name: int | tuple[int, str] = job.priority
        if job.extras is not None and (key := key_of(job)) is not None:
            name = (job.priority, key)
        lane = self._lanes.get(name)
        return lane if lane is not None else self._new_lane(name)

    def _new_lane(self, name: int | tuple[int, str]) -> GroupLane:
        if self._only_lane is not None and not self._only_lane.live:  # it was kept for its priority
            self._drop_lane(self._only_lane, 0)
        group = self._keyless if isinstance(name, int) else self._group_of(name[1])[0]
        group.lanes += 1
        lane = self._lanes[name] = GroupLane(name, group, self._lane_shape)
        self._only_lane = lane if group is self._keyless and len(self._lanes) == 1 else None
        return lane

    def _drop_lane(self, lane: GroupLane, now: int) -> None:
        """Drops a lane without jobs."""
        del self._lanes[lane.name]
        group = lane.group
        group.remove(lane)
        if group.limiter is not None:
            if group.lanes == 0:
                group.place = -1
                self._drop_unused_group(group, group.limiter, now)
            self._drop_outdated()
        if self._turns is not None:
            self._turns.drop_outdated(len(self.groups) + 1)
        if len(self._lanes) == 1:
            (only,) = self._lanes.values()
            self._only_lane = only if only.group is self._keyless else None
        else:
            self._only_lane = None

    # -- the order of lanes -------------------------------------------------------------------------

    def _index(self, lane: GroupLane, place: int) -> None:
        """Adds the entry of a lane to its group, and that of the group here if it is now further ahead."""
        group = lane.group
        group.index(lane, place)
        if self._turns is not None:
            rank = -lane.priority
            if not group.blocked and (group.place < 0 or rank < group.rank):
                self._turns.add(group, rank)
        elif group.limiter is not None and not group.blocked:
            rank = -lane.priority
            if group.place < 0 or rank < group.rank or (rank == group.rank and place < group.place):
                self._index_group(group, rank, place)

    def _index_group(self, group: KeyGroup, rank: int, place: int) -> None:
        if self._turns is not None:
            self._turns.add(group, rank)
            return
        group.rank = rank
        group.place = place
        heappush(self._heap, (rank, place, group))
        self._drop_outdated()

    def _drop_outdated(self) -> None:
        """Rebuilds the heap if more than half of it is outdated: O(1) on average for each such entry."""
        if len(self._heap) > 2 * len(self.groups) + 8:
            self._heap = [
                (group.rank, group.place, group) for group in self.groups.values() if group.place >= 0
            ]
            heapify(self._heap)

    def _first_lane(self, now: int) -> GroupLane | None:
        """Returns the lane of the next job."""
        self._unblock_due(now)
        if self._turns is not None:
            return self._lane_in_turn(self._turns, now)
        keyless = self._keyless.first_lane()
        keyed = self._first_keyed_lane(now) if self._heap else None
        if keyless is None or keyed is None:
            return keyless or keyed
        if keyed.priority == keyless.priority:
            return keyed if keyed.indexed_place < keyless.indexed_place else keyless
        return keyed if keyed.priority > keyless.priority else keyless

    def _first_keyed_lane(self, now: int) -> GroupLane | None:
        """Returns the lane of the next job with a key. Above it, drops outdated entries and blocks groups
        whose limiter is exhausted."""
        while heap := self._heap:
            rank, place, group = heap[0]
            lane = group.first_lane() if group.place == place and group.rank == rank else None
            if lane is None:
                heappop(heap)
                continue
            limiter = group.limiter
            assert limiter is not None
            if limiter.exhausted(now) is not None:
                heappop(heap)
                self._block(group, limiter, now)
            elif lane.indexed_place != place or lane.priority != -rank:
                group.rank = -lane.priority
                group.place = lane.indexed_place
                heapreplace(heap, (group.rank, group.place, group))
            else:
                return lane
        return None

    def _block(self, group: KeyGroup, limiter: Limiter, now: int) -> None:
        """Blocks a group whose limiter is exhausted."""
        group.place = -1
        group.blocked = True
        if (at := limiter.available_at(now)) is not None:
            heappush(self._blocked, (at, group))
            self._wake_limiter_at(limiter, at)

    # -- fair keys ----------------------------------------------------------------------------------

    def _lane_in_turn(self, turns: FairTurns, now: int) -> GroupLane | None:
        """Returns the lane of the next job if keys take turns. Blocks groups whose limiter is exhausted."""
        while (group := turns.first()) is not None:
            lane = group.first_lane()
            if lane is None:
                group.place = -1
            elif not _has_capacity(group, now):
                assert group.limiter is not None
                self._block(group, group.limiter, now)
            elif -lane.priority != group.rank:
                turns.add(group, -lane.priority)
            else:
                return lane
        return None

    def _end_turn(self, turns: FairTurns, group: KeyGroup) -> None:
        """Lets a group that has lost its first job wait for its next turn."""
        lane = group.first_lane()
        if lane is None:
            group.place = -1
        else:
            turns.add(group, -lane.priority)

    def _reorder(self, fair: bool) -> None:
        """Orders the groups by turns, which begin in the order of their first jobs, or by place. O(keys)."""
        if self._only_lane is not None and not self._only_lane.live:  # it was kept for its priority
            self._drop_lane(self._only_lane, 0)
        self._heap.clear()
        self._turns = FairTurns() if fair else None
        found = []
        for group in (self._keyless, *self.groups.values()):
            group.place = -1
            if not group.blocked and (lane := group.first_lane()) is not None:
                found.append((lane.indexed_place, -lane.priority, group))
        for place, rank, group in sorted(found):
            if fair or group is not self._keyless:
                self._index_group(group, rank, place)


def _has_capacity(group: KeyGroup, now: int) -> bool:
    return group.limiter is None or group.limiter.exhausted(now) is None


def _set_key_limits(limiter: Limiter, limits: KeyLimits) -> None:
    limiter.ordered = limits.ordered
    limiter.batch = limits.batch
    limiter.set_limits(1 if limits.ordered else limits.max_in_progress, limits.rate)


_UNSET: Final = QueueSettings()
