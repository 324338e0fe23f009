"""The promises of the queue, one sentence each. (test_queue_model tests that they all hold at once.)"""

from itertools import count

import pytest

from jobqueue.core.admission import ESTABLISHED
from jobqueue.core.explain import explain
from jobqueue.core.forgetting import FORGET_AT_ONCE
from jobqueue.core.limits import Limits
from jobqueue.core.queue import HELD_BACK_MS, IDLE_QUEUE_MS, SLICE, SLICE_SEGMENTS, JobQueue
from jobqueue.core.waiters import Waiter
from jobqueue.errors import (
    JobFinished,
    JobForgotten,
    JobNotFound,
    LeaseLost,
    LeaseRequired,
    NotTheConsumer,
    QueueFull,
)
from jobqueue.model import DequeueRequest, LeaseClaim, NewJob, Options
from jobqueue.steps import STALE

LEASE = 10_000
EMAIL = NewJob("email", payload=b'{"to":"ada"}')


class Driven:
    """A JobQueue with a clock that is moved by hand, and short names for the calls of these tests."""

    def __init__(self, first_id=1, wall_offset=1_800_000_000_000, **limits):
        tokens = (f"lease-{number}" for number in count(1))
        self.now = 1_000
        self.core = JobQueue(lambda: next(tokens), first_id, Limits(**limits), wall_offset)
        self.answers = {}

    def enqueue(self, number=1, queue="default", priority=0):
        return self.core.enqueue_many([NewJob("t", queue, priority)] * number, self.now)

    def dequeue(self, *queues, count=None, consumer=None, lease_for=LEASE):
        return self.core.dequeue(DequeueRequest(queues or ("default",), lease_for, count, consumer), self.now)

    def take(self, *queues):
        [(job, _)] = self.dequeue(*queues)
        return job

    def ids(self, *queues, number=100):
        """Takes the queued jobs, and returns their ids."""
        return [job.id for job, _ in self.dequeue(*queues, count=number)]

    def wait(self, name, *queues, wait=30_000, count=None):
        """Lets a consumer called `name` wait. The ids of its jobs will be in `answers[name]`."""
        request = DequeueRequest(queues or ("default",), LEASE, count, name)

        def deliver(deliveries):
            assert name not in self.answers
            self.answers[name] = [job.id for job, _ in deliveries]

        waiter = Waiter(request, self.now + wait, deliver)
        self.core.wait(waiter)
        return waiter

    def conclude(self, job, token="current", consumer=None, result=None):
        token = job.lease.token if token == "current" else token
        return self.core.conclude(job.id, token, consumer, result, self.now)

    def heartbeat(self, job, lease_for=None):
        return self.core.heartbeat(LeaseClaim(job.id, job.lease.token, None), lease_for, self.now)

    def cancel(self, job):
        return self.core.cancel(job.id, self.now)

    def tick(self):
        moved = 0
        for _ in range(1_000):
            again, more = self.core.tick(self.now)
            moved += again
            if not more:
                return moved
        raise AssertionError("this tick has no end")

    def pass_time(self, ms):
        self.now += ms
        return self.tick()


# -- enqueue and dequeue ----------------------------------------------------------------------------


def test_an_enqueued_job_has_the_given_fields_and_an_id_and_its_time():
    q = Driven(first_id=700)
    job = q.core.enqueue(NewJob("email", "mail", -5, b'{"to":"ada"}'), q.now)
    assert (job.id, job.queue, job.type, job.priority, job.payload) == (
        700,
        "mail",
        "email",
        -5,
        b'{"to":"ada"}',
    )
    assert (job.status, job.attempts, job.leases, job.lease, job.extras) == ("queued", 0, 0, None, None)
    assert job.created_at == 1_800_000_001_000
    assert q.core.get(700) is job


def test_a_dequeued_job_is_charged_and_leased():
    q = Driven()
    q.enqueue()
    [(job, lease)] = q.dequeue(consumer="ann", lease_for=2_500)
    assert (job.status, job.attempts, job.leases) == ("in_progress", 1, 1)
    assert job.lease is lease
    assert (lease.token, lease.consumer) == ("lease-1", "ann")
    assert (lease.started_at, lease.granted, lease.length) == (1_800_000_001_000, 2_500, 2_500)
    assert lease.expires == q.now + 2_500


def test_ids_are_given_in_order_across_queues_and_never_again():
    q = Driven(first_id=5, retain=0)
    first = q.enqueue(2, "a") + q.enqueue(1, "b")
    for name in ("a", "a", "b"):
        q.conclude(q.take(name))
    assert [job.id for job in first + q.enqueue(1, "a")] == [5, 6, 7, 8]


