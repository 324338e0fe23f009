"""Calendar: the instants of cron expressions in their time zones, and of fixed intervals.

cronsim knows cron expressions. It iterates over dates and times without a zone here, and this module maps
them to instants, since it is the mapping that goes wrong at changes of the clock:

- An expression with a fixed time, whose minute and hour do not begin with `*`, gives one instant for each of
  its times. A time that does not exist on the day comes at the end of the gap; one that comes twice counts
  the first time. (These are the rules of Debian's cron.)
- Any other expression gives every instant whose local time matches: none in a gap, all when an hour comes
  twice.

Instants are milliseconds in UTC, and each one is after the one before, whatever the clocks do.
"""

from collections.abc import Iterator
from copy import copy
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from hashlib import blake2b
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

import msgspec
from cronsim import CronSim, CronSimError
from msgspec.structs import replace

from jobqueue.errors import InvalidField
from jobqueue.model import NewJob, Options, Plan, Schedule
from jobqueue.units import instant as shown

# The shortest interval, in milliseconds.
LEAST: Final = 1_000
_SECOND: Final = timedelta(seconds=1)
_ALIASES: Final = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_EXPECTED: Final = (
    "five fields, minute hour day month weekday, such as `30 2 * * *`; six with a second in front; or "
    "@hourly, @daily, @weekly, @monthly, @yearly"
)
_END: Final = 253_370_764_800_000  # 9999-01-01, the last instant that can be shown
_NEVER: Final = "cron: there is no such date in the next 50 years"
_LONGEST_CRON: Final = 256
# How many instants are looked at one by one before the search goes back from the end.
_FEW: Final = 4
_LONGEST_ZONE: Final = 64
# How many expressions a calendar remembers an instant of; it takes about 300 bytes.
_MOST_KNOWN: Final = 10_000
_headers = msgspec.json.Decoder(dict[str, str]).decode


