"""The promises of the queue for jobs with options, one sentence each, where test_verbs_model shows them poorly."""

import pytest
from test_queue_verbs import LEASE, Driven

from jobqueue.core.queue import IDLE_QUEUE_MS
from jobqueue.core.waiters import OutcomeWaiter
from jobqueue.errors import DuplicateJob, LeaseLost, NotDead, QueueFull
from jobqueue.model import (
    Change,
    DequeueRequest,
    ExistingJob,
    Filter,
    KeyLimits,
    LeaseClaim,
    NewJob,
    Options,
    Rate,
)


def keyed(q, *keys, queue="default"):
    return q.core.enqueue_many([NewJob("t", queue, options=Options(key=key)) for key in keys], q.now)


def unique(q, key="u", conflict="ignore", scope="active", **fields):
    options = Options(unique_key=key, unique_while=scope, on_conflict=conflict)
    return q.core.enqueue(NewJob("t", options=options, **fields), q.now)


def fail(q, job, retry=True, retry_in=None, error=b'"bad"'):
    return q.core.fail(LeaseClaim(job.id, job.lease.token, None), error, retry, retry_in, q.now)


# -- failing ----------------------------------------------------------------------------------------


def test_a_consumer_whose_lease_is_stale_may_do_nothing_even_if_its_own_name_has_leased_the_job_again():
    q = Driven()
    q.enqueue()
    [(job, old)] = q.dequeue(consumer="ann")
    q.pass_time(LEASE)
    q.dequeue(consumer="ann")
    for verb in (
        lambda: q.core.conclude(job.id, old.token, "ann", None, q.now),
        lambda: q.core.heartbeat(LeaseClaim(job.id, old.token, "ann"), None, q.now),
        lambda: q.core.release(LeaseClaim(job.id, old.token, "ann"), 0, q.now),
        lambda: q.core.fail(LeaseClaim(job.id, old.token, "ann"), None, True, None, q.now),
    ):
        with pytest.raises(LeaseLost):
            verb()
    assert job.status == "in_progress"


def test_of_many_attempts_the_last_twenty_are_remembered():
    q = Driven(max_attempts=None)
    [job] = q.enqueue()
    for number in range(1, 31):
        q.take()
        fail(q, job, retry_in=0, error=b"%d" % number)
    q.take()
    history = job.extras.trace.history
    assert [(line.attempt, line.error) for line in history] == [(n, b"%d" % n) for n in range(11, 31)]


def test_25_attempts_by_the_default_take_the_default_window():
    q = Driven()
    [job] = q.enqueue()
    started = q.now
    for _ in range(24):
        fail(q, q.take())
        q.pass_time(job.extras.due - q.now)
    assert q.now - started == 300_150_000
    fail(q, q.take())
    assert (job.status, job.extras.trace.reason, job.attempts) == ("dead", "attempts", 25)


def test_a_failed_job_that_rested_comes_after_jobs_that_were_ready_before_it():
    q = Driven()
    q.enqueue(3)
    fail(q, q.take(), retry_in=100)
    assert q.ids(number=1) == [2]
    q.pass_time(100)
    q.enqueue()
    assert q.ids() == [3, 1, 5]


def test_three_jobs_that_are_put_off_again_and_again_do_not_keep_ten_others_waiting():
    q = Driven()
    put_off = [job.id for job in q.enqueue(3)]
    others = [job.id for job in q.enqueue(10)]
    taken = []
    for _ in range(26):
        job = q.take()
        taken.append(job.id)
        if job.id in put_off:
            q.core.release(LeaseClaim(job.id, job.lease.token, None), 1_000, q.now)
            q.pass_time(1_000)
    assert set(others) <= set(taken)


# -- dead -------------------------------------------------------------------------------------------


def test_a_job_goes_to_a_dead_letter_queue_once_only():
    q = Driven()
    for name, letter in (("a", "b"), ("b", "c")):
        q.core.configure(name, {"dead_letter": letter}, q.now)
    [job] = q.enqueue(1, "a")
    fail(q, q.take("a"), retry=False)
    assert (job.queue, job.status, job.attempts, job.extras.trace.dead_from) == ("b", "queued", 0, "a")
    fail(q, q.take("b"), retry=False)
    assert (job.queue, job.status) == ("b", "dead")
    q.core.redrive(1, q.now)
    fail(q, q.take("b"), retry=False)
    assert (job.queue, job.status) == ("b", "dead")


def test_a_wait_for_the_outcome_of_a_job_goes_on_when_it_goes_to_a_dead_letter_queue():
    q = Driven()
    q.core.configure("default", {"dead_letter": "letters"}, q.now)
    [job] = q.enqueue()
    told = []
    q.core.wait_for_outcome(OutcomeWaiter(job, q.now + 60_000, lambda job: told.append(job.status)))
    fail(q, q.take(), retry=False)
    assert told == []
    q.conclude(q.take("letters"))
    assert told == ["concluded"]


