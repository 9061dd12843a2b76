"""Sessions of the server that hold locks others wait for: process, role and program, and how to end them."""

from __future__ import annotations

import asyncpg


async def of(
    connection: asyncpg.Connection, table: str | None = None, *, exclusive: bool = False, others: bool = False
) -> str:
    """The sessions with a lock on this table or view, for people; empty: none.

    Args:
        table: None: any of this gateway's.
        exclusive: only those whose lock keeps another of its kind out, as migrations and ATTACH take it.
        others: not those of our own role, such as the daemon's.
    """
    rows = await connection.fetch(_HOLDERS, table, exclusive, others)
    return ", ".join(
        f"process {row['pid']} of {row['usename'] or 'the server'}"
        + (f" ({row['application_name']})" if row["application_name"] else "")
        for row in rows
    )


# What pg_stat_activity tells of other roles' sessions is their process and role only, unless we may read all.
_HOLDERS = """
SELECT l.pid, a.usename, a.application_name
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
  AND ($1::text IS NULL OR l.relation = to_regclass($1))
  AND NOT ($3 AND a.usename IS NOT DISTINCT FROM current_user)
  AND (NOT $2 OR l.mode IN (
      'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
GROUP BY l.pid, a.usename, a.application_name, a.backend_start ORDER BY a.backend_start LIMIT 5
"""
