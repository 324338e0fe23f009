"""Restoration: a `JobQueue` is filled again with what an earlier run left.

Knows the registry from inside, as `transition` does, since nothing moves here: each record goes to where its
status says. What was written down are wall-clock instants; on the monotonic clock they are told anew.
"""

from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.queue import JobQueue
from jobqueue.model import Job, Options, Pause, QueueSettings, RecordedAnswer
from jobqueue.steps import DEAD, IN_PROGRESS, QUEUED, SCHEDULED, STATUSES, Status

# The least that a lease still runs for: its consumer lived on, and is to find the server again first.
LEAST_LEASE = 30_000
_STATUS: dict[str, Status] = {status: status for status in STATUSES}


class Restoration:
    """Of a fresh `queue`, at `now`. Call `named` for each queue that has settings or a pause, then `job` for
    each job by rising id, then `numbers`, `answered` for each idempotency key, and `end`."""

    def __init__(self, queue: JobQueue, now: int) -> None:
        self._queue = queue
        self._now = now
        self._wall = queue.wall(now)
        self._texts: dict[str, str] = {}
        self._moved: list[Job] = []
        self._keyed: list[tuple[Job, Options]] = []
        self._leased: list[tuple[Job, int]] = []
        self._finished: list[Job] = []

    def numbers(self, first_id: int, last_number: int) -> None:
        self._queue.first_id = first_id
        self._queue.last_number = last_number

    def named(self, name: str, settings: QueueSettings, pause: Pause | None, version: int) -> None:
        named = self._named(name)
        named.configure(settings, 0)
        named.version = version
        named.pause = pause
        if pause is not None and pause.until is not None:
            self._queue._pauses.add(named, pause.until)

    def answered(self, owner: str, key: str, answered: RecordedAnswer) -> None:
        """An idempotency key, the oldest first; its `until` is a wall-clock instant here."""
        until = answered.until - self._wall + self._now
        self._queue.idempotency.restore(
            owner, key, RecordedAnswer(answered.digest, answered.ids, answered.many, until)
        )

    def job(self, job: Job, expires: int | None, due: int | None) -> None:
        """`expires`: when its lease ends, if it is in progress; `due`: when it is ready, if it waits by the
        monotonic clock; both wall-clock milliseconds."""
        queue, now = self._queue, self._now
        named = self._named(job.queue)
        job.queue = named.name
        self._share(job)
        status = job.status = _STATUS[job.status]
        queue._by_id.add(job)
        named.size += 1
        named.counts.before[status] += 1
        queue.counts.before[status] += 1
        if job.extras is not None and job.extras.options is not None:
            if job.extras.options.unique_key is None:
                queue._watch(job, job.extras.options, None, status, named)
            else:
                self._keyed.append((job, job.extras.options))
        if status is QUEUED:
            if job.place == job.id:
                named.append(job)
            else:
                self._moved.append(job)
        elif status is IN_PROGRESS:
            assert expires is not None
            self._leased.append((job, expires - self._wall + now))
            named.enter_again(job)
        elif status is SCHEDULED:
            assert job.extras is not None
            job.extras.due = None if due is None else now + due - self._wall
            queue._schedule(job, named)
        else:
            self._finished.append(job)

    def end(self, now: int) -> None:
        """What has an order of its own gets it: jobs with another place than their id, those that have
        unique keys, or stand in line for them, and finished ones. Leases go on from `now`."""
        queue = self._queue
        for job, options in sorted(self._keyed, key=_claim):
            queue.last_claim = max(queue.last_claim, options.claim_seq)
            queue._watch(job, options, None, job.status, queue.queues[job.queue])
        for job, expires in self._leased:
            lease = job.lease
            assert lease is not None
            lease.expires = now + min(max(expires - now, LEAST_LEASE), lease.length)
            queue._leases.add(job, lease.expires)
        for job in sorted(self._moved, key=_place):
            queue.queues[job.queue].put_back(job)
        for job in sorted(self._finished, key=_finished_at):
            age = queue.queues[job.queue].settings.retain_for
            if job.extras is not None and job.extras.options is not None:
                age = age if job.extras.options.retain_for is None else job.extras.options.retain_for
            finished = self._now - self._wall + _finished_at(job)
            if job.status is DEAD:
                queue._dead.add(job, finished, queue.limits.dead_retain if age is None else age)
            else:
                queue._finished.add(job, finished, age)
        for named in queue.queues.values():
            if named.size == 0:
                queue._rest(named, now)

    def _named(self, name: str) -> NamedQueue:
        return self._queue.queues.get(name) or self._queue._new_queue(name, self._now)

    def _share(self, job: Job) -> None:
        """What many jobs have alike is kept once."""
        texts = self._texts
        job.type = texts.setdefault(job.type, job.type)
        if job.place == job.id:
            job.place = job.id
        lease = job.lease
        if lease is not None and lease.consumer is not None:
            lease.consumer = texts.setdefault(lease.consumer, lease.consumer)


def _place(job: Job) -> int:
    return job.place


def _claim(keyed: tuple[Job, Options]) -> tuple[int, int]:
    """A claim that a journal of before does not number is older."""
    job, options = keyed
    return options.claim_seq, job.place


def _finished_at(job: Job) -> int:
    assert job.extras is not None
    assert job.extras.finished_at is not None
    return job.extras.finished_at
