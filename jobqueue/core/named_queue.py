"""NamedQueue: one named queue: its lanes and their gates, and its counts.

Jobs are ordered by priority, and inside one priority by their places. Those without a key stand in one line,
those of each key in a line of its own, which stands aside while the key's gate is shut.
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

# How many lanes one look goes through.
_LOOKED_AT = 1000


def key_of(job: Job) -> str | None:
    more = job.extras
    return more.options.key if more is not None and more.options is not None else None


class NamedQueue:
    """`queued`, `scheduled`: jobs that wait; `bytes`: their payloads; `size`: jobs of any status. `used_at`:
    monotonic milliseconds at which it was last left without jobs; `asked_at`: at which somebody last asked it
    for a job, or ended to wait for one; None: never since it is there. `sleep(gate, at)` is called for a gate
    that opens by itself at an instant, earlier than its `wakes_at` if it has one."""

    __slots__ = (
        "_asleep",
        "_heap",
        "_lanes",
        "_marks",
        "_only",
        "_plain",
        "_shape",
        "_sleep",
        "asked_at",
        "bounded",
        "bytes",
        "counts",
        "gate",
        "lines",
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
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        shape: tuple[int, int, float],
        sleep: Callable[[Limiter, int], None] | None = None,
        now: int = 0,
    ) -> None:
        self.name = name
        self.counts = TransitionCounts()
        self.steps = self.counts.steps
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
        self.waits = DecayingHistogram()  # from enqueue to the first lease, milliseconds
        self.runs = DecayingHistogram()  # from the last lease to conclude
        self.gate: Limiter | None = None
        self.lines: dict[str, KeyGroup] = {}  # of the keys that have jobs here
        self._shape = shape
        self._sleep = sleep
        self._marks = ((now, (0, 0)), (now, (0, 0)))  # of the rates: when, and the counts then
        self._lanes: dict[int | tuple[int, str], GroupLane] = {}
        self._plain = KeyGroup(None)
        self._heap: list[tuple[int, int, KeyGroup]] = []  # of the keys; some entries are left over
        self._asleep: list[
            tuple[int, KeyGroup]
        ] = []  # a heap: when the rate of a key that stands aside opens
        self._only: GroupLane | None = None  # the lane, if there is but one and nothing gates it

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
        totals = self.counts.totals()
        counts = (totals["enqueued"], totals["dequeued"])
        if now - self._marks[1][0] >= 10_000:
            self._marks = (self._marks[1], (now, counts))
        since, then = self._marks[0]
        seconds = max(now - since, 1000) / 1000
        return (counts[0] - then[0]) / seconds, (counts[1] - then[1]) / seconds

    @property
    def lanes(self) -> list[GroupLane]:
        return list(self._lanes.values())

    def append(self, job: Job) -> None:
        """Puts a job at the end of its priority, or of its key's part of it."""
        lane = self._lanes.get(job.priority) if job.extras is None else self._lane_of(job)
        if lane is None:
            lane = self._new_lane(job.priority)
        lane.append(job)
        self.queued += 1
        self.bytes += len(job.payload)
        if lane.shown < 0:
            self._show(lane, job.place)

    def put_back(self, job: Job) -> None:
        """Puts a job that was leased before at its place."""
        lane = self._lane_of(job)
        lane.put_back(job)
        self.queued += 1
        self.bytes += len(job.payload)
        if job.place < lane.shown or lane.shown < 0:
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
            lane.line.move_on(lane)
            if not lane.live:
                self._drop(lane, now)
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

        self._awaken(now)

        def of_key(_: int, line: KeyGroup) -> Jobs:
            open = line.place >= 0 and line.gate is not None and line.gate.is_open(now)
            return line.jobs() if open else iter(())

        both = merge(self._plain.jobs(), in_order(self._heap, of_key))
        return [job for _, _, job in islice(both, most)]

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

    def shut_gates(self, job: Job, now: int) -> list[Limiter]:
        """The gates that keep `job`, which is queued here, from being taken."""
        gates = (self.gate, self._lane_of(job).line.gate)
        return [gate for gate in gates if gate is not None and not gate.is_open(now)]

    # -- gates --------------------------------------------------------------------------------------

    def configure(self, settings: QueueSettings, in_progress: int) -> None:
        """`in_progress`: how many of its jobs are, now. O(keys) where their limits change."""
        before, self.settings = self.settings, settings
        self.bounded = settings.max_jobs is not None or settings.max_bytes is not None
        self.version += 1
        if settings.max_in_progress is None and settings.rate is None:
            self.gate = None
        else:
            self.gate = self.gate or Limiter(self.name, None, None, None)
            self.gate.in_progress = in_progress
            self.gate.limit(settings.max_in_progress, settings.rate)
        if settings.key_limits != before.key_limits:
            limits = settings.key_limits or KeyLimits()
            self._asleep.clear()
            for line in self.lines.values():
                assert line.gate is not None
                line.gate.limit(limits.max_in_progress, limits.rate)
                self._reopen(line)

    def enter(self, job: Job, now: int) -> None:
        """A job of this queue is in progress."""
        if self.gate is not None:
            self.gate.enter(now)
        if (key := key_of(job)) is not None:
            self._line_of(key)[1].enter(now)

    def enter_again(self, job: Job) -> None:
        """It was in progress when an earlier run ended: it counts, and no rate is charged."""
        if self.gate is not None:
            self.gate.in_progress += 1
        if (key := key_of(job)) is not None:
            self._line_of(key)[1].in_progress += 1

    def leave(self, job: Job, now: int) -> bool:
        """It is no more; True if that opened a gate."""
        opened = self.gate is not None and self.gate.leave()
        if (key := key_of(job)) is not None:
            line, gate = self._line_of(key)
            if gate.leave():
                self._reopen(line)
                opened = True
            self._forget(line, gate, now)
        return opened

    def woken(self, gate: Limiter, now: int) -> None:
        """The instant has come for which `gate` slept."""
        gate.wakes_at = None
        line = self.lines.get(gate.key) if gate.key is not None else None
        if line is not None and line.gate is gate:  # else the key is an old one, whose timer came late
            self._forget(line, gate, now)

    def _awaken(self, now: int) -> None:
        while self._asleep and self._asleep[0][0] <= now:
            self._reopen(heappop(self._asleep)[1])

    def _reopen(self, line: KeyGroup) -> None:
        """If the line stands aside it comes back."""
        if line.aside:
            line.aside = False
            if (lane := line.best()) is not None:
                self._show_line(line, -lane.priority, lane.shown)

    def _line_of(self, key: str) -> tuple[KeyGroup, Limiter]:
        line = self.lines.get(key)
        if line is None:
            limits = self.settings.key_limits or KeyLimits()
            line = self.lines[key] = KeyGroup(Limiter(self.name, key, limits.max_in_progress, limits.rate))
        assert line.gate is not None
        return line, line.gate

    def _wait_for(self, gate: Limiter, at: int | None) -> None:
        if at is not None and (gate.wakes_at is None or at < gate.wakes_at) and self._sleep is not None:
            self._sleep(gate, at)

    def _forget(self, line: KeyGroup, gate: Limiter, now: int) -> None:
        """A key without jobs is not kept, once its rate has nothing to remember."""
        if line.lanes == 0 and gate.in_progress == 0 and gate.key is not None:
            full_at = gate.full_at(now)
            if full_at > now:
                self._wait_for(gate, full_at)
            else:
                del self.lines[gate.key]

    # -- lanes --------------------------------------------------------------------------------------

    def _lane_of(self, job: Job) -> GroupLane:
        name: int | tuple[int, str] = job.priority
        if job.extras is not None and (key := key_of(job)) is not None:
            name = (job.priority, key)
        lane = self._lanes.get(name)
        return lane if lane is not None else self._new_lane(name)

    def _new_lane(self, name: int | tuple[int, str]) -> GroupLane:
        if self._only is not None and not self._only.live:  # it stayed for the next job of its priority
            self._drop(self._only, 0)
        line = self._plain if isinstance(name, int) else self._line_of(name[1])[0]
        line.lanes += 1
        lane = self._lanes[name] = GroupLane(name, line, self._shape)
        self._only = lane if line is self._plain and len(self._lanes) == 1 else None
        return lane

    def _drop(self, lane: GroupLane, now: int) -> None:
        """An empty lane goes."""
        del self._lanes[lane.name]
        line = lane.line
        line.drop(lane)
        if line.gate is not None:
            if line.lanes == 0:
                line.place = -1
                self._forget(line, line.gate, now)
            self._sweep()
        if len(self._lanes) == 1:
            (only,) = self._lanes.values()
            self._only = only if only.line is self._plain else None
        else:
            self._only = None

    # -- their order --------------------------------------------------------------------------------

    def _show(self, lane: GroupLane, place: int) -> None:
        line = lane.line
        line.show(lane, place)
        if line.gate is not None and not line.aside:
            rank = -lane.priority
            if line.place < 0 or rank < line.rank or (rank == line.rank and place < line.place):
                self._show_line(line, rank, place)

    def _show_line(self, line: KeyGroup, rank: int, place: int) -> None:
        line.rank = rank
        line.place = place
        heappush(self._heap, (rank, place, line))
        self._sweep()

    def _sweep(self) -> None:
        """As a line does it."""
        if len(self._heap) > 2 * len(self.lines) + 8:
            self._heap = [(line.rank, line.place, line) for line in self.lines.values() if line.place >= 0]
            heapify(self._heap)

    def _best(self, now: int) -> GroupLane | None:
        """The lane to serve."""
        self._awaken(now)
        plain = self._plain.best()
        keyed = self._best_of_keys(now) if self._heap else None
        if plain is None or keyed is None:
            return plain or keyed
        if keyed.priority == plain.priority:
            return keyed if keyed.shown < plain.shown else plain
        return keyed if keyed.priority > plain.priority else plain

    def _best_of_keys(self, now: int) -> GroupLane | None:
        """What is left over on top of the heap goes; lines behind a shut gate go aside."""
        while heap := self._heap:
            rank, place, line = heap[0]
            lane = line.best() if line.place == place and line.rank == rank else None
            if lane is None:
                heappop(heap)
                continue
            gate = line.gate
            assert gate is not None
            if not gate.is_open(now):
                heappop(heap)
                line.place = -1
                line.aside = True
                if (at := gate.next_at(now)) is not None:
                    heappush(self._asleep, (at, line))
                    self._wait_for(gate, at)
            elif lane.shown != place or lane.priority != -rank:
                line.rank = -lane.priority
                line.place = lane.shown
                heapreplace(heap, (line.rank, line.place, line))
            else:
                return lane
        return None


_UNSET = QueueSettings()
