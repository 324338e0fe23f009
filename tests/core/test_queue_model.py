"""The queue compared with a model: a JobQueue and the simplest program with the same rules get the same calls.
This state machine has plain jobs, the use of leases, waits and compaction; test_verbs_model.py has all verbs.

The model keeps its jobs in one list, which is searched and sorted as a whole each time. Where docs/api.md
leaves an order open (which of several stale jobs comes back first, when old finished jobs are forgotten), the
model takes the order from the `event` hook of the queue and checks that it is allowed.
"""

import os
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobqueue.core.forgetting import FORGET_AT_ONCE
from jobqueue.core.limits import Limits
from jobqueue.core.queue import JobQueue
from jobqueue.core.retention import RECORD_BYTES
from jobqueue.core.waiters import Waiter
from jobqueue.errors import (
    JobFinished,
    JobForgotten,
    JobNotFound,
    LeaseLost,
    LeaseRequired,
    NotInProgress,
    NotTheConsumer,
)
from jobqueue.model import Backoff, DequeueRequest, LeaseClaim, NewJob

THOROUGH = bool(os.environ.get("TEST_ALL"))
SEGMENT = 4
FIRST_ID = 1_000_000_001
LINE_BYTES = 160
HOUR = 3_600_000
STATUSES = ("scheduled", "queued", "in_progress", "concluded", "dead", "cancelled")


# -- the model --------------------------------------------------------------------------------------


@dataclass(eq=False)
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
        earlier_leases = min(max(len(self.tokens) - 1, 0), 20)  # each is a line of the history
        return RECORD_BYTES + LINE_BYTES * earlier_leases + len(self.payload) + len(self.result or b"")


@dataclass(eq=False)
class ModelWaiter:
    request: DequeueRequest
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

    def dequeue(self, request, now):
        there = [job for queue in dict.fromkeys(request.queues) for job in self.ready(queue)]
        taken = there[: 1 if request.count is None else request.count]
        for job in taken:
            self.totals["dequeued"] += 1
            job.status, job.consumer, job.ended_by = "in_progress", request.consumer, None
            job.attempts += 1
            job.granted, job.deadline = request.lease_for, now + request.lease_for
        return taken

    def serve(self, now):
        """Serves the waiters, first come, first served. Returns each with its jobs, in order."""
        served = []
        for waiter in list(self.waiting):
            if taken := self.dequeue(waiter.request, now):
                self.waiting.remove(waiter)
                served.append((waiter, taken))
        return served

    def come_back(self, job, step, now, wall):
        """Returns a job in progress to its place, or cancels it."""
        self.totals[{"release": "released"}.get(step, step)] += 1
        job.ended_by = step
        if job.cancel_asked:
            self.finish(job, "cancelled", now, wall)
        else:
            job.status = "queued"

    def finish(self, job, status, now, wall):
        self.totals[status] += 1
        job.status, job.finished, job.finished_at = status, now, wall
        self.finished.append(job)

    @property
    def crowded(self):
        too_many = len(self.finished) > self.limits.retain_jobs
        return too_many or sum(job.bytes for job in self.finished) > self.limits.retain_bytes

    def may_forget(self, now):
        return self.crowded or any(job.finished + self.limits.retain <= now for job in self.finished)

    def missing(self, id):
        """Returns the error for any verb with this `id`; None if the job exists."""
        if not FIRST_ID <= id < FIRST_ID + len(self.jobs):
            return JobNotFound
        return JobForgotten if self.jobs[id - FIRST_ID].forgotten else None

    def may_use_lease(self, job, verb, token, consumer):
        """The table of `policy.may_use_lease` from its second row on; the first match counts."""
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

