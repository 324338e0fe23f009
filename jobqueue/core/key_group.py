"""Line: the lanes of one key of a queue, or of its jobs without a key: one for each priority, in order."""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import TypeVar

from jobqueue.core.lane import Lane
from jobqueue.core.limiter import Limiter
from jobqueue.model import Job

Item = TypeVar("Item")
Jobs = Iterator[tuple[int, int, Job]]  # each behind its rank, the negative priority, and its place


class GroupLane(Lane):
    """A lane in its line. `shown`: the place under which it stands there; -1: it does not."""

    __slots__ = ("line", "name", "priority", "shown")

    def __init__(self, name: int | tuple[int, str], line: "KeyGroup", shape: tuple[int, int, float]) -> None:
        super().__init__(shape[0], shape[1], shape[2])
        self.name = name
        self.priority = name if isinstance(name, int) else name[0]
        self.line = line
        self.shown = -1

    def __lt__(self, other: object) -> bool:
        """Two entries of a heap stand at the same place only where one of them is left over."""
        return False

    # A class with an order of its own has a hash only where it says so, once it is compiled.
    def __hash__(self) -> int:
        return id(self)


class KeyGroup:
    """`gate`: behind which it stands; jobs without a key have none. `lanes`: how many it has. `rank`,
    `place`: where it stands in its queue, no later than its first job; place -1: it does not. `aside`: its
    gate was found shut, and has not opened since."""

    __slots__ = ("_heap", "aside", "gate", "lanes", "place", "rank")

    def __init__(self, gate: Limiter | None) -> None:
        self.gate = gate
        self.lanes = 0
        self.rank = 0
        self.place = -1
        self.aside = False
        self._heap: list[tuple[int, int, GroupLane]] = []  # some entries are left over; see `best`

    def __lt__(self, other: object) -> bool:
        """As of lanes."""
        return False

    def __hash__(self) -> int:
        return id(self)

    def show(self, lane: GroupLane, place: int) -> None:
        """The first job of `lane` is at `place`."""
        lane.shown = place
        heappush(self._heap, (-lane.priority, place, lane))
        self.sweep()

    def drop(self, lane: GroupLane) -> None:
        """An empty lane goes; what is left of it in the heap is met there, or swept out."""
        lane.shown = -1
        self.lanes -= 1
        self.sweep()

    def sweep(self) -> None:
        """Where more than half of the heap is left over it is made anew: O(1) on average for each that is."""
        if len(self._heap) > 2 * self.lanes + 8:
            shown = {lane: (rank, place, lane) for rank, place, lane in self._heap if lane.shown == place}
            self._heap = list(shown.values())
            heapify(self._heap)

    def best(self) -> GroupLane | None:
        """The lane of its next job. What is left over on top of the heap goes."""
        while heap := self._heap:
            rank, place, lane = heap[0]
            head = lane.peek() if lane.shown == place else None
            if head is None:
                heappop(heap)
            elif head.place != place:
                lane.shown = head.place
                heapreplace(heap, (rank, head.place, lane))
            else:
                return lane
        return None

    def move_on(self, lane: GroupLane) -> None:
        """`lane`, which was the best, has lost its first job."""
        head = lane.peek()
        if head is None:
            lane.shown = -1
            heappop(self._heap)
        else:
            lane.shown = head.place
            heapreplace(self._heap, (-lane.priority, head.place, lane))

    def jobs(self) -> Jobs:
        """All in order; none is taken, and the first few cost little."""
        return in_order(self._heap, _jobs_of)


def _jobs_of(place: int, lane: GroupLane) -> Jobs:
    if lane.shown == place:
        for job in lane:
            yield -lane.priority, job.place, job


def in_order(heap: list[tuple[int, int, Item]], jobs_of: Callable[[int, Item], Jobs]) -> Jobs:
    """The jobs of all that stand in a heap, in order. `jobs_of(place, item)`: those of one, none of which
    stands before its entry; none for an entry that is left over."""
    # The heap is walked from its top: behind each entry come the two below it, and the first of its jobs;
    # behind each job the next one of the same item.
    ahead: list[tuple[int, int, int, int | Job, Jobs]] = []
    order = count()
    met: set[Item] = set()  # an entry that is left over may look like the one that counts
    reached = [0]
    while True:
        for at in reached:
            if at < len(heap):
                heappush(ahead, (heap[at][0], heap[at][1], next(order), at, iter(())))
        if not ahead:
            return
        rank, place, _, what, jobs = heappop(ahead)
        if isinstance(what, Job):
            yield rank, place, what
            reached = []
            following = next(jobs, None)
        else:
            reached = [2 * what + 1, 2 * what + 2]
            item = heap[what][2]
            jobs = iter(()) if item in met else jobs_of(place, item)
            if (following := next(jobs, None)) is not None:
                met.add(item)
        if following is not None:
            heappush(ahead, (following[0], following[1], next(order), following[2], jobs))
