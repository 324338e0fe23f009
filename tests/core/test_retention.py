"""How long finished jobs are remembered, without a queue."""

import gc
import tracemalloc

import pytest

from jobqueue.core.retention import RECORD_BYTES, Retention, weight
from jobqueue.model import Job, JobExtras

MANY = 1_000_000


def job(id, payload=b"null", result=None):
    made = Job(id, "default", "t", 0, payload, 0, id)
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


def test_above_the_limit_the_job_that_finished_first_is_forgotten_whatever_its_age():
    retention = Retention(1000, 3, MANY)
    for id, age in ((1, 1_000_000), (2, None), (3, 1_000_000), (4, None), (5, 300)):
        retention.add(job(id), id, age)
    assert forgotten(retention, 10) == [1, 2]
    retention.add(job(6), 11)
    assert forgotten(retention, 11) == [3]
    assert forgotten(retention, 305) == [5]  # age comes before the limit
    assert forgotten(retention, 1004) == [4]


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
