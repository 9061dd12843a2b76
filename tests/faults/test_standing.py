"""What somebody must mend: everything is held, nothing becomes a dead letter, and the daemon says what to run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.storage.roles import WRITER
from tests.conftest import lacking
from tests.faults.conftest import ALL, Breakable, MakeCell
from tests.support.fault_cell import Combination, FaultCell
from tests.support.fault_disk import NoDiskError, SmallDisk
from tests.support.servers import Postgres
from tests.support.sql import execute

pytestmark = pytest.mark.mosquitto

SECONDS = 20 if ALL else 4
TABLES = ["telemetry", "dead_letters", "redelivery_ledger", "processed_messages"] if ALL else ["telemetry"]
WRITER_ROLE = "fault_writer"


def stands(cell: FaultCell, *words: str) -> None:
    """Failed, with these words; it lasts; all is held, the books balance, and the log says it once a statement."""
    cell.unready("timeseries", *words, state="failed")
    cell.lasts(SECONDS, lambda: balanced(cell))
    told = [line["error"] for line in cell.logged("store failed", database="timeseries", level="error")]
    assert told, "no log line"
    assert len(set(told)) == len(told), told
    assert [line for line in told if not all(word in line for word in words)] == []
    cell.watch.looks.clear()  # what was settled before must not be taken for what is settled after


def balanced(cell: FaultCell) -> None:
    """The conservation law holds."""
    assert cell.daemon.status()["balanced"]


def test_read_only(make_cell: MakeCell) -> None:
    """A server that became read-only, as after a failover."""
    cell = make_cell(f"PostgreSQL read-only, {SECONDS} s")
    cell.start()
    cell.stored(500)
    turn(cell, "on")
    stands(cell, "read-only", "telemetry", "primary")
    cell.recovers(lambda: turn(cell, "off"))
    cell.prove()


def turn(cell: FaultCell, switch: str) -> None:
    """Make the server read-only, or no longer."""
    execute(cell.server.dsn(), f"ALTER SYSTEM SET default_transaction_read_only = {switch}")
    execute(cell.server.dsn(), "SELECT pg_reload_conf()")


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_missing(make_cell: MakeCell, table: str) -> None:
    """A table that the writer needs has another name, as in the middle of a wrong migration."""
    cell = make_cell(f"table {table} missing, {SECONDS} s")
    cell.start(message_ids=table == "processed_messages")
    cell.stored(500)
    execute(cell.databases.timeseries_dsn, f"ALTER TABLE {table} RENAME TO elsewhere")
    stands(cell, table, "gateway db upgrade")
    cell.recovers(lambda: execute(cell.databases.timeseries_dsn, f"ALTER TABLE elsewhere RENAME TO {table}"))
    cell.prove()


# as a role that has no more than it needs -----------------------------------------------------


@pytest.fixture
def as_writer(breakable: Breakable, combination: Combination) -> Iterator[None]:
    """A role with the writer's privileges, which logs in by a password."""
    server = breakable(combination.engine)
    access = server.cluster / "pg_hba.conf"
    usual = access.read_text("utf-8")
    execute(server.dsn(), f"CREATE ROLE {WRITER_ROLE} LOGIN BYPASSRLS PASSWORD 'first'")
    access.write_text(f"host all {WRITER_ROLE} 127.0.0.1/32 scram-sha-256\n{usual}", "utf-8")
    execute(server.dsn(), "SELECT pg_reload_conf()")
    yield
    access.write_text(usual, "utf-8")
    execute(server.dsn(), f"DROP ROLE {WRITER_ROLE}")


def log_in(cell: FaultCell) -> Path:
    """Have the daemon log in as that role; the file with its password."""
    password = cell.daemon.folder / "password"
    password.write_text("first\n", "utf-8")
    ours = {}
    for name, dsn in (
        ("metadata", cell.databases.metadata_dsn),
        ("timeseries", cell.databases.timeseries_dsn),
    ):
        grants = [f"GRANT {what} ON {table} TO {WRITER_ROLE}" for table, what in WRITER[name].items()]  # type: ignore[index]
        execute(dsn, "; ".join(grants))
        ours[name] = {"dsn": dsn.replace("postgres@", f"{WRITER_ROLE}@"), "password_file": password}
    if cell.combination.engine == "postgres":
        makes = f"GRANT EXECUTE ON FUNCTION gateway_make_partition TO {WRITER_ROLE}"
        execute(cell.databases.timeseries_dsn, makes)
    cell.daemon.configure({"databases": ours})
    return password


@pytest.mark.usefixtures("as_writer")
def test_a_privilege_is_revoked(make_cell: MakeCell) -> None:
    """INSERT on ``telemetry`` is taken away, and given back."""
    cell = make_cell(f"privilege revoked, {SECONDS} s")
    log_in(cell)
    cell.start()
    cell.stored(500)
    execute(cell.databases.timeseries_dsn, f"REVOKE INSERT ON telemetry FROM {WRITER_ROLE}")
    stands(cell, "permission denied", "COPY telemetry", "gateway db init")
    cell.recovers(
        lambda: execute(cell.databases.timeseries_dsn, f"GRANT INSERT ON telemetry TO {WRITER_ROLE}")
    )
    cell.prove()


@pytest.mark.usefixtures("as_writer")
def test_the_password_changes(make_cell: MakeCell) -> None:
    """The password is rotated in the database before it is in the file."""
    cell = make_cell(f"password changed, {SECONDS} s")
    password = log_in(cell)
    cell.start()
    cell.stored(500)
    execute(cell.server.dsn(), f"ALTER ROLE {WRITER_ROLE} PASSWORD 'second'")
    ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $$%s$$"
    execute(cell.server.dsn(), ours % WRITER_ROLE)
    stands(cell, "password authentication failed", "password_file")
    cell.recovers(lambda: password.write_text("second\n", "utf-8"))
    cell.prove()


# a full disk ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(breakable: Breakable, combination: Combination) -> Iterator[SmallDisk]:
    """A tablespace on a file system of its own that is soon full."""
    server: Postgres = breakable(combination.engine)
    try:
        with SmallDisk(server) as disk:
            yield disk
    except NoDiskError as missing:
        lacking("mount", str(missing))


def test_the_disk_is_full(small_disk: SmallDisk, make_cell: MakeCell) -> None:
    """No space left where the readings are: held, saying so, until there is some again."""
    cell = make_cell(f"database's disk full, {SECONDS} s")
    small_disk.take(cell.databases.timeseries_dsn, "telemetry")
    cell.start()
    cell.stored(500)
    small_disk.fill()
    cell.unready("timeseries", "No space left on device", state="waiting")
    cell.lasts(SECONDS, lambda: balanced(cell))
    cell.recovers(small_disk.empty)
    cell.prove()
