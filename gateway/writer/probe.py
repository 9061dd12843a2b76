"""Whether a time-series database has what the writer needs, and takes rows."""

from __future__ import annotations

from typing import Any

from gateway import errors
from gateway.storage import pools, sqlstate

PROBE = """
SELECT time, device_id, tenant_id, data, metadata, received_at FROM telemetry WHERE false;
SELECT id, payload_digest FROM dead_letters WHERE false;
SELECT key FROM dead_letter_hours WHERE false;
SELECT session FROM redelivery_ledger WHERE false;
SELECT filters FROM mqtt_sessions WHERE false;
SELECT message_id, digest FROM processed_messages WHERE false;
"""


async def probe(connection: Any, name: str) -> None:
    """See that the database has what the writer needs, and that this session may write.

    Raises:
        StandingError: it may not.
        Exception: the driver's.
    """
    await connection.execute(PROBE)
    if connection.read_only:
        raise errors.StandingError(
            f"{name}: nothing can be written into telemetry (SQLSTATE {pools.READ_ONLY}); "
            f"{sqlstate.remedy(pools.READ_ONLY)}",
            pools.READ_ONLY,
            of_all=True,
        )
