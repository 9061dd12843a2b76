"""The contract of an engine. One value a database, found once; it keeps no connection."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import asyncpg


@dataclass(frozen=True)
class PartitionOutcome:
    """What became of partitions that were missing, by name.

    Attributes:
        made: they take readings from now on.
        left: the DEFAULT partition has readings of these days, too many to move them beside others' work, or is too
            large to be looked through; they stay there.
        postponed: why nothing could be done just now.
    """

    made: Sequence[str] = ()
    left: Sequence[str] = ()
    postponed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Chunks:
    """Those that readings have made.

    Attributes:
        interval_us: how long the next one is; 0: readings make none.
        ranges: from a time to before another, µs since the Unix epoch.
    """

    interval_us: int = 0
    ranges: Sequence[tuple[int, int]] = ()


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

    async def chunks(self, connection: asyncpg.Connection) -> Chunks:
        """Those of ``telemetry``."""

    async def missing_partitions(
        self, connection: asyncpg.Connection, since: dt.date, until: dt.date
    ) -> Sequence[str]:
        """Names of partitions that these days need, ``until`` not among them, and that are not there."""

    async def make_partitions(
        self, connection: asyncpg.Connection, since: dt.date, until: dt.date
    ) -> PartitionOutcome:
        """Have partitions ready for readings from ``since`` until before ``until``, UTC days, at most 366 from now.

        Idempotent; no message waits for it: what cannot be had at once is left for another time, and readings go into
        the DEFAULT partition meanwhile. Outside of a transaction only.

        Raises:
            asyncpg.PostgresError: 22023 for an absurd range.
        """
