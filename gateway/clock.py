"""Time: wall clock in microseconds since the Unix epoch, as everywhere in the gateway."""

from __future__ import annotations

import datetime as dt
import time

MICROS = 1_000_000
POSTGRES_EPOCH_US = 946_684_800 * MICROS
"""2000-01-01 UTC, where PostgreSQL's binary timestamps start."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def now_us() -> int:
    """Microseconds since the Unix epoch, now."""
    return time.time_ns() // 1000


def to_datetime(micros: int) -> dt.datetime:
    """An aware datetime of microseconds since the Unix epoch."""
    return _EPOCH + dt.timedelta(microseconds=micros)


def from_datetime(moment: dt.datetime) -> int:
    """Microseconds since the Unix epoch of an aware datetime."""
    return (moment - _EPOCH) // _MICROSECOND
