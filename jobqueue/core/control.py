"""Control: what is set for a named queue, its pauses, and what is done to many of its jobs at once."""

from collections.abc import Sequence
from math import ceil

from msgspec import UNSET
from msgspec.structs import replace

from jobqueue import steps
from jobqueue.core.changes import Changes
from jobqueue.core.named_queue import NamedQueue
from jobqueue.errors import QueueFull
from jobqueue.model import Change, Filter, Job, NewJob, Pause
from jobqueue.steps import IN_PROGRESS


class Control(Changes):
    """What is done to a queue."""

    __slots__ = ()

    def configure(self, name: str, given: dict[str, object], now: int) -> NamedQueue:
        """Sets what is given; a value that is `QueueSettings`'s default unsets it. Makes the queue."""
        self._refuse_new_queues((name,))
        queue = self.queues.get(name) or self._new_queue(name, now)
        queue.configure(replace(queue.settings, **given), queue.counts.jobs()[IN_PROGRESS])
        self._to_match[name] = None
        if queue.idle:
            self._rest(queue, now)
        if self.changed is not None:
            self.changed(queue)
        self._match_waiters(now)
        return queue

    def pause(self, name: str, length: int | None, reason: str | None, now: int) -> NamedQueue:
        """Hands nothing out for `length` milliseconds; None: until it is resumed. Makes the queue."""
        self._refuse_new_queues((name,))
        queue = self.queues.get(name) or self._new_queue(name, now)
        self._unpause(queue)
        at = self.wall(now)
        queue.pause = Pause(at, None if length is None else at + length, reason)
        if queue.pause.until is not None:
            self._pauses.add(queue, queue.pause.until)
        queue.version += 1
        if self.event is not None:
            self.event("pause", name)
        if self.changed is not None:
            self.changed(queue)
        return queue

    def resume(self, name: str, now: int) -> NamedQueue:
        """Who waits gets what is there."""
        queue = self.queues.get(name)
        if queue is None:
            self._refuse_new_queues((name,))
            queue = self._new_queue(name, now)
            self._rest(queue, now)
        if queue.pause is not None:
            self._resume(queue, now)
            self._match_waiters(now)
        return queue

    def _resume(self, queue: NamedQueue, now: int) -> None:
        self._unpause(queue)
        if queue.idle:
            self._rest(queue, now)
        queue.version += 1
        self._to_match[queue.name] = None
        if self.event is not None:
            self.event("resume", queue.name)
        if self.changed is not None:
            self.changed(queue)

    def _unpause(self, queue: NamedQueue) -> None:
        if queue.pause is not None and queue.pause.until is not None:
            self._pauses.drop(queue, queue.pause.until)
        queue.pause = None

    def _refuse_full(self, fresh: Sequence[NewJob], growth: dict[str, int], now: int) -> None:
        """Before anything is made or replaced: the queues must have room for all of `fresh`, and for payloads
        to grow by `growth`. `QueueFull`."""
        for name in dict.fromkeys([*[new.queue for new in fresh], *growth]):
            queue = self.queues.get(name)
            if queue is not None and queue.bounded:
                more = [len(new.payload) for new in fresh if new.queue == name]
                self._refuse_more(queue, len(more), sum(more) + growth.get(name, 0), now)

    def _refuse_change(self, job: Job, change: Change, now: int) -> None:
        """The same for a job that is to have another payload, or to stand in another queue."""
        queue = self.queues.get(job.queue if change.queue is UNSET else change.queue)
        if queue is not None and queue.bounded:
            size = len(job.payload if change.payload is UNSET else change.payload)
            if queue.name != job.queue:
                self._refuse_more(queue, 1, size, now)
            elif size > len(job.payload):
                self._refuse_more(queue, 0, size - len(job.payload), now)

    def _refuse_more(self, queue: NamedQueue, jobs: int, size: int, now: int) -> None:
        """`jobs` more, and payloads of `size` bytes more."""
        most, largest = queue.settings.max_jobs, queue.settings.max_bytes
        over = queue.queued + queue.scheduled + jobs - most if most is not None and jobs else 0
        if over > 0 or (largest is not None and queue.bytes + size > largest):
            rate, name = queue.rates(now)[1], queue.name
            raise QueueFull(
                f"the queue {name} holds as many {'jobs' if over > 0 else 'bytes'} as it may; its consumers "
                f"take {rate:.1f} jobs a second",
                limit=most if over > 0 else largest,
                retry_after=min(max(ceil(max(over, 1) / rate), 1), 60) if rate > 0 else 5,
            )

    # -- many jobs ----------------------------------------------------------------------------------

    def scan(
        self, wanted: Filter, after: int, rising: bool, now: int, most: int, examine: int
    ) -> tuple[list[Job], int | None]:
        """Up to `most` jobs that match, by id, behind `after`; looks at up to `examine` of them. Also the id
        to go on behind; None: that was all."""
        found: list[Job] = []
        wall, last = self.wall(now), after
        jobs = self._by_id.after(after) if rising else self._by_id.before(after)
        for looked, job in enumerate(jobs):
            if looked == examine or len(found) == most:
                return found, last
            last = job.id
            if wanted.matches(job, wall):
                found.append(job)
        return found, None

    def purge_one(self, job: Job, now: int) -> None:
        """Removes a job by hand: it is forgotten. Until `match` nobody who waits gets what that let go."""
        self.transition(job, steps.PURGE, now, self.queues[job.queue])
        if self.outcomes.count:
            self._tell_outcome(job)
