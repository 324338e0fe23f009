"""JobIndex: finds jobs by id.

Jobs are in pages of 1,024 ids. A single dict of five million entries would stop the program for 100 ms each
time it grows. Ids are given in order, so a page is filled once. A page that has lost most of its jobs becomes
a small dict, so that a few old jobs do not each keep a page of empty slots. The newest page is left as it is,
since the next jobs come into it.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final

from jobqueue.model import Job

_BITS: Final = 10
_SIZE: Final = 1 << _BITS
_MASK: Final = _SIZE - 1
_SPARSE: Final = _SIZE // 16


class _Page:
    __slots__ = ("jobs", "live")

    def __init__(self) -> None:
        self.live = 0
        self.jobs: list[Job | None] | dict[int, Job] = [None] * _SIZE


class JobIndex:
    """A mapping of ids to jobs. `add`, `get` and `remove` are O(1)."""

    __slots__ = ("_newest", "_numbers", "_pages")

    def __init__(self) -> None:
        self._pages: dict[int, _Page] = {}
        self._newest = -1  # the number of the page that was created last
        self._numbers: list[int] = []  # of the pages that exist, in order

    def add(self, job: Job) -> None:
        number = job.id >> _BITS
        page = self._pages.get(number)
        if page is None:
            page = self._new_page(number)
        page.jobs[job.id & _MASK] = job
        page.live += 1

    def _new_page(self, number: int) -> _Page:
        before = self._newest
        self._newest = number
        if before in self._pages:
            self._shrink(before, self._pages[before])
        page = self._pages[number] = _Page()
        insort(self._numbers, number)
        return page

    def _shrink(self, number: int, page: _Page) -> None:
        """Drops a page that is empty, or makes it a dict if it has few jobs."""
        if page.live == 0:
            del self._pages[number]
            del self._numbers[bisect_left(self._numbers, number)]
        elif page.live <= _SPARSE and not isinstance(page.jobs, dict):
            page.jobs = {at: kept for at, kept in enumerate(page.jobs) if kept is not None}

    def get(self, id: int) -> Job | None:
        page = self._pages.get(id >> _BITS)
        if page is None:
            return None
        jobs = page.jobs
        return jobs[id & _MASK] if type(jobs) is list else jobs.get(id & _MASK)  # type: ignore[union-attr]  # not narrowed by `type() is`

    def remove(self, job: Job) -> None:
        """Removes a job, which must be in the index."""
        number, index = job.id >> _BITS, job.id & _MASK
        page = self._pages[number]
        page.live -= 1
        if isinstance(page.jobs, dict):
            del page.jobs[index]
        else:
            page.jobs[index] = None
        if page.live <= _SPARSE and number != self._newest:
            self._shrink(number, page)

    def after(self, id: int) -> Iterator[Job]:
        """Yields the jobs with higher ids, in rising order. Jobs that are added or removed meanwhile may or
        may not be included."""
        at = bisect_left(self._numbers, (id + 1) >> _BITS)
        for number in self._numbers[at:]:
            yield from (job for job in self._jobs_on(number) if job.id > id)

    def before(self, id: int) -> Iterator[Job]:
        """Yields the jobs with lower ids, in falling order."""
        at = bisect_right(self._numbers, (id - 1) >> _BITS)
        for number in reversed(self._numbers[:at]):
            yield from (job for job in reversed(self._jobs_on(number)) if job.id < id)

    def _jobs_on(self, number: int) -> list[Job]:
        page = self._pages.get(number)
        if page is None:
            return []
        if isinstance(page.jobs, dict):
            return [page.jobs[index] for index in sorted(page.jobs)]
        return [job for job in page.jobs if job is not None]
