"""NamedQueue: one named queue: its lanes by priority, and its counts."""

from heapq import heapify, heappop, heappush

from jobqueue.core.job import Job
from jobqueue.core.lane import Lane
from jobqueue.core.tally import Tally


class NamedQueue:
    """`queued`: jobs that could be leased now. `size`: jobs of any status. `used_at`: monotonic milliseconds
    at which it was last left without jobs."""

    __slots__ = (
        "_heap",
        "_lanes",
        "_shape",
        "_sweep_at",
        "name",
        "queued",
        "size",
        "tally",
        "unique",
        "used_at",
    )

    def __init__(self, name: str, lane_size: int, lane_spare: int, compact_above: float) -> None:
        self.name = name
        self.tally = Tally()
        self.queued = 0
        self.size = 0
        self.unique: dict[str, Job] = {}  # by unique key, the job that has it
        self.used_at = 0
        self._shape = (lane_size, lane_spare, compact_above)
        self._lanes: dict[int, Lane] = {}
        self._heap: list[int] = []  # priorities that have a lane, negated: highest first; some are left over
        self._sweep_at = 16  # so many lanes: time to drop those that dequeues have emptied

    @property
    def idle(self) -> bool:
        """No jobs of any status."""
        return self.size == 0

    @property
    def lanes(self) -> list[Lane]:
        return list(self._lanes.values())

    def append(self, job: Job) -> None:
        """Puts a new job at the end of its priority."""
        lane = self._lanes.get(job.priority)
        if lane is None:
            lane = self._new_lane(job.priority)
        lane.append(job)
        self.queued += 1

    def put_back(self, job: Job) -> None:
        """Puts a job that was leased before at its place."""
        lane = self._lanes.get(job.priority)
        if lane is None:
            lane = self._new_lane(job.priority)
        lane.put_back(job)
        self.queued += 1

    def pop(self) -> Job:
        """Takes the next job: highest priority, then lowest place. Only while `queued`."""
        self.queued -= 1
        while True:
            lane = self._lanes.get(-self._heap[0])
            if lane is not None and lane.live:
                return lane.pop()
            # Emptied by earlier dequeues, or dropped; what is left of it goes when it is met here.
            self._lanes.pop(-heappop(self._heap), None)

    def remove(self, job: Job) -> Lane:
        """Takes a queued job out, wherever it stands; answers the lane that it was in."""
        lane = self._lanes[job.priority]
        lane.remove(job)
        self.queued -= 1
        if not lane.live:
            del self._lanes[job.priority]
            if len(self._heap) > 2 * len(self._lanes) + 8:
                self._order_lanes()
        return lane

    def oldest(self) -> Job | None:
        """The queued job that came first, over all priorities; O(priorities)."""
        heads = [job for lane in self._lanes.values() if (job := lane.peek()) is not None]
        return min(heads, key=_created_at, default=None)

    def _new_lane(self, priority: int) -> Lane:
        if len(self._lanes) >= self._sweep_at:
            self._lanes = {priority: lane for priority, lane in self._lanes.items() if lane.live}
            self._order_lanes()
            self._sweep_at = 2 * len(self._lanes) + 16
        lane = self._lanes[priority] = Lane(*self._shape)
        heappush(self._heap, -priority)
        return lane

    def _order_lanes(self) -> None:
        self._heap = [-priority for priority in self._lanes]
        heapify(self._heap)


def _created_at(job: Job) -> int:
    return job.created_at
