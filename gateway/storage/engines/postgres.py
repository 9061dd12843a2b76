"""Plain PostgreSQL: range partitions of a UTC day, made ahead of need."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import asyncpg


@dataclass(frozen=True)
class Postgres:
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

    async def make_partitions(
        self, connection: asyncpg.Connection, since: dt.datetime, until: dt.datetime
    ) -> int:
        """Calls the SQL function of the migrations, which runs as the owner of the tables."""
        made: int = await connection.fetchval("SELECT gateway_make_partitions($1, $2)", since, until)
        return made
