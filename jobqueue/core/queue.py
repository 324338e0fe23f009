"""JobQueue: THE queue object: the verbs, and the waiters.

Everything happens at once or raises. `now` is monotonic milliseconds and never goes back; wall-clock instants
are `now` plus an offset that `tick` sets. `token` makes lease tokens: at least 96 random bits each, as text;
`chance` gives numbers from 0 to 1 for jitter.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from msgspec import UNSET

from jobqueue.core.job import (
    BURY,
    CANCEL,
    CANCELLED,
    CONCLUDE,
    CONCLUDED,
    DEAD,
    ENQUEUE,
    ENTER,
    ENTER_LATER,
    FAIL,
    FORGET,
    IN_PROGRESS,
    LEASE,
    LEAVE,
    PUT_OFF,
    QUEUED,
    READY,
    REDRIVE,
    RELEASE,
    SCHEDULE,
    STALE,
    WAITING,
    Attempt,
    Change,
    Duplicate,
    Job,
    Lease,
    More,
    NewJob,
    Options,
    Reason,
    Status,
    Step,
    Trail,
)  # fmt: skip
from jobqueue.core.named import NamedQueue
from jobqueue.core.policy import may_use_lease, rest, used_up
from jobqueue.core.registry import Limits, Registry
from jobqueue.core.tally import Tally
from jobqueue.core.timers import Timers
from jobqueue.core.waiters import Handed, OutcomeWaiter, OutcomeWaiters, Waiter, Waiters, Want
from jobqueue.errors import DuplicateJob, JobFinished, NotDead, NotWaiting

# How many jobs, waiters or lanes one slice of work may touch: under 5 ms each.
SLICE = 500
# How many segments of a lane one slice may squeeze.
SLICE_SEGMENTS = 16
# How many jobs one finishing job may push out of memory; the tick does the rest.
FORGET_AT_ONCE = 8
IDLE_QUEUE_MS = 3_600_000
HISTORY = 20


class QueueView(NamedTuple):
    """How one named queue stands. `oldest_age`: milliseconds since its oldest queued job was enqueued."""

    name: str
    jobs: dict[Status, int]
    totals: dict[str, int]
    oldest_age: int | None
    consumers_waiting: int


class JobQueue(Registry):
    """All named queues, and what may be done with the jobs in them."""

    def __init__(
        self,
        token: Callable[[], str],
        first_id: int = 1,
        limits: Limits | None = None,
        wall_offset: int = 0,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        super().__init__(first_id, limits or Limits(), wall_offset)
        self.waiters = Waiters()
        self.compactions = 0
        self._token = token
        self._chance = chance
        self._waits: Timers[Waiter | OutcomeWaiter] = Timers(self.limits.tick)
        self._outcomes = OutcomeWaiters()

    # -- putting in and taking ----------------------------------------------------------------------

    def enqueue(self, new: NewJob, now: int) -> Job | Duplicate:
        """Makes a job of `new` and puts it at the end of its priority, or sets it aside until it is ready.
        Where its unique key is taken: as it asks for, the job that has it, or `DuplicateJob`."""
        if new.options is not None and new.options.unique_key is not None:
            holder = self._holder(new)
            if holder is not None:
                return self._yield_to(holder, new, now)
        job = self._put(new, now)
        if self.waiters.count:
            self._match(job.queue, now)
        return job

    def enqueue_many(self, news: Sequence[NewJob], now: int) -> list[Job | Duplicate]:
        """The same for many, all or nothing: all are in before the first is handed to a waiting consumer."""
        self._refuse_duplicates(news)
        made: list[Job | Duplicate] = []
        queues: set[str] = set()
        for new in news:
            holder = self._holder(new) if new.options is not None else None
            if holder is not None:
                made.append(self._yield_to(holder, new, now))
            else:
                made.append(self._put(new, now))
                queues.add(new.queue)
        if self.waiters.count:
            self._match_all(queues, now)
        return made

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

    def wait_for_outcome(self, waiter: OutcomeWaiter) -> None:
        """Keeps `waiter` until its job, which is not finished, is; or until its time is up."""
        self._outcomes.add(waiter)
        self._waits.add(waiter, waiter.until)

    def stop_waiting(self, waiter: Waiter | OutcomeWaiter) -> None:
        """Who waited went away: it is not to be given anything. `KeyError` if it does not wait."""
        if isinstance(waiter, Waiter):
            self.waiters.drop(waiter)
        else:
            self._outcomes.drop(waiter)
        self._waits.drop(waiter, waiter.until)

    # -- finishing: under a lease -------------------------------------------------------------------

    def conclude(
        self, id: int, token: str | None, consumer: str | None, result: bytes | None, now: int
    ) -> Job:
        """Finishes a job in progress; who may: `policy.may_use_lease`. Done before by the same caller: the
        job as it stands, a new result ignored."""
        job = self.get(id)
        if may_use_lease(job, _CONCLUDES, token, consumer, self.limits.require_lease):
            if result is not None:
                job.more = job.more or More()
                job.more.result = result
            self._move(job, CONCLUDE, now, self.queues[job.queue])
            if self._crowded:
                self._forget_some(now, FORGET_AT_ONCE)
        return job

    def release(self, id: int, token: str | None, consumer: str | None, delay: int, now: int) -> Job:
        """Gives a job in progress back, uncharged; with `delay` (milliseconds) it rests first. Done before
        by the same caller: the job as it stands."""
        job = self.get(id)
        if may_use_lease(job, _RELEASES, token, consumer, self.limits.require_lease):
            self._return(job, PUT_OFF if delay else RELEASE, now, delay)
        return job

    def fail(
        self,
        id: int,
        token: str | None,
        consumer: str | None,
        error: bytes | None,
        retry: bool,
        retry_in: int | None,
        now: int,
    ) -> Job:
        """The attempt went wrong: the job rests for `retry_in` (milliseconds; None: by its backoff) and is
        ready again, or is dead if it had all its attempts or is not to be retried. `error` is JSON. Done
        before by the same caller: the job as it stands."""
        job = self.get(id)
        if not may_use_lease(job, _FAILS, token, consumer, self.limits.require_lease):
            return job
        queue = self.queues[job.queue]
        options = _options(job)
        trail = _trail(job)
        trail.error = error
        if _cancel_asked(job):
            self._put_off(job, FAIL, now, queue, 0)
        elif not retry:
            self._bury(job, "no_retry", now, queue)
        elif used_up(job, options, self.limits.max_attempts):
            self._bury(job, "attempts", now, queue)
        else:
            if retry_in is None:
                backoff = (options.backoff if options is not None else None) or self.limits.backoff
                retry_in = rest(backoff, job.attempts, self._chance())
            self._put_off(job, FAIL, now, queue, retry_in)
        return job

    def heartbeat(
        self,
        id: int,
        token: str | None,
        consumer: str | None,
        lease_for: int | None,
        now: int,
        progress: int | None = None,
        message: str | None = None,
    ) -> Job:
        """Extends, or shortens, the lease to `lease_for` (None: as dequeued) from now."""
        job = self.get(id)
        may_use_lease(job, (), token, consumer, self.limits.require_lease)
        lease = job.lease
        assert lease is not None
        self._leases.drop(job, lease.expires)
        lease.length = lease.granted if lease_for is None else lease_for
        lease.expires = now + lease.length
        self._leases.add(job, lease.expires)
        if progress is not None or message is not None:
            trail = _trail(job)
            trail.progress = trail.progress if progress is None else progress
            trail.message = trail.message if message is None else message
        if self.changed is not None:
            self.changed(job)
        return job

    # -- from outside -------------------------------------------------------------------------------

    def cancel(self, id: int, now: int, force: bool = False) -> Job:
        """Cancels a job that is not running; asks a running one's consumer, by `cancel_requested`, which its
        next heartbeat is told, or with `force` takes it away. Cancelled before: as it stands. `JobFinished`
        if it was concluded."""
        job = self.get(id)
        if job.status == CONCLUDED:
            raise JobFinished("the job is concluded; it cannot be cancelled", job_status=job.status)
        if job.status == IN_PROGRESS and not force:
            job.more = job.more or More()
            job.more.cancel_requested = True
            if self.changed is not None:
                self.changed(job)
        elif job.status != CANCELLED:
            self._move(job, CANCEL, now, self.queues[job.queue])
            if self._crowded:
                self._forget_some(now, FORGET_AT_ONCE)
        return job

    def change(self, id: int, change: Change, now: int) -> Job:
        """Changes a job that waits; another queue, priority or time puts it at the end. `NotWaiting`."""
        job = self.get(id)
        if job.status not in WAITING:
            raise NotWaiting(
                f"the job is {job.status}; only one that is queued or scheduled can be changed",
                job_status=job.status,
            )
        self._change(job, change, now)
        return job

    def redrive(self, id: int, now: int) -> Job:
        """Puts a dead job back to work: attempts from 0, at the end of its priority. `NotDead`."""
        job = self.get(id)
        if job.status != DEAD:
            raise NotDead(f"the job is {job.status}; only a dead one is redriven", job_status=job.status)
        job.attempts = 0
        _trail(job).reason = None
        more = job.more
        assert more is not None
        more.finished_at = None
        if more.options is not None:
            more.options.expires_at = None
        self._move(job, REDRIVE, now, self.queues[job.queue])
        if self.waiters.count:
            self._match(job.queue, now)
        return job

    def give_back(self, handed: Iterable[Handed], now: int) -> None:
        """Jobs that were handed over but never reached their consumer return, uncharged. What has moved on
        since is left alone."""
        for job, lease in handed:
            if job.lease is lease and job.status == IN_PROGRESS:
                self._return(job, RELEASE, now)

    # -- what time brings ---------------------------------------------------------------------------

    def tick(self, now: int) -> tuple[int, bool]:
        """One slice of what is due: stale jobs, delayed jobs, jobs that expired, waits that are over, old
        finished jobs, idle queues. Returns how many jobs moved, and whether more is due now. `compact` is the
        other half of a tick."""
        wall = now + self._wall_offset
        stale = self._leases.due(now, SLICE)
        for job in stale:
            self._return(job, STALE, now)
        expired = self._expiries.due(wall, SLICE)
        for job in expired:
            self._bury(job, "expired", now, self.queues[job.queue])
        ready = self._delays.due(now, SLICE) + self._runs.due(wall, SLICE)
        for job in ready:
            self._move(job, READY, now, self.queues[job.queue])
        if ready and self.waiters.count:
            self._match_all({job.queue for job in ready}, now)
        over = self._waits.due(now, SLICE)
        for waiter in over:
            self._time_up(waiter)
        forgotten = self._forget_some(now, SLICE)
        self._drop_idle(now)
        moved = len(stale) + len(expired) + len(ready) + forgotten
        return moved, bool(stale or expired or ready or over) or forgotten == SLICE

    def _time_up(self, waiter: Waiter | OutcomeWaiter) -> None:
        self.stop_waiting(waiter)
        if isinstance(waiter, Waiter):
            waiter.deliver([])
        else:
            waiter.deliver(waiter.job)

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
        """Answers everybody who waits with what there is: the queue stops."""
        for name in self.waiters.names():
            while (waiter := self.waiters.first(name)) is not None:
                self._time_up(waiter)
        for watcher in self._outcomes.all():
            self._time_up(watcher)

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

    # -- unique keys and changes --------------------------------------------------------------------

    def _holder(self, new: NewJob) -> Job | None:
        """The job that has the unique key which `new` wants."""
        key = new.options.unique_key if new.options is not None else None
        queue = self.queues.get(new.queue) if key is not None else None
        return queue.unique.get(key) if queue is not None and key is not None else None

    def _yield_to(self, holder: Job, new: NewJob, now: int) -> Duplicate:
        options = new.options
        assert options is not None
        if options.on_conflict == "reject":
            raise _duplicate(holder.id)
        if options.on_conflict == "replace" and holder.status in WAITING and holder.leases == 0:
            at = new.run_at if new.run_at is not None else UNSET
            again = Change(payload=new.payload, priority=new.priority, delay=new.delay or None, run_at=at)
            self._change(holder, again, now)
        return Duplicate(holder)

    def _refuse_duplicates(self, news: Sequence[NewJob]) -> None:
        """Before anything is made: one that wants to be refused where its key is taken refuses all."""
        wanted: set[tuple[str, str]] = set()
        for index, new in enumerate(news):
            options = new.options
            if options is None or options.unique_key is None:
                continue
            holder = self._holder(new)
            slot = (new.queue, options.unique_key)
            if options.on_conflict == "reject" and (holder is not None or slot in wanted):
                refusal = _duplicate(holder.id if holder is not None else None)
                refusal.facts["index"] = index
                raise refusal
            wanted.add(slot)

    def _change(self, job: Job, change: Change, now: int) -> None:
        queue = change.queue if change.queue is not UNSET else job.queue
        priority = change.priority if change.priority is not UNSET else job.priority
        more = job.more
        retimed = change.delay is not UNSET or change.run_at is not UNSET
        expiring = change.expires_in is not UNSET
        moved = queue != job.queue or priority != job.priority
        if retimed and not moved and not (change.delay or change.run_at) and job.status is QUEUED:
            retimed = False  # "at once", and it is
        away = moved or retimed or expiring
        if away:
            due, run_at = (more.due, more.run_at) if more is not None else (None, None)
            self._move(job, LEAVE, now, self.queues[job.queue])
            if retimed:
                due, run_at = self._when(change, now)
            job.place = 0
        else:
            due = run_at = None
        job.queue, job.priority = queue, priority
        if change.type is not UNSET:
            job.type = change.type
        if change.payload is not UNSET:
            job.payload = change.payload
        self._change_options(job, change, now)
        if away:
            target = self.queues.get(queue) or self._new_queue(queue)
            more = job.more = job.more or More()
            more.due, more.run_at = due, run_at
            self._move(job, ENTER if run_at is None else ENTER_LATER, now, target)
            if self.waiters.count:
                self._match(queue, now)
        else:
            job.version += 1
            if self.changed is not None:
                self.changed(job)

    def _when(self, change: Change, now: int) -> tuple[int | None, int | None]:
        """Due on the monotonic clock, and `run_at`, of a changed time; None: at once."""
        if change.delay:
            return now + change.delay, self.wall(now) + change.delay
        if change.run_at is not UNSET and change.run_at is not None and change.run_at > self.wall(now):
            return None, change.run_at
        return None, None

    def _change_options(self, job: Job, change: Change, now: int) -> None:
        given = {name: value for name in _CHANGEABLE if (value := getattr(change, name)) is not UNSET}
        if not given and change.expires_in is UNSET:
            return
        more = job.more = job.more or More()
        options = more.options = more.options or Options()
        for name, value in given.items():
            setattr(options, name, value)
        if change.expires_in is not UNSET:
            options.expires_at = None if change.expires_in is None else self.wall(now) + change.expires_in

    # -- moves that several verbs make --------------------------------------------------------------

    def _put(self, new: NewJob, now: int) -> Job:
        queue = self.queues.get(new.queue)
        if queue is None:
            queue = self._new_queue(new.queue)
        self.last_number = id = self.last_number + 1
        job = Job(id, queue.name, new.type, new.priority, new.payload, self.wall(now), id)
        if new.options is not None or new.delay or new.run_at is not None or new.expires_in is not None:
            self._dress(job, new, now)
        if job.more is not None and job.more.run_at is not None:
            job.place = 0
            self._move(job, SCHEDULE, now, queue)
        else:
            self._move(job, ENQUEUE, now, queue)
        return job

    def _dress(self, job: Job, new: NewJob, now: int) -> None:
        """Gives a new job what most jobs do not have."""
        more = job.more = More(options=new.options)
        if new.expires_in is not None:
            options = more.options = more.options or Options()
            options.expires_at = self.wall(now) + new.expires_in
        if new.delay:
            more.due, more.run_at = now + new.delay, self.wall(now) + new.delay
        elif new.run_at is not None and new.run_at > self.wall(now):
            more.run_at = new.run_at

    def _lease(self, queue: NamedQueue, want: Want, now: int) -> Handed:
        job = queue.pop()
        job.attempts = attempt = job.attempts + 1
        job.leases += 1
        length = want.lease_for
        if length is None:
            length = self.limits.lease
            if job.more is not None and job.more.options is not None:
                length = job.more.options.lease_for or length
        if job.lease is not None:
            _remember_attempt(job)
        lease = Lease(self._token(), want.consumer, self.wall(now), length, length, now + length, attempt)
        job.lease = lease
        self._move(job, LEASE, now, queue)
        return job, lease

    def _return(self, job: Job, step: Step, now: int, delay: int = 0) -> None:
        """A job in progress goes back to its place, or rests first; or is cancelled if that was asked for;
        or, stale after its last attempt, is dead."""
        queue = self.queues[job.queue]
        if step is not STALE:
            job.attempts -= 1
        if step is PUT_OFF:
            self._put_off(job, step, now, queue, delay)
            return
        self._move(job, step, now, queue)
        if _cancel_asked(job):
            self._move(job, CANCEL, now, queue)
        elif step is STALE and used_up(job, _options(job), self.limits.max_attempts):
            self._bury(job, "attempts", now, queue)
        elif self.waiters.count:
            self._match(job.queue, now)

    def _put_off(self, job: Job, step: Step, now: int, queue: NamedQueue, delay: int) -> None:
        """A job in progress rests for `delay`; without one it is ready at once."""
        more = job.more = job.more or More()
        more.due, more.run_at = now + delay, self.wall(now) + delay
        self._move(job, step, now, queue)
        if more.cancel_requested:
            self._move(job, CANCEL, now, queue)
        elif not delay:
            self._move(job, READY, now, queue)
            if self.waiters.count:
                self._match(job.queue, now)

    def _bury(self, job: Job, reason: Reason, now: int, queue: NamedQueue) -> None:
        _trail(job).reason = reason
        self._move(job, BURY, now, queue)
        if self._crowded:
            self._forget_some(now, FORGET_AT_ONCE)

    def _finish(self, job: Job, now: int) -> None:
        super()._finish(job, now)
        if self._outcomes.count:
            for waiter in self._outcomes.on(job):
                self.stop_waiting(waiter)
                waiter.deliver(job)

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

    def _forget_some(self, now: int, limit: int) -> int:
        for forgotten in range(limit):
            job = self._finished.over(now) or self._dead.over(now)
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


# The steps by which each verb ends a lease.
_CONCLUDES: tuple[Step, ...] = (CONCLUDE,)
_RELEASES: tuple[Step, ...] = (RELEASE, PUT_OFF)
_FAILS: tuple[Step, ...] = (FAIL, BURY)


# Options that a change sets as they are given; None: as the queue has it.
_CHANGEABLE = ("lease_for", "max_attempts", "backoff", "retain_for", "tags", "headers")


def _duplicate(id: int | None) -> DuplicateJob:
    which = f"job {id} has" if id is not None else "another job of this request has"
    facts = {"job_id": id} if id is not None else {}
    return DuplicateJob(f"{which} the same unique_key in this queue", **facts)


def _options(job: Job) -> Options | None:
    return job.more.options if job.more is not None else None


def _cancel_asked(job: Job) -> bool:
    return job.more is not None and job.more.cancel_requested


def _trail(job: Job) -> Trail:
    more = job.more = job.more or More()
    trail = more.trail = more.trail or Trail()
    return trail


def _remember_attempt(job: Job) -> None:
    """The lease that the job had until now becomes a line of its history."""
    lease = job.lease
    assert lease is not None
    trail = _trail(job)
    error = trail.error if lease.ended_by in _FAILS else None
    line = Attempt(lease.attempt, lease.consumer, lease.started_at, lease.ended_at, lease.ended_by, error)
    trail.history = (*trail.history[1 - HISTORY :], line)
    trail.progress = trail.message = None
