"""A limiter: how many jobs may be in progress at once, and how many may start in a time."""

from bisect import bisect_left
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.core.limiter import QUIET, Limiter, StartWindow
from jobqueue.model import Rate, default_burst


def limiter(max_in_progress=None, rate=None):
    return Limiter("default", None, max_in_progress, rate)


def started(limited, now, limit=1_000):
    """Starts jobs at `now` until no more may start, and returns how many there were."""
    for number in range(limit):
        if limited.exhausted(now):
            return number
        limited.count_start(now)
    return limit


def test_without_limits_any_number_may_start():
    free = limiter()
    assert started(free, 0, 50) == 50
    assert free.available_at(0) is None
    assert not free.count_end()


@pytest.mark.parametrize("max_in_progress", [0, 1, 3])
def test_no_more_than_the_limit_are_in_progress_at_once(max_in_progress):
    limited = limiter(max_in_progress)
    assert started(limited, 0) == max_in_progress
    assert limited.available_at(0) is None  # only the end of a lease gives it capacity
    if max_in_progress:
        assert limited.count_end()
        assert started(limited, 0) == 1


def test_it_has_capacity_only_after_the_last_excess_job_has_ended():
    limited = limiter(5)
    started(limited, 0)
    limited.set_limits(2, None)
    assert [limited.count_end() for _ in range(5)] == [False, False, False, True, False]


def test_a_rate_lets_its_burst_start_at_once_and_then_one_each_time_a_token_is_there():
    limited = limiter(rate=Rate(count=2, per=1_000, burst=3))
    assert started(limited, 10_000) == 3
    assert limited.available_at(10_000) == 10_500
    assert limited.exhausted(10_499)
    assert started(limited, 10_500) == 1
    assert started(limited, 11_500) == 2


def test_after_a_long_time_without_jobs_no_more_than_the_burst_may_start():
    limited = limiter(rate=Rate(count=2, per=1_000, burst=3))
    started(limited, 0)
    assert started(limited, 10**9) == 3


def test_asking_often_takes_and_adds_nothing():
    often, seldom = (limiter(rate=Rate(count=1, per=1_024, burst=1)) for _ in range(2))
    started(often, 0)
    started(seldom, 0)
    opened = [next(now for now in range(1, 2_000) if not often.exhausted(now))]
    opened.append(next(now for now in (1_023, 1_024) if not seldom.exhausted(now)))
    assert opened == [1_024, 1_024]


def test_over_a_long_time_no_more_start_than_the_rate_allows():
    limited = limiter(rate=Rate(count=7, per=1_000, burst=2))
    total = sum(started(limited, now) for now in range(0, 100_000, 13))
    assert 690 <= total <= 702


def test_the_end_of_a_job_returns_no_token():
    limited = limiter(rate=Rate(count=1, per=1_000, burst=1))
    limited.count_start(0)
    assert not limited.count_end()
    assert limited.exhausted(999)


def test_with_both_limits_the_end_of_a_lease_gives_no_capacity_before_there_is_a_token():
    limited = limiter(1, Rate(count=1, per=1_000, burst=1))
    limited.count_start(0)
    assert limited.available_at(0) is None
    limited.count_end()
    assert limited.exhausted(0)
    assert limited.available_at(0) == 1_000


def test_an_unchanged_rate_keeps_its_tokens_and_another_begins_with_a_full_bucket():
    limited = limiter(rate=Rate(1, 1_000, 2))
    started(limited, 0)
    limited.set_limits(9, Rate(1, 1_000, 2))
    assert limited.exhausted(999)
    limited.set_limits(9, Rate(1, 1_000, 5))
    assert started(limited, 999) == 5


def test_it_knows_when_it_will_be_as_a_new_one():
    limited = limiter(rate=Rate(count=1, per=1_000, burst=3))
    assert limited.fresh_at(50) == 50
    limited.count_start(50)
    limited.count_start(50)
    assert limited.fresh_at(50) == 2_050 + QUIET
    assert limited.fresh_at(9_000) == 9_000
    assert limiter(3).fresh_at(50) == 50


def test_tokens_for_late_ticks_are_there_only_until_it_is_as_a_new_one():
    def next_of(start):
        """Returns when the next one may start after two at `start`, the first of which was at 0."""
        limited = limiter(rate=Rate(count=1, per=1_000, burst=1))
        limited.count_start(0)
        limited.count_start(start)
        return limited.available_at(start) - start

    assert next_of(1_000) == 1_000
    assert next_of(1_150) == 850
    assert next_of(1_000 + QUIET - 1) == 800
    assert next_of(1_000 + QUIET) == 1_000


