"""A lane compared with a sorted list, and its promises about memory."""

import gc
import os
import tracemalloc
from bisect import insort
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobqueue.core.lane import Lane
from jobqueue.model import Job

THOROUGH = bool(os.environ.get("TEST_ALL"))


def job(place):
    return Job(place, "default", "t", 0, b"null", 0, place)


def filled(number, **shape):
    """A lane with jobs at places 1 to `number`, and those jobs."""
    lane = Lane(**shape)
    jobs = [job(place) for place in range(1, number + 1)]
    for each in jobs:
        lane.append(each)
    return lane, jobs


def places(lane):
    return [each.place for each in lane]


def drained(lane):
    return [lane.pop().place for _ in range(len(lane))]


def compact(lane, budget=8):
    """Runs all slices of one compaction, and returns how many there were."""
    for slices in range(1, 1_000):
        if lane.compact(budget):
            return slices
    raise AssertionError("this compaction has no end")


class LaneAgainstSortedList(RuleBasedStateMachine):
    """In any order of operations, with slices of compaction between them, the lane is a sorted list."""

    @initialize(size=st.integers(4, 16), spare=st.integers(0, 2))
    def begin(self, size, spare):
        self.lane = Lane(size=size, spare=spare)
        self.jobs = {}
        self.inside = []  # places, sorted
        self.came_back = set()  # those that were put back, which take no slot
        self.taken = []
        self.last = 0

    @rule(number=st.integers(1, 24), gap=st.integers(1, 3))
    def append(self, number, gap):
        for _ in range(number):
            self.last += gap
            self.jobs[self.last] = job(self.last)
            self.lane.append(self.jobs[self.last])
            self.inside.append(self.last)

    @rule(number=st.integers(1, 24))
    def pop(self, number):
        for _ in range(min(number, len(self.inside))):
            place = self.inside.pop(0)
            assert self.lane.pop() is self.jobs[place]
            self.came_back.discard(place)
            self.taken.append(place)

    @rule(picks=st.lists(st.integers(0, 99), min_size=1, max_size=6))
    def put_back(self, picks):
        for pick in picks:
            if self.taken:
                place = self.taken.pop(pick % len(self.taken))
                self.lane.put_back(self.jobs[place])
                insort(self.inside, place)
                self.came_back.add(place)

    @rule(picks=st.lists(st.integers(0, 999), min_size=1, max_size=24))
    def remove(self, picks):
        for pick in picks:
            if self.inside:
                place = self.inside[pick % len(self.inside)]
                self._remove(place)
                if pick % 2:  # it may come back later, to its place in the middle
                    self.taken.append(place)

    @precondition(lambda self: self.inside)
    @rule(number=st.integers(1, 6))
    def remove_the_head(self, number):
        for _ in range(min(number, len(self.inside))):
            self._remove(self.inside[0])

    @precondition(lambda self: self.inside)
    @rule(keep=st.integers(2, 5))
    def remove_most(self, keep):
        for place in [place for place in self.inside if place % keep]:
            self._remove(place)

    @precondition(lambda self: self.taken)
    @rule(pick=st.integers(0, 99))
    def remove_what_is_not_there(self, pick):
        with pytest.raises(KeyError):
            self.lane.remove(self.jobs[self.taken[pick % len(self.taken)]])

    @rule(budget=st.integers(1, 4))
    def one_slice_of_compaction(self, budget):
        self.lane.compact(budget)

    @rule(budget=st.integers(1, 8))
    def compact_while_wanted(self, budget):
        for _ in range(3):
            if self.lane.wants_compaction:
                compact(self.lane, budget)
        assert not self.lane.wants_compaction
        assert self.lane.empty * 2 <= self.lane.slots

    @invariant()
    def it_is_the_sorted_list(self):
        assert places(self.lane) == self.inside
        assert len(self.lane) == self.lane.live == len(self.inside)
        first = self.lane.peek()
        assert (first and first.place) == (self.inside[0] if self.inside else None)

    @invariant()
    def each_slot_holds_a_job_or_counts_as_empty(self):
        assert self.lane.slots - self.lane.empty == len(self.inside) - len(self.came_back)
        assert 0 <= self.lane.empty <= self.lane.slots

    def teardown(self):
        if hasattr(self, "lane"):
            assert drained(self.lane) == self.inside

    def _remove(self, place):
        self.lane.remove(self.jobs[place])
        self.inside.remove(place)
        self.came_back.discard(place)


