"""The contract of an engine. One value a database, found once; it keeps no connection."""

from __future__ import annotations

import datetime as dt
from typing import Literal, Protocol

import asyncpg


class Engine(Protocol):
    """How one kind of database does what the gateway asks of every kind."""

    @property
    def name(self) -> Literal["postgresql", "timescaledb"]:
        """The kind, for code and JSON."""

    @property
    def server_version(self) -> str:
        """PostgreSQL's version."""

    @property
    def version(self) -> str:
        """Version of what makes the engine: the extension, or PostgreSQL itself."""

    @property
    def license(self) -> Literal["apache", "community"] | None:
        """Edition of TimescaleDB; None for plain PostgreSQL."""

    def describe(self) -> str:
        """Name, edition and version, for people."""

    async def make_partitions(
        self, connection: asyncpg.Connection, since: dt.datetime, until: dt.datetime
    ) -> int:
        """Have partitions ready for readings from ``since`` until before ``until``, at most 366 days apart.

        Idempotent. Returns how many were made. Where rows in the DEFAULT partition are in the way, they stay
        there and that partition is not made.

        Raises:
            asyncpg.PostgresError: 22023 for an absurd range; 55P03 while a long query holds the DEFAULT
                partition.
        """