def test_an_id_that_was_never_given_is_not_found_and_one_that_was_is_forgotten():
    q = Driven(first_id=5, retain=0)
    q.enqueue()
    q.conclude(q.take())
    for verb in (
        q.core.get,
        lambda id: q.core.cancel(id, q.now),
        lambda id: q.core.conclude(id, None, None, None, q.now),
        lambda id: q.core.conclude(id, "lease-1", None, None, q.now),
        lambda id: q.core.heartbeat(LeaseClaim(id, None, None), None, q.now),
    ):
        with pytest.raises(JobForgotten):
            verb(5)
        for never in (0, 4, 6, -5, 2**60):
            with pytest.raises(JobNotFound):
                verb(never)


def test_queues_are_tried_in_the_order_in_which_they_are_named():
    q = Driven()
    q.enqueue(2, "low")
    q.enqueue(2, "high", priority=-9)
    assert q.ids("high", "none", "low") == [3, 4, 1, 2]


def test_a_dequeue_takes_the_ready_jobs_and_no_more_than_its_count():
    q = Driven()
    q.enqueue(5)
    assert q.ids(number=3) == [1, 2, 3]
    assert q.ids(number=3) == [4, 5]
    assert q.dequeue(count=3) == []


def test_without_a_count_one_job_is_taken():
    q = Driven()
    q.enqueue(5)
    assert len(q.dequeue()) == 1


def test_neither_a_dequeue_nor_a_wait_nor_a_view_creates_a_queue():
    q = Driven()
    assert q.dequeue("a", "b") == []
    q.wait("ann", "a")
    view = q.core.view("a", q.now)
    assert (set(view.jobs.values()), set(view.totals.values())) == ({0}, {0})
    assert (view.oldest_age, view.consumers_waiting) == (None, 1)
    assert q.core.state.queues == {}


def test_no_two_leases_have_the_same_token():
    q = Driven()
    q.enqueue(20)
    tokens = [lease.token for _, lease in q.dequeue(count=20)]
    q.pass_time(LEASE)
    tokens += [lease.token for _, lease in q.dequeue(count=20)]
    assert len(set(tokens)) == 40


# -- stale ------------------------------------------------------------------------------------------


def test_a_lease_ends_exactly_at_its_time_and_not_a_millisecond_before():
    q = Driven()
    q.enqueue()
    job = q.take()
    assert q.pass_time(LEASE - 1) == 0
    assert job.status == "in_progress"
    assert q.pass_time(1) == 1
    assert (job.status, job.lease.ended_by) == ("queued", STALE)


@pytest.mark.parametrize("tick", [10, 100, 10_000])
def test_the_edge_is_the_same_for_every_width_of_a_tick(tick):
    q = Driven(tick=tick)
    q.enqueue()
    q.dequeue(lease_for=1_234)
    assert q.pass_time(1_233) == 0
    assert q.pass_time(1) == 1


def test_a_stale_job_returns_ahead_of_jobs_never_leased():
    q = Driven()
    q.enqueue(3)
    q.take()
    q.pass_time(LEASE)
    assert q.ids() == [1, 2, 3]


def test_stale_jobs_return_in_the_order_of_their_places_whichever_lease_ended_first():
    q = Driven()
    q.enqueue(4)
    q.dequeue(lease_for=3_000)
    q.dequeue(lease_for=1_000)
    q.dequeue(lease_for=2_000)
    for _ in range(3):
        assert q.pass_time(1_000) == 1
    assert q.ids() == [1, 2, 3, 4]


def test_a_stale_job_does_not_overtake_a_higher_priority():
    q = Driven()
    q.enqueue(1, priority=1)
    q.take()
    q.enqueue(1, priority=2)
    q.pass_time(LEASE)
    assert q.ids() == [2, 1]


def test_a_stale_lease_is_charged():
    q = Driven()
    q.enqueue()
    job = q.take()
    q.pass_time(LEASE)
    assert (job.attempts, job.leases) == (1, 1)
    q.take()
    assert (job.attempts, job.leases) == (2, 2)


def test_until_the_tick_returns_the_job_its_lease_is_valid():
    q = Driven()
    q.enqueue()
    job = q.take()
    q.now += LEASE + 50
    assert q.conclude(job).status == "concluded"
    assert q.tick() == 0


def test_after_the_tick_the_old_lease_is_lost_also_when_the_job_runs_again():
    q = Driven()
    q.enqueue()
    job = q.take()
    old = job.lease.token
    q.pass_time(LEASE)
    for status in ("queued", "in_progress"):
        with pytest.raises(LeaseLost) as lost:
            q.conclude(job, token=old)
        assert lost.value.facts == {"job_status": status, "attempts": job.attempts}
        if status == "queued":
            q.take()
    assert q.conclude(job).status == "concluded"


