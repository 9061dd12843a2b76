"""The database goes away under load, in every way it can, and comes back: the daemon holds, and goes on by itself."""

from __future__ import annotations

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.sql import execute

pytestmark = pytest.mark.mosquitto

AWAY = [5, 60] if ALL else [5]
FROZEN = 30 if ALL else 12
KEEPALIVE = 3
HOW = {"stop": "fast stop", "stop_immediate": "immediate stop", "kill": "kill -9"}
OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'gateway-%'"


def away(cell: FaultCell) -> None:
    """It is waited for, and the books balance."""
    assert cell.daemon.component("timeseries")["state"] == "waiting"
    assert cell.daemon.status()["balanced"]


@pytest.mark.parametrize("seconds", AWAY)
@pytest.mark.parametrize("how", HOW)
def test_stopped_or_killed(make_cell: MakeCell, how: str, seconds: int) -> None:
    """PostgreSQL stopped or killed: unready, naming it; held; all is stored once when it is back."""
    cell = make_cell(f"PostgreSQL {HOW[how]}, {seconds} s")
    cell.start()
    cell.stored(500)
    getattr(cell.server, how)()
    cell.unready("timeseries", str(cell.server.port), state="waiting")
    cell.lasts(seconds, lambda: away(cell))
    cell.recovers(cell.server.start)
    cell.prove()


@pytest.mark.parametrize("seconds", AWAY)
def test_our_sessions_killed(make_cell: MakeCell, seconds: int) -> None:
    """All our sessions ended by an administrator, again and again: nothing lost, none twice."""
    cell = make_cell(f"PostgreSQL ends our sessions, again and again for {seconds} s")
    cell.start()
    cell.stored(500)
    cell.lasts(seconds, lambda: execute(cell.server.dsn(), OURS))
    cell.recovers(lambda: None)
    cell.prove()


def test_frozen(make_cell: MakeCell) -> None:
    """PostgreSQL frozen (SIGSTOP): pings go on, so that the broker keeps the connection all the while."""
    cell = make_cell(f"PostgreSQL hangs, {FROZEN} s", {"mqtt": {"keepalive": KEEPALIVE}})
    cell.start()
    cell.stored(500)
    cell.server.suspend()
    cell.lasts(FROZEN)
    cell.recovers(cell.server.resume)
    assert "has exceeded timeout" not in cell.broker.tail(10**6)
    assert cell.daemon.status()["figures"]["reconnects"] == 0
    cell.prove()
