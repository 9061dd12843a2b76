"""Timestamps as devices write them, to microseconds since the Unix epoch.

Accepted: RFC 3339 / ISO 8601 text with a time of day, epoch numbers in s, ms, µs or ns (told apart by magnitude), the
same as text, and date-times in digits (``20261124120000``), which are no epoch whatever their magnitude.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import zoneinfo

from gateway import clock
from gateway.errors import MessageError
from gateway.outcomes import Reason

_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999, in µs: what PostgreSQL and its driver both can hold."""
_NUMBER = re.compile(r"[+-]?(?:\d+|\d*\.\d+)", re.ASCII)
_MONTH_TO_MINUTE = r"(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?:([01]\d|2[0-4])([0-5]\d)"
_DIGITS = re.compile(
    r"((?:19|20)\d\d)" + _MONTH_TO_MINUTE + r"(?:([0-5]\d|60)(\d{3})?)?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
"""YYYYMMDD, with hhmm, ss and milliseconds. No epoch of these lengths lies between 2001 and 2286."""
_SHORT_YEAR = re.compile(r"\d\d" + _MONTH_TO_MINUTE + r"[0-5]\d)", re.ASCII)
"""YYMMDDhhmmss: as an epoch it would be of the years 1973 to 2001."""
_DATE = re.compile(r"\d{4}(?:-?W\d\d(?:-?\d)?|-?\d\d-?\d\d)", re.ASCII)
_SIXTY = re.compile(r"(.*\d\d:?\d\d:?)60(.*)", re.ASCII)
_AS_MOST_HAVE_IT = slice(16, 19)
"""Where RFC 3339 has the seconds."""
_TWENTY_FOUR = re.compile(r"(.*[T _])24(:?00(?::?00(?:[.,]0+)?)?(?:[^\d:].*)?)", re.ASCII)
_LONGEST = 64
"""Characters of a timestamp in text; the patterns take the square of them."""
_MINUTE_US, _DAY_US = 60 * clock.MICROS, 86_400 * clock.MICROS


def parse(value: object, zone: zoneinfo.ZoneInfo | None = None) -> int:
    """Microseconds since the Unix epoch.

    Args:
        value: as decoded from JSON.
        zone: of times that name none; None: such times are refused.

    Raises:
        MessageError: ``bad_timestamp``.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return from_number(value, zone)
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise _bad(f"not a timestamp: {value[:60]!r}… of {len(value)} characters")
        return _from_text(value.strip(), zone)
    raise _bad(f"a timestamp is a number or text, not {type(value).__name__}")


def from_number(value: float, zone: zoneinfo.ZoneInfo | None = None) -> int:
    """An epoch number: below 1e11 seconds, below 1e14 ms, below 1e17 µs, ns beyond.

    Seconds reach the year 5138 that way, and no unit is taken for another between 1973 and then.
    """
    if (
        type(value) is int and 10**12 <= value < 10**13
    ):  # what nearly all devices send, and no date-time in digits
        return value * 1000
    size = abs(value)
    if size < 1e17 and (spelled := _date_time_in(value)) is not None:
        return _from_iso(spelled, zone)
    if size < 1e14:
        micros = round(value * 1_000_000 if size < 1e11 else value * 1000)
    elif not math.isfinite(size) or size >= _LATEST * 1000:
        raise _bad("the timestamp is beyond the year 9999")
    else:
        micros = round(value) if size < 1e17 else round(value) // 1000
    if micros < _EARLIEST:
        raise _bad("the timestamp is before the year 1")
    return micros


def _date_time_in(value: float) -> str | None:
    """ISO 8601 text, where the digits are those of a date and perhaps a time; None: they are of a number."""
    digits = str(int(value))
    found = _DIGITS.fullmatch(digits)
    if found is None:
        if _SHORT_YEAR.fullmatch(digits):
            raise _bad(f"{digits} is a date-time with a year of two digits: send four, or RFC 3339")
        return None
    if value != int(value):
        raise _bad(f"{digits} and a fraction is neither an epoch nor a date-time")
    return _spelled(found)


def _spelled(digits: re.Match[str]) -> str:
    """RFC 3339 of a date-time in digits, without what is not there."""
    year, month, day, hour, minute, second, millis, zone = digits.groups()
    time = "" if hour is None else f"T{hour}:{minute}:{second or '00'}.{millis or '000'}"
    return f"{year}-{month}-{day}{time}{zone or ''}"


def _from_text(text: str, zone: zoneinfo.ZoneInfo | None) -> int:
    if _NUMBER.fullmatch(text):
        return from_number(float(text) if "." in text else int(text[:40]), zone)
    upper = text.upper()  # RFC 3339 allows t and z
    digits = _DIGITS.fullmatch(upper)
    return _from_iso(upper if digits is None else _spelled(digits), zone)


def _from_iso(text: str, zone: zoneinfo.ZoneInfo | None) -> int:
    date = _DATE.match(text)
    # Python takes any letter between date and time, an offset's sign too, and a date alone for midnight.
    if date is None or text[date.end() : date.end() + 1] not in ("T", " ", "_"):
        raise _bad(_no_moment(text, is_date=date is not None and date.end() == len(text)))
    try:
        if text[_AS_MOST_HAVE_IT] == ":60":  # no Python reads it: an exception costs more than the look
            moment = _at_the_edge(text, zone)
        else:
            moment = _zoned(dt.datetime.fromisoformat(text), text, zone)
    except ValueError:
        moment = _at_the_edge(text, zone)
    micros = clock.from_datetime(moment)
    if not _EARLIEST <= micros <= _LATEST:
        raise _bad(f"{text[:60]!r} is not of the years 1 to 9999 in UTC")
    return micros


def _no_moment(text: str, *, is_date: bool) -> str:
    return f"{text[:60]!r} is a date without a time of day" if is_date else f"not a timestamp: {text[:60]!r}"


def _zoned(moment: dt.datetime, text: str, zone: zoneinfo.ZoneInfo | None) -> dt.datetime:
    if moment.tzinfo is not None:
        return moment
    if zone is None:
        raise _bad(f"{text[:60]!r} names no zone: set validation.naive_zone, or send one")
    return moment.replace(tzinfo=zone)


def _at_the_edge(text: str, zone: zoneinfo.ZoneInfo | None) -> dt.datetime:
    """What not every Python reads: second 60 (RFC 3339 §5.7), and hour 24 (ISO 8601), which is 0 of the next day.

    A leap second is the last of a day in UTC, and has no number of its own: like in PostgreSQL it is the next one's.
    """
    try:
        if found := _SIXTY.fullmatch(text):
            moment = _zoned(dt.datetime.fromisoformat(f"{found[1]}59{found[2]}"), text, zone)
            if clock.from_datetime(moment) % _DAY_US >= _DAY_US - _MINUTE_US:
                return moment + dt.timedelta(seconds=1)
        elif found := _TWENTY_FOUR.fullmatch(text):
            midnight = dt.datetime.fromisoformat(f"{found[1]}00{found[2]}") + dt.timedelta(days=1)
            return _zoned(midnight, text, zone)
    except (ValueError, OverflowError):
        pass
    raise _bad(f"not a timestamp: {text[:60]!r}")


def _bad(detail: str) -> MessageError:
    return MessageError(Reason.BAD_TIMESTAMP, detail)
