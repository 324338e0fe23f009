"""KeyGroup: the lanes of one key of a queue, one for each priority, in the order in which they are served.

The lanes with jobs are in a heap of entries (rank, place, lane), where the rank is the negative priority and
the place is that of the first job. Entries are not removed from the middle of the heap. An entry is outdated
if its place is not the `indexed_place` of its lane; it is dropped when it gets to the top, and all of them
are once they are more than half of the heap:

    lane of priority 5        indexed_place 12
    lane of priority 0        indexed_place 3

    heap   (-5, 12, ·)  (-5, 17, outdated)  (0, 3, ·)

`in_order` reads such a heap from its top without changing it.
"""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import TypeAlias, TypeVar

from jobqueue.core.lane import Lane
from jobqueue.core.limiter import Limiter
from jobqueue.model import Job

Item = TypeVar("Item")
Jobs: TypeAlias = Iterator[tuple[int, int, Job]]  # rank, place, job; in order


class GroupLane(Lane):
    """A lane of a `KeyGroup`. `name` is its priority, with the key if it has one. `indexed_place` is the
    place in its valid heap entry, which is never above the place of its first job; -1: it has no entry."""

    __slots__ = ("group", "indexed_place", "name", "priority")

    def __init__(
        self, name: int | tuple[int, str], group: "KeyGroup", lane_shape: tuple[int, int, float]
    ) -> None:
        super().__init__(lane_shape[0], lane_shape[1], lane_shape[2])
        self.name = name
        self.priority = name if isinstance(name, int) else name[0]
        self.group = group
        self.indexed_place = -1

    def __lt__(self, other: object) -> bool:
        """Lets a heap compare entries of equal rank and place. Their order does not matter, because at most
        one of them is valid."""
        return False

    # A compiled class that defines an order has no hash unless it defines one, too.
    def __hash__(self) -> int:
        return id(self)


class KeyGroup:
    """The jobs of one key, or those without a key, for which there is no limiter.

    `lanes` is the number of its lanes. `rank` and `place` are those of its valid entry in the heap of its
    queue, which is never after its first job; place -1: it has no entry. `blocked` is set when its limiter is
    found exhausted, and cleared when it has capacity again.
    """

    __slots__ = ("_heap", "blocked", "lanes", "limiter", "place", "rank")

    def __init__(self, limiter: Limiter | None) -> None:
        self.limiter = limiter
        self.lanes = 0
        self.rank = 0
        self.place = -1
        self.blocked = False
        self._heap: list[tuple[int, int, GroupLane]] = []

    def __lt__(self, other: object) -> bool:
        """Arbitrary, as `GroupLane.__lt__`."""
        return False

    def __hash__(self) -> int:
        return id(self)

    def index(self, lane: GroupLane, place: int) -> None:
        """Adds an entry: the first job of `lane` is at `place`."""
        lane.indexed_place = place
        heappush(self._heap, (-lane.priority, place, lane))
        self._drop_outdated()

    def remove(self, lane: GroupLane) -> None:
        """Removes a lane without jobs."""
        lane.indexed_place = -1
        self.lanes -= 1
        self._drop_outdated()

    def _drop_outdated(self) -> None:
        """Rebuilds the heap if more than half of it is outdated: O(1) on average for each such entry."""
        if len(self._heap) > 2 * self.lanes + 8:
            valid = {
                lane: (rank, place, lane) for rank, place, lane in self._heap if lane.indexed_place == place
            }
            self._heap = list(valid.values())
            heapify(self._heap)

    def first_lane(self) -> GroupLane | None:
        """Returns the lane of the next job. Drops outdated entries above it, and corrects those whose first
        job has left."""
        while heap := self._heap:
            rank, place, lane = heap[0]
            head = lane.peek() if lane.indexed_place == place else None
            if head is None:
                heappop(heap)
            elif head.place != place:
                lane.indexed_place = head.place
                _replace_first(heap, (rank, head.place, lane))
            else:
                return lane
        return None

    def popped(self, lane: GroupLane) -> None:
        """Corrects the entry of `lane`, which was the first and has lost its first job."""
        head = lane.peek()
        if head is None:
            lane.indexed_place = -1
            heappop(self._heap)
        else:
            lane.indexed_place = head.place
            _replace_first(self._heap, (-lane.priority, head.place, lane))

    def jobs(self) -> Jobs:
        """Yields all jobs in order and takes none. The first few cost little."""
        return in_order(self._heap, _jobs_of)


def _replace_first(heap: list[tuple[int, int, GroupLane]], entry: tuple[int, int, GroupLane]) -> None:
    """Replaces the first entry of a heap. Mostly the new one is the first again, since a group has one lane
    for each priority: then nothing is moved, where `heapreplace` goes down the whole heap and up again."""
    size, rank = len(heap), entry[0]
    if (size < 2 or rank < heap[1][0]) and (size < 3 or rank < heap[2][0]):
        heap[0] = entry
    else:
        heapreplace(heap, entry)


def _jobs_of(place: int, lane: GroupLane) -> Jobs:
    if lane.indexed_place == place:
        for job in lane:
            yield -lane.priority, job.place, job


def in_order(heap: list[tuple[int, int, Item]], jobs_of: Callable[[int, Item], Jobs]) -> Jobs:
    """Yields the jobs of all items in a heap of entries (rank, place, item), in order.

    `jobs_of(place, item)` yields the jobs of one item in order, none of which is before its entry. For an
    outdated entry it yields none.
    """
    # `ahead` is a second heap. It holds entries of the first one, by their index, which are followed by the
    # two entries below them and the first job of their item; and jobs, which are followed by the next job of
    # the same item.
    ahead: list[tuple[int, int, int, int | Job, Jobs]] = []
    order = count()
    seen: set[Item] = set()  # an outdated entry may look like the valid one
    indexes = [0]
    while True:
        for index in indexes:
            if index < len(heap):
                heappush(ahead, (heap[index][0], heap[index][1], next(order), index, iter(())))
        if not ahead:
            return
        rank, place, _, index_or_job, jobs = heappop(ahead)
        if isinstance(index_or_job, Job):
            yield rank, place, index_or_job
            indexes = []
            following = next(jobs, None)
        else:
            indexes = [2 * index_or_job + 1, 2 * index_or_job + 2]
            item = heap[index_or_job][2]
            jobs = iter(()) if item in seen else jobs_of(place, item)
            if (following := next(jobs, None)) is not None:
                seen.add(item)
        if following is not None:
            heappush(ahead, (following[0], following[1], next(order), following[2], jobs))
