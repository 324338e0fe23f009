"""A limiter: how many jobs may be in progress at once, and how many may start in a time."""

import pytest

from jobqueue.core.limiter import Limiter
from jobqueue.model import Rate


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


@pytest.mark.parametrize(
    "rate", [Rate(1, 1_000, 1), Rate(3, 1_000, 1), Rate(7, 60_000, 7), Rate(999, 1_000, 5)]
)
def test_it_has_capacity_at_the_time_that_it_names_or_names_the_next_millisecond(rate):
    limited, now = limiter(rate=rate), 5_000
    for _ in range(500):
        started(limited, now)
        at = limited.available_at(now)
        assert at > now
        assert limited.exhausted(at - 2) or at - 2 <= now
        assert not limited.exhausted(at) or limited.available_at(at) == at + 1
        now = at + 1


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


def test_it_knows_when_its_token_bucket_will_be_full_again():
    limited = limiter(rate=Rate(count=1, per=1_000, burst=3))
    assert limited.full_at(50) == 50
    limited.count_start(50)
    limited.count_start(50)
    assert limited.full_at(50) == 2_050
    assert limited.full_at(2_050) == 2_050
    assert limiter(3).full_at(50) == 50
