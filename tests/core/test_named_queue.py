"""One named queue: its lanes by priority."""

import itertools
import tracemalloc
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.core import key_group
from jobqueue.core import named_queue as named_queues
from jobqueue.core.limiter import QUIET, Limiter
from jobqueue.core.named_queue import NamedQueue
from jobqueue.model import Job, JobExtras, KeyLimits, Options, QueueSettings, Rate

LOWEST, HIGHEST = -(2**31), 2**31 - 1
NOW = 1_000


def job(place, priority=0):
    return Job(place, "default", "t", priority, b"null", place, place)


def named_queue():
    return NamedQueue("default", (4, 1, 0.5))


def drained(queue):
    return [queue.take(NOW).place for _ in range(queue.queued)]


def test_higher_priorities_go_first_and_inside_one_priority_the_job_that_came_first():
    queue = named_queue()
    for place, priority in enumerate([0, LOWEST, 5, HIGHEST, 0, -1, 5, HIGHEST, LOWEST], start=1):
        queue.append(job(place, priority))
    assert drained(queue) == [4, 8, 3, 7, 1, 5, 6, 2, 9]


def test_a_higher_priority_that_comes_later_goes_first():
    queue = named_queue()
    for place in range(1, 8):
        queue.append(job(place))
    assert queue.take(NOW).place == 1
    queue.append(job(8, priority=1))
    assert drained(queue) == [8, 2, 3, 4, 5, 6, 7]


def test_a_job_that_comes_back_is_at_its_place_in_its_own_priority():
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


def test_the_oldest_job_is_the_one_that_came_first_whatever_its_priority():
    queue = named_queue()
    assert queue.oldest() is None
    for place, priority in [(1, -5), (2, 9), (3, 0)]:
        queue.append(job(place, priority))
    assert queue.oldest().place == 1
    assert queue.take(NOW).place == 2
    assert queue.oldest().place == 1


@pytest.mark.parametrize("step", [1, -1], ids=["each higher", "each lower"])
def test_jobs_that_each_have_their_own_priority_leave_no_lanes(step):
    queue = named_queue()
    for place in range(1, 2000):
        queue.append(job(place, priority=step * place))
        assert queue.take(NOW).place == place
    assert len(queue.lanes) < 40
    queue.append(job(2000))
    queue.append(job(2001, HIGHEST))
    assert drained(queue) == [2001, 2000]


@pytest.mark.parametrize("step", [1, -1], ids=["each higher", "each lower"])
def test_jobs_that_each_have_their_own_priority_leave_no_memory_in_use(step):
    queue = named_queue()

    def turns(first, last):
        for place in range(first, last):
            queue.append(job(place, priority=step * place))
            queue.take(NOW)

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
def test_many_priorities_stay_in_order_while_outdated_entries_are_dropped(step):
    queue, waiting = named_queue(), []
    for place in range(1, 1000):
        priority = step * (place * 7919 % 1000)
        queue.append(job(place, priority))
        heappush(waiting, (-priority, place))
        if place % 3:
            assert queue.take(NOW).place == heappop(waiting)[1]
    assert drained(queue) == [heappop(waiting)[1] for _ in range(len(waiting))]


def test_an_outdated_entry_does_not_harm_a_lane_that_was_emptied_and_created_again_at_the_same_place():
    queue = named_queue()
    first, lower, third = job(1), job(2, -1), job(3)
    for each in (first, lower, third):
        queue.append(each)
    assert queue.take(NOW) is first
    queue.put_back(first)
    assert [queue.take(NOW), queue.take(NOW)] == [first, third]
    queue.put_back(third)
    assert drained(queue) == [3, 2]


# -- keys and limiters ---------------------------------------------------------------------------------


def keyed(place, key, priority=0):
    each = job(place, priority)
    each.extras = JobExtras(options=Options(key=key))
    return each


def limited(wakes=None, **limits):
    queue = NamedQueue("default", (4, 1, 0.5), lambda limiter, at: (wakes or []).append((limiter, at)))
    queue.configure(QueueSettings(key_limits=KeyLimits(**limits)), 0)
    return queue


def start(queue, now=NOW):
    """Takes a job and counts its start."""
    each = queue.take(now)
    if each is not None:
        queue.count_start(each, now)
    return each and each.place


