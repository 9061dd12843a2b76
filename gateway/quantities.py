"""Durations, sizes and moments as people write them: ``"20s"``, ``"64MiB"``, ``"2000-01-01"``."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import re

_DURATIONS = {"us": 1, "ms": 1000, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86_400 * 10**6}
_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_LONGEST, _LARGEST = 365_000 * 86_400, 2**53
_QUANTITY = re.compile(r"\s*+(\d++(?:\.\d++)?)\s*+([a-zA-Z]*+)\s*+")


def parse_duration(value: object) -> object:
    """Text to seconds; what is no text is left to the caller's own check.

    Raises:
        ValueError: the text is no duration.
    """
    return _parse(value, _DURATIONS, "s", "20s") / 10**6 if isinstance(value, str) else value


def parse_size(value: object) -> object:
    """Text to whole bytes; what is no text is left to the caller's own check.

    Raises:
        ValueError: the text is no size.
    """
    return round(_parse(value, _SIZES, "B", "64MiB")) if isinstance(value, str) else value


def parse_moment(value: object) -> dt.datetime:
    """A date or a date-time, as text or as TOML has it; of UTC where it names no zone.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = dt.datetime.fromisoformat(value.strip().upper())
    if isinstance(value, dt.datetime):
        return _in_utc(value)
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    raise ValueError(f"{value!r} is no moment: write for example '2000-01-01T00:00:00Z'")


def _in_utc(moment: dt.datetime) -> dt.datetime:
    try:
        return moment.astimezone(dt.UTC) if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    except OverflowError as error:
        raise ValueError(f"{moment.isoformat()} is not of the years 1 to 9999 in UTC") from error


def check_duration(seconds: float) -> float:
    """The duration, where it is no longer than the calendars of Python and PostgreSQL reach back.

    Raises:
        ValueError: it is longer.
    """
    if seconds > _LONGEST:
        raise ValueError("at most 365000d, a thousand years")
    return seconds


def check_size(size: int) -> int:
    """The size or count, where C's integers and doubles hold it.

    Raises:
        ValueError: it is beyond.
    """
    if size > _LARGEST:
        raise ValueError(f"at most {_LARGEST}")
    return size


def format_moment(moment: dt.datetime) -> str:
    """ISO 8601 in UTC, with a Z."""
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def format_duration(seconds: float) -> str:
    """Exact text in the largest unit that needs no fraction: ``5ms``, ``10min``."""
    return _format(round(seconds * 10**6), _DURATIONS, "s")


def format_size(size: int) -> str:
    """Exact text in the largest unit that needs no fraction: ``64MiB``."""
    return _format(size, _SIZES, "B")


def _parse(text: str, units: dict[str, int], bare: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    factors = {unit.lower(): factor for unit, factor in units.items()} | {"": units[bare]}
    if match is None or match[2].lower() not in factors:
        known = ", ".join(units)
        raise ValueError(f"{text!r} is no quantity: write for example {example!r} (units: {known})")
    quantity = float(match[1]) * factors[match[2].lower()]
    if math.isinf(quantity):
        raise ValueError("too large a number")
    return quantity


def _format(value: int, units: dict[str, int], zero: str) -> str:
    exact = [f"{value // factor}{unit}" for unit, factor in units.items() if value and value % factor == 0]
    return exact[-1] if exact else f"0{zero}"
