"""All verbs compared with the model of test_verbs_model.py, with restarts: at any time the queue is written to
rows, as a journal has them, and read into a fresh one, which must continue as if nothing had happened.
"""

import pytest
from hypothesis import settings
from hypothesis.stateful import rule
from test_verbs_model import FIRST_ID, STATUSES, THOROUGH, Bucket, VerbsAgainstModel

from jobqueue.core.limits import Limits
from jobqueue.core.queue import JobQueue
from jobqueue.core.restore import LEAST_LEASE, Restoration
from jobqueue.errors import QueueFull
from jobqueue.model import DequeueRequest, KeyLimits, NewJob, Options
from jobqueue.storage.records import (
    Counters,
    Reader,
    StoredJob,
    StoredQueue,
    put_counters,
    put_job,
    put_queue,
)


def written_down(queue, offset):
    """Returns the rows of everything in `queue`."""
    rows = [put_counters(Counters(queue.state.first_id, queue.state.last_number, 0, 0))]
    for number, named in enumerate(queue.state.queues.values(), 1):
        rows.append(put_queue(number, StoredQueue(named.name, named.settings, named.pause, named.version)))
    for job in queue.state.jobs.after(0):
        due = job.extras.due if job.extras is not None else None
        running = job.status == "in_progress"
        body = put_job(
            job, job.lease.expires + offset if running else None, None if due is None else due + offset
        )
        rows.append((job.id << 1, body))
    return sorted(rows)


def read_again(rows, queue, now):
    restoration = Restoration(queue.state, now)
    for _, stored in Reader().read(rows):
        if isinstance(stored, StoredJob):
            restoration.job(stored.job, stored.expires, stored.due)
        elif isinstance(stored, StoredQueue):
            restoration.named(*stored)
        else:
            restoration.numbers(stored.first_id, stored.last_number)
    restoration.end(now)


class VerbsAndRestarts(VerbsAgainstModel):
    def stored(self, rows):
        """Returns the rows as the next server finds them."""
        return rows

    @rule()
    def restart(self):
        self.stop_all_waits()
        old = self.queue
        self.queue = JobQueue(old.state.new_token, 1, old.state.limits, self.model.offset)
        read_again(self.stored(written_down(old, self.model.offset)), self.queue, self.now)
        self.queue.state.event = old.state.event
        self.deliveries.clear()  # consumers that were about to get a job are gone with the server
        self._expect_what_a_restart_changes()
        self.check_all()
        self.tick()

    def stepped(self):
        """The retention of a job that finished before the restart follows the wall clock."""
        model = self.model
        if model.noted_offset == model.offset:
            for job in model.finished:
                if job.restored_at is not None:
                    finished_at = self.queue.get(job.id).extras.finished_at
                    job.until = min(finished_at - model.offset, job.restored_at) + job.kept_for

    def _expect_what_a_restart_changes(self):
        model = self.model
        model.noted_offset = model.offset
        # Of lengths only the end by the wall clock is known from now on.
        for job in model.jobs.values():
            if job.due is not None and not job.gone:
                job.due, job.run_at = None, job.due + model.offset
            job.expires_due = None
        for name, until in model.paused.items():
            model.paused[name] = until and (None, until[1])
        model.totals = dict.fromkeys(model.totals, 0)
        model.buckets = {slot: Bucket(bucket.rate) for slot, bucket in model.buckets.items()}
        for job in model.all("in_progress"):
            length = self.queue.get(job.id).lease.length
            job.deadline = self.now + min(max(job.deadline - self.now, LEAST_LEASE), length)
            job.run = job.id  # which jobs were taken together is forgotten, and each counts
            job.ends = job.ends and max(job.ends, job.deadline)
        for job in model.finished:
            kept = self.queue.get(job.id).extras
            own = kept.options.retain_for if kept.options is not None else None
            if own is None:
                own = model.settings[job.queue].retain_for
            general = model.limits.dead_retain if job.status == "dead" else model.limits.retain
            job.own_age = job.status == "dead" or own is not None
            job.kept_for = general if own is None else own
            job.restored_at = self.now - 1
            job.until = min(kept.finished_at - model.offset, job.restored_at) + job.kept_for
        model.finished.sort(key=lambda job: (self.queue.get(job.id).extras.finished_at, job.id))


VerbsAndRestarts.TestCase.settings = settings(
    max_examples=150 if THOROUGH else 30,
    stateful_step_count=50 if THOROUGH else 25,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    print_blob=True,
)
test_a_restart_changes_nothing_that_a_client_could_see = VerbsAndRestarts.TestCase


def test_ids_and_places_continue_after_a_restart():
    old = JobQueue(lambda: "t", FIRST_ID)
    old.state.last_number = FIRST_ID + 41
    fresh = JobQueue(lambda: "t", 1)
    read_again(written_down(old, 0), fresh, 5)
    assert (fresh.state.first_id, fresh.state.last_number) == (FIRST_ID, FIRST_ID + 41)
    assert fresh.state.counts.jobs() == dict.fromkeys(STATUSES, 0)


@pytest.mark.parametrize("first_id", [1, FIRST_ID * 1000])
def test_jobs_of_an_earlier_run_count_for_the_limit_on_jobs(first_id):
    old = JobQueue(lambda: "t", FIRST_ID)
    old.enqueue_many([NewJob("t")] * 3, 0)
    for most, fit in ((5, 2), (3, 0), (2, 0)):
        fresh = JobQueue(lambda: "t", first_id, Limits(max_jobs=most))
        read_again(written_down(old, 0), fresh, 5)
        for _ in range(fit):
            fresh.enqueue(NewJob("t"), 5)
        with pytest.raises(QueueFull):
            fresh.enqueue(NewJob("t"), 5)
        assert fresh.state.counts.held() == 3 + fit


def test_jobs_in_progress_count_for_the_limits_of_their_queue_and_key():
    old = JobQueue(lambda: "t", 1)
    old.configure("q", {"max_in_progress": 2, "key_limits": KeyLimits(1)}, 0)
    for key in ("k", "k", "l", "m"):
        old.enqueue(NewJob("t", "q", options=Options(key=key)), 0)
    assert [job.id for job, _ in old.dequeue(DequeueRequest(("q",), 60_000, 1), 0)] == [1]
    fresh = JobQueue(lambda: "t", 1)
    read_again(written_down(old, 0), fresh, 5)
    assert [job.id for job, _ in fresh.dequeue(DequeueRequest(("q",), 60_000, 9), 5)] == [3]
    fresh.conclude(1, "t", None, None, 6)
    assert [job.id for job, _ in fresh.dequeue(DequeueRequest(("q",), 60_000, 9), 6)] == [2]


@pytest.mark.parametrize(
    ("length", "left", "then"), [(300_000, 200_000, 200_000), (300_000, 1_000, 30_000), (5_000, 1_000, 5_000)]
)
def test_a_lease_goes_on_for_its_remaining_time_but_long_enough_to_find_the_server_again(length, left, then):
    old = JobQueue(lambda: "t", 1)
    old.enqueue(NewJob("t"), 0)
    old.dequeue(DequeueRequest(("default",), length), 0)
    fresh = JobQueue(lambda: "t", 1, None, 1_000_000 - 50)
    read_again(written_down(old, 1_000_000 - length + left), fresh, 50)
    assert fresh.get(1).lease.expires == 50 + then