def test_a_redriven_job_starts_again_at_the_end_and_keeps_its_history():
    q = Driven()
    q.enqueue(2)
    job = fail(q, q.take(), retry=False)
    q.core.redrive(job.id, q.now)
    assert (job.status, job.attempts, job.leases, job.extras.trace.reason) == ("queued", 0, 1, None)
    assert q.ids() == [2, 1]
    assert [line.outcome for line in job.extras.trace.history] == ["bury"]
    with pytest.raises(NotDead):
        q.core.redrive(job.id, q.now)


def test_a_job_that_is_queued_again_after_its_expiry_is_dead_at_the_next_tick():
    q = Driven()
    job = q.core.enqueue(NewJob("t", expires_in=100), q.now)
    q.dequeue(lease_for=5_000)
    q.pass_time(4_999)
    assert job.status == "in_progress"
    q.pass_time(1)
    assert (job.status, job.extras.trace.reason) == ("dead", "expired")


def test_a_redriven_job_has_no_expiry():
    q = Driven()
    job = q.core.enqueue(NewJob("t", expires_in=100), q.now)
    q.pass_time(100)
    assert job.status == "dead"
    q.core.redrive(job.id, q.now)
    q.pass_time(100_000)
    assert job.status == "queued"


# -- unique keys ------------------------------------------------------------------------------------


def test_a_unique_key_that_several_jobs_claim_is_taken_until_the_last_of_them_is_finished():
    q = Driven()
    first = unique(q)
    fail(q, q.take(), retry=False)
    second = unique(q)
    q.core.redrive(first.id, q.now)
    assert isinstance(unique(q), ExistingJob)
    assert q.conclude(q.take()) is second
    assert unique(q).job is first
    q.conclude(q.take())
    assert unique(q).id > second.id


def test_a_key_unique_while_queued_is_taken_by_the_stale_job_too():
    q = Driven()
    first = unique(q, scope="queued")
    q.take()
    second = unique(q, scope="queued")
    q.pass_time(LEASE)
    assert q.take() is first
    assert unique(q, scope="queued").job is second
    assert q.take() is second
    assert unique(q, scope="queued").id > second.id


@pytest.mark.parametrize("change", [{"priority": 1}, {"delay": 5_000}, {"expires_in": 9_000}, {"key": "k"}])
def test_a_changed_job_keeps_its_unique_key(change):
    """Another job has the next claim on it."""
    q = Driven()
    first = unique(q, scope="queued")
    q.take()
    second = unique(q, scope="queued")
    fail(q, first, retry_in=60_000)
    q.core.change(second.id, Change(**change), q.now)
    assert unique(q, scope="queued").job is second
    q.core.change(second.id, Change(queue="elsewhere"), q.now)
    assert unique(q, scope="queued").job is first
    assert unique(q, scope="queued", queue="elsewhere").job is second


def test_replace_changes_a_job_that_has_not_started_and_no_other():
    q = Driven()
    job = unique(q, payload=b"1")
    assert unique(q, conflict="replace", payload=b"2", priority=7).job is job
    assert (job.payload, job.priority) == (b"2", 7)
    q.core.give_back(q.dequeue(), q.now)
    assert unique(q, conflict="replace", payload=b"3").job is job
    assert (job.payload, job.priority, job.status) == (b"2", 7, "queued")


def test_replace_is_refused_if_the_payload_grows_beyond_the_limit_of_the_queue():
    q = Driven()
    q.core.configure("default", {"max_jobs": 1, "max_bytes": 10}, q.now)
    job = unique(q, payload=b"1" * 6)
    with pytest.raises(QueueFull):
        unique(q, conflict="replace", payload=b"2" * 11)
    assert (job.payload, job.version) == (b"1" * 6, 1)
    assert unique(q, conflict="replace", payload=b"3" * 10).job is job
    q.core.configure("default", {"max_bytes": 5}, q.now)
    unique(q, conflict="replace", payload=b"4" * 9)  # smaller than before, but still above the limit
    assert (job.payload, q.core.state.queues["default"].bytes) == (b"4" * 9, 9)


@pytest.mark.parametrize("sizes", [(1, 6), (8,), (7, 1)])
def test_a_batch_whose_replacements_exceed_the_limit_of_the_queue_changes_nothing(sizes):
    q = Driven()
    q.core.configure("default", {"max_bytes": 10}, q.now)
    job = unique(q, payload=b"1" * 4)
    options = Options(unique_key="u", on_conflict="replace")
    news = [NewJob("t", payload=b"x" * size, options=options) for size in sizes]
    with pytest.raises(QueueFull):
        q.core.enqueue_many([*news, NewJob("t", payload=b"x" * 4)], q.now)
    assert (job.payload, job.version, q.core.state.queues["default"].queued) == (b"1" * 4, 1, 1)
    q.core.enqueue_many(news, q.now)
    assert len(job.payload) == sizes[-1]


