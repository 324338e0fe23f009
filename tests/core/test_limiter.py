"""A gate: how many may run at once, how many may start in a time."""

import pytest

from jobqueue.core.limiter import Limiter
from jobqueue.model import Rate


def gate(most=None, rate=None):
    return Limiter("default", None, most, rate)


def started(gate, now, most=1_000):
    """How many may start at `now`, by starting them."""
    for number in range(most):
        if not gate.is_open(now):
            return number
        gate.enter(now)
    return most


def test_without_limits_it_is_always_open():
    free = gate()
    assert started(free, 0, 50) == 50
    assert free.next_at(0) is None
    assert not free.leave()


@pytest.mark.parametrize("most", [0, 1, 3])
def test_no_more_than_so_many_run_at_once(most):
    limited = gate(most)
    assert started(limited, 0) == most
    assert limited.next_at(0) is None  # only the end of a lease opens it
    if most:
        assert limited.leave()
        assert started(limited, 0) == 1


def test_it_opens_only_when_the_last_one_too_many_leaves():
    limited = gate(5)
    started(limited, 0)
    limited.limit(2, None)
    assert [limited.leave() for _ in range(5)] == [False, False, False, True, False]


def test_a_rate_lets_its_burst_start_at_once_and_then_one_each_time_a_token_is_there():
    limited = gate(rate=Rate(count=2, per=1_000, burst=3))
    assert started(limited, 10_000) == 3
    assert limited.next_at(10_000) == 10_500
    assert not limited.is_open(10_499)
    assert started(limited, 10_500) == 1
    assert started(limited, 11_500) == 2


def test_after_a_long_quiet_time_there_is_no_more_than_the_burst():
    limited = gate(rate=Rate(count=2, per=1_000, burst=3))
    started(limited, 0)
    assert started(limited, 10**9) == 3


def test_asking_often_takes_and_adds_nothing():
    often, seldom = (gate(rate=Rate(count=1, per=1_024, burst=1)) for _ in range(2))
    started(often, 0)
    started(seldom, 0)
    opened = [next(now for now in range(1, 2_000) if often.is_open(now))]
    opened.append(next(now for now in (1_023, 1_024) if seldom.is_open(now)))
    assert opened == [1_024, 1_024]


@pytest.mark.parametrize(
    "rate", [Rate(1, 1_000, 1), Rate(3, 1_000, 1), Rate(7, 60_000, 7), Rate(999, 1_000, 5)]
)
def test_it_is_open_at_the_instant_that_it_names_or_names_one_just_behind(rate):
    limited, now = gate(rate=rate), 5_000
    for _ in range(500):
        started(limited, now)
        at = limited.next_at(now)
        assert at > now
        assert not limited.is_open(at - 2) or at - 2 <= now
        assert limited.is_open(at) or limited.next_at(at) == at + 1
        now = at + 1


def test_over_a_long_time_no_more_start_than_the_rate_allows():
    limited = gate(rate=Rate(count=7, per=1_000, burst=2))
    total = sum(started(limited, now) for now in range(0, 100_000, 13))
    assert 690 <= total <= 702


def test_a_rate_does_not_give_back_what_was_started():
    limited = gate(rate=Rate(count=1, per=1_000, burst=1))
    limited.enter(0)
    assert not limited.leave()
    assert not limited.is_open(999)


def test_with_both_limits_the_end_of_a_lease_does_not_open_it_before_its_token_is_there():
    limited = gate(1, Rate(count=1, per=1_000, burst=1))
    limited.enter(0)
    assert limited.next_at(0) is None
    limited.leave()
    assert not limited.is_open(0)
    assert limited.next_at(0) == 1_000


def test_the_same_rate_set_again_goes_on_and_another_begins_full():
    limited = gate(rate=Rate(1, 1_000, 2))
    started(limited, 0)
    limited.limit(9, Rate(1, 1_000, 2))
    assert not limited.is_open(999)
    limited.limit(9, Rate(1, 1_000, 5))
    assert started(limited, 999) == 5


def test_it_says_when_its_rate_has_nothing_to_remember():
    limited = gate(rate=Rate(count=1, per=1_000, burst=3))
    assert limited.full_at(50) == 50
    limited.enter(50)
    limited.enter(50)
    assert limited.full_at(50) == 2_050
    assert limited.full_at(2_050) == 2_050
    assert gate(3).full_at(50) == 50
