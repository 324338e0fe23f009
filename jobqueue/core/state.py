"""The state of a `JobQueue`: every job and named queue, and the one place where the status of a job changes.

The status of a job says where it is kept:

    scheduled            `delay_timers` if its `due` counts, otherwise `run_at_timers`
    queued               a lane of its named queue
    in_progress          `lease_timers`
    concluded, cancelled `finished`
    dead                 `dead`

A job that is scheduled or queued and has an `expires_at` is in `lifetime_timers` as well if its
`expires_due` counts, otherwise in `expiry_timers`. The verbs are in
`JobQueue` and in the modules of functions beside it. They check what a caller may do, and change a status
only through `transition`.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from jobqueue import steps
from jobqueue.core.counts import TRANSITIONS, TransitionCounts
from jobqueue.core.idempotency import IdempotencyKeys
from jobqueue.core.job_index import JobIndex
from jobqueue.core.lane import Lane
from jobqueue.core.limiter import Limiter
from jobqueue.core.limits import Limits
from jobqueue.core.named_queue import NamedQueue, PastQueue
from jobqueue.core.retention import Retention
from jobqueue.core.timers import Timers
from jobqueue.core.waiters import OutcomeWaiter, OutcomeWaiters, Waiter, Waiters
from jobqueue.errors import IllegalStep, JobForgotten, JobNotFound
from jobqueue.model import Job, JobExtras, OneObject, Options, Schedule, UniqueWhile, retries
from jobqueue.steps import DEAD, FINISHED, IN_PROGRESS, QUEUED, SCHEDULED, WAITING, Kind, Step


class Dropped:
    """How much was forgotten before its time since the start, because a limit was reached."""

    __slots__ = ("dead_jobs", "finished_jobs", "queues")

    def __init__(self) -> None:
        self.dead_jobs = 0
        self.finished_jobs = 0
        self.queues = 0  # empty ones, or with finished jobs only


class QueueState:
    """All jobs, named queues, timers, indexes and counts.

    One counter, `last_number`, gives both ids and places: a job that is queued at once has its own id as its
    place. `new_token` makes lease tokens. `now` is monotonic milliseconds in every method.

    Three hooks report to the outside; none of them may call the queue:

    - `changed(record)` is called after each change of a job, named queue or schedule that must survive a
      restart. While it is set, `payload_changed` collects the ids of jobs with a new payload; the reader
      empties it.
    - `event(kind, subject)` is called with a step and its job, with "drop" and a dead job that is forgotten
      before its time, or with "pause" or "resume" and a queue name.
    - `lease_end_callbacks[id](job)` is called once, when the current lease of that job ends.
    """

    # A plain object with more than thirty attributes keeps them in a dict, which slows down every step.
    __slots__ = (
        "_counts_by_step",
        "_wall_at",
        "_wall_now",
        "admitted_until",
        "belongs",
        "by_check",
        "changed",
        "compactions",
        "counts",
        "dead",
        "delay_timers",
        "dropped",
        "event",
        "expiry_timers",
        "find",
        "finished",
        "first_id",
        "foreign",
        "idempotency",
        "idle_queues",
        "jobs",
        "last_claim",
        "last_number",
        "lease_end_callbacks",
        "lease_timers",
        "lifetime_timers",
        "limiter_timers",
        "limits",
        "new_token",
        "noted_offset",
        "outcomes",
        "over_retention",
        "past",
        "pause_timers",
        "payload_changed",
        "queues",
        "restored_at",
        "resume_timers",
        "run_at_timers",
        "schedules",
        "to_compact",
        "to_match",
        "to_note_after",
        "wait_timers",
        "waiters",
        "wall_offset",
    )

    def __init__(self, first_id: int, limits: Limits, wall_offset: int, new_token: Callable[[], str]) -> None:
        self.limits = limits
        self.new_token = new_token
        self.first_id = first_id
        self.last_number = first_id - 1
        self.last_claim = 0  # sequence number of the last claim on a unique key, kept through restarts
        self.jobs = JobIndex()
        self.find: Callable[[int], Job | None] = self.jobs.get
        self.queues: dict[str, NamedQueue] = {}
        # In a cluster: whether a queue belongs to these jobs, and the names of those that do not, in which
        # jobs wait to go where they belong.
        self.belongs: Callable[[str], bool] | None = None
        self.foreign: set[str] = set()
        self.schedules: dict[str, Schedule] = {}
        self.counts = TransitionCounts()
        self._counts_by_step = self.counts.steps
        self.idempotency = IdempotencyKeys(limits.idempotency, limits.idempotency_keys)

        self.changed: Callable[[Job | NamedQueue | Schedule], object] | None = None
        self.payload_changed: set[int] = set()
        self.event: Callable[[Kind, Job | str], None] | None = None
        self.lease_end_callbacks: dict[int, Callable[[Job], None]] = {}

        # Timers by the monotonic clock. A bucket that is due in part is searched, so it is kept narrow.
        width = max(limits.tick // 10, 1)
        self.lease_timers: Timers[Job] = Timers(width)
        self.delay_timers: Timers[Job] = Timers(width)
        self.wait_timers: Timers[Waiter | OutcomeWaiter] = Timers(width)
        self.limiter_timers: Timers[Limiter] = Timers(width)
        self.lifetime_timers: Timers[Job] = Timers(width)
        self.resume_timers: Timers[NamedQueue] = Timers(width)
        # Timers by the wall clock.
        self.run_at_timers: Timers[Job] = Timers(width)
        self.expiry_timers: Timers[Job] = Timers(width)
        self.pause_timers: Timers[NamedQueue] = Timers(width)

        self.waiters = Waiters()
        self.outcomes = OutcomeWaiters()
        self.to_match: dict[str, None] = {}  # names of queues in which a waiter may now get a job

        self.finished = Retention(limits.retain, limits.retain_jobs, limits.retain_bytes)
        self.dead = Retention(limits.dead_retain, limits.dead_jobs, limits.dead_bytes)
        self.dropped = Dropped()
        self.over_retention = False  # one of the two may have a job to forget
        # No count is needed while `last_number` is below this: each new job takes at least one number.
        self.admitted_until = _NO_LIMIT if limits.max_jobs is None else 0
        self.idle_queues: OrderedDict[NamedQueue, None] = OrderedDict()  # without jobs, the longest first
        self.by_check: OrderedDict[NamedQueue, None] = OrderedDict()  # all, those examined last at the end
        self.past: OrderedDict[str, PastQueue] = OrderedDict()  # dropped ones, the oldest first
        self.to_compact: OrderedDict[Lane, None] = OrderedDict()  # lanes that may want compaction
        self.compactions = 0

        self.wall_offset = wall_offset
        self._wall_now: OneObject = wall_offset
        self._wall_at = 0
        # For `clock_steps`: the offset by which instants were last written down; the id after which it goes
        # on to do so, None: all are; and until when finished jobs are of an earlier run, -1: none are.
        self.noted_offset = wall_offset
        self.to_note_after: int | None = None
        self.restored_at = -1

    # -- reading ------------------------------------------------------------------------------------

    def get(self, id: int) -> Job:
        """Returns a job. Raises `JobNotFound` for an id that was never given, `JobForgotten` for one whose
        job is no longer remembered."""
        job = self.jobs.get(id)
        if job is not None:
            return job
        if self.first_id <= id <= self.last_number:
            raise JobForgotten("the job finished or was removed, and is no longer remembered")
        if id < self.first_id:
            raise JobNotFound(
                "no job has that id; or it is from before this server began, and its job is gone"
            )
        raise JobNotFound("this server has never given that id")

    def wall(self, now: int) -> OneObject:
        """Returns the wall-clock time of a monotonic one; the same object for calls with the same `now`."""
        if self._wall_at != now:
            self._wall_at = now
            self._wall_now = now + self.wall_offset
        return self._wall_now

    def set_wall_offset(self, wall_offset: int) -> None:
        """Sets wall clock minus monotonic clock, in milliseconds."""
        self.wall_offset = wall_offset
        self._wall_now = wall_offset
        self._wall_at = 0
        self.idempotency.wall_offset = wall_offset

    def leased(self, limit: int) -> list[Job]:
        """Returns up to `limit` of the jobs in progress, in no order."""
        return self.lease_timers.some(limit)

    @property
    def remembered(self) -> int:
        """The number of finished jobs that are still remembered."""
        return len(self.finished) + len(self.dead)

    @property
    def remembered_bytes(self) -> int:
        return self.finished.bytes + self.dead.bytes

    # -- the status of a job ------------------------------------------------------------------------

    def transition(self, job: Job, step: Step, now: int, queue: NamedQueue) -> None:
        """Takes one step of the table in `steps`: changes the status of `job`, where it is kept, and the
        counts. `queue` is its named queue. Raises `IllegalStep`.

        Before the call, a job to be leased has been taken from its queue and has its new lease; one to be
        enqueued is new; one to be scheduled has its `run_at`, and its `due` if the delay counts.
        """
        before = None if step in steps.FROM_OUTSIDE else job.status
        transition = TRANSITIONS.get((before, step))
        if transition is None:
            raise IllegalStep(f"job {job.id}: no step {step} from {before}")
        after, number = transition
        wall = None
        queue.steps[number] += 1
        self._counts_by_step[number] += 1
        if before is IN_PROGRESS:
            lease = job.lease
            assert lease is not None
            self.lease_timers.drop(job, lease.expires)
            lease.ended_by = step
            lease.ended_at = wall = self.wall(now)
            if self.lease_end_callbacks and (ended := self.lease_end_callbacks.pop(job.id, None)) is not None:
                ended(job)
            if (queue.limiter is not None or queue.groups) and queue.count_end(job, now):
                self.to_match[queue.name] = None
        elif step is not steps.LEASE:
            if before is None:
                self.jobs.add(job)
                queue.size += 1
            elif before is QUEUED:
                self.remove_queued(job, now, queue)
            else:
                self._remove_from(job, before, queue, now, step)
        job.version += 1
        if job.extras is not None and job.extras.options is not None:
            self.track_options(job, job.extras.options, before, after, queue, step is steps.LEAVE)
        if after is None:
            self.jobs.remove(job)
            queue.size -= 1
            if queue.size == 0:
                self.mark_idle(queue, now)
        else:
            job.status = after
            if after is IN_PROGRESS:
                self.lease_timers.add(job, job.lease.expires)  # type: ignore[union-attr]  # the caller made it
                if queue.limiter is not None or job.extras is not None:
                    queue.count_start(job, now)
            elif after is QUEUED:
                if self.waiters.count:
                    self.to_match[queue.name] = None
                if step is steps.ENQUEUE:
                    queue.append(job)
                elif job.place and step is not steps.REDRIVE:
                    queue.put_back(job)
                else:
                    self.last_number = job.place = self.last_number + 1
                    queue.append(job)
            elif after is SCHEDULED:
                self.schedule(job, queue)
            else:
                self._finish(job, now, self.wall(now) if wall is None else wall, queue)
        if self.changed is not None:
            self.changed(job)
        if self.event is not None:
            self.event(step, job)

    def remove_queued(self, job: Job, now: int, queue: NamedQueue) -> None:
        """Removes a queued job from its queue, wherever it is there. Its next step must follow."""
        lane = queue.remove(job, now)
        if lane.empty > lane.size or lane.wants_compaction:
            self.to_compact[lane] = None

    def schedule(self, job: Job, queue: NamedQueue) -> None:
        """Counts a scheduled job in its queue and sets the timer of its `due` or `run_at`."""
        extras = job.extras
        assert extras is not None
        assert extras.run_at is not None
        queue.scheduled += 1
        if retries(job):
            queue.retrying += 1
        if job.place:
            queue.count_rest(job)
        queue.bytes += len(job.payload)
        if extras.due is not None:
            self.delay_timers.add(job, extras.due)
        else:
            self.run_at_timers.add(job, extras.run_at)

    def _remove_from(self, job: Job, before: str, queue: NamedQueue, now: int, step: Step) -> None:
        """Takes a scheduled or finished job out of its timer or retention."""
        extras = job.extras
        assert extras is not None
        if before is SCHEDULED:
            queue.scheduled -= 1
            if retries(job):
                queue.retrying -= 1
            if job.place and queue.count_rest_end(job, now, step is steps.READY):
                self.to_match[queue.name] = None
            queue.bytes -= len(job.payload)
            if extras.due is not None:
                self.delay_timers.drop(job, extras.due)
            elif extras.run_at is not None:
                self.run_at_timers.drop(job, extras.run_at)
            extras.run_at = extras.due = None
        else:
            (self.dead if before is DEAD else self.finished).discard(job)

    def track_options(
        self,
        job: Job,
        options: Options,
        before: str | None,
        after: str | None,
        queue: NamedQueue,
        returns: bool = False,
    ) -> None:
        """Sets or drops the expiry timer and the claim on the unique key, as the new status requires.

        An `expires_at` counts while the job is scheduled or queued. A unique key is claimed while its scope,
        `unique_while`, includes the status. With `returns` the job is back at once, and keeps its claim.
        """
        if options.expires_at is not None:
            waited, waits = before in WAITING, after in WAITING
            if waits != waited:
                by_wall = options.expires_due is None
                timers = self.expiry_timers if by_wall else self.lifetime_timers
                at = options.expires_at if options.expires_due is None else options.expires_due
                if waits:
                    timers.add(job, at)
                else:
                    timers.drop(job, at)
        key = options.unique_key
        if key is not None:
            if after in _CLAIMED_WHILE[options.unique_while]:
                queue.unique.claim(key, job)
                if not options.claim_seq:
                    self.last_claim = options.claim_seq = self.last_claim + 1
            elif before is not None and not returns:
                options.claim_seq = 0
                queue.unique.drop_claim(key, job)

    def leave_queue(self, job: Job, now: int, queue: NamedQueue) -> None:
        """Takes a job out of `queue` to enter another one. Unlike the step `leave` alone, which a job takes
        to change its place, this drops the claim on its unique key."""
        self.transition(job, steps.LEAVE, now, queue)
        options = job.extras.options if job.extras is not None else None
        if options is not None and options.unique_key is not None:
            options.claim_seq = 0
            queue.unique.drop_claim(options.unique_key, job)

    def _finish(self, job: Job, now: int, wall: int, queue: NamedQueue) -> None:
        age = queue.settings.retain_for
        extras = job.extras
        if extras is None:
            job.extras = JobExtras(wall)
        else:
            extras.finished_at = wall
            if extras.options is not None and extras.options.retain_for is not None:
                age = extras.options.retain_for
        if job.status is DEAD:
            # A redriven job leaves before its time, which is cheap only for jobs with an age of their own.
            over = self.dead.add(job, now, self.limits.dead_retain if age is None else age)
        else:
            over = self.finished.add(job, now, age)
        if over:
            self.over_retention = True
        if self.outcomes.count and job.status is not DEAD:  # `leasing.bury` knows whether a dead one goes on
            self.answer_outcome_waiters(job)

    def answer_outcome_waiters(self, job: Job) -> None:
        """Delivers `job`, which is finished or gone, to all waiters for its outcome."""
        for waiter in self.outcomes.waiting_for(job):
            self.outcomes.drop(waiter)
            self.wait_timers.drop(waiter, waiter.until)
            waiter.deliver(job)

    # -- named queues -------------------------------------------------------------------------------

    def new_queue(self, name: str, now: int) -> NamedQueue:
        limits = self.limits
        lane_shape = (limits.lane_segment, limits.lane_spare, limits.compact_above)
        queue = NamedQueue(name, lane_shape, self._schedule_wake, now)
        if self.past and (past := self.past.pop(name, None)) is not None:
            queue.go_on_from(past, now)
        self.queues[name] = queue
        self.by_check[queue] = None
        if self.belongs is not None and not self.belongs(name):
            self.foreign.add(name)
        return queue

    def queue_of(self, job: Job, now: int) -> NamedQueue:
        """Returns the queue of a job. If it was dropped, which only happens with finished jobs, it is there
        again."""
        queue = self.queues.get(job.queue)
        if queue is None:
            assert self.past[job.queue].size
            queue = self.new_queue(job.queue, now)
        return queue

    def drop_queue(self, queue: NamedQueue) -> None:
        """Drops a queue that has at most finished jobs, no settings, no pause and no waiters."""
        del self.queues[queue.name]
        del self.by_check[queue]
        self.foreign.discard(queue.name)
        self.idle_queues.pop(queue, None)
        if queue.size or queue.measured:
            self.past[queue.name] = PastQueue(queue)
            if len(self.past) > PAST_QUEUES:
                self._forget_past()

    def _forget_past(self) -> None:
        """Forgets the queue that was dropped first, unless finished jobs of it are remembered."""
        name, past = self.past.popitem(last=False)
        if past.size:
            self.past[name] = past

    def _schedule_wake(self, limiter: Limiter, at: int) -> None:
        if limiter.wakes_at is not None:
            self.limiter_timers.drop(limiter, limiter.wakes_at)
        limiter.wakes_at = at
        self.limiter_timers.add(limiter, at)

    def mark_idle(self, queue: NamedQueue, now: int) -> None:
        """Notes that `queue` has no jobs since `now`, and moves it to the end of `idle_queues`."""
        queue.used_at = now
        self.idle_queues.pop(queue, None)
        self.idle_queues[queue] = None


# How many dropped queues without jobs are remembered for their counts.
PAST_QUEUES: Final = 10_000
_NO_LIMIT: Final = 1 << 63
_CLAIMED_WHILE: Final[dict[UniqueWhile, frozenset[str]]] = {
    "queued": WAITING,
    "active": WAITING | {IN_PROGRESS},
    "exists": WAITING | {IN_PROGRESS} | FINISHED,
}
