"""The index of jobs by id."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.core.job_index import JobIndex
from jobqueue.model import Job

THOROUGH = bool(os.environ.get("TEST_ALL"))


def job(id):
    return Job(id, "default", "t", 0, b"null", 0, id)


def paged(ids):
    pages, jobs = JobIndex(), {id: job(id) for id in ids}
    for each in jobs.values():
        pages.add(each)
    return pages, jobs


def test_a_job_is_found_by_its_id_until_it_is_removed():
    pages, jobs = paged([7])
    assert pages.get(7) is jobs[7]
    pages.remove(jobs[7])
    assert pages.get(7) is None


@pytest.mark.parametrize("id", [0, 1, 1022, 1023, 1024, 1025, 2047, 2048, 2**53 - 1])
def test_ids_at_the_ends_of_a_page_are_distinct(id):
    pages, jobs = paged([id])
    assert pages.get(id) is jobs[id]
    for other in (id - 1, id + 1, id + 1024, id ^ 1024):
        assert pages.get(other) is None


@pytest.mark.parametrize("id", [-1, -1024, 10**30])
def test_an_id_that_no_queue_could_give_is_not_found(id):
    pages, _ = paged(range(1, 3000))
    assert pages.get(id) is None


def test_a_few_old_jobs_stay_when_the_rest_of_their_page_is_gone():
    pages, jobs = paged(range(5000))
    old = {3, 1000, 1023, 1024, 2500, 4999}
    for id in jobs.keys() - old:
        pages.remove(jobs[id])
    assert {id for id in range(6000) if pages.get(id) is not None} == old
    assert all(pages.get(id) is jobs[id] for id in old)
    for id in old:
        pages.remove(jobs[id])
        assert pages.get(id) is None


def test_a_page_that_lost_most_of_its_jobs_while_it_was_filled_takes_the_rest():
    pages, jobs = paged(range(200))
    for id in range(150):
        pages.remove(jobs[id])
    for id in range(200, 1500):
        jobs[id] = job(id)
        pages.add(jobs[id])
    assert [id for id in range(2000) if pages.get(id) is not None] == list(range(150, 1500))
    assert all(pages.get(id) is jobs[id] for id in range(150, 1500))


def test_a_page_that_was_emptied_while_it_was_filled_takes_the_next_job():
    pages, jobs = paged([1, 2])
    pages.remove(jobs[1])
    pages.remove(jobs[2])
    third = job(3)
    pages.add(third)
    assert (pages.get(1), pages.get(2), pages.get(3)) == (None, None, third)


def test_jobs_after_an_id_rise_and_jobs_before_it_fall():
    pages, _ = paged([3, 1000, 1023, 1024, 2500, 9000])
    assert [job.id for job in pages.after(1000)] == [1023, 1024, 2500, 9000]
    assert [job.id for job in pages.before(1024)] == [1023, 1000, 3]
    assert [job.id for job in pages.after(0)] == [3, 1000, 1023, 1024, 2500, 9000]
    assert [job.id for job in pages.before(1 << 60)] == [9000, 2500, 1024, 1023, 1000, 3]
    for beyond in (9000, 9001, 1 << 60):
        assert list(pages.after(beyond)) == []
    for below in (3, 1, 0):
        assert list(pages.before(below)) == []


def test_iteration_may_start_after_an_id_that_does_not_exist():
    pages, jobs = paged(range(1, 3000))
    for id in (1500, *range(1000, 1100)):
        pages.remove(jobs[id])
    assert next(pages.after(1500)).id == 1501
    assert next(pages.before(1500)).id == 1499
    assert next(pages.after(1049)).id == 1100
    assert next(pages.before(1049)).id == 999


def test_iteration_survives_jobs_that_are_added_and_removed():
    pages, jobs = paged(range(1, 4000))
    seen = []
    for each in pages.after(0):
        seen.append(each.id)
        for gone in {each.id, each.id + 2} & jobs.keys():
            pages.remove(jobs.pop(gone))
    assert seen == sorted(set(seen))
    assert jobs.keys() <= set(seen)


@settings(deadline=None, derandomize=True, max_examples=200 if THOROUGH else 25)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 400), st.booleans()), max_size=12))
def test_the_index_is_a_mapping(turns):
    pages, jobs, last = JobIndex(), {}, 900
    for come, go, oldest in turns:
        for _ in range(come):
            last += 1
            jobs[last] = job(last)
            pages.add(jobs[last])
        for id in (list(jobs) if oldest else list(reversed(jobs)))[:go]:
            pages.remove(jobs.pop(id))
        assert {id for id in range(890, last + 10) if pages.get(id)} == jobs.keys()
        assert all(pages.get(id) is each for id, each in jobs.items())
        assert [each.id for each in pages.after(0)] == sorted(jobs)
        assert [each.id for each in pages.before(1 << 60)] == sorted(jobs, reverse=True)
        middle = (900 + last) // 2
        assert [each.id for each in pages.after(middle)] == sorted(id for id in jobs if id > middle)
        assert [each.id for each in pages.before(middle)] == sorted(id for id in jobs if id < middle)[::-1]
