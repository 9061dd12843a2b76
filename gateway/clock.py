"""Time: wall clock in microseconds since the Unix epoch, as everywhere in the gateway."""

from __future__ import annotations

import datetime as dt
import time

MICROS = 1_000_000
POSTGRES_EPOCH_US = 946_684_800 * MICROS
"""2000-01-01 UTC, where PostgreSQL's binary timestamps start."""


def now_us() -> int:
    """Microseconds since the Unix epoch, now."""
    return time.time_ns() // 1000


def to_datetime(micros: int) -> dt.datetime:
    """An aware datetime of microseconds since the Unix epoch."""
    return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=micros)
