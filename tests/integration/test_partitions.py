"""Partitions on plain PostgreSQL: whatever holds the tables, nobody waits for them and no reading is refused."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from structlog.testing import capture_logs

from gateway.daemon.partitions import PartitionUpkeep
from gateway.errors import TransientError
from gateway.observability.health import Component, ComponentState
from gateway.outcomes import Outcome
from gateway.storage.retry import Retrying
from gateway.writer.copy import Writer
from gateway.writer.work import BatchWrite
from tests.integration.conftest import Writers
from tests.support.batching import NOW_US, Filling, a_device, database
from tests.support.databases import Databases
from tests.support.sql import execute
from tests.support.waiting import eventually_async
from tests.support.written import written

DAY = dt.timedelta(days=1)
DAY_US = 86_400_000_000
TODAY = dt.datetime.now(dt.UTC).date()
LATE_US = NOW_US - 400 * DAY_US


def missing(databases: Databases, *days: int) -> None:
    """Have partitions of ``telemetry`` lack, as if nobody had made them; days from today."""
    for day in days:
        execute(databases.timeseries_dsn, f"DROP TABLE telemetry_{TODAY + day * DAY:%Y%m%d}")


def attached(databases: Databases, day: int) -> bool:
    """Whether ``telemetry`` has a partition of this day."""
    asked = "SELECT count(*) FROM pg_inherits WHERE inhrelid = to_regclass($1)"
    return bool(databases.timeseries(asked, f"telemetry_{TODAY + day * DAY:%Y%m%d}")[0][0])


@pytest.fixture
def component() -> Component:
    """As ``/ready`` shows it; ready, until somebody waits."""
    made = Component("timeseries")
    made.ready()
    return made


@pytest.fixture
def partitions(postgres_databases: Databases, component: Component) -> PartitionUpkeep:
    """Of the test's databases."""
    patience = Retrying(component, shortest=0.1, longest=0.1, standing=0.1)
    return PartitionUpkeep(database(postgres_databases.timeseries_dsn), patience)


@contextlib.asynccontextmanager
async def holding(databases: Databases, statement: str) -> AsyncIterator[None]:
    """Somebody else's transaction, which keeps what this statement locks."""
    connection = await asyncpg.connect(databases.timeseries_dsn)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


async def store(writer: Writer, time_us: int) -> None:
    """One reading of this time."""
    filling = Filling()
    filling.timed(a_device(), time_us, {"n": 1})
    assert (await written(writer, filling.batch)).outcomes == [Outcome.STORED]


HOLDERS = {
    "a query": "SELECT count(*) FROM telemetry",
    "a backup": "LOCK TABLE telemetry, telemetry_default IN ACCESS SHARE MODE",
    "a writer": f"INSERT INTO telemetry VALUES ('{TODAY - 300 * DAY}', gen_random_uuid(), gen_random_uuid(), '{{}}')",
    "a vacuum": "LOCK TABLE telemetry_default IN SHARE UPDATE EXCLUSIVE MODE",
    "an analyze": "LOCK TABLE telemetry IN SHARE UPDATE EXCLUSIVE MODE",
}


@pytest.mark.parametrize("holder", HOLDERS)
async def test_whoever_holds_the_tables_nobody_waits(
    postgres_databases: Databases,
    make_writer: Writers,
    partitions: PartitionUpkeep,
    component: Component,
    holder: str,
) -> None:
    """A partition is due: ready all the while, readings of any time are stored at once; then it is made."""
    missing(postgres_databases, 0, 1, 6)
    writer, slowest, seen = make_writer(postgres_databases.timeseries_dsn), 0.0, set()
    async with holding(postgres_databases, HOLDERS[holder]):
        making = asyncio.create_task(partitions.keep())
        try:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                for time_us in (LATE_US, NOW_US, NOW_US + 6 * DAY_US, NOW_US + 90 * DAY_US):
                    began = time.monotonic()
                    await store(writer, time_us)
                    slowest = max(slowest, time.monotonic() - began)
                seen.add(component.state)
            assert partitions._postponed
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
    assert seen == {ComponentState.READY}
    assert slowest < 0.7, f"a batch waited {slowest:.1f} s"
    assert not attached(postgres_databases, 0)
    await partitions.once()
    assert all(attached(postgres_databases, day) for day in (0, 1, 6))


