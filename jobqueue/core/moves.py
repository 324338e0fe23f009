"""Moves: what the verbs have in common: a job is put in, leased, returned, put off, buried; and ready jobs
meet waiting consumers, in one place.
"""

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import TypeVar

from jobqueue import steps
from jobqueue.core.limits import Limits
from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.policy import attempts_exhausted
from jobqueue.core.state import QueueState
from jobqueue.core.waiters import OutcomeWaiter, Waiter
from jobqueue.model import (
    INHERIT,
    Attempt,
    Delivery,
    DequeueRequest,
    Job,
    JobExtras,
    JobTrace,
    Lease,
    NewJob,
    OneObject,
    Options,
    Reason,
)
from jobqueue.steps import Step

T = TypeVar("T")
# How many jobs one finishing job may push out of memory; the tick does the rest.
FORGET_AT_ONCE = 8
HISTORY = 20


class Moves(QueueState):
    """`token` makes lease tokens, at least 96 random bits each, as text; `chance` numbers from 0 to 1, for
    jitter."""

    __slots__ = ("_chance", "_token")

    def __init__(
        self,
        token: Callable[[], str],
        first_id: int = 1,
        limits: Limits | None = None,
        wall_offset: int = 0,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        super().__init__(first_id, limits or Limits(), wall_offset)
        self._token = token
        self._chance = chance

    def dequeue(self, want: DequeueRequest, now: int) -> list[Delivery]:
        """Leases what is there: at most `want.count` jobs, from the first queues that have any."""
        if self.waiters.count:
            self._serve_waiters_of(want.queues, now)
        return self._take(want, now)

    def _serve_waiters_of(self, names: Iterable[str], now: int) -> None:
        """A rate gives tokens at any instant, and who waits is woken by the next tick: whoever asks between
        the two comes after those who wait."""
        for name in names:
            queue = self.queues.get(name)
            if queue is not None and queue.gate is not None and queue.ready and self.waiters.waiting(name):
                self._to_match[name] = None
        if self._to_match:
            self._match_waiters(now)

    def _take(self, want: DequeueRequest, now: int) -> list[Delivery]:
        handed: list[Delivery] = []
        wanted = want.count or 1
        for name in want.queues:
            queue = self.queues.get(name)
            if queue is not None:
                queue.asked_at = now
                while len(handed) < wanted and (job := queue.take(now)) is not None:
                    handed.append(self._lease(job, queue, want, now))
        return handed

    def wait(self, waiter: Waiter) -> None:
        """Keeps `waiter` until there is a job for it, or until its time is up. Dequeue first."""
        self.waiters.add(waiter)
        self._waits.add(waiter, waiter.until)

    def wait_for_outcome(self, waiter: OutcomeWaiter) -> None:
        """Keeps `waiter` until its job, which is not finished, is; or until its time is up."""
        self.outcomes.add(waiter)
        self._waits.add(waiter, waiter.until)

    def stop_waiting(self, waiter: Waiter | OutcomeWaiter) -> None:
        """Who waited went away: it is not to be given anything. `KeyError` if it does not wait."""
        if isinstance(waiter, Waiter):
            self.waiters.drop(waiter)
        else:
            self.outcomes.drop(waiter)
        self._waits.drop(waiter, waiter.until)

    # -- moves that several verbs make --------------------------------------------------------------

    def _put(self, new: NewJob, queue: NamedQueue, now: int) -> Job:
        id: OneObject = self.last_number + 1
        self.last_number = id
        job = Job(id, queue.name, new.type, new.priority, new.payload, self.wall(now), id)
        if new.options is not None or new.delay or new.run_at is not None or new.expires_in is not None:
            self._apply_options(job, new, now)
            if job.extras is not None and job.extras.run_at is not None:
                job.place = 0
                self.transition(job, steps.SCHEDULE, now, queue)
                return job
        self.transition(job, steps.ENQUEUE, now, queue)
        return job

    def _apply_options(self, job: Job, new: NewJob, now: int) -> None:
        """Gives a new job what most jobs do not have."""
        more = job.extras = JobExtras(options=new.options)
        if new.expires_in is not None:
            options = more.options = more.options or Options()
            options.expires_at = self.wall(now) + new.expires_in
        if new.delay:
            more.due, more.run_at = now + new.delay, self.wall(now) + new.delay
        elif new.run_at is not None and new.run_at > self.wall(now):
            more.run_at = new.run_at

    def _lease(self, job: Job, queue: NamedQueue, want: DequeueRequest, now: int) -> Delivery:
        wall = self.wall(now)
        job.attempts = attempt = job.attempts + 1
        job.leases += 1
        length = want.lease_for
        if length is None:
            length = queue.settings.lease_for or self.limits.lease
            if job.extras is not None and job.extras.options is not None:
                length = job.extras.options.lease_for or length
        if job.lease is not None:
            remember_attempt(job)
        elif not job.id & queue.waits.skip and job.place == job.id:
            queue.waits.add(wall - job.created_at)
        token = want.owner + self._token()
        lease = Lease(token, want.consumer, wall, length, length, now + length, attempt)
        job.lease = lease
        self.transition(job, steps.LEASE, now, queue)
        return job, lease

    def _return(self, job: Job, step: Step, now: int, delay: int = 0) -> None:
        """A job in progress goes back to its place, or rests first; or is cancelled if that was asked for;
        or, stale after its last attempt, is dead."""
        queue = self.queues[job.queue]
        if step is not steps.STALE:
            job.attempts -= 1
        if step is steps.PUT_OFF:
            self._put_off(job, step, now, queue, delay)
            return
        self.transition(job, step, now, queue)
        if cancel_asked(job):
            self.transition(job, steps.CANCEL, now, queue)
        elif step is steps.STALE and attempts_exhausted(job, options_of(job), self._max_attempts(queue)):
            self._bury(job, "attempts", now, queue)

    def _put_off(self, job: Job, step: Step, now: int, queue: NamedQueue, delay: int) -> None:
        """A job in progress rests for `delay`; without one it is ready at once."""
        more = job.extras = job.extras or JobExtras()
        more.due, more.run_at = now + delay, self.wall(now) + delay
        self.transition(job, step, now, queue)
        if more.cancel_requested:
            self.transition(job, steps.CANCEL, now, queue)
        elif not delay:
            self.transition(job, steps.READY, now, queue)

    def _max_attempts(self, queue: NamedQueue) -> int | None:
        own = queue.settings.max_attempts
        return self.limits.max_attempts if own == INHERIT else own

    def _bury(self, job: Job, reason: Reason, now: int, queue: NamedQueue) -> None:
        """The job is dead; or it is queued again in its queue's `dead_letter`, once."""
        trace = trace_of(job)
        trace.reason = reason
        self.transition(job, steps.BURY, now, queue)
        letter = queue.settings.dead_letter
        if letter is not None and letter != queue.name and trace.dead_from is None:
            trace.dead_from, trace.dead_from_reason, trace.reason = queue.name, reason, None
            self._leave_for_good(job, now, queue)
            more = job.extras
            assert more is not None
            more.finished_at = None
            if more.options is not None:
                more.options.expires_at = None
            job.queue, job.attempts, job.place = letter, 0, 0
            self.transition(job, steps.ENTER, now, self.queues.get(letter) or self._new_queue(letter, now))
        elif self.outcomes.count:
            self._tell_outcome(job)
        if self._over_retention:
            self._make_room(now)

    def match(self, now: int) -> None:
        self._after_matching(None, now)

    def _after_matching(self, result: T, now: int) -> T:
        """`result`, once consumers who wait have got what became ready."""
        if self._to_match:
            self._match_waiters(now)
        return result

    def _match_waiters(self, now: int) -> None:
        """Ready jobs and waiting consumers meet: the one place. Of all who wait on a queue in which something
        became ready, or a gate opened, whoever came first."""
        names, self._to_match = self._to_match, {}
        lines = [(first.number, name) for name in names if (first := self.waiters.first(name)) is not None]
        heapify(lines)
        while lines:
            number, name = heappop(lines)
            waiter = self.waiters.first(name)
            queue = self.queues.get(name)
            if waiter is None or queue is None or not queue.ready:
                continue
            if waiter.number == number:
                handed = self._take(waiter.request, now)
                if not handed:
                    continue
                self.stop_waiting(waiter)
                waiter.deliver(handed)
                waiter = self.waiters.first(name)
            if waiter is not None:
                heappush(lines, (waiter.number, name))

    def _make_room(self, now: int) -> None:
        """A job that finished has made too many: the oldest are forgotten, a few at once."""
        finished, dead = self._finished, self._dead
        for _ in range(FORGET_AT_ONCE):
            job = finished.over(now) or dead.over(now)
            if job is not None:
                self.transition(job, steps.FORGET, now, self.queues[job.queue])
            if job is None or not (finished.crowded or dead.crowded):
                self._over_retention = False
                break

    def _forget_some(self, now: int, limit: int) -> int:
        for forgotten in range(limit):
            job = self._finished.over(now) or self._dead.over(now)
            if job is None:
                self._over_retention = False
                return forgotten
            try:
                self.transition(job, steps.FORGET, now, self.queues[job.queue])
            except Exception:  # else all later ticks would fail there
                for retention in (self._finished, self._dead):
                    if retention.over(now) is job:
                        retention.discard(job)
                raise
        return limit


# The steps by which each verb ends a lease.
CONCLUDES: tuple[Step, ...] = (steps.CONCLUDE,)
RELEASES: tuple[Step, ...] = (steps.RELEASE, steps.PUT_OFF)
FAILS: tuple[Step, ...] = (steps.FAIL, steps.BURY)


def options_of(job: Job) -> Options | None:
    return job.extras.options if job.extras is not None else None


def cancel_asked(job: Job) -> bool:
    return job.extras is not None and job.extras.cancel_requested


def trace_of(job: Job) -> JobTrace:
    more = job.extras = job.extras or JobExtras()
    trace = more.trace = more.trace or JobTrace()
    return trace


def remember_attempt(job: Job) -> None:
    """The lease that the job had until now becomes a line of its history."""
    lease = job.lease
    assert lease is not None
    trace = trace_of(job)
    error = trace.error if lease.ended_by in FAILS else None
    line = Attempt(lease.attempt, lease.consumer, lease.started_at, lease.ended_at, lease.ended_by, error)
    trace.history = (*trace.history[1 - HISTORY :], line)
    trace.progress = trace.message = None
