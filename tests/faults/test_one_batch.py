"""A batch that fails for a reason of its own while the server works: others are stored, nothing is lost."""

from __future__ import annotations

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.sql import execute, without_trigger
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

DEVICES = 200
UNTIL = 10_000 if ALL else 2000
"""Readings from this ``seq`` on are taken, whoever sends them."""
OF_ONE_DEVICE = f"(data->>'seq')::int % {DEVICES} = 7 AND (data->>'seq')::int < {UNTIL}"
ROOM = 100
"""Rows that a transaction may write where a limit of the server is the fault."""
TRIGGER = """
CREATE FUNCTION of_the_operator() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE data jsonb := NEW.data;
BEGIN
  {body}
  RETURN NEW;
END $$;
CREATE TRIGGER of_the_operator BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION of_the_operator()
"""
RAISES = {
    "P0001": "RAISE EXCEPTION 'not this device'",
    "0A000": "RAISE feature_not_supported USING MESSAGE = 'cannot INSERT into frozen chunk'",
    "53200": "RAISE out_of_memory USING MESSAGE = 'out of shared memory'",
    "42501": "RAISE insufficient_privilege USING MESSAGE = 'permission denied for table audit'",
}
QUICK = {"writer": {"hold_back": "1s"}}


def refused(seq: int) -> bool:
    """Which readings the trigger does not take."""
    return seq % DEVICES == 7 and seq < UNTIL


def make_trigger(cell: FaultCell, body: str) -> None:
    """What an operator may have put on the table."""
    execute(cell.databases.timeseries_dsn, TRIGGER.format(body=body))


def letters(cell: FaultCell) -> int:
    """Dead letters of what the database refused."""
    found: int = cell.databases.timeseries(
        "SELECT count(*) FROM dead_letters WHERE reason = 'refused_by_database'"
    )[0][0]
    return found


@pytest.mark.parametrize("state", RAISES if ALL else ["P0001", "53200"])
@pytest.mark.parametrize("window", [1000, 20] if ALL else [20])
def test_the_readings_of_one_device(make_cell: MakeCell, state: str, window: int) -> None:
    """A trigger refuses one of two hundred devices: its readings become dead letters, all others are stored.

    The broker hands out no more than its window, which is soon full of messages that wait for one that is held back.
    """
    fault = f"{state} for one device of {DEVICES}, {window} in flight"
    cell = make_cell(fault, QUICK, max_inflight=window)
    make_trigger(cell, f"IF {OF_ONE_DEVICE} THEN {RAISES[state]}; END IF;")
    cell.start(bad_percent=0)
    # Others must be stored meanwhile, so the load goes on: what fails when nothing else is stored is held.
    eventually(lambda: letters(cell) == sum(map(refused, range(UNTIL))), timeout=60, what="all are letters")
    cell.prove(refused=refused)


def test_with_a_spool(make_cell: MakeCell) -> None:
    """Spooled and out of the way, tried again beside live traffic; when the trigger is gone, all are stored."""
    cell = make_cell(f"spool: P0001 for one device of {DEVICES}", QUICK)
    cell.daemon.configure({"spool": {"folder": cell.daemon.folder / "spool"}})
    make_trigger(cell, f"IF {OF_ONE_DEVICE} THEN {RAISES['P0001']}; END IF;")
    cell.start(bad_percent=0)
    cell.stored(UNTIL)
    eventually(cell.daemon.is_ready, what="ready: one device's trouble is not the database's")
    assert cell.daemon.total()["spooled"] >= sum(map(refused, range(UNTIL)))
    cell.recovers(lambda: execute(cell.databases.timeseries_dsn, without_trigger("of_the_operator")))
    told = cell.prove()
    assert told.dead_letters == 0


def test_a_limit_of_the_server(make_cell: MakeCell) -> None:
    """A transaction of more than a hundred rows fails (53200, as of too many locks): halved until it fits."""
    cell = make_cell(f"53200 for more than {ROOM} rows at once")
    counted = "coalesce(nullif(current_setting('fault.rows', true), ''), '0')::int + 1"
    make_trigger(
        cell,
        f"PERFORM set_config('fault.rows', ({counted})::text, true); "
        f"IF current_setting('fault.rows')::int > {ROOM} THEN {RAISES['53200']}; END IF;",
    )
    cell.subscribe()
    cell.publish(count=5 * UNTIL, bad_percent=0)
    cell.published(early=False)
    cell.recovers(cell.daemon.start)
    told = cell.prove()
    assert told.dead_letters == 0
