"""What the time-series database holds: the last readings, and the counts that prove the books."""

from __future__ import annotations

import collections
import dataclasses
import json
import uuid
from collections.abc import Sequence
from typing import Any

import asyncpg

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

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def latest(self, devices: Sequence[uuid.UUID]) -> dict[uuid.UUID, dict[str, Any]]:
        """The metrics of the newest reading of each device that has one."""
        rows = await self._connection.fetch(_LATEST, devices)
        return {row["id"]: json.loads(row["data"]) for row in rows}

    async def count(self) -> Counts:
        """Count everything, row by row."""
        rows = await self._connection.fetchval("SELECT count(*) FROM telemetry")
        reasons = await self._connection.fetch("SELECT reason, count(*) FROM dead_letters GROUP BY reason")
        return Counts(rows, collections.Counter(dict(reasons)))