def test_a_concluded_job_does_not_become_stale():
    q = Driven()
    q.enqueue()
    job = q.take()
    q.conclude(job)
    assert q.pass_time(LEASE) == 0
    assert job.status == "concluded"


def test_a_tick_works_in_slices_and_returns_whether_more_is_due():
    q = Driven()
    q.enqueue(2 * SLICE + 200)
    q.dequeue(count=2 * SLICE + 200)
    q.now += LEASE
    slices = []
    more = True
    while more:
        moved, more = q.core.tick(q.now)
        slices.append(moved)
    assert (max(slices), sum(slices)) == (SLICE, 2 * SLICE + 200)
    assert q.core.view("default", q.now).jobs["queued"] == 2 * SLICE + 200


# -- heartbeat --------------------------------------------------------------------------------------


def test_a_heartbeat_starts_the_length_given_by_the_dequeue_again():
    q = Driven()
    q.enqueue()
    job = q.take()
    token = job.lease.token
    q.now += LEASE - 1
    q.heartbeat(job)
    assert (job.lease.token, job.lease.expires) == (token, q.now + LEASE)
    assert q.pass_time(LEASE - 1) == 0
    assert q.pass_time(1) == 1


@pytest.mark.parametrize("lease_for", [1, 500, 3 * LEASE])
def test_a_heartbeat_may_shorten_or_lengthen_the_lease(lease_for):
    q = Driven()
    q.enqueue()
    job = q.take()
    q.heartbeat(job, lease_for)
    assert (job.lease.length, job.lease.granted) == (lease_for, LEASE)
    assert q.pass_time(lease_for - 1) == 0
    assert q.pass_time(1) == 1


def test_a_heartbeat_without_a_length_sets_the_length_given_by_the_dequeue_again():
    q = Driven()
    q.enqueue()
    job = q.take()
    q.heartbeat(job, 500)
    assert q.heartbeat(job).lease.length == LEASE


def test_a_heartbeat_after_the_end_saves_the_job_if_no_tick_came_between():
    q = Driven()
    q.enqueue()
    job = q.take()
    q.now += LEASE + 10
    q.heartbeat(job)
    assert q.tick() == 0
    assert job.status == "in_progress"


# -- conclude ---------------------------------------------------------------------------------------


def test_concluding_keeps_the_result_and_the_time():
    q = Driven()
    q.enqueue()
    job = q.take()
    q.now += 77
    assert q.conclude(job, result=b'{"sent":true}') is job
    assert (job.status, job.extras.result) == ("concluded", b'{"sent":true}')
    assert job.extras.finished_at == 1_800_000_001_077


def test_concluding_again_with_the_same_lease_answers_the_job_and_ignores_a_new_result():
    q = Driven()
    q.enqueue()
    job = q.take()
    q.conclude(job, result=b"1")
    assert q.conclude(job, result=b"2").extras.result == b"1"
    assert q.core.state.counts.totals()["concluded"] == 1
    assert q.core.state.remembered == 1


def test_a_refused_verb_changes_nothing():
    q = Driven()
    q.enqueue()
    [(job, _)] = q.dequeue(consumer="ann")
    before = repr(job)
    for token, consumer, refusal in [("wrong", "ann", LeaseLost), (None, "bob", NotTheConsumer)]:
        with pytest.raises(refusal):
            q.conclude(job, token, consumer, b"1")
        with pytest.raises(refusal):
            q.core.heartbeat(LeaseClaim(job.id, token, consumer), 5, q.now)
    assert repr(job) == before
    assert q.pass_time(LEASE) == 1


def test_where_leases_are_required_a_job_cannot_be_concluded_without_one():
    q = Driven(require_lease=True)
    q.enqueue()
    job = q.take()
    with pytest.raises(LeaseRequired):
        q.conclude(job, token=None)
    assert q.conclude(job).status == "concluded"


# -- cancel -----------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once_and_cancelling_it_again_changes_nothing():
    q = Driven()
    q.enqueue(3)
    job = q.core.get(2)
    assert q.cancel(job).status == "cancelled"
    finished_at = job.extras.finished_at
    q.now += 10
    assert (q.cancel(job).status, job.extras.finished_at) == ("cancelled", finished_at)
    assert q.core.state.counts.totals()["cancelled"] == 1
    assert q.ids() == [1, 3]


def test_a_concluded_job_cannot_be_cancelled():
    q = Driven()
    q.enqueue()
    job = q.conclude(q.take())
    with pytest.raises(JobFinished) as refused:
        q.cancel(job)
    assert refused.value.facts == {"job_status": "concluded"}


