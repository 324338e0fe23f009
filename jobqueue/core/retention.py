"""Retention: finished jobs are remembered for a time, within limits of number and bytes.

Above a limit jobs are forgotten before their time, but not simply the oldest ones: then the results of one
client would be pushed out by everybody's jobs that nobody asks for again. There are three kinds of jobs, and
each is entitled to a part of the limits, which the others may use while it does not:

    plain     without a result, and without an age of their own      a quarter
    results   with a result, but without an age of their own         a quarter
    kept      with an age of their own, which is their `retain_for`  half

The first kind that uses more than its part loses a job. Of the plain ones that is the oldest. Of the others
it is the oldest one of the queue whose jobs weigh most, within a factor of two. Jobs whose own age is 0 are
forgotten before all others, so they are in none of the three.
"""

from collections import OrderedDict, deque
from typing import Final, TypeAlias

from jobqueue.core.timers import Timers
from jobqueue.model import Job

# Bytes counted for a finished job besides its payload and result: its record, last lease and times.
RECORD_BYTES: Final = 512
# Bytes counted for each attempt of its history.
_ATTEMPT_BYTES: Final = 160
# Removed jobs that are still held are dropped only beyond this many bytes.
_HELD_BYTES: Final = 256 << 10


def weight(job: Job) -> int:
    """Returns the bytes that a finished job counts for."""
    size = RECORD_BYTES + len(job.payload)
    extras = job.extras
    if extras is not None:
        if extras.result is not None:
            size += len(extras.result)
        if extras.trace is None and extras.options is None:
            return size
        if extras.trace is not None:
            size += sum(_ATTEMPT_BYTES + len(attempt.error or b"") for attempt in extras.trace.history)
            size += len(extras.trace.error or b"")
        if extras.options is not None and extras.options.headers is not None:
            size += len(extras.options.headers)
        if extras.options is not None and extras.options.envelope is not None:
            size += len(extras.options.envelope)
    return size


class Fifo:
    """Jobs in the order in which the time of each ends. One that leaves before its turn stays here, marked as
    removed, until it comes to the front or the removed ones outweigh the others."""

    __slots__ = ("_removed", "_removed_bytes", "bytes", "jobs")

    def __init__(self) -> None:
        self.jobs: deque[tuple[int, int, Job]] = deque()  # end of its retention, weight, job
        self.bytes = 0
        self._removed: set[Job] = set()  # jobs that are still in `jobs`
        self._removed_bytes = 0

    def add(self, end: int, size: int, job: Job) -> None:
        self.jobs.append((end, size, job))
        self.bytes += size

    def remove(self, job: Job) -> int:
        """Returns the weight of the job."""
        if self.jobs[0][2] is job:
            size = self.jobs.popleft()[1]
            self.bytes -= size
        else:
            size = weight(job)
            self.bytes -= size
            self._removed.add(job)
            self._removed_bytes += size
        if self._removed:
            self._drop_removed()
        return size

    def _drop_removed(self) -> None:
        """Drops removed jobs: those at the front, or all once they outweigh the others. Every job has some
        weight, so this is O(1) on average for each `RECORD_BYTES` dropped."""
        if self._removed_bytes > self.bytes + _HELD_BYTES:
            self.jobs = deque([entry for entry in self.jobs if entry[2] not in self._removed])
            self._removed.clear()
            self._removed_bytes = 0
        while self._removed and self.jobs[0][2] in self._removed:
            _, size, job = self.jobs.popleft()
            self._removed.remove(job)
            self._removed_bytes -= size


Kept: TypeAlias = OrderedDict[Job, tuple[int, int, int]]  # end of its retention, weight, when it finished


class Share:
    """The jobs of one queue that are of one kind: `results`, or `kept` with the end and the weight of each.
    `level` is the number of bits of `bytes`. `timer` is due when the first of the results is, or before."""

    __slots__ = ("bytes", "kept", "level", "queue", "results", "timer")

    def __init__(self, queue: str, results: Fifo | None, kept: Kept | None) -> None:
        self.queue = queue
        self.bytes = 0
        self.level = 0
        self.results = results
        self.kept = kept
        self.timer: int | None = None

    def first(self) -> Job:
        if self.results is not None:
            return self.results.jobs[0][2]
        assert self.kept is not None
        return next(iter(self.kept))


