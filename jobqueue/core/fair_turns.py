"""FairTurns: the order of the keys of a queue with fair keys, which take turns inside a priority.

For each priority there is a ring of entries (turn, group); the rank is the negative priority. The group at
the front of the ring with the lowest rank is next. When it was served it goes to the end, with a new turn:

    rank -5   (12, a)
    rank  0   (7, outdated)  (9, b)  (10, c)  (11, a, outdated)

Entries are not removed from the middle of a ring. An entry is outdated if the group does not have its rank
and its turn, which is the `place` of the group here; it is dropped when it gets to the front, and all of them
are once they are more than half of all. So every change is constant time on average, for any number of keys.
"""

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from jobqueue.core.key_group import Jobs, KeyGroup
from jobqueue.model import Job

Ring: TypeAlias = deque[tuple[int, KeyGroup]]


class FairTurns:
    """The groups that have jobs, and whose limiter has capacity as far as known. No two rings have one."""

    __slots__ = ("_entries", "_last_turn", "_ranks", "_rings")

    def __init__(self) -> None:
        self._last_turn = 0
        self._entries = 0
        self._rings: dict[int, Ring] = {}
        self._ranks: list[int] = []  # a heap of the ranks in `_rings`

    def add(self, group: KeyGroup, rank: int) -> None:
        """Puts a group at the end of the ring of this rank. It leaves the place that it had."""
        self._last_turn += 1
        group.rank = rank
        group.place = self._last_turn
        ring = self._rings.get(rank)
        if ring is None:
            ring = self._rings[rank] = deque()
            heappush(self._ranks, rank)
        ring.append((self._last_turn, group))
        self._entries += 1

    def first(self) -> KeyGroup | None:
        """Returns the group that is next. It may have lost the jobs that it had at its rank."""
        while self._ranks:
            rank = self._ranks[0]
            ring = self._rings[rank]
            while ring:
                turn, group = ring[0]
                if group.place == turn and group.rank == rank:
                    return group
                ring.popleft()
                self._entries -= 1
            heappop(self._ranks)
            del self._rings[rank]
        return None

    def drop_outdated(self, groups: int) -> None:
        """Drops outdated entries if they are more than half: O(1) on average for each of them. `groups` is
        the number of groups at most."""
        if self._entries <= 2 * groups + 8:
            return
        rings: dict[int, Ring] = {}
        self._entries = 0
        for rank, ring in self._rings.items():
            valid = [(turn, group) for turn, group in ring if group.place == turn and group.rank == rank]
            if valid:
                rings[rank] = deque(valid)
                self._entries += len(valid)
        self._rings = rings
        self._ranks = list(rings)
        heapify(self._ranks)

    def upcoming(self, is_open: Callable[[KeyGroup], bool]) -> Iterator[Job]:
        """Yields all jobs of the groups that `is_open` accepts, in the order in which they are served as long
        as nothing changes. The first few cost little."""
        ranks = self._ranks.copy()
        # Of each rank the groups that were not served yet, and after these the jobs of those that were.
        fresh: dict[int, Iterator[tuple[int, KeyGroup]]] = {}
        again: dict[int, deque[tuple[Job, Jobs]]] = {}
        while ranks:
            rank = ranks[0]
            if rank not in fresh:
                fresh[rank] = iter(self._rings[rank]) if rank in self._rings else iter(())
            following: tuple[int, int, Job] | None
            entry = next(fresh[rank], None)
            if entry is not None:
                turn, group = entry
                if group.place != turn or group.rank != rank or not is_open(group):
                    continue
                jobs = group.jobs()
                following = next(jobs, None)
                if following is not None and following[0] == rank:
                    yield following[2]
                    following = next(jobs, None)
            elif again.get(rank):
                job, jobs = again[rank].popleft()
                yield job
                following = next(jobs, None)
            else:
                heappop(ranks)
                continue
            if following is not None:
                later = following[0]
                if later not in again:
                    again[later] = deque()
                    if later not in self._rings:
                        heappush(ranks, later)
                again[later].append((following[2], jobs))