def test_cancelling_a_job_in_progress_asks_its_consumer_which_may_still_conclude_it():
    q = Driven()
    q.enqueue()
    job = q.take()
    assert (q.cancel(job).status, job.extras.cancel_requested) == ("in_progress", True)
    assert q.heartbeat(job).extras.cancel_requested
    assert q.conclude(job, result=b"1").status == "concluded"
    assert q.core.state.counts.totals()["cancelled"] == 0


def test_a_job_asked_to_cancel_is_cancelled_and_not_queued_when_it_goes_stale():
    q = Driven()
    q.enqueue(2)
    job = q.take()
    q.cancel(job)
    assert q.pass_time(LEASE) == 1
    assert (job.status, job.lease.ended_by) == ("cancelled", STALE)
    assert job.extras.finished_at == 1_800_000_000_000 + q.now
    assert q.ids() == [2]


def test_a_job_asked_to_cancel_is_cancelled_and_not_queued_when_it_is_given_back():
    q = Driven()
    q.enqueue()
    deliveries = q.dequeue()
    q.wait("ann")
    q.cancel(deliveries[0][0])
    q.core.give_back(deliveries, q.now)
    assert (deliveries[0][0].status, q.answers) == ("cancelled", {})


# -- giving back ------------------------------------------------------------------------------------


def test_a_job_that_is_given_back_is_at_the_front_and_not_charged():
    q = Driven()
    q.enqueue(3)
    deliveries = q.dequeue(count=2)
    q.core.give_back(deliveries, q.now)
    for job, _ in deliveries:
        assert (job.status, job.attempts, job.leases) == ("queued", 0, 1)
    assert q.ids() == [1, 2, 3]
    assert q.core.state.counts.totals()["released"] == 2


def test_a_job_whose_lease_has_ended_is_not_given_back():
    q = Driven()
    q.enqueue(4)
    deliveries = q.dequeue(count=3)
    (concluded, _), (stale, _), (running, _) = deliveries
    q.conclude(concluded)
    q.heartbeat(running, 2 * LEASE)
    q.pass_time(LEASE)
    again = q.take()
    assert again is stale
    q.core.give_back(deliveries[:2], q.now)
    assert (concluded.status, stale.status, stale.attempts) == ("concluded", "in_progress", 2)
    q.core.give_back(deliveries, q.now)
    assert (running.status, running.attempts) == ("queued", 0)
    q.core.give_back(deliveries, q.now)
    assert running.attempts == 0


# -- waiting ----------------------------------------------------------------------------------------


def test_waiting_consumers_are_served_first_come_first_served():
    q = Driven()
    for name in ("ann", "bob", "cat"):
        q.wait(name)
    q.enqueue()
    q.enqueue()
    assert q.answers == {"ann": [1], "bob": [2]}
    assert q.core.view("default", q.now).consumers_waiting == 1


def test_a_batch_is_added_before_its_first_job_is_delivered():
    q = Driven()
    q.wait("ann", count=3)
    q.wait("bob", count=9)
    q.enqueue(5)
    assert q.answers == {"ann": [1, 2, 3], "bob": [4, 5]}


def test_a_batch_serves_its_highest_priority_first():
    q = Driven()
    q.wait("ann")
    q.core.enqueue_many([NewJob("t", priority=0), NewJob("t", priority=7)], q.now)
    assert q.answers == {"ann": [2]}


def test_a_batch_for_several_queues_serves_the_first_waiter_whatever_queue_comes_first():
    q = Driven()
    q.wait("ann", "b")
    q.wait("bob", "b", "a")
    q.core.enqueue_many([NewJob("t", "a"), NewJob("t", "b")], q.now)
    assert q.answers == {"ann": [2], "bob": [1]}


def test_a_consumer_that_asks_for_many_jobs_does_not_take_the_job_of_an_earlier_waiter():
    q = Driven()
    q.wait("ann", "b")
    q.wait("bob", "a", "b", count=9)
    q.core.enqueue_many([NewJob("t", "a"), NewJob("t", "b"), NewJob("t", "b")], q.now)
    assert q.answers == {"ann": [2], "bob": [1, 3]}


def test_a_consumer_waiting_on_several_queues_is_answered_once():
    q = Driven()
    q.wait("ann", "a", "b")
    q.core.enqueue_many([NewJob("t", "b"), NewJob("t", "a")], q.now)
    assert q.answers == {"ann": [2]}
    assert [q.core.view(name, q.now).consumers_waiting for name in "ab"] == [0, 0]


def test_a_waiter_that_names_a_queue_twice_is_answered_once():
    q = Driven()
    q.wait("ann", "a", "a")
    q.wait("bob", "a", "a")
    q.enqueue(1, "a")
    q.pass_time(30_000)
    assert q.answers == {"ann": [1], "bob": [1]}  # bob: after ann's lease


