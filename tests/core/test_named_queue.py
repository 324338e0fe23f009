"""One named queue: its lanes by priority."""

import tracemalloc
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.core.job import Job
from jobqueue.core.named import NamedQueue

LOWEST, HIGHEST = -(2**31), 2**31 - 1
NOW = 1_000


def job(place, priority=0):
    return Job(place, "default", "t", priority, b"null", place, place)


def named_queue():
    return NamedQueue("default", (4, 1, 0.5))


def drained(queue):
    return [queue.take(NOW).place for _ in range(queue.queued)]


def test_higher_priorities_go_first_and_inside_one_priority_who_came_first():
    queue = named_queue()
    for place, priority in enumerate([0, LOWEST, 5, HIGHEST, 0, -1, 5, HIGHEST, LOWEST], start=1):
        queue.append(job(place, priority))
    assert drained(queue) == [4, 8, 3, 7, 1, 5, 6, 2, 9]


def test_a_higher_priority_that_comes_later_goes_before_what_is_there():
    queue = named_queue()
    for place in range(1, 8):
        queue.append(job(place))
    assert queue.take(NOW).place == 1
    queue.append(job(8, priority=1))
    assert drained(queue) == [8, 2, 3, 4, 5, 6, 7]


def test_a_job_that_comes_back_stands_at_its_place_among_its_own_priority():
    queue = named_queue()
    for place, priority in enumerate([0, 1, 0, 1], start=1):
        queue.append(job(place, priority))
    out = [queue.take(NOW) for _ in range(3)]
    assert [each.place for each in out] == [2, 4, 1]
    for each in reversed(out):
        queue.put_back(each)
    assert drained(queue) == [2, 4, 1, 3]


def test_a_priority_that_was_emptied_can_be_used_again():
    queue = named_queue()
    for place in range(1, 40, 3):
        for priority in (0, 3, -3):
            queue.append(job(place + priority // 3 + 1, priority))
        assert len(drained(queue)) == 3


def test_a_priority_emptied_by_removing_can_be_used_again():
    queue = named_queue()
    for place in range(1, 40):
        each = job(place, priority=place % 3)
        queue.append(each)
        queue.remove(each, NOW)
    assert (queue.queued, queue.lanes) == (0, [])
    queue.append(job(50, 1))
    queue.append(job(51, 2))
    assert drained(queue) == [51, 50]


def test_removing_what_is_not_queued_is_a_key_error():
    queue = named_queue()
    with pytest.raises(KeyError):
        queue.remove(job(1), NOW)
    queue.append(job(2))
    with pytest.raises(KeyError):
        queue.remove(job(1), NOW)
    assert drained(queue) == [2]


def test_the_oldest_is_the_first_that_came_whatever_its_priority():
    queue = named_queue()
    assert queue.oldest() is None
    for place, priority in [(1, -5), (2, 9), (3, 0)]:
        queue.append(job(place, priority))
    assert queue.oldest().place == 1
    assert queue.take(NOW).place == 2
    assert queue.oldest().place == 1


@pytest.mark.parametrize("step", [1, -1], ids=["each higher", "each lower"])
def test_jobs_that_each_have_their_own_priority_leave_no_lanes_behind(step):
    queue = named_queue()
    for place in range(1, 2000):
        queue.append(job(place, priority=step * place))
        assert queue.take(NOW).place == place
    assert len(queue.lanes) < 40
    queue.append(job(2000))
    queue.append(job(2001, HIGHEST))
    assert drained(queue) == [2001, 2000]


@pytest.mark.parametrize("step", [1, -1], ids=["each higher", "each lower"])
def test_jobs_that_each_have_their_own_priority_leave_no_memory_behind(step):
    queue = named_queue()

    def turns(first, last):
        for place in range(first, last):
            queue.append(job(place, priority=step * place))
            queue.pop()

    turns(1, 200)
    tracemalloc.start()
    try:
        turns(200, 400)
        before, _ = tracemalloc.get_traced_memory()
        turns(400, 4_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 15_000


@pytest.mark.parametrize("step", [1, -1], ids=["each higher", "each lower"])
def test_many_priorities_stay_in_order_while_lanes_are_swept(step):
    queue, waiting = named_queue(), []
    for place in range(1, 1000):
        priority = step * (place * 7919 % 1000)
        queue.append(job(place, priority))
        heappush(waiting, (-priority, place))
        if place % 3:
            assert queue.take(NOW).place == heappop(waiting)[1]
    assert drained(queue) == [heappop(waiting)[1] for _ in range(len(waiting))]


@settings(deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "append", "pop", "put back", "remove"]), st.integers(-3, 3)),
        max_size=80,
    )
)
def test_a_named_queue_behaves_as_a_sorted_list(steps):
    queue, inside, out = named_queue(), [], []
    for place, (what, number) in enumerate(steps, start=1):
        if what == "append":
            each = job(place, number)
            queue.append(each)
            inside.append(each)
        elif what == "pop" and inside:
            first = min(inside, key=lambda each: (-each.priority, each.place))
            assert queue.take(NOW) is first
            inside.remove(first)
            out.append(first)
        elif what == "put back" and out:
            each = out.pop(number % len(out))
            queue.put_back(each)
            inside.append(each)
        elif what == "remove" and inside:
            each = inside.pop(number % len(inside))
            queue.remove(each, NOW)
        assert queue.queued == len(inside)
    inside.sort(key=lambda each: (-each.priority, each.place))
    assert drained(queue) == [each.place for each in inside]
