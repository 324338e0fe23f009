"""`jobqueue migrate`: a whole journal from a folder to a database, and back."""

import re
import sqlite3
from pathlib import Path

import pytest
from postgres_server import needs_postgres

from jobqueue.cli.main import main as cli
from jobqueue.engine.opening import open_database, open_journal
from jobqueue.model import DequeueRequest, Filter, IdempotencyKey, JobTemplate, LeaseClaim, NewJob, Plan
from jobqueue.server import migrate_cli
from jobqueue.server.migrate_cli import main
from jobqueue.settings import Settings
from jobqueue.shards import shard_of_id, shard_of_queue
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.postgres import PostgresStore
from jobqueue.storage.sqlite import FILE
from jobqueue.storage.store import JournalError

ROOT = Path(__file__).parents[2]
pytestmark = needs_postgres
LARGE = b'"' + b"x" * 5_000 + b'"'
ONE = DequeueRequest(("default",), 60_000, None, "ann")


async def started(place, clock):
    settings = Settings(first_id=1)
    if place.startswith("postgresql:"):
        engine = open_database(place, settings, clock, 0)
    else:
        engine = open_journal(DataDir(place), settings, clock)
    await engine.load()
    return engine


async def fill(engine):
    """Fills a journal with everything that one may hold."""
    await engine.enqueue_many([NewJob("t", payload=LARGE)] * 3, IdempotencyKey("", "k", b"d", True))
    await engine.enqueue_many([NewJob("t", delay=60_000)] * 1_500)
    [(done, lease)] = await engine.dequeue(ONE)
    await engine.conclude(LeaseClaim(done.id, lease.token, None), b"7")
    [(running, lease)] = await engine.dequeue(ONE)
    await engine.configure("q", {"max_jobs": 3, "fair_keys": True})
    await engine.pause("p", None, "tea")
    await engine.put_schedule(Plan("nightly", JobTemplate("t"), every=3_600_000), None)
    return running, lease


def told(engine):
    """What a client can see of the whole engine."""
    jobs, after = engine.list_jobs(Filter(), None, True, 10_000)
    assert after is None
    queues = [(view.name, view.settings, view.pause) for view in engine.queues(10)]
    return (
        [(job.id, job.status, job.payload, job.version, job.attempts) for job in jobs],
        queues,
        engine.identity,
    )


async def test_a_journal_is_the_same_after_its_way_to_a_database_and_back(
    tmp_path, postgres, database, clock, capfd
):
    url, there = postgres.url(database), str(tmp_path / "there")
    engine = await started(str(tmp_path / "here"), clock)
    running, lease = await fill(engine)
    before, newest = told(engine), engine.newest_id()
    engine.close()
    for source, target in ((str(tmp_path / "here"), url), (url, there)):
        assert main(source, target) == 0
        out = capfd.readouterr().out
        assert out.endswith(
            "jobs 1,503, queues with settings or a pause 2, idempotency keys 1, schedules 1\n"
        )
        assert main(source, target) == 1
        assert "is not empty" in capfd.readouterr().err
    for place in (url, there):
        engine = await started(place, clock)
        assert told(engine) == before
        assert engine.schedule("nightly").plan.every == 3_600_000
        assert (await engine.conclude(LeaseClaim(running.id, lease.token, None), None)).status == "concluded"
        assert (await engine.enqueue(NewJob("t"))).id == newest + 1
        engine.close()
    with sqlite3.connect(tmp_path / "there" / FILE) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
    db.close()


async def test_what_cannot_be_copied_is_said_in_a_line(tmp_path, postgres, database, clock, capfd):
    url, here = postgres.url(database), str(tmp_path / "here")
    assert main(str(tmp_path / "none"), url) == 1
    assert capfd.readouterr().err == f"jobqueue: there is no journal in {tmp_path / 'none'}\n"
    engine = await started(here, clock)
    await engine.enqueue_many([NewJob("t")] * 3)
    assert main(here, url) == 1
    assert "another server, process" in capfd.readouterr().err
    engine.close()
    with sqlite3.connect(tmp_path / "here" / FILE) as db:
        db.execute("DELETE FROM record WHERE key = 4")
    db.close()
    assert main(here, url) == 1
    assert "is damaged: it holds 2 jobs" in capfd.readouterr().err
    engine = open_database(url, Settings(first_id=1), clock, 0)  # which serves no part of a journal
    with pytest.raises(JournalError, match="its counters are missing"):
        await engine.load()
    engine.close()


SHARDS = 4
QUEUES = ["default", "mail", "mail:high", "mail:dead", "a", "b", "c", "d", "e", "f"]


async def opened(url, shard, shards, clock):
    engine = open_database(url, Settings(), clock, 0, shard=shard, shards=shards)
    await engine.load()
    return engine


async def fill_queues(engine):
    """Fills several queues, with a key, a schedule and settings for each. Returns the ids by queue."""
    ids = {}
    for queue in QUEUES:
        made = await engine.enqueue_many(
            [NewJob("t", queue=queue, payload=LARGE), NewJob("t", queue=queue)],
            IdempotencyKey("", f"key of {queue}", b"d", True),
        )
        ids[queue] = [job.id for job in made]
        await engine.configure(queue, {"max_jobs": 3})
        await engine.put_schedule(
            Plan(f"schedule of {queue}", JobTemplate("t", queue=queue), every=3_600_000), None
        )
    return ids