LaneAgainstSortedList.TestCase.settings = settings(
    max_examples=300 if THOROUGH else 40,
    stateful_step_count=50 if THOROUGH else 25,
    deadline=None,
    derandomize=True,
    print_blob=True,
)
test_a_lane_behaves_as_a_sorted_list = LaneAgainstSortedList.TestCase


def test_jobs_leave_in_the_order_in_which_they_came():
    lane, _ = filled(100, size=8)
    assert drained(lane) == list(range(1, 101))
    assert lane.peek() is None


def test_an_empty_lane_has_nothing_to_pop():
    lane = Lane(size=4)
    with pytest.raises(IndexError):
        lane.pop()
    lane.append(job(1))
    lane.pop()
    with pytest.raises(IndexError):
        lane.pop()
    assert len(lane) == 0
    lane.append(job(2))
    assert drained(lane) == [2]


def test_jobs_that_come_back_are_at_the_front_in_the_order_of_their_places():
    lane, _ = filled(20, size=4)
    out = [lane.pop() for _ in range(7)]
    for place in (5, 2, 7):
        lane.put_back(out[place - 1])
    assert places(lane) == [2, 5, 7, *range(8, 21)]
    assert lane.peek().place == 2
    assert drained(lane) == [2, 5, 7, *range(8, 21)]


def test_a_job_removed_from_the_middle_comes_back_to_the_middle():
    lane, jobs = filled(9, size=4)
    for each in (jobs[4], jobs[8], jobs[0]):
        lane.remove(each)
    for each in (jobs[4], jobs[8], jobs[0]):
        lane.put_back(each)
        assert lane.peek() is (jobs[0] if each is jobs[0] else jobs[1])
    assert places(lane) == list(range(1, 10))
    assert lane.pop() is jobs[0]
    compact(lane)
    assert drained(lane) == list(range(2, 10))


def test_a_job_can_come_back_and_leave_again_and_again():
    lane, (first, *_) = filled(3, size=4)
    for _ in range(10):
        assert lane.pop() is first
        lane.put_back(first)
    assert places(lane) == [1, 2, 3]


def test_a_job_that_came_back_can_be_removed():
    lane, _ = filled(10, size=4)
    out = [lane.pop() for _ in range(6)]
    for each in out:
        lane.put_back(each)
    for place in (1, 4, 6):
        lane.remove(out[place - 1])
    assert places(lane) == [2, 3, 5, 7, 8, 9, 10]
    assert drained(lane) == [2, 3, 5, 7, 8, 9, 10]


def test_a_job_that_came_back_was_removed_and_comes_back_once_more_is_there_once():
    lane, _ = filled(8, size=4)
    out = [lane.pop() for _ in range(5)]
    for each in out:
        lane.put_back(each)
    lane.remove(out[3])
    lane.put_back(out[3])
    lane.remove(out[0])
    lane.put_back(out[0])
    assert drained(lane) == list(range(1, 9))


def test_a_removed_head_is_skipped():
    lane, jobs = filled(10, size=4)
    for place in (1, 2, 3):
        lane.remove(jobs[place - 1])
    assert lane.peek().place == 4
    assert drained(lane) == [4, 5, 6, 7, 8, 9, 10]


