"""NamedQueue: one named queue: its lanes and their gates, and its counts.

The lanes are ordered by priority, and inside one priority by the place of their first job. Jobs without a key
stand in one lane for each priority; the jobs of a key have lanes of their own, which stand aside while the
key's gate is shut.
"""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count, islice

from jobqueue.core.gate import Gate
from jobqueue.core.histogram import Histogram
from jobqueue.core.job import Job
from jobqueue.core.lane import Lane
from jobqueue.core.queue_settings import KeyLimits, Pause, QueueSettings
from jobqueue.core.tally import Tally
from jobqueue.core.unique import UniqueKeys

# How many lanes one look goes through.
_LOOKED_AT = 1000


class KeyedLane(Lane):
    """A lane in its queue. `shown`: the place under which it stands in the heap; -1: it does not."""

    __slots__ = ("gate", "name", "priority", "shown")

    def __init__(self, name: int | tuple[int, str], gate: Gate | None, shape: tuple[int, int, float]) -> None:
        super().__init__(shape[0], shape[1], shape[2])
        self.name = name
        self.priority = name if isinstance(name, int) else name[0]
        self.gate = gate
        self.shown = -1

    def __lt__(self, other: object) -> bool:
        """Two entries of the heap stand at the same place only where one of them is left over."""
        return False

    # A class with an order of its own has a hash only where it says so, once it is compiled.
    def __hash__(self) -> int:
        return id(self)


def key_of(job: Job) -> str | None:
    more = job.more
    return more.options.key if more is not None and more.options is not None else None


