"""Which jobs a filter selects."""

from itertools import product

import pytest

from jobqueue.model import Filter, Job, JobExtras, Options

WALL = 1_000_000


def job(queue="mail", status="queued", type="send", age=500, key=None, tags=None):
    made = Job(1, queue, type, 0, b"null", WALL - age, 1, status)
    if key is not None or tags is not None:
        made.extras = JobExtras(options=Options(key=key, tags=tags or ()))
    return made


def some(*values):
    return frozenset(values)


def test_an_empty_filter_matches_everything():
    for each in (job(), job(key="k"), job(status="dead"), job(tags=("x",))):
        assert Filter().matches(each, WALL)


@pytest.mark.parametrize(
    ("part", "matching", "other"),
    [
        (Filter(queues=some("mail", "web")), job(queue="web"), job(queue="Mail")),
        (Filter(statuses=some("dead", "queued")), job(status="dead"), job(status="scheduled")),
        (Filter(types=some("send", "drop")), job(type="drop"), job(type="sen")),
        (Filter(tags=some("x", "y")), job(tags=("z", "y")), job(tags=("z",))),
        (Filter(tags=some("x")), job(tags=("x",)), job()),
        (Filter(tags=some("x")), job(tags=("x",)), job(key="x")),
        (Filter(keys=some("k", "l")), job(key="l"), job(key="m")),
        (Filter(keys=some("k")), job(key="k"), job()),
        (Filter(keys=some("k")), job(key="k"), job(tags=("k",))),
        (Filter(older_than=500), job(age=500), job(age=499)),
        (Filter(older_than=0), job(age=0), job(age=-1)),
    ],
)
def test_within_a_condition_any_of_its_values_may_match(part, matching, other):
    assert part.matches(matching, WALL)
    assert not part.matches(other, WALL)


def test_each_condition_that_is_set_must_hold():
    parts = {
        "queues": some("mail"),
        "statuses": some("queued"),
        "types": some("send"),
        "tags": some("x"),
        "keys": some("k"),
        "older_than": 500,
    }
    fields = ("queue", "status", "type", "tags", "key", "age")
    right = {"queue": "mail", "status": "queued", "type": "send", "tags": ("x",), "key": "k", "age": 500}
    wrong = {"queue": "web", "status": "dead", "type": "drop", "tags": ("y",), "key": "l", "age": 499}
    for choice in product([True, False], repeat=6):
        made = job(
            **{name: (right if fits else wrong)[name] for name, fits in zip(fields, choice, strict=True)}
        )
        assert Filter(**parts).matches(made, WALL) == all(choice)


def test_the_age_of_a_job_counts_from_its_enqueue_by_the_wall_clock():
    assert not Filter(older_than=500).matches(job(age=400), WALL)
    assert Filter(older_than=500).matches(job(age=400), WALL + 100)
    assert not Filter(older_than=500).matches(job(age=600), WALL - 200)