async def test_it_tells_who_is_in_the_way(postgres_databases: Databases, partitions: PartitionUpkeep) -> None:
    """Once, with the process at the server; a day that is left to the DEFAULT partition, with what to run."""
    missing(postgres_databases, 5)
    name = f"telemetry_{TODAY + 5 * DAY:%Y%m%d}"
    with capture_logs() as told:
        async with holding(postgres_databases, "SELECT count(*) FROM telemetry"):
            for _ in range(2):
                await partitions.once()
            (pid,) = postgres_databases.timeseries(
                "SELECT pid FROM pg_locks WHERE relation = 'telemetry_default'::regclass AND granted"
            )
        execute(
            postgres_databases.timeseries_dsn,
            f"INSERT INTO telemetry SELECT '{TODAY + 5 * DAY}'::date + n * interval '1 s', gen_random_uuid(), "
            "gen_random_uuid(), '{}' FROM generate_series(1, 10001) AS n",
        )
        for _ in range(2):
            await partitions.once()
    postponed, left = [line for line in told if line["log_level"] == "warning"]
    assert (postponed["event"], postponed["partitions"]) == ("partitions postponed", [name])
    assert f"locked by process {pid[0]}" in postponed["reason"]
    assert (left["event"], left["partition"]) == ("partition not made", name)
    run = re.search(r"SELECT gateway_make_partition.*", left["hint"])
    assert run is not None
    assert postgres_databases.timeseries(run[0])[0][0] == "made"


async def test_a_partition_made_in_the_midst_of_a_statement_refuses_nothing(
    postgres_databases: Databases, make_writer: Writers
) -> None:
    """A COPY that began before finds the DEFAULT partition closed to its reading, and is tried again."""
    day = TODAY + 30 * DAY
    writer, device, filling = make_writer(postgres_databases.timeseries_dsn), a_device(), Filling()
    filling.timed(device, NOW_US + 30 * DAY_US, {"n": 1})
    execute(
        postgres_databases.timeseries_dsn,
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_advisory_xact_lock(1); "
        "RETURN NEW; END$$; CREATE TRIGGER wait BEFORE INSERT ON telemetry FOR EACH STATEMENT EXECUTE FUNCTION wait()",
    )
    async with holding(postgres_databases, "SELECT pg_advisory_xact_lock(1)"):
        writing = asyncio.create_task(writer.write(BatchWrite(filling.batch)))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await eventually_async(lambda: postgres_databases.timeseries(waits)[0][0])
        assert (
            postgres_databases.timeseries("SELECT gateway_make_partition('telemetry', $1)", day)[0][0]
            == "made"
        )
    with pytest.raises(TransientError, match="violates partition constraint") as raised:
        await writing
    assert raised.value.of_all
    assert (await written(writer, filling.batch)).outcomes == [Outcome.STORED]
    assert postgres_databases.count(f"telemetry_{day:%Y%m%d}") == 1


async def test_what_a_killed_gateway_began_is_ended(
    postgres_databases: Databases, make_writer: Writers, partitions: PartitionUpkeep
) -> None:
    """Between the steps a reading of the day is held, neither refused nor lost; the next look makes the partition."""
    day, writer, filling = TODAY + 200 * DAY, make_writer(postgres_databases.timeseries_dsn), Filling()
    execute(
        postgres_databases.timeseries_dsn,
        f"ALTER TABLE telemetry_default ADD CONSTRAINT gateway_without_{day:%Y%m%d} "
        f"CHECK (NOT (time >= '{day} 00:00+00' AND time < '{day + DAY} 00:00+00')) NOT VALID",
    )
    filling.timed(a_device(), NOW_US + 200 * DAY_US, {"n": 1})
    with pytest.raises(TransientError, match="gateway_without") as raised:
        await writer.write(BatchWrite(filling.batch))
    assert raised.value.of_all
    await partitions.once()
    assert (await written(writer, filling.batch)).outcomes == [Outcome.STORED]
    assert attached(postgres_databases, 200)
