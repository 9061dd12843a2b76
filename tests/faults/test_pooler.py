"""PgBouncer between the daemon and its databases, in transaction mode, which fails by itself and with its server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.servers import PgBouncer
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

TIMES = 20 if ALL else 3
SECONDS = 20 if ALL else 3
Start = Callable[..., PgBouncer]


def behind(cell: FaultCell, start: Start) -> PgBouncer:
    """Have the daemon connect through a pooler with fewer sessions than the daemon has connections."""
    pooler = start(cell.server, "transaction", sessions=3, extra=["server_login_retry = 1"])
    for name, dsn in (
        ("metadata", cell.databases.metadata_dsn),
        ("timeseries", cell.databases.timeseries_dsn),
    ):
        ours = {"dsn": pooler.dsn(dsn), "command_timeout": "2s", "connect_timeout": "2s"}
        cell.daemon.configure({"databases": {name: ours}})
    return pooler


@pytest.mark.parametrize("how", ["kill -9", "hangs and is replaced"] if ALL else ["kill -9"])
def test_the_pooler_fails(make_cell: MakeCell, start_pgbouncer: Start, how: str) -> None:
    """Again and again, in the midst of transactions; the server may have committed what was not answered."""
    cell = make_cell(f"PgBouncer (transaction) {how}, {TIMES} times")
    pooler = behind(cell, start_pgbouncer)
    cell.start()
    for _ in range(TIMES):
        cell.stored(300)
        if how != "kill -9":
            pooler.suspend()
            cell.unready("timeseries", state="waiting")
        pooler.kill()
        cell.unready("timeseries", str(pooler.port), state="waiting")
        cell.recovers(pooler.start)
    cell.prove()


@pytest.mark.parametrize("how", ["kill", "suspend"] if ALL else ["kill"])
def test_the_server_behind_it(make_cell: MakeCell, start_pgbouncer: Start, how: str) -> None:
    """The pooler stays, and says in words of its own that there is no server: waited for, no fault of the DSN."""
    cell = make_cell(f"PostgreSQL behind PgBouncer (transaction) {how}, {SECONDS} s")
    behind(cell, start_pgbouncer)
    cell.start()
    cell.stored(300)
    getattr(cell.server, how)()
    eventually(lambda: not cell.daemon.is_ready(), timeout=20, what="unready")
    cell.lasts(SECONDS, lambda: waits(cell))
    cell.recovers(cell.server.start if how == "kill" else cell.server.resume)
    cell.prove()


def waits(cell: FaultCell) -> None:
    """Nothing is to be mended."""
    found = cell.daemon.component("timeseries")
    assert found["state"] != "failed", found
