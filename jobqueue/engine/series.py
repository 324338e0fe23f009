"""Series: what happened in each queue in the last six hours, for charts, in memory.

Every ten seconds a point is added for each of the first `QUEUES` queues: how many of each kind of step there
were, and how many jobs are queued. A queue has a ring of points for each of these:

    number of the point   …  41  42  43  44
    place in the ring     …   1   2   3   4  │ 5 6 …      number % POINTS; the oldest is overwritten

Numbers are those of ten seconds since 1970, by the wall clock as it was at the first point. A step of that
clock changes none: the instants that are shown for them move with it.
"""

from array import array
from collections.abc import Iterator

from jobqueue.core.counts import TransitionCounts
from jobqueue.core.state import QueueState
from jobqueue.model import SERIES_LENGTH, SERIES_STEP, QueueSeries

STEP = SERIES_STEP
POINTS = SERIES_LENGTH // STEP
# Of how many queues there are points. A ring takes 4 bytes for each point: 5.2 MB for all queues.
QUEUES = 100
# Steps that are counted, by the names of the totals of a queue; and jobs at the end of the ten seconds.
COUNTED = ("enqueued", "concluded", "failed", "stale", "dead")
QUEUED = "queued"
# How many queues one slice adds a point for, so that it takes less than a millisecond.
SLICE = 20


class _Ring:
    """The points of one queue from number `first` to `last`. `totals`: those at the end of the last one."""

    __slots__ = ("first", "last", "points", "totals")

    def __init__(self, first: int, totals: list[int]) -> None:
        self.first = first
        self.last = first - 1
        self.totals = totals
        self.points = {name: array("I", bytes(4 * POINTS)) for name in (*COUNTED, QUEUED)}

    def add(self, number: int, totals: list[int], queued: int) -> None:
        """Adds the points up to `number`. If the process stood still there are several: what happened is in
        the last one."""
        if number <= self.last:
            return
        # A queue that was dropped, and came again, may count from zero.
        began_again = any(total < before for total, before in zip(totals, self.totals, strict=True))
        for name, total, before in zip(COUNTED, totals, self.totals, strict=True):
            self._fill(self.points[name], number, 0)
            self.points[name][number % POINTS] = total if began_again else total - before
        points = self.points[QUEUED]
        self._fill(points, number, points[self.last % POINTS])
        points[number % POINTS] = queued
        self.last, self.totals = number, totals

    def _fill(self, points: "array[int]", number: int, value: int) -> None:
        """Sets the points after the last one and before `number`."""
        for begin, end in _places(max(self.last + 1, number - POINTS + 1), number):
            points[begin:end] = array("I", [value]) * (end - begin)

    def read(self, name: str, begin: int, end: int) -> list[int]:
        """Returns the points from `begin` on and before `end`. They must be there."""
        points = self.points[name]
        return [point for first, after in _places(begin, end) for point in points[first:after]]


class Series:
    """The rings of the first queues of `state`. `add` is called at each tick, and costs two comparisons but
    every ten seconds."""

    def __init__(self, state: QueueState) -> None:
        self._state = state
        self._rings: dict[str, _Ring] = {}
        self._left: list[str] = []  # queues that have no point yet for the last ten seconds
        self._next: int | None = None  # when they are over
        self._base = 0  # of the numbers: wall clock minus monotonic clock
        self._last = 0  # the number of the last ten seconds that are over
        self._was_full = False

    def add(self, now: int) -> None:
        """Adds a slice of the points that are due at `now`, monotonic milliseconds."""
        if self._next is None:
            self._base = self._state.wall_offset
        if self._next is None or now >= self._next:
            number = (now + self._base) // STEP
            self._last = number - 1
            self._next = (number + 1) * STEP - self._base
            self._find_new()
            self._left = list(self._rings)
        for _ in range(min(SLICE, len(self._left))):
            self._add_of(self._left.pop())

    def read(self, name: str, length: int, step: int, now: int) -> QueueSeries:
        """Returns the series of a queue for the last `length` in steps of `step` milliseconds, which is a
        multiple of `STEP`. Only whole steps are shown, as far as there are points."""
        self.add(now)
        ring = self._rings.get(name)
        each = step // STEP
        end = (self._last + 1) // each * each
        begin = end
        points: dict[str, list[int]] = {counted: [] for counted in (*COUNTED, QUEUED)}
        if ring is not None:
            self._add_of(name)
            first = max(ring.first, ring.last - POINTS + 1)
            begin = min(max(end - length // step * each, -(-first // each) * each), end)
            for counted in points:
                found = ring.read(counted, begin, end)
                total = max if counted == QUEUED else sum
                points[counted] = [total(found[at : at + each]) for at in range(0, len(found), each)]
        moved = self._state.wall_offset - self._base
        return QueueSeries(name, ring is not None, begin * STEP + moved, end * STEP + moved, step, points)

    def _add_of(self, name: str) -> None:
        ring, queue = self._rings[name], self._state.queues.get(name)
        if queue is not None:
            ring.add(self._last, _totals(queue.counts), queue.queued)
        else:
            past = self._state.past.get(name)
            totals = [0] * len(COUNTED) if past is None else _totals(past.counts)
            ring.add(self._last, totals, 0)

    def _find_new(self) -> None:
        """Makes rings for queues that are new, in place of those of queues that are gone."""
        queues = self._state.queues
        gone = [name for name in self._rings if name not in queues]
        left = QUEUES - len(self._rings) + len(gone)
        if not left:
            return
        for name, queue in queues.items():
            if name in self._rings:
                continue
            if not left:
                break
            left -= 1
            if len(self._rings) >= QUEUES:
                del self._rings[gone.pop(0)]
            # Unless there were too many queues, this one began in the last ten seconds.
            if self._was_full:
                self._rings[name] = _Ring(self._last + 1, _totals(queue.counts))
            else:
                self._rings[name] = _Ring(self._last, [0] * len(COUNTED))
        self._was_full = self._was_full or len(self._rings) >= QUEUES


def _totals(counts: TransitionCounts) -> list[int]:
    return [counts.total(name) for name in COUNTED]


def _places(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the places in a ring of the points from `begin` on and before `end`: one range or two."""
    if end - begin >= POINTS:
        yield begin % POINTS, POINTS
        yield 0, begin % POINTS
    elif begin < end:
        first, last = begin % POINTS, end % POINTS
        if first < last:
            yield first, last
        else:
            yield first, POINTS
            yield 0, last