def test_one_conflict_in_a_batch_refuses_all_and_names_its_index():
    q = Driven()
    unique(q, "taken")
    options = [Options(unique_key=key, on_conflict="reject") for key in ("new", "taken")]
    with pytest.raises(DuplicateJob) as refused:
        q.core.enqueue_many([NewJob("t"), *(NewJob("t", options=each) for each in options)], q.now)
    assert refused.value.facts == {"job_id": 1, "index": 2}
    assert q.core.state.last_number == 1
    assert unique(q, "new").id == 2


def test_duplicates_in_a_batch_do_not_fill_a_queue():
    q = Driven()
    q.core.configure("default", {"max_jobs": 2}, q.now)
    unique(q)
    option = Options(unique_key="u")
    answers = q.core.enqueue_many(
        [NewJob("t", options=option), NewJob("t"), NewJob("t", options=option)], q.now
    )
    assert [isinstance(answer, ExistingJob) for answer in answers] == [True, False, True]
    with pytest.raises(QueueFull):
        q.enqueue()


# -- changing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [Change(expires_in=90_000), Change(type="x"), Change(key="k"), Change(delay=None)],
)
def test_a_change_of_neither_queue_nor_priority_keeps_the_place(change):
    q = Driven()
    q.enqueue(3)
    q.core.change(2, change, q.now)
    q.pass_time(10)
    assert q.ids() == [1, 2, 3]


def test_a_change_that_lets_a_job_rest_gives_it_a_place_when_it_is_ready():
    q = Driven()
    q.enqueue(3)
    q.core.change(2, Change(delay=10), q.now)
    q.pass_time(10)
    assert q.ids() == [1, 3, 2]


@pytest.mark.parametrize("payload", [b"1", b"0" * 99])
def test_a_new_payload_counts_towards_the_bytes_of_its_queue(payload):
    q = Driven()
    q.enqueue()
    q.core.change(1, Change(payload=payload), q.now)
    assert q.core.state.queues["default"].bytes == len(payload)
    q.take()
    assert q.core.state.queues["default"].bytes == 0


# -- pausing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_time", [True, False])
def test_a_consumer_waiting_on_a_paused_queue_is_served_when_it_is_resumed(by_time):
    q = Driven()
    q.core.pause("default", 500 if by_time else None, None, q.now)
    q.wait("ann")
    q.enqueue()
    q.pass_time(499)
    assert q.answers == {}
    if by_time:
        q.pass_time(1)
    else:
        q.core.resume("default", q.now)
    assert q.answers == {"ann": [1]}


def test_resuming_an_unused_queue_does_not_keep_it():
    q = Driven()
    q.core.resume("never used", q.now)
    q.pass_time(3_600_000)
    assert q.core.state.queues == {}


# -- limits -----------------------------------------------------------------------------------------


def test_a_consumer_waiting_for_a_key_at_its_limit_is_served_when_a_lease_of_that_key_ends_in_any_way():
    q = Driven()
    q.core.configure("default", {"key_limits": KeyLimits(1)}, q.now)
    keyed(q, *["k"] * 6)
    for number, end in enumerate(
        [
            q.conclude,
            lambda job: q.core.release(LeaseClaim(job.id, job.lease.token, None), 60_000, q.now),
            lambda job: fail(q, job, retry=False),
            lambda job: q.core.cancel(job.id, q.now, force=True),
            lambda job: (q.core.purge_one(job, q.now), q.core.match(q.now)),
        ],
        start=1,
    ):
        job = q.take()
        assert (job.id, q.dequeue()) == (number, [])
        q.wait(f"consumer {number}")
        end(job)
        assert q.answers.pop(f"consumer {number}") == [number + 1]
        q.core.give_back([(q.core.get(number + 1), q.core.get(number + 1).lease)], q.now)


def test_a_consumer_waiting_for_a_rate_is_served_at_the_time_of_the_next_token():
    q = Driven()
    q.core.configure("default", {"rate": Rate(1, 1_000, 1)}, q.now)
    q.enqueue(2)
    assert [len(q.dequeue()), len(q.dequeue())] == [1, 0]
    q.wait("ann")
    q.pass_time(999)
    assert q.answers == {}
    q.pass_time(1)
    assert q.answers == {"ann": [2]}


