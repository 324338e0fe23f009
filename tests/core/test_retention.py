"""How long finished jobs are remembered, without a queue."""

import gc
import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobqueue.core.retention import RECORD_BYTES, Retention, weight
from jobqueue.model import Job, JobExtras

MANY = 1_000_000


def job(id, payload=b"null", result=None, queue="default"):
    made = Job(id, queue, "t", 0, payload, 0, id)
    if result is not None:
        made.extras = JobExtras(result=result)
    return made


def forgotten(retention, now):
    gone = []
    while (oldest := retention.next_to_forget(now)) is not None:
        retention.discard(oldest)
        gone.append(oldest.id)
    return gone


def test_a_finished_job_is_forgotten_at_its_age_and_not_a_millisecond_before():
    retention = Retention(1000, MANY, MANY)
    assert not retention.add(job(1), 500)
    assert forgotten(retention, 1499) == []
    assert forgotten(retention, 1500) == [1]
    assert len(retention) == 0


def test_the_oldest_are_forgotten_first():
    retention = Retention(1000, MANY, MANY)
    for id, now in ((3, 0), (1, 10), (2, 20)):
        retention.add(job(id), now)
    assert forgotten(retention, 1010) == [3, 1]
    assert forgotten(retention, 1020) == [2]


@pytest.mark.parametrize("restored_at", [-1, 50])
def test_a_step_of_the_clock_costs_nothing_for_jobs_that_finished_in_this_run(restored_at):
    retention = Retention(100_000, MANY, 10 * MANY)
    for id in range(10_000):
        retention.add(job(id, result=b"1" if id % 2 else None), 100 + id, 50_000 if id % 5 == 0 else None)
    gc.collect()
    tracemalloc.start()
    retention.follow_clock(3_600_000, restored_at)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000
    assert forgotten(retention, 100 + 49_999) == []
    assert forgotten(retention, 200_000)


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_no_more_jobs_than_the_limit_are_remembered(limit):
    retention = Retention(1000, limit, MANY)
    for id in range(limit):
        assert not retention.add(job(id), 0)
    assert retention.add(job(limit), 0)
    assert forgotten(retention, 0) == [0]
    assert len(retention) == limit


def test_no_more_bytes_than_the_limit_are_remembered():
    retention = Retention(1000, MANY, 3 * RECORD_BYTES + 30)
    for id in (1, 2, 3):
        assert not retention.add(job(id, b"0123456789"), 0)
    assert retention.bytes == 3 * RECORD_BYTES + 30
    assert retention.add(job(4, b"0"), 0)
    assert forgotten(retention, 0) == [1]
    assert retention.bytes == 3 * RECORD_BYTES + 21


def test_a_large_job_pushes_out_as_many_as_needed():
    retention = Retention(1000, MANY, 4 * RECORD_BYTES)
    for id in (1, 2, 3):
        retention.add(job(id, b""), 0)
    assert retention.add(job(4, b"", b"x" * 2 * RECORD_BYTES), 0)
    assert forgotten(retention, 0) == [1, 2]
    assert retention.bytes == 4 * RECORD_BYTES


def test_a_job_too_large_to_be_remembered_is_forgotten_itself():
    retention = Retention(1000, MANY, 2 * RECORD_BYTES)
    retention.add(job(1, b""), 0)
    assert retention.add(job(2, b"x" * 2 * RECORD_BYTES), 0)
    assert forgotten(retention, 0) == [1, 2]
    assert (len(retention), retention.bytes) == (0, 0)


def test_with_an_age_of_zero_nothing_is_remembered():
    retention = Retention(0, MANY, MANY)
    assert retention.add(job(1), 500)
    assert forgotten(retention, 500) == [1]


