"""The queue against a model: one JobQueue and the plainest program that says the same, driven side by side.

The model keeps its jobs in one list and searches and sorts it whole at each question. Where API.md leaves an
order open (which of several stale jobs comes back first, when old finished jobs go), the model takes the
queue's own order from its `event` hook and checks that it was allowed.
"""

import os
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobqueue.core.job import NewJob
from jobqueue.core.queue import FORGET_AT_ONCE, JobQueue, Limits
from jobqueue.core.retention import RECORD_BYTES
from jobqueue.core.waiters import Waiter, Want
from jobqueue.errors import (
    JobFinished,
    JobForgotten,
    JobNotFound,
    LeaseLost,
    LeaseRequired,
    NotInProgress,
    NotTheConsumer,
)

THOROUGH = bool(os.environ.get("TEST_ALL"))
SEGMENT = 4
FIRST_ID = 1_000_000_001
HOUR = 3_600_000
STATUSES = ("scheduled", "queued", "in_progress", "concluded", "dead", "cancelled")


# -- the model --------------------------------------------------------------------------------------


@dataclass
class ModelJob:
    id: int
    queue: str
    priority: int
    payload: bytes
    created_at: int
    status: str = "queued"
    attempts: int = 0
    tokens: list = field(default_factory=list)  # all that it was ever leased under
    consumer: str | None = None
    granted: int = 0
    deadline: int = 0
    ended_by: str | None = None  # what ended its last lease
    result: bytes | None = None
    cancel_asked: bool = False
    finished: int | None = None
    finished_at: int | None = None
    forgotten: bool = False

    @property
    def bytes(self):
        return RECORD_BYTES + len(self.payload) + len(self.result or b"")


@dataclass
class ModelWaiter:
    want: Want
    until: int
    answer: list | None = None


class Model:
    def __init__(self, limits):
        self.limits = limits
        self.jobs = []
        self.waiting = []  # in the order in which they came
        self.finished = []  # remembered, in the order in which they finished
        self.totals = dict.fromkeys(
            ("enqueued", "dequeued", "concluded", "stale", "released", "failed", "dead", "cancelled"), 0
        )

    def ready(self, queue):
        jobs = [job for job in self.jobs if job.queue == queue and job.status == "queued"]
        return sorted(jobs, key=lambda job: (-job.priority, job.id))

    def running(self):
        return [job for job in self.jobs if job.status == "in_progress"]

    def enqueue(self, new, wall):
        self.totals["enqueued"] += 1
        self.jobs.append(
            ModelJob(FIRST_ID + len(self.jobs), new.queue, new.priority, new.payload, created_at=wall)
        )

    def dequeue(self, want, now):
        there = [job for queue in dict.fromkeys(want.queues) for job in self.ready(queue)]
        taken = there[: 1 if want.count is None else want.count]
        for job in taken:
            self.totals["dequeued"] += 1
            job.status, job.consumer, job.ended_by = "in_progress", want.consumer, None
            job.attempts += 1
            job.granted, job.deadline = want.lease_for, now + want.lease_for
        return taken

    def serve(self, now):
        """First come, first served: who was given what, in order."""
        served = []
        for waiter in list(self.waiting):
            if taken := self.dequeue(waiter.want, now):
                self.waiting.remove(waiter)
                served.append((waiter, taken))
        return served

    def come_back(self, job, step, now, wall):
        """From in progress to its place, or to cancelled; then whoever waits is served."""
        self.totals[{"release": "released"}.get(step, step)] += 1
        job.ended_by = step
        if job.cancel_asked:
            self.finish(job, "cancelled", now, wall)
            return []
        job.status = "queued"
        return self.serve(now)

    def finish(self, job, status, now, wall):
        self.totals[status] += 1
        job.status, job.finished, job.finished_at = status, now, wall
        self.finished.append(job)

    @property
    def crowded(self):
        too_many = len(self.finished) > self.limits.retain_jobs
        return too_many or sum(job.bytes for job in self.finished) > self.limits.retain_bytes

    def may_forget(self, now):
        return bool(self.finished) and (self.crowded or self.finished[0].finished + self.limits.retain <= now)

    def missing(self, id):
        """The error that any question about `id` deserves; None: the job is here."""
        if not FIRST_ID <= id < FIRST_ID + len(self.jobs):
            return JobNotFound
        return JobForgotten if self.jobs[id - FIRST_ID].forgotten else None

    def who_may(self, job, verb, token, consumer):
        """The table of API.md from its second row on: first match counts."""
        running = job.status == "in_progress"
        last = bool(job.tokens) and token == job.tokens[-1]
        by_this_verb = job.ended_by == verb
        table = [
            (token is not None and last and running, "done"),
            (token is not None and last and by_this_verb, "again"),
            (token is not None, LeaseLost),
            (not running and by_this_verb and consumer is not None and consumer == job.consumer, "again"),
            (not running, NotInProgress),
            (self.limits.require_lease, LeaseRequired),
            (job.consumer is not None and consumer == job.consumer, "done"),
            (job.consumer is not None, NotTheConsumer),
            (True, "done"),
        ]
        return next(answer for matches, answer in table if matches)


