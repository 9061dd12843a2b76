"""The primary is replaced by its standby under load, in every way: what was committed on both sides is there, once.

Replication is synchronous, so that what was acknowledged is on the standby; the DSN names both, the primary first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.servers import Postgres
from tests.support.sql import execute, scalar
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

WRITERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gateway-writer'"
OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'gateway-%'"
PATIENT = {"command_timeout": "60s", "connect_timeout": "10s"}
"""The defaults."""
QUICK = {"command_timeout": "2s", "connect_timeout": "4s"}
SILENT_SECONDS = 31
"""So long is a host that was silent asked last; then the former primary comes first again."""
MakeStandby = Callable[[Postgres], Postgres]


@pytest.fixture
def make_standby() -> Iterator[MakeStandby]:
    """``make_standby(server)``: a streaming standby of a running server."""
    made: list[Postgres] = []

    def make(server: Postgres) -> Postgres:
        made.append(type(server)(standby_of=server))
        return made[-1].start()

    yield make
    for server in made:
        server.close()


class Pair:
    """A primary and its synchronous standby, with the databases of a cell."""

    def __init__(self, cell: FaultCell, make_standby: MakeStandby, settings: dict[str, str]) -> None:
        self.cell = cell
        self.primary = make_standby(cell.server)
        self.primary.promote()
        self.standby = make_standby(self.primary)
        self._synchronous("*")
        streams = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        eventually(lambda: scalar(self.primary.dsn(), streams) == 1, what="the standby is synchronous")
        cell.databases = cell.databases.on(self.primary)
        both = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}/"
        for name, dsn in (
            ("metadata", cell.databases.metadata_dsn),
            ("timeseries", cell.databases.timeseries_dsn),
        ):
            ours = dsn.replace(f"127.0.0.1:{self.primary.port}/", both)
            cell.daemon.configure({"databases": {name: {"dsn": ours, **settings}}})

    def fails(self, how: str) -> None:
        """The primary, as it says in ``HOW``."""
        if how == "read-only":
            execute(self.primary.dsn(), "ALTER SYSTEM SET default_transaction_read_only = on")
            execute(self.primary.dsn(), "SELECT pg_reload_conf()")
        else:
            getattr(self.primary, {"kill": "kill", "stop": "stop"}.get(how, "suspend"))()

    def fail_over(self, *, timeout: float) -> None:
        """The standby becomes the primary; the daemon stores there by itself."""
        self.cell.databases = self.cell.databases.on(self.standby)
        self.cell.recovers(self.standby.promote, timeout=timeout)

    def stays(self) -> None:
        """Sessions are ended and made anew, and the former primary comes first in the DSN: it gets nothing."""
        execute(self.standby.dsn(), OURS)
        self.cell.stored(500)

    def rows_of_primary(self) -> int:
        """Rows of ``telemetry`` there, once the COPY connections have ended, which may still commit what they read."""
        self._synchronous("")
        eventually(
            lambda: scalar(self.primary.dsn(), WRITERS) == 0, timeout=20, what="no COPY connection is left"
        )
        return self.cell.databases.on(self.primary).count("telemetry")

    def _synchronous(self, names: str) -> None:
        execute(self.primary.dsn(), f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        execute(self.primary.dsn(), "SELECT pg_reload_conf()")


def stands_still(cell: FaultCell) -> bool:
    """Nothing was settled between the last looks."""
    return len({look.settled for look in cell.watch.looks[-4:]}) == 1


HOW = {
    "hangs": "hangs",
    "hangs long": "hangs, time-outs by default,",
    "read-only": "takes no rows any more",
    "kill": "killed",
    "stop": "stopped",
}


@pytest.mark.only(**({} if ALL else {"engine": "postgres"}))
@pytest.mark.parametrize("how", HOW if ALL else ["hangs"])
def test_the_primary_is_replaced(make_cell: MakeCell, make_standby: MakeStandby, how: str) -> None:
    """The daemon stores at the new primary by itself; the former one gets nothing, awake again or as a standby."""
    cell = make_cell(f"primary {HOW[how]} and is replaced")
    pair = Pair(cell, make_standby, PATIENT if how == "hangs long" else QUICK)
    cell.start()
    cell.stored(500)
    pair.fails(how)
    eventually(lambda: stands_still(cell), what="nothing is settled")
    pair.fail_over(timeout=120)
    if pair.primary.running:
        pair.primary.resume()
        before = pair.rows_of_primary()
        if ALL:
            cell.lasts(SILENT_SECONDS)
        pair.stays()
        assert pair.rows_of_primary() == before
        pair.primary.stop()
    if ALL:
        pair.primary.follow(pair.standby)
        pair.primary.start()
        pair.stays()
    cell.prove()
