"""The gateway's clock jumps: readings without a time of their own get their receive time, in order, each its own."""

from __future__ import annotations

import pytest

from tests.conftest import lacking
from tests.faults.conftest import MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.fault_clock import Clock, NoClockError

pytestmark = pytest.mark.mosquitto

HOUR, DAY = 3600, 86_400
JUMPS = {"back an hour": -HOUR, "forward a day": DAY}


def clock_of(cell: FaultCell) -> Clock:
    """The daemon's own clock."""
    try:
        clock = Clock(cell.daemon.folder)
    except NoClockError as missing:
        lacking("faketime", str(missing))
    cell.daemon.variables = clock.variables
    return clock


@pytest.mark.parametrize("jump", JUMPS)
def test_the_clock_jumps(make_cell: MakeCell, jump: str) -> None:
    """And back again: all readings are kept, each device's in the order of coming."""
    cell = make_cell(f"clock jumps {jump}, and back")
    clock = clock_of(cell)
    cell.start()
    cell.stored(1000)
    clock.jump(JUMPS[jump])
    cell.stored(1000)
    cell.recovers(lambda: clock.jump(0))
    cell.stored(1000)
    cell.prove()
    assert ordered(cell)


def ordered(cell: FaultCell) -> bool:
    """Whether the times of each device rise with what it sent: also when the clock went back."""
    statement = (
        "SELECT count(*) FROM (SELECT (data->>'seq')::int < lag((data->>'seq')::int) "
        "OVER (PARTITION BY device_id ORDER BY time) AS wrong FROM telemetry) AS all_rows WHERE wrong"
    )
    return bool(cell.databases.timeseries(statement)[0][0] == 0)
