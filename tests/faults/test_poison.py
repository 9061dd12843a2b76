"""Bad messages among good ones: each costs itself only, and what only the database refuses is found by halving."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.sql import execute

pytestmark = pytest.mark.mosquitto

COUNT = 20_000 if ALL else 4_000
BATCH = 1000
FIRST = 100
"""Readings that are taken, so that their day has a partition: else each attempt would make one, and undo it."""
SHARES = {"1 in 1000": 1000, "1 in 2": 2, "all": 1}
REFUSED = f"(data->>'seq')::int >= {FIRST} AND (data->>'seq')::int % {{every}} = 0"
CHECK = f"ALTER TABLE telemetry ADD CONSTRAINT picky CHECK (NOT ({REFUSED}))"
TRIGGER = f"""
CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE data jsonb := NEW.data;
BEGIN
  IF {REFUSED} THEN RAISE EXCEPTION 'not this one' USING ERRCODE = 'check_violation'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER picky BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION picky()
"""


@pytest.mark.parametrize("share", SHARES)
def test_bad_payloads(make_cell: MakeCell, share: str) -> None:
    """Broken JSON, unknown devices, NUL, wrong clocks: dead letters with their bytes; the others are stored."""
    cell = make_cell(f"bad payloads, {share}")
    cell.subscribe()
    cell.publish(count=COUNT, bad_percent=100 / SHARES[share])
    cell.published(early=False)
    cell.recovers(cell.daemon.start)
    cell.prove()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("how", ["constraint", "trigger"])
def test_refused_by_the_database(make_cell: MakeCell, how: str, share: str) -> None:
    """Values that only the database refuses: isolated in log2(n) refusals each, the others are stored."""
    cell = make_cell(f"{how} of the database refuses {share}", {"batch": {"max_rows": BATCH}})
    refused = refuses(SHARES[share])
    cell.start(count=FIRST, bad_percent=0)
    cell.stored(FIRST)
    cell.daemon.stop()
    script = {"constraint": CHECK, "trigger": TRIGGER}[how].format(every=SHARES[share])
    execute(cell.databases.timeseries_dsn, script)
    cell.publish(count=COUNT, bad_percent=0)
    cell.published(early=False)
    log = cell.server.log_size()
    cell.recovers(cell.daemon.start)
    cell.all_settled()
    tries = failed_copies(cell, since=log)
    cell.notes.append(f"{tries} statements refused")
    told = cell.prove(refused=refused)
    assert told.dead_letters == sum(map(refused, range(FIRST + COUNT)))
    assert 0 < tries <= told.dead_letters * (math.ceil(math.log2(2 * BATCH)) + 1)
    assert tries < 2 * COUNT


def refuses(every: int) -> Callable[[int], bool]:
    """Which readings the database does not take, by their ``seq``."""
    return lambda seq: seq >= FIRST and seq % every == 0


def failed_copies(cell: FaultCell, *, since: int) -> int:
    """How many COPYs the server refused for what was in them, as its log tells."""
    lines = cell.server.tail(2**30, since=since).splitlines()
    return sum("ERROR:" in line and ("picky" in line or "not this one" in line) for line in lines)
