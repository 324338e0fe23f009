"""Timers compared with a dict, and the exact time at which items are due."""

import gc
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobqueue.core import timers as timers_module
from jobqueue.core.timers import Timers


def all_due(timers, hung, now, limit=1000):
    """Takes all due items as the queue does: slice by slice, dropping each."""
    taken = []
    while due := timers.due(now, limit):
        assert len(due) <= limit
        for item in due:
            timers.drop(item, hung.pop(item))
            taken.append(item)
    return taken


@pytest.mark.parametrize("width", [1, 10, 100])
@pytest.mark.parametrize("when", [0, 1, 99, 100, 101, 12_345])
def test_an_item_is_due_at_its_time_and_not_a_millisecond_before(when, width):
    timers = Timers(width)
    timers.add("a", when)
    assert timers.due(when - 1, 10) == []
    assert timers.due(when, 10) == ["a"]
    assert timers.due(when + 1_000_000, 10) == ["a"]


def test_the_earliest_time_is_known_after_any_items_were_dropped():
    timers = Timers(10)
    assert timers.earliest() is None
    for when in (31, 5, 38, 7, 12):
        timers.add(when, when)
    for when, then in ((5, 7), (7, 12), (31, 12), (12, 38)):
        timers.drop(when, when)
        assert timers.earliest() == then
    timers.drop(38, 38)  # of the newest bucket, which stays
    assert timers.earliest() is None
    timers.add("a", 39)
    timers.add("b", 3)
    assert timers.earliest() == 3
    assert timers.due(3, 10) == ["b"]


def test_nothing_is_due_if_nothing_is_scheduled():
    assert Timers().due(1_000_000, 10) == []


def test_a_due_item_stays_scheduled_until_it_is_dropped():
    timers = Timers()
    timers.add("a", 50)
    assert timers.due(50, 10) == timers.due(50, 10) == ["a"]
    timers.drop("a", 50)
    assert timers.due(50, 10) == []
    assert len(timers) == 0


def test_earlier_buckets_come_first():
    timers = Timers(10)
    for when in (35, 5, 21, 12):
        timers.add(when, when)
    assert all_due(timers, {35: 35, 5: 5, 21: 21, 12: 12}, 40) == [5, 12, 21, 35]


@pytest.mark.parametrize("now", [9, 10, 1_000])
@pytest.mark.parametrize("limit", [1, 3, 250])
def test_items_of_one_bucket_are_due_in_the_order_in_which_they_were_added(now, limit):
    timers, hung = Timers(10), {}
    for number in range(1_000):
        hung[number] = number % 10
        timers.add(number, number % 10)
    for number in range(0, 1_000, 7):
        timers.drop(number, hung.pop(number))
    assert timers.due(now, limit) == timers.due(now, limit) == list(hung)[:limit]
    assert all_due(timers, hung.copy(), now, limit) == list(hung)
    for number in hung:
        timers.add(number, 5)
    timers.due(now, limit)
    for number in (1, 2, 998):  # two that were returned and one that was not, dropped and added again
        timers.drop(number, 5)
        timers.add(number, 5)
    assert sorted(all_due(timers, dict.fromkeys(hung, 5), now, limit)) == list(hung)


def test_no_more_than_the_limit_are_returned_at_once_and_the_others_after_them():
    timers = Timers(100)
    hung = {number: number % 7 for number in range(25)}
    for number, when in hung.items():
        timers.add(number, when)
    assert len(timers.due(6, 10)) == 10
    assert sorted(all_due(timers, hung, 6, limit=10)) == list(range(25))


def test_of_the_bucket_of_now_only_due_items_are_returned():
    timers = Timers(100)
    for when in (110, 150, 151, 199):
        timers.add(when, when)
    assert timers.due(150, 10) == [110, 150]


def test_an_item_that_is_not_due_does_not_hide_a_due_one_after_it():
    timers = Timers(100)
    for number in range(50):
        timers.add(number, 190)
    timers.add("due", 120)
    assert timers.due(120, 5) == ["due"]


@pytest.mark.parametrize("when", [49, 51, 250])
def test_dropping_an_item_that_is_not_scheduled_is_a_key_error(when):
    timers = Timers(1)
    timers.add("a", 50)
    with pytest.raises(KeyError):
        timers.drop("a", when)
    with pytest.raises(KeyError):
        timers.drop("b", 50)
    assert len(timers) == 1
    assert timers.due(50, 10) == ["a"]


def test_a_bucket_whose_time_has_passed_can_be_used_again():
    timers = Timers(100)
    timers.add("a", 50)
    timers.drop("a", 50)
    assert timers.due(500, 10) == []
    timers.add("late", 60)
    assert timers.due(500, 10) == ["late"]