def test_a_stale_job_goes_to_a_waiting_consumer():
    q = Driven()
    q.enqueue()
    q.take()
    q.wait("ann")
    q.pass_time(LEASE)
    assert q.answers == {"ann": [1]}


def test_a_job_that_is_given_back_goes_to_a_waiting_consumer():
    q = Driven()
    q.enqueue()
    deliveries = q.dequeue()
    q.wait("ann")
    q.core.give_back(deliveries, q.now)
    assert q.answers == {"ann": [1]}
    assert deliveries[0][0].attempts == 1


def test_a_wait_ends_exactly_at_its_time_and_is_answered_with_no_job():
    q = Driven()
    q.wait("ann", wait=500)
    q.pass_time(499)
    assert q.answers == {}
    q.pass_time(1)
    assert q.answers == {"ann": []}
    q.enqueue()
    assert q.ids() == [1]


def test_a_wait_does_not_end_without_a_tick():
    q = Driven()
    q.wait("ann", wait=500)
    q.now += 501
    q.enqueue()
    assert q.answers == {"ann": [1]}


def test_a_consumer_that_left_gets_no_job_and_the_next_one_does():
    q = Driven()
    ann = q.wait("ann")
    q.wait("bob")
    q.core.stop_waiting(ann)
    q.enqueue()
    assert q.answers == {"bob": [1]}
    with pytest.raises(KeyError):
        q.core.stop_waiting(ann)


def test_when_the_queue_stops_all_waiters_are_answered_with_no_job():
    q = Driven()
    for name, queues in (("ann", "a"), ("bob", "ab"), ("cat", "b")):
        q.wait(name, *queues)
    q.core.end_waits()
    assert q.answers == {"ann": [], "bob": [], "cat": []}
    assert len(q.core.state.waiters) == 0
    q.enqueue(1, "a")
    assert q.ids("a") == [1]


# -- remembering ------------------------------------------------------------------------------------


def test_a_finished_job_is_forgotten_at_its_age():
    q = Driven(retain=5_000)
    q.enqueue(2)
    concluded, cancelled = q.conclude(q.take()), q.cancel(q.core.get(2))
    assert q.pass_time(4_999) == 0
    assert (q.core.get(1), q.core.get(2)) == (concluded, cancelled)
    assert q.pass_time(1) == 2
    for id in (1, 2):
        with pytest.raises(JobForgotten):
            q.core.get(id)
    assert (q.core.state.remembered, q.core.state.remembered_bytes) == (0, 0)


def test_jobs_that_are_not_finished_are_never_forgotten():
    q = Driven(retain=0, retain_jobs=0, retain_bytes=0)
    q.enqueue(2)
    q.dequeue(lease_for=10 * 86_400_000)
    q.pass_time(9 * 86_400_000)
    assert [q.core.get(id).status for id in (1, 2)] == ["in_progress", "queued"]


def test_one_finished_job_above_the_limit_pushes_out_the_oldest_at_once():
    q = Driven(retain_jobs=3)
    q.enqueue(5)
    for _ in range(5):
        q.conclude(q.take())
    assert q.core.state.remembered == 3
    for id in (1, 2):
        with pytest.raises(JobForgotten):
            q.core.get(id)
    assert [q.core.get(id).status for id in (3, 4, 5)] == ["concluded"] * 3


def test_a_large_result_pushes_out_a_few_at_once_and_the_tick_does_the_rest():
    q = Driven(retain_bytes=50_000)
    q.enqueue(60)
    for _ in range(59):
        q.conclude(q.take())
    q.conclude(q.take(), result=b"x" * 30_000)
    assert q.core.state.remembered == 60 - FORGET_AT_ONCE
    assert q.tick() > 0
    assert q.core.state.remembered_bytes <= 50_000
    assert q.core.get(60).status == "concluded"


def test_a_job_forgotten_at_once_is_still_the_answer_to_the_call_that_finished_it():
    q = Driven(retain=0)
    q.enqueue(2)
    assert q.conclude(q.take(), result=b"1").extras.result == b"1"
    assert q.cancel(q.core.get(2)).status == "cancelled"
    assert q.core.state.remembered == 0


def test_old_finished_jobs_go_in_slices():
    q = Driven(retain=5_000)
    q.enqueue(SLICE + 100)
    for _ in range(SLICE + 100):
        q.conclude(q.take())
    q.now += 5_000
    assert q.core.tick(q.now) == (SLICE, True)
    assert q.core.tick(q.now) == (100, False)


