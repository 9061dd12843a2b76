"""The roles of least privilege, and what each may do with which table.

``<prefix>_owner`` owns databases and tables and runs the migrations; ``<prefix>_writer`` is the daemon's;
``<prefix>_reader`` sees one tenant, by ``app.current_tenant_id``. ``gateway db init`` makes them; a migration
knows them by the name of the database's owner.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from gateway import errors
from gateway.storage.revisions import Name

PREFIX = re.compile(r"[a-z][a-z0-9_]{0,49}")


@dataclass(frozen=True)
class Roles:
    """The names, by prefix."""

    prefix: str

    @property
    def owner(self) -> str:
        """Owns the databases, runs the migrations, provisions."""
        return f"{self.prefix}_owner"

    @property
    def writer(self) -> str:
        """The daemon."""
        return f"{self.prefix}_writer"

    @property
    def reader(self) -> str:
        """Reads one tenant."""
        return f"{self.prefix}_reader"


WRITER: Mapping[Name, Mapping[str, str]] = {
    "metadata": {
        "alembic_version_metadata": "SELECT",
        "tenants": "SELECT",
        "device_types": "SELECT",
        "field_mappings": "SELECT",
        "devices": "SELECT, INSERT, UPDATE (last_seen_at)",
        "registry_versions": "SELECT",
    },
    "timeseries": {
        "alembic_version_timeseries": "SELECT",
        "telemetry": "SELECT, INSERT, UPDATE",
        "events": "SELECT, INSERT, UPDATE",
        "metrics": "SELECT, INSERT, UPDATE",
        "dead_letters": "SELECT, INSERT, "
        "UPDATE (stream, reason, detail, tenant, device, replays, replayed_at, replay_outcome)",
        "redelivery_ledger": "SELECT, INSERT, DELETE",
        "mqtt_sessions": "SELECT, INSERT, UPDATE",
        "processed_messages": "SELECT, INSERT, UPDATE, DELETE",
    },
}
"""Every table, and no more of it than the daemon and its operators' commands need.

UPDATE on telemetry is for ``on_conflict``; a DELETE of readings is retention's, which owns the tables. A replay notes
how a dead letter ended, and never touches its bytes.
"""

READER: Mapping[Name, Mapping[str, str]] = {
    "metadata": {
        "alembic_version_metadata": "SELECT",
        "tenants": "SELECT",
        "device_types": "SELECT",
        "field_mappings": "SELECT",
        "devices": "SELECT",
    },
    "timeseries": {
        "alembic_version_timeseries": "SELECT",
        "tenant_telemetry": "SELECT",
        "tenant_events": "SELECT",
        "tenant_metrics": "SELECT",
    },
}
"""Never a table that shows more than one tenant."""


async def find(connection: asyncpg.Connection) -> Roles | None:
    """The roles of this database; None where its owner is no ``<prefix>_owner`` with a writer and a reader."""
    owner = await connection.fetchval(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    )
    found = Roles(owner.removesuffix("_owner"))
    if owner != found.owner or not PREFIX.fullmatch(found.prefix):
        return None
    both = "SELECT count(*) = 2 FROM pg_roles WHERE rolname IN ($1, $2)"
    return found if await connection.fetchval(both, found.writer, found.reader) else None


async def become_owner(connection: asyncpg.Connection) -> None:
    """Whatever is made on this connection from now on belongs to the owner role, where there is one.

    Raises:
        UsageError: the role we came as may not act for the owner.
    """
    found = await find(connection)
    if found is None:
        return
    try:
        await connection.execute(f"SET ROLE {found.owner}")
    except asyncpg.InsufficientPrivilegeError as error:
        user = await connection.fetchval("SELECT current_user")
        raise errors.UsageError(
            f"{user} may not change tables: connect as {found.owner} "
            f"(--db-user {found.owner} --db-password-file …)"
        ) from error


async def grant_tables(connection: asyncpg.Connection, name: Name) -> None:
    """Give writer and reader exactly their privileges on the tables that exist; nothing without roles.

    The caller's role stays the owner's afterwards.
    """
    found = await find(connection)
    if found is None:
        return
    await become_owner(connection)
    async with connection.transaction():
        for role, privileges in ((found.writer, WRITER[name]), (found.reader, READER[name])):
            for table, wanted in privileges.items():
                await _grant(connection, role, table, wanted)
        if name == "metadata":
            await _show_all_tenants(connection, found.writer)
        if await connection.fetchval("SELECT to_regproc('gateway_make_partition')") is not None:
            await connection.execute(f"GRANT EXECUTE ON FUNCTION gateway_make_partition TO {found.writer}")


async def _grant(connection: asyncpg.Connection, role: str, table: str, privileges: str) -> None:
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return
    # TimescaleDB hands both on to every chunk.
    await connection.execute(f"REVOKE ALL ON {table} FROM {role}")
    await connection.execute(f"GRANT {privileges} ON {table} TO {role}")


async def _show_all_tenants(connection: asyncpg.Connection, writer: str) -> None:
    """Policies for a writer that may not bypass row-level security: managed servers let nobody give that."""
    bypasses = await connection.fetchval("SELECT rolbypassrls FROM pg_roles WHERE rolname = $1", writer)
    for row in await connection.fetch(_SECURED, ALL_TENANTS):
        if row["there"] and bypasses:
            await connection.execute(f"DROP POLICY {ALL_TENANTS} ON {row['name']}")
        elif not row["there"] and not bypasses:
            await connection.execute(f"CREATE POLICY {ALL_TENANTS} ON {row['name']} TO {writer} USING (true)")


ALL_TENANTS = "all_tenants"
"""The policy by which a writer without BYPASSRLS sees all rows."""

_SECURED = """
SELECT oid::regclass::text AS name,
       EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = $1) AS there
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relrowsecurity AND pg_get_userbyid(relowner) = current_user
"""
