"""The version of a journal's format: the lowest that fits, so that older servers refuse what they would lose."""

import sqlite3
from pathlib import Path

import pytest
from opened_journal import engine_on

from jobqueue.engine.opening import open_journal
from jobqueue.model import JobTemplate, KeyLimits, NewJob, Options, Plan, QueueSettings
from jobqueue.settings import Settings
from jobqueue.storage import sqlite
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.maintenance import back_up, repair, verify
from jobqueue.storage.sqlite import FILE
from jobqueue.storage.store import JournalError

# Settings of a queue that an older server would lose, or act against.
NEW_SETTINGS = [
    {"attributes": b'{"a":1}'},
    {"key_limits": KeyLimits(ordered=True)},
    {"max_run_for": 60_000},
    {"fair_keys": True},
    {"key_limits": KeyLimits(1, batch=2)},
]
NEW_OPTIONS = [{"max_run_for": 60_000}]


def content(path: Path):
    """Returns the version of a file, and the keys of its rows."""
    db = sqlite3.connect(path)
    ((version,),) = db.execute("PRAGMA user_version").fetchall()
    keys = [key for (key,) in db.execute("SELECT key FROM record ORDER BY key")]
    db.close()
    return version, keys


async def test_what_older_servers_know_needs_no_new_version(io_loop, folder, clock):
    engine = await engine_on(folder, clock)
    await engine.enqueue(NewJob("t"))
    await engine.configure("q", {"max_jobs": 5, "key_limits": KeyLimits(2), "dead_letter": "d"})
    await engine.pause("q", None, None)
    engine.close()
    assert content(folder / FILE) == (1, [-2, 0, 2])


@pytest.mark.parametrize("given", NEW_SETTINGS, ids=str)
async def test_a_file_gets_the_newest_version_with_the_first_row_that_needs_it(io_loop, folder, clock, given):
    engine = await engine_on(folder, clock)
    await engine.configure("q", {"max_jobs": 5})
    assert content(folder / FILE)[0] == 1
    await engine.configure("q", given)
    assert content(folder / FILE) == (sqlite.VERSION, [-2, 0])
    engine.close()
    engine = await engine_on(folder, clock)
    [(name, value)] = given.items()
    assert getattr(engine.queue("q").settings, name) == value
    await engine.configure("r", given)
    await engine.configure("q", {name: getattr(QueueSettings(), name)})
    engine.close()
    assert content(folder / FILE) == (sqlite.VERSION, [-4, -2, 0])


@pytest.mark.parametrize("given", NEW_OPTIONS, ids=str)
async def test_a_job_and_a_plan_may_need_the_newest_version(io_loop, folder, clock, given):
    engine = await engine_on(folder, clock)
    await engine.enqueue(NewJob("t", options=Options(lease_for=5_000, tags=("a",))))
    assert content(folder / FILE)[0] == 1
    await engine.enqueue(NewJob("t", options=Options(**given)))
    assert content(folder / FILE) == (sqlite.VERSION, [0, 2, 4])
    engine.close()
    db = sqlite3.connect(folder / FILE)
    db.execute("UPDATE record SET body = x'00' WHERE key = 2")
    db.commit()
    db.close()
    repair(str(folder))
    assert content(folder / FILE) == (sqlite.VERSION, [0, 4])
    (folder / FILE).unlink()
    engine = await engine_on(folder, clock)
    plan = Plan("a", JobTemplate("t", options=Options(**given)), every=60_000)
    await engine.put_schedule(plan, None)
    engine.close()
    assert content(folder / FILE)[0] == sqlite.VERSION


async def test_schedules_alone_need_version_2_and_do_not_lower_a_version(io_loop, folder, clock):
    engine = await engine_on(folder, clock)
    await engine.put_schedule(Plan("a", JobTemplate("t"), every=60_000), None)
    assert content(folder / FILE)[0] == 2
    await engine.configure("q", NEW_SETTINGS[0])
    assert content(folder / FILE)[0] == 3
    await engine.put_schedule(Plan("b", JobTemplate("t"), every=60_000), None)
    engine.close()
    assert content(folder / FILE)[0] == 3


async def test_an_older_server_refuses_the_file_by_its_version(io_loop, folder, clock, monkeypatch):
    engine = await engine_on(folder, clock)
    await engine.configure("q", NEW_SETTINGS[0])
    engine.close()
    monkeypatch.setattr(sqlite, "VERSION", 2)
    with pytest.raises(JournalError, match="is of version 3; this jobqueue reads versions up to 2"):
        open_journal(DataDir(str(folder)), Settings(first_id=1), clock)


@pytest.mark.parametrize("given", NEW_SETTINGS, ids=str)
async def test_a_backup_and_a_repaired_file_keep_the_version(io_loop, folder, clock, tmp_path, given):
    engine = await engine_on(folder, clock)
    await engine.configure("q", given)
    await engine.enqueue_many([NewJob("t")] * 3)
    engine.close()
    assert back_up(folder, tmp_path / "copy").wrong == []
    assert content(tmp_path / "copy")[0] == sqlite.VERSION
    db = sqlite3.connect(folder / FILE)
    db.execute("UPDATE record SET body = x'00' WHERE key = 4")
    db.commit()
    db.close()
    found = repair(str(folder))
    assert (found.jobs, found.queues) == (2, 1)
    assert verify(folder).wrong == []
    assert content(folder / FILE) == (sqlite.VERSION, [-2, 0, 2, 6])
    engine = await engine_on(folder, clock)
    [(name, value)] = given.items()
    assert getattr(engine.queue("q").settings, name) == value
    engine.close()