class PlanCalendar:
    """The `Calendar` of `core.schedules`."""

    def __init__(self) -> None:
        # Of cron expressions in their zones: an instant, and the next one after it. That is also the next one
        # after all instants between the two.
        self._known: dict[tuple[str, str], tuple[int, int]] = {}

    def check(self, plan: Plan, now: int) -> None:
        """Raises `InvalidField` for a plan that is no plan, or can never be due after `now`."""
        _check_kind(plan)
        if plan.cron is not None and self._next_of_cron(plan.cron, plan.timezone, now) is None:
            raise InvalidField(_NEVER, field="cron")
        if plan.starts_at is not None and plan.ends_at is not None and plan.ends_at < plan.starts_at:
            raise InvalidField("ends_at: is before starts_at", field="ends_at")

    def described(self, of: Schedule | Plan, after: int, count: int) -> tuple[str, list[int]]:
        """Returns in words when a schedule or plan is due, and its next instants after `after`. Raises
        `InvalidField` for a plan that never is."""
        if isinstance(of, Plan):
            self.check(of, after)
            return self.means(of), self.upcoming(of, after, count)
        if self.fault(of.plan) is not None:
            return "", []
        return self.means(of.plan), self.upcoming(of.plan, max(of.done_until, after), count)

    def fault(self, plan: Plan) -> str | None:
        try:
            _check_kind(plan)
        except InvalidField as bad:
            return bad.detail
        return None

    def next_after(self, plan: Plan, instant: int) -> int | None:
        if plan.starts_at is not None:
            instant = max(instant, plan.starts_at - 1)
        if plan.every is not None:
            base = plan.starts_at or 0
            found: int | None = base + ((instant - base) // plan.every + 1) * plan.every
        else:
            assert plan.cron is not None
            found = self._next_of_cron(plan.cron, plan.timezone, instant)
        if found is None or found >= _END or (plan.ends_at is not None and found > plan.ends_at):
            return None
        return found

    def _next_of_cron(self, cron: str, timezone: str, instant: int) -> int | None:
        after, found = self._known.get((cron, timezone), (0, 0))
        if after <= instant < found:
            return found
        following = _next_of_cron(cron, timezone, instant)
        if following is not None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[cron, timezone] = instant, following
        return following

    def last_until(self, plan: Plan, instant: int, after: int, count: int) -> list[int]:
        if plan.every is not None:
            return self._last_of_interval(plan, instant, after, count)
        # Forward, if there are few of them.
        found = self._between(plan, after, instant, _FEW + 1)
        if len(found) <= _FEW:
            return found[-count:]
        # Otherwise back by as many local times. They are as many instants, unless the clock was changed.
        begin = max(_local_times_back(plan, instant, count), after)
        found = self._between(plan, begin, instant, 2 * count + 1)
        if len(found) <= 2 * count and (len(found) >= count or begin == after):
            return found[-count:]
        # Then back by twice as much each time, until there are enough of them. If there are too many, which
        # takes long, then between the last two places.
        if not found:
            found = self._between(plan, after, instant, _FEW + 1)
        span = max((found[-1] - found[0]) // _FEW * count, 1_000)
        begin, few, many = max(instant - span, after), instant, -1
        while True:
            found = self._between(plan, begin, instant, 2 * count + 1)
            if len(found) > 2 * count:
                many = begin
            elif len(found) >= count or begin == after:
                return found[-count:]
            else:
                few = begin
            begin = max(2 * begin - instant, after) if many < 0 else (few + many) // 2

    def _between(self, plan: Plan, after: int, until: int, most: int) -> list[int]:
        """Returns the first instants after `after` that are not after `until`, at most `most`."""
        found: list[int] = []
        while len(found) < most:
            due = self.next_after(plan, found[-1] if found else after)
            if due is None or due > until:
                break
            found.append(due)
        return found

    def _last_of_interval(self, plan: Plan, instant: int, after: int, count: int) -> list[int]:
        every = plan.every
        assert every is not None
        base = plan.starts_at or 0
        last = instant if plan.ends_at is None else min(instant, plan.ends_at)
        last = base + (last - base) // every * every
        first = max(after, base - 1)
        found = [last - back * every for back in range(count - 1, -1, -1)]
        return [due for due in found if due > first]

    def new_job(self, plan: Plan, due: int, manual: bool) -> NewJob:
        """Returns the job. It says in headers of which schedule and instant it is. Its delay is by the name
        and the instant, so a restart does not change it."""
        job = plan.job
        options = Options() if job.options is None else replace(job.options)
        headers = {} if options.headers is None else _headers(options.headers)
        options.headers = msgspec.json.encode({**headers, "schedule": plan.name, "due-at": shown(due)})
        if plan.overlap != "allow":
            options.unique_key = f"schedule:{plan.name}"
            options.unique_while = "active" if plan.overlap == "skip" else "queued"
            options.on_conflict = "ignore"
        delay = 0 if manual or not plan.jitter else _chance(plan.name, due) % (plan.jitter + 1)
        return NewJob(
            job.type, job.queue, job.priority, job.payload, delay, None, job.expires_in, options
        )  # fmt: skip

    def means(self, plan: Plan) -> str:
        """Returns in words when a plan is due."""
        if plan.every is not None:
            return f"Every {_length(plan.every)}"
        assert plan.cron is not None
        return _means(plan.cron)

    def upcoming(self, plan: Plan, after: int, count: int) -> list[int]:
        """Returns the next instants after `after`, at most `count`."""
        return self._between(plan, after, _END, count)


def _check_kind(plan: Plan) -> None:
    """Raises `InvalidField` for a plan without instants: it must have `cron` or `every`, and a good one."""
    if (plan.cron is None) == (plan.every is None):
        raise InvalidField("cron: give cron or every, and not both", field="cron")
    if plan.cron is not None:
        check_cron(plan.cron)
        zone_of(plan.timezone)
    elif plan.every is not None and plan.every < LEAST:
        raise InvalidField(f"every: at least {LEAST // 1000} s", field="every", limit=LEAST)


@lru_cache(maxsize=_MOST_KNOWN)
def check_cron(cron: str) -> None:
    """Raises `InvalidField` for what is no cron expression, or is never due."""
    if len(cron) > _LONGEST_CRON:
        raise InvalidField(f"cron: at most {_LONGEST_CRON} characters", field="cron", limit=_LONGEST_CRON)
    if cron.startswith("@") and cron.lower() not in _ALIASES:
        raise InvalidField(f"cron: write {_EXPECTED}; not {cron[:40]!r}", field="cron")
    try:
        fields = _parsed(_expanded(cron))
    except (CronSimError, ValueError) as bad:
        wrong = str(bad)[:1].lower() + str(bad)[1:]
        raise InvalidField(f"cron: {wrong} in {cron[:40]!r}; write {_EXPECTED}", field="cron") from None
    if not _is_possible(fields):  # a search of 50 years would take 0.3 s
        raise InvalidField(_NEVER, field="cron")


def _is_possible(fields: CronSim) -> bool:
    """Tells whether there are days on which an expression is due."""
    if not fields.day_and:  # one of the two is enough
        return True
    for month in fields.months:
        for length in (28, 29) if month == 2 else (30,) if month in (4, 6, 9, 11) else (31,):
            for day in range(1, length + 1):
                for weekday in fields.weekdays:
                    if _may_be(fields, day, length, weekday):
                        return True
    return False


def _may_be(fields: CronSim, day: int, length: int, weekday: int | tuple[int, int]) -> bool:
    """Tells whether a day of a month of this length is one of an expression if it is this weekday."""
    number, which = weekday if isinstance(weekday, tuple) else (weekday, None)
    if which is not None and which != (day + 6) // 7 and not (which == CronSim.LAST and day + 7 > length):
        return False
    return (
        day in fields.days
        or (CronSim.LAST in fields.days and day == length)
        or (CronSim.LAST_WEEKDAY in fields.days and day >= length - 2 and number % 7 in range(1, 6))
    )


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """Returns a zone of the IANA database. Raises `InvalidField`, with the nearest name."""
    known = _zones()
    if name in known:
        return ZoneInfo(name)
    if len(name) > _LONGEST_ZONE:
        raise InvalidField(f"timezone: at most {_LONGEST_ZONE} characters", field="timezone")
    lower = {zone.lower(): zone for zone in known}
    cities = {zone.rpartition("/")[2]: zone for zone in lower}
    said = name.lower().replace(" ", "_")
    found = lower.get(said) or lower.get(cities.get(said, ""))
    if found is None:
        near = get_close_matches(said, [*lower, *cities], n=1)
        found = lower[cities.get(near[0], near[0])] if near else None
    hint = "" if found is None else f"; did you mean {found}?"
    facts = {} if found is None else {"nearest": found}
    raise InvalidField(
        f"timezone: a name of the IANA database, such as Europe/Berlin or UTC; not {name[:40]!r}{hint}",
        field="timezone",
        **facts,
    )


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _expanded(cron: str) -> str:
    return _ALIASES.get(cron.lower(), cron)


def _is_fixed(cron: str) -> bool:
    """Tells whether an expression is for fixed times of the day."""
    minute, hour = cron.split()[-5:-3]
    return not minute.startswith("*") and not hour.startswith("*")


@lru_cache(maxsize=4096)
def _means(cron: str) -> str:
    means: str = CronSim(_expanded(cron), datetime(2000, 1, 1)).explain()  # noqa: DTZ001  # without a zone
    return means


def _next_of_cron(cron: str, timezone: str, instant: int) -> int | None:
    """Returns the first instant after `instant`; None: there is none within 50 years, or the expression or
    the zone is unknown here."""
    expanded = _expanded(cron)
    after = instant // 1000
    try:
        zone = zone_of(timezone)
        start = datetime.fromtimestamp(after, zone)
        find = _next_fixed if _is_fixed(expanded) else _next_matching
        found = find(expanded, zone, start, after)
    except (OverflowError, ValueError, CronSimError, InvalidField):  # the first two: the end of all dates
        return None
    return None if found is None else found * 1000


def _local_times_back(plan: Plan, instant: int, count: int) -> int:
    """Returns a time just before the last `count` local times of a cron expression until `instant`; 0 if they
    are before all dates."""
    assert plan.cron is not None
    zone, end = zone_of(plan.timezone), instant // 1000
    times = copy(_parsed(_expanded(plan.cron)))
    times.tick_direction = -1
    times.dt = datetime.fromtimestamp(end + 1, zone).replace(tzinfo=None)
    try:
        for _ in range(count):
            next(times)
    except (OverflowError, ValueError):
        return 0
    instants = _instants(times.dt, zone) or [_first_instant(times.dt, zone)]
    return max([at for at in instants if at <= end], default=end) * 1000 - 1


def _next_fixed(cron: str, zone: ZoneInfo, start: datetime, after: int) -> int | None:
    """Returns the first time after `after` at which a time of the expression exists for the first time, or
    the gap ends in which it would be. Seconds since 1970."""
    for local in _times(cron, start):
        found = _first_instant(local, zone)
        if found > after:
            return found
    return None


def _next_matching(cron: str, zone: ZoneInfo, start: datetime, after: int) -> int | None:
    """Returns the first time after `after` at which the local time matches. Seconds since 1970."""
    found: int | None = None
    for local in _times(cron, start):
        instants = [at for at in _instants(local, zone) if at > after]
        if instants:
            found = instants[0]
            break
    again = _repeated_from(start, zone, after)
    if again is not None:  # local times before that of `start` come once more
        for local in _times(cron, again - _SECOND):
            second = [at for at in _instants(local, zone) if at > after]
            if second:
                return second[-1] if found is None else min(found, second[-1])
            break
    return found


def _times(cron: str, start: datetime) -> Iterator[datetime]:
    """Yields the local times of an expression after `start`, without a zone."""
    times = copy(_parsed(cron))  # parsing takes longer than the rest
    times.dt = start.replace(tzinfo=None, microsecond=0)
    return iter(times)


@lru_cache(maxsize=4096)
def _parsed(cron: str) -> CronSim:
    return CronSim(cron, datetime(2000, 1, 1))  # noqa: DTZ001  # a time without a zone


def _first_instant(local: datetime, zone: ZoneInfo) -> int:
    """Returns when a local time comes for the first time; of one that never comes, when the gap ends."""
    aware = local.replace(tzinfo=zone)
    found = int(aware.timestamp())
    if _exists(aware, found):
        return found
    # In a gap the offset of fold 0 is the one before it, and that of fold 1 the one after it.
    late, early = found, int(aware.replace(fold=1).timestamp())
    return _change_between(early, late, zone)


def _instants(local: datetime, zone: ZoneInfo) -> list[int]:
    """Returns when a local time comes: never, once or twice."""
    aware = local.replace(tzinfo=zone)
    first = int(aware.timestamp())
    if not _exists(aware, first):
        return []
    second = int(aware.replace(fold=1).timestamp())
    return [first] if second == first else [first, second]


def _exists(aware: datetime, instant: int) -> bool:
    back = datetime.fromtimestamp(instant, aware.tzinfo)
    return back.replace(tzinfo=None) == aware.replace(tzinfo=None)


def _repeated_from(start: datetime, zone: ZoneInfo, after: int) -> datetime | None:
    """Returns where local times begin to repeat themselves, if `start` is a time that comes twice and this
    is the first one; without a zone."""
    second = int(start.replace(fold=1).timestamp())
    if start.fold == 1 or second <= after:
        return None
    change = _change_between(after, second, zone)
    return datetime.fromtimestamp(change, zone).replace(tzinfo=None)


def _change_between(before: int, after: int, zone: ZoneInfo) -> int:
    """Returns the second at which the offset changes: it is another one at `after` than at `before`."""
    offset = datetime.fromtimestamp(before, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


def _chance(name: str, due: int) -> int:
    digest = blake2b(f"{name} {due}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _length(ms: int) -> str:
    """Returns a length of time in words."""
    for unit, name in ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second")):
        if ms % unit == 0:
            count = ms // unit
            return name if count == 1 else f"{count:,} {name}s"
    return f"{ms / 1000:g} seconds"
