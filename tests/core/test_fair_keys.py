"""Queues with `fair_keys`: the keys take turns inside a priority."""

import itertools
import os
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobqueue.core.limits import Limits
from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.queue import JobQueue
from jobqueue.model import (
    Backoff,
    Change,
    DequeueRequest,
    Job,
    JobExtras,
    KeyLimits,
    LeaseClaim,
    NewJob,
    Options,
    QueueSettings,
)

THOROUGH = bool(os.environ.get("TEST_ALL"))
NOW = 1_000
FAIR = QueueSettings(fair_keys=True)


def keyed(place, key=None, priority=0):
    extras = JobExtras(options=Options(key=key)) if key is not None else None
    return Job(place, "q", "t", priority, b"null", place, place, extras=extras)


def fair_queue(*keys, given=FAIR):
    queue = NamedQueue("q", (4, 1, 0.5))
    queue.configure(given, 0)
    for place, key in enumerate(keys, 1):
        queue.append(keyed(place, key))
    return queue


def drained(queue):
    return [queue.take(NOW).place for _ in range(queue.queued)]


def test_a_key_with_many_jobs_does_not_stand_before_a_key_with_one():
    queue = fair_queue(*"aaaab")
    assert drained(queue) == [1, 5, 2, 3, 4]


def test_without_the_setting_the_order_is_that_of_the_places():
    assert drained(fair_queue(*"aaaab", given=QueueSettings())) == [1, 2, 3, 4, 5]


def test_keys_take_turns_in_the_order_in_which_they_came():
    assert drained(fair_queue(*"aabbccab")) == [1, 3, 5, 2, 4, 6, 7, 8]


def test_a_key_that_comes_later_is_served_after_those_that_wait_and_before_their_next_jobs():
    queue = fair_queue(*"aabb")
    assert queue.take(NOW).place == 1
    queue.append(keyed(5, "c"))
    assert drained(queue) == [3, 2, 5, 4]


def test_all_jobs_without_a_key_take_turns_as_one():
    assert drained(fair_queue(None, None, None, "a", "a")) == [1, 4, 2, 5, 3]


def test_only_keys_of_the_highest_priority_take_turns():
    queue = fair_queue()
    for place, (key, priority) in enumerate([("a", 0), ("a", 5), ("a", 5), ("b", 0), ("c", 5)], 1):
        queue.append(keyed(place, key, priority))
    assert drained(queue) == [2, 5, 3, 4, 1]


def test_a_key_at_its_limit_is_left_out_and_has_a_turn_when_it_is_free():
    queue = fair_queue(*"aab", given=QueueSettings(fair_keys=True, key_limits=KeyLimits(1)))
    first = queue.take(NOW)
    queue.count_start(first, NOW)
    other = queue.take(NOW)
    assert (first.place, other.place) == (1, 3)
    assert queue.take(NOW) is None
    assert queue.upcoming(9, NOW) == []
    assert queue.count_end(first, NOW)
    assert queue.take(NOW).place == 2


def test_a_job_that_comes_back_keeps_its_place_in_its_key():
    queue = fair_queue(*"aab")
    job = queue.take(NOW)
    queue.put_back(job)
    assert drained(queue) == [3, 1, 2]


def test_turns_begin_and_end_with_the_setting():
    queue = fair_queue(*"aaab", given=QueueSettings())
    assert queue.take(NOW).place == 1
    queue.configure(FAIR, 0)
    assert [queue.take(NOW).place for _ in range(2)] == [2, 4]
    queue.append(keyed(5, "b"))
    queue.append(keyed(6))
    queue.configure(QueueSettings(), 0)
    assert drained(queue) == [3, 5, 6]


def test_a_plain_queue_that_was_emptied_may_get_turns():
    queue = fair_queue(None, given=QueueSettings())
    queue.take(NOW)
    queue.configure(FAIR, 0)
    queue.append(keyed(2))
    queue.append(keyed(3, "a"))
    queue.append(keyed(4))
    assert drained(queue) == [2, 3, 4]


@pytest.mark.parametrize("key", ["a", None])
@pytest.mark.parametrize("priorities", [3, 2_000])
def test_jobs_that_are_removed_leave_no_entries_behind(key, priorities):
    queue = fair_queue("b", "c")
    for place in range(3, 2_000):
        job = keyed(place, key, -(place % priorities))
        queue.append(job)
        queue.remove(job, NOW)
    turns = queue._turns
    assert max(turns._entries, len(turns._rings), len(turns._ranks)) < 20
    assert drained(queue) == [1, 2]


