"""The waiters of each queue, without jobs."""

import pytest

from jobqueue.core.waiters import Waiter, Waiters
from jobqueue.model import DequeueRequest


def waiter(*queues):
    return Waiter(DequeueRequest(queues, 300_000), 1_000, lambda _: None)


def line(waiters, name):
    """Drops all waiters on `name`, one after another, and returns them."""
    found = []
    while (first := waiters.first(name)) is not None:
        waiters.drop(first)
        found.append(first)
    return found


def test_the_waiter_that_came_first_is_first():
    waiters, came = Waiters(), [waiter("a") for _ in range(5)]
    for each in came:
        waiters.add(each)
    assert waiters.waiting("a") == len(waiters) == 5
    assert line(waiters, "a") == came
    assert waiters.waiting("a") == len(waiters) == 0


def test_a_waiter_on_several_queues_waits_on_each_and_leaves_all_at_once():
    waiters = Waiters()
    both, only_b = waiter("a", "b"), waiter("b")
    waiters.add(both)
    waiters.add(only_b)
    assert (waiters.first("a"), waiters.first("b")) == (both, both)
    assert (waiters.waiting("a"), waiters.waiting("b"), len(waiters)) == (1, 2, 2)
    waiters.drop(both)
    assert (waiters.first("a"), waiters.first("b")) == (None, only_b)
    assert (waiters.waiting("a"), waiters.waiting("b"), len(waiters)) == (0, 1, 1)


def test_a_waiter_that_leaves_does_not_change_the_order_of_the_others():
    waiters, came = Waiters(), [waiter("a") for _ in range(4)]
    for each in came:
        waiters.add(each)
    waiters.drop(came[1])
    assert line(waiters, "a") == [came[0], came[2], came[3]]


def test_a_waiter_that_comes_again_is_the_last():
    waiters, (first, second) = Waiters(), (waiter("a"), waiter("a"))
    waiters.add(first)
    waiters.add(second)
    waiters.drop(first)
    waiters.add(first)
    assert line(waiters, "a") == [second, first]


def test_a_waiter_that_does_not_wait_cannot_be_dropped():
    waiters, gone, stays = Waiters(), waiter("a", "b"), waiter("a", "b")
    waiters.add(gone)
    waiters.add(stays)
    waiters.drop(gone)
    for absent in (gone, waiter("a", "b"), waiter("c")):
        with pytest.raises(KeyError):
            waiters.drop(absent)
    assert len(waiters) == 1
    assert line(waiters, "b") == [stays]


def test_a_waiter_that_names_a_queue_twice_waits_on_it_once():
    waiters, twice = Waiters(), waiter("a", "b", "a")
    waiters.add(twice)
    assert (waiters.waiting("a"), waiters.waiting("b"), len(waiters)) == (1, 1, 1)
    waiters.drop(twice)
    assert (waiters.names(), len(waiters)) == ([], 0)


def test_only_queues_with_waiters_are_named():
    waiters, both = Waiters(), waiter("a", "b")
    assert waiters.names() == []
    waiters.add(both)
    assert sorted(waiters.names()) == ["a", "b"]
    waiters.drop(both)
    assert waiters.names() == []
    assert (waiters.first("a"), waiters.waiting("a")) == (None, 0)
