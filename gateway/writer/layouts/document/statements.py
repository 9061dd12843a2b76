"""What the writer asks of a table of the layout ``document``. Staged rows are joined with those that are there."""

from __future__ import annotations

from gateway.writer.layouts.base import Statements
from gateway.writer.layouts.document.encoding import COLUMNS

STAGED = "gateway_staged"
CONTENT = "jsonb_hash_extended(jsonb_build_array(data, metadata), 0)"

_COLUMNS = ", ".join(COLUMNS)
_JOINED = f"{STAGED} AS staged JOIN {{table}} AS kept USING (device_id, time)"

_INSERT = f"""
INSERT INTO {{table}} AS kept ({_COLUMNS})
SELECT {_COLUMNS} FROM {STAGED} ORDER BY time, device_id
ON CONFLICT (device_id, time) {{action}}
RETURNING time, device_id
"""
# Sorted, so that two transactions never wait for each other in a circle.
_LATE = "coalesce(excluded.received_at < kept.received_at, false)"
"""It was received before the reading that is there."""
_NEWER = "greatest(kept.received_at, excluded.received_at)"
_UNITED = f"CASE WHEN {_LATE} THEN excluded.data || kept.data ELSE kept.data || excluded.data END"
_UNITED_METADATA = f"""
CASE WHEN {_LATE} THEN coalesce(excluded.metadata || kept.metadata, kept.metadata, excluded.metadata)
ELSE coalesce(kept.metadata || excluded.metadata, kept.metadata, excluded.metadata) END
"""
_MERGED = f"""
DO UPDATE SET data = {_UNITED}, metadata = {_UNITED_METADATA}, received_at = {_NEWER}
WHERE (kept.data, kept.metadata) IS DISTINCT FROM ({_UNITED}, {_UNITED_METADATA})
"""
_TAKEN_OVER = "data = excluded.data, metadata = excluded.metadata, received_at = excluded.received_at"
_OTHER = "(kept.data, kept.metadata) IS DISTINCT FROM (excluded.data, excluded.metadata)"
_REPLACED = f"DO UPDATE SET {_TAKEN_OVER} WHERE NOT {_LATE} AND {_OTHER}"
_KEPT = f"DO UPDATE SET {_TAKEN_OVER} WHERE {_LATE} AND {_OTHER}"
_ACTIONS = {"merge": _MERGED, "replace": _REPLACED, "keep": _KEPT, "distinct": "DO NOTHING"}

_OVERWRITTEN = f"""
SELECT time, device_id, 0 AS size FROM {_JOINED}
WHERE staged.data || kept.data <> kept.data || staged.data
"""
_SIZE = "pg_column_size({0}.data) + coalesce(pg_column_size({0}.metadata), 0)"
_KEPT_SIZE, _STAGED_SIZE, _UNITED_SIZE = (_SIZE.format(name) for name in ("kept", "staged", "united"))
_UNREAD = f"{_KEPT_SIZE} > $1 AND {_STAGED_SIZE} <= $1"
"""What is there is too large even as it lies on the disk, compressed, and is not the staged reading itself."""
_MEETING = f"""
SELECT time, device_id, size FROM (
    SELECT time, device_id,
    CASE WHEN {_UNREAD} THEN {_KEPT_SIZE} ELSE (
        SELECT {_UNITED_SIZE}
        FROM (SELECT {_UNITED} AS data, {_UNITED_METADATA} AS metadata OFFSET 0) AS united
        WHERE {_UNITED_SIZE} > $1
        AND (united.data, united.metadata) IS DISTINCT FROM (kept.data, kept.metadata)
    ) END AS size,
    CASE WHEN {_UNREAD} THEN false ELSE staged.data || kept.data <> kept.data || staged.data END AS overwritten
    FROM {_JOINED}
) AS met
WHERE size > 0 OR overwritten
""".replace("excluded.", "staged.")

_TAKEN_BY_OTHERS = f"""
SELECT staged.time, staged.device_id FROM {_JOINED}
WHERE (kept.data, kept.metadata) IS DISTINCT FROM (staged.data, staged.metadata)
"""
_TAKEN = f"SELECT time, device_id FROM {STAGED} JOIN {{table}} USING (device_id, time)"


def statements(table: str) -> Statements:
    """Those of this table, an SQL identifier."""
    return Statements(
        inserts={name: _INSERT.format(table=table, action=action) for name, action in _ACTIONS.items()},
        overwritten=_OVERWRITTEN.format(table=table),
        merged=_MEETING.format(table=table),
        taken=_TAKEN.format(table=table),
        taken_by_others=_TAKEN_BY_OTHERS.format(table=table),
    )
