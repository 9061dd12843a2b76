"""Whether a time-series database has what the writer needs, and takes rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gateway import errors
from gateway.storage import pools, sqlstate
from gateway.writer.layouts.base import StreamTarget

_BESIDE = """
SELECT id, payload_digest FROM dead_letters WHERE false;
SELECT key FROM dead_letter_hours WHERE false;
SELECT session FROM redelivery_ledger WHERE false;
SELECT filters FROM mqtt_sessions WHERE false;
SELECT message_id, digest FROM processed_messages WHERE false;
"""


async def probe(connection: Any, name: str, targets: Collection[StreamTarget]) -> None:
    """See that the database has what the writer needs, and that this session may write.

    Args:
        targets: the tables that readings go to.

    Raises:
        StandingError: it may not.
        Exception: the driver's.
    """
    wanted = (
        f"SELECT {', '.join(one.layout.columns)} FROM {one.identifier} WHERE false;\n" for one in targets
    )
    await connection.execute("".join(wanted) + _BESIDE)
    if connection.read_only:
        tables = " and ".join(one.table for one in targets)
        raise errors.StandingError(
            f"{name}: nothing can be written into {tables} (SQLSTATE {pools.READ_ONLY}); "
            f"{sqlstate.remedy(pools.READ_ONLY)}",
            pools.READ_ONLY,
            of_all=True,
        )
