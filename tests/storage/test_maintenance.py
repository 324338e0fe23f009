"""Verify, repair, back up and dump journals, and read files of every version."""

import asyncio
import json
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jobqueue.engine.opening import open_journal
from jobqueue.model import DequeueRequest, IdempotencyKey, LeaseClaim, NewJob
from jobqueue.server.journal_cli import main
from jobqueue.settings import Settings
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.maintenance import back_up, jobs_in, repair, verify
from jobqueue.storage.sqlite import FILE
from jobqueue.storage.store import JournalError

JOURNALS = Path(__file__).parent / "journals"
VERSIONS = [path.stem for path in sorted(JOURNALS.glob("version-*.sqlite"))]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


async def engine_on(folder, clock, **settings):
    engine = open_journal(DataDir(str(folder)), Settings(first_id=1, **settings), clock)
    await engine.load()
    return engine


def tool(capfd, folder, *arguments):
    """Returns exit status, and the lines on stdout and stderr, of `journal` with these arguments."""
    status = main(list(arguments), {"JOBQUEUE_DATA": str(folder)})
    captured = capfd.readouterr()
    return status, captured.out.splitlines(), captured.err.splitlines()


async def filled(folder, clock, jobs=400):
    """Creates a journal with `jobs` jobs, some with large payloads. Returns them by id."""
    engine = await engine_on(folder, clock)
    news = [
        NewJob("t", "ab"[n % 2], n % 3, b'"%b"' % (b"%05d" % n * (3_000 if n % 20 == 0 else 20)))
        for n in range(jobs)
    ]
    await engine.enqueue_many(news, IdempotencyKey("", "k", b"d", True))
    await engine.dequeue(DequeueRequest(("a",), 60_000, 7))
    await engine.pause("b", None, "lunch")
    engine.close()
    return {job.id: (job.queue, job.status, job.payload) for job in jobs_in(folder)}


# -- files of every version -------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_journal_of_each_version_can_be_read(folder, clock, version, capfd):
    shutil.copy(JOURNALS / f"{version}.sqlite", folder / FILE)
    (folder / FILE).chmod(0o600)
    expected = (JOURNALS / f"{version}.ndjson").read_text().splitlines()
    assert tool(capfd, folder, "dump") == (0, expected, [])
    assert verify(folder).wrong == []
    engine = await engine_on(folder, clock)
    mail = engine.queue("mail")
    assert (mail.pause.reason, mail.settings.max_in_progress, mail.settings.rate.burst) == ("lunch", 5, 20)
    assert [job.id for job in engine.find_prior_answer("", "order-17", b"d" * 16).made] == list(
        range(1001, 1008)
    )
    counts = {}
    for line in expected:
        status = json.loads(line)["status"]
        counts[status] = counts.get(status, 0) + 1
    assert {status: count for status, count in engine.stats().jobs.items() if count} == counts
    lease = engine.get(1011).lease
    assert engine.wall(lease.expires) == clock.wall() + 600_000
    assert (await engine.conclude(LeaseClaim(1011, lease.token, None), None)).status == "concluded"
    assert (await engine.enqueue(NewJob("t"))).id > 1012
    engine.close()


