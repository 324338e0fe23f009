"""UniqueKeys: which job of a queue has a unique key, and who stands in line for it."""

from jobqueue.model import Job


class UniqueKeys:
    """`holder`: by key, the job that has it. All O(1)."""

    __slots__ = ("_heirs", "holder")

    def __init__(self) -> None:
        self.holder: dict[str, Job] = {}
        self._heirs: dict[str, dict[Job, None]] = {}

    def claim(self, key: str, job: Job) -> None:
        """`job` has the key; or stands in line for it where another came first (it was stale, redriven or
        moved here while its key was free)."""
        if self.holder.setdefault(key, job) is not job:
            self._heirs.setdefault(key, {})[job] = None

    def disclaim(self, key: str, job: Job) -> None:
        """It has the key no more, or leaves the line; the first in line gets the key."""
        heirs = self._heirs.get(key, {})
        if self.holder.get(key) is job:
            del self.holder[key]
            if heirs:
                self.holder[key] = next(iter(heirs))
                del heirs[self.holder[key]]
        else:
            heirs.pop(job, None)
        if not heirs:
            self._heirs.pop(key, None)
