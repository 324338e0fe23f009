"""GroupCommit on a PostgreSQL database: nothing is acknowledged before it is committed, whatever happens to the
database, and it is all there after a restart."""

import asyncio
import logging

import pytest
from postgres_server import needs_postgres
from serving import until

from jobqueue.engine import commit
from jobqueue.engine.opening import open_database
from jobqueue.errors import IdempotencyMismatch, JobForgotten, OutcomeUnknown, SettingError, Stopping
from jobqueue.model import (
    DequeueRequest,
    Filter,
    IdempotencyKey,
    JobTemplate,
    LeaseClaim,
    NewJob,
    Options,
    Plan,
)
from jobqueue.settings import Settings
from jobqueue.storage import postgres as postgres_module
from jobqueue.storage import postgres_session
from jobqueue.storage.store import JournalError

pytestmark = needs_postgres

JOB = NewJob("t", payload=b'{"n":1}')
LARGE = b'"' + b"x" * 5_000 + b'"'
ONE = DequeueRequest(("default",), 60_000, None, "ann")


class Kept:
    """A database, and the engines that use it one after the other."""

    def __init__(self, postgres, database, clock):
        self.postgres = postgres
        self.database = database
        self.url = postgres.url(database)
        self.clock = clock
        self.engine = None
        self.failures = []

    async def start(self, **settings):
        """Starts the next engine, after closing the one before."""
        self.close()
        self.engine = open_database(self.url, Settings(first_id=1, **settings), self.clock, 0)
        self.engine.on_failure = lambda error: self.failures.append(str(error))
        await self.engine.load()
        return self.engine

    def close(self):
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def sql(self, text):
        return self.postgres.sql(text, self.database)

    def keys(self):
        return [int(key) for key in self.sql("SELECT key FROM jobqueue.record ORDER BY key").split()]

    def sever(self):
        self.postgres.sever(self.database)

    def restore(self):
        self.postgres.restore(self.database)


@pytest.fixture
def kept(postgres, database, clock):
    kept = Kept(postgres, database, clock)
    yield kept
    kept.restore()
    kept.close()


async def wait_out(kept, clock, logged):
    """Lets the engine notice that the database is away, for longer than it holds answers."""
    await until(lambda: any("the database is away" in record.getMessage() for record in logged), 20)
    kept.engine.tick()
    clock.advance_ms(commit.HELD)
    kept.engine.tick()
    logged.clear()


# -- restarts ---------------------------------------------------------------------------------------


async def test_a_restart_restores_everything(kept, clock):
    engine = await kept.start()
    identity, secret = engine.identity, engine.secret
    await engine.enqueue_many([JOB] * 4)
    await engine.enqueue(NewJob("large", payload=LARGE))
    await engine.enqueue(NewJob("once", options=Options(unique_key="u", tags=("x",), headers=b'{"a":"b"}')))
    [made] = await engine.enqueue_many([JOB], IdempotencyKey("", "order-17", b"d" * 16, False))
    [(done, lease)] = await engine.dequeue(ONE)
    await engine.conclude(LeaseClaim(done.id, lease.token, None), b'{"sum":3}')
    [(running, lease)] = await engine.dequeue(ONE)
    await engine.configure("q", {"max_jobs": 3})
    await engine.pause("p", None, "tea")
    plan = Plan("nightly", JobTemplate("t"), every=3_600_000)
    await engine.put_schedule(plan, None)
    before = engine.stats().jobs
    for _ in range(2):
        engine = await kept.start()
        assert (engine.identity, engine.durability) == (identity, "PostgreSQL")
        assert (engine.secret, len(secret)) == (secret, 32)
        assert engine.stats().jobs == before
        assert engine.get(done.id).extras.result == b'{"sum":3}'
        assert engine.get(5).payload == LARGE
        again = engine.get(running.id)
        assert (again.status, again.lease.token, again.lease.consumer) == ("in_progress", lease.token, "ann")
        assert engine.queue("q").settings.max_jobs == 3
        assert engine.queue("p").pause.reason == "tea"
        assert engine.schedule("nightly").plan.every == 3_600_000
        known = engine.find_prior_answer("", "order-17", b"d" * 16)
        assert [one.id for one in known.made] == [made.id]
        with pytest.raises(IdempotencyMismatch):
            engine.find_prior_answer("", "order-17", b"e" * 16)
    assert (await engine.conclude(LeaseClaim(running.id, lease.token, None), None)).status == "concluded"
    assert await engine.delete_schedule("nightly")
    await engine.purge(Filter(queues=frozenset({"default"})), False)
    engine = await kept.start()
    with pytest.raises(JobForgotten):
        engine.get(made.id)
    assert (await engine.enqueue(JOB)).id == made.id + 1


