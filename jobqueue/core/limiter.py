"""Limiter: how many jobs may be in progress at once, and how many may start in a time.

A queue has at most one limiter, and so has each of its keys. It is asked before a job is leased. While it is
exhausted its `KeyGroup` is blocked, so that a dequeue does not examine those jobs. It has capacity again when
a lease ends, or at the time that `available_at` returns.
"""

from collections import deque
from typing import Final, Literal

from jobqueue.model import Rate, default_burst

# A tick wakes waiting consumers, and is late by its interval at worst. Tokens of this many milliseconds are
# kept above a full bucket, less than one in all; otherwise 10 a second would become 7.
LATE: Final = 200
# If a token bucket has been full for this many milliseconds, then no job waited for a tick, and nothing is
# kept above it. This is well above LATE, because a busy process ticks later.
QUIET: Final = 1_000
# Starts within this part of a window are kept as one.
_PARTS: Final = 64


class StartWindow:
    """The starts of the last `per` milliseconds, of which there may be `count`.

    Starts that are closer together than a part of `per` are one entry, and that entry counts until the last
    of them is `per` old. So there are few entries, and never more than `count` starts in any `per`. Where
    starts are far apart the window is exact.
    """

    __slots__ = ("_count", "_entries", "_part", "_per", "_starts")

    def __init__(self, count: int, per: int) -> None:
        self._count = count
        self._per = per
        self._part = per // _PARTS
        self._starts = 0
        self._entries: deque[tuple[int, int, int]] = deque()  # first and last start, number of starts

    def free_at(self, now: int) -> int:
        """Returns when another start is allowed, which is `now` or later."""
        entries = self._entries
        while entries and entries[0][1] + self._per <= now:
            self._starts -= entries.popleft()[2]
        return now if self._starts < self._count else entries[0][1] + self._per

    def empty_at(self, now: int) -> int:
        """Returns when all starts so far will have left the window, which is `now` or later."""
        return max(self._entries[-1][1] + self._per, now) if self._entries else now

    def add(self, now: int) -> None:
        """Counts a start."""
        self._starts += 1
        entries = self._entries
        if entries and now - entries[-1][0] < max(self._part, 1):
            first, _, starts = entries.pop()
            entries.append((first, now, starts + 1))
        else:
            entries.append((now, now, 1))