def test_a_job_removed_after_the_head_is_skipped_when_the_head_gets_there():
    lane, jobs = filled(10, size=4)
    for place in (2, 3, 6, 9):
        lane.remove(jobs[place - 1])
    assert drained(lane) == [1, 4, 5, 7, 8, 10]


def test_a_lane_emptied_by_removing_can_be_used_again():
    lane, jobs = filled(10, size=4)
    for each in reversed(jobs):
        lane.remove(each)
    assert (len(lane), lane.slots, lane.peek()) == (0, 0, None)
    lane.append(job(11))
    assert drained(lane) == [11]


@pytest.mark.parametrize("come_back", [0, 3], ids=["none came back", "some came back"])
def test_removing_a_job_that_is_not_there_is_a_key_error_and_changes_nothing(come_back):
    lane, jobs = filled(20, size=4)
    out = [lane.pop() for _ in range(6)]
    for each in out[:come_back]:
        lane.put_back(each)
    lane.remove(jobs[11])
    before = (places(lane), len(lane), lane.slots, lane.empty)
    popped, removed, never = out[5], jobs[11], job(99)
    for absent in (popped, removed, never, job(15)):
        with pytest.raises(KeyError):
            lane.remove(absent)
    assert (places(lane), len(lane), lane.slots, lane.empty) == before
    assert drained(lane) == before[0]


def test_a_job_that_came_back_cannot_be_removed_twice():
    lane, _ = filled(8, size=4)
    out = [lane.pop() for _ in range(6)]
    for each in out:
        lane.put_back(each)
    lane.remove(out[2])
    with pytest.raises(KeyError):
        lane.remove(out[2])
    assert drained(lane) == [1, 2, 4, 5, 6, 7, 8]


def test_a_lane_wants_compaction_when_more_than_half_of_its_slots_are_empty():
    lane, jobs = filled(64, size=16)
    for each in jobs[1:64:2]:
        lane.remove(each)
    assert not lane.wants_compaction
    lane.remove(jobs[2])
    assert lane.wants_compaction


def test_the_share_above_which_a_lane_wants_compaction_can_be_set():
    lane, jobs = filled(100, size=10, max_empty=0.2)
    for each in jobs[1:81:4]:
        lane.remove(each)
    assert not lane.wants_compaction
    lane.remove(jobs[2])
    assert lane.wants_compaction


@pytest.mark.parametrize("size", [4, 5, 16])
@pytest.mark.parametrize("keep", [3, 7, 50])
def test_under_a_cancel_heavy_load_compaction_leaves_more_than_half_of_the_slots_with_jobs(size, keep):
    lane, jobs = filled(1000, size=size)
    for each in jobs:
        if each.place % keep:
            lane.remove(each)
    expected = list(range(keep, 1001, keep))
    assert places(lane) == expected
    compact(lane, budget=4)
    assert not lane.wants_compaction
    assert lane.slots < 2 * len(lane)
    assert places(lane) == drained(lane) == expected


def test_compaction_keeps_returned_jobs_at_the_front():
    lane, jobs = filled(40, size=4)
    out = [lane.pop() for _ in range(5)]
    for each in jobs[6:38]:
        if each.place % 4:
            lane.remove(each)
    lane.put_back(out[3])
    compact(lane)
    assert drained(lane) == [4, 6, 8, 12, 16, 20, 24, 28, 32, 36, 39, 40]


def test_a_compaction_is_done_in_slices_no_longer_than_their_budget():
    lane, jobs = filled(1600, size=16)
    for each in jobs:
        if each.place % 3:
            lane.remove(each)
    assert compact(lane, budget=8) >= 100 // 8
    assert places(lane) == list(range(3, 1601, 3))


