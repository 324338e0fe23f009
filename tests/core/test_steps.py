"""Every step of the table is possible, and any other step is refused as a bug.

Only this test calls `QueueState.transition`, the one place where a status changes; the others use the verbs.
"""

from itertools import count, product
from typing import get_args

import pytest

from jobqueue.core.counts import TransitionCounts
from jobqueue.core.queue import JobQueue
from jobqueue.errors import IllegalStep
from jobqueue.model import DequeueRequest, LeaseClaim, NewJob
from jobqueue.steps import (
    CANCEL,
    CONCLUDED,
    DEAD,
    ENQUEUE,
    ENTER,
    ENTER_LATER,
    FINISHED,
    FORGET,
    FROM_OUTSIDE,
    LEAVE,
    PURGE,
    QUEUED,
    REDRIVE,
    SCHEDULE,
    SCHEDULED,
    STATUSES,
    STEPS,
    Step,
)

ALL_STEPS = get_args(Step)
NOW = 1_000


def queue_with_job(status):
    """Returns a queue whose only job got to `status` by the verbs."""
    numbers = count(1)
    queue = JobQueue(lambda: f"lease-{next(numbers)}")
    job = queue.enqueue(NewJob("t", delay=500 if status == "scheduled" else 0), NOW)
    if status in ("in_progress", "concluded", "dead"):
        queue.dequeue(DequeueRequest(("default",), 60_000), NOW)
    if status == "concluded":
        queue.conclude(job.id, job.lease.token, None, None, NOW)
    if status == "cancelled":
        queue.cancel(job.id, NOW)
    if status == "dead":
        queue.fail(LeaseClaim(job.id, job.lease.token, None), None, False, None, NOW)
    assert job.status == status
    return queue, job


def test_the_table_has_known_statuses_and_steps_only():
    for (before, step), after in STEPS.items():
        assert before is None or before in STATUSES
        assert after is None or after in STATUSES
        assert step in ALL_STEPS


def test_every_known_step_is_in_the_table():
    assert {step for _, step in STEPS} == set(ALL_STEPS)


def test_a_job_begins_by_an_enqueue_and_ends_by_being_forgotten_or_purged():
    assert {step for before, step in STEPS if before is None} == {ENQUEUE, SCHEDULE, ENTER, ENTER_LATER}
    assert {step for before, step in STEPS if before is None} == FROM_OUTSIDE
    assert {step for (_, step), after in STEPS.items() if after is None} == {FORGET, PURGE, LEAVE}


def test_a_concluded_or_cancelled_job_can_only_be_forgotten_or_purged_and_a_dead_one_may_come_back():
    assert {step for before, step in STEPS if before in FINISHED - {DEAD}} == {FORGET, PURGE}
    assert {step for before, step in STEPS if before == DEAD} == {FORGET, PURGE, REDRIVE, CANCEL, LEAVE}


def test_only_finished_jobs_are_forgotten_and_only_waiting_or_dead_ones_change_queues():
    assert {before for before, step in STEPS if step == FORGET} == FINISHED
    assert {before for before, step in STEPS if step == LEAVE} == {QUEUED, SCHEDULED, DEAD}


def test_from_every_status_but_concluded_and_cancelled_a_job_can_be_cancelled():
    assert {before for before, step in STEPS if step == CANCEL} == set(STATUSES) - {CONCLUDED, "cancelled"}


# These steps have no status before them, whatever the record of the job has.
@pytest.mark.parametrize(
    ("status", "step"),
    [pair for pair in product(STATUSES, ALL_STEPS) if pair not in STEPS and pair[1] not in FROM_OUTSIDE],
)
def test_a_step_that_is_not_in_the_table_is_refused_and_changes_nothing(status, step):
    queue, job = queue_with_job(status)
    seen = []
    queue.state.changed = seen.append
    queue.state.event = lambda step, job: seen.append(job)
    before = (repr(job), queue.state.counts.jobs(), queue.view("default", NOW))
    with pytest.raises(IllegalStep, match=f"{job.id}.*{step}.*{status}"):
        queue.state.transition(job, step, NOW, queue.state.queues["default"])
    assert (repr(job), queue.state.counts.jobs(), queue.view("default", NOW)) == before
    assert seen == []


def test_each_step_of_the_table_is_counted_once_and_by_its_number():
    for number, ((before, _), after) in enumerate(STEPS.items()):
        counts = TransitionCounts()
        counts.steps[number] = 3
        jobs = counts.jobs()
        assert jobs.pop(before, -3) == -3
        assert jobs.pop(after, 3) == 3
        assert set(jobs.values()) == {0}


def test_all_statuses_are_counted_also_those_that_no_job_has():
    assert TransitionCounts().jobs() == dict.fromkeys(STATUSES, 0)