# -- both, side by side -----------------------------------------------------------------------------

QUEUES = st.sampled_from(["a", "b", "c"])
PRIORITIES = st.one_of(st.sampled_from([0, 0, 0, 1, -1]), st.sampled_from([-(2**31), 2**31 - 1, 7]))
PAYLOADS = st.sampled_from([b"null", b'"' + b"x" * 100 + b'"', b'"' + b"x" * 700 + b'"'])
NEW_JOBS = st.builds(NewJob, st.just("t"), QUEUES, PRIORITIES, PAYLOADS)
LEASES = st.sampled_from([1, 50, 99, 100, 101, 250, 1000])
CONSUMERS = st.sampled_from([None, "ann", "bob"])
COUNTS = st.sampled_from([None, None, 1, 2, 9])
WANTED = st.lists(QUEUES, min_size=1, max_size=4).map(tuple)
TOKENS = st.sampled_from(["current", "current", "none", "none", "old", "wrong"])
RESULTS = st.sampled_from([None, b"1", b'"' + b"y" * 600 + b'"'])
PICKS = st.integers(0, 999)


class QueueAgainstModel(RuleBasedStateMachine):
    @initialize(
        retain=st.sampled_from([0, 150, 1000, 2 * HOUR]),
        retain_jobs=st.sampled_from([0, 1, 3, 100, 100]),
        retain_bytes=st.sampled_from([0, RECORD_BYTES + 4, 4000, 1 << 20, 1 << 20]),
        require_lease=st.booleans(),
        spare=st.integers(0, 2),
    )
    def begin(self, retain, retain_jobs, retain_bytes, require_lease, spare):
        limits = Limits(
            lane_segment=SEGMENT,
            lane_spare=spare,
            retain=retain,
            retain_jobs=retain_jobs,
            retain_bytes=retain_bytes,
            require_lease=require_lease,
        )
        numbers = count(1)
        self.now, self.offset = 5_000, 1_800_000_000_000
        self.queue = JobQueue(lambda: f"lease-{next(numbers)}", FIRST_ID, limits, self.offset)
        self.queue.event = lambda step, job: self.events.append((step, job.id))
        self.model = Model(limits)
        self.waiters = {}  # the model's waiter -> the queue's
        self.events = []
        self.answers = []  # what was delivered during this rule
        self.handed = []  # all that was ever handed over
        self.tokens = set()

    # -- in ---------------------------------------------------------------------------------------

    @rule(new=NEW_JOBS)
    def enqueue(self, new):
        self.model.enqueue(new, self.wall)
        served = self.model.serve(self.now)
        job = self.queue.enqueue(new, self.now)
        self._compare_new(job, new)
        self._compare_served(served)

    @rule(news=st.lists(NEW_JOBS, min_size=1, max_size=20))
    def enqueue_many(self, news):
        for new in news:
            self.model.enqueue(new, self.wall)
        served = self.model.serve(self.now)
        jobs = self.queue.enqueue_many(news, self.now)
        assert [job.id for job in jobs] == [job.id for job in self.model.jobs[-len(news) :]]
        for job, new in zip(jobs, news, strict=True):
            self._compare_new(job, new)
        self._compare_served(served)

    # -- out --------------------------------------------------------------------------------------

    @rule(queues=WANTED, lease_for=LEASES, count=COUNTS, consumer=CONSUMERS)
    def dequeue(self, queues, lease_for, count, consumer):
        want = Want(queues, lease_for, count, consumer)
        expected = self.model.dequeue(want, self.now)
        self._compare_handed(expected, self.queue.dequeue(want, self.now))

    @rule(queues=WANTED, lease_for=LEASES, count=COUNTS, consumer=CONSUMERS, wait=st.integers(1, 500))
    def dequeue_or_wait(self, queues, lease_for, count, consumer, wait):
        want = Want(queues, lease_for, count, consumer)
        expected = self.model.dequeue(want, self.now)
        self._compare_handed(expected, self.queue.dequeue(want, self.now))
        if not expected:
            waiting = ModelWaiter(want, self.now + wait)
            waiter = Waiter(want, waiting.until, lambda handed: self.answers.append((waiting, handed)))
            self.model.waiting.append(waiting)
            self.waiters[id(waiting)] = waiter
            self.queue.wait(waiter)

    @precondition(lambda self: self.model.waiting)
    @rule(pick=PICKS)
    def stop_waiting(self, pick):
        waiting = self.model.waiting.pop(pick % len(self.model.waiting))
        waiter = self.waiters[id(waiting)]
        self.queue.stop_waiting(waiter)
        with pytest.raises(KeyError):
            self.queue.stop_waiting(waiter)

    @precondition(lambda self: self.model.waiting)
    @rule()
    def end_waits(self):
        ended = {id(waiting) for waiting in self.model.waiting}
        self.model.waiting.clear()
        self.queue.end_waits()
        self._compare_nothing_given(ended)

    # -- the end of a lease -----------------------------------------------------------------------

    @rule(pick=PICKS, which=TOKENS, consumer=CONSUMERS, result=RESULTS)
    def conclude(self, pick, which, consumer, result):
        id, token = self._pick(pick), self._token(pick, which)
        ruling = self._ruling(id, "conclude", token, consumer)
        if isinstance(ruling, type):
            with pytest.raises(ruling) as refused:
                self.queue.conclude(id, token, consumer, result, self.now)
            self._compare_facts(refused.value, id)
            return
        job = self.model.jobs[id - FIRST_ID]
        answer = self.queue.conclude(id, token, consumer, result, self.now)
        if ruling == "done":
            job.ended_by, job.result = "conclude", result
            self.model.finish(job, "concluded", self.now, self.wall)
        assert (answer.id, answer.status, answer.more.result) == (id, "concluded", job.result)
        self._compare_forgotten(finishing=True)

    @rule(pick=PICKS, which=TOKENS, consumer=CONSUMERS, lease_for=st.one_of(st.none(), LEASES))
    def heartbeat(self, pick, which, consumer, lease_for):
        id, token = self._pick(pick), self._token(pick, which)
        ruling = self._ruling(id, "heartbeat", token, consumer)
        if isinstance(ruling, type):
            with pytest.raises(ruling) as refused:
                self.queue.heartbeat(id, token, consumer, lease_for, self.now)
            self._compare_facts(refused.value, id)
            return
        job = self.model.jobs[id - FIRST_ID]
        job.deadline = self.now + (lease_for or job.granted)
        answer = self.queue.heartbeat(id, token, consumer, lease_for, self.now)
        assert (answer.id, answer.lease.length) == (id, lease_for or job.granted)

    @rule(pick=PICKS)
    def cancel(self, pick):
        self._cancel(self._pick(pick))

    @precondition(lambda self: self.model.ready("a") or self.model.ready("b"))
    @rule(keep=st.integers(2, 9), shift=st.integers(0, 8))
    def cancel_most_of_what_is_queued(self, keep, shift):
        for job in self.model.ready("a") + self.model.ready("b"):
            if (job.id + shift) % keep:
                self._cancel(job.id)

    @precondition(lambda self: self.handed)
    @rule(picks=st.lists(PICKS, min_size=1, max_size=4))
    def give_back(self, picks):
        handed = [self.handed[-1 - pick % len(self.handed)] for pick in picks]
        for given, lease in handed:
            job = self.model.jobs[given.id - FIRST_ID]
            if job.status == "in_progress" and job.tokens[-1] == lease.token:
                job.attempts -= 1
                served = self.model.come_back(job, "release", self.now, self.wall)
                self.queue.give_back([(given, lease)], self.now)
                self._compare_served(served)
            else:
                self.queue.give_back([(given, lease)], self.now)
                assert self.answers == []
        self._compare_forgotten()

    # -- time -------------------------------------------------------------------------------------

    @rule(pick=PICKS, edge=st.sampled_from([-1, 0, 0, 1]), ticks=st.booleans())
    def go_to_the_edge_of_a_deadline(self, pick, edge, ticks):
        edges = sorted(
            {job.deadline for job in self.model.running()}
            | {waiting.until for waiting in self.model.waiting}
            | {job.finished + self.model.limits.retain for job in self.model.finished}
        )
        if edges:
            self.now = max(self.now, edges[pick % len(edges)] + edge)
            if ticks:
                self.tick()

    @rule(ms=st.integers(0, 300))
    def let_time_pass(self, ms):
        self.now += ms

    @rule()
    def let_an_hour_pass(self):
        self.now += HOUR
        self.tick()

    @rule(ms=st.integers(-86_400_000, 86_400_000))
    def set_the_wall_clock(self, ms):
        self.offset += ms
        self.queue.set_wall_offset(self.offset)

    @rule()
    def tick(self):
        self.events.clear()
        due = {job.id for job in self.model.running() if job.deadline <= self.now}
        moved, more = self.queue.tick(self.now)
        while more:
            again, more = self.queue.tick(self.now)
            moved += again
        stale = [id for step, id in self.events if step == "stale"]
        assert sorted(stale) == sorted(due)
        served = []
        for id_ in stale:
            job = self.model.jobs[id_ - FIRST_ID]
            served += self.model.come_back(job, "stale", self.now, self.wall)
        over = [waiting for waiting in self.model.waiting if waiting.until <= self.now]
        self.model.waiting = [waiting for waiting in self.model.waiting if waiting.until > self.now]
        given, self.answers = self.answers, [answer for answer in self.answers if answer[1]]
        self._compare_served(served)
        self.answers = [answer for answer in given if not answer[1]]
        self._compare_nothing_given({id(waiting) for waiting in over})
        forgotten = self._compare_forgotten()
        assert not self.model.may_forget(self.now)
        assert moved == len(stale) + forgotten

    # -- compaction -------------------------------------------------------------------------------

    @rule()
    def one_slice_of_compaction(self):
        self.queue.compact()

    @rule()
    def compact(self):
        while self.queue.compact():
            pass
        for lane in self._lanes():
            assert lane.empty <= max(lane.slots / 2, 2 * SEGMENT)

    # -- what holds after each of them ------------------------------------------------------------

    @invariant()
    def every_job_is_where_it_should_be(self):
        for expected in self.model.jobs:
            if expected.forgotten:
                with pytest.raises(JobForgotten):
                    self.queue.get(expected.id)
                continue
            job = self.queue.get(expected.id)
            assert (job.id, job.status, job.queue, job.priority) == (
                expected.id,
                expected.status,
                expected.queue,
                expected.priority,
            )
            assert (job.attempts, job.leases) == (expected.attempts, len(expected.tokens))
            assert job.payload == expected.payload
            assert (job.lease and job.lease.token) == (expected.tokens[-1] if expected.tokens else None)
            if expected.status == "in_progress":
                assert (job.lease.expires, job.lease.consumer) == (expected.deadline, expected.consumer)
            more = job.more
            assert bool(more and more.cancel_requested) == expected.cancel_asked
            assert (more and more.result) == expected.result
            assert (more and more.finished_at) == expected.finished_at
        for never_given in (FIRST_ID - 1, FIRST_ID + len(self.model.jobs), 0, -1):
            with pytest.raises(JobNotFound):
                self.queue.get(never_given)

    @invariant()
    def counts_add_up(self):
        def counts(jobs):
            statuses = [job.status for job in jobs if not job.forgotten]
            return {status: statuses.count(status) for status in STATUSES}

        assert self.queue.tally.jobs() == counts(self.model.jobs)
        assert self.queue.tally.totals() == self.model.totals
        assert len(self.queue.waiters) == len(self.model.waiting)
        assert self.queue.remembered == len(self.model.finished)
        assert self.queue.remembered_bytes == sum(job.bytes for job in self.model.finished)
        for name in ("a", "b", "c", "never used"):
            view, ready = self.queue.view(name, self.now), self.model.ready(name)
            assert view.jobs == counts(job for job in self.model.jobs if job.queue == name)
            assert view.consumers_waiting == sum(name in each.want.queues for each in self.model.waiting)
            oldest = min(ready, key=lambda job: job.created_at, default=None)
            assert view.oldest_age == (oldest and max(self.wall - oldest.created_at, 0))
        assert "never used" not in self.queue.queues

    @invariant()
    def each_queue_is_in_order(self):
        for name in ("a", "b", "c"):
            queue, ready = self.queue.queues.get(name), self.model.ready(name)
            lanes = [list(lane) for lane in queue.lanes if lane.live] if queue else []
            lanes.sort(key=lambda jobs: -jobs[0].priority)
            assert [job.id for jobs in lanes for job in jobs] == [job.id for job in ready]

    @invariant()
    def lanes_agree_with_themselves(self):
        lanes = self._lanes()
        for lane in lanes:
            assert len(lane) == lane.live == len(list(lane))
            assert 0 <= lane.empty <= lane.slots
            assert lane.slots - lane.empty <= lane.live
        figures = (len(lanes), sum(lane.slots for lane in lanes), sum(lane.empty for lane in lanes))
        assert self.queue.lane_figures() == figures

    @invariant()
    def nobody_waits_for_what_is_there(self):
        for waiting in self.model.waiting:
            assert not any(self.model.ready(name) for name in waiting.want.queues)

    def teardown(self):
        """Whatever is still queued comes out, in order, once."""
        if hasattr(self, "queue"):
            for name in ("a", "b", "c"):
                expected = [job.id for job in self.model.ready(name)]
                handed = self.queue.dequeue(Want((name,), 1000, len(expected) + 1), self.now)
                assert [job.id for job, _ in handed] == expected

    # -- helpers ----------------------------------------------------------------------------------

    @property
    def wall(self):
        return self.now + self.offset

    def _lanes(self):
        return [lane for queue in self.queue.queues.values() for lane in queue.lanes]

    def _pick(self, pick):
        """Mostly a job that still has something before it, sometimes any, at times an id never given."""
        alive = [job for job in self.model.jobs if job.status in ("queued", "in_progress")]
        among = self.model.running() or alive if pick % 2 else self.model.jobs if pick % 4 else alive
        if not among or pick % 50 == 0:
            return FIRST_ID + (-1 if pick % 100 else len(self.model.jobs))
        return among[pick // 4 % len(among)].id

    def _token(self, pick, which):
        id_ = self._pick(pick)
        known = [] if self.model.missing(id_) else self.model.jobs[id_ - FIRST_ID].tokens
        if which == "none":
            return None
        if which == "current" and known:
            return known[-1]
        if which == "old" and len(known) > 1:
            return known[pick % (len(known) - 1)]
        return sorted(self.tokens - set(known))[0] if self.tokens - set(known) else "wrong"

    def _ruling(self, id_, verb, token, consumer):
        missing = self.model.missing(id_)
        return missing or self.model.who_may(self.model.jobs[id_ - FIRST_ID], verb, token, consumer)

    def _cancel(self, id_):
        missing = self.model.missing(id_)
        job = None if missing else self.model.jobs[id_ - FIRST_ID]
        if missing or job.status == "concluded":
            with pytest.raises(missing or JobFinished):
                self.queue.cancel(id_, self.now)
            return
        finishing = job.status == "queued"
        if finishing:
            self.model.finish(job, "cancelled", self.now, self.wall)
        elif job.status == "in_progress":
            job.cancel_asked = True
        self.events.clear()
        answer = self.queue.cancel(id_, self.now)
        assert (answer.id, answer.status) == (id_, job.status)
        if finishing:
            self._compare_forgotten(finishing=True)

    def _compare_new(self, job, new):
        assert (job.type, job.queue, job.priority, job.payload) == (
            new.type,
            new.queue,
            new.priority,
            new.payload,
        )
        assert job.created_at == self.wall

    def _compare_handed(self, expected, handed):
        assert [job.id for job, _ in handed] == [job.id for job in expected]
        for job, (given, lease) in zip(expected, handed, strict=True):
            assert lease is given.lease
            assert lease.token not in self.tokens
            self.tokens.add(lease.token)
            job.tokens.append(lease.token)
            assert lease.started_at == self.wall
            self.handed.append((given, lease))

    def _compare_served(self, served):
        """Each of those was answered once, in this order, with these jobs; nobody else was."""
        assert [id(waiting) for waiting, _ in self.answers] == [id(waiting) for waiting, _ in served]
        for (waiting, jobs), (_, handed) in zip(served, self.answers, strict=True):
            assert waiting.answer is None
            waiting.answer = handed
            self._compare_handed(jobs, handed)
        self.answers.clear()

    def _compare_nothing_given(self, ended):
        assert sorted(id(waiting) for waiting, _ in self.answers) == sorted(ended)
        for waiting, handed in self.answers:
            assert waiting.answer is None
            assert handed == []
            waiting.answer = handed
        self.answers.clear()

    def _compare_facts(self, error, id_):
        if isinstance(error, LeaseLost | NotInProgress | NotTheConsumer):
            assert error.facts["job_status"] == self.model.jobs[id_ - FIRST_ID].status

    def _compare_forgotten(self, finishing=False):
        """Only finished jobs, the oldest first, and only while there is reason to."""
        forgotten = [id_ for step, id_ in self.events if step == "forget"]
        self.events.clear()
        for id_ in forgotten:
            assert self.model.may_forget(self.now)
            oldest = self.model.finished.pop(0)
            assert oldest.id == id_
            oldest.forgotten = True
        if finishing:
            assert len(forgotten) == FORGET_AT_ONCE or not self.model.crowded
        return len(forgotten)


QueueAgainstModel.TestCase.settings = settings(
    max_examples=200 if THOROUGH else 60,
    stateful_step_count=50 if THOROUGH else 40,
    deadline=None,
    derandomize=True,
    print_blob=True,
)
test_the_queue_does_what_the_model_does = QueueAgainstModel.TestCase
