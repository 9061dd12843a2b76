"""Many updates of one key, by two connections and by the spool: the newest of each key stands in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.fault_updates import SERIALS, Updates
from tests.support.sql import execute
from tests.support.waiting import eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.only(timestamps=True)]

ROUNDS = 10 if ALL else 2
AWAY = 1.5
OVERTAKING = """
CREATE FUNCTION at_random() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(random() * 0.03); RETURN NULL; END $$;
CREATE TRIGGER at_random BEFORE INSERT ON telemetry FOR EACH STATEMENT EXECUTE FUNCTION at_random();
"""
"""Batches overtake each other, as on a server with other work."""


@contextmanager
def updates(cell: FaultCell) -> Iterator[None]:
    """Twenty devices update a key each every 4 ms meanwhile; then the newest of each key must stand."""
    execute(cell.databases.timeseries_dsn, OVERTAKING)
    cell.begin(SERIALS)
    published = Updates(cell.broker.port, int(time.time()) * 1000 - 3_600_000)
    published.start()
    try:
        cell.stored(1000)
        yield
    finally:
        published.finish()
    eventually(lambda: published.arrived(cell.databases), timeout=60, what="the last updates")
    cell.quiet()
    cell.notes.append(f"keys of {published.messages} updates")
    cell.end(lambda: published.verdict(cell.databases))


def test_the_database_is_killed(make_cell: MakeCell) -> None:
    """Killed (-9) and started again, and our sessions ended: what was in flight is written again, in any order."""
    cell = make_cell(f"updates of one key at 4 ms, PostgreSQL kill -9, {ROUNDS} times")
    with updates(cell):
        for _ in range(ROUNDS):
            cell.server.kill()
            cell.unready("timeseries", state="waiting")
            cell.recovers(cell.server.start)
            cell.stored(1000)


def test_the_spool_and_live_traffic(make_cell: MakeCell) -> None:
    """Spooled while the database is away, drained beside live traffic, and the daemon is killed (-9) meanwhile."""
    cell = make_cell(f"spool: updates of one key at 4 ms, PostgreSQL away {ROUNDS} times, daemon kill -9")
    cell.daemon.configure({"spool": {"folder": cell.daemon.folder / "spool", "after": "200ms"}})
    with updates(cell):
        for _ in range(ROUNDS):
            cell.server.stop_immediate()
            eventually(lambda: cell.daemon.total()["spooled"] > 1000, timeout=30, what="updates are spooled")
            cell.lasts(AWAY)
            cell.recovers(cell.server.start)
            cell.daemon.kill()
            cell.daemon.start()
            cell.stored(1000)