class Shares:
    """The shares of all queues in one kind of jobs. They are in levels by their weight, so that one of the
    largest is found without looking at the others. All operations are O(1)."""

    __slots__ = ("_levels", "_top", "by_queue", "bytes", "count")

    def __init__(self) -> None:
        self.by_queue: dict[str, Share] = {}
        self.bytes = 0
        self.count = 0
        self._levels: list[dict[Share, None]] = [{} for _ in range(64)]
        self._top = 0  # no share is above this level

    def add(self, share: Share) -> None:
        self.by_queue[share.queue] = share

    def change(self, share: Share, count: int, size: int) -> None:
        """Adds to the number and the bytes of a share. One without jobs is dropped."""
        self.count += count
        self.bytes += size
        share.bytes += size
        level = share.bytes.bit_length()
        if level != share.level:
            self._levels[share.level].pop(share, None)
            share.level = level
            if level:
                self._levels[level][share] = None
                self._top = max(self._top, level)
            else:
                del self.by_queue[share.queue]

    def largest(self) -> Share:
        """Returns a share that is at least half as large as any other. There must be one."""
        while not self._levels[self._top]:
            self._top -= 1
        return next(iter(self._levels[self._top]))


class Retention:
    """Finished jobs. It selects the jobs to forget; the caller forgets them.

    Jobs without an age of their own have the general `age` in milliseconds, and are in the order in which it
    ends. Jobs with an age of their own are in a dict and under timers; they can leave at any time at no cost.
    `early` tells whether the job that was selected last is forgotten before its time.
    """

    __slots__ = (
        "_age",
        "_at_once",
        "_kept",
        "_kept_timers",
        "_limit",
        "_limit_bytes",
        "_plain",
        "_result_timers",
        "_results",
        "bytes",
        "count",
        "early",
        "over_limit",
    )

    def __init__(self, age: int, limit: int, limit_bytes: int) -> None:
        self._age = age
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._plain = Fifo()
        self._results = Shares()
        self._result_timers: Timers[Share] = Timers()
        self._kept = Shares()
        self._kept_timers: Timers[Job] = Timers()
        self._at_once: OrderedDict[Job, int] = OrderedDict()  # weights
        self.bytes = 0
        self.count = 0
        self.over_limit = False  # in number or bytes
        self.early = False

    def __len__(self) -> int:
        return self.count

    def add(self, job: Job, now: int, age: int | None = None) -> bool:
        """Adds a job that finished at `now`, monotonic milliseconds; `age` is its own. Returns whether
        `next_to_forget` may have a job."""
        extras = job.extras
        has_result = False
        if (
            extras is None
            or extras.trace is not None
            or extras.options is not None
            or extras.result is not None
        ):
            size = weight(job)
            has_result = extras is not None and extras.result is not None
        else:  # most jobs; this saves a call
            size = RECORD_BYTES + len(job.payload)
        self.bytes += size
        self.count += 1
        if age == 0:
            self._at_once[job] = size
        elif age is not None:
            self._keep(job, now, age, size)
        elif has_result:
            age = self._age
            self._add_result(job, now + age, size)
        else:
            age = self._age
            self._plain.add(now + age, size, job)
        self.over_limit = self.count > self._limit or self.bytes > self._limit_bytes
        return self.over_limit or age == 0

    def follow_clock(self, wall_offset: int, restored_at: int) -> None:
        """Sets the ends of the jobs that were restored at `restored_at`, which follow the wall clock: it has
        been set. The retention of the others, which come after them everywhere, is a length and does not
        change. O(restored jobs)."""
        self._follow(self._plain.jobs, wall_offset, restored_at)
        for share in self._results.by_queue.values():
            results = share.results
            assert results is not None
            if self._follow(results.jobs, wall_offset, restored_at):
                self._set_timer(share, results.jobs[0][0])
        for share in self._kept.by_queue.values():
            kept = share.kept
            assert kept is not None
            restored = []
            for job, entry in kept.items():
                if entry[2] > restored_at:
                    break
                restored.append((job, entry))
            for job, (end, size, finished) in restored:
                at = _finished(job, finished, wall_offset, restored_at)
                self._kept_timers.drop(job, end)
                self._kept_timers.add(job, end - finished + at)
                kept[job] = (end - finished + at, size, at)

    def _follow(self, jobs: deque[tuple[int, int, Job]], wall_offset: int, restored_at: int) -> bool:
        """Sets the ends of the restored jobs, which are at the front. Returns whether there are any."""
        moved: list[tuple[int, int, Job]] = []
        while jobs and jobs[0][0] - self._age <= restored_at:
            end, size, job = jobs.popleft()
            end = self._age + _finished(job, end - self._age, wall_offset, restored_at)
            moved.append((end, size, job))
        moved.reverse()
        jobs.extendleft(moved)
        return bool(moved)

    def _keep(self, job: Job, now: int, age: int, size: int) -> None:
        share = self._kept.by_queue.get(job.queue)
        if share is None:
            share = Share(job.queue, None, OrderedDict())
            self._kept.add(share)
        assert share.kept is not None
        share.kept[job] = (now + age, size, now)
        self._kept_timers.add(job, now + age)
        self._kept.change(share, 1, size)

    def _add_result(self, job: Job, end: int, size: int) -> None:
        share = self._results.by_queue.get(job.queue)
        if share is None:
            share = Share(job.queue, Fifo(), None)
            self._results.add(share)
        assert share.results is not None
        share.results.add(end, size, job)
        self._results.change(share, 1, size)
        if share.timer is None:
            self._set_timer(share, end)

    def discard(self, job: Job) -> None:
        """Removes a job that is forgotten, redriven, cancelled or purged."""
        self.count -= 1
        if self._at_once and (size := self._at_once.pop(job, None)) is not None:
            self.bytes -= size
        elif self._kept.count or self._results.count:
            self.bytes -= self._remove(job)
        else:
            self.bytes -= self._plain.remove(job)
        self.over_limit = self.count > self._limit or self.bytes > self._limit_bytes

    def _remove(self, job: Job) -> int:
        """Removes a job of any kind, and returns its weight."""
        share = self._kept.by_queue.get(job.queue)
        kept = share.kept if share is not None else None
        if share is not None and kept is not None and (entry := kept.pop(job, None)) is not None:
            self._kept_timers.drop(job, entry[0])
            self._kept.change(share, -1, -entry[1])
            return entry[1]
        if job.extras is None or job.extras.result is None:
            return self._plain.remove(job)
        share = self._results.by_queue[job.queue]
        assert share.results is not None
        size = share.results.remove(job)
        if share.bytes == size and share.timer is not None:
            self._set_timer(share, None)
        self._results.change(share, -1, -size)
        return size

    def _set_timer(self, share: Share, at: int | None) -> None:
        if share.timer is not None:
            self._result_timers.drop(share, share.timer)
        share.timer = at
        if at is not None:
            self._result_timers.add(share, at)

    def next_to_forget(self, now: int) -> Job | None:
        """Returns a job whose time is over, or one to be forgotten early if a limit is exceeded. None if all
        may stay. The job stays here until it is discarded."""
        self.early = False
        if self._at_once:
            return next(iter(self._at_once))
        plain = self._plain.jobs
        if plain and plain[0][0] <= now:
            return plain[0][2]
        if self._results.count and (job := self._due_result(now)) is not None:
            return job
        if self._kept.count and (due := self._kept_timers.due(now, 1)):
            return due[0]
        if not self.over_limit:
            return None
        self.early = True
        results, kept = self._results, self._kept
        if self._exceeds_part(self.count - results.count - kept.count, self._plain.bytes):
            return plain[0][2]
        return (results if self._exceeds_part(results.count, results.bytes) else kept).largest().first()

    def _due_result(self, now: int) -> Job | None:
        while due := self._result_timers.due(now, 1):
            share = due[0]
            assert share.results is not None
            end, _, job = share.results.jobs[0]
            if end <= now:
                return job
            self._set_timer(share, end)
        return None

    def _exceeds_part(self, count: int, size: int) -> bool:
        """Returns whether a kind with so many jobs and bytes uses more than a quarter of the limit that is
        exceeded."""
        if self.count > self._limit:
            return count > self._limit // 4
        return size > self._limit_bytes // 4


def _finished(job: Job, before: int, wall_offset: int, restored_at: int) -> int:
    """Returns when a restored job finished, in monotonic milliseconds; `before` if it has been redriven."""
    extras = job.extras
    if extras is None or extras.finished_at is None:
        return before
    return min(extras.finished_at - wall_offset, restored_at)
