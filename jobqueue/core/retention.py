"""Retention: finished jobs are remembered for a while, bounded by age, number and bytes."""

from collections import OrderedDict, deque

from jobqueue.core.timers import Timers
from jobqueue.model import Job

# What a finished job costs besides its payload and result: the record, its last lease, its times.
RECORD_BYTES = 512
# What one line of its history costs.
_ATTEMPT_BYTES = 160
# So much is not worth the work of letting it go before its turn.
_HELD_BYTES = 256 << 10


def weight(job: Job) -> int:
    """Bytes that a finished job counts for."""
    size = RECORD_BYTES + len(job.payload)
    more = job.extras
    if more is not None:
        if more.result is not None:
            size += len(more.result)
        if more.trace is None and more.options is None:
            return size
        if more.trace is not None:
            size += sum(_ATTEMPT_BYTES + len(line.error or b"") for line in more.trace.history)
            size += len(more.trace.error or b"")
        if more.options is not None and more.options.headers is not None:
            size += len(more.options.headers)
    return size


class Retention:
    """Finished jobs in the order in which they finished. It says what to forget, and forgets nothing itself.

    `age`: milliseconds, for jobs that have none of their own. Those leave in the order in which they
    came, but for those that are purged by hand: they are held for a while, until they are half of what is
    held or stand first. The others may leave whenever they like.
    """

    __slots__ = (
        "_age", "_gone", "_gone_bytes", "_jobs", "_limit", "_limit_bytes", "_own", "_until", "bytes",
        "count", "crowded",
    )  # fmt: skip

    def __init__(self, age: int, limit: int, limit_bytes: int) -> None:
        self._age = age
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._jobs: deque[tuple[int, int, Job]] = deque()  # until when, weight
        self._gone: set[Job] = set()  # purged out of turn, and still held
        self._gone_bytes = 0
        self._own: OrderedDict[Job, tuple[int, int, int]] = OrderedDict()  # until, weight, since when
        self._until: Timers[Job] = Timers()
        self.bytes = 0
        self.count = 0
        self.crowded = False  # too many jobs, or too large ones

    def __len__(self) -> int:
        return self.count

    def add(self, job: Job, now: int, age: int | None = None) -> bool:
        """`now`: monotonic milliseconds at which it finished; `age`: its own. True if `over` has something to
        forget."""
        more = job.extras
        if more is None or more.trace is not None or more.options is not None or more.result is not None:
            size = weight(job)
        else:
            size = RECORD_BYTES + len(job.payload)
        self.bytes += size
        self.count += 1
        if age is None:
            age = self._age
            self._jobs.append((now + age, size, job))
        else:
            self._own[job] = (now + age, size, now)
            self._until.add(job, now + age)
        self.crowded = self.count > self._limit or self.bytes > self._limit_bytes
        return self.crowded or age == 0

    def discard(self, job: Job) -> None:
        """It is finished no more: forgotten, redriven, purged."""
        self.count -= 1
        if self._own and (entry := self._own.pop(job, None)) is not None:
            self._until.drop(job, entry[0])
            self.bytes -= entry[1]
        elif self._jobs[0][2] is job:
            self.bytes -= self._jobs.popleft()[1]
        else:
            size = weight(job)
            self.bytes -= size
            self._gone.add(job)
            self._gone_bytes += size
        if self._gone:
            self._let_go()
        self.crowded = self.count > self._limit or self.bytes > self._limit_bytes

    def _let_go(self) -> None:
        """Of what was purged out of turn: what stands first; or all, where that weighs more than the rest: as
        every job weighs something, O(1) on average for each `RECORD_BYTES` let go."""
        if self._gone_bytes > self.bytes + _HELD_BYTES:
            self._jobs = deque([entry for entry in self._jobs if entry[2] not in self._gone])
            self._gone.clear()
            self._gone_bytes = 0
        while self._gone and self._jobs[0][2] in self._gone:
            _, size, job = self._jobs.popleft()
            self._gone.remove(job)
            self._gone_bytes -= size

    def over(self, now: int) -> Job | None:
        """A job that is too old, or the one that finished first where there are too many or too large ones;
        None: all may stay. It stays here until it is discarded."""
        first = self._jobs[0] if self._jobs else None
        if first is not None and (first[0] <= now or (self.crowded and not self._own)):
            return first[2]
        if not self._own:
            return None
        if due := self._until.due(now, 1):
            return due[0]
        if not self.crowded:
            return None
        job, (_, _, since) = next(iter(self._own.items()))
        return first[2] if first is not None and first[0] - self._age <= since else job
