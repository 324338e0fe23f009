"""GroupCommit: no change is acknowledged before it is on disk, and a restart restores everything."""

import asyncio
import gc
import os
import sqlite3
import threading
import time
from contextlib import closing

import pytest
from serving import until

from jobqueue.clock import SystemClock
from jobqueue.engine import commit
from jobqueue.engine.api import refuse
from jobqueue.engine.local import LocalEngine
from jobqueue.engine.opening import open_journal
from jobqueue.errors import (
    DiskFull,
    DuplicateJob,
    IdempotencyMismatch,
    JobForgotten,
    JobNotFound,
    Overloaded,
    QueueFull,
    Stopping,
)
from jobqueue.model import (
    Change,
    DequeueRequest,
    ExistingJob,
    Filter,
    IdempotencyKey,
    ImportedHistory,
    ImportItem,
    LeaseClaim,
    NewJob,
    Options,
)
from jobqueue.settings import Settings
from jobqueue.storage import data_dir, sqlite, writer
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.disk_watch import DiskWatch
from jobqueue.storage.sqlite import FILE
from jobqueue.storage.store import JournalError, RetryableError

JOB = NewJob("t", payload=b'{"n":1}')
LARGE = b'"' + b"x" * 5_000 + b'"'
ONE = DequeueRequest(("default",), 60_000, None, "ann")


