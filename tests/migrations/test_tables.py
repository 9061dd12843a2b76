"""What the tables promise to those who write and read them."""

from __future__ import annotations

import datetime as dt
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.databases import Databases
from tests.support.sql import execute, query

DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)
TODAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0)

_PLACE = "INSERT INTO telemetry VALUES ($1, $2, $3, '{}') RETURNING tableoid::regclass::text"


def place(databases: Databases, time: dt.datetime) -> str:
    """Store a reading of this time; the partition that it landed in."""
    found: str = databases.timeseries(_PLACE, time, uuid4(), uuid4())[0][0]
    return found


def partitions(databases: Databases, table: str = "telemetry") -> set[str]:
    """Names of a table's partitions."""
    rows = databases.timeseries("SELECT relid::regclass::text FROM pg_partition_tree($1) WHERE isleaf", table)
    return {row[0] for row in rows}


def make(databases: Databases, day: dt.datetime, table: str = "telemetry", *, whole: bool = False) -> str:
    """What became of the partition of this day."""
    asked = "SELECT gateway_make_partition($1, $2, $3)"
    found: str = databases.timeseries(asked, table, day.date(), whole)[0][0]
    return found


@pytest.mark.parametrize(
    "time", [NOW, NOW - 400 * DAY, NOW + 400 * DAY, dt.datetime(1971, 1, 1, tzinfo=dt.UTC)]
)
def test_readings_of_any_time_are_stored(databases: Databases, time: dt.datetime) -> None:
    """Late and far-future readings never fail for want of a partition, on either engine."""
    place(databases, time)
    assert databases.count("telemetry") == 1


def test_the_engine_decides_how_tables_are_divided(databases: Databases) -> None:
    """Hypertables with chunks of a day (metrics: an hour) on TimescaleDB; partitions elsewhere."""
    if databases.engine == "timescaledb":
        rows = databases.timeseries(
            "SELECT hypertable_name, time_interval FROM timescaledb_information.dimensions ORDER BY 1"
        )
        hour = dt.timedelta(hours=1)
        assert [tuple(row) for row in rows] == [("events", DAY), ("metrics", hour), ("telemetry", DAY)]
    else:
        rows = databases.timeseries("SELECT relname::text FROM pg_class WHERE relkind = 'p' ORDER BY 1")
        assert [row[0] for row in rows] == ["events", "metrics", "telemetry"]


def test_key_and_index_of_telemetry_are_the_measured_ones(databases: Databases) -> None:
    """One key (device, time) and one index (tenant, time): every further index costs ingestion."""
    rows = databases.timeseries(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'telemetry'::regclass"
    )
    assert sorted(row[0].partition("USING ")[2] for row in rows) == [
        'btree (device_id, "time")',
        'btree (tenant_id, "time" DESC)',
    ]


def test_a_week_is_made_ahead(postgres_databases: Databases) -> None:
    """After the migration, readings of now and the next days have partitions of their own."""
    for time in (NOW - DAY, NOW, NOW + 6 * DAY):
        assert place(postgres_databases, time) == f"telemetry_{time:%Y%m%d}"


def test_what_no_partition_covers_lands_in_default(postgres_databases: Databases) -> None:
    """Late and far-future readings are kept apart from the partitions of their neighbours."""
    assert place(postgres_databases, NOW - 400 * DAY) == "telemetry_default"
    assert place(postgres_databases, NOW + 400 * DAY) == "telemetry_default"


@pytest.mark.parametrize("table", ["telemetry", "events", "metrics"])
def test_partitions_are_made_once(postgres_databases: Databases, table: str) -> None:
    """A UTC day each, whole, and no more; once it is there nothing happens."""
    day = TODAY + 30 * DAY
    assert make(postgres_databases, day, table) == "made"
    assert make(postgres_databases, day, table) == "there"
    assert f"{table}_{day:%Y%m%d}" in partitions(postgres_databases, table)
    if table == "telemetry":
        last = day + DAY - dt.timedelta(microseconds=1)
        assert place(postgres_databases, day) == place(postgres_databases, last) == f"telemetry_{day:%Y%m%d}"
        assert place(postgres_databases, day + DAY) == "telemetry_default"


def test_a_partition_that_was_detached_stays_so(postgres_databases: Databases) -> None:
    """Somebody archives it: it is neither attached again nor made anew."""
    execute(
        postgres_databases.timeseries_dsn, f"ALTER TABLE telemetry DETACH PARTITION telemetry_{NOW:%Y%m%d}"
    )
    assert make(postgres_databases, TODAY) == "there"
    assert place(postgres_databases, NOW) == "telemetry_default"


def test_a_few_rows_in_default_are_moved(postgres_databases: Databases) -> None:
    """Those of the day come into its partition, the others stay, none is lost."""
    day = TODAY + 40 * DAY
    for time in (day - DAY / 2, day, day + DAY / 2, day + DAY):
        assert place(postgres_databases, time) == "telemetry_default"
    assert make(postgres_databases, day) == "made"
    moved = postgres_databases.timeseries(f"SELECT time FROM telemetry_{day:%Y%m%d} ORDER BY 1")
    assert [row["time"] for row in moved] == [day, day + DAY / 2]
    assert postgres_databases.count("telemetry_default") == 2


