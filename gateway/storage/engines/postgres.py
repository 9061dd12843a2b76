"""Plain PostgreSQL: range partitions of a UTC day, made ahead of need."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import asyncpg

from gateway.storage import holders as holding
from gateway.storage.engines.base import Chunks, PartitionOutcome


@dataclass(frozen=True)
class PostgresEngine:
    """See :class:`gateway.storage.engines.base.Engine`."""

    server_version: str
    name: Literal["postgresql"] = "postgresql"
    license: None = None

    @property
    def version(self) -> str:
        """PostgreSQL's version."""
        return self.server_version

    def describe(self) -> str:
        """For people: ``PostgreSQL 18.1``."""
        return f"PostgreSQL {self.server_version}"

    async def chunks(self, connection: asyncpg.Connection) -> Chunks:
        """None: partitions are made ahead, and the DEFAULT partition takes what has none."""
        return Chunks()

    async def missing_partitions(
        self, connection: asyncpg.Connection, since: dt.date, until: dt.date
    ) -> list[str]:
        """Of all tables that have partitions."""
        return [_name(row) for row in await connection.fetch(_MISSING, since, until)]

    async def make_partitions(
        self, connection: asyncpg.Connection, since: dt.date, until: dt.date
    ) -> PartitionOutcome:
        """By the SQL function of the migrations, which runs as the owner of the tables; one transaction a step."""
        ends: dict[str, list[str]] = {"made": [], "left": []}
        postponed: dict[str, str] = {}
        in_use: dict[str, str] = {}
        for row in await connection.fetch(_MISSING, since, until):
            table, name = row["parent"], _name(row)
            if table not in in_use:
                try:
                    end = await _make(connection, table, row["day"])
                except _PASSING as error:
                    # The session that held this day's lock holds those of the others too.
                    in_use[table] = await _told(connection, table, error)
                else:
                    ends.get(end, []).append(name)
            if table in in_use:
                postponed[name] = in_use[table]
        return PartitionOutcome(ends["made"], ends["left"], postponed)


def _name(row: asyncpg.Record) -> str:
    return f"{row['parent']}_{row['day']:%Y%m%d}"


async def _make(connection: asyncpg.Connection, table: str, day: dt.date) -> str:
    """Take all steps that one partition needs; how it ended: ``made``, ``left``, or ``there`` (made by another)."""
    patience: float | None = None
    while True:
        async with connection.transaction():
            await connection.execute(
                "SET LOCAL statement_timeout = 0"
            )  # one step may look through a large table
            end: str = await connection.fetchval(_MAKE, table, day, timeout=patience)
        if end == "busy":
            holders = await holding.of(connection, table, exclusive=True)
            raise asyncpg.LockNotAvailableError(
                f"another session is at work on {table}: {holders or 'just gone'}"
            )
        if end != "again":
            return end
        patience = _LOOKING_THROUGH


async def _told(connection: asyncpg.Connection, table: str, error: asyncpg.PostgresError) -> str:
    """The error, and which sessions may be behind it."""
    holders = await holding.of(connection, f"{table}_default")
    return f"{error} (locked by {holders})" if holders else str(error)


_LOOKING_THROUGH = 3600.0
"""Seconds for a step that looks through a large DEFAULT partition; no message waits for it."""

_PASSING = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.QueryCanceledError)
_MAKE = "SELECT gateway_make_partition($1, $2)"

# Those that were begun come first, whatever their day: until they are made, readings of their days are refused.
_MISSING = r"""
SELECT parent, day FROM (
    SELECT true AS begun, partrelid::regclass::text AS parent, to_date(right(conname, 8), 'YYYYMMDD') AS day
    FROM pg_partitioned_table JOIN pg_constraint ON conrelid = partdefid
    WHERE conname LIKE 'gateway\_without\_%'
    UNION ALL
    SELECT false, parent, day::date
    FROM unnest(ARRAY['telemetry', 'events', 'metrics']) AS parent,
        generate_series($1::date, $2::date - 1, '1 day') AS day
) AS wanted
WHERE to_regclass(parent || to_char(day, '"_"YYYYMMDD')) IS NULL
GROUP BY parent, day ORDER BY bool_or(begun) DESC, abs(day - current_date), parent
"""
