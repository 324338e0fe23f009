"""Schedules: every instant gives exactly one job, whatever happens to the clock and the server."""

import asyncio
import json
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue import MemoryEngine, Settings
from jobqueue.core.schedules import KEPT, LATE, MOST_MISSED, SLICE, Schedules
from jobqueue.engine import calendar, scheduler
from jobqueue.engine.calendar import PlanCalendar
from jobqueue.engine.commit import GroupCommit
from jobqueue.engine.local import LocalEngine
from jobqueue.engine.scheduler import CHECKED
from jobqueue.errors import (
    InvalidField,
    OtherGroup,
    PreconditionFailed,
    QueueFull,
    ScheduleNotFound,
    TooManySchedules,
)
from jobqueue.model import (
    DequeueRequest,
    ExistingJob,
    Filter,
    JobTemplate,
    LeaseClaim,
    Options,
    Plan,
    Schedule,
)
from jobqueue.storage.data_dir import DataDir
from jobqueue.testing import ManualClock
from jobqueue.units import instant, parse_instant

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
EVERYTHING = Filter()


def plan(name="s", every=MINUTE, **given):
    given.setdefault("overlap", "allow")
    job = given.pop("job", JobTemplate("t", "q"))
    if "cron" in given:
        every = None
    return Plan(name, job, every=every, **given)


@pytest.fixture
def engine(clock):
    return MemoryEngine(Settings(first_id=1), clock)


def jobs(engine):
    found, _ = engine.list_jobs(EVERYTHING, None, True, 1_000)
    return found


def due_of(job):
    return parse_instant(json.loads(job.extras.options.headers)["due-at"])


def dues(engine):
    """The instants of the jobs, in the order of their ids, without the date."""
    return [instant(due_of(job))[11:19] for job in jobs(engine)]


def outcomes(engine, name="s"):
    return [entry.outcome for entry in engine.schedule(name).history]


def passes(engine, clock, seconds, step=0.1):
    """Lets time pass as it does, with a tick after each step."""
    for _ in range(round(seconds / step)):
        clock.advance(step)
        engine.tick()


def conclude_next(engine):
    [(job, lease)] = engine.dequeue(DequeueRequest(("q",)))
    engine.conclude(LeaseClaim(job.id, lease.token, None), None)


# -- instants become jobs ------------------------------------------------------------------------------


def test_each_instant_gives_a_job_that_says_of_which_it_is(engine, clock):
    options = Options(headers=b'{"a":"b"}', tags=("x",))
    engine.put_schedule(plan(job=JobTemplate("t", "q", 7, b'{"n":1}', options=options)), None)
    passes(engine, clock, 180, 1)
    assert dues(engine) == ["08:01:00", "08:02:00", "08:03:00"]
    job = jobs(engine)[0]
    assert (job.type, job.queue, job.priority, job.payload) == ("t", "q", 7, b'{"n":1}')
    assert json.loads(job.extras.options.headers) == {
        "a": "b", "schedule": "s", "due-at": "2027-01-15T08:01:00.000Z",
    }  # fmt: skip
    assert job.extras.options.tags == ("x",)
    assert [entry.job for entry in engine.schedule("s").history] == [1, 2, 3]
    assert engine.schedule("s").next_at == parse_instant("2027-01-15T08:04:00Z")


def test_a_new_schedule_and_a_changed_one_never_run_for_the_past(engine, clock):
    engine.put_schedule(plan(starts_at=0), None)
    engine.tick()
    assert jobs(engine) == []
    clock.advance(60)
    engine.tick()
    clock.advance(30)
    engine.put_schedule(plan(every=10 * SECOND), None)
    engine.tick()
    assert dues(engine) == ["08:01:00"]
    clock.advance(10)
    engine.tick()
    assert dues(engine) == ["08:01:00", "08:01:40"]


def test_a_change_does_not_lose_an_instant_that_is_due(engine, clock):
    engine.put_schedule(plan(), None)
    clock.advance(60)
    [cause] = engine.explain_schedule("s").causes
    assert (cause.code, cause.since) == ("due", clock.wall())
    engine.put_schedule(plan(every=HOUR), None)
    assert dues(engine) == ["08:01:00"]
    assert engine.explain_schedule("s").causes == []


def test_a_change_notes_the_instants_that_it_loses(engine, clock):
    engine.configure("q", {"max_jobs": 0})
    engine.put_schedule(plan(misfire="all"), None)
    passes(engine, clock, 150, 1)
    refused = engine.schedule("s").blocked
    engine.put_schedule(plan(every=HOUR), None)
    [entry] = engine.schedule("s").history
    assert (entry.outcome, entry.reason) == ("missed", refused)
    assert (instant(entry.since)[11:16], instant(entry.due_at)[11:16]) == ("08:01", "08:02")