class Disk:
    """A directory with a journal, and the engines that use it one after the other."""

    def __init__(self, path, clock):
        self.path = path
        self.clock = clock
        self.engine = None

    async def start(self, **settings):
        """Starts the next engine, after closing the one before."""
        if self.engine is not None:
            self.engine.close()
        settings = Settings(first_id=1, **settings)
        self.engine = open_journal(DataDir(str(self.path)), settings, self.clock)
        await self.engine.load()
        return self.engine

    def rows(self):
        """Returns the keys of the rows on disk."""
        with closing(sqlite3.connect(self.path / FILE, isolation_level=None)) as db:
            return [key for (key,) in db.execute("SELECT key FROM record ORDER BY key")]

    def lock(self):
        """Returns a connection that keeps the journal from being written until it is rolled back."""
        db = sqlite3.connect(self.path / FILE, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        return db


class RunningClock:
    """A clock that runs, with the wall-clock time of another clock."""

    manual = False

    def __init__(self, clock):
        self.wall = clock.wall
        self.monotonic = SystemClock().monotonic


@pytest.fixture
def disk(tmp_path, clock):
    disk = Disk(tmp_path / "data", clock)
    yield disk
    if disk.engine is not None:
        disk.engine.close()


async def passes(count=5):
    """Lets the loop run, so that what must not happen could happen. Use `until` for what must happen."""
    for _ in range(count):
        await asyncio.sleep(0.002)


async def take(engine, request=ONE):
    [(job, lease)] = await engine.dequeue(request)
    return job, lease


# -- what waits for the disk ------------------------------------------------------------------------


async def test_no_change_is_answered_before_it_is_on_disk(disk):
    engine = await disk.start()
    ids = [(await engine.enqueue(JOB)).id for _ in range(9)]
    job, lease = await take(engine)
    [(failing, its)] = await engine.dequeue(ONE)
    [(released, other)] = await engine.dequeue(ONE)
    await passes()
    lock = disk.lock()
    answers = [
        engine.enqueue(JOB),
        engine.enqueue_many([JOB, JOB]),
        engine.enqueue_each([JOB]),
        engine.dequeue(ONE),
        engine.conclude(LeaseClaim(job.id, lease.token, None), None),
        engine.fail(LeaseClaim(failing.id, its.token, None)),
        engine.release(LeaseClaim(released.id, other.token, None)),
        engine.cancel(ids[-1]),
        engine.change(ids[-2], Change(priority=3)),
        engine.configure("q", {"max_jobs": 3}),
        engine.pause("q", None, None),
        engine.resume("q"),
        engine.purge(Filter(queues=frozenset({"none"})), False),
        engine.each([lambda: engine.cancel(ids[-1])]),
        engine.wait_for(job.id, 1_000),
    ]
    await passes()
    assert [answer.done() for answer in answers] == [False] * len(answers)
    assert engine.get(job.id).status == "concluded"  # a plain read may be ahead of the disk
    lock.rollback()
    lock.close()
    await asyncio.wait_for(asyncio.gather(*answers), 8)


class Locked:
    """Makes commits fail for now while `locked` is True. `tried`: the number of rows of each try."""

    def __init__(self, engine, monkeypatch):
        self.locked, self.tried = True, []
        self._commit = engine._commit._store.commit
        monkeypatch.setattr(writer, "RETRY_DELAY", 0.01)
        monkeypatch.setattr(engine._commit._store, "commit", self._try)

    def _try(self, rows):
        self.tried.append(len(rows))
        if self.locked:
            raise RetryableError("the file is locked")
        self._commit(rows)


async def test_changes_of_many_loop_passes_are_written_in_order_once_the_disk_works_again(disk, monkeypatch):
    engine = await disk.start()
    sqlite = Locked(engine, monkeypatch)
    answers = []
    for act in (
        lambda: engine.enqueue(JOB),
        lambda: engine.dequeue(ONE),
        lambda: engine.conclude(LeaseClaim(1, engine.get(1).lease.token, None), b"7"),
        lambda: engine.enqueue(NewJob("second")),
        lambda: engine.after_commit("what was known"),
    ):
        answers.append(act())
        await passes()
    assert [answer.done() for answer in answers] == [False] * len(answers)
    assert engine.stats().journal.pending > 4
    sqlite.locked = False
    assert (await asyncio.wait_for(asyncio.gather(*answers), 8))[-1] == "what was known"
    assert sqlite.tried[0] < sqlite.tried[-1]  # later groups went into the same commit
    assert engine.stats().journal.pending == 0
    engine = await disk.start()
    assert [(engine.get(id).status, engine.get(id).version) for id in (1, 2)] == [
        ("concluded", 3),
        ("queued", 1),
    ]


async def test_changes_that_could_not_be_written_are_written_and_answered_when_the_engine_closes(
    disk, monkeypatch
):
    engine = await disk.start()
    sqlite = Locked(engine, monkeypatch)
    answers = []
    for _ in range(3):
        answers.append(engine.enqueue(JOB))
        await passes()
    stop = writer.Writer.stop

    def stop_and_unlock(self):
        unwritten = stop(self)
        sqlite.locked = False
        return unwritten

    monkeypatch.setattr(writer.Writer, "stop", stop_and_unlock)
    engine.close()
    assert [answer.done() for answer in answers] == [True] * 3
    disk.engine = None
    engine = await disk.start()
    assert [engine.get(id).status for id in (1, 2, 3)] == ["queued"] * 3


async def test_a_waiting_consumer_is_answered_once_the_lease_is_on_disk(disk):
    engine = await disk.start()
    waiting = engine.dequeue(ONE, 30_000)
    await passes()
    lock = disk.lock()
    made = engine.enqueue(JOB)
    await passes()
    assert (waiting.done(), made.done()) == (False, False)
    lock.rollback()
    lock.close()
    [(job, _)] = await waiting
    assert (await made) is job
    outcome = engine.wait_for(job.id, 30_000)
    await engine.conclude(LeaseClaim(job.id, None, "ann"), b"7")
    assert (await outcome).extras.result == b"7"


@pytest.fixture
def commits(monkeypatch):
    """A list to which each commit adds whether it is synced, and the numbers of its jobs."""
    found, commit_rows = [], sqlite.SQLiteStore.commit

    def noted(store, rows, sync=True):
        commit_rows(store, rows, sync)
        ((mode,),) = store._db.execute("PRAGMA synchronous").fetchall()
        assert mode == (2 if sync else 1)
        found.append((sync, [key >> 1 for key, _ in rows if key > 0]))

    monkeypatch.setattr(sqlite.SQLiteStore, "commit", noted)
    return found


async def test_a_lease_alone_may_be_written_without_a_sync_of_its_own(disk, commits):
    engine = await disk.start(sync_leases=False)
    first, second = await asyncio.gather(engine.enqueue(JOB), engine.enqueue(JOB))
    await take(engine)
    assert disk.rows().count(first.id * 2) == 1
    waiting = engine.dequeue(DequeueRequest(("other",), 60_000, None, "ann"), 30_000)
    third, [(delivered, _)] = await asyncio.gather(
        engine.enqueue(NewJob("t", "other", payload=b"1")), waiting
    )
    assert third is delivered
    await engine.conclude(LeaseClaim(first.id, None, "ann"), None)
    await asyncio.gather(*[engine.dequeue(ONE), engine.cancel(third.id)], return_exceptions=True)
    assert [commit for commit in commits if commit[1]] == [
        (True, [first.id, second.id]),
        (False, [first.id]),
        (True, [third.id]),  # an enqueue is in it
        (True, [first.id]),
        (True, [second.id, third.id]),  # an answer of another kind waits for it
    ]
    engine = await disk.start(sync_leases=False)
    assert [engine.get(job.id).status for job in (first, second)] == ["concluded", "in_progress"]


async def test_each_lease_is_synced_by_default(disk, commits):
    engine = await disk.start()
    await engine.enqueue(JOB)
    await take(engine)
    assert [sync for sync, jobs in commits if jobs] == [True, True]


async def test_a_consumer_that_leaves_while_the_lease_is_being_written_gives_the_job_back(disk):
    engine = await disk.start()
    job = await engine.enqueue(JOB)
    taking = engine.dequeue(ONE)
    taking.cancel()
    assert (job.status, job.attempts, job.leases) == ("queued", 0, 1)
    waiting = engine.dequeue(DequeueRequest(("q",)), 5_000)
    other = engine.enqueue(NewJob("t", "q"))
    waiting.cancel()
    assert (await other).status == "queued"
    engine = await disk.start()
    assert engine.stats().jobs["queued"] == 2


async def test_a_heartbeat_is_answered_at_once_and_is_written(disk, clock):
    engine = await disk.start()
    await engine.enqueue(JOB)
    job, lease = await take(engine)
    assert engine.heartbeat(LeaseClaim(job.id, lease.token, None), 600_000, 40, "half way") is job
    engine.tick()
    await passes()
    engine = await disk.start()
    again = engine.get(job.id)
    assert again.lease.expires == clock.monotonic() + 600_000
    assert again.extras.trace.progress == 40


async def test_with_an_interval_no_answer_waits_and_ticks_commit(disk):
    engine = await disk.start(sync="interval")
    job = engine.enqueue(JOB)
    assert (job.id, job.status) == (1, "queued")
    [(_, lease)] = engine.dequeue(ONE)
    assert engine.conclude(LeaseClaim(1, lease.token, None), None) is job
    engine.tick()
    await until(lambda: disk.rows() == [0, 2])


# -- what is written --------------------------------------------------------------------------------


async def test_changes_of_a_job_in_one_group_are_one_row_and_a_job_created_and_removed_in_it_has_none(disk):
    engine = await disk.start(retain="0s")
    await passes()
    answers = [engine.enqueue(JOB), engine.dequeue(ONE), engine.enqueue(JOB)]
    answers.append(engine.conclude(LeaseClaim(1, None, "ann"), None))
    engine.tick()
    await asyncio.gather(*answers)
    assert disk.rows() == [0, 4]
    engine = await disk.start()
    with pytest.raises(JobForgotten):
        engine.get(1)
    assert (await engine.enqueue(JOB)).id == 3


async def test_a_large_payload_is_written_once_and_again_when_it_changes(disk):
    engine = await disk.start()
    job = await engine.enqueue(NewJob("t", payload=LARGE))
    assert disk.rows() == [0, 2, 3]
    engine = await disk.start()
    job = engine.get(1)
    assert job.payload == LARGE
    await engine.change(1, Change(payload=LARGE + b" "))
    engine = await disk.start()
    assert engine.get(1).payload == LARGE + b" "
    await engine.change(1, Change(payload=b"1"))
    assert disk.rows() == [0, 2]
    await engine.change(1, Change(payload=LARGE))
    assert disk.rows() == [0, 2, 3]
    await engine.purge(Filter(queues=frozenset({"default"})), False)
    assert disk.rows() == [0]
    await disk.start()


async def test_a_queue_without_settings_or_pause_has_no_row(disk):
    engine = await disk.start()
    await engine.configure("q", {"max_jobs": 3})
    await engine.pause("p", None, "lunch")
    assert disk.rows() == [-4, -2, 0]
    await engine.configure("q", {"max_jobs": None})
    assert disk.rows() == [-4, 0]
    engine = await disk.start()
    assert engine.queue("p").pause.reason == "lunch"
    await engine.configure("q", {"lease_for": 5_000})
    engine = await disk.start()
    assert engine.queue("q").settings.lease_for == 5_000
    await engine.resume("p")
    assert disk.rows() == [-6, 0]


# -- after a restart --------------------------------------------------------------------------------


async def test_a_restart_restores_everything(disk, clock):
    engine = await disk.start()
    await engine.enqueue_many([JOB] * 4)
    await engine.enqueue(NewJob("later", delay=60_000))
    await engine.enqueue(NewJob("once", options=Options(unique_key="u", tags=("x",), headers=b'{"a":"b"}')))
    concluded, lease = await take(engine)
    await engine.conclude(LeaseClaim(concluded.id, lease.token, None), b'{"sum":3}')
    failed, lease = await take(engine)
    await engine.fail(LeaseClaim(failed.id, lease.token, None), b'"no such host"')
    running, lease = await take(engine)
    await engine.pause("q", 5_000, "tea")
    before = engine.stats().jobs
    engine = await disk.start()
    assert engine.stats().jobs == before
    assert engine.get(concluded.id).extras.result == b'{"sum":3}'
    assert engine.get(failed.id).extras.trace.error == b'"no such host"'
    assert engine.get(failed.id).status == "scheduled"
    again = engine.get(running.id)
    assert (again.status, again.lease.token, again.lease.consumer) == ("in_progress", lease.token, "ann")
    assert (await engine.conclude(LeaseClaim(running.id, lease.token, None), None)).status == "concluded"
    assert (await engine.conclude(LeaseClaim(running.id, lease.token, None), None)).status == "concluded"
    assert isinstance(await engine.enqueue(NewJob("t", options=Options(unique_key="u"))), ExistingJob)
    clock.advance("5s")
    engine.tick()
    assert engine.queue("q").pause is None
    clock.advance("55s")
    engine.tick()
    assert engine.get(5).status == "queued"


async def test_the_owner_of_a_unique_key_keeps_it_through_a_restart_if_a_lower_id_is_moved_to_its_queue(disk):
    engine = await disk.start()
    unique = Options(unique_key="u")
    moved = await engine.enqueue(NewJob("t", "a", options=unique))
    other = await engine.enqueue(NewJob("t", "b", options=unique))
    await engine.change(moved.id, Change(queue="b"))
    for _ in range(2):
        with pytest.raises(DuplicateJob) as refused:
            await engine.enqueue(NewJob("t", "b", options=Options(unique_key="u", on_conflict="reject")))
        assert refused.value.facts["job_id"] == other.id
        engine = await disk.start()


async def test_the_owner_of_a_unique_key_keeps_it_through_a_restart_if_a_job_with_the_key_is_older(disk):
    def unique():
        return NewJob("t", options=Options(unique_key="u", unique_while="queued"))

    engine = await disk.start()
    first = await engine.enqueue(unique())
    job, lease = await take(engine)
    second = await engine.enqueue(unique())
    await engine.fail(LeaseClaim(job.id, lease.token, None), None, True, 60_000)
    third = await engine.enqueue(NewJob("t", options=Options(unique_key="u", unique_while="exists")))
    assert third.job.id == second.id
    for _ in range(2):
        engine = await disk.start()
        assert (await engine.enqueue(unique())).job.id == second.id
        await engine.change(second.id, Change(tags=("written", "again")))
    await engine.cancel(second.id)
    assert (await engine.enqueue(unique())).job.id == first.id


async def test_jobs_that_expired_while_no_server_ran_are_not_delivered(disk, clock):
    engine = await disk.start()
    expiring = [NewJob("t", expires_in=60_000)] * 600 + [NewJob("t", delay=60_000, expires_in=30_000)]
    await engine.enqueue_many(expiring)
    engine.close()
    disk.engine = None
    clock.advance("1h")
    engine = await disk.start()
    assert engine.dequeue(ONE) == []
    assert engine.stats().jobs["dead"] == len(expiring)


async def test_jobs_that_came_due_while_no_server_ran_are_in_the_order_of_their_times(disk, clock):
    engine = await disk.start()
    late = [(await engine.enqueue(NewJob("t", delay=minutes * 60_000))).id for minutes in (50, 10, 30)]
    engine.close()
    disk.engine = None
    clock.advance("1h")
    engine = await disk.start()
    assert [job.id for job in engine.peek("default", 9)] == [late[1], late[2], late[0]]


async def test_due_work_is_done_after_a_restart_without_any_request(disk, clock):
    engine = await disk.start()
    await engine.enqueue(NewJob("t", delay=1_000))
    engine.close()
    disk.engine = None
    clock.advance("1m")
    engine = open_journal(DataDir(str(disk.path)), Settings(first_id=1, tick="10ms"), RunningClock(clock))
    await engine.load()
    await until(lambda: engine._queue.state.counts.jobs()["queued"] == 1)
    engine.close()


async def test_an_idempotency_key_is_on_disk_with_the_jobs_it_created(disk, clock):
    engine = await disk.start()
    once = IdempotencyKey("", "order-17", b"d" * 16, False)
    [job] = await engine.enqueue_many([JOB], once)
    engine = await disk.start()
    known = engine.find_prior_answer("", "order-17", b"d" * 16)
    assert ([one.id for one in known.made], known.many) == ([job.id], False)
    with pytest.raises(IdempotencyMismatch):
        engine.find_prior_answer("", "order-17", b"e" * 16)
    assert engine.find_prior_answer("", "order-18", b"d" * 16) is None
    clock.advance("24h")
    engine.tick()
    await engine.enqueue(JOB)
    assert disk.rows() == [0, 2, 4]


async def test_a_second_request_under_a_key_waits_until_the_first_is_on_disk(disk):
    engine = await disk.start()
    made = engine.enqueue_many([JOB], IdempotencyKey("", "k", b"d", False))
    recalled = engine.after_commit(engine.find_prior_answer("", "k", b"d"))
    assert not recalled.done()
    assert [job.id for job in (await recalled).made] == [(await made)[0].id]


async def test_ids_are_not_reused_when_the_newest_jobs_are_forgotten(disk):
    engine = await disk.start()
    await engine.enqueue_many([JOB] * 5)
    await engine.purge(Filter(queues=frozenset({"default"})), False)
    engine = await disk.start()
    assert (await engine.enqueue(JOB)).id == 6
    with pytest.raises(JobForgotten):
        engine.get(5)


# -- damage, failures, limits -----------------------------------------------------------------------


async def test_no_request_is_accepted_while_the_journal_is_read(disk):
    engine = open_journal(DataDir(str(disk.path)), Settings(first_id=1), disk.clock)
    assert engine.refuses == "the server is reading its journal"
    await engine.load()
    assert engine.refuses is None
    engine.close()


async def test_nothing_is_due_while_the_journal_is_read(disk, clock):
    """A tick would number the jobs read so far before the last number is known."""
    engine = await disk.start()
    await engine.enqueue_many([NewJob("t", delay=1_000)] * 5)
    await engine.enqueue_many([JOB] * 1_000)
    engine.close()
    disk.engine = None
    clock.advance("1m")
    engine = open_journal(DataDir(str(disk.path)), Settings(first_id=1, tick="10ms"), RunningClock(clock))
    loading = asyncio.ensure_future(engine.load())
    await asyncio.sleep(0)
    while not loading.done():
        assert engine.refuses is not None
        engine.stats()
        engine.queues(10)
        assert engine._driver._ticker is None
        await asyncio.sleep(0)
    assert await loading == 1_005
    await until(lambda: engine.stats().jobs["queued"] == 1_005)
    [(first, _)] = await engine.dequeue(ONE)
    assert first.id == 6
    engine.close()


async def test_the_message_about_a_damaged_file_is_one_printable_line(disk):
    engine = await disk.start()
    engine.close()
    disk.engine = None
    file = disk.path / FILE
    content = file.read_bytes()
    damaged = content.replace(b"tablerecordrecord", b"tablere\n\x1brdrecord").replace(
        b"CREATE TABLE", b"CREATE TABXE"
    )
    assert damaged != content
    file.write_bytes(damaged)
    with pytest.raises(JournalError) as refused:
        await disk.start()
    assert refused.value.detail.isprintable()
    assert "malformed database schema (re??rd)" in refused.value.detail


async def test_a_damaged_row_is_named_and_no_request_is_accepted(disk):
    engine = await disk.start()
    await engine.enqueue_many([JOB] * 3)
    engine.close()
    with closing(sqlite3.connect(disk.path / FILE, isolation_level=None)) as db:
        db.execute("UPDATE record SET body = zeroblob(length(body)) WHERE key = 4")
    disk.engine = None
    engine = open_journal(DataDir(str(disk.path)), Settings(first_id=1), disk.clock)
    with pytest.raises(JournalError, match=r"journal.sqlite is damaged: job 2: its checksum is wrong"):
        await engine.load()
    assert engine.refuses is not None
    engine.close()


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (4, "it holds 2 jobs instead of 3"), (3, "job 1: its payload is missing"),
        (0, "its counters are missing"),  # without them ids would be reused
    ],
)  # fmt: skip
async def test_a_missing_row_is_noticed(disk, key, what):
    engine = await disk.start()
    await engine.enqueue_many([NewJob("t", payload=LARGE), JOB, JOB])
    engine.close()
    with closing(sqlite3.connect(disk.path / FILE, isolation_level=None)) as db:
        db.execute("DELETE FROM record WHERE key = ?", (key,))
    disk.engine = None
    engine = open_journal(DataDir(str(disk.path)), Settings(first_id=1), disk.clock)
    with pytest.raises(JournalError, match=what):
        await engine.load()
    engine.close()


