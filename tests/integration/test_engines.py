"""Which engine a database has, and what hangs on it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from uuid import uuid4

import asyncpg
import pytest

from gateway import clock, errors
from gateway.settings import DatabaseSettings
from gateway.storage import engines, migrate, schema_status
from gateway.storage.engines import Engine
from tests.support.databases import Databases, Workshop
from tests.support.servers import Server
from tests.support.sql import execute
from tests.support.waiting import free_port

DAY = dt.timedelta(days=1)


def database(dsn: str) -> DatabaseSettings:
    """Settings of the database behind a DSN."""
    return DatabaseSettings.model_validate({"dsn": dsn})


async def detect(dsn: str) -> Engine:
    """The engine behind a DSN."""
    connection = await asyncpg.connect(dsn)
    try:
        return await engines.detect(connection)
    finally:
        await connection.close()


async def test_the_engine_is_found(databases: Databases) -> None:
    """By extension and license, at run time; a database without the extension is plain PostgreSQL."""
    found = await detect(databases.timeseries_dsn)
    if databases.engine == "timescaledb":
        assert found.name == "timescaledb"
        assert re.fullmatch(
            r"TimescaleDB (Apache|Community) 2\.\d+\.\d+ on PostgreSQL \d+\.\d+", found.describe()
        )
    else:
        assert (found.name, found.license) == ("postgresql", None)
        assert re.fullmatch(r"PostgreSQL \d+\.\d+", found.describe())
    assert (await detect(databases.metadata_dsn)).name == "postgresql"


async def test_partitions_are_made_through_the_engine(databases: Databases) -> None:
    """Plain PostgreSQL makes what is missing of the range, once; TimescaleDB needs none."""
    connection = await asyncpg.connect(databases.timeseries_dsn)
    try:
        engine = await engines.detect(connection)
        since = dt.date(2020, 1, 1)
        made = [await engine.make_partitions(connection, since, since + 2 * DAY) for _ in range(2)]
    finally:
        await connection.close()
    assert [len(found.made) for found in made] == ([0, 0] if databases.engine == "timescaledb" else [6, 0])


async def test_chunks_that_readings_have_made_are_told(databases: Databases) -> None:
    """With their times, and how long the next one is; a plain PostgreSQL makes none."""
    moment = dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)
    connection = await asyncpg.connect(databases.timeseries_dsn)
    try:
        statement = "INSERT INTO telemetry (time, device_id, tenant_id, data) VALUES ($1, $2, $2, '{}')"
        await connection.execute(statement, moment, uuid4())
        found = await (await engines.detect(connection)).chunks(connection)
    finally:
        await connection.close()
    if databases.engine == "timescaledb":
        day_us, at_us = DAY // dt.timedelta(microseconds=1), clock.from_datetime(moment)
        assert found.interval_us == day_us
        assert (at_us - day_us // 2, at_us + day_us // 2) in found.ranges
    else:
        assert found == engines.Chunks()


async def test_upgrade_makes_the_extension_that_the_server_offers(blank_databases: Databases) -> None:
    """A database without it gets it, where the login may; elsewhere tables are partitioned."""
    execute(blank_databases.timeseries_dsn, "DROP EXTENSION IF EXISTS timescaledb")
    await migrate.upgrade("timeseries", database(blank_databases.timeseries_dsn))
    expected = {"timescaledb": "timescaledb", "postgres": "postgresql"}[blank_databases.engine]
    assert (await detect(blank_databases.timeseries_dsn)).name == expected


@pytest.fixture
def plain(timescaledb: Server, workshops: Callable[[Server], Workshop]) -> Iterator[Databases]:
    """Databases without TimescaleDB on a server that offers it."""
    workshop = workshops(timescaledb)
    made = workshop.blank()
    execute(made.timeseries_dsn, "DROP EXTENSION timescaledb")
    yield made
    workshop.drop(made)


@pytest.mark.timescaledb
async def test_a_login_that_may_not_is_told_what_to_run(plain: Databases) -> None:
    """Not silently partitions instead of hypertables: the error names init, CREATE EXTENSION and --engine."""
    role = f"tables_only_{uuid4().hex[:8]}"
    execute(
        plain.timeseries_dsn,
        f"CREATE ROLE {role} LOGIN PASSWORD 'none'; GRANT CREATE ON SCHEMA public TO {role}",
    )
    try:
        asked = database(re.sub(r"//[^@]*@", f"//{role}:none@", plain.timeseries_dsn))
        told = r"gateway db init.*CREATE EXTENSION timescaledb.*--engine postgresql"
        with pytest.raises(errors.UsageError, match=told):
            await migrate.upgrade("timeseries", asked)
        assert await migrate.current("timeseries", asked) is None
        assert await migrate.upgrade("timeseries", asked, engine="postgresql")
    finally:
        execute(plain.timeseries_dsn, f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.timescaledb
async def test_a_chosen_engine_stays(plain: Databases) -> None:
    """``--engine postgresql`` makes partitions for good, whatever extension comes later."""
    chosen = database(plain.timeseries_dsn)
    await migrate.upgrade("timeseries", chosen, "0001", engine="postgresql")
    execute(plain.timeseries_dsn, "CREATE EXTENSION timescaledb")
    await migrate.upgrade("timeseries", chosen)
    assert (await detect(plain.timeseries_dsn)).name == "postgresql"
    with pytest.raises(errors.UsageError, match="made for postgresql"):
        await migrate.upgrade("timeseries", chosen, engine="timescaledb")


async def test_status_tells_where_a_database_stands(blank_databases: Databases) -> None:
    """Engine and pending revisions, before, half-way and after."""
    asked = database(blank_databases.timeseries_dsn)
    before = await schema_status.status("timeseries", asked)
    assert (before.reachable, before.current, before.pending[0], before.up_to_date) == (
        True,
        None,
        "0001",
        False,
    )
    await migrate.upgrade("timeseries", asked, "0001")
    half = await schema_status.status("timeseries", asked)
    assert (half.current, half.pending[0]) == ("0001", "0002")
    await migrate.upgrade("timeseries", asked)
    after = await schema_status.status("timeseries", asked)
    assert (after.current, after.pending, after.up_to_date) == (after.head, (), True)


async def test_an_unreachable_database_is_an_answer() -> None:
    """Status says so instead of failing."""
    found = await schema_status.status("metadata", database(f"postgresql://a@127.0.0.1:{free_port()}/b"))
    assert (found.reachable, found.up_to_date) == (False, False)
    assert found.error


async def test_a_newer_database_is_told_from_an_older(databases: Databases) -> None:
    """A revision that this gateway does not know is an error of its own, not something pending."""
    execute(databases.metadata_dsn, "UPDATE alembic_version_metadata SET version_num = '9999'")
    found = await schema_status.status("metadata", database(databases.metadata_dsn))
    assert (found.pending, found.up_to_date) == ((), False)
    assert "newer gateway" in str(found.error)