def test_each_job_costs_one_turn_whatever_the_number_of_keys():
    keys = 2_000
    queue = fair_queue(*(f"k{number % keys}" for number in range(3 * keys)))
    assert drained(queue) == list(range(1, 3 * keys + 1))
    assert queue._turns._last_turn == 3 * keys
    assert queue._turns._entries <= 1


@pytest.mark.parametrize("seed", range(20 if THOROUGH else 4))
def test_the_next_jobs_are_those_that_are_taken_next(seed):
    random = Random(seed)
    queue = fair_queue()
    places, jobs = itertools.count(1), []
    for _ in range(300):
        act = random.random()
        if act < 0.5 or not jobs:
            key = random.choice([None, "a", "a", "a", "b", "c", "d"])
            jobs.append(keyed(next(places), key, random.choice([0, 0, 0, 1, -3])))
            queue.append(jobs[-1])
        elif act < 0.65:
            queue.remove(jobs.pop(random.randrange(len(jobs))), NOW)
        elif act < 0.75:
            out = [queue.take(NOW) for _ in range(min(3, len(jobs)))]
            for job in out:
                queue.put_back(job)
        else:
            expected = queue.upcoming(random.randint(1, 8), NOW)
            assert queue.first(NOW) is expected[0]
            last = queue.ahead(expected[-1])
            taken = [queue.take(NOW) for _ in expected]
            assert taken == expected
            assert last >= len(expected) - 1
            for job in taken:
                jobs.remove(job)
    assert queue.upcoming(1_000, NOW) == [queue.take(NOW) for _ in range(queue.queued)]


# -- against a model --------------------------------------------------------------------------------

KEYS = st.sampled_from([None, "a", "a", "a", "a", "b", "c", "d"])
PRIORITIES = st.sampled_from([0, 0, 0, 0, 1])
PICKS = st.integers(0, 999)
KEY_LIMITS = [
    None, KeyLimits(1), KeyLimits(2), KeyLimits(ordered=True), KeyLimits(ordered=True, batch=3),
    KeyLimits(1, batch=2),
]  # fmt: skip


