"""Waiters: consumers that wait for a job, first come, first served; and clients that wait for an outcome."""

from collections import OrderedDict
from collections.abc import Callable

from jobqueue.model import Delivery, DequeueRequest, Job


class Waiter:
    """A waiting consumer. `deliver` is called once: with deliveries, or with none when the wait is over.
    `until` is the end of the wait, in monotonic milliseconds. `number` rises in the order of arrival."""

    __slots__ = ("deliver", "number", "request", "until")

    def __init__(
        self, request: DequeueRequest, until: int, deliver: Callable[[list[Delivery]], None]
    ) -> None:
        self.request = request
        self.until = until
        self.deliver = deliver
        self.number = 0


class Waiters:
    """The waiting consumers of each queue, in order. A waiter may wait on several queues, which need not
    exist. Adding and dropping are O(1) for each queue. `count` is the number of waiters; `places` is the sum
    of the queues they wait on."""

    __slots__ = ("_by_queue", "_last_number", "count", "places")

    def __init__(self) -> None:
        self.count = self.places = 0
        self._last_number = 0
        self._by_queue: dict[str, OrderedDict[Waiter, None]] = {}

    def __len__(self) -> int:
        return self.count

    def add(self, waiter: Waiter) -> None:
        waiter.number = self._last_number = self._last_number + 1
        names = dict.fromkeys(waiter.request.queues)
        for name in names:
            waiting = self._by_queue.get(name)
            if waiting is None:
                waiting = self._by_queue[name] = OrderedDict()
            waiting[waiter] = None
        self.count += 1
        self.places += len(names)

    def drop(self, waiter: Waiter) -> None:
        """Removes a waiter. Raises `KeyError` if it does not wait."""
        names = dict.fromkeys(waiter.request.queues)
        for name in names:
            waiting = self._by_queue[name]
            del waiting[waiter]
            if not waiting:
                del self._by_queue[name]
        self.count -= 1
        self.places -= len(names)

    def first(self, name: str) -> Waiter | None:
        waiting = self._by_queue.get(name)
        return next(iter(waiting)) if waiting else None

    def waiting(self, name: str) -> int:
        """Returns the number of waiters on the queue `name`."""
        waiting = self._by_queue.get(name)
        return len(waiting) if waiting else 0

    def waiting_within(self, within: Callable[[str], bool]) -> int:
        """Returns the number of waiters on queues whose names `within` accepts, each counted once. O(those
        waiters)."""
        selected = [waiting for name, waiting in self._by_queue.items() if within(name)]
        if len(selected) == 1:
            return len(selected[0])
        return len({waiter for waiting in selected for waiter in waiting})

    def some(self, limit: int) -> list[Waiter]:
        """Returns up to `limit` waiters, each once."""
        found: dict[Waiter, None] = {}
        for waiting in self._by_queue.values():
            for waiter in waiting:
                if len(found) == limit:
                    return list(found)
                found[waiter] = None
        return list(found)

    def names(self) -> list[str]:
        """Returns the names of the queues that have waiters."""
        return list(self._by_queue)


class OutcomeWaiter:
    """A client that waits until `job` is finished. `deliver` is called once, with the job, which is not
    finished if the wait is over. `until` is the end of the wait, in monotonic milliseconds."""

    __slots__ = ("deliver", "job", "until")

    def __init__(self, job: Job, until: int, deliver: Callable[[Job], None]) -> None:
        self.job = job
        self.until = until
        self.deliver = deliver


class OutcomeWaiters:
    """The outcome waiters of each job. Adding and dropping are O(1). `count` is the number of waiters."""

    __slots__ = ("_by_job", "count")

    def __init__(self) -> None:
        self.count = 0
        self._by_job: dict[Job, dict[OutcomeWaiter, None]] = {}

    def add(self, waiter: OutcomeWaiter) -> None:
        self._by_job.setdefault(waiter.job, {})[waiter] = None
        self.count += 1

    def drop(self, waiter: OutcomeWaiter) -> None:
        """Removes a waiter. Raises `KeyError` if it does not wait."""
        waiting = self._by_job[waiter.job]
        del waiting[waiter]
        if not waiting:
            del self._by_job[waiter.job]
        self.count -= 1

    def waiting_for(self, job: Job) -> list[OutcomeWaiter]:
        return list(self._by_job.get(job, ()))

    def all(self) -> list[OutcomeWaiter]:
        return [waiter for waiting in self._by_job.values() for waiter in waiting]
