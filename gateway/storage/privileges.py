"""Whether a log-in may do the daemon's work in a database, and which role it is."""

from __future__ import annotations

import re

import asyncpg

from gateway.storage.revisions import Name
from gateway.storage.roles import ALL_TENANTS, WRITER

_PRIVILEGE = re.compile(r"([A-Z]+)(?: \(([^)]*)\))?")


async def user(connection: asyncpg.Connection) -> str:
    """The role, and what it is more than it needs to be."""
    row = await connection.fetchrow(
        "SELECT rolname::text AS name, rolsuper AS super FROM pg_roles WHERE rolname = current_user"
    )
    return (
        f"{row['name']}, a superuser (the writer of `gateway db init` is enough)"
        if row["super"]
        else row["name"]
    )


async def missing(connection: asyncpg.Connection, name: Name) -> list[str]:
    """What the daemon needs and this log-in may not, ``INSERT on telemetry``, on the tables that are there."""
    lacking = []
    for table, wanted in WRITER[name].items():
        if await connection.fetchval("SELECT to_regclass($1)", table) is None:
            continue
        for privilege, columns in _PRIVILEGE.findall(wanted):
            if not await _has(connection, table, privilege, columns):
                lacking.append(f"{privilege} on {table}")
    return lacking


async def _has(connection: asyncpg.Connection, table: str, privilege: str, columns: str) -> bool:
    if await connection.fetchval("SELECT has_table_privilege($1::text, $2::text)", table, privilege):
        return True
    names = [column.strip() for column in columns.split(",") if column.strip()]
    query = "SELECT bool_and(has_column_privilege($1::text, one, $2::text)) FROM unnest($3::text[]) AS one"
    return bool(names and await connection.fetchval(query, table, privilege, names))


async def sees_all_tenants(connection: asyncpg.Connection) -> bool:
    """Whether row-level security hides nothing from this log-in. The registry's tables must be there."""
    sees: bool = await connection.fetchval(_SEES_ALL, ALL_TENANTS)
    return sees


_SEES_ALL = """
SELECT NOT row_security_active('tenants') OR EXISTS (
    SELECT FROM pg_policy, unnest(polroles) AS role
    WHERE polrelid = 'tenants'::regclass AND polname = $1 AND pg_has_role(role, 'USAGE'))
"""


async def tenants_without(
    connection: asyncpg.Connection, device_type: str, tenant: str | None
) -> list[tuple[str, bool]]:
    """The tenants, or the one, with whether they lack a device type of this name."""
    rows = await connection.fetch(
        "SELECT t.slug, NOT EXISTS (SELECT FROM device_types d WHERE d.tenant_id = t.id AND d.name = $1) AS lacks "
        "FROM tenants t WHERE $2::text IS NULL OR t.slug = $2 ORDER BY t.slug",
        device_type,
        tenant,
    )
    return [(row["slug"], row["lacks"]) for row in rows]
