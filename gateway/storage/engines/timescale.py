"""TimescaleDB: hypertables, which make their own chunks."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import asyncpg

from gateway.storage.engines.base import Chunks, PartitionOutcome


@dataclass(frozen=True)
class TimescaleEngine:
    """See :class:`gateway.storage.engines.base.Engine`.

    Attributes:
        setting: the server's ``timescaledb.license``: ``apache`` or ``timescale``.
    """

    server_version: str
    version: str
    setting: str
    name: Literal["timescaledb"] = "timescaledb"

    @property
    def license(self) -> Literal["apache", "community"]:
        """The edition, by the name its vendor gives it."""
        return "community" if self.setting == "timescale" else "apache"

    def describe(self) -> str:
        """For people: ``TimescaleDB Apache 2.19.3 on PostgreSQL 17.6``."""
        return f"TimescaleDB {self.license.title()} {self.version} on PostgreSQL {self.server_version}"

    async def chunks(self, connection: asyncpg.Connection) -> Chunks:
        """As the catalogue has them."""
        interval_us = await connection.fetchval(_INTERVAL)
        ranges = [(row["since"], row["until"]) for row in await connection.fetch(_CHUNKS)]
        return Chunks(interval_us or 0, ranges)

    async def missing_partitions(
        self, connection: asyncpg.Connection, since: dt.date, until: dt.date
    ) -> list[str]:
        """None."""
        return []

    async def make_partitions(
        self, connection: asyncpg.Connection, since: dt.date, until: dt.date
    ) -> PartitionOutcome:
        """Nothing to do: a chunk is made by the first row that needs it."""
        return PartitionOutcome()


_MICROS = "(extract(epoch FROM {}) * 1000000)::bigint"
_INTERVAL = f"""
SELECT {_MICROS.format("time_interval")} FROM timescaledb_information.dimensions
WHERE hypertable_schema = 'public' AND hypertable_name = 'telemetry' AND dimension_type = 'Time'
"""
_CHUNKS = f"""
SELECT {_MICROS.format("range_start")} AS since, {_MICROS.format("range_end")} AS until
FROM timescaledb_information.chunks WHERE hypertable_schema = 'public' AND hypertable_name = 'telemetry'
"""