def test_jobs_of_several_keys_go_by_priority_and_place_as_if_they_had_none():
    queue = named_queue()
    for place, (key, priority) in enumerate(
        [("x", 0), (None, 0), ("y", 5), ("x", 5), (None, 5), ("y", 0)], start=1
    ):
        queue.append(keyed(place, key, priority))
    assert drained(queue) == [3, 4, 5, 1, 2, 6]


def test_a_key_at_its_limit_is_blocked_and_the_others_do_not_wait_for_it():
    queue = limited(max_in_progress=1)
    blocked = [keyed(place, "x", priority=9) for place in (1, 2, 3)]
    for each in (*blocked, job(4), keyed(5, "y")):
        queue.append(each)
    assert [start(queue) for _ in range(4)] == [1, 4, 5, None]
    assert queue.count_end(blocked[0], NOW)
    assert [start(queue) for _ in range(2)] == [2, None]


def test_a_group_that_was_blocked_comes_back_at_the_place_of_its_first_job():
    queue = limited(max_in_progress=1)
    first = keyed(1, "x")
    for each in (first, keyed(2, "x"), keyed(3, "y"), keyed(4, "y")):
        queue.append(each)
    assert [start(queue) for _ in range(3)] == [1, 3, None]
    queue.append(job(5))
    queue.append(keyed(6, "x"))  # while x is blocked
    queue.count_end(first, NOW)
    assert [start(queue) for _ in range(3)] == [2, 5, None]


def test_a_key_without_jobs_is_not_kept():
    queue = limited(max_in_progress=1)
    for place in range(1, 200):
        each = keyed(place, f"key-{place}")
        queue.append(each)
        assert start(queue) == place
        queue.count_end(each, NOW)
    assert (queue.groups, len(queue.lanes)) == ({}, 0)


def test_a_key_with_a_rate_is_kept_until_its_limiter_is_as_a_new_one_and_no_longer():
    wakes = []
    queue = NamedQueue("default", (4, 1, 0.5), lambda limiter, at: wakes.append((limiter, at)))
    queue.configure(QueueSettings(key_limits=KeyLimits(None, Rate(1, 1_000, 2))), 0)
    each = keyed(1, "x")
    queue.append(each)
    start(queue)
    queue.count_end(each, NOW)
    [(limiter, at)] = wakes
    assert at == NOW + 1_000 + QUIET
    queue.wake(limiter, at - 1)
    assert set(queue.groups) == {"x"}
    queue.wake(limiter, at)
    assert queue.groups == {}


def test_a_limiter_whose_bucket_fills_up_is_woken_earlier_for_the_next_job():
    q = Woken(Rate(1, 1_000, 10))
    jobs = [keyed(place, "x") for place in range(1, 11)]
    for each in jobs:
        q.queue.append(each)
    assert [start(q.queue) for _ in jobs] == list(range(1, 11))
    for each in jobs:
        q.queue.count_end(each, NOW)
    assert q.wakes_at == NOW + 10_000 + QUIET
    q.queue.append(keyed(11, "x"))
    assert q.queue.take(NOW) is None
    assert q.wakes_at == NOW + 1_000


def test_the_late_timer_of_an_old_limiter_leaves_the_new_one_of_its_key_alone():
    q = Woken(Rate(1, 3_600_000, 1))
    first, second, third = (keyed(place, "x") for place in (1, 2, 3))
    q.queue.append(first)
    start(q.queue)
    q.queue.count_end(first, NOW)
    old = q.queue.groups["x"].limiter
    q.queue.configure(QueueSettings(key_limits=KeyLimits(1)), 0)
    q.queue.append(second)
    start(q.queue)
    q.queue.count_end(second, NOW)
    q.queue.append(second)
    start(q.queue)
    q.queue.wake(old, NOW + 3_600_000)
    q.queue.append(third)
    assert start(q.queue, NOW + 3_600_000) is None


