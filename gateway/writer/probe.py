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

_NO_PRIVILEGE = "42501"
_NOT_ALLOWED = """
SELECT "table" FROM unnest($1::text[]) AS given ("table") WHERE NOT has_any_column_privilege("table", 'INSERT')
"""
"""The rows that COPY needs; else what it is refused would be looked for in its messages."""


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
    tables = {one.identifier: one.table for one in targets}
    for record in await connection.fetch(_NOT_ALLOWED, list(tables)):
        raise errors.StandingError(
            f"{name}: COPY {tables[record['table']]}: permission denied: this role may not INSERT "
            f"(SQLSTATE {_NO_PRIVILEGE}); {sqlstate.remedy(_NO_PRIVILEGE)}",
            _NO_PRIVILEGE,
            of_all=True,
        )
    if connection.read_only:
        raise errors.StandingError(
            f"{name}: nothing can be written into {' and '.join(tables.values())} (SQLSTATE {pools.READ_ONLY}); "
            f"{sqlstate.remedy(pools.READ_ONLY)}",
            pools.READ_ONLY,
            of_all=True,
        )