def test_waits_that_are_over_are_held_open_only_for_a_while_if_due_jobs_keep_coming():
    q = Driven()
    for number in range(200):
        q.core.enqueue(NewJob("t", "busy", delay=1_000 + 100 * number), q.now)
    q.wait("ann", "other", wait=1_000)
    started = q.now = q.now + 100_000
    while q.answers == {}:
        moved, more = q.core.tick(q.now)
        assert (moved, more) == (1, True)
        q.now += 10
    assert HELD_BACK_MS < q.now - started <= HELD_BACK_MS + 20
    assert q.answers == {"ann": []}


@pytest.mark.parametrize("jumps", [LEASE, 10 * LEASE])
@pytest.mark.parametrize("what", ["leased", "delayed", "scheduled", "expiring", "concluded"])
def test_a_tick_that_fails_at_one_job_does_not_fail_there_again_and_does_the_others(what, jumps):
    q = Driven(retain=LEASE)
    fields = {
        "delayed": {"delay": LEASE},
        "scheduled": {"run_at": q.core.state.wall(q.now) + LEASE},
        "expiring": {"expires_in": LEASE},
    }
    bad, good = (q.core.enqueue(NewJob("t", name, **fields.get(what, {})), q.now) for name in ("bad", "good"))
    if what in ("leased", "concluded"):
        q.take("bad"), q.take("good")
    if what == "concluded":
        q.conclude(bad), q.conclude(good)
    del q.core.state.queues["bad"]  # no verb does this; it stands for any damage
    q.wait("ann", "other", wait=LEASE)
    q.now += jumps
    with pytest.raises(KeyError):
        q.tick()
    q.tick()
    if what == "concluded":
        with pytest.raises(JobForgotten):
            q.core.get(good.id)
    else:
        assert good.status == ("dead" if what == "expiring" else "queued")
    assert q.answers == {"ann": []}


# -- queues come and go -----------------------------------------------------------------------------


def test_a_queue_without_jobs_is_dropped_from_the_list_after_an_hour():
    q = Driven(retain=0)
    q.enqueue(1, "a")
    q.conclude(q.take("a"))
    q.pass_time(IDLE_QUEUE_MS - 1)
    assert set(q.core.state.queues) == {"a"}
    q.pass_time(1)
    assert q.core.state.queues == {}
    q.enqueue(1, "a")
    assert q.ids("a") == [2]


@pytest.mark.parametrize("how", ["resumed", "resumed by time", "unset"])
def test_a_queue_that_was_only_paused_or_configured_is_dropped_an_hour_after_that_ends(how):
    q = Driven(max_queues=1)
    if how == "unset":
        q.core.configure("a", {"max_jobs": 5}, q.now)
    else:
        q.core.pause("a", 5_000 if how == "resumed by time" else None, None, q.now)
    q.pass_time(2 * IDLE_QUEUE_MS if how != "resumed by time" else 5_000)
    assert set(q.core.state.queues) == {"a"}
    if how == "unset":
        q.core.configure("a", {"max_jobs": None}, q.now)
    elif how == "resumed":
        q.core.resume("a", q.now)
    q.pass_time(IDLE_QUEUE_MS - 1)
    assert set(q.core.state.queues) == {"a"}
    q.pass_time(1)
    assert q.enqueue(1, "b")[0] is q.take("b")


def test_a_queue_that_was_used_again_is_kept_for_another_hour():
    q = Driven(retain=0)
    for _ in range(3):
        q.enqueue(1, "a")
        q.conclude(q.take("a"))
        q.pass_time(IDLE_QUEUE_MS - 1)
        assert set(q.core.state.queues) == {"a"}
    q.enqueue(1, "a")
    q.pass_time(3 * IDLE_QUEUE_MS)
    assert q.ids("a") == [4]


def test_a_queue_with_a_waiter_stays_in_the_list():
    q = Driven(retain=0)
    q.enqueue(1, "a")
    q.conclude(q.take("a"))
    q.wait("ann", "a", wait=3 * IDLE_QUEUE_MS)
    q.pass_time(2 * IDLE_QUEUE_MS)
    assert set(q.core.state.queues) == {"a"}
    q.enqueue(1, "a")
    assert q.answers == {"ann": [2]}


def test_a_queue_whose_finished_jobs_are_remembered_stays_in_the_list():
    q = Driven(retain=3 * IDLE_QUEUE_MS)
    q.enqueue(1, "a")
    q.conclude(q.take("a"))
    q.pass_time(2 * IDLE_QUEUE_MS)
    assert q.core.view("a", q.now).jobs["concluded"] == 1


