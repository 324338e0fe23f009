"""Durations, sizes and instants, as people write them."""

from datetime import UTC, datetime
from fractions import Fraction
from math import ceil, inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.errors import InvalidField
from jobqueue.units import duration_ms, instant, parse_instant, seconds, size_bytes

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
UNITS_BYTES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

quietly = settings(deadline=None, derandomize=True)


# -- durations --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("500ms", 500),
        ("90s", 90_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("7d", 604_800_000),
        ("1h30m", 5_400_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("30m1h", 5_400_000),
        ("1m1m", 120_000),
        ("1.5s", 1_500),
        ("0.25h", 900_000),
        ("0s", 0),
        ("007s", 7_000),
        ("30", 30_000),
        ("0", 0),
        ("1.5", 1_500),
        (30, 30_000),
        (0, 0),
        (0.0, 0),
        (-0.0, 0),
        (0.5, 500),
        (90, 90_000),
        (0.1, 100),
        (0.29, 290),
        (1.001, 1_001),
        (31_536_000, 31_536_000_000),
    ],
)
def test_a_duration_is_read(written, ms):
    assert duration_ms(written) == ms
    assert type(duration_ms(written)) is int


@pytest.mark.parametrize(
    ("written", "ms"), [(0.0001, 1), (0.0015, 2), ("0.1ms", 1), ("1.2ms", 2), (59.9991, 60_000)]
)
def test_a_part_of_a_millisecond_counts_as_a_whole_one(written, ms):
    assert duration_ms(written) == ms


@pytest.mark.parametrize("value", [-1, -0.001, -inf, pytest.param(-(10**400), id="-10**400")])
def test_a_duration_cannot_be_negative(value):
    with pytest.raises(InvalidField, match="negative"):
        duration_ms(value)


@pytest.mark.parametrize(
    "value",
    [
        nan,
        inf,
        1e15,
        10**18,
        1e300,
        pytest.param(10**400, id="10**400"),
        pytest.param(10**5000, id="10**5000"),
    ],
)
def test_a_number_too_large_for_a_duration_is_refused(value):
    with pytest.raises(InvalidField, match="not a duration"):
        duration_ms(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "5 m",
        " 5m",
        "5m ",
        "5m\n",
        "30\n",
        "-5",
        "-5s",
        "+5s",
        "1h-30m",
        "5M",
        "5min",
        "5sec",
        "m",
        "ms",
        ".5s",
        "5.s",
        "1.2.3s",
        "1,5s",
        "1e3",
        "1e3s",
        "0x10",
        "inf",
        "nan",
        "Infinity",
        "1_000",
        "1h30",
        "٣٠",
        "٣s",
        "²",
        "9" * 16,
        "9" * 16 + "s",
        "PT5M",
        "null",
        True,
        False,
        None,
        b"5s",
        [5],
        {"s": 5},
        5j,
    ],
)
def test_anything_else_is_no_duration(value):
    with pytest.raises(InvalidField, match="duration"):
        duration_ms(value)


def test_a_refused_duration_is_shown_shortened_and_with_what_to_write():
    with pytest.raises(InvalidField) as refused:
        duration_ms("soon" * 1_000)
    assert "soonsoon" in refused.value.detail
    assert '"1h30m"' in refused.value.detail
    assert len(refused.value.detail) < 200


@quietly
@given(st.integers(0, 10**9))
def test_milliseconds_are_the_same_however_they_are_written(ms):
    whole, rest = divmod(ms, 1_000)
    assert duration_ms(f"{ms}ms") == ms
    assert duration_ms(f"{whole}s{rest}ms") == ms
    assert duration_ms(f"{whole}.{rest:03d}") == ms
    assert duration_ms(ms / 1_000) == ms
    assert duration_ms(seconds(ms)) == ms


@quietly
@given(st.lists(st.tuples(st.integers(0, 9_999), st.sampled_from(list(UNITS_MS))), min_size=1, max_size=6))
def test_pairs_of_number_and_unit_add_up(pairs):
    written = "".join(f"{number}{unit}" for number, unit in pairs)
    assert duration_ms(written) == sum(number * UNITS_MS[unit] for number, unit in pairs)


@quietly
@given(st.floats(0, 1e9))
def test_a_number_of_seconds_is_never_shortened_by_more_than_rounding(value):
    assert 0 <= duration_ms(value) - Fraction(value) * 1_000 + Fraction(1, 100_000) <= 1
    assert duration_ms(value) in (ceil(value * 1_000), ceil(value * 1_000) - 1)


@quietly
@given(st.one_of(st.text(max_size=12), st.text("0123456789.smhd -", max_size=8), st.floats(), st.integers()))
def test_whatever_is_given_is_a_duration_or_a_refusal(value):
    try:
        ms = duration_ms(value)
    except InvalidField:
        return
    assert type(ms) is int
    assert ms >= 0


@quietly
@given(st.integers(0, 10**12))
def test_seconds_are_whole_where_they_can_be(ms):
    shown = seconds(ms)
    assert type(shown) is (int if ms % 1_000 == 0 else float)
    assert round(shown * 1_000) == ms


# -- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (65_536, 65_536),
        ("0", 0),
        ("100", 100),
        ("100B", 100),
        ("64KiB", 65_536),
        ("64 KiB", 65_536),
        ("1MiB", 1_048_576),
        ("2GiB", 2_147_483_648),
    ],
)
def test_a_size_is_read(written, size):
    assert size_bytes(written) == size