class Woken:
    """A queue whose keys have a rate, and the time of the one timer of its limiter."""

    def __init__(self, rate):
        self.queue = NamedQueue("default", (4, 1, 0.5), self._schedule_wake)
        self.queue.configure(QueueSettings(key_limits=KeyLimits(None, rate)), 0)
        self.wakes_at = None

    def _schedule_wake(self, limiter, at):
        assert limiter.wakes_at is None or at < limiter.wakes_at
        limiter.wakes_at = self.wakes_at = at


def heap_operations(monkeypatch):
    """Counts the operations on the heaps of lanes and groups."""
    done = []
    for module, name in itertools.product((named_queues, key_group), ("heappush", "heappop", "heapreplace")):
        operation = getattr(module, name)

        def counted(*args, operation=operation):
            done.append(operation)
            return operation(*args)

        monkeypatch.setattr(module, name, counted)
    return done


@pytest.mark.parametrize("blocked", [1_000, 100_000])
def test_many_blocked_jobs_ahead_cost_a_dequeue_nothing(monkeypatch, blocked):
    keys = blocked // 10
    queue = limited(max_in_progress=1)
    for place in range(1, blocked + keys + 1):
        queue.append(keyed(place, f"key-{place % keys}", priority=1))
    running = [queue.take(NOW) for _ in range(keys)]
    for each in running:
        queue.count_start(each, NOW)
    assert queue.take(NOW) is None  # by now all keys are blocked
    assert queue.queued == blocked
    for place in range(1_000_000, 1_000_100):
        queue.append(job(place))
    done = heap_operations(monkeypatch)
    for place in range(1_000_000, 1_000_050):
        assert queue.take(NOW).place == place
    assert len(done) <= 2 * 50
    done.clear()
    for each in running[:50]:  # a key has capacity again: its next job, and no other, is taken
        queue.count_end(each, NOW)
        following = queue.take(NOW)
        assert (following.place, following.extras.options.key) == (each.place + keys, each.extras.options.key)
        queue.count_start(following, NOW)
    assert len(done) <= 4 * 50
    done.clear()
    for place in range(2_000_000, 2_000_050):  # more jobs of blocked keys
        queue.append(keyed(place, f"key-{place % keys}", priority=1))
        assert queue.take(NOW).place < 2_000_000
    assert len(done) <= 4 * 50


@pytest.mark.parametrize("priorities", [1_000, 100_000])
def test_a_key_with_many_priorities_is_blocked_and_unblocked_as_one(monkeypatch, priorities):
    queue = limited(max_in_progress=1)
    for place in range(1, priorities + 1):
        queue.append(keyed(place, "x", priority=place))
    done = heap_operations(monkeypatch)
    for place in range(priorities, priorities - 50, -1):
        running = queue.take(NOW)
        assert running.place == place
        queue.count_start(running, NOW)
        assert queue.take(NOW) is None
        queue.count_end(running, NOW)
    assert len(done) <= 5 * 50


def test_the_priorities_of_a_key_keep_their_order_when_its_rate_has_a_token_and_no_timer_has_run():
    q = Woken(Rate(1, 1_000, 1))
    q.queue.append(keyed(1, "x", priority=5))
    q.queue.append(keyed(2, "x", priority=5))
    assert [start(q.queue) for _ in range(2)] == [1, None]
    q.queue.append(keyed(3, "x", priority=1))
    q.queue.append(keyed(4, "x", priority=9))
    assert [each.place for each in q.queue.upcoming(9, NOW + 999)] == []
    assert start(q.queue, NOW + 999) is None
    assert [each.place for each in q.queue.upcoming(9, NOW + 1_000)] == [4, 2, 3]
    assert [start(q.queue, NOW + 1_000 * number) for number in (1, 2, 3)] == [4, 2, 3]


