"""Durations, sizes and instants: converts what people write to integers, and back.

Inside the program a time is an integer number of milliseconds and a size an integer number of bytes, so that
sums and comparisons are exact.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import ceil

from jobqueue.errors import InvalidField

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PAIRS = re.compile(r"(?:[0-9]{1,15}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+", re.ASCII)
_PAIR = re.compile(r"([0-9.]+)(ms|s|m|h|d)", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?", re.ASCII)
_INSTANT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?)",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 1, 1, tzinfo=UTC)
_SIZE = re.compile(r"([0-9]{1,18})(?: ?(B|KiB|MiB|GiB))?", re.ASCII)
_UNITS_BYTES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LONGEST_S = 1e15
# For the OpenAPI document: texts that are durations, and texts that look like instants.
DURATION_PATTERN = f"^(?:{_SECONDS.pattern}|{_PAIRS.pattern})$"
INSTANT_PATTERN = f"^{_INSTANT.pattern}$"
DURATION_HELP = 'a number of seconds, or text such as "500ms", "90s", "5m", "2h", "1h30m"'


def duration_ms(value: object) -> int:
    """Returns a duration in milliseconds, rounded up to a whole one.

    `value` is a number of seconds (`90`, `0.5`) or text ("90s", "1h30m"; digits alone are seconds). Raises
    `InvalidField` for anything else.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < 0:
            raise InvalidField("a duration cannot be negative")
        if value < _LONGEST_S:
            return ceil(value * 1000 - 1e-6)
        raise InvalidField(f"not a duration: too large, or not a number; write {DURATION_HELP}")
    if isinstance(value, str):
        if _SECONDS.fullmatch(value):
            return ceil(float(value) * 1000 - 1e-6)
        if _PAIRS.fullmatch(value):
            return ceil(sum(float(n) * _UNITS_MS[unit] for n, unit in _PAIR.findall(value)) - 1e-6)
    raise InvalidField(f"not a duration: {str(value)[:40]!r}; write {DURATION_HELP}")


def size_bytes(value: object) -> int:
    """Returns a size in bytes. `value` is a whole number or text such as "64KiB", "1MiB" or "2GiB".

    Raises `InvalidField` for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidField(f'not a size: {str(value)[:40]!r}; write bytes, or "64KiB", "1MiB", "2GiB"')
    return int(found[1]) * _UNITS_BYTES[found[2]]


def parse_instant(value: object) -> int:
    """Returns the milliseconds since 1970 of an RFC 3339 instant with an offset, such as
    "2026-11-24T03:14:15Z".

    Accepts what `date` and the libraries of other languages write as well: any number of digits of a second,
    of which all after the milliseconds are cut off; a comma before them; no seconds at all; and the offsets
    `+0100` and `+01`. A leap second (23:59:60 in UTC) is the first second of the next day, as in POSIX.

    Raises `InvalidField` for anything else, and for years that `instant` cannot write.
    """
    found = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    moment = _moment(found) if found is not None else None
    if moment is None:
        raise InvalidField(
            f'not an instant: {str(value)[:40]!r}; write it with an offset, such as "2026-11-24T03:14:15Z"'
        )
    if _EPOCH <= moment < _END:
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    raise InvalidField(f"not an instant of the years 1970 to 9998: {str(value)[:40]!r}")


def _moment(found: re.Match[str]) -> datetime | None:
    """Returns what the groups of `_INSTANT` say, in UTC; None if there is no such day or time."""
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    leap = second == "60"
    micros = int((fraction or "")[:6].ljust(6, "0"))
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour), int(minute), 59 if leap else int(second or 0),
            micros, UTC,
        )  # fmt: skip
        moment += offset if sign == "-" else -offset
        if leap and (moment.hour, moment.minute) != (23, 59):
            return None
        return moment + timedelta(seconds=leap)
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=1024)
def seconds(ms: int) -> int | float:
    """Returns a duration in seconds for an answer: an integer if it is whole, else a float."""
    whole, rest = divmod(ms, 1000)
    return whole if rest == 0 else ms / 1000


@lru_cache(maxsize=256)
def _to_the_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=4096)
def instant(wall_ms: int) -> str:
    """Returns an instant as RFC 3339 in UTC with milliseconds: `2026-11-24T03:14:15.123Z`."""
    second, rest = divmod(wall_ms, 1000)
    return f"{_to_the_second(second)}.{rest:03d}Z"