@pytest.mark.parametrize(
    "value",
    [
        -1,
        1.5,
        1.0,
        nan,
        inf,
        True,
        False,
        None,
        b"1",
        [1],
        "",
        "-1",
        "1.5MiB",
        "1kb",
        "1KB",
        "1kib",
        "1M",
        "1TiB",
        "KiB",
        " 1",
        pytest.param("1 "),
        "1  B",
        pytest.param("1\n"),
        "1e3",
        "٣",
        "9" * 19,
    ],
)
def test_anything_else_is_no_size(value):
    with pytest.raises(InvalidField, match="not a size"):
        size_bytes(value)


@quietly
@given(st.integers(0, 10**9), st.sampled_from(list(UNITS_BYTES)), st.sampled_from(["", " "]))
def test_a_size_is_its_number_times_its_unit(number, unit, space):
    assert size_bytes(f"{number}{space if unit else ''}{unit}") == number * UNITS_BYTES[unit]


# -- instants ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wall_ms", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_795_490_055_123, "2026-11-24T03:14:15.123Z"),
        (1_795_490_055_001, "2026-11-24T03:14:15.001Z"),
        (951_782_400_999, "2000-02-29T00:00:00.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_an_instant_is_shown_in_utc_with_milliseconds(wall_ms, shown):
    assert instant(wall_ms) == shown


@quietly
@given(st.integers(0, 253_402_300_799_999))
def test_an_instant_can_be_read_back(wall_ms):
    back = datetime.fromisoformat(instant(wall_ms)) - datetime(1970, 1, 1, tzinfo=UTC)
    assert back.days * 86_400_000 + back.seconds * 1_000 + back.microseconds // 1_000 == wall_ms


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2026-11-24T03:14:15Z", "2026-11-24T03:14:15.000Z"),
        ("2026-11-24t03:14:15.5z", "2026-11-24T03:14:15.500Z"),
        ("2026-11-24T03:14:15.123999Z", "2026-11-24T03:14:15.123Z"),  # cut, not rounded
        ("2026-11-24T03:14:15.1234567Z", "2026-11-24T03:14:15.123Z"),  # .NET
        ("2026-11-24T03:14:15.123456789Z", "2026-11-24T03:14:15.123Z"),  # Go, Java, Rust
        ("2026-11-24T03:14:15.999999999999Z", "2026-11-24T03:14:15.999Z"),
        ("2026-11-24T03:14:15." + "9" * 5_000 + "Z", "2026-11-24T03:14:15.999Z"),
        ("2026-11-24T03:14:15,123456789+00:00", "2026-11-24T03:14:15.123Z"),  # `date -Ins`
        ("2026-11-24T03:14Z", "2026-11-24T03:14:00.000Z"),  # Java's OffsetDateTime at a full minute
        ("2026-11-24T03:14:15+01:30", "2026-11-24T01:44:15.000Z"),
        ("2026-11-24T03:14:15-0130", "2026-11-24T04:44:15.000Z"),
        ("2026-11-24T03:14:15.5+01", "2026-11-24T02:14:15.500Z"),  # PostgreSQL
        ("2026-11-24T03:14:15-00:00", "2026-11-24T03:14:15.000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ("2017-01-01T00:59:60.25+01:00", "2017-01-01T00:00:00.250Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ("9998-12-31T23:59:59.999999999Z", "9998-12-31T23:59:59.999Z"),
    ],
)
def test_an_instant_is_read_as_other_languages_write_it(written, shown):
    assert instant(parse_instant(written)) == shown


@pytest.mark.parametrize(
    "value",
    [
        "", "now", "2026-11-24", "2026-11-24T03:14:15", "2026-11-24 03:14:15Z", "2026-11-24T03Z",
        "2026-11-24T03:14:15.Z", "2026-11-24T03:14.5Z", "2026-11-24T03:14:15+1", "2026-11-24T03:14:15+24:00",
        "2026-11-24T03:14:15+01:60", "2026-11-24T03:14:15 Z", "2026-11-24T03:14:15Z\n", "2026-02-29T00:00:00Z",
        "2026-11-24T24:00:00Z", "2026-11-24T03:14:61Z", "2016-12-31T23:58:60Z", "2016-12-31T23:59:60+01:00",
        "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "\u0662026-11-24T03:14:15Z",
        "2026-11-24T03:14:15.\uff11Z", 1_800_000_000, None, True, b"2026-11-24T03:14:15Z",
    ],
)  # fmt: skip
def test_anything_else_is_no_instant(value):
    with pytest.raises(InvalidField, match=r"not an instant: .* with an offset"):
        parse_instant(value)


@pytest.mark.parametrize("value", ["1969-12-31T23:59:59.999Z", "9999-01-01T00:00Z", "9998-12-31T23:59:60Z"])
def test_an_instant_is_of_the_years_that_can_be_written(value):
    with pytest.raises(InvalidField, match="1970 to 9998"):
        parse_instant(value)


@quietly
@given(st.integers(0, 253_370_764_799_999), st.text("0123456789", max_size=20))
def test_digits_after_the_milliseconds_are_cut(wall_ms, digits):
    assert parse_instant(instant(wall_ms).replace("Z", digits + "Z")) == wall_ms