def test_a_change_of_a_paused_schedule_notes_what_came_due(engine, clock):
    engine.put_schedule(plan(), None)
    engine.pause_schedule("s", "deploy")
    passes(engine, clock, 190, 10)
    engine.put_schedule(plan(every=HOUR), None)
    engine.resume_schedule("s")
    [entry] = engine.schedule("s").history
    assert (entry.outcome, entry.reason) == ("skipped_paused", "deploy")
    assert (instant(entry.since)[11:16], instant(entry.due_at)[11:16]) == ("08:01", "08:03")


def test_the_same_again_changes_nothing(engine, clock):
    schedule, created = engine.put_schedule(plan(), None)
    clock.advance(30)
    again, created_again = engine.put_schedule(plan(), None)
    assert (created, created_again, again is schedule, schedule.version) == (True, False, True, 1)


def test_a_waiting_consumer_gets_the_job_at_once(clock):
    async def scenario():
        engine = MemoryEngine(Settings(first_id=1), clock)
        engine.put_schedule(plan(), None)
        waiting = engine.dequeue(DequeueRequest(("q",)), 120_000)
        clock.advance(60)
        engine.tick()
        [(job, _)] = await waiting
        assert job.id == 1

    asyncio.run(scenario())


def test_nothing_comes_due_after_the_end(engine, clock):
    engine.put_schedule(plan(ends_at=clock.wall() + 2 * MINUTE), None)
    passes(engine, clock, 300, 10)
    assert dues(engine) == ["08:01:00", "08:02:00"]
    assert engine.schedule("s").next_at is None