@pytest.mark.parametrize("retain", [0, 3 * IDLE_QUEUE_MS])
@pytest.mark.parametrize("many", [False, True])
def test_queues_that_are_used_once_are_never_refused_for_their_number(retain, many):
    q = Driven(max_queues=50, retain=retain)
    jobs = []
    for number in range(160):
        name = f"reply-{number}"
        if many:
            q.enqueue(2, name)
        else:
            q.core.enqueue(NewJob("t", name), q.now)
        jobs += [q.conclude(q.take(name)) for _ in range(1 + many)]
        assert len(q.core.state.queues) <= 50
    if retain:
        assert all(q.core.get(job.id) is job for job in jobs)
        assert q.core.view("reply-0", q.now).jobs["concluded"] == 1 + many
    assert q.core.state.counts.totals()["concluded"] == len(jobs)
    q.pass_time(retain)
    assert q.core.state.counts.held() == 0
    q.pass_time(IDLE_QUEUE_MS)
    assert (q.core.state.queues, q.core.state.past, q.core.state.by_check) == ({}, {}, {})


@pytest.mark.parametrize("retain", [0, 3 * IDLE_QUEUE_MS])
def test_a_queue_that_is_used_again_and_again_keeps_its_name_for_its_hour(retain):
    q = Driven(max_queues=2, retain=retain)
    for _ in range(ESTABLISHED):
        q.enqueue(1, "work")
        q.conclude(q.take("work"))
    q.enqueue(1, "flood-1")
    for _ in range(2):
        with pytest.raises(QueueFull):
            q.enqueue(1, "flood-2")
        q.enqueue(1, "work")
        q.conclude(q.take("work"))
    if retain:
        assert "work" in q.core.state.queues
    else:
        q.pass_time(IDLE_QUEUE_MS)
        assert q.enqueue(1, "flood-2")


def busy(q, what):
    """Makes the queue a, which is in use by `what`."""
    if what == "settings":
        q.core.configure("a", {"max_attempts": 3}, q.now)
    elif what == "pause":
        q.core.pause("a", None, None, q.now)
    elif what == "scheduled":
        q.core.enqueue(NewJob("t", "a", delay=60_000), q.now)
    elif what == "unique key":
        options = Options(unique_key="u", unique_while="exists")
        q.core.enqueue(NewJob("t", "a", options=options), q.now)
        q.conclude(q.take("a"))
    else:
        [job] = q.enqueue(1, "a")
        if what != "queued":
            job = q.take("a")
        if what == "dead":
            q.core.fail(LeaseClaim(job.id, job.lease.token, None), None, False, None, q.now)
        elif what == "waiter":
            q.conclude(job)
            q.wait("ann", "a", wait=10**9)


@pytest.mark.parametrize("retain", [0, 10_000])
@pytest.mark.parametrize(
    "what", ["settings", "pause", "scheduled", "queued", "in progress", "dead", "waiter", "unique key"]
)
def test_a_queue_in_use_is_not_dropped_when_names_are_scarce(what, retain):
    q = Driven(max_queues=1, retain=max(retain, what == "unique key"))
    busy(q, what)
    with pytest.raises(QueueFull) as refused:
        q.enqueue(1, "b")
    assert refused.value.facts["setting"] == "JOBQUEUE_MAX_QUEUES"
    assert set(q.core.state.queues) == {"a"}


def test_a_batch_does_not_drop_an_empty_queue_that_it_names():
    q = Driven(max_queues=1, retain=0)
    q.enqueue(1, "a")
    q.conclude(q.take("a"))
    with pytest.raises(QueueFull):
        q.core.enqueue_many([NewJob("t", "a"), NewJob("t", "b")], q.now)
    assert q.enqueue(1, "b")


def test_a_finished_job_outlives_its_queue_and_is_purged_and_forgotten_as_ever():
    q = Driven(max_queues=1, retain=10_000)
    first = [q.enqueue(1, "a")[0], q.enqueue(1, "a")[0]]
    for _ in first:
        q.conclude(q.take("a"))
    second = q.conclude((q.enqueue(1, "b"), q.take("b"))[1])
    assert set(q.core.state.queues) == {"b"}
    assert explain(q.core.state, first[0], q.now).causes[0].code == "finished"
    q.core.purge_one(first[0], q.now)
    assert q.core.view("a", q.now).jobs["concluded"] == 1
    assert q.enqueue(1, "a")[0] is q.take("a")
    q.pass_time(10_000)
    assert q.core.view("a", q.now).jobs["concluded"] == 0
    for job in (*first, second):
        with pytest.raises(JobForgotten):
            q.core.get(job.id)


# -- lanes ------------------------------------------------------------------------------------------


def compacted(q):
    """Compacts to the end, and returns how many slices did something."""
    for slices in range(10_000):
        if not q.core.compact():
            return slices
    raise AssertionError("this compaction has no end")


