"""JobQueue: THE queue object: the verbs.

Everything happens at once or raises. `now` is monotonic milliseconds and never goes back; wall-clock instants
are `now` plus an offset that is set at each tick.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from msgspec import UNSET

from jobqueue import steps
from jobqueue.core.intake import Intake
from jobqueue.core.limiter import Limiter
from jobqueue.core.moves import CONCLUDES, FAILS, RELEASES, cancel_asked, options_of, trace_of
from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.policy import attempts_exhausted, backoff_delay, may_use_lease
from jobqueue.core.timers import Timers
from jobqueue.core.waiters import OutcomeWaiter, Waiter
from jobqueue.errors import JobFinished, NotDead, NotWaiting
from jobqueue.model import Change, Delivery, ExistingJob, Job, JobExtras, NewJob, QueueView
from jobqueue.steps import CANCELLED, CONCLUDED, DEAD, IN_PROGRESS, WAITING

T = TypeVar("T", bound=Hashable)

# How many jobs, waiters or lanes one slice of work may touch: under 5 ms each.
SLICE = 250
# How many segments of a lane one slice may squeeze.
SLICE_SEGMENTS = 8
IDLE_QUEUE_MS = 3_600_000
# For how long waits that are over may be held back by jobs that come due.
HELD_BACK_MS = 500


class JobQueue(Intake):
    """All named queues, and what may be done with the jobs in them."""

    __slots__ = ()

    # -- putting in and taking ----------------------------------------------------------------------

    def enqueue(self, new: NewJob, now: int) -> Job | ExistingJob:
        """Makes a job of `new` and puts it at the end of its priority, or sets it aside until it is ready.
        Where its unique key is taken: as it asks for, the job that has it, or `DuplicateJob`. `QueueFull`."""
        if new.options is not None and new.options.unique_key is not None:
            holder = self._holder(new)
            if holder is not None:
                if self.queues[holder.queue].bounded:
                    self._refuse_full([], self._growth([new]), now)
                return self._after_matching(self.resolve_conflict(holder, new, now), now)
        if self.last_number >= self._admitted_until:
            self._refuse_beyond(1)
        queue = self.queues.get(new.queue)
        if queue is None:
            self._refuse_new_queues((new.queue,))
            queue = self._new_queue(new.queue, now)
        elif queue.bounded:
            self._refuse_full([new], {}, now)
        job = self._put(new, queue, now)
        if self._to_match:
            self._match_waiters(now)
        return job

    def enqueue_many(self, news: Sequence[NewJob], now: int) -> list[Job | ExistingJob]:
        """The same for many, all or nothing: all are in before the first is handed to a waiting consumer."""
        if all(new.options is None for new in news):
            fresh, keyed = news, False
        else:
            fresh, keyed = self._refuse_duplicates(news), True
        if fresh and self.last_number + len(fresh) > self._admitted_until:
            self._refuse_beyond(len(fresh))
        if any(queue.bounded for new in news if (queue := self.queues.get(new.queue)) is not None):
            self._refuse_full(fresh, self._growth(news) if keyed else {}, now)
        if names := {new.queue for new in fresh}.difference(self.queues):
            self._refuse_new_queues(names)
        made: list[Job | ExistingJob] = []
        for new in news:
            if keyed and (holder := self._holder(new)) is not None:
                made.append(self.resolve_conflict(holder, new, now))
            else:
                queue = self.queues.get(new.queue) or self._new_queue(new.queue, now)
                made.append(self._put(new, queue, now))
        return self._after_matching(made, now)

    # -- finishing: under a lease -------------------------------------------------------------------

    def conclude(
        self, id: int, token: str | None, consumer: str | None, result: bytes | None, now: int
    ) -> Job:
        """Finishes a job in progress; who may: `policy.may_use_lease`. Done before by the same caller: the
        job as it stands, a new result ignored."""
        job = self.get(id)
        if may_use_lease(job, CONCLUDES, token, consumer, self.limits.require_lease):
            if result is not None:
                job.extras = job.extras or JobExtras()
                job.extras.result = result
            queue = self.queues[job.queue]
            self.transition(job, steps.CONCLUDE, now, queue)
            if not id & queue.runs.skip and (lease := job.lease) is not None and lease.ended_at is not None:
                queue.runs.add(lease.ended_at - lease.started_at)
            if self._over_retention:
                self._make_room(now)
            if self._to_match:
                self._match_waiters(now)
        return job

    def release(self, id: int, token: str | None, consumer: str | None, delay: int, now: int) -> Job:
        """Gives a job in progress back, uncharged; with `delay` (milliseconds) it rests first. Done before
        by the same caller: the job as it stands."""
        job = self.get(id)
        if may_use_lease(job, RELEASES, token, consumer, self.limits.require_lease):
            self._return(job, steps.PUT_OFF if delay else steps.RELEASE, now, delay)
        return self._after_matching(job, now)

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
        if not may_use_lease(job, FAILS, token, consumer, self.limits.require_lease):
            return job
        queue = self.queues[job.queue]
        options = options_of(job)
        trace = trace_of(job)
        trace.error = error
        if cancel_asked(job):
            self._put_off(job, steps.FAIL, now, queue, 0)
        elif not retry:
            self._bury(job, "no_retry", now, queue)
        elif attempts_exhausted(job, options, self._max_attempts(queue)):
            self._bury(job, "attempts", now, queue)
        else:
            if retry_in is None:
                backoff = (
                    (options.backoff if options is not None else None)
                    or queue.settings.backoff
                    or self.limits.backoff
                )
                retry_in = backoff_delay(backoff, job.attempts, self._chance())
            self._put_off(job, steps.FAIL, now, queue, retry_in)
        return self._after_matching(job, now)

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
            trace = trace_of(job)
            trace.progress = trace.progress if progress is None else progress
            trace.message = trace.message if message is None else message
        if self.changed is not None:
            self.changed(job)
        return self._after_matching(job, now)

    # -- from outside -------------------------------------------------------------------------------

    def cancel(self, id: int, now: int, force: bool = False) -> Job:
        """Cancels a job that is not running; asks a running one's consumer, by `cancel_requested`, which its
        next heartbeat is told, or with `force` takes it away. Cancelled before: as it stands. `JobFinished`
        if it was concluded."""
        job = self.get(id)
        if job.status == CONCLUDED:
            raise JobFinished("the job is concluded; it cannot be cancelled", job_status=job.status)
        if job.status == IN_PROGRESS and not force:
            job.extras = job.extras or JobExtras()
            job.extras.cancel_requested = True
            if self.changed is not None:
                self.changed(job)
        elif job.status != CANCELLED:
            self.transition(job, steps.CANCEL, now, self.queues[job.queue])
            if self._over_retention:
                self._make_room(now)
        return self._after_matching(job, now)

    def change(self, id: int, change: Change, now: int) -> Job:
        """Changes a job that waits; another queue or priority puts it at the end there. `NotWaiting`,
        `QueueFull`."""
        job = self.get(id)
        if job.status not in WAITING:
            raise NotWaiting(
                f"the job is {job.status}; only one that is queued or scheduled can be changed",
                job_status=job.status,
            )
        if (change.queue is not UNSET and change.queue != job.queue) or change.payload is not UNSET:
            self._refuse_change(job, change, now)
        self._change(job, change, now)
        return self._after_matching(job, now)

    def redrive(self, id: int, now: int) -> Job:
        return self._after_matching(self.redrive_one(id, now), now)

    def redrive_one(self, id: int, now: int) -> Job:
        """Until `match` nobody who waits gets it."""
        """Puts a dead job back to work: attempts from 0, at the end of its priority. `NotDead`."""
        job = self.get(id)
        if job.status != DEAD:
            raise NotDead(f"the job is {job.status}; only a dead one is redriven", job_status=job.status)
        job.attempts = 0
        trace_of(job).reason = None
        more = job.extras
        assert more is not None
        more.finished_at = None
        if more.options is not None:
            more.options.expires_at = None
        self.transition(job, steps.REDRIVE, now, self.queues[job.queue])
        return job

    def give_back(self, handed: Iterable[Delivery], now: int) -> None:
        """Jobs that were handed over but never reached their consumer return, uncharged. What has moved on
        since is left alone."""
        for job, lease in handed:
            if job.lease is lease and lease.ended_by is None:
                self._return(job, steps.RELEASE, now)
        self._after_matching(None, now)

    # -- what time brings ---------------------------------------------------------------------------

    def tick(self, now: int) -> tuple[int, bool]:
        """One slice of what is due: stale jobs, delayed jobs, jobs that expired, waits that are over, old
        finished jobs, idle queues. Returns how many jobs moved, and whether more is due now. `compact` is the
        other half of a tick."""
        wall = now + self._wall_offset
        stale = self._run_due(self._leases, now, lambda job: self._return(job, steps.STALE, now))
        expired = self._run_due(self._expiries, wall, lambda job: self._expire(job, now))
        ready = self._run_due(self._delays, now, lambda job: self._make_ready(job, now))
        ready += self._run_due(self._runs, wall, lambda job: self._make_ready(job, now))
        resumed = self._run_due(self._pauses, wall, lambda queue: self._resume(queue, now))
        woken = self._run_due(self._gates, now, lambda gate: self._wake(gate, now))
        self._after_matching(None, now)
        # While slices bring jobs back nobody is sent away, the next one may be for them; up to a point.
        busy = bool(stale or expired or ready or resumed or woken)
        self._backlog_since = (self._backlog_since or now) if busy else 0
        held_back = busy and now - self._backlog_since <= HELD_BACK_MS
        over = 0 if held_back else self._run_due(self._waits, now, self._time_up)
        forgotten = self._forget_some(now, SLICE)
        self.idempotency.forget_old(now, SLICE)
        self._drop_idle(now)
        return stale + expired + ready + forgotten, bool(busy or over) or forgotten == SLICE

    def _run_due(self, timers: Timers[T], at: int, act: Callable[[T], None]) -> int:
        """A slice of what is due at `at`. Where `act` fails, that item is let go: all later ticks would fail
        there again, and never get to the rest."""
        due = timers.due(at, SLICE)
        for item in due:
            try:
                act(item)
            except Exception:
                timers.let_go(item, at)
                raise
        return len(due)

    def _expire(self, job: Job, now: int) -> None:
        self._bury(job, "expired", now, self.queues[job.queue])

    def _make_ready(self, job: Job, now: int) -> None:
        self.transition(job, steps.READY, now, self.queues[job.queue])

    def _wake(self, gate: Limiter, now: int) -> None:
        assert gate.wakes_at is not None
        self._gates.drop(gate, gate.wakes_at)
        # The queue may have been dropped since, and made anew: limits that are unset leave their timers.
        if (queue := self.queues.get(gate.queue)) is not None:
            queue.woken(gate, now)
            self._to_match[gate.queue] = None

    def _time_up(self, waiter: Waiter | OutcomeWaiter) -> None:
        self.stop_waiting(waiter)
        if isinstance(waiter, Waiter):
            for name in waiter.request.queues:
                if (queue := self.queues.get(name)) is not None:
                    queue.asked_at = waiter.until
            waiter.deliver([])
        else:
            waiter.deliver(waiter.job)

    def compact(self) -> bool:
        """Squeezes one lane that has too many empty slots a little; True if more is to do."""
        for _ in range(min(len(self._to_compact), SLICE)):
            lane = next(iter(self._to_compact))
            if lane.wants_compaction:
                if lane.compact(SLICE_SEGMENTS):
                    self.compactions += 1
                return True
            del self._to_compact[lane]
            if lane.empty > lane.size:
                self._to_compact[lane] = None  # asked again: what dequeues take raises the share of the holes
        return False

    def end_waits(self) -> None:
        """Answers everybody who waits with what there is: the queue stops."""
        for name in self.waiters.names():
            while (waiter := self.waiters.first(name)) is not None:
                self._time_up(waiter)
        for watcher in self.outcomes.all():
            self._time_up(watcher)

    # -- looking ------------------------------------------------------------------------------------

    def view(self, name: str, now: int) -> QueueView:
        """How the queue `name` stands; zeros if there is none, which this does not change."""
        queue = self.queues.get(name) or NamedQueue(name, (16, 0, 0.5), now=now)
        oldest = queue.oldest()
        return QueueView(
            name=name,
            jobs=queue.counts.jobs(),
            totals=queue.counts.totals(),
            oldest_age=max(self.wall(now) - oldest.created_at, 0) if oldest is not None else None,
            consumers_waiting=self.waiters.waiting(name),
            settings=queue.settings,
            pause=queue.pause,
            version=queue.version,
            by_priority=queue.by_priority(),
            rates=queue.rates(now),
            waits=queue.waits,
            runs=queue.runs,
        )

    def lane_figures(self) -> tuple[int, int, int]:
        """Lanes, slots in them, empty slots. O(lanes)."""
        lanes = slots = empty = 0
        for queue in self.queues.values():
            more = queue.lane_figures()
            lanes, slots, empty = lanes + more[0], slots + more[1], empty + more[2]
        return lanes, slots, empty

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
