"""Timestamps as devices write them."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import clock
from gateway.decoders import timestamps
from gateway.errors import MessageError
from gateway.outcomes import Reason

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
NOON_US = clock.from_datetime(NOON)
FIRST, LAST = dt.datetime(2001, 9, 11), dt.datetime(2286, 1, 1)  # noqa: DTZ001 - hypothesis adds the zones
"""Before, milliseconds have twelve digits, and may be taken for a date-time."""
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "written",
    [
        1795176000,
        1795176000.0,
        1795176000000,
        1795176000000000,
        1795176000000000000,
        1795176000000000999,
        "1795176000",
        "1795176000.000",
        "1795176000000",
        " 1795176000000000000 ",
        "+1795176000",
        "2026-11-20T12:00:00Z",
        "2026-11-20t12:00:00z",
        "2026-11-20 12:00:00+00:00",
        "2026-11-20T12:00:00.000Z",
        "2026-11-20T12:00:00.000000999Z",
        "2026-11-20T13:00:00+01:00",
        "2026-11-20T02:30:00-09:30",
        "20261120T120000Z",
        "2026-11-20T12:00Z",
        "2026-11-20T12Z",
        "2026-11-20_12:00:00Z",
        "2026-11-20T12:00:00+0000",
        "2026-11-20T13:00:00+01",
        "2026-11-20T12:00:00-00:00",
        "2026-W47-5T12:00:00Z",
        "20261120120000Z",
        "20261120130000+0100",
        "20261120120000000+00:00",
        "202611201200z",
    ],
)
def test_one_moment_in_many_spellings(written: object) -> None:
    """Seconds, milli-, micro- and nanoseconds by magnitude, numbers as text, RFC 3339 with any offset."""
    assert timestamps.parse(written) == NOON_US


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        (0, 0),
        (1795176000.25, NOON_US + 250_000),
        (1795176000123, NOON_US + 123_000),
        (1795176000123456, NOON_US + 123_456),
        (1795176000123456789, NOON_US + 123_456),
        ("1795176000.25", NOON_US + 250_000),
        ("2026-11-20T12:00:00.123456Z", NOON_US + 123_456),
        ("2026-11-20T12:00:00,5Z", NOON_US + 500_000),
        (-1.5, -1_500_000),
        ("-1.5", -1_500_000),
        (99_999_999_999, 99_999_999_999_000_000),
        (100_000_000_000, 100_000_000_000_000),
        ("1970-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ],
)
def test_microseconds(written: object, micros: int) -> None:
    """Fractions to the microsecond, and where one unit ends and the next begins."""
    assert micros == timestamps.parse(written)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00.5Z"),
        ("2016-12-31t15:59:60-08:00", "2017-01-01T00:00:00Z"),
        ("20161231T235960Z", "2017-01-01T00:00:00Z"),
        ("20161231235960Z", "2017-01-01T00:00:00Z"),
        ("2026-11-20T24:00:00Z", "2026-11-21T00:00:00Z"),
        ("2026-12-31T24:00:00.000+01:00", "2026-12-31T23:00:00Z"),
        ("20261120T2400Z", "2026-11-21T00:00:00Z"),
    ],
)
def test_the_last_moment_of_a_day(written: str, moment: str) -> None:
    """A leap second (RFC 3339 §5.7) is the next one, as in PostgreSQL; hour 24 (ISO 8601) is 0 of the next day."""
    assert timestamps.parse(written) == timestamps.parse(moment)


def test_hour_24_is_of_the_next_day_also_when_the_clock_changes() -> None:
    """A day of 25 hours ends when the next one begins."""
    assert timestamps.parse("2026-10-25T24:00:00", BERLIN) == timestamps.parse("2026-10-25T23:00:00Z")


DIGITS = [
    (202611201300, NOON_US),
    ("202611201300", NOON_US),
    (20261120130000, NOON_US),
    (20261120130000.0, NOON_US),
    ("20261120130000", NOON_US),
    (20261120130000250, NOON_US + 250_000),
]


@pytest.mark.parametrize(("written", "micros"), DIGITS)
def test_a_date_time_in_digits_is_no_epoch(written: float | str, micros: int) -> None:
    """``202611201300`` was a moment of 1976, ``20261120130000`` one of 2612; it is of the declared zone, or refused."""
    assert timestamps.parse(written, BERLIN) == micros
    with pytest.raises(MessageError, match="names no zone"):
        timestamps.parse(written)


@pytest.mark.parametrize(
    "written",
    [
        20261120, "20261120", "2026-11-20", "2026-W47-5", "2026-11-20+01:00", "2026-11-20-12:00", 20260231120000,
        "261120120000", 261120120000, "20261120120000.5", "20261120.5", "2026-11-20x12:00:00Z", "٢٠٢٦١١٢٠",
        "2026-11-20T24:00:01Z", "2026-11-20T12:00:60Z", "9999-12-31T24:00:00Z",
    ],
)  # fmt: skip
def test_what_is_half_a_time_is_refused_in_any_zone(written: float | str) -> None:
    """A date alone, two digits of a year, a day that is none: never an epoch, never midnight."""
    for zone in (None, BERLIN):
        with pytest.raises(MessageError) as refused:
            timestamps.parse(written, zone)
        assert refused.value.reason is Reason.BAD_TIMESTAMP


def test_a_time_without_zone_is_of_the_declared_zone() -> None:
    """Summer and winter time of that zone count; a zone in the text goes before it."""
    assert timestamps.parse("2026-11-20T13:00:00", BERLIN) == NOON_US
    assert timestamps.parse("2026-07-01T14:00:00", BERLIN) == clock.from_datetime(
        dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)
    )
    assert timestamps.parse("2026-11-20T12:00:00Z", BERLIN) == NOON_US


@pytest.mark.parametrize(
    "written",
    [
        "", " ", "-", "+", ".", "1.", "--5", "+-5", "-+5.0", "1_000", "1e3", "0x10", "²", "5.5.5", "nan", "inf",
        "now", "12:00:00", "2026-13-01T00:00:00Z", "2026-11-20T25:00:00Z", "2026-11-20T12:00:60Z",
        "2026-11-20T12:00:00+25:00", "20.11.2026 12:00:00", "2026-11-20T12:00:00", "2026-11-20",
        True, False, None, [], {}, [1795176000],
        float("nan"), float("inf"), float("-inf"), 1e300, -1e300, 10**40, -(10**40), "9" * 400, "9" * 5000 + ".5",
        253_402_300_800 * 10**9, -62_135_596_801, -62_135_596_801_000, "-62135596801",
        "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
    ],
)  # fmt: skip
def test_what_is_no_timestamp_is_refused(written: object) -> None:
    """Never another exception, and no time that PostgreSQL or Python could not hold."""
    with pytest.raises(MessageError) as refused:
        timestamps.parse(written)
    assert refused.value.reason is Reason.BAD_TIMESTAMP


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.text("0123456789+-.:TZ e", max_size=30),
    st.datetimes().map(str), st.datetimes(timezones=st.timezones()).map(dt.datetime.isoformat),
)  # fmt: skip


@given(ANYTHING, st.sampled_from([None, BERLIN, zoneinfo.ZoneInfo("Pacific/Kiritimati")]))
@example("--5", None)
@example("0001-01-01T00:00:00", BERLIN)
@example("9999-12-31T23:59:59", zoneinfo.ZoneInfo("America/New_York"))
def test_anything_is_a_moment_or_refused(written: object, zone: zoneinfo.ZoneInfo | None) -> None:
    """Whatever a payload holds: a moment of the years 1 to 9999, or ``bad_timestamp``."""
    found = outcome(written, zone)
    if isinstance(found, int):
        assert clock.from_datetime(clock.to_datetime(found)) == found
    else:
        assert found is Reason.BAD_TIMESTAMP


def outcome(written: object, zone: zoneinfo.ZoneInfo | None) -> int | Reason:
    """The moment, or the reason of the refusal."""
    try:
        return timestamps.parse(written, zone)
    except MessageError as refused:
        return refused.reason


@given(st.datetimes(FIRST, LAST, timezones=st.timezones()))
def test_every_spelling_of_a_moment_is_that_moment(moment: dt.datetime) -> None:
    """Text, and the four units as numbers and as text, agree to the unit's precision."""
    micros = clock.from_datetime(moment)
    assert timestamps.parse(moment.isoformat()) == micros
    for unit in (10**6, 10**3, 1):
        number = micros // unit
        assert timestamps.parse(number) == number * unit
        assert timestamps.parse(str(number)) == number * unit
    assert timestamps.parse(micros * 1000 + 999) == micros
