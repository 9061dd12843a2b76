"""Another's transaction holds the tables while room is made in them: partitions that are due, chunks."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.sql import execute, locked
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

SECONDS = 20 if ALL else 3
WEEKS = 30 if ALL else 8
DAY_MS = 86_400_000
LONGEST_GAP = 2.0
"""Seconds without a message settled that are no standstill on a busy machine."""
QUERY = "ACCESS SHARE"
ANALYZE = "SHARE UPDATE EXCLUSIVE"


@contextlib.contextmanager
def held(cell: FaultCell, mode: str) -> Iterator[None]:
    """Another's transaction on the table that lasts."""
    with locked(cell.databases.timeseries_dsn, "telemetry", mode=mode):
        yield


def longest_gap(cell: FaultCell, since: float) -> float:
    """Seconds without a message settled, at most."""
    looks = [look for look in list(cell.watch.looks) if look.at > since]
    last, longest = looks[0], 0.0
    for look in looks:
        longest = max(longest, look.at - last.at)
        if look.settled > last.settled:
            last = look
    return longest


@pytest.mark.only(engine="postgres")
@pytest.mark.parametrize("mode", [QUERY, ANALYZE] if ALL else [QUERY])
def test_a_partition_is_due(make_cell: MakeCell, mode: str) -> None:
    """Today's and tomorrow's are missing, and another's transaction goes on: ready all the while, all is stored."""
    cell = make_cell(f"partition due while a transaction holds telemetry in {mode}, {SECONDS} s")
    today = dt.datetime.now(dt.UTC).date()
    names = [f"telemetry_{today + dt.timedelta(days=ahead):%Y%m%d}" for ahead in range(2)]
    execute(cell.databases.timeseries_dsn, f"DROP TABLE {', '.join(names)}")
    with held(cell, mode):
        began = time.monotonic()
        cell.start(start_ms=int(time.time() * 1000))
        eventually(lambda: cell.logged("partitions postponed"), what="partitions postponed")
        cell.stored(300)
        cell.lasts(SECONDS, lambda: ready(cell))
        gap = longest_gap(cell, began + 2)
    if ALL:
        eventually(lambda: cell.logged("partitions made"), timeout=90, what="made after all")
    cell.notes.append(f"longest gap {gap:.1f} s")
    cell.prove()
    assert gap < LONGEST_GAP


def ready(cell: FaultCell) -> None:
    """The other's transaction is no trouble of the database."""
    assert cell.daemon.is_ready(), cell.daemon.ready()


@pytest.mark.only(engine="timescaledb", timestamps=True)
@pytest.mark.parametrize("mode", [QUERY, ANALYZE] if ALL else [QUERY])
def test_chunks_are_made(make_cell: MakeCell, mode: str) -> None:
    """Readings of weeks that have no chunk yet: a query is in nobody's way; what is, is waited for."""
    cell = make_cell(f"chunks made while a transaction holds telemetry in {mode}")
    cell.start(bad_percent=0)
    cell.stored(200)
    now_ms, chunks = int(time.time() * 1000), count_chunks(cell)
    release = contextlib.ExitStack()
    with release:
        release.enter_context(held(cell, mode))
        for week in range(1, WEEKS + 1):
            cell.publish(count=200, start_ms=now_ms - 7 * week * DAY_MS, bad_percent=0)
            cell.published(early=False)
        if mode == ANALYZE:
            cell.lasts(SECONDS)
            cell.recovers(release.close)
        cell.quiet(cell.messages)
    assert count_chunks(cell) >= chunks + WEEKS
    cell.prove()


def count_chunks(cell: FaultCell) -> int:
    """Of ``telemetry``."""
    (found,) = cell.databases.timeseries("SELECT count(*) FROM show_chunks('telemetry')")
    return int(found[0])
