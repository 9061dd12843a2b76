"""What kind of database this is, as found from a connection. Everything else asks here, never the server."""

from __future__ import annotations

import asyncpg

from gateway.storage.engines.base import Chunks, Engine, PartitionOutcome
from gateway.storage.engines.postgres import PostgresEngine
from gateway.storage.engines.timescale import TimescaleEngine

__all__ = ["Chunks", "Engine", "PartitionOutcome", "PostgresEngine", "TimescaleEngine", "detect"]

# A telemetry table that is partitioned (relkind p) was made without TimescaleDB and stays so, whatever
# extension came later.
_DETECT = """
SELECT split_part(current_setting('server_version'), ' ', 1) AS server_version,
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescaledb,
       current_setting('timescaledb.license', true) AS license,
       EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('telemetry') AND relkind = 'p') AS partitioned
"""


async def detect(connection: asyncpg.Connection) -> Engine:
    """The engine behind this connection."""
    row = await connection.fetchrow(_DETECT)
    if row["timescaledb"] is None or row["partitioned"]:
        return PostgresEngine(row["server_version"])
    return TimescaleEngine(row["server_version"], row["timescaledb"], row["license"] or "apache")
