"""Lane: the jobs of one queue, priority and key, first in, first out.

A lane is a growable array of slots, kept as a chain of segments so that growth never copies it, with the
index of its first job, the head. A slot holds a job, or it is empty: taking the head leaves `None`; removing
a job from the middle leaves its place, a tombstone, so that the array stays sorted by place and every job is
found by bisection. When more than a share of the slots are empty, the lane wants compaction, which moves the
jobs of neighbouring segments together, a few segments at a time, in the same order.

    segments  [ None None J3 J4 | J5 ·6 ·7 J8 | J9 J10 ]      · a tombstone
                          ▲ head

Jobs that come back (stale, released, changed) keep their places. They are in a small heap beside the array;
the next job is the one with the lower place, of the heap or of the head. A lane knows jobs by their `place`
only, and knows no status.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from heapq import heappop, heappush, merge
from typing import Final, TypeAlias

from jobqueue.model import Job

Slot: TypeAlias = Job | int | None
# Places that share a page of returned jobs: 1,024.
_PAGE_BITS: Final = 10


def _place(slot: Slot) -> int:
    """Returns the place of a slot. Those before the head, which are `None`, come first."""
    if type(slot) is int:
        return slot
    return -1 if slot is None else slot.place  # type: ignore[union-attr]  # mypy does not narrow by `type() is`


class Segment:
    """A piece of the array. Its slots `[0, used)` are in use, and `live` of them hold a job. `first` is its
    lowest place."""

    __slots__ = ("first", "live", "slots", "used")

    def __init__(self, first: int) -> None:
        self.first = first
        self.slots: list[Slot] = []
        self.used = 0
        self.live = 0


def _first(segment: Segment) -> int:
    return segment.first


class _Returned:
    """Jobs by place, in pages: one dict of a million jobs would stop the program for 30 ms when it grows."""

    __slots__ = ("_pages", "count")

    def __init__(self) -> None:
        self.count = 0
        self._pages: dict[int, dict[int, Job]] = {}

    def add(self, job: Job) -> None:
        place = job.place
        page = self._pages.get(place >> _PAGE_BITS)
        if page is None:
            page = self._pages[place >> _PAGE_BITS] = {}
        page[place] = job
        self.count += 1

    def get(self, place: int) -> Job | None:
        page = self._pages.get(place >> _PAGE_BITS)
        return None if page is None else page.get(place)

    def pop(self, place: int) -> Job:
        """Removes and returns the job of a place. Raises `KeyError` if there is none."""
        page = self._pages[place >> _PAGE_BITS]
        job = page.pop(place)
        if not page:
            del self._pages[place >> _PAGE_BITS]
        self.count -= 1
        return job

    def places(self) -> list[int]:
        return [place for page in self._pages.values() for place in page]


class Lane:
    """The jobs of one lane. `size` is the number of slots in a segment. `spare` is the number of emptied
    segments that are kept for reuse. Compaction is wanted if more than the share `max_empty` of the slots
    are empty."""

    __slots__ = (
        "_cursor",
        "_head",
        "_returned",
        "_returned_places",
        "_segments",
        "_spares",
        "live",
        "max_empty",
        "size",
        "slots",
        "spare",
    )

    def __init__(self, size: int = 1024, spare: int = 1, max_empty: float = 0.5) -> None:
        self.size = size
        self.spare = spare
        self.max_empty = max_empty
        self.live = 0  # jobs in the lane, including the returned ones
        self.slots = 0  # slots in use, including the empty ones
        self._segments: list[Segment] = []
        self._head = 0  # index of the first job in the first segment
        self._spares: list[Segment] = []
        self._returned = _Returned()
        self._returned_places: list[int] = []  # a heap; some of its places have left `_returned`
        self._cursor: int | None = None  # the next segment to compact, during a compaction

    def __len__(self) -> int:
        return self.live

    def append(self, job: Job) -> None:
        """Adds a job whose place is above all places in the lane. Amortized O(1)."""
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
        """Adds a job at its place, wherever that is. O(log returned)."""
        self._returned.add(job)
        heappush(self._returned_places, job.place)
        self.live += 1

    def peek(self) -> Job | None:
        """Returns the job that `pop` would take; None if there is none. Amortized O(1)."""
        if not self.live:
            return None
        if self._returned.count and self._returned_is_next():
            return self._returned.get(self._returned_places[0])
        job = self._segments[0].slots[self._head]
        assert isinstance(job, Job)
        return job

    def pop(self) -> Job:
        """Takes the job with the lowest place. Raises `IndexError` if there is none. Amortized O(1)."""
        if not self.live:
            raise IndexError("pop from an empty lane")
        if self._returned.count and self._returned_is_next():
            self.live -= 1
            return self._returned.pop(heappop(self._returned_places))
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
        return slot  # type: ignore[return-value]  # the slot at the head always holds a job

    def remove(self, job: Job) -> None:
        """Removes a job from wherever it is. Raises `KeyError` if it is not here. This takes two bisections,
        and leaves a tombstone. A segment without jobs is dropped at once."""
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
        self._returned.pop(place)
        self.live -= 1
        if len(self._returned_places) > 2 * self._returned.count:
            self._returned_places = sorted(self._returned.places())

    def before(self, place: int) -> int:
        """Returns how many jobs have a lower place. O(segments + one segment + returned)."""
        count = sum([returned < place for returned in self._returned.places()])
        at = bisect_right(self._segments, place, key=_first) - 1
        if at >= 0:
            segment = self._segments[at]
            end = bisect_left(segment.slots, place, self._head if at == 0 else 0, segment.used, key=_place)
            count += sum(earlier.live for earlier in self._segments[:at])
            count += sum(isinstance(slot, Job) for slot in segment.slots[:end])
        return count

    def __iter__(self) -> Iterator[Job]:
        """Yields the jobs in order and takes none. The first few cost little."""
        yield from merge(self._returned_jobs(), self._array_jobs(), key=_place)

    def _returned_jobs(self) -> Iterator[Job]:
        places, last = self._returned_places.copy(), -1
        while places:
            place = heappop(places)
            if place != last and (job := self._returned.get(place)) is not None:
                last = place
                yield job

    def _array_jobs(self) -> Iterator[Job]:
        for at, segment in enumerate(self._segments):
            low = self._head if at == 0 else 0
            yield from (slot for slot in segment.slots[low : segment.used] if isinstance(slot, Job))

    # -- compaction ---------------------------------------------------------------------------------

    @property
    def empty(self) -> int:
        """The number of slots that hold no job."""
        return self.slots - self.live + self._returned.count

    @property
    def wants_compaction(self) -> bool:
        """More than the share `max_empty` of the slots are empty, or a compaction is under way."""
        return self._cursor is not None or self.empty > self.max_empty * self.slots

    def compact(self, budget: int = 8) -> bool:
        """Moves the jobs of up to `budget` segments together, in the same order. Returns whether the whole
        lane is done. Jobs may be added and removed between two calls."""
        if self._cursor is None:
            self._cursor = 0
        start, end = self._cursor, min(self._cursor + max(budget, 2), len(self._segments))
        jobs = [
            slot
            for segment in self._segments[start:end]
            for slot in segment.slots[: segment.used]
            if slot is not None and not isinstance(slot, int)
        ]
        dense = [self._filled(jobs[i : i + self.size]) for i in range(0, len(jobs), self.size)]
        self.slots += len(jobs) - sum(segment.used for segment in self._segments[start:end])
        self._segments[start:end] = dense
        if start == 0:
            self._head = 0
        last = start + len(dense)
        if last >= len(self._segments):
            self._cursor = None
            return True
        # A last dense segment that is not full is compacted again, together with its neighbours.
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
        """Drops a segment without jobs. The only one stays, so that a lane that is always short need not make
        new ones. A full-sized one is kept if fewer than `spare` are."""
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
        """Moves the head of the first segment, which holds a job, to the first job from index `head` on."""
        slots = segment.slots
        while (slot := slots[head]) is None or type(slot) is int:
            slots[head] = None
            head += 1
        self._head = head

    # -- returned jobs ------------------------------------------------------------------------------

    def _returned_is_next(self) -> bool:
        """Returns whether the first of the returned jobs, of which there is at least one, comes before the
        head of the array. Drops outdated places from the heap, so that its top is that job."""
        while self._returned.get(self._returned_places[0]) is None:
            heappop(self._returned_places)
        if self.live == self._returned.count:
            return True
        return self._returned_places[0] < _place(self._segments[0].slots[self._head])
