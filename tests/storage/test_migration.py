"""`jobqueue migrate`: a whole journal from a folder to a database, and back."""

import re
import sqlite3
from pathlib import Path

import pytest
from postgres_server import needs_postgres

from jobqueue.cli.main import main as cli
from jobqueue.engine.opening import open_database, open_journal
from jobqueue.model import DequeueRequest, Filter, IdempotencyKey, JobTemplate, LeaseClaim, NewJob, Plan
from jobqueue.server.migrate_cli import main
from jobqueue.settings import Settings
from jobqueue.storage.data_dir import DataDir
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