@pytest.mark.parametrize(("seconds", "slices"), [(60, 1_000 // SLICE), (0, 1_000)])
def test_a_thousand_schedules_of_one_instant_run_in_slices(engine, clock, seconds, slices, monkeypatch):
    """A slice ends after a number of steps, or after a time if that is sooner."""
    monkeypatch.setattr(scheduler, "_SLICE_SECONDS", seconds)
    for number in range(1_000):
        engine.put_schedule(plan(f"s{number}"), None)
    before = engine.stats().ticks
    clock.advance(60)
    engine.tick()
    assert slices <= engine.stats().ticks - before <= slices + 1
    assert len(jobs(engine)) == 1_000


def test_a_search_for_missed_instants_has_a_slice_of_its_own(engine, clock, monkeypatch):
    monkeypatch.setattr(scheduler, "_SLICE_SECONDS", 60)
    for number in range(SLICE):
        engine.put_schedule(plan(f"s{number}", every=HOUR, misfire="all"), None)
    before = engine.stats().ticks
    clock.advance(HOUR // 1000 + 60)
    engine.tick()
    assert engine.stats().ticks - before >= SLICE
    assert len(jobs(engine)) == SLICE


def test_ten_thousand_schedules_cost_nothing_while_none_is_due(engine, clock, monkeypatch):
    for number in range(10_000):
        engine.put_schedule(plan(f"s{number}", every=HOUR), None)
    examined = []
    with monkeypatch.context() as patched:
        for name in ("next_after", "last_until", "fault", "new_job"):
            patched.setattr(PlanCalendar, name, lambda self, *given, name=name: examined.append(name))
        patched.setattr(Schedules, "_step", lambda self, schedule, now: examined.append(schedule))
        passes(engine, clock, 60)
    assert examined == []
    assert (engine.stats().tick_last < 1, jobs(engine)) == (True, [])


async def test_a_change_waits_in_slices_for_the_instants_that_were_missed(io_loop, clock):
    engine = MemoryEngine(Settings(first_id=1), clock)
    for name in ("put", "group", "pause"):
        engine.put_schedule(plan(name, misfire="all"), None)
    clock.advance(30.5 * 60)
    changes = [
        engine.put_schedule(plan("put", every=HOUR), None),
        engine.put_schedules([(plan("group", every=HOUR), None)], None, False),
        engine.pause_schedule("pause", "deploy"),
    ]
    assert len(jobs(engine)) == 3  # a search for missed instants has a slice of its own
    assert [engine.schedule(name).version for name in ("put", "group", "pause")] == [1, 1, 1]
    for change in changes:
        await change
    assert Counter(json.loads(job.extras.options.headers)["schedule"] for job in jobs(engine)) == {
        "put": 30, "group": 30, "pause": 30,
    }  # fmt: skip
    assert [engine.schedule(name).plan.every for name in ("put", "group")] == [HOUR, HOUR]
    assert engine.schedule("pause").pause_reason == "deploy"


async def test_many_schedules_are_looked_at_in_slices_and_put_at_once(io_loop, clock, monkeypatch):
    engine = MemoryEngine(Settings(first_id=1), clock)
    plans = [(plan(f"s{n}", cron=f"{n % 60} {n // 60} * * *", group="g"), None) for n in range(3 * CHECKED)]
    looked_at, next_of_cron = [], calendar._next_of_cron
    monkeypatch.setattr(
        calendar, "_next_of_cron", lambda *given: looked_at.append(given) or next_of_cron(*given)
    )
    few = engine.put_schedules(plans[:CHECKED], "g", False)
    assert len(few.created) == len(looked_at) == CHECKED
    change = engine.put_schedules(plans, "g", False)
    while not change.done():
        assert len(engine.schedules(None, None, None, 999)) == CHECKED  # all of them, or none
        before = len(looked_at)
        await asyncio.sleep(0)
        assert len(looked_at) - before <= CHECKED
    assert len((await change).created) == 2 * CHECKED
    assert len(looked_at) <= 3 * CHECKED


async def test_a_bad_one_of_many_schedules_is_named_and_changes_nothing(io_loop, clock):
    engine = MemoryEngine(Settings(first_id=1), clock)
    plans = [(plan(f"s{n}", group="g"), None) for n in range(3 * CHECKED)]
    plans[2 * CHECKED + 7] = (plan("bad", cron="x", group="g"), None)
    with pytest.raises(InvalidField) as refused:
        await engine.put_schedules(plans, "g", False)
    assert refused.value.facts["index"] == 2 * CHECKED + 7
    assert engine.schedules(None, None, None, 9) == []


async def test_a_change_that_waits_is_not_made_to_a_schedule_of_another_queue(io_loop, clock):
    engine = MemoryEngine(Settings(first_id=1), clock)
    engine.put_schedule(plan(misfire="all"), None)
    clock.advance(30.5 * 60)
    change = engine.put_schedule(plan(every=HOUR), None)
    engine.delete_schedule("s")
    engine.put_schedule(plan(job=JobTemplate("t", "of others")), None)
    with pytest.raises(PreconditionFailed):
        await change
    assert engine.schedule("s").plan.job.queue == "of others"


async def test_a_change_whose_caller_hangs_up_before_it_is_made_is_not_made(io_loop, clock):
    engine = MemoryEngine(Settings(first_id=1), clock)
    engine.put_schedule(plan(misfire="all"), None)
    clock.advance(30.5 * 60)
    engine.put_schedule(plan(every=HOUR), None).cancel()
    await asyncio.sleep(0.01)
    assert engine.schedule("s").plan.every == MINUTE


# -- instants that were missed ----------------------------------------------------------------------------


def test_of_missed_instants_the_latest_is_run_once(engine, clock):
    engine.put_schedule(plan(every=10 * MINUTE), None)
    clock.advance(45 * 60)
    engine.tick()
    assert dues(engine) == ["08:40:00"]
    missed, run = engine.schedule("s").history
    assert (missed.outcome, instant(missed.since)[11:16], instant(missed.due_at)[11:16]) == (
        "missed", "08:10", "08:30",
    )  # fmt: skip
    assert missed.reason
    assert run.outcome == "enqueued"


def test_an_instant_older_than_its_grace_is_not_run(engine, clock):
    engine.put_schedule(plan(every=24 * HOUR), None)  # at midnight
    clock.advance(17 * HOUR // 1000 + 1)
    engine.tick()
    assert dues(engine) == []
    assert outcomes(engine) == ["missed"]
    assert "grace" in engine.schedule("s").history[0].reason
    engine.put_schedule(plan("g", every=24 * HOUR, grace=3 * HOUR), None)
    clock.advance(24 * HOUR // 1000)
    engine.tick()
    assert dues(engine) == ["00:00:00"]
    assert outcomes(engine, "g") == ["enqueued"]


def test_skipped_ones_are_not_run_but_a_moment_late_is_not_missed(engine, clock):
    engine.put_schedule(plan(misfire="skip"), None)
    clock.advance(64)
    engine.tick()
    assert dues(engine) == ["08:01:00"]
    clock.advance(116)
    clock.advance(30)
    engine.tick()
    assert dues(engine) == ["08:01:00"]
    assert outcomes(engine) == ["enqueued", "missed"]


def test_all_missed_ones_are_run_in_order_up_to_a_limit(engine, clock):
    engine.put_schedule(plan(misfire="all"), None)
    clock.advance(30 * 60)
    engine.tick()
    assert dues(engine) == [f"08:{minute:02d}:00" for minute in range(1, 31)]
    clock.advance(3 * 3600)
    engine.tick()
    assert len(jobs(engine)) == 30 + MOST_MISSED
    assert dues(engine)[-1] == "11:30:00"
    assert Counter(due_of(job) for job in jobs(engine)).most_common(1)[0][1] == 1
    assert len(engine.schedule("s").history) == KEPT


@pytest.mark.parametrize("between", ["change", "pause", None])
def test_each_gap_is_caught_up_with_by_itself(engine, clock, between):
    engine.put_schedule(plan(misfire="all"), None)
    clock.advance(30.5 * 60)
    engine.tick()
    assert len(jobs(engine)) == 30
    if between == "change":
        engine.put_schedule(plan(misfire="all", jitter=1), None)
    elif between == "pause":
        engine.pause_schedule("s", None)
        engine.resume_schedule("s")
    clock.advance(3 * 3600)
    engine.tick()
    assert len(jobs(engine)) == 30 + MOST_MISSED


def test_while_missed_instants_are_refused_no_more_of_them_come_to_be_run(engine, clock):
    engine.configure("q", {"max_jobs": 10})
    engine.put_schedule(plan(misfire="all"), None)
    clock.advance(30.5 * 60)
    engine.tick()
    assert len(jobs(engine)) == 10
    clock.advance(3 * 3600)
    engine.configure("q", {"max_jobs": None})
    engine.tick()
    assert len(jobs(engine)) == 10 + MOST_MISSED


@pytest.mark.parametrize(
    ("when", "misfire", "made", "most"),
    [
        ({"every": SECOND}, "once", 6, 10), ({"every": SECOND}, "skip", 6, 10),
        ({"every": SECOND}, "all", MOST_MISSED, 110), ({"cron": "* * * * *"}, "once", 1, 20),
        ({"cron": "* * * * *"}, "skip", 1, 20), ({"cron": "* * * * *"}, "all", MOST_MISSED, 220),
    ],
)  # fmt: skip
def test_after_a_year_the_next_instant_is_found_at_once(
    engine, clock, monkeypatch, when, misfire, made, most
):
    """Without looking at all that were missed: 31 million seconds, or half a million minutes."""
    engine.put_schedule(plan(misfire=misfire, **when), None)
    clock.advance("365d")
    looked_at, next_after = [], PlanCalendar.next_after
    monkeypatch.setattr(
        PlanCalendar,
        "next_after",
        lambda self, plan, after: looked_at.append(after) or next_after(self, plan, after),
    )
    engine.tick()
    assert len(jobs(engine)) == made
    assert due_of(jobs(engine)[-1]) == clock.wall()
    assert engine.schedule("s").next_at == clock.wall() + (when.get("every") or MINUTE)
    assert len(looked_at) <= most


# -- the clock on the wall ----------------------------------------------------------------------------------


@pytest.mark.parametrize("misfire", ["once", "skip", "all"])
def test_a_clock_set_back_runs_no_instant_twice(engine, clock, misfire):
    engine.put_schedule(plan(misfire=misfire), None)
    passes(engine, clock, 300, 1)
    assert len(jobs(engine)) == 5
    clock.wall_jump(-7200)
    passes(engine, clock, 7200 - 60, 10)
    assert len(jobs(engine)) == 5
    passes(engine, clock, 180, 1)
    counted = Counter(due_of(job) for job in jobs(engine))
    assert set(counted.values()) == {1}
    assert dues(engine) == [f"08:{minute:02d}:00" for minute in range(1, 8)]


def test_a_clock_set_forward_makes_instants_missed_ones(engine, clock):
    engine.put_schedule(plan("once", every=10 * MINUTE), None)
    engine.put_schedule(plan("skip", every=10 * MINUTE, misfire="skip"), None)
    engine.put_schedule(plan("all", every=10 * MINUTE, misfire="all"), None)
    clock.wall_jump(7205 + 60)
    engine.tick()
    counted = Counter(json.loads(job.extras.options.headers)["schedule"] for job in jobs(engine))
    assert counted == {"once": 1, "all": 12}


@pytest.mark.parametrize(
    ("zone", "before", "cron", "expected"),
    [
        ("Europe/Berlin", "2027-03-27T12:00:00Z", "30 2 * * *",
         ["2027-03-28T01:00", "2027-03-29T00:30"]),
        ("Europe/Berlin", "2026-10-24T12:00:00Z", "30 2 * * *",
         ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("America/New_York", "2027-03-13T12:00:00Z", "30 2 * * *",
         ["2027-03-14T07:00", "2027-03-15T06:30"]),
        ("America/New_York", "2026-10-31T12:00:00Z", "30 1 * * *",
         ["2026-11-01T05:30", "2026-11-02T06:30"]),
        ("Australia/Lord_Howe", "2026-10-03T05:00:00Z", "15 2 * * *",
         ["2026-10-03T15:30", "2026-10-04T15:15"]),
        ("Australia/Lord_Howe", "2027-04-03T05:00:00Z", "45 1 * * *",
         ["2027-04-03T14:45", "2027-04-04T15:15"]),
        ("Pacific/Apia", "2011-12-29T12:00:00Z", "30 2 * * *",
         ["2011-12-29T12:30", "2011-12-30T10:00", "2011-12-30T12:30"]),
    ],
)  # fmt: skip
def test_a_daily_job_runs_once_a_day_through_changes_of_the_clock(clock, zone, before, cron, expected):
    clock.wall_jump((parse_instant(before) - clock.wall()) / 1000)
    engine = MemoryEngine(Settings(first_id=1), clock)
    engine.put_schedule(plan(cron=cron, timezone=zone), None)
    passes(engine, clock, 48 * 3600 - 60, 60)
    assert [instant(due_of(job))[:16] for job in jobs(engine)][: len(expected)] == expected


# -- overlap -------------------------------------------------------------------------------------------------


def test_while_a_job_is_unfinished_instants_are_skipped(engine, clock):
    engine.put_schedule(plan(overlap="skip"), None)
    passes(engine, clock, 180, 1)
    assert dues(engine) == ["08:01:00"]
    assert outcomes(engine) == ["enqueued", "skipped_overlap", "skipped_overlap"]
    skipped = engine.schedule("s").history[-1]
    assert (skipped.job, skipped.reason) == (1, "an earlier job is not finished")
    conclude_next(engine)
    passes(engine, clock, 60, 1)
    assert dues(engine)[-1] == "08:04:00"


def test_at_most_one_job_waits_with_overlap_queue(engine, clock):
    engine.put_schedule(plan(overlap="queue"), None)
    passes(engine, clock, 60, 1)
    [(running, lease)] = engine.dequeue(DequeueRequest(("q",), 600_000))
    passes(engine, clock, 180, 1)
    assert dues(engine) == ["08:01:00", "08:02:00"]
    assert outcomes(engine) == ["enqueued", "enqueued", "skipped_overlap", "skipped_overlap"]
    engine.conclude(LeaseClaim(running.id, lease.token, None), None)


def test_a_unique_key_of_the_job_itself_counts_as_overlap(engine, clock):
    options = Options(unique_key="k", on_conflict="reject")
    engine.put_schedule(plan(job=JobTemplate("t", "q", options=options)), None)
    passes(engine, clock, 120, 1)
    assert outcomes(engine) == ["enqueued", "skipped_overlap"]
    assert engine.schedule("s").history[-1].job == 1


# -- a job that is refused -----------------------------------------------------------------------------------


def test_a_full_queue_is_tried_again_within_the_grace(engine, clock):
    engine.configure("q", {"max_jobs": 1})
    engine.put_schedule(plan(), None)
    passes(engine, clock, 60, 1)
    passes(engine, clock, 62, 1)
    assert dues(engine) == ["08:01:00"]
    assert "limit" in engine.schedule("s").blocked
    conclude_next(engine)
    passes(engine, clock, 2, 1)
    assert (dues(engine)[-1], engine.schedule("s").blocked) == ("08:02:00", None)


def test_a_queue_that_stays_full_makes_it_missed(engine, clock):
    engine.configure("q", {"max_jobs": 1})
    engine.put_schedule(plan(every=HOUR, grace=10 * MINUTE), None)
    passes(engine, clock, 3600, 10)
    passes(engine, clock, 3600 + 700, 10)
    assert outcomes(engine) == ["enqueued", "missed"]
    assert "limit" in engine.schedule("s").history[-1].reason


def test_an_instant_that_fails_shows_it_and_is_tried_again(engine, clock, monkeypatch):
    engine.put_schedule(plan(), None)
    engine.put_schedule(plan("other"), None)
    clock.advance(60)
    with monkeypatch.context() as patched:  # a fault of the program
        patched.setattr(PlanCalendar, "new_job", lambda self, plan, due, manual: 1 / 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                engine.tick()
            clock.advance(0.5)
    assert "log" in engine.schedule("s").blocked
    passes(engine, clock, 2, 1)
    assert dues(engine) == ["08:01:00"] * 2
    assert (outcomes(engine), engine.schedule("s").blocked) == (["enqueued"], None)


def test_an_instant_that_fails_after_its_job_was_made_is_not_run_again(clock, monkeypatch):
    failing = iter([True, True])
    monkeypatch.setattr(LocalEngine, "_count_payload", lambda self, job: 1 // (not next(failing, False)))
    engine = MemoryEngine(Settings(first_id=1), clock)
    engine.put_schedule(plan(), None)
    for _ in range(2):
        clock.advance(60)
        with pytest.raises(ZeroDivisionError):
            engine.tick()
    passes(engine, clock, 70, 1)
    assert dues(engine) == ["08:01:00", "08:02:00", "08:03:00"]


def test_a_server_that_stops_leaves_instants_to_the_next_one(engine, clock):
    engine.put_schedule(plan(misfire="skip"), None)
    clock.advance(60)
    engine.stop_waiting()
    passes(engine, clock, 30, 1)
    assert engine.schedule("s").history == ()


# -- pause, run now --------------------------------------------------------------------------------------------


def test_a_paused_schedule_makes_no_jobs_and_skips_what_came_due(engine, clock):
    engine.put_schedule(plan(), None)
    engine.pause_schedule("s", "deploy")
    assert engine.schedule("s").next_at is None
    passes(engine, clock, 190, 10)
    engine.resume_schedule("s")
    assert jobs(engine) == []
    [entry] = engine.schedule("s").history
    assert (entry.outcome, entry.reason) == ("skipped_paused", "deploy")
    assert (instant(entry.since)[11:16], instant(entry.due_at)[11:16]) == ("08:01", "08:03")
    passes(engine, clock, 60, 1)
    assert dues(engine) == ["08:04:00"]


def test_a_change_leaves_a_pause_alone_unless_it_says_otherwise(engine):
    engine.put_schedule(plan(), None)
    engine.pause_schedule("s", None)
    engine.put_schedule(plan(every=HOUR), None)
    assert engine.schedule("s").paused_at is not None
    engine.put_schedule(plan(every=HOUR), False)
    assert engine.schedule("s").paused_at is None
    engine.put_schedule(plan(every=HOUR), True)
    assert engine.schedule("s").paused_at is not None


def test_a_run_on_demand_is_beside_the_plan(engine, clock):
    engine.put_schedule(plan(), None)
    clock.advance(30)
    made = engine.run_schedule("s")
    assert made.id == 1
    passes(engine, clock, 30, 1)
    assert outcomes(engine) == ["manual", "enqueued"]
    assert dues(engine) == ["08:00:30", "08:01:00"]


def test_a_run_on_demand_overlaps_as_little(engine):
    engine.put_schedule(plan(overlap="skip"), None)
    engine.run_schedule("s")
    again = engine.run_schedule("s")
    assert isinstance(again, ExistingJob)
    assert outcomes(engine) == ["manual", "skipped_overlap"]


def test_a_run_on_demand_is_refused_as_an_enqueue_is(engine):
    engine.configure("q", {"max_jobs": 1})
    engine.put_schedule(plan(), None)
    engine.run_schedule("s")
    with pytest.raises(QueueFull):
        engine.run_schedule("s")


# -- versions, groups, limits --------------------------------------------------------------------------------


def test_a_version_is_checked(engine):
    with pytest.raises(PreconditionFailed):
        engine.put_schedule(plan(), None, 1)
    engine.put_schedule(plan(), None)
    for call in (
        lambda: engine.put_schedule(plan(every=HOUR), None, 2), lambda: engine.delete_schedule("s", 2),
        lambda: engine.pause_schedule("s", None, 2), lambda: engine.resume_schedule("s", 2),
    ):  # fmt: skip
        with pytest.raises(PreconditionFailed):
            call()
    engine.put_schedule(plan(every=HOUR), None, 1)
    assert engine.schedule("s").version == 2


def test_a_deleted_schedule_makes_no_more_jobs(engine, clock):
    engine.put_schedule(plan(), None)
    engine.delete_schedule("s")
    passes(engine, clock, 120, 10)
    assert jobs(engine) == []
    with pytest.raises(ScheduleNotFound):
        engine.schedule("s")


def test_a_group_is_replaced_as_a_whole_and_nothing_else(engine, clock):
    for name, group in (("a", "shop"), ("b", "shop"), ("c", None), ("d", "other")):
        engine.put_schedule(plan(name, group=group), None)
    wanted = [
        (plan("a", group="shop"), None), (plan("n", group="shop"), None),
    ]  # fmt: skip
    for dry_run in (True, False):
        changes = engine.put_schedules(wanted, "shop", dry_run)
        assert changes == (["n"], [], ["a"], ["b"])
        names = [schedule.plan.name for schedule in engine.schedules(None, None, None, 99)]
        assert names == (["a", "b", "c", "d"] if dry_run else ["a", "c", "d", "n"])
    assert engine.put_schedules(wanted, "shop", False) == ([], [], ["a", "n"], [])
    engine.put_schedules([], "shop", False)
    assert [schedule.plan.name for schedule in engine.schedules(None, None, None, 99)] == ["c", "d"]


def test_a_group_never_takes_a_schedule_of_another_one(engine):
    engine.put_schedule(plan("a"), None)
    engine.put_schedule(plan("b", group="other"), None)
    for name in ("a", "b"):
        with pytest.raises(OtherGroup) as refused:
            engine.put_schedules([(plan("n", group="g"), None), (plan(name, group="g"), None)], "g", False)
        assert refused.value.facts["index"] == 1
    assert len(engine.schedules(None, None, None, 99)) == 2


def test_a_bad_schedule_of_a_group_changes_nothing(engine):
    with pytest.raises(InvalidField):
        engine.put_schedules(
            [(plan("a", group="g"), None), (plan("b", cron="x", group="g"), None)], "g", False
        )
    with pytest.raises(InvalidField):
        engine.put_schedules([(plan("a", group="g"), None)] * 2, "g", False)
    assert engine.schedules(None, None, None, 99) == []


def test_there_is_a_limit_of_schedules(clock):
    engine = MemoryEngine(Settings(first_id=1, max_schedules=2), clock)
    engine.put_schedules([(plan("a", group="g"), None), (plan("b", group="g"), None)], "g", False)
    with pytest.raises(TooManySchedules):
        engine.put_schedule(plan("c"), None)
    engine.put_schedules([(plan("c", group="g"), None), (plan("b", group="g"), None)], "g", False)
    engine.put_schedule(plan("b", every=HOUR, group="g"), None)


# -- restarts ----------------------------------------------------------------------------------------------------


class Disk:
    """A store that keeps each commit, so that a crash may be anywhere between two of them."""

    location = "here"
    remedy = "none"
    check_interval = None

    def __init__(self, commits=()):
        self.commits = list(commits)

    def load(self, max_rows, max_bytes):
        rows = {}
        for commit in self.commits:
            for key, body in commit:
                if body is None:
                    rows.pop(key, None)
                else:
                    rows[key] = body
        yield sorted(rows.items())

    def commit(self, rows):
        self.commits.append(list(rows))

    def release_space(self):
        return False

    def size(self):
        return 0

    def close(self):
        pass


async def started(disk, clock, folder):
    folder.mkdir(exist_ok=True)
    config = Settings(first_id=1)
    engine = LocalEngine(config, clock, GroupCommit(disk, DataDir(str(folder)), config))
    await engine.load()
    return engine


async def committed(engine, done=None):
    """Waits until everything is on the disk."""
    if done is not None and asyncio.isfuture(done):
        await done
    held = engine.after_commit(None)
    if asyncio.isfuture(held):
        await held


@pytest.mark.parametrize("misfire", ["once", "skip", "all"])
async def test_a_crash_at_any_point_gives_each_instant_exactly_one_job(io_loop, tmp_path, clock, misfire):
    disk = Disk()
    engine = await started(disk, clock, tmp_path / "first")
    await committed(engine, engine.put_schedule(plan(misfire=misfire), None))
    put = len(disk.commits)
    walls = [clock.wall()] * put
    for _ in range(12):
        clock.advance(30)
        engine.tick()
        await committed(engine)
        walls += [clock.wall()] * (len(disk.commits) - len(walls))
    await committed(engine, engine.put_schedule(plan(misfire=misfire, every=2 * MINUTE), None))
    walls += [clock.wall()] * (len(disk.commits) - len(walls))
    clock.advance(120)
    engine.tick()
    await committed(engine)
    walls += [clock.wall()] * (len(disk.commits) - len(walls))
    engine.close()
    end = parse_instant("2027-01-15T08:08:00Z")
    assert clock.wall() == end
    for crash in range(1, len(walls) + 1):
        # At once, after a moment, after long: the clock of the next run is that of the crash or later.
        for pause in (0, 30_000, 10 * MINUTE):
            later = ManualClock()
            later.wall_jump((walls[crash - 1] + pause - later.wall()) / 1000)
            again = Disk(disk.commits[:crash])
            second = await started(again, later, tmp_path / "second")
            restarted = later.wall()
            for _ in range(4):
                later.advance(30)
                second.tick()
            made = [due_of(job) for job in jobs(second)]
            schedules = second.schedules(None, None, None, 9)
            second.close()
            if crash < put:  # before there was a schedule
                assert (schedules, made) == ([], [])
                continue
            [schedule] = schedules
            crashed, changed = walls[crash - 1], parse_instant("2027-01-15T08:06:00Z")
            instants = [at for at in range(parse_instant("2027-01-15T08:01:00Z"), later.wall() + 1, MINUTE)
                        if at <= changed or at % schedule.plan.every == 0]  # fmt: skip
            missed = [at for at in instants if crashed < at <= restarted]
            on_time = [at for at in missed if restarted - at <= LATE]
            run = {"once": on_time or missed[-1:], "skip": on_time, "all": missed}[misfire]
            expected = [at for at in instants if at not in missed or at in run]
            assert made == expected, (crash, pause)


async def test_all_of_a_schedule_is_kept_over_a_restart(io_loop, tmp_path, clock):
    disk, begin = Disk(), clock.wall()
    engine = await started(disk, clock, tmp_path / "first")
    full = Plan(
        "full", JobTemplate("t", "q", 5, b'{"a":1}', 60_000, Options(tags=("x",), headers=b'{"h":"1"}')),
        "g", "30 2 * * *", None, "Europe/Berlin", "all", HOUR, "queue", 30_000, 5, clock.wall() + 10**10,
    )  # fmt: skip
    await committed(engine, engine.put_schedule(full, True))
    await committed(engine, engine.put_schedule(plan("s"), None))
    await committed(engine, engine.put_schedule(plan("gone"), None))
    clock.advance(60)
    engine.tick()
    await committed(engine, engine.pause_schedule("full", "why"))
    await committed(engine, engine.delete_schedule("gone"))
    before = {each.plan.name: each for each in engine.schedules(None, None, None, 9)}
    engine.close()
    second = await started(disk, clock, tmp_path / "second")
    after = {each.plan.name: each for each in second.schedules(None, None, None, 9)}
    second.close()
    assert list(after) == ["full", "s"]
    for name, schedule in after.items():
        for field in Schedule.__struct_fields__:
            stored, shown = getattr(before[name], field), getattr(schedule, field)
            assert msgspec.json.encode(shown) == msgspec.json.encode(stored), field
    assert msgspec.json.encode(after["full"].plan) == msgspec.json.encode(full)
    assert (after["full"].paused_at, after["full"].pause_reason) == (begin, "why")
    assert (after["full"].version, after["s"].next_at) == (3, begin + 2 * MINUTE)
    assert [(entry.due_at, entry.outcome) for entry in after["s"].history] == [(begin + MINUTE, "enqueued")]


@pytest.mark.parametrize("lost", [{"timezone": "Mars/Phobos"}, {"cron": "61 * * * *"}])
async def test_a_plan_that_is_unknown_here_is_blocked_until_it_is_replaced(
    io_loop, tmp_path, clock, lost, monkeypatch
):
    disk = Disk()
    engine = await started(disk, clock, tmp_path / "first")
    known = {"cron": "* * * * *", "timezone": "UTC"}
    with monkeypatch.context() as patched:  # a server of another version, with other zones
        patched.setattr(PlanCalendar, "check", lambda self, plan, now: None)
        await committed(engine, engine.put_schedule(plan(**known | lost), None))
    await committed(engine, engine.pause_schedule("s", None))
    engine.close()
    second = await started(disk, clock, tmp_path / "second")
    clock.advance(120)
    second.resume_schedule("s")
    second.tick()
    assert second.schedule("s").blocked
    [cause] = second.explain_schedule("s").causes
    assert (cause.code, cause.why) == ("unusable", second.schedule("s").blocked)
    second.put_schedule(plan(**known), None)
    clock.advance(60)
    second.tick()
    assert (outcomes(second), second.schedule("s").blocked) == (["enqueued"], None)
    second.close()


def test_a_plan_without_instants_is_refused_before_anything_is_changed(engine):
    for wrong in (Plan("s", JobTemplate("t")), plan(every=0), plan(every=999)):
        with pytest.raises(InvalidField):
            engine.put_schedule(wrong, None)
    assert engine.schedules(None, None, None, 9) == []


async def test_an_instant_writes_neither_the_plan_again_nor_a_second_commit(io_loop, tmp_path, clock):
    disk = Disk()
    engine = await started(disk, clock, tmp_path / "first")
    await committed(
        engine, engine.put_schedule(plan(job=JobTemplate("t", "q", 0, b'"' + b"x" * 900 + b'"')), None)
    )
    before = len(disk.commits)
    clock.advance(60)
    engine.tick()
    await committed(engine)
    engine.close()
    [rows] = [rows for rows in disk.commits[before:] if rows]
    assert len(rows) == 3  # the job, the progress of the schedule, the counters
    assert any(key > 0 for key, _ in rows)
    assert sum(len(body) for key, body in rows if key < 0) < 300


async def test_a_name_that_is_deleted_and_taken_again_at_once_is_one_schedule(io_loop, tmp_path, clock):
    disk = Disk()
    engine = await started(disk, clock, tmp_path / "first")
    await committed(engine, engine.put_schedule(plan(), None))
    engine.delete_schedule("s")
    await committed(engine, engine.put_schedule(plan(every=HOUR), None))
    engine.close()
    second = await started(disk, clock, tmp_path / "second")
    assert [each.plan.every for each in second.schedules(None, None, None, 9)] == [HOUR]
    second.close()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["once", "skip", "all"]), st.sampled_from(["skip", "allow", "queue"]),
    st.lists(
        st.one_of(
            st.tuples(st.just("passes"), st.integers(1, 200)), st.tuples(st.just("step"), st.integers(-8000, 8000)),
            st.tuples(st.just("work"), st.just(0)), st.tuples(st.just("pause"), st.just(0)),
            st.tuples(st.just("resume"), st.just(0)), st.tuples(st.just("change"), st.integers(1, 5)),
        ), max_size=30,
    ),
)  # fmt: skip
def test_whatever_happens_no_instant_runs_twice_and_none_after_a_later_one(misfire, overlap, steps):
    clock = ManualClock()
    engine = MemoryEngine(Settings(first_id=1), clock)
    engine.put_schedule(plan(misfire=misfire, overlap=overlap), None)
    for what, number in steps:
        if what == "passes":
            clock.advance(number)
        elif what == "step":
            clock.wall_jump(number)
        elif what == "work" and engine.dequeue(DequeueRequest(("q",))):
            pass
        elif what == "pause":
            engine.pause_schedule("s", None)
        elif what == "resume":
            engine.resume_schedule("s")
        elif what == "change":
            engine.put_schedule(plan(misfire=misfire, overlap=overlap, every=number * MINUTE), None)
        engine.tick()
        schedule = engine.schedule("s")
        assert schedule.next_at is None or schedule.next_at > min(schedule.done_until, clock.wall())
    made = [due_of(job) for job in jobs(engine)]
    assert made == sorted(set(made))
    assert all(entry.reason or entry.outcome == "enqueued" for entry in engine.schedule("s").history)
