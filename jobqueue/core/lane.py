"""Lane: the jobs of one queue and one priority, first in, first out.

A growable slot array with a head index, kept as a chain of segments so that growth never copies it. A slot
holds a job, or what is left of one: taking the head leaves `None`; removing from the middle leaves the
job's place as a tombstone, so that the array stays sorted by place and any job is found by bisection.
When more than a share of the slots are empty the lane wants compaction: neighbouring segments are squeezed
together, a few at a time, order kept.

    segments  [ None None J3 J4 | J5 ·6 ·7 J8 | J9 J10 ]      · a tombstone
                          ▲ head

Jobs that come back (stale, released, changed) have the places they had; they wait in a small heap beside the
array, and whichever of the two has the lower place goes first. Knows jobs only by `place`; knows no status.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from heapq import heappop, heappush, merge

from jobqueue.model import Job

Slot = Job | int | None


def _place(slot: Slot) -> int:
    """Where a slot stands; slots before the head (`None`) stand before everything."""
    if type(slot) is int:
        return slot
    return -1 if slot is None else slot.place  # type: ignore[union-attr]  # mypy does not narrow by `type() is`


class Segment:
    """A piece of the array: slots `[0, used)`, of which `live` hold a job. `first` is its lowest place."""

    __slots__ = ("first", "live", "slots", "used")

    def __init__(self, first: int) -> None:
        self.first = first
        self.slots: list[Slot] = []
        self.used = 0
        self.live = 0


def _first(segment: Segment) -> int:
    return segment.first


class Lane:
    """`size`: slots in a segment. `spare`: emptied segments kept for reuse. `above`: the share of empty
    slots above which `wants_compaction` holds."""

    __slots__ = ("_cursor", "_head", "_heap", "_returned", "_segments", "_spares", "above",
                 "live", "size", "slots", "spare")  # fmt: skip

    def __init__(self, size: int = 1024, spare: int = 1, above: float = 0.5) -> None:
        self.size = size
        self.spare = spare
        self.above = above
        self.live = 0  # jobs in the lane, the returned ones too
        self.slots = 0  # slots in use, empty ones too
        self._segments: list[Segment] = []
        self._head = 0  # index of the first live slot of the first segment
        self._spares: list[Segment] = []
        self._returned: dict[int, Job] = {}  # by place
        self._heap: list[int] = []  # places of the returned; some are left over
        self._cursor: int | None = None  # next segment to squeeze, while a compaction is under way

    def __len__(self) -> int:
        return self.live

    def append(self, job: Job) -> None:
        """To the end; the job's place must be above all places in the lane. Amortised O(1)."""
        if not self._segments or (tail := self._segments[-1]).used == self.size:
            tail = self._grow(job.place)
        if tail.used == len(tail.slots):
            tail.slots.append(job)
        else:
            tail.slots[tail.used] = job
        tail.used += 1
        tail.live += 1
        self.slots += 1
        self.live += 1

    def put_back(self, job: Job) -> None:
        """To its place, wherever that is. O(log returned)."""
        self._returned[job.place] = job
        heappush(self._heap, job.place)
        self.live += 1

    def peek(self) -> Job | None:
        """The job that `pop` would give. O(1) amortised."""
        if not self.live:
            return None
        if self._returned and self._returned_is_next():
            return self._returned[self._heap[0]]
        job = self._segments[0].slots[self._head]
        assert isinstance(job, Job)
        return job

    def pop(self) -> Job:
        """Takes the job with the lowest place. `IndexError` if the lane is empty. O(1) amortised."""
        if not self.live:
            raise IndexError("pop from an empty lane")
        if self._returned and self._returned_is_next():
            self.live -= 1
            return self._returned.pop(heappop(self._heap))
        segment = self._segments[0]
        head = self._head
        slot = segment.slots[head]
        segment.slots[head] = None
        segment.live -= 1
        self.live -= 1
        if segment.live == 0:
            self._drop(0)
        else:
            self._seek(segment, head + 1)
        return slot  # type: ignore[return-value]  # the head is on a live slot, always

    def remove(self, job: Job) -> None:
        """Takes `job` out, wherever it stands; `KeyError` if it is not here. Two bisections; a place in the
        middle becomes a tombstone, a segment without jobs leaves the chain at once."""
        place = job.place
        at = bisect_right(self._segments, place, key=_first) - 1
        if at >= 0:
            segment = self._segments[at]
            low = self._head if at == 0 else 0
            index = bisect_left(segment.slots, place, low, segment.used, key=_place)
            if index < segment.used and segment.slots[index] is job:
                segment.slots[index] = place
                segment.live -= 1
                self.live -= 1
                if segment.live == 0:
                    self._drop(at)
                elif at == 0 and index == self._head:
                    self._seek(segment, index + 1)
                return
        del self._returned[place]
        self.live -= 1
        if len(self._heap) > 2 * len(self._returned):
            self._heap = sorted(self._returned)

    def before(self, place: int) -> int:
        """How many jobs stand before `place`. O(segments + one segment + returned)."""
        count = sum(returned < place for returned in self._returned)
        at = bisect_right(self._segments, place, key=_first) - 1
        if at >= 0:
            segment = self._segments[at]
            end = bisect_left(segment.slots, place, self._head if at == 0 else 0, segment.used, key=_place)
            count += sum(earlier.live for earlier in self._segments[:at])
            count += sum(isinstance(slot, Job) for slot in segment.slots[:end])
        return count

    def __iter__(self) -> Iterator[Job]:
        """The jobs in order, without taking them: the first few cost little."""
        yield from merge(self._back(), self._array(), key=_place)

    def _back(self) -> Iterator[Job]:
        places, last = self._heap.copy(), -1
        while places:
            place = heappop(places)
            if place != last and (job := self._returned.get(place)) is not None:
                last = place
                yield job

    def _array(self) -> Iterator[Job]:
        for at, segment in enumerate(self._segments):
            low = self._head if at == 0 else 0
            yield from (slot for slot in segment.slots[low : segment.used] if isinstance(slot, Job))

    # -- compaction ---------------------------------------------------------------------------------

    @property
    def empty(self) -> int:
        """Slots that hold no job: taken, and not yet given back, or tombstones."""
        return self.slots - self.live + len(self._returned)

    @property
    def wants_compaction(self) -> bool:
        """More than the share `above` of the slots are empty, or a compaction is under way."""
        return self._cursor is not None or self.empty > self.above * self.slots

    def compact(self, budget: int = 8) -> bool:
        """Squeezes up to `budget` segments together; the order of the jobs stays. True when done. What runs
        between two calls may append, pop and remove."""
        if self._cursor is None:
            self._cursor = 0
        start, end = self._cursor, min(self._cursor + max(budget, 2), len(self._segments))
        jobs = [
            slot for segment in self._segments[start:end] for slot in segment.slots[: segment.used]
            if slot is not None and not isinstance(slot, int)
        ]  # fmt: skip
        dense = [self._filled(jobs[i : i + self.size]) for i in range(0, len(jobs), self.size)]
        self.slots += len(jobs) - sum(segment.used for segment in self._segments[start:end])
        self._segments[start:end] = dense
        if start == 0:
            self._head = 0
        last = start + len(dense)
        if last >= len(self._segments):
            self._cursor = None
            return True
        # A last dense segment that is part full is squeezed again, together with its neighbours.
        self._cursor = last - 1 if dense and dense[-1].used < self.size else last
        return False

    def _filled(self, jobs: list[Job]) -> Segment:
        segment = Segment(jobs[0].place)
        segment.slots = list[Slot](jobs)
        segment.used = segment.live = len(jobs)
        return segment

    # -- segments -----------------------------------------------------------------------------------

    def _grow(self, first: int) -> Segment:
        segment = self._spares.pop() if self._spares else Segment(first)
        segment.first = first
        self._segments.append(segment)
        return segment

    def _drop(self, at: int) -> None:
        """Takes a segment without jobs out of the chain. The only one stays, emptied: a lane that is never
        long should not make segments at every turn. A full-sized one is kept if spares are wanted."""
        segment = self._segments[at]
        self.slots -= segment.used
        segment.used = 0
        if len(self._segments) == 1:
            self._head = 0
            return
        del self._segments[at]
        if self._cursor is not None and at < self._cursor:
            self._cursor -= 1
        if len(self._spares) < self.spare and len(segment.slots) == self.size:
            self._spares.append(segment)
        if at == 0:
            self._seek(self._segments[0], 0)

    def _seek(self, segment: Segment, head: int) -> None:
        """Moves the head of the first segment, which has a live slot, on to it."""
        slots = segment.slots
        while (slot := slots[head]) is None or type(slot) is int:
            slots[head] = None
            head += 1
        self._head = head

    # -- the returned -------------------------------------------------------------------------------

    def _returned_is_next(self) -> bool:
        """Does the lowest of the returned, of which there are some, stand before the head of the array? That
        one is on top of the heap now; what was left over above it is dropped."""
        while self._heap[0] not in self._returned:
            heappop(self._heap)
        if self.live == len(self._returned):
            return True
        return self._heap[0] < _place(self._segments[0].slots[self._head])
