"""Timestamps as devices write them, to microseconds since the Unix epoch.

Accepted: RFC 3339 / ISO 8601 text, epoch numbers in s, ms, µs or ns (told apart by magnitude), the same as text.
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
_NUMBER = re.compile(r"[+-]?(?:\d+|\d*\.\d+)")


def parse(value: object, zone: zoneinfo.ZoneInfo | None = None) -> int:
    """Microseconds since the Unix epoch.

    Args:
        value: as decoded from JSON.
        zone: of times that name none; None: such times are refused.

    Raises:
        MessageError: ``bad_timestamp``.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return from_number(value)
    if isinstance(value, str):
        return _from_text(value.strip(), zone)
    raise _bad(f"a timestamp is a number or text, not {type(value).__name__}")


def from_number(value: float) -> int:
    """An epoch number: below 1e11 seconds, below 1e14 ms, below 1e17 µs, ns beyond.

    Seconds reach the year 5138 that way, and no unit is taken for another between 1973 and then.
    """
    if type(value) is int and 10**11 <= value < 10**14:  # what nearly all devices send
        return value * 1000
    size = abs(value)
    if size < 1e14:
        micros = round(value * 1_000_000 if size < 1e11 else value * 1000)
    elif not math.isfinite(size) or size >= _LATEST * 1000:
        raise _bad("the timestamp is beyond the year 9999")
    else:
        micros = round(value) if size < 1e17 else round(value) // 1000
    if micros < _EARLIEST:
        raise _bad("the timestamp is before the year 1")
    return micros


def _from_text(text: str, zone: zoneinfo.ZoneInfo | None) -> int:
    if _NUMBER.fullmatch(text):
        return from_number(float(text) if "." in text else int(text[:40]))
    try:
        moment = dt.datetime.fromisoformat(text.upper())  # RFC 3339 allows t and z
    except ValueError:
        raise _bad(f"not a timestamp: {text[:60]!r}") from None
    if moment.tzinfo is None:
        if zone is None:
            raise _bad(f"{text[:60]!r} names no zone: set validation.naive_zone, or send one")
        moment = moment.replace(tzinfo=zone)
    micros = clock.from_datetime(moment)
    if not _EARLIEST <= micros <= _LATEST:
        raise _bad(f"{text[:60]!r} is not of the years 1 to 9999 in UTC")
    return micros


def _bad(detail: str) -> MessageError:
    return MessageError(Reason.BAD_TIMESTAMP, detail)