@pytest.mark.parametrize("limits", ["rate", "key_limits"])
def test_no_dequeue_gets_ahead_of_a_waiter_for_a_token_that_has_come_since_the_last_tick(limits):
    q = Driven()
    rate = Rate(1, 1_000, 1)
    q.core.configure("default", {limits: rate if limits == "rate" else KeyLimits(None, rate)}, q.now)
    keyed(q, "k", "k")
    assert [len(q.dequeue()), len(q.dequeue())] == [1, 0]
    q.wait("ann")
    q.now += 1_000
    assert q.dequeue() == []
    q.tick()
    assert q.answers == {"ann": [2]}


def test_settings_without_a_rate_do_not_refill_its_tokens():
    q = Driven()
    q.core.configure("default", {"rate": Rate(1, 1_000, 1)}, q.now)
    q.enqueue(2)
    q.take()
    q.core.configure("default", {"lease_for": 5_000}, q.now)
    assert q.dequeue() == []


@pytest.mark.parametrize("limits", ["rate", "key_limits"])
def test_the_timer_of_a_rate_that_was_unset_does_no_harm_after_its_queue_is_dropped(limits):
    q = Driven(retain=0)
    rate = Rate(count=1, per=10 * IDLE_QUEUE_MS, burst=1)
    q.core.configure("a", {limits: rate if limits == "rate" else KeyLimits(None, rate)}, q.now)
    keyed(q, "k", "k", queue="a")
    q.conclude(q.take("a"))
    assert q.dequeue("a") == []  # there is a timer for the next token
    q.core.configure("a", {limits: None}, q.now)
    q.conclude(q.take("a"))
    q.pass_time(2 * IDLE_QUEUE_MS)
    assert q.core.state.queues == {}
    q.pass_time(10 * IDLE_QUEUE_MS)
    assert q.enqueue(1, "a")[0] is q.take("a")


def test_a_full_queue_refuses_a_whole_batch():
    q = Driven()
    q.core.configure("default", {"max_jobs": 3}, q.now)
    q.enqueue(2)
    with pytest.raises(QueueFull) as refused:
        q.enqueue(2)
    assert refused.value.facts["limit"] == 3
    assert 1 <= refused.value.facts["retry_after"] <= 60
    assert q.core.state.last_number == 2
    q.take()
    assert [job.id for job in q.enqueue(2)] == [3, 4]


# -- many -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["scheduled", "queued", "in_progress", "concluded", "cancelled", "dead"])
def test_a_job_of_any_status_can_be_purged_in_any_order(status):
    q = Driven()
    made = q.core.enqueue_many([NewJob("t", delay=500 if status == "scheduled" else 0)] * 3, q.now)
    for job in made if status not in ("scheduled", "queued") else ():
        if status == "cancelled":
            q.cancel(job)
        else:
            q.core.dequeue(DequeueRequest(("default",), LEASE), q.now)
        if status == "concluded":
            q.conclude(job)
        if status == "dead":
            fail(q, job, retry=False)
    assert {job.status for job in made} == {status}
    q.core.purge_one(made[1], q.now)
    assert q.core.view("default", q.now).jobs[status] == 2
    q.pass_time(8 * 86_400_000)
    assert q.core.state.remembered_bytes == 0


def test_a_job_purged_under_its_lease_is_not_given_back():
    q = Driven()
    q.enqueue()
    deliveries = q.dequeue()
    q.core.purge_one(deliveries[0][0], q.now)
    q.core.give_back(deliveries, q.now)
    assert sum(q.core.state.counts.jobs().values()) == q.core.state.counts.totals()["released"] == 0
    assert q.pass_time(LEASE) == 0


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize(("most", "examine"), [(3, 100), (100, 4), (1, 1), (5, 5), (10, 100)])
def test_a_scan_by_pages_returns_each_job_once(rising, most, examine):
    q = Driven()
    q.enqueue(10)
    seen, at = [], 0 if rising else 1 << 60
    while at is not None:
        found, at = q.core.scan(Filter(), at, rising, q.now, most, examine)
        seen += [job.id for job in found]
    assert seen == (list(range(1, 11)) if rising else list(range(10, 0, -1)))


def test_a_full_queue_takes_no_job_from_another_and_no_larger_payload():
    q = Driven()
    q.core.configure("small", {"max_jobs": 1, "max_bytes": 10}, q.now)
    q.core.enqueue(NewJob("t", "small", payload=b"12345"), q.now)
    q.enqueue(1)
    for id_, change in ((2, Change(queue="small")), (1, Change(payload=b"x" * 11))):
        before = repr(q.core.get(id_))
        with pytest.raises(QueueFull):
            q.core.change(id_, change, q.now)
        assert repr(q.core.get(id_)) == before
    q.core.change(1, Change(payload=b"x" * 10), q.now)
    q.core.change(1, Change(queue="default"), q.now)
    q.core.change(2, Change(queue="small"), q.now)
    assert q.core.state.queues["small"].queued == 1
