"""UniqueKeys: which job of a queue owns a unique key, and which are next."""

from jobqueue.model import Job


class UniqueKeys:
    """The claims on the unique keys of a queue. `owner` maps each key to the job that owns it. All operations
    are O(1)."""

    __slots__ = ("_next", "owner")

    def __init__(self) -> None:
        self.owner: dict[str, Job] = {}
        self._next: dict[str, dict[Job, None]] = {}  # jobs that own the key after the owner, in order

    def claim(self, key: str, job: Job) -> None:
        """Makes `job` the owner; or the last of the next ones if there is an owner. (Such a job became stale,
        or was redriven or moved here, after another one had claimed the key.)"""
        if self.owner.setdefault(key, job) is not job:
            self._next.setdefault(key, {})[job] = None

    def drop_claim(self, key: str, job: Job) -> None:
        """Ends the claim of `job`, if it has one. If it was the owner, the first of the next ones is now."""
        following = self._next.get(key, {})
        if self.owner.get(key) is job:
            del self.owner[key]
            if following:
                self.owner[key] = next(iter(following))
                del following[self.owner[key]]
        else:
            following.pop(job, None)
        if not following:
            self._next.pop(key, None)
