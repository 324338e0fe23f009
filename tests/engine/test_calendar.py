"""The instants of cron expressions, against a calendar that looks at every minute."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.engine import calendar
from jobqueue.engine.calendar import LEAST, PlanCalendar, check_cron, zone_of
from jobqueue.errors import InvalidField
from jobqueue.model import JobTemplate, Plan

CALENDAR = PlanCalendar()
# Days on which the offset of a zone changes: there and back.
CHANGES = {
    "Europe/Berlin": ("2027-03-28", "2026-10-25"), "America/New_York": ("2027-03-14", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-04", "2027-04-04"), "Pacific/Apia": ("2011-12-30", "2011-04-02"),
    "America/Santiago": ("2026-09-06", "2027-04-04"), "Africa/Cairo": ("2026-04-24", "2026-10-30"),
    "Europe/Dublin": ("2026-03-29", "2026-10-25"), "Asia/Kolkata": ("2026-01-01", "2026-07-01"),
    "America/St_Johns": ("2026-03-08", "2026-11-01"), "Africa/Casablanca": ("2026-02-15", "2026-03-22"),
}  # fmt: skip


def changes_of(zone_name):
    """The days of 2026 to 2030 after which the offset of a zone is another one, and some of before."""
    zone, found = ZoneInfo(zone_name), list(CHANGES[zone_name])
    day = datetime(2026, 1, 1, tzinfo=UTC)
    while day.year < 2031:
        following = day + timedelta(days=1)
        if day.astimezone(zone).utcoffset() != following.astimezone(zone).utcoffset():
            found.append(f"{day:%Y-%m-%d}")
        day = following
    return found


ALL_CHANGES = [(zone, day) for zone in CHANGES for day in changes_of(zone)]
CRONS = [
    "30 2 * * *", "0 * * * *", "*/15 * * * *", "0 2 * * *", "15,45 1-3 * * *", "0 */3 * * *", "*/7 2 * * *",
    "30 */2 * * *", "0 0 * * *", "59 1 * * 0", "0 3 * * *", "10 2,3 * * *", "30 1 * * *", "* 2 * * *",
    "0 0 1-7 * */7", "45 23 * * *", "15 * 29,30 * *",
]  # fmt: skip


def plan(cron=None, zone="UTC", **more):
    return Plan("n", JobTemplate("t"), cron=cron, timezone=zone, **more)


def ms(text):
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def shown(instants):
    return [datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in instants]


def around(day):
    """The seconds from a day and a half before a change to a day and a half after it."""
    begin = int((datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=36)).timestamp())
    return begin, begin + 4 * 86_400


def by_brute_force(cron, zone_name, begin, end):
    """Looks at every minute: of a fixed time the first one counts, or the end of the gap that it is in; any
    other expression matches the clock on the wall."""
    zone, fields = ZoneInfo(zone_name), CronSim(cron, datetime(2000, 1, 1))  # noqa: DTZ001  # without a zone
    minute, hour = cron.split()[:2]
    fixed = "*" not in (minute[0], hour[0])

    def matches(local):
        return (
            local.minute in fields.minutes and local.hour in fields.hours
            and local.month in fields.months and fields.match_day(local.date())
        )  # fmt: skip

    found, before = set(), datetime.fromtimestamp(begin, zone).replace(tzinfo=None)
    for at in range(begin + 60, end + 60, 60):
        aware = datetime.fromtimestamp(at, zone)
        local = aware.replace(tzinfo=None)
        if matches(local) and not (fixed and aware.fold):
            found.add(at)
        skipped = before + timedelta(minutes=1)
        while fixed and skipped < local:
            if matches(skipped):
                found.add(at)
            skipped += timedelta(minutes=1)
        before = local
    return sorted(found)


def instants(cron, zone, begin, end):
    found, at = [], CALENDAR.next_after(plan(cron, zone), begin * 1000)
    while at is not None and at <= end * 1000:
        found.append(at // 1000)
        at = CALENDAR.next_after(plan(cron, zone), at)
    return found


@pytest.mark.parametrize("zone", CHANGES)
def test_instants_around_changes_of_the_clock_are_those_of_the_calendar(zone):
    for day in CHANGES[zone]:
        begin, end = around(day)
        for cron in CRONS:
            assert instants(cron, zone, begin, end) == by_brute_force(cron, zone, begin, end), (day, cron)


FIELD = st.sampled_from(["*", "*/2", "*/7", "0", "30", "1-3", "2", "2,3", "59", "5-50/15"])
HOUR = st.sampled_from(["*", "*/2", "*/5", "0", "1", "2", "3", "1-3", "2,14", "23"])
DAY = st.sampled_from(["*", "*/2", "1-7", "25-31", "L", "15"])
WEEKDAY = st.sampled_from(["*", "*/7", "0", "1-5", "SUN#1", "6L"])


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(ALL_CHANGES),
    st.builds("{} {} {} * {}".format, FIELD, HOUR, DAY, WEEKDAY),
    st.integers(0, 4 * 86_400_000),
)
def test_from_any_instant_the_next_one_is_that_of_the_calendar(change, cron, offset):
    zone, day = change
    begin, end = around(day)
    expected = by_brute_force(cron, zone, begin, end)
    start = begin * 1000 + offset
    following = [at * 1000 for at in expected if at * 1000 > start]
    found = CALENDAR.next_after(plan(cron, zone), start)
    if following:
        assert found == following[0]
    else:
        assert found is None or found > end * 1000
    last = [at * 1000 for at in expected if begin * 1000 < at * 1000 <= start]
    assert CALENDAR.last_until(plan(cron, zone), start, begin * 1000, 3) == last[-3:]


@pytest.mark.parametrize(
    ("zone", "day", "cron", "expected"),
    [
        ("Europe/Berlin", "2027-03-28", "30 2 * * *", ["2027-03-28T01:00:00Z"]),
        ("Europe/Berlin", "2026-10-25", "30 2 * * *", ["2026-10-25T00:30:00Z"]),
        ("Europe/Berlin", "2026-10-25", "0 2-3 * * *", ["2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"]),
        ("Australia/Lord_Howe", "2026-10-03", "15 2 * * *", ["2026-10-03T15:30:00Z"]),
        ("Australia/Lord_Howe", "2026-10-03", "0 */3 * * *",
         ["2026-10-03T01:30:00Z", "2026-10-03T04:30:00Z", "2026-10-03T07:30:00Z", "2026-10-03T10:30:00Z",
          "2026-10-03T13:30:00Z", "2026-10-03T16:00:00Z", "2026-10-03T19:00:00Z", "2026-10-03T22:00:00Z"]),
        ("Europe/Berlin", "2027-03-28", "0 30 2 * * *", ["2027-03-28T01:00:00Z"]),
    ],
)  # fmt: skip
def test_what_a_person_expects_at_a_change(zone, day, cron, expected):
    begin = ms(f"{day}T00:00:00+00:00") - 1
    assert shown(CALENDAR.upcoming(plan(cron, zone), begin, len(expected))) == expected


def test_intervals_are_multiples_of_their_length():
    hourly = plan(every=3_600_000)
    assert shown(CALENDAR.upcoming(hourly, ms("2027-01-15T08:10:00Z"), 2)) == [
        "2027-01-15T09:00:00Z", "2027-01-15T10:00:00Z",
    ]  # fmt: skip
    base = ms("2027-01-15T08:10:00Z")
    later = plan(every=3_600_000, starts_at=base, ends_at=base + 2 * 3_600_000)
    assert CALENDAR.upcoming(later, 0, 9) == [base, base + 3_600_000, base + 7_200_000]
    assert CALENDAR.upcoming(later, 0, 0) == CALENDAR.upcoming(hourly, 0, 0) == []
    assert CALENDAR.last_until(later, base + 100 * 3_600_000, base, 5) == [base + 3_600_000, base + 7_200_000]
    assert CALENDAR.last_until(later, base - 1, 0, 5) == []


class CountingCalendar(PlanCalendar):
    calls = 0

    def next_after(self, plan, instant):
        self.calls += 1
        return super().next_after(plan, instant)


@pytest.mark.parametrize(("count", "most"), [(1, 10), (3, 12), (100, 110)])
@pytest.mark.parametrize("cron", ["* * 9-17 * * *", "* 0-30 9 * * *", "* * * 14 * *"])
def test_the_last_of_many_after_a_long_gap_are_found_without_looking_at_all(count, most, cron):
    calendar = CountingCalendar()
    after, instant = ms("2027-01-14T09:00:00Z"), ms("2027-01-15T08:59:59Z")
    found = calendar.last_until(plan(cron), instant, after, count)
    assert calendar.calls < most
    assert len(found) == count
    assert CALENDAR.upcoming(plan(cron), found[0] - 1, count) == found
    assert CALENDAR.next_after(plan(cron), found[-1]) > instant


def test_a_cron_schedule_begins_and_ends():
    begins, ends = ms("2027-01-15T02:30:00Z"), ms("2027-01-16T02:30:00Z")
    bounded = plan("30 2 * * *", starts_at=begins, ends_at=ends)
    assert CALENDAR.upcoming(bounded, 0, 9) == [begins, ends]
    assert CALENDAR.next_after(bounded, ends) is None


@pytest.mark.parametrize(
    "alias", ["@hourly", "@Daily", "@weekly", "@monthly", "@yearly", "@annually", "@midnight"]
)
def test_the_common_ones_have_names(alias):
    check_cron(alias)
    assert CALENDAR.next_after(plan(alias), ms("2027-01-15T08:00:00Z")) is not None
    assert CALENDAR.means(plan(alias))


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "61 * * * *", "0 0 31 2 *", "@reboot", "x", "0 0 0 0 0 0 0", "*/0 * * * *", "* " * 200],
)
def test_what_is_no_expression_is_refused(cron):
    with pytest.raises(InvalidField) as refused:
        CALENDAR.check(plan(cron), 0)
    assert refused.value.facts["field"] == "cron"


def test_what_is_wrong_in_an_expression_is_named_first():
    with pytest.raises(InvalidField, match=r"cron: bad day-of-month in '0 0 31 2 \*'; write five fields"):
        CALENDAR.check(plan("0 0 31 2 *"), 0)


@pytest.mark.parametrize(
    "wrong", [{}, {"every": 0}, {"every": -1}, {"every": 999}, {"cron": "0 0 * * *", "every": 60_000}]
)
def test_a_plan_has_either_an_expression_or_an_interval_of_a_second(wrong):
    with pytest.raises(InvalidField) as refused:
        CALENDAR.check(plan(**wrong), 0)
    assert CALENDAR.fault(plan(**wrong)) == refused.value.detail
    CALENDAR.check(plan(every=LEAST), 0)


@pytest.mark.parametrize(
    "unknown", [{"cron": "0 0 * * *", "zone": "Mars/Phobos"}, {"cron": "61 * * * *"}, {"cron": "x"}]
)
def test_a_plan_that_is_unknown_here_has_no_instants(unknown):
    assert CALENDAR.next_after(plan(**unknown), 0) is None
    assert CALENDAR.last_until(plan(**unknown), ms("2027-01-15T08:00:00Z"), 0, 3) == []


@pytest.mark.parametrize(
    "cron", ["0 0 */31 * MON#5", "* * */31 2 MON#5", "0 0 LW * */7", "0 0 */31 * 5L", "59 59 23 */31 * MON#5"]
)
def test_what_is_never_due_is_refused_without_a_search(cron, monkeypatch):
    monkeypatch.setattr(calendar, "_next_of_cron", None)
    with pytest.raises(InvalidField, match="no such date"):
        CALENDAR.check(plan(cron), ms("2027-01-15T08:00:00Z"))


@pytest.mark.parametrize(
    "cron",
    [
        "0 0 29 2 */7",
        "0 0 */28 * MON#1",
        "0 0 LW * *",
        "0 0 L * */5",
        "0 0 * 2 MON#5",
        "0 0 30 2 1",
        "0 0 * * 5L",
    ],
)
def test_what_is_rarely_due_is_found(cron):
    CALENDAR.check(plan(cron), ms("2027-01-15T08:00:00Z"))


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        "0 0 {} {} {}".format,
        st.sampled_from(["*", "*/31", "*/30", "*/29", "*/15", "L", "LW", "29", "30", "31", "1-7"]),
        st.sampled_from(["*", "2", "4", "2,4", "6-7"]),
        st.sampled_from(["*", "*/7", "*/6", "MON#5", "SUN#1", "5L", "1", "*/3"]),
    )
)
def test_the_check_without_a_search_agrees_with_one_of_fifty_years(cron):
    try:
        found = next(CronSim(cron, datetime(2027, 1, 15)), None)  # noqa: DTZ001  # without a zone
    except CronSimError:
        return
    try:
        check_cron(cron)
    except InvalidField:
        assert found is None
    else:
        assert found is not None


@pytest.mark.parametrize(
    ("said", "nearest"),
    [("europe/berlin", "Europe/Berlin"), ("Berlin", "Europe/Berlin"), ("Europe/Berlyn", "Europe/Berlin"),
     ("new york", "America/New_York"), ("../etc/passwd", None), ("/etc/localtime", None)],
)  # fmt: skip
def test_an_unknown_zone_is_refused_with_the_nearest_one(said, nearest):
    with pytest.raises(InvalidField) as refused:
        zone_of(said)
    if nearest is not None:
        assert refused.value.facts["nearest"] == nearest


def test_a_delay_by_jitter_is_in_its_bounds_and_the_same_again():
    jittered = plan(every=1000, jitter=30_000)
    delays = [CALENDAR.new_job(jittered, due * 1000, False).delay for due in range(500)]
    assert delays == [CALENDAR.new_job(jittered, due * 1000, False).delay for due in range(500)]
    assert all(0 <= delay <= 30_000 for delay in delays)
    assert min(delays) < 3_000
    assert max(delays) > 27_000
    assert CALENDAR.new_job(jittered, 0, True).delay == 0
