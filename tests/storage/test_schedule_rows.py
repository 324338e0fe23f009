"""Schedules in a journal: its version, and what verify, repair, back up and dump make of them."""

import json
import sqlite3
from pathlib import Path

import pytest
from opened_journal import engine_on

from jobqueue.engine.opening import open_journal
from jobqueue.model import JobTemplate, NewJob, Plan
from jobqueue.server.journal_cli import main
from jobqueue.settings import Settings
from jobqueue.storage import records
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.maintenance import back_up, repair, schedules_in, verify
from jobqueue.storage.sqlite import FILE
from jobqueue.storage.store import JournalError

JOURNALS = Path(__file__).parent / "journals"


def plan(name, payload=b"null"):
    return Plan(name, JobTemplate("t", "q", payload=payload), every=60_000, overlap="allow")


async def refused(folder, clock):
    """Returns why a journal is not read."""
    engine = open_journal(DataDir(str(folder)), Settings(first_id=1), clock)
    with pytest.raises(JournalError) as error:
        await engine.load()
    engine.close()
    return error.value.detail


async def filled(folder, clock):
    """Three schedules, one of them large, of which each has run twice."""
    engine = await engine_on(folder, clock)
    for name in ("a", "b"):
        await engine.put_schedule(plan(name), None)
    await engine.put_schedule(plan("large", b'"' + b"x" * 100_000 + b'"'), None)
    for _ in range(2):
        clock.advance(60)
        engine.tick()
        await engine.after_commit(None)
    engine.close()


def version_of(path):
    db = sqlite3.connect(path)
    ((version,),) = db.execute("PRAGMA user_version").fetchall()
    db.close()
    return version


def damage(folder, key):
    db = sqlite3.connect(folder / FILE)
    ((body,),) = db.execute("SELECT body FROM record WHERE key = ?", (key,)).fetchall()
    db.execute("UPDATE record SET body = ? WHERE key = ?", (bytes([body[0] ^ 1]) + body[1:], key))
    db.commit()
    db.close()


async def test_a_journal_is_of_the_new_version_from_its_first_schedule_on(io_loop, folder, clock):
    engine = await engine_on(folder, clock)
    await engine.enqueue(NewJob("t"))
    assert version_of(folder / FILE) == 1
    await engine.put_schedule(plan("a"), None)
    assert version_of(folder / FILE) == 2
    await engine.delete_schedule("a")
    assert version_of(folder / FILE) == 2
    engine.close()
    engine = await engine_on(folder, clock)
    await engine.put_schedule(plan("a"), None)
    engine.close()
    assert version_of(folder / FILE) == 2


async def test_a_schedule_of_the_current_version_goes_on(io_loop, folder, clock):
    (folder / FILE).write_bytes((JOURNALS / "version-2.sqlite").read_bytes())
    (folder / FILE).chmod(0o600)
    engine = await engine_on(folder, clock)
    nightly, often = engine.schedules(None, None, None, 9)
    assert (nightly.plan.cron, nightly.plan.group, nightly.plan.timezone) == (
        "30 2 * * *",
        "shop",
        "Europe/Berlin",
    )
    assert (often.plan.every, often.paused_at is not None) == (60_000, True)
    clock.advance("18h")
    engine.tick()
    assert [entry.outcome for entry in nightly.history] == ["enqueued"]
    engine.close()


async def test_verify_and_dump_know_schedules(io_loop, folder, clock, capfd):
    await filled(folder, clock)
    found = verify(folder)
    assert (found.wrong, found.jobs, found.schedules) == ([], 6, 3)
    assert main(["verify"], {"JOBQUEUE_DATA": str(folder)}) == 0
    assert capfd.readouterr().out.endswith("schedules 3\n")
    assert main(["dump", "schedules"], {"JOBQUEUE_DATA": str(folder)}) == 0
    shown = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert sorted(each["name"] for each in shown) == ["a", "b", "large"]
    assert all(each["last"]["outcome"] == "enqueued" for each in shown)
    assert main(["dump"], {"JOBQUEUE_DATA": str(folder)}) == 0
    assert len(capfd.readouterr().out.splitlines()) == 6
    assert main(["dump", "queues"], {"JOBQUEUE_DATA": str(folder)}) == 2


async def test_a_backup_has_the_schedules(io_loop, folder, clock, tmp_path):
    await filled(folder, clock)
    found = back_up(folder, tmp_path / "copy")
    assert (found.wrong, found.schedules) == ([], 3)
    assert version_of(tmp_path / "copy") == 2


@pytest.mark.parametrize(("row", "said"), [(0, "schedule 2"), (-1, "the progress of schedule 2")])
async def test_a_damaged_schedule_is_named_and_the_rest_is_saved(io_loop, folder, clock, row, said):
    await filled(folder, clock)
    damage(folder, records.plan_key(2) + row)
    refusal = await refused(folder, clock)
    assert f"{said}: its checksum" in refusal
    with pytest.raises(JournalError) as error:
        list(schedules_in(folder))
    assert (error.value.detail, "`jobqueue journal repair`" in refusal) == (refusal, True)
    (wrong, *_) = verify(folder).wrong
    assert said in wrong
    found = repair(str(folder))
    assert "1 of 3 schedules are lost" in found.wrong
    assert (found.jobs, found.schedules) == (6, 2)
    engine = await engine_on(folder, clock)
    assert [each.plan.name for each in engine.schedules(None, None, None, 9)] == ["a", "large"]
    clock.advance(60)
    engine.tick()
    assert engine.stats().jobs["queued"] == 8
    engine.close()


@pytest.mark.parametrize("row", [0, -1])
async def test_a_missing_row_of_a_schedule_is_noticed(io_loop, folder, clock, row):
    await filled(folder, clock)
    db = sqlite3.connect(folder / FILE)
    db.execute("DELETE FROM record WHERE key = ?", (records.plan_key(2) + row,))
    db.commit()
    db.close()
    assert verify(folder).wrong
    assert "is missing" in await refused(folder, clock)


async def test_missing_schedules_are_noticed(io_loop, folder, clock):
    await filled(folder, clock)
    db = sqlite3.connect(folder / FILE)
    db.execute("DELETE FROM record WHERE key <= ?", (records.SCHEDULES,))
    db.commit()
    db.close()
    assert "0 schedules instead of 3" in await refused(folder, clock)


def test_counters_without_schedules_are_those_of_older_servers():
    assert records.put_counters(records.Counters(1, 2, 3, 4)) == (
        0, records.with_checksum(0, bytes([0x94, 1, 2, 3, 4])),
    )  # fmt: skip


def test_keys_of_schedules_are_told_apart():
    for number in (1, 2, 10**9):
        for key, name in (
            (records.plan_key(number), f"schedule {number}"),
            (records.progress_key(number), f"the progress of schedule {number}"),
            (records.queue_key(number), f"queue row {number}"),
            (records.answered_key(number), f"idempotency key {number}"),
        ):
            assert (records.name_of(key), records.number_of(key)) == (name, number)
