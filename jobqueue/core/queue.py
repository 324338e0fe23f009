"""JobQueue: the verbs of the queue, and the work that becomes due as time passes.

Every verb acts at once or raises. It first checks, then changes the state, and then matches waiting consumers
with the jobs that became ready. `now` is monotonic milliseconds and never decreases; wall-clock times are
`now` plus an offset that the engine sets before each tick.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, TypeVar

from msgspec import UNSET

from jobqueue import steps
from jobqueue.core import admin, transfer
from jobqueue.core.admission import (
    add_job,
    check_capacity,
    check_capacity_for_change,
    check_job_limit,
    check_queue_limit,
)
from jobqueue.core.bulk import forget_attempts, move_job
from jobqueue.core.clock_steps import follow_clock
from jobqueue.core.dedup import replacement_growth, resolve_conflict, unique_owner, without_duplicates
from jobqueue.core.edit import change_job
from jobqueue.core.forgetting import forget_due, make_room
from jobqueue.core.leasing import (
    bury,
    cancel_requested,
    give_up_place,
    max_attempts,
    options_of,
    put_off,
    return_job,
    set_end,
    stale_before,
    trace_of,
)
from jobqueue.core.limiter import Limiter
from jobqueue.core.limits import Limits
from jobqueue.core.matching import match_before_dequeue, match_waiters, stop_waiting, take, take_job
from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.policy import attempts_exhausted, backoff_delay, may_use_lease
from jobqueue.core.state import QueueState
from jobqueue.core.timers import Timers
from jobqueue.core.waiters import OutcomeWaiter, Waiter
from jobqueue.errors import JobFinished, NotDead, NotWaiting
from jobqueue.model import (
    Change,
    Delivery,
    DequeueRequest,
    ExistingJob,
    Filter,
    ImportedHistory,
    Job,
    JobExtras,
    LeaseClaim,
    NewJob,
    QueueView,
)
from jobqueue.steps import (
    CANCELLED,
    CONCLUDED,
    CONCLUDES,
    DEAD,
    FAILS,
    IN_PROGRESS,
    RELEASES,
    WAITING,
)

T = TypeVar("T", bound=Hashable)

# How many jobs, waiters or lanes one slice of work may touch, so that it takes less than 5 ms.
SLICE: Final = 250
# How many segments of a lane one slice may compact.
SLICE_SEGMENTS: Final = 8
# How long a queue without jobs is kept.
IDLE_QUEUE_MS: Final = 3_600_000
# How long waits that are over may be held open while due jobs keep coming.
HELD_BACK_MS: Final = 500


class JobQueue:
    """All named queues and their jobs.

    `new_token` makes lease tokens as text, with at least 95 random bits each. `chance` returns numbers from 0
    to 1, for the jitter of a backoff.
    """

    __slots__ = ("_backlog_since", "_chance", "state")

    def __init__(
        self,
        new_token: Callable[[], str],
        first_id: int = 1,
        limits: Limits | None = None,
        wall_offset: int = 0,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        self.state = QueueState(first_id, limits or Limits(), wall_offset, new_token)
        self._chance = chance
        # When the current run of slices with due work began; 0: the last slice had none.
        self._backlog_since = 0

    # -- adding jobs --------------------------------------------------------------------------------

    def enqueue(self, new: NewJob, now: int) -> Job | ExistingJob:
        """Makes a job of `new`: queued at the end of its priority, or scheduled. If its unique key is taken,
        returns the existing job or raises `DuplicateJob`, as `new` asks for. Raises `QueueFull`."""
        state = self.state
        if new.options is not None and new.options.unique_key is not None:
            owner = unique_owner(state, new)
            if owner is not None:
                if state.queues[owner.queue].bounded:
                    check_capacity(state, [], replacement_growth(state, [new]), now)
                existing = resolve_conflict(state, owner, new, now)
                self.match(now)
                return existing
        if state.last_number >= state.admitted_until:
            check_job_limit(state, 1)
        queue = state.queues.get(new.queue)
        if queue is None:
            check_queue_limit(state, (new.queue,))
            queue = state.new_queue(new.queue, now)
        elif queue.bounded:
            check_capacity(state, [new], {}, now)
        job = add_job(state, new, queue, now)
        if state.to_match:
            match_waiters(state, now)
        return job

    def enqueue_many(self, news: Sequence[NewJob], now: int) -> list[Job | ExistingJob]:
        """Enqueues all of `news`, or raises and enqueues none. All are added before the first one is leased
        to a waiting consumer."""
        state = self.state
        if all(new.options is None for new in news):
            fresh, may_conflict = news, False
        else:
            fresh, may_conflict = without_duplicates(state, news), True
        if fresh and state.last_number + len(fresh) > state.admitted_until:
            check_job_limit(state, len(fresh))
        if any(queue.bounded for new in news if (queue := state.queues.get(new.queue)) is not None):
            check_capacity(state, fresh, replacement_growth(state, news) if may_conflict else {}, now)
        names = {new.queue for new in fresh}
        if names.difference(state.queues):
            check_queue_limit(state, names)
        made: list[Job | ExistingJob] = []
        for new in news:
            if may_conflict and (owner := unique_owner(state, new)) is not None:
                made.append(resolve_conflict(state, owner, new, now))
            else:
                queue = state.queues.get(new.queue) or state.new_queue(new.queue, now)
                made.append(add_job(state, new, queue, now))
        self.match(now)
        return made

    def import_job(self, new: NewJob, past: ImportedHistory, now: int) -> Job | ExistingJob:
        """Makes a job as `enqueue` does, with a new id, and gives it its past. A dead job stays dead, in the
        queue in which it died. Returns the existing job if the unique key is taken, whatever `new` asks for.
        Raises `QueueFull`."""
        made = transfer.import_job(self.state, new, past, now)
        self.match(now)
        return made

    # -- leasing ------------------------------------------------------------------------------------

    def dequeue(self, request: DequeueRequest, now: int) -> list[Delivery]:
        """Leases up to `request.count` ready jobs, from the queues in the order in which they are named."""
        state = self.state
        if state.waiters.count:
            match_before_dequeue(state, request.queues, now)
        return take(state, request, now)

    def dequeue_job(self, id: int, request: DequeueRequest, now: int) -> list[Delivery]:
        """Leases one job, which is queued or scheduled, before its turn. Only its lease is read of `request`.
        Returns an empty list while its queue is paused, or a limit or the order of its key keeps it waiting.
        Raises `NotWaiting`."""
        state = self.state
        job = state.get(id)
        if state.waiters.count:
            match_before_dequeue(state, (job.queue,), now)
        if job.status not in WAITING:
            raise NotWaiting(
                f"the job is {job.status}; only a queued or scheduled job can be dequeued",
                job_status=job.status,
            )
        deliveries = take_job(state, job, request, now)
        self.match(now)
        return deliveries

    def wait(self, waiter: Waiter) -> None:
        """Keeps `waiter` until there is a job for it, or its time is over. Call `dequeue` first."""
        self.state.waiters.add(waiter)
        self.state.wait_timers.add(waiter, waiter.until)

    def wait_for_outcome(self, waiter: OutcomeWaiter) -> None:
        """Keeps `waiter` until its job, which is not finished, is finished; or its time is over."""
        self.state.outcomes.add(waiter)
        self.state.wait_timers.add(waiter, waiter.until)

    def stop_waiting(self, waiter: Waiter | OutcomeWaiter) -> None:
        """Removes a waiter whose client has left. Raises `KeyError` if it does not wait."""
        stop_waiting(self.state, waiter)

    def match(self, now: int) -> None:
        """Gives ready jobs to waiting consumers. Every verb does so itself, except those that say not."""
        if self.state.to_match:
            match_waiters(self.state, now)

    def give_back(self, deliveries: Iterable[Delivery], now: int) -> None:
        """Returns jobs that never reached their consumers, and takes their attempts off again. Leaves those
        alone whose lease has ended in the meantime."""
        for job, lease in deliveries:
            if job.lease is lease and lease.ended_by is None:
                return_job(self.state, job, steps.RELEASE, now)
        self.match(now)

    def lose(self, deliveries: Iterable[Delivery], now: int) -> None:
        """Ends the leases of jobs whose consumer has gone, as if they had expired. Leaves those alone whose
        lease has ended in the meantime."""
        for job, lease in deliveries:
            if job.lease is lease and lease.ended_by is None:
                lease.ends = None  # it ends because its consumer has gone
                self._end_lease(job, now)
        self.match(now)

    # -- under a lease ------------------------------------------------------------------------------

    def conclude(
        self, id: int, token: str | None, consumer: str | None, result: bytes | None, now: int
    ) -> Job:
        """Concludes a job in progress. Raises what `policy.may_use_lease` raises. If the same caller has
        concluded it before, the job is returned as it is, and `result` is ignored."""
        # The claim comes in parts: a `LeaseClaim` would cost 2 % of a lifecycle here.
        state = self.state
        job = state.get(id)
        if may_use_lease(job, CONCLUDES, token, consumer, state.limits.require_lease):
            if result is not None:
                job.extras = job.extras or JobExtras()
                job.extras.result = result
            queue = state.queues[job.queue]
            state.transition(job, steps.CONCLUDE, now, queue)
            if not id & queue.runs.skip and (lease := job.lease) is not None and lease.ended_at is not None:
                queue.runs.add(lease.ended_at - lease.started_at)
            if state.over_retention:
                make_room(state, now)
            if state.to_match:
                match_waiters(state, now)
        return job

    def release(self, claim: LeaseClaim, delay: int, now: int, priority: int | None = None) -> Job:
        """Puts a job in progress back at its place, after `delay` milliseconds, and takes its attempt off
        again. With another `priority` it goes to the end there, as by `change`. If the same caller has
        released it before, the job is returned as it is."""
        state = self.state
        job = state.get(claim.id)
        if may_use_lease(job, RELEASES, claim.token, claim.consumer, state.limits.require_lease):
            if priority is not None and priority != job.priority:
                job.priority = priority
                give_up_place(job, state.queues[job.queue])
            return_job(state, job, steps.PUT_OFF if delay else steps.RELEASE, now, delay)
        self.match(now)
        return job

    def fail(
        self, claim: LeaseClaim, error: bytes | None, retry: bool, retry_in: int | None, now: int
    ) -> Job:
        """Ends a failed attempt: the job is ready again after `retry_in` milliseconds (None: its backoff). It
        is dead if this was its last attempt, or `retry` is false. `error` is JSON. If the same caller has
        reported this before, the job is returned as it is."""
        state = self.state
        job = state.get(claim.id)
        if not may_use_lease(job, FAILS, claim.token, claim.consumer, state.limits.require_lease):
            return job
        queue = state.queues[job.queue]
        options = options_of(job)
        trace = trace_of(job)
        trace.error = error
        if cancel_requested(job):
            put_off(state, job, steps.FAIL, now, queue, 0)
        elif not retry:
            bury(state, job, "no_retry", now, queue)
        elif attempts_exhausted(job, options, max_attempts(state, queue)):
            bury(state, job, "attempts", now, queue)
        else:
            if retry_in is None:
                retry_in = self._rest(job, queue)
            put_off(state, job, steps.FAIL, now, queue, retry_in)
        self.match(now)
        return job

    def _rest(self, job: Job, queue: NamedQueue) -> int:
        """Returns the backoff of a job after its last attempt, in milliseconds."""
        options = options_of(job)
        backoff = (
            (options.backoff if options is not None else None)
            or queue.settings.backoff
            or self.state.limits.backoff
        )
        return backoff_delay(backoff, job.attempts, self._chance())

    def heartbeat(
        self,
        claim: LeaseClaim,
        lease_for: int | None,
        now: int,
        progress: int | None = None,
        message: str | None = None,
    ) -> Job:
        """Lets the lease end `lease_for` milliseconds from now (None: the length granted by the dequeue), or
        when `max_run_for` is over if that is earlier. Sets progress and message if they are given."""
        state = self.state
        job = state.get(claim.id)
        may_use_lease(job, (), claim.token, claim.consumer, state.limits.require_lease)
        lease = job.lease
        assert lease is not None
        state.lease_timers.drop(job, lease.expires)
        set_end(lease, lease.granted if lease_for is None else lease_for, now)
        state.lease_timers.add(job, lease.expires)
        if progress is not None or message is not None:
            trace = trace_of(job)
            trace.progress = trace.progress if progress is None else progress
            trace.message = trace.message if message is None else message
        if state.changed is not None:
            state.changed(job)
        self.match(now)
        return job

    def renew(self, claim: LeaseClaim, lease_for: int, now: int) -> Job:
        """Leases a job again to the consumer whose lease was the last one and has expired, or which gave the
        job back by `fail`, for `lease_for` milliseconds and under the same token. No attempt is charged. The
        lease of a job in progress is extended. Raises `LeaseLost` if the job is not waiting, and as long as a
        pause, a limit or the order of its key keeps it waiting."""
        state = self.state
        job = state.get(claim.id)
        before = job.lease
        if before is None or before.token != claim.token or job.status not in WAITING:
            return self.heartbeat(claim, lease_for, now)
        if not take_job(state, job, DequeueRequest((), lease_for, None, before.consumer), now):
            return self.heartbeat(claim, lease_for, now)  # which is refused
        assert job.lease is not None
        job.attempts -= 1
        job.leases -= 1
        job.lease.token, job.lease.attempt = before.token, job.attempts
        self.match(now)
        return job

    # -- one job ------------------------------------------------------------------------------------

    def get(self, id: int) -> Job:
        """Returns a job. Raises `JobNotFound` or `JobForgotten`."""
        return self.state.get(id)

    def cancel(self, id: int, now: int, force: bool = False) -> Job:
        """Cancels a job. The consumer of a job in progress is asked to stop: `cancel_requested` is in the
        answer to its next heartbeat. With `force` its lease ends at once. A cancelled job is returned as it
        is. Raises `JobFinished` for a concluded one."""
        job = self.cancel_one(id, force, now)
        self.match(now)
        return job

    def cancel_one(self, id: int, force: bool, now: int) -> Job:
        """Cancels one of many jobs. The caller must call `match` after the last one."""
        state = self.state
        job = state.get(id)
        if job.status == CONCLUDED:
            raise JobFinished("the job is concluded; it cannot be cancelled", job_status=job.status)
        if job.status == IN_PROGRESS and not force:
            job.extras = job.extras or JobExtras()
            job.extras.cancel_requested = True
            if state.changed is not None:
                state.changed(job)
        elif job.status != CANCELLED:
            state.transition(job, steps.CANCEL, now, state.queues[job.queue])
            if state.over_retention:
                make_room(state, now)
        return job

    def change(self, id: int, change: Change, now: int) -> Job:
        """Changes a job that is scheduled or queued. Another queue or priority puts it at the end there.
        Raises `NotWaiting`, `QueueFull`."""
        state = self.state
        job = state.get(id)
        if job.status not in WAITING:
            raise NotWaiting(
                f"the job is {job.status}; only a queued or scheduled job can be changed",
                job_status=job.status,
            )
        if (change.queue is not UNSET and change.queue != job.queue) or change.payload is not UNSET:
            check_capacity_for_change(state, job, change, now)
        change_job(state, job, change, now)
        self.match(now)
        return job

    def redrive(self, id: int, now: int) -> Job:
        """Queues a dead job again, at the end of its priority and with its attempts counted from 0. Raises
        `NotDead`."""
        job = self.redrive_one(id, now)
        self.match(now)
        return job

    def redrive_one(self, id: int, now: int) -> Job:
        """Redrives one of many jobs. The caller must call `match` after the last one."""
        state = self.state
        job = state.get(id)
        if job.status != DEAD:
            raise NotDead(f"the job is {job.status}; only a dead job can be redriven", job_status=job.status)
        forget_attempts(job)
        state.transition(job, steps.REDRIVE, now, state.queues[job.queue])
        return job

    # -- queues, and many jobs ----------------------------------------------------------------------

    def configure(self, name: str, given: dict[str, object], now: int) -> NamedQueue:
        """Sets the given fields of the `QueueSettings` of a queue, which is created if there is none. A
        field's default value unsets it. Raises `QueueFull`."""
        queue = admin.configure(self.state, name, given, now)
        self.match(now)
        return queue

    def pause(
        self, name: str, length: int | None, reason: str | None, now: int, by: str | None = None
    ) -> NamedQueue:
        """Pauses a queue, which is created if there is none: no job is leased for `length` milliseconds, or
        until it is resumed if that is None. `by`: who does it. Raises `QueueFull`."""
        return admin.pause(self.state, name, length, reason, by, now)

    def resume(self, name: str, now: int) -> NamedQueue:
        """Ends the pause of a queue, which is created if there is none. Raises `QueueFull`."""
        queue = admin.resume(self.state, name, now)
        self.match(now)
        return queue

    def scan(
        self, wanted: Filter, after: int, rising: bool, now: int, limit: int, examine: int
    ) -> tuple[list[Job], int | None]:
        """Examines up to `examine` jobs by rising (or falling) id, starting after the id `after`. Returns up
        to `limit` that match, and the id to continue after; None if there are no more."""
        return admin.scan(self.state, wanted, after, rising, now, limit, examine)

    def purge_one(self, job: Job, now: int) -> None:
        """Removes a job of any status. The caller must call `match` after the last one."""
        admin.purge_job(self.state, job, now)

    def run_one_now(self, job: Job, now: int) -> None:
        """Makes a scheduled job ready: it is due, or before its time. The caller must call `match` after the
        last one."""
        self.state.transition(job, steps.READY, now, self.state.queues[job.queue])

    def move_one(self, job: Job, target: str | None, now: int) -> None:
        """Moves a job that is scheduled, queued or dead to the end of the queue `target`; None: back to the
        queue in which it died before. Raises `QueueFull`. The caller must call `match` after the last one."""
        move_job(self.state, job, target, now)

    # -- the passage of time ------------------------------------------------------------------------

    def tick(self, now: int) -> tuple[int, bool]:
        """Does one slice of the work that is due: ends leases, makes jobs ready, buries expired ones, resumes
        queues, ends waits, forgets finished jobs and idempotency keys, drops idle queues. Returns the number
        of jobs moved, and whether more work is due now. `compact` does the other part of a tick."""
        state = self.state
        wall = now + state.wall_offset
        follow_clock(state, now)
        stale = self._run_due(state.lease_timers, now, self._end_lease, now)
        expired = self._run_due(state.expiry_timers, wall, self._expire, now)
        expired += self._run_due(state.lifetime_timers, now, self._expire, now)
        ready = self._run_due(state.delay_timers, now, self.run_one_now, now)
        ready += self._run_due(state.run_at_timers, wall, self.run_one_now, now)
        resumed = self._run_due(state.pause_timers, wall, self._resume, now)
        resumed += self._run_due(state.resume_timers, now, self._resume, now)
        woken = self._run_due(state.limiter_timers, now, self._wake, now)
        self.match(now)
        # While slices make jobs ready, no wait ends, because the next slice may have a job for it; but only
        # for so long.
        busy = bool(stale or expired or ready or resumed or woken)
        self._backlog_since = (self._backlog_since or now) if busy else 0
        held_back = busy and now - self._backlog_since <= HELD_BACK_MS
        ended = 0 if held_back else self._run_due(state.wait_timers, now, self._end_wait, now)
        forgotten = forget_due(state, now, SLICE)
        state.idempotency.forget_old(now, SLICE)
        self._drop_idle_queues(now)
        return stale + expired + ready + forgotten, bool(busy or ended) or forgotten == SLICE

    def next_due(self) -> int | None:
        """Returns the monotonic time of the next tick that ends a lease, delay, expiry, pause, wait or limit;
        None: time alone changes nothing. What is forgotten, and when, does not count."""
        state = self.state
        walls = [
            state.expiry_timers.earliest(),
            state.run_at_timers.earliest(),
            state.pause_timers.earliest(),
        ]
        times = [
            state.lease_timers.earliest(),
            state.lifetime_timers.earliest(),
            state.delay_timers.earliest(),
            state.resume_timers.earliest(),
            state.limiter_timers.earliest(),
            state.wait_timers.earliest(),
        ]
        known = [time for time in times if time is not None]
        known += [wall - state.wall_offset for wall in walls if wall is not None]
        return min(known) if known else None

    def _run_due(self, timers: Timers[T], at: int, act: Callable[[T, int], None], now: int) -> int:
        """Calls `act` for a slice of what is due at `at`, and returns for how many. An item for which `act`
        fails loses its timer: otherwise every later tick would fail there and never reach the others."""
        due = timers.due(at, SLICE)
        for item in due:
            try:
                act(item, now)
            except Exception:
                timers.discard(item, at)
                raise
        return len(due)

    def _end_lease(self, job: Job, now: int) -> None:
        """Ends a lease that expired. The first time the job is ready again at once. From the second time in
        a row on it rests, as it may be the job that ends its consumers."""
        rest = self._rest(job, self.state.queues[job.queue]) if stale_before(job) else 0
        return_job(self.state, job, steps.STALE, now, rest)

    def _expire(self, job: Job, now: int) -> None:
        bury(self.state, job, "expired", now, self.state.queues[job.queue])

    def _resume(self, queue: NamedQueue, now: int) -> None:
        admin.resume_paused(self.state, queue, now)

    def _wake(self, limiter: Limiter, now: int) -> None:
        state = self.state
        assert limiter.wakes_at is not None
        state.limiter_timers.drop(limiter, limiter.wakes_at)
        # A timer outlives a limit that is unset and a queue that is dropped; there may be a new queue by now.
        if (queue := state.queues.get(limiter.queue)) is not None:
            queue.wake(limiter, now)
            state.to_match[limiter.queue] = None

    def _end_wait(self, waiter: Waiter | OutcomeWaiter, _: int = 0) -> None:
        stop_waiting(self.state, waiter)
        if isinstance(waiter, Waiter):
            for name in waiter.request.queues:
                if (queue := self.state.queues.get(name)) is not None:
                    queue.asked_at = waiter.until
            waiter.deliver([])
        else:
            waiter.deliver(waiter.job)

    def _drop_idle_queues(self, now: int) -> None:
        """Drops queues that have had no jobs for an hour, no settings and no waiters."""
        state = self.state
        for _ in range(min(len(state.idle_queues), SLICE)):
            queue = next(iter(state.idle_queues))
            if queue.idle and now < queue.used_at + IDLE_QUEUE_MS:
                return
            del state.idle_queues[queue]
            if queue.idle:
                if state.waiters.waiting(queue.name):
                    state.mark_idle(queue, now)
                else:
                    state.drop_queue(queue)

    def compact(self) -> bool:
        """Compacts a few segments of one lane. Returns whether there is more to do."""
        state = self.state
        for _ in range(min(len(state.to_compact), SLICE)):
            lane = next(iter(state.to_compact))
            if lane.wants_compaction:
                if lane.compact(SLICE_SEGMENTS):
                    state.compactions += 1
                return True
            del state.to_compact[lane]
            if lane.empty > lane.size:
                state.to_compact[lane] = None  # later dequeues may raise its share of empty slots
        return False

    def end_waits(self) -> None:
        """Ends all waits, since the server stops: consumers get no job, outcome waiters their unfinished
        one."""
        state = self.state
        for name in state.waiters.names():
            while (waiter := state.waiters.first(name)) is not None:
                self._end_wait(waiter)
        for outcome_waiter in state.outcomes.all():
            self._end_wait(outcome_waiter)

    # -- reading ------------------------------------------------------------------------------------

    def view(self, name: str, now: int) -> QueueView:
        """Describes the queue `name`. A queue that does not exist looks like an empty one, and is not
        created; one that was dropped has the counts that are left of it."""
        state = self.state
        queue = state.queues.get(name)
        if queue is None:
            queue = NamedQueue(name, (16, 0, 0.5), now=now)
            if (past := state.past.get(name)) is not None:
                queue.go_on_from(past, now)
        oldest = queue.oldest()
        return QueueView(
            name=name,
            jobs=queue.counts.jobs(),
            totals=queue.counts.totals(),
            oldest_age=max(state.wall(now) - oldest.created_at, 0) if oldest is not None else None,
            consumers_waiting=state.waiters.waiting(name),
            settings=queue.settings,
            pause=queue.pause,
            version=queue.version,
            by_priority=queue.by_priority(),
            rates=queue.rates(now),
            waits=queue.waits,
            runs=queue.runs,
            retrying=queue.retrying,
        )

    def lane_figures(self) -> tuple[int, int, int]:
        """Returns the numbers of lanes, of their slots, and of those that are empty. O(lanes)."""
        lanes = slots = empty = 0
        for queue in self.state.queues.values():
            figures = queue.lane_figures()
            lanes, slots, empty = lanes + figures[0], slots + figures[1], empty + figures[2]
        return lanes, slots, empty
