"""All verbs compared with a model. This is the second of two state machines; test_queue_model.py has plain
jobs, the use of leases, and compaction.

The model is one list of jobs, which is searched and sorted as a whole each time. Its rules are those of
docs/api.md. Where these leave an order open (which of several due jobs is first), the order is taken from the
`event` hook of the queue and checked to be allowed.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import count
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import UNSET

from jobqueue.core.limiter import LATE, QUIET
from jobqueue.core.limits import Limits
from jobqueue.core.queue import JobQueue
from jobqueue.core.waiters import Waiter
from jobqueue.errors import (
    DuplicateJob,
    JobFinished,
    JobForgotten,
    LeaseLost,
    NotDead,
    NotWaiting,
    QueueFull,
)
from jobqueue.model import (
    INHERIT,
    Backoff,
    Change,
    DequeueRequest,
    ExistingJob,
    Filter,
    KeyLimits,
    LeaseClaim,
    NewJob,
    Options,
    QueueSettings,
    Rate,
)
from jobqueue.steps import FINISHED

THOROUGH = bool(os.environ.get("TEST_ALL"))
FIRST_ID = 1_000_001
QUEUES = ("a", "b", "letters")
STATUSES = ("scheduled", "queued", "in_progress", "concluded", "dead", "cancelled")
WAITING = ("scheduled", "queued")
SCOPES = {
    "queued": WAITING,
    "active": (*WAITING, "in_progress"),
    "exists": STATUSES,
}
RECORD, LINE = 512, 160  # what a finished job, and a line of its history, weigh
LIMITS = {"lane_segment": 16, "lease": 7_000, "max_attempts": 3, "backoff": Backoff(1_000, 3.0, 8_000)}


# -- the model --------------------------------------------------------------------------------------


@dataclass(eq=False)
class ModelJob:
    id: int
    new: NewJob
    queue: str
    priority: int
    payload: bytes
    created_at: int
    status: str = ""
    place: int = 0
    attempts: int = 0
    leases: int = 0
    token: str | None = None
    old_tokens: list = field(default_factory=list)
    consumer: str | None = None
    deadline: int = 0
    started_at: int = 0
    ended_by: str | None = None
    line: tuple = ()  # of the last lease: attempt, consumer, started, ended, outcome, error, reason
    history: list = field(default_factory=list)  # of those before
    due: int | None = None
    run_at: int | None = None
    expires_at: int | None = None
    expires_due: int | None = None  # by the monotonic clock, of a length
    restored_at: int | None = None  # finished in an earlier run: its retention follows the wall clock
    kept_for: int = 0
    max_attempts: int | None = INHERIT
    key: str | None = None
    retain_for: int | None = None
    backoff: Backoff | None = None
    lease_for: int | None = None
    max_run_for: int | None = None
    run: object = None  # the jobs of its key that were taken with it have the same
    ends: int | None = None  # the end of the lease that no heartbeat moves
    cancel_asked: bool = False
    reason: str | None = None
    dead_from: str | None = None
    dead_from_reason: str | None = None
    deaths: int = 0
    error: bytes | None = None
    result: bytes | None = None
    until: int = 0
    own_age: bool = False
    weight: int = 0
    gone: bool = False

    @property
    def unique(self):
        options = self.new.options
        return options.unique_key if options else None

    @property
    def has_its_key(self):
        return not self.gone and self.status in SCOPES[self.new.options.unique_while]


@dataclass(eq=False)
class ModelWaiter:
    request: DequeueRequest
    until: int


def kind_of(job):
    """What a finished job competes with for memory: with the jobs of its kind and queue, or with all plain ones."""
    if job.own_age:
        return "kept", job.queue
    return ("plain", None) if job.result is None else ("result", job.queue)


class Bucket:
    """Tokens of a rate, exact."""

    def __init__(self, rate):
        self.rate, self.tokens, self.at = rate, Fraction(rate.burst), None

    def fill(self, now):
        """Returns the tokens. Those above the burst are there for late ticks, and not after a quiet time."""
        if self.at is None or now >= self.fresh_at():
            return Fraction(self.rate.burst)
        late = min(Fraction(LATE * self.rate.count, self.rate.per), 1 - Fraction(1, self.rate.per))
        grown = Fraction((now - self.at) * self.rate.count, self.rate.per)
        return min(self.tokens + grown, self.rate.burst + late)

    def fresh_at(self):
        missing = self.rate.burst - self.tokens
        return self.at + -(-missing * self.rate.per // self.rate.count) + QUIET

    def take(self, now):
        self.tokens, self.at = self.fill(now) - 1, now

    def next_at(self, now):
        missing = 1 - self.fill(now)
        return now + -(-missing * self.rate.per // self.rate.count)


class Model:
    def __init__(self, limits):
        self.limits = limits
        self.number = FIRST_ID - 1  # gives ids and places
        self.jobs = {}
        self.settings = {name: QueueSettings() for name in QUEUES}
        # queue -> None, or until when by the monotonic clock (None: the wall clock counts) and by the wall
        # clock
        self.paused = {}
        self.buckets = {}  # (queue, key or None) -> Bucket
        self.runs = {}  # (queue, key) -> of the dequeue under way: the jobs of the run that more may join
        self.waiting = []
        self.finished = []  # in the order in which they finished
        self.now = 5_000
        self.offset = self.noted_offset = 1_800_000_000_000
        self.totals = dict.fromkeys(
            ("enqueued", "dequeued", "concluded", "stale", "released", "failed", "dead", "cancelled"), 0
        )

    @property
    def wall(self):
        return self.now + self.offset

    def step(self, ms):
        """Sets the wall clock. After a step of a second the ends of lengths are shown by it."""
        self.offset += ms
        if abs(self.offset - self.noted_offset) < 1_000:
            return
        self.noted_offset = self.offset
        for job in self.jobs.values():
            if job.due is not None and not job.gone:
                job.run_at = job.due + self.offset
            if job.expires_due is not None and not job.gone and job.status not in FINISHED:
                job.expires_at = job.expires_due + self.offset
        for name, until in self.paused.items():
            if until is not None and until[0] is not None:
                self.paused[name] = (until[0], until[0] + self.offset)

    def expires(self, job):
        """Returns when the job expires, by the monotonic clock; None: never."""
        if job.expires_at is None:
            return None
        return job.expires_at - self.offset if job.expires_due is None else job.expires_due

    def resumes(self, name):
        """Returns when the pause of a queue ends, by the monotonic clock; None: not by itself."""
        until = self.paused[name]
        if until is None:
            return None
        return until[1] - self.offset if until[0] is None else until[0]

    def next_number(self):
        self.number += 1
        return self.number

    def all(self, *statuses, queue=None):
        return [
            job
            for job in self.jobs.values()
            if not job.gone and job.status in statuses and queue in (None, job.queue)
        ]

    # -- what may be leased

    def key_rate(self, queue):
        limits = self.settings[queue].key_limits
        return limits.rate if limits else None

    def bucket(self, queue, key):
        rate = self.settings[queue].rate if key is None else self.key_rate(queue)
        if rate is None:
            return None
        return self.buckets.setdefault((queue, key), Bucket(rate))

    def is_ordered(self, queue, key):
        limits = self.settings[queue].key_limits
        return key is not None and limits is not None and limits.ordered

    def may_run(self, queue, key, most, taken=None):
        """`taken`: the job that is to be leased before its turn."""
        if self.is_ordered(queue, key):
            most = 1
            resting = [job for job in self.all("scheduled", queue=queue) if job.key == key and job.place]
            if any(job is not taken for job in resting):
                return False
        running = [job for job in self.all("in_progress", queue=queue) if key in (None, job.key)]
        if key is not None:
            running = {job.run for job in running}
        if most is not None and len(running) >= most and not self.has_room(queue, key):
            return False
        bucket = self.bucket(queue, key)
        return bucket is None or bucket.fill(self.now) >= 1

    def has_room(self, queue, key):
        """Returns whether one more job of the key may join the run of this dequeue."""
        run = self.runs.get((queue, key), ())
        limits = self.settings[queue].key_limits or KeyLimits()
        return key is not None and 0 < len(run) < limits.batch

    def eligible(self, queue):
        given = self.settings[queue]
        if queue in self.paused or not self.may_run(queue, None, given.max_in_progress):
            return []
        most = given.key_limits.max_in_progress if given.key_limits else None
        open_to = {}
        found = []
        for job in sorted(self.all("queued", queue=queue), key=lambda job: (-job.priority, job.place)):
            if job.key not in open_to:
                open_to[job.key] = job.key is None or self.may_run(queue, job.key, most)
            if open_to[job.key]:
                found.append(job)
        return found

    def dequeue(self, request):
        taken = self._dequeue(request)
        self.runs.clear()
        return taken

    def _dequeue(self, request):
        taken = []
        if request.by_priority:
            while len(taken) < (request.count or 1):
                firsts = [found[0] for queue in request.queues if (found := self.eligible(queue))]
                if not firsts:
                    break
                taken.append(min(firsts, key=lambda job: (-job.priority, job.place)))
                self.lease(taken[-1], request)
            return taken
        for queue in request.queues:
            while len(taken) < (request.count or 1) and (found := self.eligible(queue)):
                self.lease(found[0], request)
                taken.append(found[0])
        return taken

    def may_take(self, job):
        """Returns whether the job may be leased before its turn."""
        given = self.settings[job.queue]
        if job.queue in self.paused or not self.may_run(job.queue, None, given.max_in_progress):
            return False
        if job.key is None:
            return True
        most = given.key_limits.max_in_progress if given.key_limits else None
        if not self.may_run(job.queue, job.key, most, job):
            return False

        def order(each):
            return -each.priority, each.place or float("inf")

        others = [each for each in self.all("queued", queue=job.queue) if each.key == job.key]
        return not self.is_ordered(job.queue, job.key) or order(job) <= min(
            map(order, others), default=order(job)
        )

    def lease(self, job, request):
        if job.line:
            job.history.append(job.line)
        job.status = "in_progress"
        job.attempts += 1
        job.leases += 1
        job.consumer, job.started_at, job.ended_by = request.consumer, self.wall, None
        job.line = (job.attempts, request.consumer, self.wall, None, None, None, None)
        lease_for = (
            request.lease_for or job.lease_for or self.settings[job.queue].lease_for or self.limits.lease
        )
        slot = job.queue, job.key
        run = self.runs[slot] = [*self.runs[slot], job] if self.has_room(*slot) else [job]
        job.run = run[0].id, run[0].leases
        max_run_for = job.max_run_for or self.settings[job.queue].max_run_for
        job.ends = max_run_for and self.now + max_run_for
        self.extend(job, lease_for)
        self.totals["dequeued"] += 1
        for key in {None, job.key}:
            bucket = self.bucket(job.queue, key)
            if bucket is not None:
                bucket.take(self.now)

    def extend(self, job, lease_for):
        job.deadline = self.now + lease_for
        if job.ends is not None:
            job.deadline = max(min(job.deadline, job.ends), self.now)

    def serve(self):
        served = []
        for waiter in list(self.waiting):
            if taken := self.dequeue(waiter.request):
                self.waiting.remove(waiter)
                served.append((waiter, taken))
        return served

    # -- moves

    def end_lease(self, job, step, error=None, reason=None):
        job.ended_by = step
        attempt, consumer, started, *_ = job.line
        job.line = (attempt, consumer, started, self.wall, step, error, reason)

    def ready(self, job):
        job.status, job.due, job.run_at = "queued", None, None
        job.place = job.place or self.next_number()

    def schedule(self, job, delay=None, run_at=None, ordered_by=None):
        """Schedules the job by what is given, or makes it ready if that time is now or past. A job that rests
        gets a new place, unless it was leased before and its key is in strict order."""
        keeps = job.leases and self.is_ordered(*(ordered_by or (job.queue, job.key)))
        if (delay or (run_at is not None and run_at > self.wall)) and not keeps:
            job.place = 0
        if delay:
            job.status, job.due, job.run_at = "scheduled", self.now + delay, self.wall + delay
        elif run_at is not None and run_at > self.wall:
            job.status, job.due, job.run_at = "scheduled", None, run_at
        else:
            self.ready(job)

    def finish(self, job, status):
        self.totals[status] += 1
        job.status, job.due, job.run_at = status, None, None
        own = job.retain_for if job.retain_for is not None else self.settings[job.queue].retain_for
        general = self.limits.dead_retain if status == "dead" else self.limits.retain
        job.own_age = own is not None or status == "dead"
        job.until = self.now + (general if own is None else own)
        errors = [job.error, *(line[5] for line in job.history[-20:])]
        job.weight = (
            RECORD
            + len(job.payload)
            + len(job.result or b"")
            + LINE * len(job.history[-20:])
            + sum(len(error or b"") for error in errors)
        )
        job.restored_at = None
        if job in self.finished:
            self.finished.remove(job)
        self.finished.append(job)

    def bury(self, job, reason):
        job.reason = reason
        job.deaths += 1
        letter = self.settings[job.queue].dead_letter
        self.finish(job, "dead")
        if letter not in (None, job.queue) and job.dead_from is None:
            self.finished.remove(job)
            job.dead_from, job.queue = job.queue, letter
            job.dead_from_reason, job.reason = reason, None
            job.attempts, job.place, job.expires_at, job.expires_due = 0, 0, None, None
            self.ready(job)

    def limit_of(self, job):
        of_queue = self.settings[job.queue].max_attempts
        of_queue = self.limits.max_attempts if of_queue == INHERIT else of_queue
        return of_queue if job.max_attempts == INHERIT else job.max_attempts

    def attempts_exhausted(self, job):
        limit = self.limit_of(job)
        return limit is not None and job.attempts >= limit

    def stale(self, job, lost=False):
        self.totals["stale"] += 1
        overran = not lost and job.ends is not None and job.deadline >= job.ends
        self.end_lease(job, "stale", reason="max_run_for" if overran else None)
        if job.cancel_asked:
            self.finish(job, "cancelled")
        elif self.attempts_exhausted(job):
            job.status = "queued"
            self.bury(job, "attempts")
        elif job.history and job.history[-1][4] == "stale" and job.history[-1][0] == job.attempts - 1:
            self.schedule(job, self.rest(job))
        else:
            self.ready(job)

    def release(self, job, delay, priority=None):
        self.totals["released"] += 1
        self.end_lease(job, "put_off" if delay else "release")
        job.attempts -= 1
        if priority not in (None, job.priority):
            job.priority = priority
            job.place = job.place if self.is_ordered(job.queue, job.key) else 0
        if job.cancel_asked:
            if not delay and not job.place:
                self.next_number()  # it is queued for a moment
            self.finish(job, "cancelled")
        else:
            self.schedule(job, delay)

    def fail(self, job, error, retry, retry_in):
        self.totals["failed"] += 1
        job.error = error
        dies = not job.cancel_asked and (not retry or self.attempts_exhausted(job))
        self.end_lease(job, "bury" if dies else "fail", error)
        if job.cancel_asked:
            self.finish(job, "cancelled")
        elif dies:
            self.bury(job, "attempts" if retry else "no_retry")
        else:
            self.schedule(job, self.rest(job) if retry_in is None else retry_in)

    def rest(self, job):
        backoff = job.backoff or self.settings[job.queue].backoff or self.limits.backoff
        if backoff.steps:
            return [*backoff.steps, *[backoff.steps[-1]] * job.attempts][job.attempts - 1]
        rest = backoff.base
        for _ in range(job.attempts - 1):
            rest *= backoff.factor
        return int(min(rest, backoff.longest))

    # -- in

    def owners(self, new):
        key = new.options.unique_key if new.options else None
        return [
            job
            for job in self.jobs.values()
            if key is not None and job.unique == key and job.queue == new.queue and job.has_its_key
        ]

    def full(self, fresh, growth):
        held, most = sum(not job.gone for job in self.jobs.values()), self.limits.max_jobs
        if fresh and most is not None and held + len(fresh) > most:
            return True
        for queue in {new.queue for new in fresh}.union(growth):
            mine = [new.payload for new in fresh if new.queue == queue]
            there = [job.payload for job in self.all(*WAITING, queue=queue)] + mine
            most, largest = self.settings[queue].max_jobs, self.settings[queue].max_bytes
            if (mine and most is not None and len(there) > most) or (
                largest is not None and sum(map(len, there)) + growth[queue] > largest
            ):
                return True
        return False

    def refuses(self, job, change):
        """Returns whether there is no capacity for a job from another queue, or with a larger payload."""
        name = job.queue if change.queue is UNSET else change.queue
        payload = job.payload if change.payload is UNSET else change.payload
        there = self.all(*WAITING, queue=name)
        size = sum(len(each.payload) for each in there if each is not job) + len(payload)
        most, largest = self.settings[name].max_jobs, self.settings[name].max_bytes
        if name != job.queue:
            return (most is not None and len(there) + 1 > most) or (largest is not None and size > largest)
        return len(payload) > len(job.payload) and largest is not None and size > largest

    def refusal(self, news, growth):
        """Returns the error that refuses all of them, and the index."""
        wanted, fresh = [], []
        for index, new in enumerate(news):
            slot = (new.queue, new.options.unique_key) if new.options and new.options.unique_key else None
            taken = bool(slot) and (slot in wanted or bool(self.owners(new)))
            if taken and new.options.on_conflict == "reject":
                return DuplicateJob, index
            if not taken:
                fresh.append(new)
            if slot:
                wanted.append(slot)
        return (QueueFull, None) if self.full(fresh, growth) else (None, None)

    def put(self, new):
        self.totals["enqueued"] += 1
        options = new.options or Options()
        job = ModelJob(self.next_number(), new, new.queue, new.priority, new.payload, self.wall)
        job.max_attempts, job.key, job.retain_for = options.max_attempts, options.key, options.retain_for
        job.backoff, job.lease_for = options.backoff, options.lease_for
        job.max_run_for = options.max_run_for
        if new.expires_in is not None:
            job.expires_at, job.expires_due = self.wall + new.expires_in, self.now + new.expires_in
        self.jobs[job.id] = job
        if new.delay or (new.run_at is not None and new.run_at > self.wall):
            self.schedule(job, new.delay, new.run_at)
        else:
            job.status, job.place = "queued", job.id
        return job

    def change(self, job, change):
        before, ordered_by = (job.queue, job.priority), (job.queue, job.key)
        given = {name: getattr(change, name) for name in change.__struct_fields__}
        for name in (
            "queue", "priority", "payload", "max_attempts", "key", "backoff", "retain_for", "max_run_for",
        ):  # fmt: skip
            if given[name] is not UNSET:
                setattr(job, name, given[name])
        if change.expires_in is not UNSET:
            length = change.expires_in
            job.expires_at = None if length is None else self.wall + length
            job.expires_due = None if length is None else self.now + length
        if (job.queue, job.priority) != before:
            job.place = 0
        if change.delay is not UNSET or change.run_at is not UNSET:
            delay = None if change.delay is UNSET else change.delay
            self.schedule(job, delay, None if change.run_at is UNSET else change.run_at, ordered_by)
        elif job.status == "queued" and not job.place:
            self.ready(job)

    def move(self, job, target):
        if job.status == "dead":
            self.finished.remove(job)
            job.expires_at = job.expires_due = None
        if job.status == "dead" or target is None:
            job.attempts, job.reason = 0, None
        job.queue, job.place = target or job.dead_from, 0
        if target is None:
            job.dead_from = job.dead_from_reason = None
        if job.status != "scheduled":
            self.ready(job)

    # -- out of memory

    def remembered(self, dead):
        return [job for job in self.finished if (job.status == "dead") == dead]

    def crowded(self, dead):
        most, largest = (
            (self.limits.dead_jobs, self.limits.dead_bytes)
            if dead
            else (self.limits.retain_jobs, self.limits.retain_bytes)
        )
        kept = self.remembered(dead)
        return len(kept) > most or sum(job.weight for job in kept) > largest

    def forget(self, job):
        """Checks that the job is too old, or the first of its kind and queue above a limit. Which kind and queue
        it is of is the subject of test_retention."""
        dead = job.status == "dead"
        assert job in self.finished
        if job.until > self.now:
            assert self.crowded(dead)
            kind = kind_of(job)
            assert job is next(each for each in self.remembered(dead) if kind_of(each) == kind)
        self.finished.remove(job)
        job.gone = True

    def must_forget(self):
        too_old = any(job.until <= self.now for job in self.finished)
        return too_old or self.crowded(dead=True) or self.crowded(dead=False)


# -- what is drawn ----------------------------------------------------------------------------------

PICKS = st.integers(0, 999)
NAMES = st.sampled_from(["a", "a", "a", "b", "letters"])
KEYS = st.sampled_from(["k1", "k1", "k2", "k3"])
PRIORITIES = st.sampled_from([0, 0, 0, 1, -7])
PAYLOADS = st.sampled_from([b"null", b"null", b"0" * 40])
LENGTHS = st.sampled_from([1, 100, 900, 1_000, 60_000])


def mostly(absent, *others):
    return st.sampled_from([absent] * (2 * len(others)) + list(others))


BACKOFFS = [Backoff(steps=(100, 700)), Backoff(500, 2.0, 1_500, 0.9), Backoff(0, 1.0, 0), Backoff(steps=(0,))]
OPTIONS = st.builds(
    Options,
    lease_for=mostly(None, 500, 3_000),
    max_run_for=mostly(None, 700, 10_000),
    max_attempts=mostly(INHERIT, 1, 2, None),
    backoff=mostly(None, *BACKOFFS),
    retain_for=mostly(None, 0, 800, 100_000),
    unique_key=st.sampled_from([None, "u", "u", "v"]),
    unique_while=st.sampled_from(["queued", "active", "exists"]),
    on_conflict=st.sampled_from(["ignore", "reject", "replace"]),
    key=st.one_of(st.none(), KEYS),
)
NEW_JOBS = st.builds(
    NewJob,
    type=st.just("t"),
    queue=NAMES,
    priority=PRIORITIES,
    payload=PAYLOADS,
    delay=mostly(0, 1, 100, 2_000),
    expires_in=mostly(None, 0, 150, 5_000),
    options=st.one_of(st.none(), OPTIONS),
)
RATES = [Rate(1, 1024, 1), Rate(2, 1024, 3), Rate(1, 512, 2), Rate(1, 65_536, 4)]
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "lease_for": mostly(None, 400),
        "max_run_for": mostly(None, 600, 20_000),
        "max_attempts": st.sampled_from([INHERIT, 1, 2, None]),
        "backoff": mostly(None, *BACKOFFS),
        "retain_for": mostly(None, 0, 700),
        "dead_letter": st.sampled_from([None, "letters", "a", "b"]),
        "max_jobs": mostly(None, 0, 2, 9),
        "max_bytes": mostly(None, 0, 30, 90),
        "max_in_progress": st.sampled_from([None, 0, 1, 2]),
        "attributes": mostly(None, b"{}"),
        "rate": st.sampled_from([None, *RATES]),
        "key_limits": st.sampled_from(
            [
                None,
                KeyLimits(1),
                KeyLimits(2, RATES[0]),
                KeyLimits(ordered=True),
                KeyLimits(ordered=True, batch=3),
                KeyLimits(1, batch=2),
                KeyLimits(2, RATES[0], batch=4),
                *(KeyLimits(None, rate) for rate in RATES),
            ]
        ),
    },
)
REQUESTS = st.builds(
    DequeueRequest,
    queues=st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    lease_for=st.sampled_from([None, 100, 1_000, 60_000]),
    count=st.sampled_from([None, 1, 3, 20]),
    consumer=st.sampled_from([None, "ann", "bob"]),
    by_priority=st.booleans(),
)
UNSAID = st.just(UNSET)
CHANGES = st.builds(
    Change,
    queue=st.one_of(UNSAID, UNSAID, NAMES),
    priority=st.one_of(UNSAID, UNSAID, PRIORITIES),
    payload=st.one_of(UNSAID, PAYLOADS),
    delay=st.one_of(UNSAID, UNSAID, st.sampled_from([None, 0, 1, 800])),
    expires_in=st.one_of(UNSAID, UNSAID, st.sampled_from([None, 0, 300, 9_000])),
    max_attempts=st.one_of(UNSAID, st.sampled_from([INHERIT, 1, 2, None])),
    retain_for=st.one_of(UNSAID, st.sampled_from([None, 0, 500])),
    max_run_for=st.one_of(UNSAID, st.sampled_from([None, 300])),
    key=st.one_of(UNSAID, UNSAID, st.none(), KEYS),
)
RUN_ATS = st.sampled_from([None, None, -1_000, 0, 1, 1_000, 90_000])  # from now


# -- both, side by side -----------------------------------------------------------------------------


class VerbsAgainstModel(RuleBasedStateMachine):
    @initialize(
        retain=st.sampled_from([50_000, 1_000, 0]),
        retain_jobs=st.sampled_from([100, 100, 3, 0]),
        retain_bytes=st.sampled_from([1 << 20, 1 << 20, 2_000]),
        dead_retain=st.sampled_from([50_000, 1_000, 0]),
        dead_jobs=st.sampled_from([100, 100, 2, 0]),
        dead_bytes=st.sampled_from([1 << 20, 1 << 20, 1_800]),
        max_jobs=st.sampled_from([None, None, None, 20, 5]),
    )
    def begin(self, **given):
        limits = Limits(**LIMITS, **given)
        numbers = count(1)
        self.model = Model(limits)
        self.queue = JobQueue(lambda: f"lease-{next(numbers)}", FIRST_ID, limits, self.model.offset)
        self.queue.state.event = self.saw
        self.events, self.answers, self.deliveries, self.walks = [], [], [], []
        self.waiters = {}

    def saw(self, kind, job):
        if kind not in ("change", "pause", "resume", "drop"):  # not steps
            self.events.append((kind, job.id))

    # -- in ---------------------------------------------------------------------------------------

    @rule(news=st.lists(NEW_JOBS, min_size=1, max_size=6), run_at=RUN_ATS)
    def enqueue(self, news, run_at):
        for new in news:
            self._enqueue([self._timed(new, run_at)], batch=False)

    @rule(news=st.lists(NEW_JOBS, min_size=1, max_size=9), run_at=RUN_ATS)
    def enqueue_many(self, news, run_at):
        self._enqueue([self._timed(new, run_at) for new in news], batch=True)

    @rule(number=st.integers(3, 12), name=NAMES, key=st.one_of(st.none(), KEYS))
    def enqueue_under_one_key(self, number, name, key):
        self._enqueue([NewJob("t", name, options=Options(key=key)) for _ in range(number)], batch=True)

    def _timed(self, new, run_at):
        options = new.options
        if options is not None:  # the queue keeps what it was given, and changes it
            options = Options(*(getattr(options, name) for name in options.__struct_fields__))
        at = None if run_at is None or new.delay else self.model.wall + run_at
        return NewJob(new.type, new.queue, new.priority, new.payload, new.delay, at, new.expires_in, options)

    def _enqueue(self, news, batch):
        refusal, index = self.model.refusal(news, self._growth(news))

        def call():
            if batch:
                return self.queue.enqueue_many(news, self.model.now)
            return [self.queue.enqueue(news[0], self.model.now)]

        if refusal is not None:
            owners = [job.id for job in self.model.owners(news[index or 0])]
            with pytest.raises(refusal) as refused:
                call()
            if refusal is DuplicateJob:
                assert refused.value.facts.get("job_id") in (owners or [None])
                assert refused.value.facts.get("index", 0) == index
            self.match()
            return
        answers = call()
        for new, answer in zip(news, answers, strict=True):
            owners = self.model.owners(new)
            assert isinstance(answer, ExistingJob) == bool(owners)
            if not owners:
                assert answer.id == self.model.put(new).id
                continue
            [owner] = [job for job in owners if job.id == answer.job.id]
            replaces = new.options.on_conflict == "replace"
            if replaces and owner.status in WAITING and owner.leases == 0:
                self.model.change(
                    owner,
                    Change(payload=new.payload, priority=new.priority, delay=new.delay, run_at=new.run_at),
                )
        self.match()

    def _growth(self, news):
        """Returns by how much the replaced payloads grow, for each queue. (The queue knows which job owns a key.)"""
        growth, sizes = Counter(), {}
        for new in news:
            if new.options is None or new.options.unique_key is None:
                continue
            slot, size = (new.queue, new.options.unique_key), len(new.payload)
            if self.model.owners(new):
                owner = self.queue.state.queues[new.queue].unique.owner[new.options.unique_key]
                if owner.status not in WAITING or owner.leases:
                    continue
                sizes.setdefault(slot, len(owner.payload))
            if slot in sizes and new.options.on_conflict == "replace":
                growth[new.queue] += max(size - sizes[slot], 0)
                sizes[slot] = size
            sizes.setdefault(slot, size)
        return +growth

    # -- out --------------------------------------------------------------------------------------

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=4))
    def dequeue(self, requests):
        for request in requests:
            expected = self.model.dequeue(request)
            self._compare_deliveries(expected, self.queue.dequeue(request, self.model.now))
        self.match()

    @rule(picks=st.lists(PICKS, min_size=1, max_size=3), request=REQUESTS)
    def dequeue_job(self, picks, request):
        for pick in picks:
            job = self._any(pick, *WAITING)
            if job is None:
                return
            if job.gone or job.status not in WAITING:
                with pytest.raises(JobForgotten if job.gone else NotWaiting):
                    self.queue.dequeue_job(job.id, request, self.now)
                continue
            expected = []
            if self.model.may_take(job):
                if job.status == "scheduled":
                    self.model.ready(job)
                self.model.lease(job, request)
                self.model.runs.clear()
                expected = [job]
            self._compare_deliveries(expected, self.queue.dequeue_job(job.id, request, self.now))
            self.match()

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=3), wait=st.integers(1, 3_000))
    def dequeue_or_wait(self, requests, wait):
        for request in requests:
            expected = self.model.dequeue(request)
            self._compare_deliveries(expected, self.queue.dequeue(request, self.model.now))
            if not expected:
                waiting = ModelWaiter(request, self.model.now + wait)
                waiter = Waiter(request, waiting.until, partial(self._deliver, waiting))
                self.model.waiting.append(waiting)
                self.waiters[waiting] = waiter
                self.queue.wait(waiter)
        self.match()

    @precondition(lambda self: self.model.waiting)
    @rule(pick=PICKS)
    def stop_waiting(self, pick):
        self.queue.stop_waiting(self.waiters[self.model.waiting.pop(pick % len(self.model.waiting))])
        self.match()

    # -- the end of a lease -----------------------------------------------------------------------

    @rule(picks=st.lists(PICKS, min_size=1, max_size=3), result=st.sampled_from([None, b"1", b"0" * 99]))
    def conclude(self, picks, result):
        for pick in picks:
            job, token = self._under_lease(pick)
            if self._may(job, token, ("conclude",), self._conclude, result):
                job.result = result
                self.model.end_lease(job, "conclude")
                self.model.finish(job, "concluded")
                self.match()

    @rule(
        picks=st.lists(PICKS, min_size=1, max_size=3),
        delay=st.sampled_from([0, 0, 1, 700]),
        priority=mostly(None, 0, 1, -7),
    )
    def release(self, picks, delay, priority):
        for pick in picks:
            job, token = self._under_lease(pick)
            if self._may(job, token, ("release", "put_off"), self._release, delay, priority):
                self.model.release(job, delay, priority)
                self.match()

    @rule(
        picks=st.lists(PICKS, min_size=1, max_size=4),
        error=st.sampled_from([None, b'"bad"']),
        retry=st.sampled_from([True, True, True, False]),
        retry_in=st.sampled_from([None, None, 0, 300]),
    )
    def fail(self, picks, error, retry, retry_in):
        for pick in picks:
            job, token = self._under_lease(pick)
            if self._may(job, token, ("fail", "bury"), self.queue.fail, error, retry, retry_in):
                self.model.fail(job, error, retry, retry_in)
                self.match()

    @rule(pick=PICKS, lease_for=st.sampled_from([1, 1_000, 90_000]))
    def heartbeat(self, pick, lease_for):
        job, token = self._under_lease(pick)
        if self._may(job, token, (), self.queue.heartbeat, lease_for):
            self.model.extend(job, lease_for)
            self.match()

    @precondition(lambda self: self.deliveries)
    @rule(pick=PICKS)
    def lose(self, pick):
        given, lease = self.deliveries[-1 - pick % len(self.deliveries)]
        job = self.model.jobs[given.id]
        if not job.gone and job.status == "in_progress" and job.token == lease.token:
            self.model.stale(job, lost=True)
        self.queue.lose([(given, lease)], self.now)
        self.match()

    @precondition(lambda self: self.deliveries)
    @rule(pick=PICKS)
    def give_back(self, pick):
        given, lease = self.deliveries[-1 - pick % len(self.deliveries)]
        job = self.model.jobs[given.id]
        if not job.gone and job.status == "in_progress" and job.token == lease.token:
            self.model.release(job, 0)
        self.queue.give_back([(given, lease)], self.now)
        self.match()

    # -- from outside -----------------------------------------------------------------------------

    @rule(picks=st.lists(PICKS, min_size=1, max_size=3), force=st.booleans())
    def cancel(self, picks, force):
        for pick in picks:
            job = self._any(pick)
            if job is None:
                return
            if job.gone or job.status == "concluded":
                with pytest.raises(JobForgotten if job.gone else JobFinished):
                    self.queue.cancel(job.id, self.now, force)
                continue
            if job.status == "in_progress" and not force:
                job.cancel_asked = True
            elif job.status != "cancelled":
                if job.status == "in_progress":
                    self.model.end_lease(job, "cancel")
                self.model.finish(job, "cancelled")
            assert self.queue.cancel(job.id, self.now, force).status == job.status
            self.match()

    @rule(pick=PICKS, change=CHANGES, run_at=RUN_ATS)
    def change(self, pick, change, run_at):
        job = self._any(pick, *WAITING)
        if job is None:
            return
        if run_at is not None and change.delay is UNSET:
            change.run_at = self.model.wall + run_at
        if job.gone or job.status not in WAITING:
            with pytest.raises(JobForgotten if job.gone else NotWaiting):
                self.queue.change(job.id, change, self.now)
            return
        if self.model.refuses(job, change):
            with pytest.raises(QueueFull):
                self.queue.change(job.id, change, self.now)
            return
        self.model.change(job, change)
        assert self.queue.change(job.id, change, self.now).id == job.id
        self.match()

    @rule(picks=st.lists(PICKS, min_size=1, max_size=3))
    def redrive(self, picks):
        for pick in picks:
            job = self._any(pick, "dead")
            if job is None:
                return
            if job.gone or job.status != "dead":
                with pytest.raises(JobForgotten if job.gone else NotDead):
                    self.queue.redrive(job.id, self.now)
                continue
            self.model.finished.remove(job)
            job.attempts, job.place, job.reason = 0, 0, None
            job.expires_at = job.expires_due = None
            self.model.ready(job)
            self.queue.redrive(job.id, self.now)
            self.match()

    @rule(picks=st.lists(PICKS, min_size=1, max_size=3))
    def purge(self, picks):
        for pick in picks:
            job = self._any(pick)
            if job is None or job.gone:
                continue
            if job in self.model.finished:
                self.model.finished.remove(job)
            if job.status == "in_progress":
                self.model.end_lease(job, "purge")
            job.gone = True
            self.queue.purge_one(self.queue.get(job.id), self.now)
            self.queue.match(self.now)
            self.match()

    @rule(picks=st.lists(PICKS, min_size=1, max_size=3))
    def run_now(self, picks):
        for pick in picks:
            job = self._any(pick, "scheduled")
            if job is None or job.gone or job.status != "scheduled":
                continue
            self.model.ready(job)
            self.queue.run_one_now(self.queue.get(job.id), self.now)
            self.queue.match(self.now)
            self.match()

    @rule(picks=st.lists(PICKS, min_size=1, max_size=3), to=NAMES | st.none())
    def move(self, picks, to):
        """Without `to` the jobs return to the queues in which they died."""
        for pick in picks:
            job = self._any(pick, *WAITING, "dead")
            if job is None or job.gone or job.status not in (*WAITING, "dead"):
                continue
            target = to or job.dead_from
            if target in (None, job.queue):
                continue
            moved = self.queue.get(job.id)
            if self.model.refuses(job, Change(queue=target)):
                before = (moved.queue, moved.status, moved.attempts, moved.version)
                with pytest.raises(QueueFull):
                    self.queue.move_one(moved, to, self.now)
                assert (moved.queue, moved.status, moved.attempts, moved.version) == before
                continue
            self.model.move(job, to)
            self.queue.move_one(moved, to, self.now)
            self.queue.match(self.now)
            self.match()

    # -- queues -----------------------------------------------------------------------------------

    @rule(name=NAMES, given=SETTINGS)
    def configure(self, name, given):
        before = self.model.settings[name]
        after = QueueSettings(*(given.get(each, getattr(before, each)) for each in before.__struct_fields__))
        key_rate = self.model.key_rate(name)
        self.model.settings[name] = after
        for queue, key in list(self.model.buckets):
            changed = after.rate != before.rate if key is None else self.model.key_rate(name) != key_rate
            if queue == name and changed:
                del self.model.buckets[queue, key]
        assert self.queue.configure(name, given, self.now).settings == after
        self.match()

    @rule(name=NAMES, length=st.sampled_from([None, 1, 900, 50_000]))
    def pause(self, name, length):
        model = self.model
        model.paused[name] = None if length is None else (model.now + length, model.wall + length)
        self.queue.pause(name, length, "tired", self.now)
        self.match()

    @rule(name=NAMES)
    def resume(self, name):
        self.model.paused.pop(name, None)
        self.queue.resume(name, self.now)
        self.match()

    # -- looking ----------------------------------------------------------------------------------

    @rule(
        rising=st.booleans(),
        most=st.integers(1, 5),
        examine=st.integers(1, 9),
        statuses=st.sampled_from([None, frozenset(WAITING), frozenset(["queued", "dead"])]),
        keys=st.sampled_from([None, None, frozenset(["k1", "k2"])]),
    )
    def begin_a_walk(self, rising, most, examine, statuses, keys):
        wanted = Filter(statuses=statuses, keys=keys)
        start = 0 if rising else 1 << 60
        self.walks.append(Walk(wanted, rising, most, examine, start, self._matching(wanted)))

    @precondition(lambda self: self.walks)
    @rule(pick=PICKS, pages=st.sampled_from([1, 2, 3, 99]))
    def go_on_with_a_walk(self, pick, pages):
        walk = self.walks[pick % len(self.walks)]
        for _ in range(pages):
            at = walk.at
            if walk.at is None:
                self.walks.remove(walk)
                assert walk.all_along <= set(walk.seen)
                return
            found, walk.at = self.queue.scan(
                walk.wanted, walk.at, walk.rising, self.now, walk.most, walk.examine
            )
            matching = self._matching(walk.wanted)
            examined = self._behind(at, walk.rising)[: walk.examine]
            assert [job.id for job in found] == [id_ for id_ in examined if id_ in matching][: walk.most]
            walk.seen += [job.id for job in found]
            assert walk.seen == sorted(set(walk.seen), reverse=not walk.rising)

    @invariant()
    def scans_return_what_was_there_all_along(self):
        for walk in self.walks:
            walk.all_along &= self._matching(walk.wanted) | set(walk.seen)

    def _behind(self, at, rising):
        ids = sorted(job.id for job in self.model.all(*STATUSES))
        return [id_ for id_ in ids if id_ > at] if rising else [id_ for id_ in ids[::-1] if id_ < at]

    def _matching(self, wanted):
        return {
            job.id
            for job in self.model.all(*STATUSES)
            if (wanted.statuses is None or job.status in wanted.statuses)
            and (wanted.keys is None or job.key in wanted.keys)
        }

    # -- time -------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 99, 100, 512, 1_000, 1_024, 5_000, 100_000]))
    def let_time_pass(self, ms):
        self._go_to(self.now + ms)

    @rule(pick=PICKS, edge=st.sampled_from([-1, 0, 0, 0, 1]))
    def go_to_an_edge(self, pick, edge):
        edges = self._edges(finished=pick % 3 == 0)
        if edges:
            self._go_to(max(self.now, edges[pick % min(len(edges), 3)] + edge))

    def _go_to(self, now):
        """Moves the clock and ticks at each edge on the way, as frequent ticks do."""
        while edges := [edge for edge in self._edges(finished=False) if edge <= now]:
            self.model.now = edges[0]
            self.tick()
        self.model.now = now
        self.tick()

    def _edges(self, finished):
        """Returns the future times at which something changes by itself."""
        model, offset = self.model, self.model.offset
        edges = {job.deadline for job in model.all("in_progress")}
        edges |= {job.due for job in model.all("scheduled") if job.due is not None}
        edges |= {job.run_at - offset for job in model.all("scheduled") if job.due is None}
        edges |= {model.expires(job) for job in model.all(*WAITING) if job.expires_at is not None}
        edges |= {model.resumes(name) for name in model.paused if model.paused[name] is not None}
        edges |= {waiting.until for waiting in model.waiting}
        edges |= {job.until for job in model.finished if finished}
        edges |= {bucket.next_at(self.now) for bucket in model.buckets.values()}
        return sorted(when for when in edges if when > self.now)

    @rule(ms=st.sampled_from([-86_400_000, -5_000, -1, 1, 1_000, 86_400_000]))
    def set_the_wall_clock(self, ms):
        self.stop_all_waits()  # much may be due at once now, and come in any order
        self.model.step(ms)
        self.stepped()
        self.queue.state.set_wall_offset(self.model.offset)
        self.tick()

    def stepped(self):
        """Called after a step of the wall clock in the model, for what a restart leaves to that clock."""

    def tick(self):
        model = self.model
        for _ in range(1_000):
            if not self.queue.tick(self.now)[1]:
                break
        due = {job.id for job in model.all("in_progress") if job.deadline <= self.now}
        follows, events, self.events = [], self.events, []
        model.paused = {
            name: until
            for name, until in model.paused.items()
            if until is None or model.resumes(name) > self.now
        }
        served = None
        for step, id_ in events:
            job = model.jobs[id_]
            if (step, id_) in follows:
                follows.remove((step, id_))
            elif step == "stale":
                due.remove(id_)
                deaths = job.deaths
                model.stale(job)
                if job.status == "cancelled":
                    follows.append(("cancel", id_))
                elif job.deaths > deaths:
                    follows.append(("bury", id_))
                elif job.status == "scheduled":
                    follows += [("leave", id_), ("enter_later", id_)]
            elif step == "bury":
                assert job.status in WAITING
                assert model.expires(job) <= self.now
                model.bury(job, "expired")
            elif step == "ready":
                assert job.status == "scheduled"
                assert job.due <= self.now if job.due is not None else job.run_at <= model.wall
                model.ready(job)
            elif step == "forget":
                model.forget(job)
            elif step in ("leave", "enter"):
                assert job.dead_from is not None
            else:
                assert step in ("lease", "bury")
                served = model.serve() if served is None else served
        assert not due
        expiries = [model.expires(job) for job in model.all(*WAITING) if job.expires_at is not None]
        assert all(expires > self.now for expires in expiries)
        assert not any(
            job.due <= self.now if job.due is not None else job.run_at <= model.wall
            for job in model.all("scheduled")
        )
        served = model.serve() if served is None else served
        over = [waiting for waiting in model.waiting if waiting.until <= self.now]
        model.waiting = [waiting for waiting in model.waiting if waiting.until > self.now]
        nothing = [waiting for waiting, deliveries in self.answers if not deliveries]
        assert sorted(map(id, nothing)) == sorted(map(id, over))
        self.answers = [answer for answer in self.answers if answer[1]]
        self._compare_served(served)
        assert not model.must_forget()

    def match(self):
        """Checks after each verb that waiters were served, and that what was forgotten might be."""
        self._compare_served(self.model.serve())
        events, self.events = self.events, []
        for step, id_ in events:
            if step == "forget":
                self.model.forget(self.model.jobs[id_])

    # -- what holds after each of them ------------------------------------------------------------

    @invariant()
    def every_job_is_as_expected(self):
        for expected in self.model.jobs.values():
            if expected.gone:
                with pytest.raises(JobForgotten):
                    self.queue.get(expected.id)
                continue
            job = self.queue.get(expected.id)
            more = job.extras
            trace = more.trace if more else None
            options = more.options if more else None
            assert (job.status, job.queue, job.priority, job.payload) == (
                expected.status,
                expected.queue,
                expected.priority,
                expected.payload,
            )
            assert (job.attempts, job.leases) == (expected.attempts, expected.leases)
            if expected.status == "queued":
                assert job.place == expected.place
            assert (job.lease and job.lease.token) == expected.token
            assert (job.lease and job.lease.ended_by) == expected.ended_by
            if expected.status == "in_progress":
                assert (job.lease.expires, job.lease.consumer) == (expected.deadline, expected.consumer)
            assert bool(more and more.cancel_requested) == expected.cancel_asked
            assert (more and more.result) == expected.result
            assert (more and more.run_at) == expected.run_at
            assert (more and more.due) == expected.due
            assert bool(more and more.finished_at) == (expected in self.model.finished)
            assert (options and options.expires_at) == expected.expires_at
            assert (options and options.key) == expected.key
            assert (trace and trace.reason) == expected.reason
            assert (trace and trace.dead_from) == expected.dead_from
            assert (trace and trace.dead_from_reason) == expected.dead_from_reason
            assert (trace and trace.error) == expected.error
            lines = [
                (
                    line.attempt,
                    line.consumer,
                    line.started_at,
                    line.ended_at,
                    line.outcome,
                    line.error,
                    line.reason,
                )
                for line in (trace.history if trace else ())
            ]
            assert lines == expected.history[-20:]

    @invariant()
    def counts_add_up(self):
        assert self.queue.state.counts.totals() == self.model.totals
        assert self.queue.state.remembered == len(self.model.finished)
        assert self.queue.state.remembered_bytes == sum(job.weight for job in self.model.finished)
        assert len(self.queue.state.waiters) == len(self.model.waiting)
        for name in QUEUES:
            view, queue = self.queue.view(name, self.now), self.queue.state.queues.get(name)
            counts = {status: len(self.model.all(status, queue=name)) for status in STATUSES}
            assert view.jobs == counts
            assert (view.pause is not None) == (name in self.model.paused)
            if (until := self.model.paused.get(name)) is not None:
                assert view.pause.until == until[1]
            if queue is not None:
                waiting = self.model.all(*WAITING, queue=name)
                assert (queue.queued, queue.scheduled) == (counts["queued"], counts["scheduled"])
                retrying = [
                    job
                    for job in self.model.all("scheduled", queue=name)
                    if job.attempts and job.ended_by in ("fail", "stale")
                ]
                assert queue.retrying == len(retrying)
                assert queue.bytes == sum(len(job.payload) for job in waiting)
                assert queue.size == sum(counts.values())

    @invariant()
    def each_lane_is_in_order_and_each_key_has_its_own(self):
        for name, queue in self.queue.state.queues.items():
            seen = []
            for lane in queue.lanes:
                jobs = [self.model.jobs[job.id] for job in lane]
                assert len(jobs) == lane.live
                assert len({(job.priority, job.key) for job in jobs}) <= 1
                assert [job.place for job in jobs] == sorted(job.place for job in jobs)
                seen += jobs
            assert sorted(job.id for job in seen) == sorted(
                job.id for job in self.model.all("queued", queue=name)
            )

    @invariant()
    def unique_keys_are_owned_by_the_jobs_that_claim_them(self):
        for name in QUEUES:
            queue = self.queue.state.queues.get(name)
            having = {
                job.unique
                for job in self.model.jobs.values()
                if job.queue == name and job.unique is not None and job.has_its_key
            }
            assert set(queue.unique.owner if queue else ()) == having

    @invariant()
    def limiters_count_the_jobs_in_progress(self):
        for name, queue in self.queue.state.queues.items():
            running = self.model.all("in_progress", queue=name)
            if queue.limiter is not None:
                assert queue.limiter.in_progress == len(running)
            for key in {job.key for job in self.model.all(*STATUSES)} - {None}:
                group = queue.groups.get(key)
                mine = [job for job in running if job.key == key]
                assert (group.limiter.in_progress if group else 0) == len({job.run for job in mine})
                assert (group.limiter.jobs_in_progress if group else 0) == len(mine)
                assert not (group and group.limiter.room)

    @invariant()
    def no_waiter_could_have_a_job(self):
        for waiting in self.model.waiting:
            assert not any(self.model.eligible(name) for name in waiting.request.queues)

    def check_all(self):
        for holds in (
            self.scans_return_what_was_there_all_along,
            self.every_job_is_as_expected,
            self.counts_add_up,
            self.each_lane_is_in_order_and_each_key_has_its_own,
            self.unique_keys_are_owned_by_the_jobs_that_claim_them,
            self.limiters_count_the_jobs_in_progress,
            self.no_waiter_could_have_a_job,
        ):
            holds()

    def teardown(self):
        """Takes all jobs that may be leased, in order; then, without limits, the others."""
        if not hasattr(self, "queue"):
            return
        for name in QUEUES:
            self.stop_all_waits()
            self.dequeue([DequeueRequest((name,), 1_000, 1_000)])
            self.resume(name)
            self.configure(name, {"max_in_progress": None, "rate": None, "key_limits": None})
            self.dequeue([DequeueRequest((name,), 1_000, 1_000)])
            assert self.model.all("queued", queue=name) == []
        self.check_all()

    def stop_all_waits(self):
        while self.model.waiting:
            self.stop_waiting(0)

    # -- helpers ----------------------------------------------------------------------------------

    @property
    def now(self):
        return self.model.now

    def _deliver(self, waiting, deliveries):
        self.answers.append((waiting, deliveries))

    def _any(self, pick, *among):
        """Mostly a job of a given status, sometimes any."""
        jobs = self.model.all(*(among if among and pick % 4 else STATUSES)) or self.model.all(*STATUSES)
        if pick % 17 == 0:
            jobs = list(self.model.jobs.values())
        return jobs[pick % len(jobs)] if jobs else None

    def _under_lease(self, pick):
        """A job and a token: mostly one in progress with its current token, sometimes with an old one."""
        jobs = self.model.all("in_progress")
        if not jobs or pick % 6 == 0:
            jobs = [job for job in self.model.all(*STATUSES) if job.token]
        if not jobs:
            return None, None
        job = jobs[pick % len(jobs)]
        old = job.old_tokens and pick % 7 == 0
        return job, job.old_tokens[pick % len(job.old_tokens)] if old else job.token

    def _conclude(self, claim, result, now):
        return self.queue.conclude(claim.id, claim.token, claim.consumer, result, now)

    def _release(self, claim, delay, priority, now):
        return self.queue.release(claim, delay, now, priority)

    def _may(self, job, token, steps, verb, *rest):
        """Calls the verb. Returns True if it acted, False if it was refused or had the same answer again."""
        if job is None:
            return False

        def call():
            return verb(LeaseClaim(job.id, token, None), *rest, self.now)

        current = token == job.token
        if current and job.status == "in_progress":
            assert call().id == job.id
            return True
        if current and job.ended_by in steps:
            assert call().status == job.status
        else:
            with pytest.raises(LeaseLost) as lost:
                call()
            assert lost.value.facts == {"job_status": job.status, "attempts": job.attempts}
        return False

    def _compare_deliveries(self, expected, deliveries):
        assert [job.id for job, _ in deliveries] == [job.id for job in expected]
        for job, (given, lease) in zip(expected, deliveries, strict=True):
            assert lease is given.lease
            if job.token is not None:
                job.old_tokens.append(job.token)
            assert lease.token not in job.old_tokens
            job.token = lease.token
            self.deliveries.append((given, lease))

    def _compare_served(self, served):
        assert [id(waiting) for waiting, _ in self.answers] == [id(waiting) for waiting, _ in served]
        for (_, jobs), (_, deliveries) in zip(served, self.answers, strict=True):
            self._compare_deliveries(jobs, deliveries)
        self.answers.clear()


@dataclass(eq=False)
class Walk:
    wanted: Filter
    rising: bool
    most: int
    examine: int
    at: int | None
    all_along: set
    seen: list = field(default_factory=list)


VerbsAgainstModel.TestCase.settings = settings(
    max_examples=200 if THOROUGH else 40,
    stateful_step_count=50 if THOROUGH else 25,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    print_blob=True,
)
test_all_verbs_do_what_the_model_does = VerbsAgainstModel.TestCase


@pytest.mark.parametrize("seed", range(24 if THOROUGH else 2))
def test_all_verbs_do_what_the_model_does_in_a_long_run(seed):
    """A longer run than the others, with the same rules."""
    random = Random(seed)
    machine = VerbsAgainstModel()
    machine.begin(
        retain=random.choice([5_000, 100_000]), retain_jobs=30, retain_bytes=30_000,
        dead_retain=20_000, dead_jobs=12, dead_bytes=30_000,
    )  # fmt: skip

    def often(absent, *others):
        return random.choice([absent] * (2 * len(others)) + list(others))

    def pick():
        return random.randrange(1_000)

    def picks():
        return [pick() for _ in range(random.randint(1, 3))]

    def name():
        return random.choice(["a", "a", "a", "b", "letters"])

    def key():
        return random.choice(["k1", "k1", "k2", "k3"])

    def new_jobs():
        return [new_job() for _ in range(random.randint(1, 6))]

    def new_job():
        options = Options(
            lease_for=often(None, 500),
            max_run_for=often(None, 700),
            max_attempts=often(INHERIT, 1, 2, None),
            backoff=often(None, *BACKOFFS),
            retain_for=often(None, 0, 800),
            unique_key=random.choice([None, None, "u", "v", "w"]),
            unique_while=random.choice(["queued", "active", "exists"]),
            on_conflict=random.choice(["ignore", "reject", "replace"]),
            key=often(None, "k1", "k2", "k3"),
        )
        return NewJob(
            "t",
            name(),
            random.choice([0, 0, 0, 1, -7]),
            random.choice([b"null", b"0" * 40]),
            often(0, 1, 100, 2_000),
            None,
            often(None, 150, 5_000),
            random.choice([options, None]),
        )

    def requests():
        queues = tuple(name() for _ in range(random.randint(1, 3)))
        lease_for = random.choice([None, 100, 1_000, 60_000])
        count, consumer, by_priority = (random.choice(some) for some in ([None, 1, 3], [None, "ann"], [0, 1]))
        return [DequeueRequest(queues, lease_for, count, consumer, by_priority=bool(by_priority))]

    def change():
        return Change(
            queue=often(UNSET, "a", "b"),
            priority=often(UNSET, 0, 1),
            payload=often(UNSET, b"null", b"0" * 30),
            delay=often(UNSET, None, 0, 800),
            expires_in=often(UNSET, None, 300),
            max_attempts=often(UNSET, INHERIT, 2),
            key=often(UNSET, None, "k1", "k2"),
        )

    def given():
        key_limits = [
            None, KeyLimits(1), KeyLimits(2, RATES[0]), KeyLimits(None, RATES[2]),
            KeyLimits(None, None, True), KeyLimits(3, None, True), KeyLimits(None, None, True, 3),
            KeyLimits(1, None, False, 2), KeyLimits(2, RATES[1], False, 4),
        ]  # fmt: skip
        choices = [
            {"max_in_progress": random.choice([None, None, 1, 3])},
            {"rate": random.choice([None, None, *RATES])},
            {"key_limits": random.choice(key_limits)},
            {"max_jobs": often(None, 9), "max_bytes": often(None, 90)},
            {"dead_letter": random.choice([None, "letters", "a", "b"])},
            {"max_attempts": often(INHERIT, 1, None), "backoff": often(None, *BACKOFFS)},
            {"lease_for": often(None, 400), "retain_for": often(None, 700)},
            {"max_run_for": often(None, 600, 20_000)},
        ]
        return random.choice(choices)

    steps = [
        (9, lambda: machine.enqueue(new_jobs(), often(None, -1_000, 1, 1_000))),
        (3, lambda: machine.enqueue_many(new_jobs(), None)),
        (3, lambda: machine.enqueue_under_one_key(random.randint(3, 12), name(), key())),
        (12, lambda: machine.dequeue(requests())),
        (12, lambda: machine.dequeue_or_wait(requests(), random.randint(1, 3_000))),
        (5, lambda: machine.dequeue_job(picks(), requests()[0])),
        (1, lambda: machine.model.waiting and machine.stop_waiting(pick())),
        (6, lambda: machine.conclude(picks(), often(None, b"1"))),
        (5, lambda: machine.release(picks(), often(0, 1, 700), often(None, 0, 1))),
        (8, lambda: machine.fail(picks(), often(None, b'"bad"'), pick() % 5 > 0, often(None, 0, 300))),
        (3, lambda: machine.heartbeat(pick(), random.choice([1, 1_000, 90_000]))),
        (2, lambda: machine.deliveries and machine.give_back(pick() % 9)),
        (2, lambda: machine.deliveries and machine.lose(pick() % 9)),
        (3, lambda: machine.cancel(picks(), pick() % 3 == 0)),
        (6, lambda: machine.change(pick(), change(), often(None, 0, 1_000))),
        (4, lambda: machine.redrive(picks())),
        (1, lambda: machine.purge(picks())),
        (2, lambda: machine.run_now(picks())),
        (3, lambda: machine.move(picks(), often(None, "a", "b", "letters"))),
        (4, lambda: machine.configure(name(), given())),
        (1, lambda: machine.pause(name(), random.choice([None, 900, 5_000]))),
        (3, lambda: machine.resume(name())),
        (
            1,
            lambda: machine.begin_a_walk(
                pick() % 2 > 0, random.randint(1, 5), random.randint(1, 9), None, None
            ),
        ),
        (4, lambda: machine.walks and machine.go_on_with_a_walk(pick(), random.choice([2, 999]))),
        (9, lambda: machine.let_time_pass(random.choice([1, 99, 512, 1_000, 1_024]))),
        (12, lambda: machine.go_to_an_edge(pick(), random.choice([-1, 0, 0, 1]))),
        (1, lambda: machine.set_the_wall_clock(random.randint(-5_000, 5_000))),
    ]
    weights, acts = zip(*steps, strict=True)
    for number, act in enumerate(random.choices(acts, weights, k=1_500)):
        act()
        machine.queue.compact()
        machine.scans_return_what_was_there_all_along()
        if number % 25 == 0:
            machine.check_all()
    assert min(machine.model.totals.values()) > 20
    machine.teardown()
