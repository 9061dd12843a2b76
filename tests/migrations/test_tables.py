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


def make(databases: Databases, since: dt.datetime, until: dt.datetime) -> int:
    """Partitions made for this range."""
    found: int = databases.timeseries("SELECT gateway_make_partitions($1, $2)", since, until)[0][0]
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


def test_partitions_are_made_once(postgres_databases: Databases) -> None:
    """The same range again makes nothing; three tables get a partition of each UTC day, the last day excluded."""
    since, until = TODAY + 30 * DAY, TODAY + 32 * DAY
    assert make(postgres_databases, since, until) == 6
    assert make(postgres_databases, since, until) == 0
    assert make(postgres_databases, since + DAY / 2, until + DAY / 2) == 3
    for table in ("telemetry", "events", "metrics"):
        assert f"{table}_{since:%Y%m%d}" in partitions(postgres_databases, table)
    assert (
        place(postgres_databases, since + DAY - dt.timedelta(microseconds=1)) == f"telemetry_{since:%Y%m%d}"
    )


def test_rows_in_default_stay_where_they_are(postgres_databases: Databases) -> None:
    """A partition that rows of the DEFAULT partition forbid is left out; its neighbours are made, no row is lost."""
    day = TODAY + 40 * DAY
    assert place(postgres_databases, day + DAY / 2) == "telemetry_default"
    assert make(postgres_databases, day - DAY, day + 2 * DAY) == 8
    made = partitions(postgres_databases)
    assert f"telemetry_{day:%Y%m%d}" not in made
    assert {f"telemetry_{day - DAY:%Y%m%d}", f"telemetry_{day + DAY:%Y%m%d}"} <= made
    assert place(postgres_databases, day) == "telemetry_default"
    assert postgres_databases.count("telemetry") == 2


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (TODAY, TODAY + 400 * DAY),
        (TODAY + 400 * DAY, TODAY + 401 * DAY),
        (TODAY, TODAY - DAY),
        (dt.datetime(1960, 1, 1, tzinfo=dt.UTC), dt.datetime(1960, 1, 2, tzinfo=dt.UTC)),
        (None, TODAY),
    ],
)
def test_absurd_ranges_are_refused(
    postgres_databases: Databases, since: dt.datetime | None, until: dt.datetime
) -> None:
    """Nobody makes a thousand partitions by mistake: nothing is made, and the error says what goes."""
    before = partitions(postgres_databases)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot make partitions"):
        postgres_databases.timeseries("SELECT gateway_make_partitions($1, $2)", since, until)
    assert partitions(postgres_databases) == before


async def test_making_partitions_does_not_wait_for_a_running_copy(postgres_databases: Databases) -> None:
    """A writer in the midst of a transaction on today's partition holds nothing up, and is not held up."""
    writer = await asyncpg.connect(postgres_databases.timeseries_dsn)
    try:
        async with writer.transaction():
            await writer.execute(_PLACE, NOW, uuid4(), uuid4())
            assert make(postgres_databases, TODAY + 50 * DAY, TODAY + 51 * DAY) == 3
            await writer.execute(_PLACE, NOW, uuid4(), uuid4())
    finally:
        await writer.close()


@pytest.mark.parametrize("table", ["telemetry", "events", "metrics"])
def test_tenant_views_show_one_tenant(databases: Databases, table: str) -> None:
    """Only rows of ``app.current_tenant_id``; none without it."""
    ours, theirs = uuid4(), uuid4()
    for tenant in (ours, theirs):
        execute(databases.timeseries_dsn, _row(table, tenant))
    shown = f"SELECT tenant_id FROM tenant_{table}"
    assert databases.timeseries(shown) == []
    as_tenant = f"{databases.timeseries_dsn}?app.current_tenant_id={ours}"
    assert [row[0] for row in query(as_tenant, shown)] == [ours]


def _row(table: str, tenant: UUID) -> str:
    values = {
        "telemetry": f"now(), gen_random_uuid(), '{tenant}', '{{}}'",
        "events": f"now(), gen_random_uuid(), '{tenant}', 'door', 'Error'",
        "metrics": f"now(), 'rows', 1, NULL, '{tenant}'",
    }
    return f"INSERT INTO {table} VALUES ({values[table]})"