ACTS = ["append", "append", "take", "take", "leave", "put back", "remove", "wait", "configure"]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 11)), max_size=80))
def test_keys_with_limits_behave_as_a_sorted_list_of_those_whose_limiter_has_capacity(steps):
    queue, waiting, running, limiters, now = named_queue(), [], [], {}, NOW
    limits = KeyLimits(1, Rate(2, 1_000, 3))
    queue.configure(QueueSettings(key_limits=limits), 0)

    def limits_of(key):
        return (limits.max_in_progress, limits.rate) if key else (None, None)

    def limiter_of(each):
        key = each.extras.options.key if each.extras else None
        return limiters.setdefault(key, Limiter("default", key, *limits_of(key)))

    def next_ones():
        free = [each for each in waiting if not limiter_of(each).exhausted(now)]
        return sorted(free, key=lambda each: (-each.priority, each.place))

    for place, (what, number) in enumerate(steps, start=1):
        if what == "append":
            waiting.append(
                keyed(place, f"k{number % 3}", number // 4) if number % 4 else job(place, number // 4)
            )
            queue.append(waiting[-1])
        elif what == "take":
            upcoming = queue.upcoming(99, now)
            assert [each.place for each in upcoming] == [each.place for each in next_ones()]
            each = queue.take(now)
            assert each is (upcoming[0] if upcoming else None)
            if each is not None:
                queue.count_start(each, now)
                limiter_of(each).count_start(now)
                waiting.remove(each)
                running.append(each)
        elif what in ("leave", "put back") and running:
            each = running.pop(number % len(running))
            queue.count_end(each, now)
            limiter_of(each).count_end()
            if what == "put back":
                queue.put_back(each)
                waiting.append(each)
        elif what == "remove" and waiting:
            queue.remove(waiting.pop(number % len(waiting)), now)
        elif what == "wait":
            now += number * 100
        elif what == "configure":
            limits = KeyLimits(number % 3 or None, Rate(2, 1_000, 3) if number % 2 else None)
            queue.configure(QueueSettings(key_limits=limits), 0)
            for key, limiter in limiters.items():
                limiter.set_limits(*limits_of(key))


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


@given(
    st.lists(st.tuples(st.sampled_from([-1, 0, 7]), st.sampled_from([None, None, "a", "b"])), max_size=40),
    st.lists(st.integers(0, 39), max_size=12),
    st.integers(0, 12),
    st.integers(1, 50),
)
def test_the_next_jobs_are_those_that_are_taken_next(given_jobs, removed, taken, most):
    queue = named_queue()
    jobs = []
    for place, (priority, key) in enumerate(given_jobs, start=1):
        jobs.append(job(place, priority))
        if key is not None:
            jobs[-1].extras = JobExtras(options=Options(key=key))
        queue.append(jobs[-1])
    out = [each for _ in range(taken) if (each := queue.take(NOW)) is not None]
    for each in out[::2]:
        queue.put_back(each)
    waiting = [each for each in jobs if each not in out[1::2]]
    for index in dict.fromkeys(index for index in removed if index < len(waiting)):
        queue.remove(waiting[index], NOW)
    before = [list(lane) for lane in queue.lanes]
    upcoming = [each.place for each in queue.upcoming(most, NOW)]
    assert [list(lane) for lane in queue.lanes] == before
    assert upcoming == drained(queue)[:most]


@pytest.mark.parametrize("key", [None, "k"])
def test_a_job_that_is_put_back_repeatedly_is_listed_once_and_costs_no_memory(key):
    queue = named_queue()
    for place, priority in enumerate([0, 1, 1, 1], start=1):
        each = job(place, priority)
        if key is not None:
            each.extras = JobExtras(options=Options(key=key))
        queue.append(each)
    for _ in range(300):
        queue.put_back(queue.take(NOW))
    assert [each.place for each in queue.upcoming(9, NOW)] == [2, 3, 4, 1]
    assert len(queue._heap) <= 2 * 1 + 8
    first = queue.take(NOW)
    assert [each.place for each in queue.upcoming(9, NOW)] == [3, 4, 1]
    queue.put_back(first)
    assert drained(queue) == [2, 3, 4, 1]


def test_a_job_whose_key_is_at_its_limit_is_not_among_the_next():
    queue = named_queue()
    queue.configure(QueueSettings(key_limits=KeyLimits(max_in_progress=1)), 0)
    for place, key in enumerate(["a", "a", "b"], start=1):
        each = job(place)
        each.extras = JobExtras(options=Options(key=key))
        queue.append(each)
    first = queue.take(NOW)
    queue.count_start(first, NOW)
    assert [each.place for each in queue.upcoming(9, NOW)] == [3]
    queue.count_end(first, NOW)
    assert [each.place for each in queue.upcoming(9, NOW)] == [2, 3]