async def test_changes_of_one_group_are_one_row_and_the_counters_are_not_rewritten(kept):
    engine = await kept.start(retain="0s")
    answers = [engine.enqueue(JOB), engine.dequeue(ONE), engine.enqueue(JOB)]
    answers.append(engine.conclude(LeaseClaim(1, None, "ann"), None))
    engine.tick()
    await asyncio.gather(*answers)
    assert kept.keys() == [4]
    assert engine.stats().journal.size > 0
    assert not engine.stats().journal.full


async def test_a_missing_row_is_noticed_and_the_message_says_what_to_do(kept):
    engine = await kept.start()
    await engine.enqueue_many([JOB] * 3)
    kept.close()
    kept.sql("DELETE FROM jobqueue.record WHERE key = 4")
    with pytest.raises(JournalError, match=r"it holds 2 jobs instead of 3. restore a backup"):
        await kept.start()


async def test_other_ways_to_sync_are_refused(kept):
    with pytest.raises(SettingError, match="JOBQUEUE_SYNC=interval is for a journal on disk"):
        open_database(kept.url, Settings(sync="interval"))
    with pytest.raises(SettingError, match="JOBQUEUE_SYNC_LEASES is for a journal on disk"):
        open_database(kept.url, Settings(sync_leases=False))


# -- the database is away ---------------------------------------------------------------------------


async def test_nothing_is_answered_before_it_is_committed(kept):
    engine = await kept.start()
    await engine.enqueue_many([JOB] * 2)
    waiting = engine.dequeue(DequeueRequest(("other",)), 30_000)
    kept.postgres.freeze()
    try:
        answers = [engine.enqueue(JOB), engine.dequeue(ONE), engine.enqueue(NewJob("t", "other")), waiting]
        await asyncio.sleep(0.05)
        assert not any(answer.done() for answer in answers)
    finally:
        kept.postgres.thaw()
    await asyncio.wait_for(asyncio.gather(*answers), 8)


async def test_a_database_that_goes_silent_is_asked_again_and_nothing_counts_twice(kept, logged, monkeypatch):
    """As a network that swallows what is sent: no connection breaks, and no answer comes."""
    monkeypatch.setattr(postgres_module, "COMMAND", 0.2)
    monkeypatch.setattr(postgres_session, "CONNECT", 0.2)
    engine = await kept.start()
    await engine.enqueue(JOB)
    kept.postgres.freeze()
    try:
        answers = [engine.enqueue(JOB), engine.dequeue(ONE)]
        await until(lambda: logged, 20)
        later = engine.enqueue(JOB)
        await asyncio.sleep(0.3)
        assert not any(answer.done() for answer in (*answers, later))
    finally:
        kept.postgres.thaw()
    logged.clear()
    job, [(taken, _)], third = await asyncio.wait_for(asyncio.gather(*answers, later), 20)
    assert (job.id, taken.id, third.id) == (2, 1, 3)
    assert kept.keys() == [2, 4, 6]
    logged.clear()


