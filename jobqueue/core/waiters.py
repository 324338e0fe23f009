"""Waiters: consumers that asked for a job when there was none. First come, first served."""

from collections import OrderedDict
from collections.abc import Callable

from jobqueue.model import Delivery, DequeueRequest, Job


class Waiter:
    """One waiting consumer. `deliver` is called once, with what it was given: nothing when its time was up
    or the queue stops. `until`: monotonic milliseconds. `number`: in the order in which they came to wait."""

    __slots__ = ("deliver", "number", "request", "until")

    def __init__(self, want: DequeueRequest, until: int, deliver: Callable[[list[Delivery]], None]) -> None:
        self.request = want
        self.until = until
        self.deliver = deliver
        self.number = 0


class Waiters:
    """Who waits on which queue. A waiter may wait on several; adding and dropping are O(1) for each. A
    queue need not exist to be waited on. `count`: of the waiters; `places`: in all lines together."""

    __slots__ = ("_last", "_lines", "count", "places")

    def __init__(self) -> None:
        self.count = self.places = 0
        self._last = 0
        self._lines: dict[str, OrderedDict[Waiter, None]] = {}

    def __len__(self) -> int:
        return self.count

    def add(self, waiter: Waiter) -> None:
        waiter.number = self._last = self._last + 1
        names = dict.fromkeys(waiter.request.queues)
        for name in names:
            line = self._lines.get(name)
            if line is None:
                line = self._lines[name] = OrderedDict()
            line[waiter] = None
        self.count += 1
        self.places += len(names)

    def drop(self, waiter: Waiter) -> None:
        """`KeyError` if it does not wait."""
        names = dict.fromkeys(waiter.request.queues)
        for name in names:
            line = self._lines[name]
            del line[waiter]
            if not line:
                del self._lines[name]
        self.count -= 1
        self.places -= len(names)

    def first(self, name: str) -> Waiter | None:
        line = self._lines.get(name)
        return next(iter(line)) if line else None

    def waiting(self, name: str) -> int:
        """How many wait on the queue `name`."""
        line = self._lines.get(name)
        return len(line) if line else 0

    def waiting_within(self, within: Callable[[str], bool]) -> int:
        """How many wait on queues of whose names `within` says so; each once. O(of those)."""
        lines = [line for name, line in self._lines.items() if within(name)]
        return len(lines[0]) if len(lines) == 1 else len({waiter for line in lines for waiter in line})

    def names(self) -> list[str]:
        return list(self._lines)


class OutcomeWaiter:
    """One who waits until a job is finished. `deliver` is called once, with the job; `until`: monotonic
    milliseconds."""

    __slots__ = ("deliver", "job", "until")

    def __init__(self, job: Job, until: int, deliver: Callable[[Job], None]) -> None:
        self.job = job
        self.until = until
        self.deliver = deliver


class OutcomeWaiters:
    """Who waits for which job; adding and dropping are O(1)."""

    __slots__ = ("_by_job", "count")

    def __init__(self) -> None:
        self.count = 0
        self._by_job: dict[Job, dict[OutcomeWaiter, None]] = {}

    def add(self, waiter: OutcomeWaiter) -> None:
        self._by_job.setdefault(waiter.job, {})[waiter] = None
        self.count += 1

    def drop(self, waiter: OutcomeWaiter) -> None:
        """`KeyError` if it does not wait."""
        waiting = self._by_job[waiter.job]
        del waiting[waiter]
        if not waiting:
            del self._by_job[waiter.job]
        self.count -= 1

    def on(self, job: Job) -> list[OutcomeWaiter]:
        """All who wait for `job`."""
        return list(self._by_job.get(job, ()))

    def all(self) -> list[OutcomeWaiter]:
        return [waiter for waiting in self._by_job.values() for waiter in waiting]
