"""How the benchmarks get at the core and the engine: what a change of their interfaces has to mend."""

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from jobqueue.clock import SystemClock, first_id_at
from jobqueue.core.limits import Limits
from jobqueue.core.queue import JobQueue
from jobqueue.core.waiters import Waiter
from jobqueue.engine.local import LocalEngine
from jobqueue.engine.series import Series
from jobqueue.engine.tokens import tokens
from jobqueue.model import DequeueRequest, JobTemplate, KeyLimits, NewJob, Options, Plan
from jobqueue.server.gc_control import EVERY
from jobqueue.settings import Settings
from jobqueue.testing import ManualClock

__all__ = [
    "DequeueRequest",
    "GcControl",
    "HandTickedClock",
    "JobQueue",
    "KeyLimits",
    "Limits",
    "ManualClock",
    "NewJob",
    "Options",
    "Stopwatch",
    "Waiter",
]

T = TypeVar("T")
LEASE = 300_000
# Nothing may hold the loop for longer.
PAUSE_MS = 5


def milliseconds() -> int:
    return time.monotonic_ns() // 1_000_000


def new_queue(**limits: object) -> JobQueue:
    """The core as the engine makes it: ids from the clock, real tokens, limits at their defaults but for the number of queues."""
    wall = time.time_ns() // 1_000_000
    most = Limits(**{"max_queues": 1_000_000, **limits})  # type: ignore[arg-type]
    return JobQueue(tokens().__next__, first_id_at(wall), most, wall - milliseconds())


class HandTickedClock:
    """The system's time, but no timer: an engine without a loop."""

    manual = True

    def __init__(self) -> None:
        clock = SystemClock()
        self.monotonic, self.wall = clock.monotonic, clock.wall


def new_engine(**settings: object) -> LocalEngine:
    return LocalEngine(Settings(**settings), HandTickedClock())


def new_scheduled_engine(schedules: int, when: dict[str, object], clock: ManualClock) -> LocalEngine:
    """An engine with so many schedules of one kind; `when`: fields of a `Plan`."""
    engine = LocalEngine(Settings(max_schedules=schedules or 1), clock)
    for number in range(schedules):
        plan = Plan(f"s{number}", JobTemplate("bench", "default"), overlap="allow", **when)  # type: ignore[arg-type]
        engine.put_schedule(plan, None)
    return engine


def new_series(engine: LocalEngine) -> Series:
    """The series of the queues of an engine, which does not add to them itself."""
    return Series(engine._queue.state)


def slice_of(engine: LocalEngine) -> bool:
    """Does one slice of what is due. Returns whether there is more."""
    return engine._driver.run_slice()[1]


def want(*queues: str, count: int | None = None) -> DequeueRequest:
    return DequeueRequest(queues or ("default",), LEASE, count)


def new_jobs(count: int, start: int = 0, queue: str = "default", priority: int = 0) -> Iterator[NewJob]:
    """Jobs with distinct payloads of 100 bytes."""
    return (NewJob("bench", queue, priority, b'"%098d"' % n) for n in range(start, start + count))


def as_the_program_does() -> None:
    """The garbage collector as `jobqueue.server.main` sets it up."""
    gc.collect()
    gc.freeze()
    gc.disable()


class Stopwatch:
    """Of each kind of call: how many there were, how many took more than `PAUSE_MS`, and the longest, in
    milliseconds. By the CPU time of this thread, which leaves out most of what other processes took, and the
    longest also by the clock."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}
        self.calls: Counter[str] = Counter()
        self.pauses: Counter[str] = Counter()

    def call(self, kind: str, function: Callable[..., T], *arguments: object) -> T:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        result = function(*arguments)
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        self.calls[kind] += 1
        if cpu > PAUSE_MS * 1e6:
            self.pauses[kind] += 1
        if cpu > self.cpu.get(kind, 0) * 1e6:
            self.cpu[kind] = cpu / 1e6
        if wall > self.wall.get(kind, 0) * 1e6:
            self.wall[kind] = wall / 1e6
        return result


class GcControl:
    """Collects the young generations as often as the program does. `rest` does it when it is time."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self._next = time.monotonic() + EVERY

    def rest(self) -> None:
        if time.monotonic() >= self._next:
            self._watch.call("collect", gc.collect, 1)
            self._next = time.monotonic() + EVERY