QUEUES = st.sampled_from(["a", "a", "a", "b", "c"])
PRIORITIES = st.sampled_from([0, 0, 0, 0, 1, -1, -(2**31), 2**31 - 1])
PAYLOADS = st.sampled_from([b"null", b"null", b'"' + b"x" * 700 + b'"'])
NEW_JOBS = st.builds(NewJob, st.just("t"), QUEUES, PRIORITIES, PAYLOADS)
LEASES = st.sampled_from([60_000, 60_000, 1000, 250, 101, 100, 99, 1])
CONSUMERS = st.sampled_from([None, None, "ann", "bob"])
REQUESTS = st.builds(
    DequeueRequest,
    queues=st.lists(QUEUES, min_size=1, max_size=3).map(tuple),
    lease_for=LEASES,
    count=st.sampled_from([None, None, 1, 2, 9]),
    consumer=CONSUMERS,
)
PICKS = st.integers(0, 999)
TOKENS = st.sampled_from(["current", "current", "current", "none", "none", "old", "another", "wrong"])
CALLERS = st.tuples(PICKS, TOKENS, CONSUMERS)
RESULTS = st.sampled_from([None, b"1", b'"' + b"y" * 600 + b'"'])


class QueueAgainstModel(RuleBasedStateMachine):
    @initialize(
        retain=st.sampled_from([2 * HOUR, 1000, 150, 0]),
        retain_jobs=st.sampled_from([100, 100, 3, 1, 0]),
        retain_bytes=st.sampled_from([1 << 20, 1 << 20, 4000, RECORD_BYTES + 4, 0]),
        require_lease=st.booleans(),
        spare=st.integers(0, 2),
    )
    def begin(self, retain, retain_jobs, retain_bytes, require_lease, spare):
        limits = Limits(
            backoff=Backoff(
                0
            ),  # a job that is stale again is ready at once; test_verbs_model.py has its rest
            lane_segment=SEGMENT,
            lane_spare=spare,
            retain=retain,
            retain_jobs=retain_jobs,
            retain_bytes=retain_bytes,
            require_lease=require_lease,
            max_attempts=None,
        )
        numbers = count(1)
        self.now, self.offset = 5_000, 1_800_000_000_000
        self.clock_was_set = False
        self.queue = JobQueue(lambda: f"lease-{next(numbers)}", FIRST_ID, limits, self.offset)
        self.queue.state.event = lambda step, job: self.events.append((step, job.id))
        self.model = Model(limits)
        self.waiters = {}  # the model's waiter -> the queue's
        self.events = []
        self.answers = []  # what was delivered during this rule
        self.deliveries = []  # all that was ever deliveries over
        self.tokens = set()

    # -- in ---------------------------------------------------------------------------------------

    @rule(new=NEW_JOBS)
    def enqueue(self, new):
        self.model.enqueue(new, self.wall)
        served = self.model.serve(self.now)
        job = self.queue.enqueue(new, self.now)
        self._compare_new(job, new)
        self._compare_served(served)

    @rule(new=NEW_JOBS, number=st.sampled_from([5, 13, 30, 90]))
    def enqueue_many_alike(self, new, number):
        self._enqueue_many([new] * number)

    @rule(news=st.lists(NEW_JOBS, min_size=1, max_size=9))
    def enqueue_many(self, news):
        self._enqueue_many(news)

    def _enqueue_many(self, news):
        for new in news:
            self.model.enqueue(new, self.wall)
        served = self.model.serve(self.now)
        jobs = self.queue.enqueue_many(news, self.now)
        assert [job.id for job in jobs] == [job.id for job in self.model.jobs[-len(news) :]]
        for job, new in zip(jobs, news, strict=True):
            self._compare_new(job, new)
        self._compare_served(served)

    # -- out --------------------------------------------------------------------------------------

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=4))
    def dequeue(self, requests):
        for request in requests:
            self._dequeue(request)

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=4), wait=st.integers(1, 2000))
    def dequeue_or_wait(self, requests, wait):
        for request in requests:
            if not self._dequeue(request):
                waiting = ModelWaiter(request, self.now + wait)
                waiter = Waiter(request, waiting.until, partial(self._deliver, waiting))
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

    @rule(callers=st.lists(CALLERS, min_size=1, max_size=4), result=RESULTS)
    def conclude(self, callers, result):
        for pick, which, consumer in callers:
            id, token = self._pick(pick), self._token(pick, which)
            ruling = self._ruling(id, "conclude", token, consumer)
            if isinstance(ruling, type):
                with pytest.raises(ruling) as refused:
                    self.queue.conclude(id, token, consumer, result, self.now)
                self._compare_facts(refused.value, id)
                continue
            job = self.model.jobs[id - FIRST_ID]
            answer = self.queue.conclude(id, token, consumer, result, self.now)
            if ruling == "done":
                job.ended_by, job.result = "conclude", result
                self.model.finish(job, "concluded", self.now, self.wall)
            assert (answer.id, answer.status, answer.extras.result) == (id, "concluded", job.result)
            self._compare_forgotten(finishing=True)

    @rule(callers=st.lists(CALLERS, min_size=1, max_size=4), lease_for=st.one_of(st.none(), LEASES))
    def heartbeat(self, callers, lease_for):
        for pick, which, consumer in callers:
            id, token = self._pick(pick), self._token(pick, which)
            ruling = self._ruling(id, "heartbeat", token, consumer)
            if isinstance(ruling, type):
                with pytest.raises(ruling) as refused:
                    self.queue.heartbeat(LeaseClaim(id, token, consumer), lease_for, self.now)
                self._compare_facts(refused.value, id)
                continue
            job = self.model.jobs[id - FIRST_ID]
            job.deadline = self.now + (lease_for or job.granted)
            answer = self.queue.heartbeat(LeaseClaim(id, token, consumer), lease_for, self.now)
            assert (answer.id, answer.lease.length) == (id, lease_for or job.granted)

    @rule(picks=st.lists(PICKS, min_size=1, max_size=4))
    def cancel(self, picks):
        for pick in picks:
            self._cancel(self._pick(pick))

    @precondition(lambda self: len(self.model.ready("a")) > SEGMENT)
    @rule(
        keep=st.integers(2, 5),
        skip=st.integers(0, 9),
        number=st.sampled_from([10, 90]),
        compacts=st.booleans(),
    )
    def cancel_most_of_what_is_queued(self, keep, skip, number, compacts):
        for nth, job in enumerate(self.model.ready("a")[skip : skip + number]):
            if nth % keep:
                self._cancel(job.id)
                if compacts:
                    self.queue.compact()

    @precondition(lambda self: self.deliveries)
    @rule(picks=st.lists(PICKS, min_size=1, max_size=4))
    def give_back(self, picks):
        deliveries = [self.deliveries[-1 - pick % len(self.deliveries)] for pick in picks]
        for given, lease in deliveries:
            job = self.model.jobs[given.id - FIRST_ID]
            if job.status == "in_progress" and job.tokens[-1] == lease.token:
                job.attempts -= 1
                self.model.come_back(job, "release", self.now, self.wall)
                self.queue.give_back([(given, lease)], self.now)
                self._compare_served(self.model.serve(self.now))
            else:
                self.queue.give_back([(given, lease)], self.now)
                assert self.answers == []
        self._compare_forgotten()

    # -- time -------------------------------------------------------------------------------------

    @rule(pick=PICKS, edge=st.sampled_from([-1, 0, 0, 1]), ticks=st.booleans())
    def go_to_the_edge_of_a_deadline(self, pick, edge, ticks):
        retained = self.model.finished if pick % 5 == 0 else []
        edges = sorted(
            {job.deadline for job in self.model.running()}
            | {waiting.until for waiting in self.model.waiting}
            | {job.finished + self.model.limits.retain for job in retained}
        )
        if edges:
            self.now = max(self.now, edges[pick % min(len(edges), 3)] + edge)
            if ticks:
                self.tick()

    @rule(ms=st.sampled_from([1, 10, 50, 99, 100, 101, 300, HOUR]))
    def let_time_pass(self, ms):
        self.now += ms
        self.tick()

    @rule(ms=st.integers(-86_400_000, 86_400_000))
    def set_the_wall_clock_and_tick(self, ms):
        self.offset += ms
        self.queue.state.set_wall_offset(self.offset)
        self.clock_was_set = True
        self.tick()

    def tick(self):
        self.queue.compact()
        self.events.clear()
        due = {job.id for job in self.model.running() if job.deadline <= self.now}
        stale = len(due)
        moved = 0
        for _ in range(1_000):
            again, more = self.queue.tick(self.now)
            moved += again
            if not more:
                break
        served, leased = [], 0
        for step, about in self.events:
            if step == "stale":
                due.remove(about)
                job = self.model.jobs[about - FIRST_ID]
                self.model.come_back(job, "stale", self.now, self.wall)
            elif step == "lease":  # all of a slice are back before the first is deliveries out again
                if leased == sum(len(jobs) for _, jobs in served):
                    served += self.model.serve(self.now)
                leased += 1
            elif step == "wait over":
                assert about.until <= self.now
                self.model.waiting.remove(about)
        assert not due
        assert self.model.serve(self.now) == []
        assert all(waiting.until > self.now for waiting in self.model.waiting)
        assert moved == stale + self._compare_forgotten()
        assert not self.model.may_forget(self.now)
        self.answers = [(waiting, deliveries) for waiting, deliveries in self.answers if deliveries]
        self._compare_served(served)

    # -- compaction -------------------------------------------------------------------------------

    @rule(to_the_end=st.booleans())
    def compact(self, to_the_end):
        for _ in range(1_000):
            if not self.queue.compact() or not to_the_end:
                break
        for lane in self._lanes() if to_the_end else []:
            assert lane.empty <= max(lane.slots / 2, 2 * SEGMENT)

    # -- what holds after each of them ------------------------------------------------------------

    @invariant()
    def every_job_is_where_it_should_be(self):
        for expected in self.model.jobs:
            if expected.forgotten:
                assert self._missing(expected.id) is JobForgotten
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
            more = job.extras
            assert bool(more and more.cancel_requested) == expected.cancel_asked
            assert (more and more.result) == expected.result
            assert (more and more.finished_at) == expected.finished_at
        for never_given in (FIRST_ID - 1, FIRST_ID + len(self.model.jobs), 0, -1):
            assert self._missing(never_given) is JobNotFound

    @invariant()
    def counts_add_up(self):
        def counts(jobs):
            statuses = [job.status for job in jobs if not job.forgotten]
            return {status: statuses.count(status) for status in STATUSES}

        assert self.queue.state.counts.jobs() == counts(self.model.jobs)
        assert self.queue.state.counts.totals() == self.model.totals
        assert len(self.queue.state.waiters) == len(self.model.waiting)
        assert self.queue.state.remembered == len(self.model.finished)
        assert self.queue.state.remembered_bytes == sum(job.bytes for job in self.model.finished)
        for name in ("a", "b", "c", "never used"):
            view, ready = self.queue.view(name, self.now), self.model.ready(name)
            assert view.jobs == counts(job for job in self.model.jobs if job.queue == name)
            assert view.consumers_waiting == sum(name in each.request.queues for each in self.model.waiting)
            ages = [max(self.wall - job.created_at, 0) for job in ready]
            if self.clock_was_set:
                assert view.oldest_age in (ages or [None])
            else:
                assert view.oldest_age == max(ages, default=None)
        assert "never used" not in self.queue.state.queues

    @invariant()
    def each_queue_is_in_order(self):
        for name in ("a", "b", "c"):
            queue, ready = self.queue.state.queues.get(name), self.model.ready(name)
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
    def no_waiter_could_have_a_job(self):
        for waiting in self.model.waiting:
            assert not any(self.model.ready(name) for name in waiting.request.queues)

    def check_all(self):
        for holds in (
            self.every_job_is_where_it_should_be,
            self.counts_add_up,
            self.each_queue_is_in_order,
            self.lanes_agree_with_themselves,
            self.no_waiter_could_have_a_job,
        ):
            holds()

    def teardown(self):
        """Takes all jobs that are still queued: in order, and each once."""
        if hasattr(self, "queue"):
            for name in ("a", "b", "c"):
                expected = [job.id for job in self.model.ready(name)]
                deliveries = self.queue.dequeue(DequeueRequest((name,), 1000, len(expected) + 1), self.now)
                assert [job.id for job, _ in deliveries] == expected

    # -- helpers ----------------------------------------------------------------------------------

    @property
    def wall(self):
        return self.now + self.offset

    def _lanes(self):
        return [lane for queue in self.queue.state.queues.values() for lane in queue.lanes]

    def _dequeue(self, request):
        expected = self.model.dequeue(request, self.now)
        self._compare_deliveries(expected, self.queue.dequeue(request, self.now))
        return bool(expected)

    def _deliver(self, waiting, deliveries):
        self.answers.append((waiting, deliveries))
        if not deliveries:
            self.events.append(("wait over", waiting))

    def _pick(self, pick):
        """Mostly a job in progress, sometimes any other, and sometimes an id that was never given."""
        among = self.model.running()
        if not among or pick % 4 == 0:
            among = [job for job in self.model.jobs if not job.forgotten]
        if not among or pick % 40 == 0:
            return FIRST_ID + (pick // 40 % (len(self.model.jobs) + 2)) - 1
        return among[pick % len(among)].id

    def _token(self, pick, which):
        id_ = self._pick(pick)
        known = [] if self.model.missing(id_) else self.model.jobs[id_ - FIRST_ID].tokens
        others = [lease.token for job, lease in self.deliveries if job.id != id_]
        choice = {"current": known[-1:], "old": known[:-1], "another": others, "wrong": ["wrong"]}
        if which == "none":
            return None
        return (choice[which] or ["never given"])[pick % len(choice[which] or "1")]

    def _missing(self, id_):
        try:
            self.queue.get(id_)
        except (JobForgotten, JobNotFound) as missing:
            return type(missing)
        return None

    def _ruling(self, id_, verb, token, consumer):
        missing = self.model.missing(id_)
        return missing or self.model.may_use_lease(self.model.jobs[id_ - FIRST_ID], verb, token, consumer)

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

    def _compare_deliveries(self, expected, deliveries):
        assert [job.id for job, _ in deliveries] == [job.id for job in expected]
        for job, (given, lease) in zip(expected, deliveries, strict=True):
            assert lease is given.lease
            assert lease.token not in self.tokens
            self.tokens.add(lease.token)
            job.tokens.append(lease.token)
            assert lease.started_at == self.wall
            self.deliveries.append((given, lease))

    def _compare_served(self, served):
        """Checks that exactly these waiters were answered, once, in this order and with these jobs."""
        assert [id(waiting) for waiting, _ in self.answers] == [id(waiting) for waiting, _ in served]
        for (waiting, jobs), (_, deliveries) in zip(served, self.answers, strict=True):
            assert waiting.answer is None
            waiting.answer = deliveries
            self._compare_deliveries(jobs, deliveries)
        self.answers.clear()

    def _compare_nothing_given(self, ended):
        assert sorted(id(waiting) for waiting, _ in self.answers) == sorted(ended)
        for waiting, deliveries in self.answers:
            assert waiting.answer is None
            assert deliveries == []
            waiting.answer = deliveries
        self.answers.clear()

    def _compare_facts(self, error, id_):
        if isinstance(error, LeaseLost | NotInProgress | NotTheConsumer):
            assert error.facts["job_status"] == self.model.jobs[id_ - FIRST_ID].status

    def _compare_forgotten(self, finishing=False):
        """Checks that only finished jobs are forgotten, and only with a reason: the oldest without a result
        first, or that with a result in its queue."""
        forgotten = [id_ for step, id_ in self.events if step == "forget"]
        self.events.clear()
        for id_ in forgotten:
            assert self.model.may_forget(self.now)
            forgot = self.model.jobs[id_ - FIRST_ID]
            kind = forgot.result is not None and forgot.queue
            alike = (job for job in self.model.finished if (job.result is not None and job.queue) == kind)
            assert next(alike) is forgot
            self.model.finished.remove(forgot)
            forgot.forgotten = True
        if finishing:
            assert len(forgotten) == FORGET_AT_ONCE or not self.model.crowded
        return len(forgotten)


QueueAgainstModel.TestCase.settings = settings(
    max_examples=200 if THOROUGH else 50,
    stateful_step_count=50 if THOROUGH else 30,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    print_blob=True,
)
test_the_queue_does_what_the_model_does = QueueAgainstModel.TestCase


@pytest.mark.parametrize("require_lease", [False, True])
@pytest.mark.parametrize("seed", range(12 if THOROUGH else 2))
def test_the_queue_does_what_the_model_does_in_a_long_run(seed, require_lease):
    """A longer run than the others, with thousands of jobs, most of which are concluded."""
    random = Random(seed)
    machine = QueueAgainstModel()
    machine.begin(2_000, retain_jobs=200, retain_bytes=100_000, require_lease=require_lease, spare=1)

    def new_job():
        priority = random.choice([0, 0, 0, 1, -1, 2**31 - 1, random.randint(-(2**31), 0)])
        return NewJob("t", random.choice("aaabc"), priority, random.choice([b"null", b"0" * 900]))

    def requests():
        queues = tuple(random.choices("aaabc", k=random.randint(1, 3)))
        consumer = random.choice([None, "ann", "bob"])
        return [
            DequeueRequest(
                queues, random.choice([50, 100, 1000, 9000]), random.choice([None, 1, 5]), consumer
            )
        ]

    def callers():
        which = random.choice(["current", "current", "current", "none", "old", "another", "wrong"])
        pick = random.randrange(1000)
        model = machine.model
        consumer = random.choice([None, "ann", "bob", *(job.consumer for job in model.running()[:1])])
        return [(pick, which, consumer)]

    def pick():
        return random.randrange(1000)

    steps = [
        (8, lambda: machine.enqueue(new_job())),
        (3, lambda: machine.enqueue_many([new_job() for _ in range(random.randint(1, 9))])),
        (1, lambda: machine.enqueue_many_alike(new_job(), random.choice([5, 30, 90]))),
        (9, lambda: machine.dequeue(requests())),
        (9, lambda: machine.dequeue_or_wait(requests(), random.randint(1, 3000))),
        (1, lambda: machine.model.waiting and machine.stop_waiting(pick())),
        (12, lambda: machine.conclude(callers(), random.choice([None, b"1"]))),
        (6, lambda: machine.heartbeat(callers(), random.choice([None, 50, 1000]))),
        (3, lambda: machine.cancel([pick()])),
        (1, lambda: machine.cancel_most_of_what_is_queued(random.randint(2, 5), pick() % 9, 90, pick() % 2)),
        (2, lambda: machine.deliveries and machine.give_back([pick() % 9, pick()])),
        (6, lambda: machine.go_to_the_edge_of_a_deadline(pick(), random.choice([-1, 0, 1]), pick() % 2)),
        (3, lambda: machine.let_time_pass(random.choice([1, 10, 99, 100, 101, 300]))),
        (1, lambda: machine.set_the_wall_clock_and_tick(random.randint(-100_000, 100_000))),
        (1, lambda: machine.compact(pick() % 2)),
    ]
    weights, acts = zip(*steps, strict=True)
    for number, act in enumerate(random.choices(acts, weights, k=1500)):
        act()
        if number % 15 == 0:
            machine.check_all()
    assert min(machine.model.totals[what] for what in ("concluded", "stale", "released", "cancelled")) > 20
    assert machine.queue.state.compactions > 5
    machine.teardown()
