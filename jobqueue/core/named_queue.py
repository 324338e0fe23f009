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
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace, merge
from itertools import islice

from jobqueue.core.counts import TransitionCounts
from jobqueue.core.key_group import GroupLane, Jobs, KeyGroup, in_order
from jobqueue.core.lane import Lane
from jobqueue.core.limiter import Limiter
from jobqueue.core.unique_keys import UniqueKeys
from jobqueue.histogram import DecayingHistogram
from jobqueue.model import Job, KeyLimits, Pause, QueueSettings

# How many lanes `ahead` examines.
_EXAMINED = 1000


def key_of(job: Job) -> str | None:
    extras = job.extras
    return extras.options.key if extras is not None and extras.options is not None else None


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
        "asked_at",
        "bounded",
        "bytes",
        "counts",
        "groups",
        "limiter",
        "name",
        "pause",
        "queued",
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
        self.size = 0  # jobs of any status
        self.bytes = 0  # payloads of the queued and scheduled jobs
        self.settings = QueueSettings()
        self.bounded = False  # by `max_jobs` or `max_bytes`
        self.pause: Pause | None = None
        self.version = 0  # of its settings and its pause
        self.unique = UniqueKeys()
        self.used_at = 0  # when it last ran out of jobs; monotonic milliseconds
        self.asked_at: int | None = None  # when a consumer last asked for a job, or stopped waiting for one
        self.waits = DecayingHistogram()  # from enqueue to the first lease, milliseconds
        self.runs = DecayingHistogram()  # from the last lease to conclude, milliseconds
        self.limiter: Limiter | None = None
        self.groups: dict[str, KeyGroup] = {}  # by key: with jobs, or a limiter that is in use
        self._lane_shape = lane_shape
        self._schedule_wake = schedule_wake
        self._rate_marks = ((now, (0, 0)), (now, (0, 0)))  # two times, with the counts of `rates` then
        self._lanes: dict[int | tuple[int, str], GroupLane] = {}
        self._keyless = KeyGroup(None)
        self._heap: list[tuple[int, int, KeyGroup]] = []
        self._blocked: list[tuple[int, KeyGroup]] = []
        self._only_lane: GroupLane | None = None  # the lane, if there is one only and it has no key

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
        if self.limiter is not None and self.limiter.exhausted(now) is not None:
            self._wake_limiter_at(self.limiter, self.limiter.available_at(now))
            return None
        if self._only_lane is not None:
            job = self._only_lane.pop()
        elif (lane := self._first_lane(now)) is not None:
            job = lane.pop()
            lane.group.popped(lane)
            if not lane.live:
                self._drop_lane(lane, now)
        else:
            return None
        self.queued -= 1
        self.bytes -= len(job.payload)
        return job

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
    def idle(self) -> bool:
        """It has no jobs of any status, no settings and no pause."""
        return self.size == 0 and self.pause is None and self.settings == _UNSET

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

        def jobs_of(_: int, group: KeyGroup) -> Jobs:
            limiter = group.limiter
            open = group.place >= 0 and limiter is not None and limiter.exhausted(now) is None
            return group.jobs() if open else iter(())

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
        for lane in islice(self._lanes.values(), _EXAMINED):
            head = lane.peek()
            if lane is own or head is None:
                continue
            seen += lane.live
            if lane.priority > job.priority:
                count += lane.live
            elif lane.priority == job.priority and head.place < job.place:
                count += lane.before(job.place)
        return count + self.queued - seen

    def exhausted_limiters(self, job: Job, now: int) -> list[Limiter]:
        """Returns the limiters that keep `job`, which is queued here, from being taken."""
        limiters = (self.limiter, self._lane_of(job).group.limiter)
        return [limiter for limiter in limiters if limiter is not None and limiter.exhausted(now) is not None]

    # -- limiters -----------------------------------------------------------------------------------

    def configure(self, settings: QueueSettings, in_progress: int) -> None:
        """Sets all settings. `in_progress` is the number of its jobs in progress. O(keys) if the limits of
        keys change."""
        before, self.settings = self.settings, settings
        self.bounded = settings.max_jobs is not None or settings.max_bytes is not None
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
                group.limiter.set_limits(limits.max_in_progress, limits.rate)
                self._unblock(group)

    def count_start(self, job: Job, now: int) -> None:
        """Counts a job of this queue that was leased."""
        if self.limiter is not None:
            self.limiter.count_start(now)
        if (key := key_of(job)) is not None:
            self._group_of(key)[1].count_start(now)

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
            if limiter.count_end():
                self._unblock(group)
                has_capacity = True
            self._drop_unused_group(group, limiter, now)
        return has_capacity

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
            limiter = Limiter(self.name, key, limits.max_in_progress, limits.rate)
            group = self.groups[key] = KeyGroup(limiter)
        assert group.limiter is not None
        return group, group.limiter

    def _wake_limiter_at(self, limiter: Limiter, at: int | None) -> None:
        """Makes sure that the limiter is woken at `at` or earlier."""
        if (
            at is not None
            and (limiter.wakes_at is None or at < limiter.wakes_at)
            and self._schedule_wake is not None
        ):
            self._schedule_wake(limiter, at)

    def _drop_unused_group(self, group: KeyGroup, limiter: Limiter, now: int) -> None:
        """Drops a group without jobs. While its token bucket is not full, this waits for its timer."""
        if group.lanes == 0 and limiter.in_progress == 0 and limiter.key is not None:
            full_at = limiter.full_at(now)
            if full_at > now:
                self._wake_limiter_at(limiter, full_at)
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
        if group.limiter is not None and not group.blocked:
            rank = -lane.priority
            if group.place < 0 or rank < group.rank or (rank == group.rank and place < group.place):
                self._index_group(group, rank, place)

    def _index_group(self, group: KeyGroup, rank: int, place: int) -> None:
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
                group.place = -1
                group.blocked = True
                if (at := limiter.available_at(now)) is not None:
                    heappush(self._blocked, (at, group))
                    self._wake_limiter_at(limiter, at)
            elif lane.indexed_place != place or lane.priority != -rank:
                group.rank = -lane.priority
                group.place = lane.indexed_place
                heapreplace(heap, (group.rank, group.place, group))
            else:
                return lane
        return None


_UNSET = QueueSettings()
