"""TimescaleDB: hypertables, which make their own chunks."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import asyncpg

from gateway.storage.engines.base import PartitionOutcome


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