class Run:
    """Jobs of one key that one dequeue has taken together. `left` is the number of those in progress."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0


class Limiter:
    """Counts the jobs in progress of one queue, or of one of its keys if `key` is not None, and keeps a token
    bucket for the rate. Without `max_in_progress` or `rate` there is no such limit. `wakes_at` is the time of
    its timer, if there is one. Times are monotonic milliseconds.

    If `batch` is above 1, up to that number of jobs of the key that one dequeue takes are a run, which counts
    as one in `in_progress` until all of them have ended. `room` is the number of jobs that may still join the
    run of the dequeue that is under way; the caller sets it to 0 at the end of a dequeue. Jobs that were
    leased in an earlier run of the server count one by one.

    `resting` is the number of jobs of the key that keep their places while they rest before the next attempt.
    If the key is `ordered`, none of the others may start while there is one.

    A token bucket of the size n lets `count + n` start in some window of `per`. So a rate with a burst of 0
    also has a `StartWindow`, and the bucket only spreads the starts.

    Tokens are counted in parts, of which `rate.per` are one token, so that they are exact. They change only
    with a start; how many there are later is computed from these. So asking changes nothing, and a limiter
    that is as a new one (`fresh_at`) can be dropped and made again.
    """

    __slots__ = (
        "_bucket",
        "_run",
        "_started_at",
        "_tokens",
        "_window",
        "batch",
        "in_progress",
        "key",
        "max_in_progress",
        "ordered",
        "queue",
        "rate",
        "resting",
        "room",
        "runs",
        "wakes_at",
    )

    def __init__(self, queue: str, key: str | None, max_in_progress: int | None, rate: Rate | None) -> None:
        self.queue = queue
        self.key = key
        self.in_progress = 0
        self.ordered = False
        self.resting = 0
        self.batch = 1
        self.room = 0
        self._run: Run | None = None  # the last one
        # The run of each job in progress that belongs to one, by its id; None: there was none yet.
        self.runs: dict[int, Run] | None = None
        self.wakes_at: int | None = None
        self.rate: Rate | None = None
        self._bucket = 0  # its size, in parts of a token
        self._tokens = 0  # in parts, after the last start
        self._window: StartWindow | None = None
        self._started_at: int | None = None  # the last start; None: there was none, and the bucket is full
        self.set_limits(max_in_progress, rate)

    def set_limits(self, max_in_progress: int | None, rate: Rate | None) -> None:
        """Sets both limits. An unchanged rate keeps its tokens; another one begins with a full bucket."""
        self.max_in_progress = max_in_progress
        if rate != self.rate:
            self.rate = rate
            self._bucket = (rate.burst or default_burst(rate.count)) * rate.per if rate is not None else 0
            self._window = StartWindow(rate.count, rate.per) if rate is not None and not rate.burst else None
            self._tokens = self._bucket
            self._started_at = None

    def exhausted(self, now: int, own_rest: int = 0) -> Literal["max_in_progress", "rate"] | None:
        """Returns the limit that is used up; None: a job may start. `own_rest` is 1 for a job that itself is
        one of the `resting`."""
        if self._is_full(self.room, own_rest):
            return "max_in_progress"
        if self.rate is None:
            return None
        if self._tokens_at(self.rate, now) < self.rate.per:
            return "rate"
        if self._window is not None and self._window.free_at(now) > now:
            return "rate"
        return None

    def _is_full(self, room: int, own_rest: int) -> bool:
        """Returns whether a job may start only after a lease has ended, whatever the rate allows. `room`: for
        how many more jobs there is room in a run."""
        if self.ordered and self.resting > own_rest:
            return True
        return self.max_in_progress is not None and self.in_progress >= self.max_in_progress and not room

    def available_at(self, now: int) -> int | None:
        """Returns when the rate allows the next start; None: when a lease ends."""
        if self.rate is None or self._is_full(0, 0):
            return None
        missing = self.rate.per - self._tokens_at(self.rate, now)
        at = now + max(_divide_up(missing, self.rate.count), 1)
        return at if self._window is None else max(at, self._window.free_at(now))

    def fresh_at(self, now: int) -> int:
        """Returns when nothing is left of the starts so far, and this limiter is as a new one."""
        if self.rate is None or self._started_at is None:
            return now
        at = max(self._full_at(self.rate, self._started_at) + QUIET, now)
        return at if self._window is None else max(at, self._window.empty_at(now))

    def count_start(self, now: int) -> None:
        """Counts a job that has been leased, and takes a token."""
        self.in_progress += 1
        if self.rate is not None:
            self._tokens = self._tokens_at(self.rate, now) - self.rate.per
            self._started_at = now
            if self._window is not None:
                self._window.add(now)

    def count_start_in_run(self, id: int, now: int) -> None:
        """Counts the job `id` of this key, which has been leased: in the run of this dequeue, or if that is
        full in a new one. Takes a token."""
        run = self._run
        if self.room and run is not None:
            self.room -= 1
            self.in_progress -= 1  # `count_start` adds one, and the run is counted already
        else:
            run = self._run = Run()
            self.room = self.batch - 1
        self.count_start(now)
        run.left += 1
        self.runs = self.runs or {}
        self.runs[id] = run

    def count_end(self) -> bool:
        """Counts the end of a lease. Returns whether `max_in_progress` was used up until now."""
        self.in_progress -= 1
        return self.max_in_progress is not None and self.in_progress == self.max_in_progress - 1

    def count_end_of(self, id: int) -> bool:
        """Counts the end of the lease of the job `id` of this key, which may be in a run. Returns the same as
        `count_end`."""
        run = self.runs.pop(id, None) if self.runs else None
        if run is not None:
            run.left -= 1
            if run.left:
                return False
        return self.count_end()

    @property
    def jobs_in_progress(self) -> int:
        """The number of jobs in progress, also of those in a run. O(those in runs)."""
        runs = self.runs or {}
        return self.in_progress - len(set(runs.values())) + len(runs)

    def _full_at(self, rate: Rate, started_at: int) -> int:
        return started_at + _divide_up(self._bucket - self._tokens, rate.count)

    def _tokens_at(self, rate: Rate, now: int) -> int:
        started_at = self._started_at
        if started_at is None:
            return self._bucket
        tokens = self._tokens + (now - started_at) * rate.count
        if tokens <= self._bucket or now >= self._full_at(rate, started_at) + QUIET:
            return min(tokens, self._bucket)
        return min(tokens, self._bucket + min(LATE * rate.count, rate.per - 1))


def _divide_up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