async def test_a_short_absence_is_only_a_delay(kept, logged, caplog):
    caplog.set_level(logging.INFO, "jobqueue")
    engine = await kept.start()
    await engine.enqueue(JOB)
    kept.sever()
    answers = [engine.enqueue(JOB), engine.dequeue(ONE)]
    await until(lambda: logged)
    kept.restore()
    job, [(taken, _)] = await asyncio.wait_for(asyncio.gather(*answers), 20)
    assert (job.id, taken.id, engine.refuses) == (2, 1, None)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the database is away, and changes wait for it", "the database is back",
    ]  # fmt: skip
    logged.clear()
    engine = await kept.start()
    assert [engine.get(id).status for id in (1, 2)] == ["in_progress", "queued"]


async def test_in_a_long_absence_what_is_held_is_unknown_and_the_engine_takes_no_requests_until_it_is_over(
    kept, clock, logged
):
    engine = await kept.start()
    await engine.enqueue(JOB)
    poll = engine.dequeue(DequeueRequest(("other",)), 3_600_000)
    kept.sever()
    made, taken, many = engine.enqueue(JOB), engine.dequeue(ONE), engine.enqueue_many([JOB] * 2)
    await wait_out(kept, clock, logged)
    for answer in (made, taken, many):
        with pytest.raises(OutcomeUnknown) as unknown:
            await answer
        assert unknown.value.facts["retry_after"] == 1
    assert engine.refuses.startswith("the database is away: ")
    assert engine.get(1).status == "queued"  # the job that was on its way went back
    assert engine.get(1).attempts == 0
    assert not poll.done()
    kept.restore()
    await until(lambda: engine.refuses is None, 20)
    assert (await engine.enqueue(NewJob("t", "other"))).id == 5
    assert [job.id for job, _ in await poll] == [5]
    engine = await kept.start()
    assert [engine.get(id).status for id in range(1, 6)] == ["queued"] * 4 + ["in_progress"]


async def test_an_absence_is_noticed_without_any_request(kept, clock, logged, monkeypatch):
    monkeypatch.setattr(postgres_module.PostgresStore, "check_interval", 0.02)
    engine = await kept.start()
    await engine.enqueue(JOB)
    kept.sever()
    await wait_out(kept, clock, logged)
    assert engine.refuses is not None
    kept.restore()
    await until(lambda: engine.refuses is None, 20)
    assert [job.id for job, _ in await engine.dequeue(ONE)] == [1]


async def test_what_is_held_when_the_engine_closes_without_its_database_is_not_acknowledged(kept, logged):
    engine = await kept.start()
    await engine.enqueue(JOB)
    kept.sever()
    made = engine.enqueue(JOB)
    await until(lambda: logged)
    kept.close()
    assert any("none of them was acknowledged" in record.getMessage() for record in logged)
    logged.clear()
    assert not made.done()
    kept.restore()
    engine = await kept.start()
    assert engine.stats().jobs["queued"] == 1


# -- the session is lost ----------------------------------------------------------------------------


@pytest.mark.parametrize("noticed_by", ["commit", "check"])
async def test_an_engine_whose_session_was_taken_over_acknowledges_nothing_and_fails(
    kept, noticed_by, monkeypatch
):
    if noticed_by == "check":
        monkeypatch.setattr(postgres_module.PostgresStore, "check_interval", 0.02)
    engine = await kept.start()
    await engine.enqueue(JOB)
    kept.sql("UPDATE jobqueue.session SET alive = false")
    if noticed_by == "commit":
        answers = [engine.enqueue(JOB), engine.dequeue(ONE)]
        for answer in answers:
            with pytest.raises(Stopping):
                await answer
    await until(lambda: kept.failures)
    [reason] = kept.failures
    assert reason.startswith("another server has taken over postgresql://")
    assert engine.refuses is not None
    kept.engine = None
    engine.close()
    engine = await kept.start()
    assert engine.stats().jobs["queued"] == 1


async def test_an_engine_that_fails_as_it_is_closed_is_closed_once(kept):
    engine = await kept.start()
    engine.on_failure = lambda error: asyncio.get_running_loop().call_soon(engine.close)
    kept.sql("UPDATE jobqueue.session SET alive = false")
    made = engine.enqueue(JOB)
    engine.close()
    with pytest.raises(Stopping):
        await made
    await asyncio.sleep(0)  # a second close would fail