@pytest.mark.parametrize("handed_over", [True, False])
async def test_changes_that_cannot_be_written_when_the_engine_closes_are_reported_and_not_acknowledged(
    disk, monkeypatch, handed_over
):
    engine = await disk.start()
    await engine.enqueue(JOB)
    reasons = []
    engine.on_failure = lambda error: reasons.append(str(error))

    def fails(rows):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(engine._commit._store, "commit", fails)
    made = engine.enqueue(JOB)
    if handed_over:
        engine.flush()
    engine.close()
    assert reasons == ["disk I/O error"]
    with pytest.raises(Stopping, match="could not write its journal"):
        await made
    await passes()
    assert len(reasons) == 1
    disk.engine = None
    engine = await disk.start()
    assert engine.stats().jobs["queued"] == 1


async def test_a_purge_goes_on_after_end_wait_and_stops_when_its_future_is_cancelled(disk):
    engine = await disk.start()
    for _ in range(3):
        await engine.enqueue_many([JOB] * 1_000)
    purging = engine.purge(Filter(queues=frozenset({"default"})), False)
    engine.end_wait(purging, Stopping("no more"))
    assert (await purging).changed == 3_000
    purging = engine.purge(Filter(queues=frozenset({"default"})), False)
    for _ in range(2):
        await engine.enqueue_many([JOB] * 1_000)
    purging = engine.purge(Filter(queues=frozenset({"default"})), False)
    purging.cancel()
    await passes()
    assert engine.stats().jobs["queued"] > 1_000


