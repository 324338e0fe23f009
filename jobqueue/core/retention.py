"""Retention: finished jobs are remembered for a while, bounded by age, number and bytes."""

from collections import deque

from jobqueue.core.job import Job

# What a finished job costs besides its payload and result: the record, its last lease, its times.
RECORD_BYTES = 512


def weight(job: Job) -> int:
    """Bytes that a finished job counts for."""
    result = job.more.result if job.more is not None else None
    return RECORD_BYTES + len(job.payload) + (len(result) if result is not None else 0)


class Retention:
    """Finished jobs in the order in which they finished. `age`: milliseconds; says what to forget, and
    forgets nothing itself."""

    __slots__ = ("_age", "_jobs", "_limit", "_limit_bytes", "bytes")

    def __init__(self, age: int, limit: int, limit_bytes: int) -> None:
        self._age = age
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._jobs: deque[tuple[int, Job]] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job, now: int) -> bool:
        """`now`: monotonic milliseconds at which it finished. True if there are too many or too large ones
        now: then ask `over`."""
        self._jobs.append((now + self._age, job))
        self.bytes += weight(job)
        return len(self._jobs) > self._limit or self.bytes > self._limit_bytes or self._age == 0

    def over(self, now: int) -> Job | None:
        """Takes out the oldest job if there are too many, too large, or too old ones; None: all may stay."""
        if not self._jobs:
            return None
        until, job = self._jobs[0]
        if until > now and len(self._jobs) <= self._limit and self.bytes <= self._limit_bytes:
            return None
        self._jobs.popleft()
        self.bytes -= weight(job)
        return job