def test_a_lane_is_compacted_when_more_than_half_of_its_slots_are_empty():
    q = Driven(lane_segment=16)
    jobs = q.enqueue(1600)
    for job in jobs[::2]:
        q.cancel(job)
    assert (compacted(q), q.core.state.compactions) == (0, 0)
    q.cancel(jobs[1])
    assert compacted(q) >= 100 // SLICE_SEGMENTS
    assert (q.core.state.compactions, q.core.lane_figures()) == (1, (1, 799, 0))
    assert q.ids(number=2000) == [job.id for job in jobs[3::2]]


def test_a_lane_is_compacted_also_when_dequeues_raise_the_share_of_slots_that_cancels_left_empty():
    q = Driven(lane_segment=16)
    jobs = q.enqueue(1600)
    for job in jobs[800:]:
        if job.id % 16:
            q.cancel(job)
    assert compacted(q) == 0
    assert q.ids(number=800) == list(range(1, 801))
    assert compacted(q) > 0
    assert q.core.lane_figures() == (1, 50, 0)
    assert q.ids(number=100) == list(range(816, 1601, 16))


def test_many_lanes_with_empty_slots_are_all_compacted():
    q = Driven(lane_segment=16)
    for priority in range(2 * SLICE):
        jobs = q.enqueue(40, priority=priority)
        for job in jobs[:2] + jobs[3:16] + jobs[17:32]:
            q.cancel(job)
    while compacted(q):
        pass
    assert q.core.lane_figures() == (2 * SLICE, 20 * SLICE, 0)


# -- time and hooks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-86_400_000, 86_400_000])
def test_a_jump_of_the_wall_clock_moves_neither_leases_nor_waits(jump):
    q = Driven()
    q.enqueue()
    job = q.take()
    q.wait("ann", "other", wait=LEASE)
    q.core.state.set_wall_offset(1_800_000_000_000 + jump)
    assert q.pass_time(LEASE - 1) == 0
    assert q.answers == {}
    assert q.pass_time(1) == 1
    assert (job.status, q.answers) == ("queued", {"ann": []})


def test_after_a_jump_of_the_wall_clock_new_times_follow_it():
    q = Driven()
    [before] = q.enqueue()
    q.core.state.set_wall_offset(1_900_000_000_000)
    [after] = q.enqueue()
    assert (before.created_at, after.created_at) == (1_800_000_001_000, 1_900_000_001_000)
    assert q.take().lease.started_at == 1_900_000_001_000


def test_the_oldest_age_is_never_negative():
    q = Driven()
    q.enqueue()
    q.now += 300
    assert q.core.view("default", q.now).oldest_age == 300
    q.core.state.set_wall_offset(1_700_000_000_000)
    assert q.core.view("default", q.now).oldest_age == 0


def test_every_step_is_reported_as_an_event():
    q = Driven(retain=30_000)
    seen = []
    q.core.state.event = lambda step, job: seen.append((step, job.id))
    q.enqueue(3)
    q.core.give_back(q.dequeue(), q.now)
    job = q.take()
    q.cancel(q.core.get(2))
    q.pass_time(LEASE)
    q.conclude(q.take())
    q.pass_time(30_000)
    assert seen == [
        ("enqueue", 1),
        ("enqueue", 2),
        ("enqueue", 3),
        ("lease", 1),
        ("release", 1),
        ("lease", 1),
        ("cancel", 2),
        ("stale", 1),
        ("lease", 1),
        ("conclude", 1),
        ("forget", 2),
        ("forget", 1),
    ]
    assert job.id == 1


def test_every_change_that_must_survive_a_restart_is_reported_heartbeats_and_cancel_requests_included():
    q = Driven()
    seen = []
    q.core.state.changed = lambda job: seen.append(
        (job.status, bool(job.extras and job.extras.cancel_requested))
    )
    q.enqueue()
    job = q.take()
    q.heartbeat(job)
    q.cancel(job)
    q.conclude(job)
    q.conclude(job)
    assert seen == [
        ("queued", False),
        ("in_progress", False),
        ("in_progress", False),
        ("in_progress", True),
        ("concluded", True),
    ]


def test_totals_count_all_steps_and_stay_when_jobs_are_forgotten():
    q = Driven(retain=0)
    q.enqueue(4, "a")
    q.enqueue(1, "b")
    q.core.give_back(q.dequeue("a"), q.now)
    q.conclude(q.take("a"))
    q.cancel(q.core.get(2))
    q.take("a")
    q.pass_time(LEASE)
    expected = {
        "enqueued": 4,
        "dequeued": 3,
        "concluded": 1,
        "stale": 1,
        "released": 1,
        "failed": 0,
        "dead": 0,
    }
    assert q.core.view("a", q.now).totals == expected | {"cancelled": 1}
    assert q.core.state.counts.totals() == expected | {"enqueued": 5, "cancelled": 1}
    assert q.core.view("a", q.now).jobs["queued"] == 2