class FairKeys(RuleBasedStateMachine):
    """A queue with fair keys. What must hold for each job that is leased:

    - it is of the highest priority of all that may be leased, and the first one of its key;
    - since each other key began to wait for a turn, its key had no turn before. A key begins to wait when it
      has a job of the present priority and may have it leased, and again after its turn.
    """

    @initialize(limits=st.sampled_from(KEY_LIMITS))
    def begin(self, limits):
        numbers = itertools.count(1)
        given = Limits(lane_segment=16, lease=7_000, max_attempts=99, backoff=Backoff(steps=(100,)))
        self.queue = JobQueue(lambda: f"lease-{next(numbers)}", 1, given, 1_800_000_000_000)
        self.now = 5_000
        self.limits = limits
        self.fair = True
        self.jobs = []  # all that are not gone
        self.runs = {}  # job id -> the run in which it was leased
        self.last_runs = {}
        self.waiting = {}  # key -> priority, and the keys that had a turn since it began to wait
        self.configure_queue()

    def configure_queue(self):
        self.queue.configure("q", {"key_limits": self.limits, "fair_keys": self.fair}, self.now)

    # -- what may be leased

    def key(self, job):
        return job.extras.options.key if job.extras is not None and job.extras.options is not None else None

    def of(self, status):
        return [job for job in self.jobs if job.status == status]

    def most(self):
        limits = self.limits or KeyLimits()
        return 1 if limits.ordered else limits.max_in_progress

    def is_open(self, key, room=False):
        """Returns whether a job of the key may be leased. `room`: one of it was, by the same dequeue."""
        if key is None:
            return True
        if (self.limits or KeyLimits()).ordered and any(
            job.place and self.key(job) == key for job in self.of("scheduled")
        ):
            return False
        runs = {self.runs[job.id] for job in self.of("in_progress") if self.key(job) == key}
        return self.most() is None or len(runs) < self.most() or room

    def first_jobs(self, rooms=()):
        """Returns the first job of each key that may have one leased."""
        found = {}
        for job in sorted(self.of("queued"), key=lambda job: (-job.priority, job.place)):
            key = self.key(job)
            if key not in found and self.is_open(key, key in rooms):
                found[key] = job
        return found

    @invariant()
    def keys_begin_to_wait(self, rooms=()):
        if not hasattr(self, "queue"):
            return
        firsts = self.first_jobs(rooms)
        for key in list(self.waiting):
            if key not in firsts or firsts[key].priority != self.waiting[key][0]:
                del self.waiting[key]
        for key, job in firsts.items():
            self.waiting.setdefault(key, (job.priority, set()))

    # -- rules

    @rule(key=KEYS, priority=PRIORITIES, count=st.integers(1, 5), delay=st.sampled_from([0, 0, 0, 200]))
    def enqueue(self, key, priority, count, delay):
        for _ in range(count):
            options = None if key is None else Options(key=key)
            new = NewJob("t", "q", priority, b"null", delay, None, None, options)
            self.jobs.append(self.queue.enqueue(new, self.now))

    @rule(count=st.sampled_from([None, 1, 3, 20]))
    def dequeue(self, count):
        before = {job: (job.priority, job.place) for job in self.of("queued")}
        taken = [job for job, _ in self.queue.dequeue(DequeueRequest(("q",), None, count), self.now)]
        for job in taken:
            job.status = "queued"
        runs = {}  # key -> the number of jobs in its run of this dequeue
        batch = (self.limits or KeyLimits()).batch
        for job in taken:
            rooms = [key for key, jobs in runs.items() if jobs < batch]
            self.keys_begin_to_wait(rooms)
            firsts = self.first_jobs(rooms)
            if self.fair:
                key = self.key(job)
                assert firsts[key] is job
                highest = max(first.priority for first in firsts.values())
                assert job.priority == highest
                for other, (priority, served) in self.waiting.items():
                    if other != key and priority == highest:
                        assert key not in served, f"{key} had two turns, and {other} waits"
                        served.add(key)
                del self.waiting[key]
            else:
                assert job is min(firsts.values(), key=lambda first: (-before[first][0], before[first][1]))
            self.lease(job, runs, batch)
        wanted = count or 1
        rooms = [key for key, jobs in runs.items() if jobs < batch]
        assert len(taken) == wanted or not self.first_jobs(rooms)

    def lease(self, job, runs, batch):
        key = self.key(job)
        if key in runs and runs[key] < batch:
            runs[key] += 1
            self.runs[job.id] = self.last_runs[key]
        else:
            runs[key] = 1
            self.last_runs[key] = self.runs[job.id] = object()
        job.status = "in_progress"

    @precondition(lambda self: self.of("in_progress"))
    @rule(pick=PICKS, how=st.sampled_from(["conclude", "conclude", "release", "rest", "fail", "retry"]))
    def end_a_lease(self, pick, how):
        jobs = self.of("in_progress")
        job = jobs[pick % len(jobs)]
        claim = LeaseClaim(job.id, job.lease.token, None)
        if how == "conclude":
            self.queue.conclude(claim.id, claim.token, None, None, self.now)
        elif how in ("release", "rest"):
            self.queue.release(claim, 200 if how == "rest" else 0, self.now)
        else:
            self.queue.fail(claim, None, True, 0 if how == "retry" else None, self.now)

    @precondition(lambda self: self.of("queued"))
    @rule(pick=PICKS, how=st.sampled_from(["cancel", "purge", "priority", "key", "take"]), key=KEYS)
    def change_a_job(self, pick, how, key):
        jobs = self.of("queued")
        job = jobs[pick % len(jobs)]
        if how == "cancel":
            self.queue.cancel(job.id, self.now)
        elif how == "purge":
            self.queue.purge_one(job, self.now)
            self.jobs.remove(job)
        elif how == "priority":
            self.queue.change(job.id, Change(priority=pick % 3), self.now)
        elif how == "key":
            self.queue.change(job.id, Change(key=key), self.now)
        elif self.queue.dequeue_job(job.id, DequeueRequest(()), self.now):
            self.runs[job.id] = object()

    @rule(limits=st.sampled_from(KEY_LIMITS), fair=st.sampled_from([True, True, True, False]))
    def configure(self, limits, fair):
        self.limits, self.fair = limits, fair
        self.configure_queue()
        self.waiting.clear()

    @rule(ms=st.sampled_from([50, 250, 10_000]))
    def let_time_pass(self, ms):
        self.now += ms
        while self.queue.tick(self.now)[1]:
            pass

    @invariant()
    def the_next_job_is_one_that_may_be_leased(self):
        if not hasattr(self, "queue"):
            return
        named = self.queue.state.queues.get("q")
        firsts = self.first_jobs()
        upcoming = named.upcoming(1, self.now) if named is not None else []
        assert bool(upcoming) == bool(firsts)
        for job in upcoming:
            assert firsts[self.key(job)] is job
            assert job.priority == max(first.priority for first in firsts.values())

    def teardown(self):
        """Leases all, in turns and without limits: none is lost."""
        if hasattr(self, "queue"):
            self.configure(None, True)
            while self.of("queued"):
                self.keys_begin_to_wait()
                self.dequeue(20)


FairKeys.TestCase.settings = settings(
    max_examples=300 if THOROUGH else 60,
    stateful_step_count=60 if THOROUGH else 30,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    print_blob=True,
)
test_keys_take_turns_whatever_happens_to_their_jobs = FairKeys.TestCase
