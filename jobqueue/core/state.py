"""Registry: every job, where each one sits, and the one door through which a status changes.

`JobQueue` builds the verbs on it. What a job sits in follows from its status alone: `queued` in a lane,
`in_progress` under a lease timer, `scheduled` under a timer of its delay, finished in a retention. What waits
and has an end of its own (`expires_at`) hangs under a timer of that, too.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from jobqueue import steps
from jobqueue.core.counts import TRANSITIONS, TransitionCounts
from jobqueue.core.idempotency import IdempotencyKeys
from jobqueue.core.job_index import JobIndex
from jobqueue.core.lane import Lane
from jobqueue.core.limiter import Limiter
from jobqueue.core.limits import Limits
from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.retention import Retention
from jobqueue.core.timers import Timers
from jobqueue.core.waiters import OutcomeWaiter, OutcomeWaiters, Waiter, Waiters
from jobqueue.errors import IllegalStep, JobForgotten, JobNotFound, QueueFull
from jobqueue.model import Job, JobExtras, OneObject, Options, UniqueWhile
from jobqueue.steps import DEAD, FINISHED, IN_PROGRESS, QUEUED, SCHEDULED, WAITING, Kind, Step


class QueueState:
    """One counter, `last_number`, gives ids and places: a job that is queued at once stands at its own id.

    Two hooks leave the core: `changed(record)` for whatever must survive a restart, jobs and named queues,
    and `event(kind, job)`, or `event(kind, name)` of a queue, for whoever watches.
    `payload_changed`: where there is a
    `changed`, ids of jobs that got another payload; who writes them down empties it. `ends`: who is told,
    once, when the lease of the job with this id ends. None of them may call the queue. `now` is monotonic
    milliseconds everywhere. Slots, here and in what builds on it: beyond thirty attributes a plain object
    keeps them in a dict of its own, and every step pays for that.
    """

    __slots__ = (
        "_admitted_until",
        "_backlog_since",
        "_by_id",
        "_dead",
        "_delays",
        "_expiries",
        "_finished",
        "_gates",
        "_idle",
        "_leases",
        "_over_retention",
        "_pauses",
        "_runs",
        "_steps",
        "_to_compact",
        "_to_match",
        "_waits",
        "_wall_is",
        "_wall_of",
        "_wall_offset",
        "changed",
        "compactions",
        "counts",
        "event",
        "find",
        "first_id",
        "idempotency",
        "last_claim",
        "last_number",
        "lease_end_callbacks",
        "limits",
        "outcomes",
        "payload_changed",
        "queues",
        "waiters",
    )  # fmt: skip

    def __init__(self, first_id: int, limits: Limits, wall_offset: int) -> None:
        self.limits = limits
        self.first_id = first_id
        self.last_number = first_id - 1
        self.last_claim = 0  # of a unique key: so that claims have their order after a restart, too
        # Up to this `last_number` there is room for certain: each new job takes a number, or more.
        self._admitted_until = _NO_END if limits.max_jobs is None else 0
        self.compactions = 0
        self.queues: dict[str, NamedQueue] = {}
        self.counts = TransitionCounts()
        self._steps = self.counts.steps
        self.changed: Callable[[Job | NamedQueue], object] | None = None
        self.payload_changed: set[int] = set()
        self.event: Callable[[Kind, Job | str], None] | None = None
        self.lease_end_callbacks: dict[int, Callable[[Job], None]] = {}
        width = max(limits.tick // 10, 1)  # of the buckets of timers: one that is half due is looked through
        self.waiters = Waiters()
        self.outcomes = OutcomeWaiters()
        self._waits: Timers[Waiter | OutcomeWaiter] = Timers(width)
        self.idempotency = IdempotencyKeys(limits.idempotency, limits.idempotency_keys)
        self._by_id = JobIndex()
        self.find: Callable[[int], Job | None] = self._by_id.get
        self._leases: Timers[Job] = Timers(width)
        self._delays: Timers[Job] = Timers(width)  # by the monotonic clock: `due`
        self._runs: Timers[Job] = Timers(width)  # by the wall clock: `run_at`
        self._expiries: Timers[Job] = Timers(width)  # by the wall clock: `expires_at`
        self._finished = Retention(limits.retain, limits.retain_jobs, limits.retain_bytes)
        self._dead = Retention(limits.dead_retain, limits.dead_jobs, limits.dead_bytes)
        self._gates: Timers[Limiter] = Timers(width)
        self._pauses: Timers[NamedQueue] = Timers(width)  # by the wall clock
        self._to_match: dict[str, None] = {}  # queues in which something may be handed out now
        self._backlog_since = (
            0  # the first of the slices in a row that brought jobs back; 0: the last did not
        )
        self._over_retention = False  # more finished jobs than may be remembered
        self._idle: OrderedDict[NamedQueue, None] = OrderedDict()
        self._to_compact: OrderedDict[Lane, None] = (
            OrderedDict()
        )  # lanes that may want compaction, now or later
        self._wall_offset = wall_offset
        self._wall_is: OneObject = wall_offset
        self._wall_of = 0

    def get(self, id: int) -> Job:
        """`JobNotFound` for an id never given, `JobForgotten` for one no longer remembered."""
        job = self._by_id.get(id)
        if job is not None:
            return job
        if self.first_id <= id <= self.last_number:
            raise JobForgotten("the job finished or was removed, and is no longer remembered")
        if id < self.first_id:
            raise JobNotFound("that id was never given, or before this server began: then its job is gone")
        raise JobNotFound("this server has never given that id")

    def set_wall_offset(self, wall_offset: int) -> None:
        """Wall clock minus monotonic clock, milliseconds."""
        self._wall_offset = wall_offset
        self._wall_is = wall_offset
        self._wall_of = 0

    def wall(self, now: int) -> OneObject:
        """The wall-clock instant of a monotonic one; the same object within a millisecond."""
        if self._wall_of != now:
            self._wall_of = now
            self._wall_is = now + self._wall_offset
        return self._wall_is

    def leased(self, limit: int) -> list[Job]:
        """Up to `limit` of the jobs in progress, in no order."""
        return self._leases.some(limit)

    @property
    def remembered(self) -> int:
        """Finished jobs still remembered."""
        return len(self._finished) + len(self._dead)

    @property
    def remembered_bytes(self) -> int:
        return self._finished.bytes + self._dead.bytes

    # -- the one door -------------------------------------------------------------------------------

    def transition(self, job: Job, step: Step, now: int, queue: NamedQueue) -> None:
        """Changes the status of `job`, the lane or timer it sits in, and the counts. To be leased, a job has
        been popped from its queue and has its new lease; to be enqueued, it is new; to be scheduled, its
        `more` says until when."""
        before = None if step in steps.FROM_OUTSIDE else job.status
        move = _transition_of((before, step))
        if move is None:
            raise IllegalStep(f"job {job.id}: no step {step} from {before}")
        after, number = move
        wall = None
        queue.steps[number] += 1
        self._steps[number] += 1
        if before is IN_PROGRESS:
            lease = job.lease
            assert lease is not None
            self._leases.drop(job, lease.expires)
            lease.ended_by = step
            lease.ended_at = wall = self.wall(now)
            if self.lease_end_callbacks and (ended := self.lease_end_callbacks.pop(job.id, None)) is not None:
                ended(job)
            if (queue.gate is not None or queue.lines) and queue.leave(job, now):
                self._to_match[queue.name] = None
        elif step is not steps.LEASE:
            if before is None:
                self._by_id.add(job)
                queue.size += 1
            elif before is QUEUED:
                lane = queue.remove(job, now)
                if lane.empty > lane.size or lane.wants_compaction:
                    self._to_compact[lane] = None
            else:
                self._leave(job, before, queue)
        job.version += 1
        if job.extras is not None and job.extras.options is not None:
            self._watch(job, job.extras.options, before, after, queue, step is steps.LEAVE)
        if after is None:
            self._by_id.remove(job)
            queue.size -= 1
            if queue.size == 0:
                self._rest(queue, now)
        else:
            job.status = after
            if after is IN_PROGRESS:
                self._leases.add(job, job.lease.expires)  # type: ignore[union-attr]  # see above
                if queue.gate is not None or job.extras is not None:
                    queue.enter(job, now)
            elif after is QUEUED:
                if self.waiters.count:
                    self._to_match[queue.name] = None
                if step is steps.ENQUEUE:
                    queue.append(job)
                elif job.place and step is not steps.REDRIVE:
                    queue.put_back(job)
                else:
                    self.last_number = job.place = self.last_number + 1
                    queue.append(job)
            elif after is SCHEDULED:
                self._schedule(job, queue)
            else:
                self._finish(job, now, self.wall(now) if wall is None else wall, queue)
        if self.changed is not None:
            self.changed(job)
        if self.event is not None:
            self.event(step, job)

    def _schedule(self, job: Job, queue: NamedQueue) -> None:
        more = job.extras
        assert more is not None
        assert more.run_at is not None
        queue.scheduled += 1
        queue.bytes += len(job.payload)
        if more.due is not None:
            self._delays.add(job, more.due)
        else:
            self._runs.add(job, more.run_at)

    def _leave(self, job: Job, before: str, queue: NamedQueue) -> None:
        """Out of what a scheduled or finished job sits in."""
        more = job.extras
        assert more is not None
        if before is SCHEDULED:
            queue.scheduled -= 1
            queue.bytes -= len(job.payload)
            if more.due is not None:
                self._delays.drop(job, more.due)
            elif more.run_at is not None:
                self._runs.drop(job, more.run_at)
            more.run_at = more.due = None
        else:
            (self._dead if before is DEAD else self._finished).discard(job)

    def _watch(
        self,
        job: Job,
        options: Options,
        before: str | None,
        after: str | None,
        queue: NamedQueue,
        returns: bool = False,
    ) -> None:
        """`expires_at` counts while the job waits; a unique key is its own while its scope says so, or it
        `returns` at once."""
        if options.expires_at is not None:
            waited, waits = before in WAITING, after in WAITING
            if waits and not waited:
                self._expiries.add(job, options.expires_at)
            elif waited and not waits:
                self._expiries.drop(job, options.expires_at)
        key = options.unique_key
        if key is not None:
            if after in _TAKEN_WHILE[options.unique_while]:
                queue.unique.claim(key, job)
                if not options.claim_seq:
                    self.last_claim = options.claim_seq = self.last_claim + 1
            elif before is not None and not returns:
                options.claim_seq = 0
                queue.unique.disclaim(key, job)

    def _leave_for_good(self, job: Job, now: int, queue: NamedQueue) -> None:
        """To another queue; who only leaves its place keeps its unique key."""
        self.transition(job, steps.LEAVE, now, queue)
        options = job.extras.options if job.extras is not None else None
        if options is not None and options.unique_key is not None:
            options.claim_seq = 0
            queue.unique.disclaim(options.unique_key, job)

    def _finish(self, job: Job, now: int, wall: int, queue: NamedQueue) -> None:
        age = queue.settings.retain_for
        more = job.extras
        if more is None:
            job.extras = JobExtras(wall)
        else:
            more.finished_at = wall
            if more.options is not None and more.options.retain_for is not None:
                age = more.options.retain_for
        if job.status is DEAD:
            # Dead jobs may come back, so each has an age of its own.
            crowded = self._dead.add(job, now, self.limits.dead_retain if age is None else age)
        else:
            crowded = self._finished.add(job, now, age)
        if crowded:
            self._over_retention = True
        if self.outcomes.count and job.status is not DEAD:  # a dead one may go on: `_bury` knows
            self._tell_outcome(job)

    def _tell_outcome(self, job: Job) -> None:
        """To all who wait for it: the job is finished, or gone."""
        for waiter in self.outcomes.on(job):
            self.outcomes.drop(waiter)
            self._waits.drop(waiter, waiter.until)
            waiter.deliver(job)

    # -- limits, before anything is made ------------------------------------------------------------

    def _refuse_beyond(self, more: int) -> None:
        """Where `_admitted_until` does not say that there is room for `more` jobs, they are counted.
        `QueueFull`."""
        most = self.limits.max_jobs
        assert most is not None
        held = self.counts.held()
        if held + more > most:
            raise QueueFull(
                f"the server holds {held:,} jobs, finished ones that it remembers included, and may hold "
                f"{most:,}",
                limit=most, setting="JOBQUEUE_MAX_JOBS", retry_after=5,
            )  # fmt: skip
        self._admitted_until = self.last_number + most - held

    def _refuse_new_queues(self, names: Iterable[str]) -> None:
        """`QueueFull` where there would be too many."""
        most = self.limits.max_queues
        new = {name for name in names if name not in self.queues}
        if new and len(self.queues) + len(new) > most:
            raise QueueFull(
                f"there are {len(self.queues):,} queues, and may be no more; one that is empty goes after an "
                "hour",
                limit=most, setting="JOBQUEUE_MAX_QUEUES", retry_after=60,
            )  # fmt: skip

    # -- queues -------------------------------------------------------------------------------------

    def _new_queue(self, name: str, now: int) -> NamedQueue:
        limits = self.limits
        shape = (limits.lane_segment, limits.lane_spare, limits.compact_above)
        queue = NamedQueue(name, shape, self._sleep, now)
        self.queues[name] = queue
        return queue

    def _sleep(self, gate: Limiter, at: int) -> None:
        if gate.wakes_at is not None:
            self._gates.drop(gate, gate.wakes_at)
        gate.wakes_at = at
        self._gates.add(gate, at)

    def _rest(self, queue: NamedQueue, now: int) -> None:
        """`queue` has no jobs since `now`; `_idle` stays in the order of that."""
        queue.used_at = now
        self._idle.pop(queue, None)
        self._idle[queue] = None


_NO_END = 1 << 63
_transition_of = TRANSITIONS.get  # bound once, and not at each move
_TAKEN_WHILE: dict[UniqueWhile, frozenset[str]] = {
    "queued": WAITING,
    "active": WAITING | {IN_PROGRESS},
    "exists": WAITING | {IN_PROGRESS} | FINISHED,
}