def test_there_is_a_file_of_the_current_version():
    with closing(sqlite3.connect(JOURNALS / f"{VERSIONS[-1]}.sqlite", isolation_level=None)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
    assert f"version-{version}" == VERSIONS[-1]


# -- verify, back up, dump --------------------------------------------------------------------------


async def test_verify_and_backup_work_while_a_server_runs(folder, clock, tmp_path, capfd):
    engine = await engine_on(folder, clock)
    await engine.enqueue_many([NewJob("t")] * 30)
    assert tool(capfd, folder, "verify") == (
        0, ["whole: jobs 30, queues with settings or a pause 0, idempotency keys 0"], []
    )  # fmt: skip
    copy = tmp_path / "copy"
    assert tool(capfd, folder, "backup", str(copy))[:2] == (
        0, ["copied: jobs 30, queues with settings or a pause 0, idempotency keys 0"]
    )  # fmt: skip
    assert copy.stat().st_mode & 0o777 == 0o600
    status, _, errors = tool(capfd, folder, "backup", str(copy))
    assert (status, errors) == (1, [f"jobqueue: cannot write {copy}: File exists"])
    await engine.enqueue(NewJob("t"))
    engine.close()
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    copy.rename(other / FILE)
    engine = await engine_on(other, clock)
    assert engine.stats().jobs["queued"] == 30
    # Ids that were given out after the copy was made are not reused.
    assert (await engine.enqueue(NewJob("t"))).id > 31
    engine.close()


async def test_repair_does_not_touch_a_journal_in_use_or_without_damage(folder, clock, capfd):
    engine = await engine_on(folder, clock)
    status, _, [error] = tool(capfd, folder, "repair")
    assert (status, "another server" in error) == (1, True)
    await engine.enqueue(NewJob("t"))
    engine.close()
    before = (folder / FILE).read_bytes()
    assert tool(capfd, folder, "repair")[0] == 0
    assert (folder / FILE).read_bytes() == before


def test_wrong_arguments_are_answered_with_the_usage(folder, capfd):
    for arguments in ([], ["help"], ["verify", "x"], ["backup"]):
        status, out, err = tool(capfd, folder, *arguments)
        assert (status, out) == (2, [])
        assert err[0].startswith("usage: jobqueue journal")
    assert main(["verify"], {}) == 2
    assert "set JOBQUEUE_DATA," in capfd.readouterr().err
    for command in ("verify", "repair", "dump"):
        status, _, [error] = tool(capfd, folder, command)
        assert (status, error) == (1, f"jobqueue: there is no journal at {folder / FILE}")


# -- damage and repair ------------------------------------------------------------------------------


async def test_repair_names_the_damaged_row_and_saves_all_others(folder, clock, capfd):
    jobs = await filled(folder, clock)
    content = (folder / FILE).read_bytes()
    assert content.count(b"00017" * 20) == 1
    (folder / FILE).write_bytes(content.replace(b"00017" * 20, b"00018" * 20))
    assert tool(capfd, folder, "verify")[:2] == (
        1,
        [
            "job 18: its checksum is wrong",
            "it holds 399 jobs and 1 queues instead of 400 and 1",
            "readable: jobs 399, queues with settings or a pause 1, idempotency keys 1",
        ],
    )
    status, lines, _ = tool(capfd, folder, "repair")
    assert status == 1
    assert lines[:2] == ["job 18: its checksum is wrong", "1 of 400 jobs are lost"]
    assert verify(folder).wrong == []
    del jobs[18]
    assert {job.id: (job.queue, job.status, job.payload) for job in jobs_in(folder)} == jobs
    engine = await engine_on(folder, clock)
    assert (await engine.enqueue(NewJob("t"))).id == 401
    assert engine.queue("b").pause.reason == "lunch"
    engine.close()
    assert (folder / f"{FILE}.damaged-1").exists()


async def test_a_job_with_a_damaged_payload_is_lost_and_the_next_one_is_saved(folder, clock, capfd):
    jobs = await filled(folder, clock)
    content = (folder / FILE).read_bytes()
    middle = b"00020" * 500
    (folder / FILE).write_bytes(content.replace(middle, b"x" * len(middle), 1))
    _, lines, _ = tool(capfd, folder, "repair")
    assert "the payload of job 21: its checksum is wrong" in lines
    assert "job 21: its payload is missing" in lines
    del jobs[21]
    assert {job.id: (job.queue, job.status, job.payload) for job in jobs_in(folder)} == jobs


@pytest.mark.parametrize("seed", range(40 if os.environ.get("TEST_ALL") else 8))
async def test_repair_saves_most_jobs_and_no_false_ones_from_any_damage(folder, clock, seed):
    """The damage: flipped bits, an overwritten page, a missing end, or a missing header."""
    chance = random.Random(seed)
    jobs = await filled(folder, clock)
    content = bytearray((folder / FILE).read_bytes())
    kind = seed % 4
    if kind == 0:
        for _ in range(3):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        page = chance.randrange(len(content) // 4096) * 4096
        content[page : page + 4096] = chance.randbytes(4096)
    elif kind == 2:
        del content[chance.randrange(len(content) // 2, len(content)) :]
    else:
        content[:100] = bytes(100)  # SQLite does not recognise the file
    (folder / FILE).write_bytes(content)
    found = repair(str(folder))
    saved = {job.id: (job.queue, job.status, job.payload) for job in jobs_in(folder)}
    assert saved.items() <= jobs.items()
    assert len(saved) == found.jobs >= len(jobs) * (0.1 if kind == 2 else 0.85)
    assert verify(folder).wrong == []
    engine = await engine_on(folder, clock)
    assert (await engine.enqueue(NewJob("t"))).id > max(jobs)
    engine.close()


async def test_an_interrupted_repair_leaves_a_journal(folder, clock, monkeypatch):
    """Without one a server would start an empty journal."""
    await filled(folder, clock)
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content.replace(b"00017" * 20, b"00018" * 20))

    def interrupt(*_):
        raise KeyboardInterrupt

    for owner, name in ((os, "link"), (Path, "replace")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                repair(str(folder))
        assert (folder / FILE).exists()
    assert repair(str(folder)).jobs == 399


async def test_a_repair_without_hard_links_keeps_a_copy_and_reports_what_it_cannot_write(
    folder, clock, monkeypatch
):
    await filled(folder, clock)
    content = (folder / FILE).read_bytes().replace(b"00017" * 20, b"00018" * 20)
    (folder / FILE).write_bytes(content)

    def fails(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fails)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fails)
        with pytest.raises(JournalError, match=r"cannot repair .*: Operation not permitted"):
            repair(str(folder))
    assert repair(str(folder)).jobs == 399
    assert (folder / f"{FILE}.damaged-2").read_bytes() == content


async def test_a_journal_of_a_newer_version_is_refused_by_every_command(folder, clock):
    await filled(folder, clock, 10)
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 9")
        db.execute("DELETE FROM record WHERE key = 2")
    with pytest.raises(JournalError, match="is of version 9"):
        repair(str(folder))
    with pytest.raises(JournalError, match="is of version 9"):
        verify(folder)
    with pytest.raises(JournalError, match="is of version 9"):
        list(jobs_in(folder))
    with pytest.raises(JournalError, match="is of version 9"):
        back_up(folder, folder / "copy")
    await asyncio.sleep(0)
