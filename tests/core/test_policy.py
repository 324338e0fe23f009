"""The table of `may_use_lease`, row by row; row 1 is tested with the queue."""

from itertools import product

import pytest

from jobqueue.core.policy import (
    attempts_exhausted,
    backoff_delay,
    backoff_delay_without_jitter,
    may_use_lease,
)
from jobqueue.errors import LeaseLost, LeaseRequired, NotInProgress, NotTheConsumer
from jobqueue.model import INHERIT, Backoff, Job, Lease, Options
from jobqueue.steps import (
    BURY,
    CANCEL,
    CONCLUDE,
    CONCLUDES,
    FAILS,
    PUT_OFF,
    RELEASE,
    RELEASES,
    STALE,
)

DONE, AGAIN = True, False
HEARTBEAT = ()
VERBS = [CONCLUDES, HEARTBEAT]
CURRENT, OTHER = "the-current-lease", "some-other-lease"


def job(status, ended_by=None, name="ann", attempts=3):
    """A job whose last lease, `CURRENT`, was held by `name`; or that was never leased: `name` is "never"."""
    lease = None
    if name != "never":
        lease = Lease(CURRENT, name, 0, 1000, 1000, 1000, attempts, None, ended_by)
    return Job(7, "default", "t", 0, b"null", 0, 7, status, attempts, attempts, lease=lease)


def running(name="ann"):
    return job("in_progress", None, name)


def concluded(name="ann"):
    return job("concluded", CONCLUDE, name)


NOT_RUNNING = {
    "never leased": job("queued", name="never", attempts=0),
    "cancelled before it was leased": job("cancelled", name="never", attempts=0),
    "queued again after a stale lease": job("queued", STALE),
    "queued again after a release": job("queued", RELEASE),
    "concluded": concluded(),
    "cancelled while it was leased": job("cancelled", CANCEL),
    "cancelled after a stale lease": job("cancelled", STALE),
}


@pytest.mark.parametrize("require_lease", [False, True])
@pytest.mark.parametrize("consumer", ["ann", "bob", None])
@pytest.mark.parametrize("name", ["ann", None])
@pytest.mark.parametrize("verb", VERBS)
def test_row_2_the_current_lease_may_be_used_with_any_consumer(verb, name, consumer, require_lease):
    assert may_use_lease(running(name), verb, CURRENT, consumer, require_lease) is DONE


@pytest.mark.parametrize("require_lease", [False, True])
@pytest.mark.parametrize("consumer", ["ann", "bob", None])
@pytest.mark.parametrize(
    ("verb", "step", "status"),
    [
        (CONCLUDES, "conclude", "concluded"),
        (RELEASES, "release", "queued"),
        (RELEASES, "put_off", "scheduled"),
        (FAILS, "fail", "scheduled"),
        (FAILS, "fail", "queued"),
        (FAILS, "bury", "dead"),
    ],
)
def test_row_3_the_last_lease_that_this_verb_ended_gets_the_same_answer(
    verb, step, status, consumer, require_lease
):
    assert may_use_lease(job(status, step), verb, CURRENT, consumer, require_lease) is AGAIN


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", NOT_RUNNING)
def test_row_4_any_lease_that_is_not_current_is_lost(name, verb):
    ended = NOT_RUNNING[name]
    tokens = [OTHER, ""] if name == "concluded" and verb == CONCLUDES else [OTHER, "", CURRENT]
    for token, consumer, require_lease in product(tokens, ["ann", "bob", None], [False, True]):
        with pytest.raises(LeaseLost) as lost:
            may_use_lease(ended, verb, token, consumer, require_lease)
        assert lost.value.facts == {"job_status": ended.status, "attempts": ended.attempts}


@pytest.mark.parametrize("consumer", ["ann", None])
@pytest.mark.parametrize("name", ["ann", None])
@pytest.mark.parametrize("verb", VERBS)
def test_row_4_an_old_lease_is_lost_while_the_job_runs_under_a_new_one(verb, name, consumer):
    with pytest.raises(LeaseLost) as lost:
        may_use_lease(running(name), verb, OTHER, consumer, False)
    assert lost.value.facts == {"job_status": "in_progress", "attempts": 3}


def test_row_4_a_lease_that_another_verb_ended_is_lost():
    for ended, verb in [
        (concluded(), RELEASES),
        (concluded(), FAILS),
        (job("queued", RELEASE), CONCLUDES),
        (job("scheduled", PUT_OFF), FAILS),
        (job("dead", BURY), RELEASES),
        (concluded(), HEARTBEAT),
    ]:
        with pytest.raises(LeaseLost):
            may_use_lease(ended, verb, CURRENT, "ann", False)


@pytest.mark.parametrize("require_lease", [False, True])
def test_row_5_without_a_lease_the_consumer_that_finished_it_by_this_verb_gets_the_same_answer(require_lease):
    assert may_use_lease(concluded(), CONCLUDES, None, "ann", require_lease) is AGAIN


@pytest.mark.parametrize("require_lease", [False, True])
@pytest.mark.parametrize("name", NOT_RUNNING)
def test_row_6_without_a_lease_a_job_that_is_not_in_progress_is_refused(name, require_lease):
    ended = NOT_RUNNING[name]
    for verb, consumer in product(VERBS, ["ann", "bob", None]):
        if (name, verb, consumer) == ("concluded", CONCLUDES, "ann"):
            continue  # row 5
        with pytest.raises(NotInProgress) as refused:
            may_use_lease(ended, verb, None, consumer, require_lease)
        assert refused.value.facts == {"job_status": ended.status, "attempts": ended.attempts}