@given(
    st.integers(1, 40), st.integers(0, 3), st.sampled_from([7, 333, 1_000]), st.lists(st.integers(0, 3_000))
)
def test_one_that_is_dropped_when_it_is_as_a_new_one_does_the_same_as_one_that_is_kept(
    count, burst, per, pauses
):
    rate, now = Rate(count, per, burst), 0
    kept, remade = limiter(rate=rate), limiter(rate=rate)
    for pause in pauses:
        now += pause
        if remade.fresh_at(now) == now:
            remade = limiter(rate=rate)
        assert kept.available_at(now) == remade.available_at(now)
        assert started(kept, now, 3) == started(remade, now, 3)


def test_asking_a_new_one_adds_no_tokens_to_it():
    asked, other = (limiter(rate=Rate(count=10, per=1_000, burst=1)) for _ in range(2))
    for now in range(0, 2_000, 10):
        assert not asked.exhausted(now)
    for limited in (asked, other):
        limited.count_start(2_000)
        assert limited.available_at(2_000) == 2_100


@pytest.mark.parametrize(
    "rate", [Rate(1, 1_000, 1), Rate(3, 1_000, 1), Rate(7, 60_000, 7), Rate(999, 1_000, 5)]
)
def test_it_has_capacity_at_the_very_time_that_it_names(rate):
    limited, now = limiter(rate=rate), 5_000
    for _ in range(500):
        started(limited, now)
        now = limited.available_at(now)
        assert limited.exhausted(now - 1)
        assert not limited.exhausted(now)


# -- at most `count + burst` in any `per` ------------------------------------------------------------


def most_in_any(per, starts):
    """The largest number of `starts` within a window of `per`, which excludes its end."""
    return max((bisect_left(starts, at + per) - number for number, at in enumerate(starts)), default=0)


@st.composite
def demand(draw):
    """A rate, and the times at which some number of jobs is asked for."""
    count, burst = draw(st.integers(1, 40)), draw(st.integers(0, 12))
    per = draw(st.sampled_from([1, 7, 50, 1_000, 60_000]))
    pauses = st.one_of(st.integers(0, 20), st.integers(0, 2 * per))
    asked = draw(st.lists(st.tuples(pauses, st.integers(1, 60)), min_size=1, max_size=60))
    return Rate(count, per, burst), asked


@given(demand())
def test_in_any_period_no_more_than_count_and_burst_start(demand):
    rate, asked = demand
    limited, now, starts = limiter(rate=rate), 5_000, []
    for pause, jobs in asked:
        now += pause
        starts += [now] * started(limited, now, jobs)
    assert starts
    assert most_in_any(rate.per, starts) <= rate.count + rate.burst


def test_ten_a_second_are_ten_a_second_for_consumers_that_wait_for_ticks():
    for burst in (0, 1):
        limited, rng, now, total = limiter(rate=Rate(10, 1_000, burst)), Random(1), 0, 0
        while now < 100_000:
            total += started(limited, now)
            now += 100 + rng.randint(-2, 5)
        assert 950 <= total <= 1_001


def test_with_a_burst_of_0_the_starts_are_spread():
    limited = limiter(rate=Rate(100, 1_000, 0))
    assert started(limited, 0) == 10
    assert [started(limited, now) for now in range(100, 1_100, 100)] == [
        10,
        10,
        10,
        10,
        10,
        10,
        10,
        10,
        10,
        10,
    ]


def test_the_next_start_of_a_burst_of_0_is_when_the_first_is_a_period_old():
    limited = limiter(rate=Rate(1, 10_000, 0))
    limited.count_start(500)
    assert limited.available_at(600) == 10_500
    assert limited.exhausted(10_499)
    assert not limited.exhausted(10_500)
    assert limited.fresh_at(600) == 10_500 + QUIET


def test_the_starts_of_a_full_window_take_little_memory():
    window = StartWindow(1_000_000, 3_600_000)
    for now in range(0, 3_600_000, 40):
        window.add(now)
    assert len(window._entries) <= 66


@pytest.mark.parametrize(("count", "burst"), [(1, 1), (9, 1), (19, 1), (20, 2), (100, 10), (1_000, 100)])
def test_the_burst_is_a_tenth_of_the_count_and_at_least_1(count, burst):
    assert default_burst(count) == burst