class NamedQueue:
    """`queued`, `scheduled`: jobs that wait; `bytes`: their payloads; `size`: jobs of any status. `used_at`:
    monotonic milliseconds at which it was last left without jobs; `asked_at`: at which somebody last asked it
    for a job, or ended to wait for one; None: never since it is there. `sleep(gate, at)` is called for a gate
    that opens by itself at an instant, earlier than its `wake_at` if it has one."""

    __slots__ = (
        "_heap", "_lanes", "_marks", "_only", "_parked", "_shape", "_sleep", "asked_at", "bounded",
        "bytes", "gate", "gates", "name", "pause", "queued", "runs", "scheduled", "settings", "size", "steps",
        "tally", "unique", "used_at", "version", "waits",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        shape: tuple[int, int, float],
        sleep: Callable[[Gate, int], None] | None = None,
        now: int = 0,
    ) -> None:
        self.name = name
        self.tally = Tally()
        self.steps = self.tally.steps
        self.queued = 0
        self.scheduled = 0
        self.size = 0
        self.bytes = 0
        self.settings = QueueSettings()
        self.bounded = False  # by `max_jobs` or `max_bytes`
        self.pause: Pause | None = None
        self.version = 0  # of its settings and its pause
        self.unique = UniqueKeys()
        self.used_at = 0
        self.asked_at: int | None = None
        self.waits = Histogram()  # from enqueue to the first lease, milliseconds
        self.runs = Histogram()  # from the last lease to conclude
        self.gate: Gate | None = None
        self.gates: dict[str, Gate] = {}  # of the keys that have jobs here
        self._shape = shape
        self._sleep = sleep
        self._marks = ((now, (0, 0)), (now, (0, 0)))  # of the rates: when, and the counts then
        self._lanes: dict[int | tuple[int, str], KeyedLane] = {}
        self._heap: list[tuple[int, int, KeyedLane]] = []  # some entries are left over; see `take`
        self._only: KeyedLane | None = None  # the lane, if there is but one and nothing gates it
        self._parked: dict[Gate, dict[KeyedLane, None]] = {}

    @property
    def idle(self) -> bool:
        """No jobs of any status, and nothing set."""
        return self.size == 0 and self.pause is None and self.settings == _UNSET

    @property
    def ready(self) -> bool:
        """Has queued jobs and is not paused; a gate may be shut all the same."""
        return self.queued > 0 and self.pause is None

    def rates(self, now: int) -> tuple[float, float]:
        """Jobs put in and handed out a second. Measured from the look before the last one, so that whoever
        looks every ten seconds gets the rates of the last ten to twenty."""
        totals = self.tally.totals()
        counts = (totals["enqueued"], totals["dequeued"])
        if now - self._marks[1][0] >= 10_000:
            self._marks = (self._marks[1], (now, counts))
        since, then = self._marks[0]
        seconds = max(now - since, 1000) / 1000
        return (counts[0] - then[0]) / seconds, (counts[1] - then[1]) / seconds

    @property
    def lanes(self) -> list[KeyedLane]:
        return list(self._lanes.values())

    def append(self, job: Job) -> None:
        """Puts a job at the end of its priority, or of its key's part of it."""
        lane = self._lanes.get(job.priority) if job.more is None else self._lane_of(job)
        if lane is None:
            lane = self._new_lane(job.priority)
        lane.append(job)
        self.queued += 1
        self.bytes += len(job.payload)
        if lane.shown < 0 and not self._is_parked(lane):
            self._show(lane, job.place)

    def put_back(self, job: Job) -> None:
        """Puts a job that was leased before at its place."""
        lane = self._lane_of(job)
        lane.put_back(job)
        self.queued += 1
        self.bytes += len(job.payload)
        if job.place < lane.shown or (lane.shown < 0 and not self._is_parked(lane)):
            self._show(lane, job.place)

    def take(self, now: int) -> Job | None:
        """Takes the next job: highest priority, then lowest place, of those whose gate is open."""
        if not self.queued or self.pause is not None:
            return None
        if self.gate is not None and not self.gate.is_open(now):
            self._wait_for(self.gate, self.gate.next_at(now))
            return None
        if self._only is not None:
            job = self._only.pop()
        elif (lane := self._best(now)) is not None:
            job = lane.pop()
            self._move_on(lane, now)
        else:
            return None
        self.queued -= 1
        self.bytes -= len(job.payload)
        return job

    def remove(self, job: Job, now: int) -> Lane:
        """Takes a queued job out, wherever it stands; answers the lane that it was in."""
        lane = self._lane_of(job)
        lane.remove(job)
        self.queued -= 1
        self.bytes -= len(job.payload)
        if not lane.live:
            self._drop(lane, now)
        return lane

    def upcoming(self, most: int, now: int) -> list[Job]:
        """Up to `most` jobs in the order in which `take` would give them, if the queue is not paused and its
        own gate is open; none is taken. Jobs behind the shut gate of their key are left out."""
        # The heap of lanes is walked from its top: behind each entry come the two below it, and the first job
        # of its lane; behind each job the next one of the same lane.
        line: list[tuple[int, int, int, int | Job, Iterator[Job]]] = []
        order = count()

        def meet(at: int) -> None:
            if at < len(self._heap):
                rank, place, _ = self._heap[at]
                heappush(line, (rank, place, next(order), at, iter(())))

        def follow(rank: int, jobs: Iterator[Job]) -> None:
            if (job := next(jobs, None)) is not None:
                heappush(line, (rank, job.place, next(order), job, jobs))

        meet(0)
        found: list[Job] = []
        met: set[KeyedLane] = set()  # of some lanes an entry that is left over looks like the one that counts
        while line and len(found) < most:
            rank, place, _, what, jobs = heappop(line)
            if isinstance(what, Job):
                found.append(what)
                follow(rank, jobs)
                continue
            meet(2 * what + 1)
            meet(2 * what + 2)
            lane = self._heap[what][2]
            if lane.shown == place and lane not in met and (lane.gate is None or lane.gate.is_open(now)):
                met.add(lane)
                follow(rank, iter(lane))
        return found

    def oldest(self) -> Job | None:
        """The queued job that came first, over all lanes; O(lanes)."""
        oldest, since = None, 0
        for lane in self._lanes.values():  # a plain loop: there may be as many as there are jobs
            head = lane.peek()
            if head is not None and (oldest is None or head.created_at < since):
                oldest, since = head, head.created_at
        return oldest

    def lane_figures(self) -> tuple[int, int, int]:
        """Its lanes, slots in them, empty slots; O(lanes)."""
        slots = empty = 0
        for lane in self._lanes.values():
            slots += lane.slots
            empty += lane.empty
        return len(self._lanes), slots, empty

    def by_priority(self) -> dict[int, int]:
        """How many are queued at each priority, the highest first; O(lanes)."""
        counts: dict[int, int] = {}
        priority = live = 0
        for lane in self._lanes.values():  # of many lanes, most stand beside one of the same priority
            if lane.priority != priority:
                counts[priority] = counts.get(priority, 0) + live
                priority, live = lane.priority, 0
            live += lane.live
        counts[priority] = counts.get(priority, 0) + live
        counts = {priority: live for priority, live in counts.items() if live}
        return dict(sorted(counts.items(), reverse=True))

    def ahead(self, job: Job) -> int:
        """At most so many queued jobs are handed out before `job`, which is queued here. Those behind another
        key's limit are counted, and of many lanes all that stand in those that are not looked at."""
        own = self._lane_of(job)
        count, seen = own.before(job.place), own.live
        for lane in islice(self._lanes.values(), _LOOKED_AT):
            head = lane.peek()
            if lane is own or head is None:
                continue
            seen += lane.live
            if lane.priority > job.priority:
                count += lane.live
            elif lane.priority == job.priority and head.place < job.place:
                count += lane.before(job.place)
        return count + self.queued - seen

    def shut_gates(self, job: Job, now: int) -> list[Gate]:
        """The gates that keep `job`, which is queued here, from being taken."""
        gates = (self.gate, self._lane_of(job).gate)
        return [gate for gate in gates if gate is not None and not gate.is_open(now)]

    # -- gates --------------------------------------------------------------------------------------

    def configure(self, settings: QueueSettings, in_progress: int) -> None:
        """`in_progress`: how many of its jobs are, now."""
        self.settings = settings
        self.bounded = settings.max_jobs is not None or settings.max_bytes is not None
        self.version += 1
        if settings.max_in_progress is None and settings.rate is None:
            self.gate = None
        else:
            self.gate = self.gate or Gate(self.name, None, None, None)
            self.gate.in_progress = in_progress
            self.gate.limit(settings.max_in_progress, settings.rate)
        limits = settings.key_limits or KeyLimits()
        for gate in list(self.gates.values()):
            gate.limit(limits.max_in_progress, limits.rate)
            self.reopen(gate)

    def enter(self, job: Job, now: int) -> None:
        """A job of this queue is in progress."""
        if self.gate is not None:
            self.gate.enter(now)
        if (key := key_of(job)) is not None:
            self._gate_of(key).enter(now)

    def enter_again(self, job: Job) -> None:
        """It was in progress when an earlier run ended: it counts, and no rate is charged."""
        if self.gate is not None:
            self.gate.in_progress += 1
        if (key := key_of(job)) is not None:
            self._gate_of(key).in_progress += 1

    def leave(self, job: Job, now: int) -> bool:
        """It is no more; True if that opened a gate."""
        opened = self.gate is not None and self.gate.leave()
        if (key := key_of(job)) is not None:
            gate = self._gate_of(key)
            if gate.leave():
                self.reopen(gate)
                opened = True
            self._forget_gate(gate, now)
        return opened

    def woken(self, gate: Gate, now: int) -> None:
        """The instant has come for which `gate` slept."""
        gate.wake_at = None
        self.reopen(gate)
        self._forget_gate(gate, now)

    def reopen(self, gate: Gate) -> None:
        """The lanes that stood aside for `gate` come back."""
        for lane in self._parked.pop(gate, ()):
            head = lane.peek()
            if head is not None and lane.shown < 0:
                self._show(lane, head.place)

    def _is_parked(self, lane: KeyedLane) -> bool:
        return lane.gate is not None and lane in self._parked.get(lane.gate, ())

    def _gate_of(self, key: str) -> Gate:
        gate = self.gates.get(key)
        if gate is None:
            limits = self.settings.key_limits or KeyLimits()
            gate = self.gates[key] = Gate(self.name, key, limits.max_in_progress, limits.rate)
        return gate

    def _wait_for(self, gate: Gate, at: int | None) -> None:
        if at is not None and (gate.wake_at is None or at < gate.wake_at) and self._sleep is not None:
            self._sleep(gate, at)

    def _forget_gate(self, gate: Gate, now: int) -> None:
        """A key without jobs is not kept, once its rate has nothing to remember."""
        if gate.unused and gate.key is not None:
            full_at = gate.full_at(now)
            if full_at > now:
                self._wait_for(gate, full_at)
            elif self.gates.get(gate.key) is gate:  # else it is an old one, whose timer came late
                del self.gates[gate.key]

    # -- lanes --------------------------------------------------------------------------------------

    def _lane_of(self, job: Job) -> KeyedLane:
        name: int | tuple[int, str] = job.priority
        if job.more is not None and (key := key_of(job)) is not None:
            name = (job.priority, key)
        lane = self._lanes.get(name)
        return lane if lane is not None else self._new_lane(name)

    def _new_lane(self, name: int | tuple[int, str]) -> KeyedLane:
        gate = None
        if not isinstance(name, int):
            gate = self._gate_of(name[1])
            gate.lanes += 1
        lane = self._lanes[name] = KeyedLane(name, gate, self._shape)
        self._only = lane if gate is None and len(self._lanes) == 1 else None
        return lane

    def _show(self, lane: KeyedLane, place: int) -> None:
        lane.shown = place
        heappush(self._heap, (-lane.priority, place, lane))
        self._sweep()

    def _sweep(self) -> None:
        """Where more than half of the heap is left over it is made anew: O(1) on average for each that is."""
        if len(self._heap) > 2 * len(self._lanes) + 8:
            self._heap = [
                (-lane.priority, lane.shown, lane) for lane in self._lanes.values() if lane.shown >= 0
            ]
            heapify(self._heap)

    def _best(self, now: int) -> KeyedLane | None:
        """The lane to serve. What is left over on top of the heap goes; lanes behind a shut gate go aside."""
        while heap := self._heap:
            _, place, lane = heap[0]
            if lane.shown != place:
                heappop(heap)
            elif not lane.live:
                heappop(heap)
                self._drop(lane, now)
            elif lane.gate is not None and not lane.gate.is_open(now):
                heappop(heap)
                lane.shown = -1
                self._parked.setdefault(lane.gate, {})[lane] = None
                self._wait_for(lane.gate, lane.gate.next_at(now))
            elif (head := lane.peek()) is not None and head.place != place:
                lane.shown = head.place
                heapreplace(heap, (-lane.priority, head.place, lane))
            else:
                return lane
        return None

    def _move_on(self, lane: KeyedLane, now: int) -> None:
        """The lane on top has lost its first job."""
        head = lane.peek()
        if head is None:
            heappop(self._heap)
            self._drop(lane, now)
        else:
            lane.shown = head.place
            heapreplace(self._heap, (-lane.priority, head.place, lane))

    def _drop(self, lane: KeyedLane, now: int) -> None:
        """An empty lane goes; what is left of it in the heap is met there, or swept out."""
        lane.shown = -1
        del self._lanes[lane.name]
        gate = lane.gate
        if gate is not None:
            if parked := self._parked.get(gate):
                parked.pop(lane, None)
                if not parked:
                    del self._parked[gate]
            gate.lanes -= 1
            self._forget_gate(gate, now)
        self._sweep()
        if len(self._lanes) == 1:
            (only,) = self._lanes.values()
            self._only = only if only.gate is None else None
        else:
            self._only = None


_UNSET = QueueSettings()