async def test_a_long_reader_does_not_delay_commits(disk, monkeypatch):
    monkeypatch.setattr(sqlite, "_LOG", 64 << 10)
    engine = await disk.start()
    await engine.enqueue(JOB)
    reader = sqlite3.connect(disk.path / FILE, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM record").fetchone()
    started = time.monotonic()
    for _ in range(20):
        await engine.enqueue_many([NewJob("t", payload=LARGE)] * 20)
    assert time.monotonic() - started < 2  # one wait for a lock would be 5
    reader.close()


async def test_after_a_group_that_cannot_be_written_nothing_is_acknowledged(disk):
    engine = await disk.start()
    reasons = []
    engine.on_failure = lambda error: reasons.append(str(error))
    await engine.enqueue(JOB)
    with closing(sqlite3.connect(disk.path / FILE, isolation_level=None)) as db:
        db.execute("DROP TABLE record")  # any reason will do
    made, taken = engine.enqueue(JOB), engine.dequeue(ONE)
    waiting = engine.dequeue(DequeueRequest(("other",)), 5_000)
    for answer in (made, taken):
        with pytest.raises(Stopping, match="could not write its journal"):
            await answer
    assert await waiting == []
    assert (reasons, engine.refuses is None) == (["no such table: record"], False)


async def test_a_purge_in_progress_when_the_journal_fails_is_not_acknowledged(disk):
    engine = await disk.start()
    for _ in range(3):
        await engine.enqueue_many([JOB] * 1_000)
    purging = engine.purge(Filter(), False)
    assert engine.stats().jobs["queued"] > 0
    engine._commit._fail(OSError("reported by the writing thread"))
    with pytest.raises(Stopping, match="could not write its journal"):
        await asyncio.wait_for(purging, 5)


@pytest.mark.parametrize("close", [True, False])
async def test_a_refusal_that_nobody_waits_for_is_not_logged(disk, logged, close):
    engine = await disk.start()
    if close:  # as a turn of the event streams that comes due while the server ends
        engine.close()
        disk.engine = None
    else:
        engine._commit._fail(OSError("reported by the writing thread"))
    left, waited_for = engine.after_commit(1), engine.after_commit(2)
    await passes()
    assert left.done()
    del left
    gc.collect()
    assert logged == []
    with pytest.raises(Stopping, match="the server has stopped" if close else "could not write its journal"):
        await waited_for


async def test_a_bug_that_nobody_waits_for_is_logged(logged):
    future = asyncio.get_running_loop().create_future()
    refuse(future, RuntimeError("a bug"))
    del future
    gc.collect()
    assert "Future exception was never retrieved" in logged.pop().getMessage()


async def test_a_second_engine_on_the_same_directory_is_refused_with_the_pid_of_the_first(disk):
    await disk.start()
    with pytest.raises(JournalError, match=r"another server, process \d+, is using "):
        DataDir(str(disk.path))


async def test_with_the_system_clock_commits_happen_by_themselves(tmp_path):
    engine = open_journal(
        DataDir(str(tmp_path)), Settings(sync="interval", sync_interval="5ms"), SystemClock()
    )
    await engine.load()
    job = engine.enqueue(JOB)
    for _ in range(500):
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as db:
            if db.execute("SELECT count(*) FROM record WHERE key = ?", (job.id * 2,)).fetchone() == (1,):
                break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("it was never written")
    db.close()
    engine.close()


async def test_on_a_full_disk_new_jobs_are_refused_and_existing_ones_can_be_finished(disk, monkeypatch):
    engine = await disk.start()
    await engine.enqueue(JOB)
    job, lease = await take(engine)
    monkeypatch.setattr(data_dir, "LOW", 1 << 60)
    monkeypatch.setattr(data_dir, "ENOUGH", 1 << 60)
    engine.tick()
    await until(lambda: engine.stats().journal.full)
    for refused in (
        lambda: engine.enqueue(JOB),
        lambda: engine.enqueue_many([JOB]),
        lambda: engine.enqueue_each([JOB]),
        lambda: engine.change(1, Change(payload=b"1")),
    ):
        with pytest.raises(DiskFull):
            refused()
    assert (await engine.conclude(LeaseClaim(job.id, lease.token, None), None)).status == "concluded"
    monkeypatch.setattr(data_dir, "LOW", 0)
    monkeypatch.setattr(data_dir, "ENOUGH", 0)
    engine.tick()
    await until(lambda: not engine.stats().journal.full)
    assert (await engine.enqueue(JOB)).id == 2


async def test_a_disk_that_does_not_answer_holds_up_nobody(disk, monkeypatch):
    """As a dead network mount: `statvfs` does not return."""
    engine = await disk.start()
    await engine.enqueue(JOB)
    asked, answers = threading.Event(), threading.Event()

    def statvfs(path):
        asked.set()
        answers.wait()
        return real(path)

    real = os.statvfs
    monkeypatch.setattr(data_dir.os, "statvfs", statvfs)
    monkeypatch.setattr(data_dir, "LOW", 1 << 60)
    for _ in range(3):
        engine.tick()
    assert await asyncio.to_thread(asked.wait, 10)
    figures = engine.stats().journal
    assert (figures.full, figures.size > 0) == (False, True)
    await engine.enqueue(JOB)
    answers.set()
    await until(lambda: engine.stats().journal.full)


def test_a_look_at_the_disk_that_fails_changes_nothing(tmp_path, monkeypatch):
    folder = DataDir(str(tmp_path))

    class Gone:
        def size(self):
            return 7

    watch = DiskWatch(folder, Gone())
    monkeypatch.setattr(data_dir.os, "statvfs", lambda path: os.stat("/nothing/at/all"))
    watch._look()
    assert (watch.full, watch.size) == (False, 7)
    watch.report_no_space()
    assert watch.full
    watch._look()
    assert watch.full
    folder.close()


@pytest.mark.parametrize("sync", ["always", "interval"])
async def test_payloads_that_are_refused_or_known_do_not_count_towards_the_limit(disk, monkeypatch, sync):
    """Otherwise one client of a full queue could block all other queues."""
    engine = await disk.start(sync=sync, max_jobs=2)
    large = NewJob("t", payload=b"1" * 60)
    known = NewJob("t", payload=b"1" * 60, options=Options(unique_key="k"))
    for new in (known, JOB):
        await result_of(engine.enqueue(new))
    monkeypatch.setattr(commit, "MAX_BYTES", 100)
    for _ in range(9):
        assert isinstance(await result_of(engine.enqueue(known)), ExistingJob)
        [refused] = await result_of(engine.enqueue_each([large]))
        taken = await result_of(engine.import_jobs([ImportItem(large, ImportedHistory(1), None)]))
        assert isinstance(refused, QueueFull)
        assert isinstance(taken.refused, QueueFull)
        for put in (lambda: engine.enqueue(large), lambda: engine.enqueue_many([large])):
            with pytest.raises(QueueFull):
                put()
        with pytest.raises(JobNotFound):
            engine.change(1 << 40, Change(payload=LARGE))
    with pytest.raises(QueueFull):
        engine.enqueue(JOB)


async def result_of(answer):
    return await answer if isinstance(answer, asyncio.Future) else answer


@pytest.mark.parametrize(
    "put",
    [
        lambda engine, new: engine.enqueue(new),
        lambda engine, new: engine.enqueue_many([new]),
        lambda engine, new: engine.enqueue_each([new]),
        lambda engine, new: engine.import_jobs([ImportItem(new, ImportedHistory(1), None)]),
        lambda engine, new: engine.change(1, Change(payload=new.payload)),
    ],
    ids=["one", "many", "each", "import", "change"],
)
async def test_every_verb_that_brings_a_payload_respects_the_limit_of_unwritten_bytes(disk, monkeypatch, put):
    engine = await disk.start()
    await engine.enqueue(JOB)
    monkeypatch.setattr(commit, "MAX_BYTES", 100)
    lock = disk.lock()
    made = [put(engine, NewJob("t", payload=b"1" * 60)) for _ in range(2)]
    with pytest.raises(Overloaded):
        put(engine, JOB)
    lock.rollback()
    lock.close()
    await asyncio.gather(*made)
    await put(engine, JOB)


async def test_statistics_tell_of_commits_and_of_pending_changes(disk):
    engine = await disk.start()
    await engine.enqueue(JOB)
    before = engine.stats().journal
    assert (before.pending, before.full, before.rows.count) == (0, False, before.seconds.count)
    assert before.size >= (disk.path / FILE).stat().st_size > 0
    groups, rows = before.rows.count, before.rows.total
    lock = disk.lock()
    made = engine.enqueue_many([JOB] * 4)
    await until(lambda: engine.stats().journal.pending == 5)  # the counters are a row
    after = engine.enqueue(JOB)
    assert engine.stats().journal.pending == 6
    lock.rollback()
    lock.close()
    await asyncio.gather(made, after)
    now = engine.stats().journal
    assert now.pending == 0
    # The second group goes into the first commit, or into one of its own with the counters again.
    assert (now.rows.count, now.rows.total) in ((groups + 1, rows + 7), (groups + 2, rows + 7))
    assert now.seconds.total > 0
    assert LocalEngine(Settings(), disk.clock).stats().journal is None


async def test_space_is_released_when_jobs_are_removed(disk, monkeypatch):
    engine = await disk.start(sync="os")
    for _ in range(10):
        await engine.enqueue_many([NewJob("t", payload=b'"' + b"x" * 900 + b'"')] * 1_000)
    await engine.purge(Filter(queues=frozenset({"default"})), False)
    for _ in range(500):
        with closing(sqlite3.connect(disk.path / FILE, isolation_level=None)) as db:
            (pages,) = db.execute("PRAGMA page_count").fetchone()
        if pages < 1_500:
            break
        await asyncio.sleep(0.01)
    assert pages < 1_500


# -- operations on many jobs ------------------------------------------------------------------------


async def test_a_move_that_a_crash_cuts_off_is_finished_by_another_one_and_moves_each_job_once(
    disk, tmp_path
):
    """The disk is copied at each commit of a move in slices; a server that starts with such a copy has every
    job, in one of the two queues."""
    engine = await disk.start()
    await engine.enqueue_many([JOB] * 1_000)
    where = Filter(queues=frozenset({"default"}), statuses=frozenset({"queued"}))
    moving = engine.move_many(where, "other", None, False)
    seen = set()
    copies = []
    while not moving.done():
        await asyncio.sleep(0)
        with closing(sqlite3.connect(disk.path / FILE, isolation_level=None)) as db:
            copies.append(db.serialize())
    result = await moving
    assert (result.matched, result.changed, result.refused) == (1_000, 1_000, None)
    for number, copy in enumerate(dict.fromkeys([copies[0], *copies[:: len(copies) // 5 + 1], copies[-1]])):
        path = tmp_path / f"crashed-{number}"
        path.mkdir()
        (path / FILE).write_bytes(copy)
        crashed = Disk(path, disk.clock)
        again = await crashed.start()
        jobs, _ = again.list_jobs(Filter(), None, True, 5_000)
        assert len(jobs) == 1_000
        seen.add(again.queue("other").jobs["queued"])
        assert again.queue("other").jobs["queued"] + again.queue("default").jobs["queued"] == 1_000
        await again.move_many(where, "other", None, False)
        assert again.queue("other").jobs["queued"] == 1_000
        assert [job.id for job, _ in await again.dequeue(DequeueRequest(("other",), count=1_000))] == sorted(
            job.id for job in jobs
        )
        again.close()
    assert 0 in seen


async def test_a_move_is_answered_when_it_is_on_disk_also_if_it_ended_early(disk):
    engine = await disk.start()
    await engine.configure("small", {"max_jobs": 2})
    await engine.enqueue_many([JOB] * 3)
    lock = disk.lock()
    where = Filter(queues=frozenset({"default"}), statuses=frozenset({"queued"}))
    answer = engine.move_many(where, "small", None, False)
    await passes()
    assert not answer.done()
    lock.rollback()
    lock.close()
    result = await answer
    assert result.changed == 2
    assert isinstance(result.refused, QueueFull)
    engine = await disk.start()
    assert engine.queue("small").jobs["queued"] == 2