def test_many_rows_in_default_stay_until_they_are_moved_on_purpose(postgres_databases: Databases) -> None:
    """To move them takes its time under a lock, so somebody has to ask for it; days beside are made."""
    day = TODAY + 40 * DAY
    fill(postgres_databases, day, 10_001)
    assert make(postgres_databases, day) == "left"
    assert make(postgres_databases, day + DAY) == "made"
    assert place(postgres_databases, day + DAY / 2) == "telemetry_default"
    assert make(postgres_databases, day, whole=True) == "made"
    assert postgres_databases.count(f"telemetry_{day:%Y%m%d}") == 10_002
    assert postgres_databases.count("telemetry_default") == 0


def fill(databases: Databases, since: dt.datetime, count: int, width: int = 0) -> None:
    """So many rows within a day."""
    execute(
        databases.timeseries_dsn,
        f"INSERT INTO telemetry SELECT '{since}'::timestamptz + n * interval '1 ms', gen_random_uuid(), "
        f"gen_random_uuid(), jsonb_build_object('a', repeat('x', {width})) FROM generate_series(1, {count}) AS n",
    )


async def test_a_large_default_is_not_scanned_under_the_lock(postgres_databases: Databases) -> None:
    """It is looked through beforehand, by steps that let everybody through: the server says that ATTACH need not."""
    day, told = TODAY + 40 * DAY, []
    fill(postgres_databases, TODAY - 400 * DAY, 40_000, width=900)
    connection = await asyncpg.connect(
        postgres_databases.timeseries_dsn, server_settings={"client_min_messages": "debug1"}
    )
    connection.add_log_listener(lambda _, message: told.append(message.message))
    try:
        steps = [
            await connection.fetchval("SELECT gateway_make_partition('telemetry', $1)", day.date())
            for _ in range(3)
        ]
    finally:
        await connection.close()
    assert steps == ["again", "again", "made"]
    assert [line for line in told if "implied by existing constraints" in line], told
    left = "SELECT count(*) FROM pg_constraint WHERE conname LIKE 'gateway_without%'"
    assert postgres_databases.timeseries(left)[0][0] == 0
    assert place(postgres_databases, day) == f"telemetry_{day:%Y%m%d}"


@pytest.mark.parametrize("days", [-3, 0, 1])
def test_a_large_default_refuses_no_readings_that_come_now(postgres_databases: Databases, days: int) -> None:
    """A day that may have readings by now gets no constraint against them: they go on into the DEFAULT partition."""
    day = TODAY + days * DAY
    execute(postgres_databases.timeseries_dsn, f"DROP TABLE IF EXISTS telemetry_{day:%Y%m%d}")
    fill(postgres_databases, TODAY - 400 * DAY, 40_000, width=900)
    assert make(postgres_databases, day) == "left"
    assert place(postgres_databases, day + DAY / 2) == "telemetry_default"


@pytest.mark.parametrize(
    ("table", "day"),
    [
        ("telemetry", TODAY + 400 * DAY),
        ("telemetry", dt.datetime(1960, 1, 1, tzinfo=dt.UTC)),
        ("dead_letters", TODAY),
        (None, TODAY),
    ],
)
def test_absurd_partitions_are_refused(
    postgres_databases: Databases, table: str | None, day: dt.datetime
) -> None:
    """Nothing is made, and the error says what goes."""
    before = partitions(postgres_databases)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot make a partition"):
        postgres_databases.timeseries("SELECT gateway_make_partition($1, $2)", table, day.date())
    assert partitions(postgres_databases) == before


async def test_making_partitions_does_not_wait_for_a_running_copy(postgres_databases: Databases) -> None:
    """A writer in the midst of a transaction on today's partition holds nothing up, and is not held up."""
    writer = await asyncpg.connect(postgres_databases.timeseries_dsn)
    try:
        async with writer.transaction():
            await writer.execute(_PLACE, NOW, uuid4(), uuid4())
            assert make(postgres_databases, TODAY + 50 * DAY) == "made"
            await writer.execute(_PLACE, NOW, uuid4(), uuid4())
    finally:
        await writer.close()


@pytest.mark.parametrize("table", ["telemetry", "events", "metrics"])
def test_tenant_views_show_one_tenant(databases: Databases, table: str) -> None:
    """Only rows of the tenant that the log-in is bound to; none without that, whatever it sets. A range is a range."""
    ours, theirs = uuid4(), uuid4()
    for tenant in (ours, theirs):
        execute(databases.timeseries_dsn, _row(table, tenant))
    shown = f"SELECT tenant_id FROM tenant_{table}"
    assert query(f"{databases.timeseries_dsn}?app.current_tenant_id={ours}", shown) == []
    bind = "INSERT INTO telemetry_readers (role, tenant_id) VALUES (session_user, $1)"
    databases.timeseries(bind, ours)
    assert [row[0] for row in databases.timeseries(shown)] == [ours]
    for since, until, expected in (
        ("-infinity", "now", 1),
        ("now", "infinity", 0),
        ("-infinity", "-infinity", 0),
    ):
        count = f"SELECT count(*) FROM tenant_{table}($1::text::timestamptz, $2::text::timestamptz)"
        assert databases.timeseries(count, since, until) == [(expected,)]


def _row(table: str, tenant: UUID) -> str:
    values = {
        "telemetry": f"now(), gen_random_uuid(), '{tenant}', '{{}}'",
        "events": f"now(), gen_random_uuid(), '{tenant}', 'door', 'Error'",
        "metrics": f"now(), 'rows', 1, NULL, '{tenant}'",
    }
    return f"INSERT INTO {table} VALUES ({values[table]})"
