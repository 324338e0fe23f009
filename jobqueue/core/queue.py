"""JobQueue: THE queue object. The verbs, the waiters, and the one door through which a status changes.

Everything happens at once or raises. `now` is monotonic milliseconds and never goes back; wall-clock instants
are `now` plus an offset that `tick` sets. `token` makes lease tokens: at least 96 random bits each, as text.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from msgspec import Struct

from jobqueue.core.job import (
    CANCEL,
    CANCELLED,
    CONCLUDE,
    CONCLUDED,
    ENQUEUE,
    FORGET,
    IN_PROGRESS,
    LEASE,
    QUEUED,
    RELEASE,
    STALE,
    Job,
    Lease,
    More,
    NewJob,
    Status,
    Step,
)  # fmt: skip
from jobqueue.core.lane import Lane
from jobqueue.core.named import NamedQueue
from jobqueue.core.pages import Pages
from jobqueue.core.policy import may_use_lease
from jobqueue.core.retention import Retention
from jobqueue.core.tally import MOVES, Tally
from jobqueue.core.timers import Timers
from jobqueue.core.waiters import Handed, Waiter, Waiters, Want
from jobqueue.errors import IllegalStep, JobFinished, JobForgotten, JobNotFound

# How many jobs, waiters or lanes one slice of work may touch: under 5 ms each.
SLICE = 500
# How many segments of a lane one slice may squeeze.
SLICE_SEGMENTS = 16
# How many jobs one finishing job may push out of memory; the tick does the rest.
FORGET_AT_ONCE = 8
IDLE_QUEUE_MS = 3_600_000


class QueueView(NamedTuple):
    """How one named queue stands. `oldest_age`: milliseconds since its oldest queued job was enqueued."""

    name: str
    jobs: dict[Status, int]
    totals: dict[str, int]
    oldest_age: int | None
    consumers_waiting: int


class Limits(Struct, frozen=True, kw_only=True):
    """The figures that the core keeps to; `Settings` says what they mean. Lengths in milliseconds."""

    lane_segment: int = 1024
    lane_spare: int = 1
    compact_above: float = 0.5
    tick: int = 100
    retain: int = 3_600_000
    retain_jobs: int = 100_000
    retain_bytes: int = 64 << 20
    require_lease: bool = False


class JobQueue:
    """All named queues, and every job in them.

    One counter, `last_number`, gives ids and places: a job that is queued at once stands at its own id.
    Two hooks leave the core: `changed(job)` for whatever must survive a restart, and `event(step, job)` for
    whoever watches.
    """

    def __init__(
        self, token: Callable[[], str], first_id: int = 1, limits: Limits | None = None, wall_offset: int = 0
    ) -> None:
        self.limits = limits or Limits()
        self.first_id = first_id
        self.last_number = first_id - 1
        self.queues: dict[str, NamedQueue] = {}
        self.tally = Tally()
        self.waiters = Waiters()
        self.changed: Callable[[Job], None] | None = None
        self.event: Callable[[Step, Job], None] | None = None
        self.compactions = 0
        self._token = token
        self._by_id = Pages()
        self._leases: Timers[Job] = Timers(self.limits.tick)
        self._waits: Timers[Waiter] = Timers(self.limits.tick)
        self._retention = Retention(self.limits.retain, self.limits.retain_jobs, self.limits.retain_bytes)
        self._crowded = False  # more finished jobs than may be remembered
        self._idle: dict[NamedQueue, None] = {}
        self._holed: dict[Lane, None] = {}  # lanes that may want compaction, now or later
        self._wall_offset = wall_offset
        self._wall_now = (0, wall_offset)

    # -- the verbs ----------------------------------------------------------------------------------

    def enqueue(self, new: NewJob, now: int) -> Job:
        """Makes a job of `new` and puts it at the end of its priority."""
        job = self._put(new, now)
        if self.waiters.count:
            self._match(job.queue, now)
        return job

    def enqueue_many(self, news: Sequence[NewJob], now: int) -> list[Job]:
        """The same for many: all are in before the first is handed to a waiting consumer."""
        jobs = [self._put(new, now) for new in news]
        if self.waiters.count:
            self._match_all({job.queue for job in jobs}, now)
        return jobs

    def dequeue(self, want: Want, now: int) -> list[Handed]:
        """Leases what is there: at most `want.count` jobs, from the first queues that have any."""
        handed: list[Handed] = []
        wanted = want.count or 1
        for name in want.queues:
            queue = self.queues.get(name)
            if queue is not None:
                while queue.queued and len(handed) < wanted:
                    handed.append(self._lease(queue, want, now))
        return handed

    def wait(self, waiter: Waiter) -> None:
        """Keeps `waiter` until there is a job for it, or until its time is up. Dequeue first."""
        self.waiters.add(waiter)
        self._waits.add(waiter, waiter.until)

    def stop_waiting(self, waiter: Waiter) -> None:
        """The consumer went away: it is not to be given anything. `KeyError` if it does not wait."""
        self.waiters.drop(waiter)
        self._waits.drop(waiter, waiter.until)

    def conclude(
        self, id: int, token: str | None, consumer: str | None, result: bytes | None, now: int
    ) -> Job:
        """Finishes a job in progress; who may: `policy.may_use_lease`. Done before by the same caller: the
        job as it stands, a new result ignored."""
        job = self.get(id)
        if may_use_lease(job, CONCLUDE, token, consumer, self.limits.require_lease):
            if result is not None:
                job.more = job.more or More()
                job.more.result = result
            self._move(job, CONCLUDE, now, self.queues[job.queue])
            if self._crowded:
                self._forget_some(now, FORGET_AT_ONCE)
        return job

    def heartbeat(
        self, id: int, token: str | None, consumer: str | None, lease_for: int | None, now: int
    ) -> Job:
        """Extends, or shortens, the lease to `lease_for` (None: as dequeued) from now."""
        job = self.get(id)
        may_use_lease(job, None, token, consumer, self.limits.require_lease)
        lease = job.lease
        assert lease is not None
        self._leases.drop(job, lease.expires)
        lease.length = lease.granted if lease_for is None else lease_for
        lease.expires = now + lease.length
        self._leases.add(job, lease.expires)
        if self.changed is not None:
            self.changed(job)
        return job

    def get(self, id: int) -> Job:
        """`JobNotFound` for an id never given, `JobForgotten` for one no longer remembered."""
        job = self._by_id.get(id)
        if job is not None:
            return job
        if self.first_id <= id <= self.last_number:
            raise JobForgotten("the job finished or was removed, and is no longer remembered")
        raise JobNotFound("this queue has never given that id")

    def cancel(self, id: int, now: int) -> Job:
        """Cancels a job that is not running; asks a running one's consumer, by `cancel_requested`, which its
        next heartbeat is told. Cancelled before: as it stands. `JobFinished` if it was concluded."""
        job = self.get(id)
        if job.status == CONCLUDED:
            raise JobFinished("the job is concluded; it cannot be cancelled", job_status=job.status)
        if job.status == IN_PROGRESS:
            job.more = job.more or More()
            job.more.cancel_requested = True
            if self.changed is not None:
                self.changed(job)
        elif job.status != CANCELLED:
            self._move(job, CANCEL, now, self.queues[job.queue])
            if self._crowded:
                self._forget_some(now, FORGET_AT_ONCE)
        return job

    def give_back(self, handed: Iterable[Handed], now: int) -> None:
        """Jobs that were handed over but never reached their consumer return, uncharged. What has moved on
        since is left alone."""
        for job, lease in handed:
            if job.lease is lease and job.status == IN_PROGRESS:
                self._return(job, RELEASE, now)

    # -- what time brings ---------------------------------------------------------------------------

    def set_wall_offset(self, wall_offset: int) -> None:
        """Wall clock minus monotonic clock, milliseconds."""
        self._wall_offset = wall_offset
        self._wall_now = (0, wall_offset)

    def wall(self, now: int) -> int:
        """The wall-clock instant of a monotonic one. The same integer object within a millisecond, since
        millions of jobs keep theirs."""
        known, wall = self._wall_now
        if known != now:
            wall = now + self._wall_offset
            self._wall_now = (now, wall)
        return wall

    def tick(self, now: int) -> tuple[int, bool]:
        """One slice of what is due: stale jobs, waits that are over, old finished jobs, idle queues. Returns
        how many jobs moved, and whether more is due now. `compact` is the other half of a tick."""
        stale = self._leases.due(now, SLICE)
        for job in stale:
            self._return(job, STALE, now)
        over = self._waits.due(now, SLICE)
        for waiter in over:
            self.stop_waiting(waiter)
            waiter.deliver([])
        forgotten = self._forget_some(now, SLICE)
        self._drop_idle(now)
        return len(stale) + forgotten, bool(stale or over) or forgotten == SLICE

    def compact(self) -> bool:
        """Squeezes one lane that has too many empty slots a little; True if more is to do."""
        for _ in range(min(len(self._holed), SLICE)):
            lane = next(iter(self._holed))
            if lane.wants_compaction:
                if lane.compact(SLICE_SEGMENTS):
                    self.compactions += 1
                return True
            del self._holed[lane]
            if lane.empty > lane.size:
                self._holed[lane] = None  # asked again: what dequeues take raises the share of the holes
        return False

    def end_waits(self) -> None:
        """Answers every waiting consumer with nothing: the queue stops."""
        for name in self.waiters.names():
            while (waiter := self.waiters.first(name)) is not None:
                self.stop_waiting(waiter)
                waiter.deliver([])

    # -- looking ------------------------------------------------------------------------------------

    def view(self, name: str, now: int) -> QueueView:
        """How the queue `name` stands; zeros if there is none, which this does not change."""
        queue = self.queues.get(name)
        tally = queue.tally if queue is not None else Tally()
        oldest = queue.oldest() if queue is not None and queue.queued else None
        age = max(self.wall(now) - oldest.created_at, 0) if oldest is not None else None
        return QueueView(name, tally.jobs(), tally.totals(), age, self.waiters.waiting(name))

    def lane_figures(self) -> tuple[int, int, int]:
        """Lanes, slots in them, empty slots. O(queues)."""
        lanes = [lane for queue in self.queues.values() for lane in queue.lanes]
        return len(lanes), sum(lane.slots for lane in lanes), sum(lane.empty for lane in lanes)

    @property
    def remembered(self) -> int:
        """Finished jobs still remembered."""
        return len(self._retention)

    @property
    def remembered_bytes(self) -> int:
        return self._retention.bytes

    # -- the one door -------------------------------------------------------------------------------

    def _move(self, job: Job, step: Step, now: int, queue: NamedQueue) -> None:
        """Changes the status of `job`, the lane or timer it sits in, and the counts. To be leased, a job has
        been popped from its queue and has its new lease; to be enqueued, it is new."""
        before = job.status if step is not ENQUEUE else None
        move = MOVES.get((before, step))
        if move is None:
            raise IllegalStep(f"job {job.id}: no step {step} from {before}")
        after, number = move
        queue.tally.steps[number] += 1
        self.tally.steps[number] += 1
        if before is IN_PROGRESS:
            lease = job.lease
            assert lease is not None
            self._leases.drop(job, lease.expires)
            lease.ended_by = step
        elif before is QUEUED and step is not LEASE:
            lane = queue.remove(job)
            if lane.empty > lane.size or lane.wants_compaction:
                self._holed[lane] = None
        if after is None:
            self._forget(job, now, queue)
        else:
            job.status = after
            if after is IN_PROGRESS:
                self._leases.add(job, job.lease.expires)  # type: ignore[union-attr]  # see above
            elif after is not QUEUED:
                self._finish(job, now)
            elif before is None:
                self._by_id.add(job)
                queue.size += 1
                queue.append(job)
            else:
                queue.put_back(job)
        if self.changed is not None:
            self.changed(job)
        if self.event is not None:
            self.event(step, job)

    def _finish(self, job: Job, now: int) -> None:
        more = job.more
        if more is None:
            job.more = More(self.wall(now))
        else:
            more.finished_at = self.wall(now)
        if self._retention.add(job, now):
            self._crowded = True

    def _forget(self, job: Job, now: int, queue: NamedQueue) -> None:
        self._by_id.remove(job)
        queue.size -= 1
        if queue.size == 0:
            self._rest(queue, now)

    def _put(self, new: NewJob, now: int) -> Job:
        queue = self.queues.get(new.queue)
        if queue is None:
            queue = self._new_queue(new.queue)
        self.last_number = id = self.last_number + 1
        job = Job(id, queue.name, new.type, new.priority, new.payload, self.wall(now), id)
        self._move(job, ENQUEUE, now, queue)
        return job

    def _lease(self, queue: NamedQueue, want: Want, now: int) -> Handed:
        job = queue.pop()
        length = want.lease_for
        lease = Lease(self._token(), want.consumer, self.wall(now), length, length, now + length)
        job.lease = lease
        job.attempts += 1
        job.leases += 1
        self._move(job, LEASE, now, queue)
        return job, lease

    def _return(self, job: Job, step: Step, now: int) -> None:
        """A job in progress goes back to its place, or is cancelled if that was asked for."""
        queue = self.queues[job.queue]
        if step is RELEASE:
            job.attempts -= 1
        self._move(job, step, now, queue)
        if job.more is not None and job.more.cancel_requested:
            self._move(job, CANCEL, now, queue)
        elif self.waiters.count:
            self._match(job.queue, now)

    def _match(self, name: str, now: int) -> None:
        """Ready jobs and waiting consumers of one queue meet."""
        queue = self.queues[name]
        while queue.queued and (waiter := self.waiters.first(name)) is not None:
            self.stop_waiting(waiter)
            waiter.deliver(self.dequeue(waiter.want, now))

    def _match_all(self, names: Iterable[str], now: int) -> None:
        """The same for several queues at once: of all who wait on one of them, whoever came first."""
        lines = [(first.number, name) for name in names if (first := self.waiters.first(name)) is not None]
        heapify(lines)
        while lines:
            number, name = heappop(lines)
            waiter = self.waiters.first(name)
            if waiter is None or not self.queues[name].queued:
                continue
            if waiter.number == number:
                self.stop_waiting(waiter)
                waiter.deliver(self.dequeue(waiter.want, now))
                waiter = self.waiters.first(name)
            if waiter is not None:
                heappush(lines, (waiter.number, name))

    # -- keeping house ------------------------------------------------------------------------------

    def _new_queue(self, name: str) -> NamedQueue:
        limits = self.limits
        queue = NamedQueue(name, limits.lane_segment, limits.lane_spare, limits.compact_above)
        self.queues[name] = queue
        return queue

    def _forget_some(self, now: int, limit: int) -> int:
        for forgotten in range(limit):
            job = self._retention.over(now)
            if job is None:
                self._crowded = False
                return forgotten
            self._move(job, FORGET, now, self.queues[job.queue])
        return limit

    def _drop_idle(self, now: int) -> None:
        """Queues that have been without jobs for an hour are dropped from the list."""
        for _ in range(min(len(self._idle), SLICE)):
            queue = next(iter(self._idle))
            if queue.idle and now < queue.used_at + IDLE_QUEUE_MS:
                return
            del self._idle[queue]
            if queue.idle:
                if self.waiters.waiting(queue.name):
                    self._rest(queue, now)
                else:
                    del self.queues[queue.name]

    def _rest(self, queue: NamedQueue, now: int) -> None:
        """`queue` has no jobs since `now`; `_idle` stays in the order of that."""
        queue.used_at = now
        self._idle.pop(queue, None)
        self._idle[queue] = None
