"""What the time-series database holds: the last readings, and the counts that prove the books."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import asyncpg

from gateway import settings
from gateway.storage import pools

_LATEST = """
    SELECT wanted.id, latest.data
    FROM unnest($1::uuid[]) AS wanted (id)
    CROSS JOIN LATERAL (
        SELECT data::text FROM telemetry WHERE device_id = wanted.id ORDER BY time DESC LIMIT 1
    ) AS latest
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """Rows of ``telemetry``, and of ``dead_letters`` by reason."""

    rows: int
    dead_letters: collections.Counter[str]

    def since(self, earlier: Counts) -> Counts:
        """What was added after an earlier count."""
        return Counts(self.rows - earlier.rows, self.dead_letters - earlier.dead_letters)


class Tables:
    """A connection of the demo's own, beside the gateway's."""

    def __init__(self, connection: asyncpg.Connection, devices: Mapping[str, uuid.UUID]) -> None:
        self._connection = connection
        self._serials = {identity: serial for serial, identity in devices.items()}

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, database: settings.DatabaseSettings, devices: Mapping[str, uuid.UUID]
    ) -> AsyncIterator[Self]:
        """Connect for the block.

        Args:
            database: the time-series database.
            devices: id by serial number, of those whose readings are wanted.

        Raises:
            StoreError: the database cannot be reached.
        """
        connection = await pools.connect(database, application_name="gateway-demo")
        try:
            yield cls(connection, devices)
        finally:
            await connection.close()

    async def latest(self) -> dict[str, dict[str, Any]]:
        """The metrics of each device's newest reading, by serial number."""
        with pools.translate("timeseries"):
            rows = await self._connection.fetch(_LATEST, list(self._serials))
        return {self._serials[row["id"]]: json.loads(row["data"]) for row in rows}

    async def count(self) -> Counts:
        """Count everything, row by row."""
        with pools.translate("timeseries"):
            rows = await self._connection.fetchval("SELECT count(*) FROM telemetry")
            reasons = await self._connection.fetch(
                "SELECT reason, count(*) FROM dead_letters GROUP BY reason"
            )
        return Counts(rows, collections.Counter(dict(reasons)))