def test_changes_between_two_slices_of_a_compaction_are_not_lost():
    lane, jobs = filled(400, size=8)
    for each in jobs:
        if each.place % 4:
            lane.remove(each)
    inside = list(range(4, 401, 4))
    for last in count(401):
        done = lane.compact(3)
        jobs.append(job(last))
        lane.append(jobs[-1])
        inside.append(last)
        assert lane.pop().place == inside.pop(0)
        lane.remove(jobs[inside.pop(len(inside) // 2) - 1])
        lane.remove(jobs[inside.pop(-1) - 1])
        assert places(lane) == inside
        if done:
            break
    assert drained(lane) == inside


def test_a_compaction_reaches_all_segments_though_dequeues_take_some_away_meanwhile():
    lane, jobs = filled(3200, size=16)
    for each in jobs:
        if each.place % 8:
            lane.remove(each)
    for _ in range(14):
        assert not lane.compact(8)
    for _ in range(4):
        assert not lane.compact(8)
        for _ in range(48):
            lane.pop()
    compact(lane)
    assert lane.empty <= 16


def test_a_lane_that_is_emptied_during_a_compaction_takes_new_jobs():
    lane, jobs = filled(100, size=4)
    for each in jobs[20:]:
        if each.place % 4:
            lane.remove(each)
    assert not lane.compact(2)
    drained(lane)
    compact(lane)
    lane.append(job(101))
    assert (drained(lane), lane.slots) == ([101], 0)


def test_compacting_an_empty_lane_or_a_full_one_changes_nothing():
    lane = Lane(size=4)
    compact(lane)
    assert (len(lane), lane.slots) == (0, 0)
    lane, _ = filled(30, size=4)
    compact(lane)
    assert (places(lane), lane.slots) == (list(range(1, 31)), 30)


@pytest.mark.parametrize("spare", [0, 1, 2])
@pytest.mark.parametrize("queued", [0, 1, 15, 16, 17, 100])
def test_a_steady_load_keeps_the_slots_bounded(queued, spare):
    lane, _ = filled(queued, size=16, spare=spare)
    for place in range(queued + 1, queued + 2001):
        lane.append(job(place))
        assert lane.pop().place == place - queued
        assert lane.slots <= queued + 1 + 16


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_under_a_steady_load_the_memory_does_not_grow(spare):
    lane, _ = filled(200, size=16, spare=spare)
    numbers = count(201)

    def turns(number):
        for _ in range(number):
            lane.append(job(next(numbers)))
            lane.pop()

    assert _growth(turns, 500) < 2_000


def test_under_a_cancel_heavy_load_the_memory_does_not_grow():
    lane, jobs = filled(200, size=16, spare=1)
    numbers = count(201)

    def turns(number):
        for _ in range(number):
            jobs.append(job(next(numbers)))
            lane.append(jobs[-1])
            lane.remove(jobs.pop(len(jobs) // 2))
            if lane.wants_compaction:
                lane.compact(4)

    assert _growth(turns, 2000) < 4_000
    assert lane.slots <= 2 * len(lane) + 16


@pytest.mark.parametrize("spare", [0, 1, 4])
def test_a_long_lane_that_was_drained_keeps_no_more_segments_than_it_may(spare):
    jobs = [job(place) for place in range(1, 51 * 256 + 1)]
    tracemalloc.start()
    try:
        lane = Lane(size=256, spare=spare)
        for each in jobs:
            lane.append(each)
        for _ in jobs:
            lane.pop()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < (spare + 1) * 256 * 10 + 5_000  # a slot is 8 bytes, and a list grows by an eighth


def test_a_job_that_was_put_back_and_removed_is_not_kept():
    lane, _ = filled(16, size=16)
    out = [lane.pop() for _ in range(15)]

    def turns(number):
        for _ in range(number):
            for each in out:
                lane.put_back(each)
            for each in out:
                lane.remove(each)

    assert _growth(turns, 50) < 2_000


def _growth(turns, number):
    """Returns how many more bytes ten times as many turns use, after some first ones."""
    turns(number)
    gc.collect()
    tracemalloc.start()
    try:
        turns(number)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        turns(10 * number)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before