@pytest.mark.parametrize("verb", VERBS)
def test_row_6_a_job_concluded_without_a_name_is_refused_to_a_caller_without_a_name(verb):
    with pytest.raises(NotInProgress):
        may_use_lease(concluded(name=None), verb, None, None, False)


@pytest.mark.parametrize("consumer", ["ann", "bob", None])
@pytest.mark.parametrize("name", ["ann", None])
@pytest.mark.parametrize("verb", VERBS)
def test_row_7_without_a_lease_a_caller_is_refused_if_leases_are_required(verb, name, consumer):
    with pytest.raises(LeaseRequired) as refused:
        may_use_lease(running(name), verb, None, consumer, True)
    assert refused.value.facts == {"field": "lease", "setting": "JOBQUEUE_REQUIRE_LEASE"}


@pytest.mark.parametrize("verb", VERBS)
def test_row_8_a_job_leased_under_a_name_may_be_finished_by_the_same_consumer(verb):
    assert may_use_lease(running("ann"), verb, None, "ann", False) is DONE


@pytest.mark.parametrize("consumer", ["bob", "Ann", "", None])
@pytest.mark.parametrize("verb", VERBS)
def test_row_8_a_job_leased_under_a_name_may_not_be_finished_by_another_consumer_or_none(verb, consumer):
    with pytest.raises(NotTheConsumer) as refused:
        may_use_lease(running("ann"), verb, None, consumer, False)
    assert refused.value.facts == {"job_status": "in_progress"}


@pytest.mark.parametrize("consumer", ["ann", None])
@pytest.mark.parametrize("verb", VERBS)
def test_row_9_a_job_leased_without_a_name_may_be_finished_by_any_caller(verb, consumer):
    assert may_use_lease(running(name=None), verb, None, consumer, False) is DONE


def test_the_check_changes_nothing():
    asked, untouched = running(), running()
    may_use_lease(asked, CONCLUDES, CURRENT, None, False)
    may_use_lease(asked, HEARTBEAT, None, "ann", False)
    assert repr(asked) == repr(untouched)


# -- backoff ----------------------------------------------------------------------------------------

DAY = 86_400_000


def test_the_default_lets_25_attempts_take_about_three_and_a_half_days():
    rests = [backoff_delay_without_jitter(Backoff(), attempt) for attempt in range(1, 25)]
    assert rests[:4] == [10_000, 20_000, 40_000, 80_000]
    assert rests[11:13] == [20_480_000, 21_600_000]  # six hours at most
    assert set(rests[12:]) == {21_600_000}
    assert sum(rests) == 300_150_000  # 3 d 11 h 22 min 30 s
    assert 3.4 * DAY < sum(rests) < 3.6 * DAY


def test_the_last_of_the_steps_repeats():
    backoff = Backoff(steps=(10_000, 60_000, 300_000))
    assert [backoff_delay_without_jitter(backoff, attempt) for attempt in (1, 2, 3, 4, 9_999)] == [
        10_000,
        60_000,
        300_000,
        300_000,
        300_000,
    ]


def test_the_delays_may_be_constant_or_fall_or_exceed_a_float():
    assert [backoff_delay_without_jitter(Backoff(500, 1.0), attempt) for attempt in (1, 2, 10_000)] == [
        500
    ] * 3
    assert [backoff_delay_without_jitter(Backoff(800, 0.5), attempt) for attempt in (1, 2, 3)] == [
        800,
        400,
        200,
    ]
    assert backoff_delay_without_jitter(Backoff(1, 1_000.0, 70_000), 10_000) == 70_000
    assert backoff_delay_without_jitter(Backoff(0, 2.0), 10_000) == 0


@pytest.mark.parametrize("attempt", [1_015, 1_016, 1_024, 1_025])
def test_where_the_delay_would_be_infinite_it_is_the_longest(attempt):
    # 2.0 ** 1023 is the last power that is a float; times 1,000 it is infinity from 2.0 ** 1015 on.
    assert backoff_delay_without_jitter(Backoff(1_000, 2.0, 70_000), attempt) == 70_000
    assert backoff_delay_without_jitter(Backoff(0, 2.0, 70_000), attempt) == 0


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 9_000), (0.25, 9_500), (0.5, 10_000), (1.0, 11_000)])
def test_jitter_lengthens_or_shortens_by_up_to_its_share(chance, expected):
    assert backoff_delay(Backoff(), 1, chance) == expected
    assert backoff_delay(Backoff(steps=(10_000,)), 3, chance) == expected
    assert backoff_delay(Backoff(jitter=0.0), 1, chance) == 10_000


# -- attempts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "of_the_queue", "attempts", "over"),
    [
        (INHERIT, 3, 2, False),
        (INHERIT, 3, 3, True),
        (INHERIT, 3, 4, True),
        (INHERIT, None, 10_000, False),
        (1, 3, 1, True),
        (5, 3, 4, False),
        (None, 3, 10_000, False),
    ],
)
def test_a_limit_of_the_job_counts_before_that_of_the_queue_and_none_is_no_limit(
    own, of_the_queue, attempts, over
):
    asked = job("in_progress", attempts=attempts)
    assert attempts_exhausted(asked, Options(max_attempts=own), of_the_queue) is over
    if own == INHERIT:
        assert attempts_exhausted(asked, None, of_the_queue) is over
