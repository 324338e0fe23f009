"""`client.schedules`, both clients, against the real program."""

from datetime import UTC, datetime, timedelta

import pytest
from test_verbs import client  # noqa: F401  # a fixture

from jobqueue import NewJob, errors
from jobqueue.client import NewSchedule, Schedule


async def test_a_schedule_is_put_read_paused_run_and_deleted(client):  # noqa: F811
    made = await client.schedules.put(
        "report", NewJob("report", {"full": True}, {"queue": "mail", "priority": 2}), cron="30 2 * * *",
        timezone="Europe/Berlin", jitter=timedelta(seconds=30), grace="2h",
    )  # fmt: skip
    assert (made.name, made.means, made.timezone, made.jitter, made.grace) == (
        "report", "At 02:30 every day", "Europe/Berlin", 30, 7200,
    )  # fmt: skip
    assert (made.job.type, made.job.queue, made.job.priority, made.job.payload) == (
        "report", "mail", 2, {"full": True},
    )  # fmt: skip
    assert made.next_at.tzinfo is not None
    assert made.next[0] == made.next_at
    assert len((await client.schedules.get("report", next=10)).next) == 10
    paused = await client.schedules.pause("report", reason="deploy", if_match=made.etag)
    assert (paused.paused, paused.pause.reason, paused.next_at) == (True, "deploy", None)
    with pytest.raises(errors.PreconditionFailed):
        await client.schedules.resume("report", if_match=made.etag)
    assert (await client.schedules.resume("report")).paused is False
    first, again = await client.schedules.run("report"), await client.schedules.run("report")
    assert (first.duplicate, again.duplicate, first.id) == (False, True, again.id)
    assert [entry.outcome for entry in await client.schedules.history("report")] == [
        "skipped_overlap",
        "manual",
    ]
    explained = await client.schedules.explain("report")
    assert (explained.name, [reason.code for reason in explained.reasons]) == (
        "report", ["overlap", "skipped_overlap"],
    )  # fmt: skip
    assert str(first.id) in explained.reasons[0].detail
    assert explained.next_at == made.next_at
    await client.jobs.cancel(first.id)
    assert (await client.schedules.delete("report")).name == "report"
    with pytest.raises(errors.ScheduleNotFound):
        await client.schedules.get("report")


async def test_a_job_is_a_type_or_a_mapping_as_well(client):  # noqa: F811
    made = await client.schedules.put("a", "x", every=timedelta(minutes=15))
    assert (made.job.type, made.every, made.means) == ("x", 900, "Every 15 minutes")
    made = await client.schedules.put("b", {"type": "y", "payload": 1, "queue": "q"}, every="1h")
    assert (made.job.type, made.job.payload, made.job.queue) == ("y", 1, "q")
    with pytest.raises(TypeError, match="did you mean timezone"):
        await client.schedules.put("c", "x", cron="* * * * *", timezon="UTC")
    await client.schedules.delete("a")
    await client.schedules.delete("b")


async def test_a_group_is_put_at_once(client):  # noqa: F811
    wanted = [
        NewSchedule("shop.a", "x", {"every": 60}),
        {"name": "shop.b", "job": {"type": "y"}, "cron": "@daily"},
    ]
    dry = await client.schedules.put_group("shop", wanted, dry_run=True)
    assert dry.created == ["shop.a", "shop.b"]
    assert await client.schedules.put_group("shop", wanted) == dry
    changes = await client.schedules.put_group("shop", wanted[:1])
    assert (changes.unchanged, changes.deleted) == (["shop.a"], ["shop.b"])
    assert [each.name for each in (await client.schedules.list(group="shop", paused=False)).schedules] == [
        "shop.a"
    ]
    await client.schedules.put_group("shop", [])
    assert [each async for each in client.schedules.iterate(group="shop")] == []


async def test_what_one_server_has_another_one_imports(client):  # noqa: F811
    await client.schedules.put(
        "moved", NewJob("t", {"a": 1}, {"tags": ["x"], "max_attempts": None}), cron="0 9 * * MON-FRI",
        timezone="America/New_York", misfire="all", overlap="queue", paused=True, group="g",
        starts_at=datetime(2030, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    moved = [each async for each in client.schedules.iterate()]
    assert isinstance(moved[0], Schedule)
    assert (await client.schedules.import_many(moved)).unchanged == ["moved"]
    await client.schedules.delete("moved")
    assert (await client.schedules.import_many(moved)).created == ["moved"]
    again = await client.schedules.get("moved")
    assert (again.job, again.paused, again.starts_at) == (moved[0].job, True, moved[0].starts_at)
    await client.schedules.delete("moved")


async def test_a_preview(client):  # noqa: F811
    shown = await client.schedules.preview(
        "30 2 * * *", timezone="Europe/Berlin", from_=datetime(2027, 3, 27, 12, tzinfo=UTC), count=2
    )
    assert shown.next == [datetime(2027, 3, 28, 1, tzinfo=UTC), datetime(2027, 3, 29, 0, 30, tzinfo=UTC)]