def queues_of(engine):
    """What an engine has, by queue: jobs, settings, schedules, and the jobs of its key."""
    jobs, _ = engine.list_jobs(Filter(), None, True, 10_000)
    schedules = {each.plan.job.queue: each.plan.name for each in engine.schedules(None, None, None, 100)}
    return {
        view.name: (
            [(job.id, job.payload, job.place) for job in jobs if job.queue == view.name],
            view.settings.max_jobs,
            schedules[view.name],
            [job.id for job in engine.find_prior_answer("", f"key of {view.name}", b"d").made],
        )
        for view in engine.queues(100)
    }


async def test_a_journal_is_divided_among_shards_and_put_together_again(
    tmp_path, postgres, database, clock, capfd
):
    here, url, back = str(tmp_path / "here"), postgres.url(database), str(tmp_path / "back")
    engine = await started(here, clock)
    ids = await fill_queues(engine)
    before, identity = queues_of(engine), engine.identity
    engine.close()
    assert main(here, url, SHARDS) == 0
    counts = "jobs 20, queues with settings or a pause 10, idempotency keys 10, schedules 10\n"
    assert capfd.readouterr().out.endswith(counts)
    assert main(here, url, SHARDS) == 1
    assert "is not empty" in capfd.readouterr().err
    found, fresh = {}, {}
    for shard in range(SHARDS):
        engine = await opened(url, shard, SHARDS, clock)
        assert engine.identity == identity
        part = queues_of(engine)
        assert {shard_of_queue(name, SHARDS) for name in part} <= {shard}
        found |= part
        for name in part:
            assert [
                job.id for job, _ in await engine.dequeue(DequeueRequest((name,), 60_000, None, "ann"))
            ] == ids[name][:1]
            fresh[name] = (await engine.enqueue(NewJob("t", queue=name))).id
            assert shard_of_id(fresh[name]) == shard
        engine.close()
    assert found == before
    assert main(url, back) == 0
    assert capfd.readouterr().out.startswith(f"copied to {back}: jobs 30, ")
    engine = await started(back, clock)
    assert engine.identity == identity
    assert {name: [job[0] for job in jobs] for name, (jobs, *_) in queues_of(engine).items()} == {
        name: [*ids[name], fresh[name]] for name in QUEUES
    }
    assert (await engine.enqueue(NewJob("t", queue="mail"))).id == max(fresh.values()) + 1
    assert [part[1:] for part in queues_of(engine).values()] == [part[1:] for part in before.values()]
    engine.close()


async def test_shards_are_copied_to_as_many_or_to_one(
    tmp_path, postgres, database, clock, capfd, monkeypatch
):
    monkeypatch.setattr(migrate_cli, "_PATIENCE", 0.0)
    here, url = str(tmp_path / "here"), postgres.url(database)
    engine = await started(here, clock)
    await engine.enqueue(NewJob("t", queue="mail"))
    engine.close()
    assert cli(["migrate", "--shards", "3", here, url]) == 0
    [shard] = [shard for shard in range(3) if shard == shard_of_queue("mail", 3)]
    others = [postgres.create_database() for _ in range(2)]
    assert main(url, postgres.url(others[0]), 2) == 1
    assert f"@/{database} has 3 shards: it can be copied to 3 or to one, not to 2" in capfd.readouterr().err
    store = PostgresStore(url, 0, shard=1, shards=3)
    assert main(url, postgres.url(others[0]), 3) == 1
    assert "is using shard 1 of postgresql://" in capfd.readouterr().err
    store.close()
    assert main(url, postgres.url(others[0]), 3) == 0
    engine = await opened(postgres.url(others[0]), shard, 3, clock)
    assert [job.queue for job in engine.list_jobs(Filter(), None, True, 10)[0]] == ["mail"]
    engine.close()
    assert main(url, postgres.url(others[1])) == 0
    assert main(postgres.url(others[1]), str(tmp_path / "back")) == 0
    assert main(str(tmp_path / "back"), postgres.url(postgres.create_database()), 2) == 1
    assert "its ids tell in which, so it cannot be divided again" in capfd.readouterr().err


def test_a_number_of_shards_that_cannot_be_is_refused(tmp_path, postgres, database, capfd, monkeypatch):
    (tmp_path / FILE).touch()
    here, url = str(tmp_path), postgres.url(database)
    for shards, target, told in (
        (["--shards", "65"], url, "JOBQUEUE_SHARDS=65: must be a whole number from 1 to 64"),
        (["--shards", "x"], url, "JOBQUEUE_SHARDS=x: must be a whole number from 1 to 64"),
        (["--shards", "2"], str(tmp_path / "to"), "JOBQUEUE_SHARDS=2 is for a PostgreSQL database"),
    ):
        assert cli(["migrate", *shards, here, target]) == 2
        assert told in capfd.readouterr().err
    monkeypatch.setenv("JOBQUEUE_SHARDS", "65")
    assert cli(["migrate", here, url]) == 2
    assert cli(["migrate", str(tmp_path / "none"), str(tmp_path / "to")]) == 1  # the variable is not for it


async def test_the_command_of_the_page_copies(tmp_path, postgres, database, clock, capfd):
    page = (ROOT / "docs" / "postgresql.md").read_text()
    [line] = re.findall(r"^jobqueue migrate .*$", page, re.MULTILINE)
    name, command, source, target = line.split()
    assert (name, source) == ("jobqueue", "/var/lib/jobqueue")
    assert target.startswith("postgresql://")
    engine = await started(str(tmp_path / "here"), clock)
    await engine.enqueue(NewJob("t"))
    engine.close()
    assert cli([command, str(tmp_path / "here"), postgres.url(database)]) == 0
    assert capfd.readouterr().out.startswith(f"copied to postgresql://admin@/{database}: jobs 1, ")