def test_a_job_with_an_age_of_its_own_is_forgotten_at_that_age():
    retention = Retention(1000, MANY, MANY)
    retention.add(job(1), 0)
    retention.add(job(2), 0, age=300)
    retention.add(job(3), 0, age=5000)
    assert forgotten(retention, 299) == []
    assert forgotten(retention, 300) == [2]
    assert forgotten(retention, 1000) == [1]
    assert forgotten(retention, 5000) == [3]
    assert (len(retention), retention.bytes) == (0, 0)


def test_own_ages_count_towards_number_and_bytes():
    retention = Retention(1000, 2, MANY)
    for id, age in ((1, None), (2, 5000), (3, None)):
        over_limit = retention.add(job(id), 0, age)
    assert over_limit
    assert forgotten(retention, 0) == [1]


@pytest.mark.parametrize("age", [None, 500])
def test_a_job_purged_before_its_turn_leaves_the_others_as_they_were(age):
    retention = Retention(1000, MANY, MANY)
    jobs = [job(id, b"x" * id) for id in range(5)]
    for each in jobs:
        retention.add(each, 0, age)
    for purged in (2, 4, 0):
        retention.discard(jobs[purged])
    assert (len(retention), retention.bytes) == (2, 2 * RECORD_BYTES + 1 + 3)
    retention.add(job(9, b""), 10, age)
    age = age or 1000
    assert forgotten(retention, age - 1) == []
    assert forgotten(retention, age) == [1, 3]
    assert forgotten(retention, age + 10) == [9]
    assert (len(retention), retention.bytes) == (0, 0)


def test_a_job_purged_before_its_turn_is_not_held_until_the_older_ones_go():
    retention = Retention(1000, MANY, 64 << 20)
    retention.add(job(0), 0)
    gc.collect()
    tracemalloc.start()
    try:
        for id in range(1, 1001):
            retention.add(large := job(id, b"x" * 100_000 + b"%d" % id), 0)
            retention.discard(large)
        del large
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
    assert (len(retention), retention.bytes) == (1, RECORD_BYTES + 4)
    assert forgotten(retention, 1000) == [0]


def test_when_many_jobs_are_purged_before_their_turn_the_others_keep_their_order():
    retention = Retention(1000, MANY, 64 << 20)
    jobs = [job(id) for id in range(5000)]
    for each in jobs:
        retention.add(each, each.id)
    for each in jobs:
        if each.id % 50:
            retention.discard(each)
    assert (len(retention), retention.bytes) == (100, 100 * (RECORD_BYTES + 4))
    assert forgotten(retention, 3499) == list(range(0, 2500, 50))
    assert forgotten(retention, 9000) == list(range(2500, 5000, 50))
    assert (len(retention), retention.bytes) == (0, 0)


def test_a_result_counts_as_much_as_a_payload():
    assert weight(job(1, b"", b"12345")) == weight(job(2, b"12345")) == RECORD_BYTES + 5
    assert weight(job(3, b"")) == RECORD_BYTES


# -- which job is forgotten early --------------------------------------------------------------------


def filled(limit, *jobs, limit_bytes=MANY):
    """A retention of `limit` jobs to which these are added in turn; and the ids that remain."""
    retention, left = Retention(1_000_000, limit, limit_bytes), set()
    for id, (queue, result, age) in enumerate(jobs):
        retention.add(job(id, b"", result, queue), id, age)
        left.add(id)
        left -= set(forgotten(retention, id))
        assert len(left) == len(retention)
    return left


PLAIN = ("busy", None, None)


@pytest.mark.parametrize("queue", ["mine", "busy"])
@pytest.mark.parametrize(
    "trivial",
    [PLAIN, ("busy", b"true", None), ("busy", b"true", 5_000_000)],
    ids=["plain", "result", "own age"],
)
@pytest.mark.parametrize("bytes_limited", [False, True])
def test_the_results_of_one_client_are_not_pushed_out_by_the_jobs_of_all_others(
    queue, trivial, bytes_limited
):
    if trivial[2] is not None and queue == "busy":
        queue = "mine"  # in one queue, jobs of the same kind are alike
    mine = [(queue, b"[1]", 86_400_000)] * 20
    limits = {"limit_bytes": 100 * (RECORD_BYTES + 3)} if bytes_limited else {}
    left = filled(MANY if bytes_limited else 100, *mine, *[trivial] * 2_000, **limits)
    assert set(range(20)) <= left
    assert len(left) >= 99


