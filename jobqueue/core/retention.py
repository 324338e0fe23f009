"""Retention: finished jobs are remembered for a time, within limits of number and bytes."""

from collections import OrderedDict, deque

from jobqueue.core.timers import Timers
from jobqueue.model import Job

# Bytes counted for a finished job besides its payload and result: its record, last lease and times.
RECORD_BYTES = 512
# Bytes counted for each attempt of its history.
_ATTEMPT_BYTES = 160
# Removed jobs that are still held are dropped only beyond this many bytes.
_HELD_BYTES = 256 << 10


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
    return size


class Retention:
    """Finished jobs, in the order in which they finished. It selects the jobs to forget; the caller forgets
    them.

    Jobs without an age of their own have the general `age` in milliseconds, and are in a deque in the order
    in which it ends. One that is purged before its turn stays in the deque, marked as removed, until it comes
    to the front or the removed ones outweigh the others. Jobs with an age of their own are in a dict and
    under timers; they can leave at any time at no cost.
    """

    __slots__ = (
        "_age",
        "_jobs",
        "_limit",
        "_limit_bytes",
        "_own",
        "_own_timers",
        "_removed",
        "_removed_bytes",
        "bytes",
        "count",
        "over_limit",
    )

    def __init__(self, age: int, limit: int, limit_bytes: int) -> None:
        self._age = age
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._jobs: deque[tuple[int, int, Job]] = deque()  # end of its retention, weight, job
        self._removed: set[Job] = set()  # jobs that are still in `_jobs`
        self._removed_bytes = 0
        self._own: OrderedDict[Job, tuple[int, int, int]] = OrderedDict()  # end, weight, when it finished
        self._own_timers: Timers[Job] = Timers()
        self.bytes = 0
        self.count = 0
        self.over_limit = False  # in number or bytes

    def __len__(self) -> int:
        return self.count

    def add(self, job: Job, now: int, age: int | None = None) -> bool:
        """Adds a job that finished at `now`, monotonic milliseconds; `age` is its own. Returns whether
        `next_to_forget` may have a job."""
        extras = job.extras
        if (
            extras is None
            or extras.trace is not None
            or extras.options is not None
            or extras.result is not None
        ):
            size = weight(job)
        else:  # most jobs; this saves a call
            size = RECORD_BYTES + len(job.payload)
        self.bytes += size
        self.count += 1
        if age is None:
            age = self._age
            self._jobs.append((now + age, size, job))
        else:
            self._own[job] = (now + age, size, now)
            self._own_timers.add(job, now + age)
        self.over_limit = self.count > self._limit or self.bytes > self._limit_bytes
        return self.over_limit or age == 0

    def discard(self, job: Job) -> None:
        """Removes a job that is forgotten, redriven, cancelled or purged."""
        self.count -= 1
        if self._own and (entry := self._own.pop(job, None)) is not None:
            self._own_timers.drop(job, entry[0])
            self.bytes -= entry[1]
        elif self._jobs[0][2] is job:
            self.bytes -= self._jobs.popleft()[1]
        else:
            size = weight(job)
            self.bytes -= size
            self._removed.add(job)
            self._removed_bytes += size
        if self._removed:
            self._drop_removed()
        self.over_limit = self.count > self._limit or self.bytes > self._limit_bytes

    def _drop_removed(self) -> None:
        """Drops removed jobs: those at the front, or all once they outweigh the others. Every job has some
        weight, so this is O(1) on average for each `RECORD_BYTES` dropped."""
        if self._removed_bytes > self.bytes + _HELD_BYTES:
            self._jobs = deque([entry for entry in self._jobs if entry[2] not in self._removed])
            self._removed.clear()
            self._removed_bytes = 0
        while self._removed and self._jobs[0][2] in self._removed:
            _, size, job = self._jobs.popleft()
            self._removed.remove(job)
            self._removed_bytes -= size

    def next_to_forget(self, now: int) -> Job | None:
        """Returns a job whose time is over; or if a limit is exceeded, the one that finished first. None if
        all may stay. The job stays here until it is discarded."""
        first = self._jobs[0] if self._jobs else None
        if first is not None and (first[0] <= now or (self.over_limit and not self._own)):
            return first[2]
        if not self._own:
            return None
        if due := self._own_timers.due(now, 1):
            return due[0]
        if not self.over_limit:
            return None
        job, (_, _, finished_at) = next(iter(self._own.items()))
        return first[2] if first is not None and first[0] - self._age <= finished_at else job