@pytest.mark.parametrize("now", [155, 1_000])
def test_a_returned_item_whose_time_is_unknown_can_be_discarded(now):
    timers = Timers(100)
    for item in ("a", "b"):
        timers.add(item, 150)
    assert sorted(timers.due(now, 10)) == ["a", "b"]
    timers.discard("a", now)
    timers.discard("a", now)
    assert (timers.due(now, 10), len(timers)) == (["b"], 1)
    timers.drop("b", 150)
    assert (timers.due(now, 10), len(timers)) == ([], 0)


@settings(deadline=None, derandomize=True)
@given(
    width=st.sampled_from([1, 7, 100]),
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "drop", "pass"]), st.integers(0, 60), st.integers(0, 40)),
        max_size=60,
    ),
    limit=st.integers(1, 5),
)
def test_due_items_are_those_of_a_dict(width, steps, limit):
    timers, hung, now = Timers(width), {}, 0
    for what, item, amount in steps:
        if what == "pass":
            now += amount
            expected = {name for name, when in hung.items() if when <= now}
            assert set(all_due(timers, hung, now, limit)) == expected
        elif item in hung:
            timers.drop(item, hung.pop(item))
        elif what == "add":
            hung[item] = now + amount
            timers.add(item, hung[item])
        assert len(timers) == len(hung)


def test_a_dropped_item_is_gone_at_once():
    # Five minutes of leases at 20,000 jobs a second, none of which becomes due.
    timers = Timers(100)
    items = [f"item {number}" for number in range(1000)]

    def pass_through(bucket):
        for item in items:
            timers.add(item, bucket * 100)
        for item in items:
            timers.drop(item, bucket * 100)

    pass_through(0)
    gc.collect()
    tracemalloc.start()
    try:
        for bucket in range(1, 31):
            pass_through(bucket)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 30 * 1000  # bytes for each bucket that was used


def test_a_bucket_that_was_emptied_is_not_kept_until_its_time():
    # Jobs that may wait for 30 days, each with a time of its own, and are concluded at once.
    timers = Timers(10)
    timers.add("stays", 1_000_000_000)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(20_000):
            timers.add("a", 2_592_000_000 - 10 * number)
            timers.drop("a", 2_592_000_000 - 10 * number)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 50_000
    assert timers.due(999_999_999, 10) == []
    assert timers.due(1_000_000_000, 10) == ["stays"]


def test_among_many_emptied_buckets_nothing_is_lost_or_early():
    timers, hung = Timers(10), {}
    for number in range(5_000):
        when = number * 7_919 % 50_000
        timers.add(number, when)
        if number % 10:
            timers.drop(number, when)
        else:
            hung[number] = when
    for now in range(0, 50_500, 500):
        expected = {item for item, when in hung.items() if when <= now}
        assert set(all_due(timers, hung, now)) == expected
    assert len(timers) == 0


@pytest.fixture
def small_parts(monkeypatch):
    if timers_module.__file__.endswith(".py"):  # compiled code has the limit in it
        monkeypatch.setattr(timers_module, "_MOST", 5)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.sampled_from([1, 7, 100]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["add", "add", "drop", "pass", "discard"]), st.integers(0, 60), st.integers(0, 9)
        ),
        max_size=100,
    ),
    limit=st.integers(1, 5),
)
def test_due_items_of_a_bucket_in_parts_are_those_of_a_dict(small_parts, width, steps, limit):
    timers, hung, now = Timers(width), {}, 0
    for what, item, amount in steps:
        if what == "pass":
            now += amount
            due = timers.due(now, limit)
            assert (
                len(due) == min(limit, len([when for when in hung.values() if when <= now]))
                or len(due) < limit
            )
            for one in due:
                assert hung[one] <= now
            if due:
                timers.discard(due[0], now)
                del hung[due[0]]
            if item % 2:
                expected = {name for name, when in hung.items() if when <= now}
                assert set(all_due(timers, hung, now, limit)) == expected
        elif item in hung:
            timers.drop(item, hung.pop(item))
        elif what == "add":
            hung[item] = now + amount
            timers.add(item, hung[item])
        assert len(timers) == len(hung)
        assert timers.earliest() == (min(hung.values()) if hung else None)
        assert sorted(timers.some(100)) == sorted(hung)


def test_no_call_goes_through_all_items_of_a_large_bucket():
    timers, items = Timers(100), [f"item {number}" for number in range(100_000)]
    for item in items:
        timers.add(item, 1050)
    tracemalloc.start()
    try:
        assert timers.due(1049, 250) == []
        for now in (1050, 2000):
            tracemalloc.reset_peak()
            assert timers.due(now, 250) == items[:250]
            assert tracemalloc.get_traced_memory()[1] < 400_000  # a list of all would take 800,000
    finally:
        tracemalloc.stop()
    hung = dict.fromkeys(items, 1050)
    for item in items[::3]:
        timers.drop(item, hung.pop(item))
    assert all_due(timers, hung.copy(), 2000, 250) == list(hung)
    assert (len(timers), timers.due(9999, 5), timers.earliest()) == (0, [], None)