def test_among_many_queues_that_of_the_most_weight_loses_its_oldest():
    jobs = [(f"q{number}", b"1", None) for number in range(20)] + [("large", b"1", None)] * 200
    left = filled(100, *jobs)
    assert set(range(20)) <= left
    assert max(left) == len(jobs) - 1
    assert len(left) == 100


def test_jobs_without_a_result_keep_a_quarter_however_many_others_there_are():
    left = filled(100, *[PLAIN] * 100, *[("mine", b"1", 5_000_000)] * 500)
    assert left & set(range(100)) == set(range(75, 100))
    left = filled(100, *[("busy", b"1", None)] * 100, *[("mine", b"1", 5_000_000)] * 500)
    assert left & set(range(100)) == set(range(75, 100))


def test_what_no_other_kind_uses_may_be_used_by_one():
    for one in (PLAIN, ("a", b"1", None), ("a", None, 5_000_000)):
        assert filled(100, *[one] * 300) == set(range(200, 300))


def test_it_says_whether_a_job_is_forgotten_before_its_time():
    retention = Retention(1_000, 1, MANY)
    for id in (1, 2):
        retention.add(job(id), 0)
    early = retention.next_to_forget(0)
    assert (early.id, retention.early) == (1, True)
    retention.discard(early)
    due = retention.next_to_forget(1_000)
    assert (due.id, retention.early) == (2, False)


class AnyRetention(RuleBasedStateMachine):
    """All kinds of jobs in a few queues, compared with a plain list."""

    @initialize(limit=st.integers(0, 12), limit_bytes=st.sampled_from([MANY, 3_000, 8_000]))
    def begin(self, limit, limit_bytes):
        self.retention, self.now, self.known, self.number = Retention(1_000, limit, limit_bytes), 0, {}, 0
        self.limit, self.limit_bytes = limit, limit_bytes

    @rule(
        queue=st.sampled_from("abc"),
        result=st.sampled_from([None, None, b"1", b"x" * 2_000]),
        age=st.sampled_from([None, None, 0, 300, 5_000]),
    )
    def add(self, queue, result, age):
        self.number += 1
        added = job(self.number, b"", result, queue)
        may = self.retention.add(added, self.now, age)
        self.known[added] = (self.now + (1_000 if age is None else age), age is not None)
        assert may or not (age == 0 or self.over())

    @rule(pick=st.integers(0, 99))
    def purge(self, pick):
        if self.known:
            purged = list(self.known)[pick % len(self.known)]
            del self.known[purged]
            self.retention.discard(purged)

    @rule(ms=st.sampled_from([0, 1, 150, 999, 4_000]))
    def wait(self, ms):
        self.now += ms
        while (selected := self.retention.next_to_forget(self.now)) is not None:
            assert self.retention.early == (self.known[selected][0] > self.now)
            assert not self.retention.early or self.over()
            alike = [other for other in self.known if self.kind(other) == self.kind(selected)]
            assert not self.retention.early or selected is alike[0]
            self.retention.discard(selected)
            del self.known[selected]
        assert not self.over()
        assert all(end > self.now for end, _ in self.known.values())

    def kind(self, one):
        own = self.known[one][1]
        result = one.extras is not None
        return (own, result or own, one.queue if own or result else None)

    def over(self):
        return len(self.known) > self.limit or sum(map(weight, self.known)) > self.limit_bytes

    @invariant()
    def figures(self):
        if hasattr(self, "known"):
            assert (len(self.retention), self.retention.bytes) == (
                len(self.known),
                sum(map(weight, self.known)),
            )


AnyRetention.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_the_same_jobs_are_remembered_as_by_a_plain_list = AnyRetention.TestCase
