"""The roles of least privilege, and what each may do with which table.

``<prefix>_owner`` owns databases and tables and runs the migrations; ``<prefix>_writer`` is the daemon's;
``<prefix>_reader`` is a log-in for one tenant, as are all that ``gateway tenant reader add`` binds to theirs, and sees
nothing before. ``gateway db init`` makes the three; a migration knows them by the name of the database's owner.
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
        """Reads the tenant that it is bound to, if it is."""
        return f"{self.prefix}_reader"


WRITER: Mapping[Name, Mapping[str, str]] = {
    "metadata": {
        "alembic_version_metadata": "SELECT",
        "tenants": "SELECT",
        "device_types": "SELECT",
        "field_mappings": "SELECT",
        "devices": "SELECT, INSERT, UPDATE (last_seen_at)",
        "provisioned_devices": "SELECT, INSERT, UPDATE",
        "registry_versions": "SELECT",
        "registry_readers": "SELECT",
    },
    "timeseries": {
        "alembic_version_timeseries": "SELECT",
        "telemetry": "SELECT, INSERT, UPDATE",
        "events": "SELECT, INSERT, UPDATE",
        "metrics": "SELECT, INSERT, UPDATE",
        "dead_letters": "SELECT, INSERT, "
        "UPDATE (stream, reason, detail, tenant, device, replays, replayed_at, replay_outcome)",
        "dead_letter_hours": "SELECT, INSERT, UPDATE",
        "redelivery_ledger": "SELECT, INSERT, DELETE",
        "mqtt_sessions": "SELECT, INSERT, UPDATE",
        "processed_messages": "SELECT, INSERT, UPDATE, DELETE",
        "telemetry_readers": "SELECT",
    },
}
"""Every table, and no more of it than the daemon and its operators' commands need.

UPDATE on telemetry is for ``on_conflict``; a DELETE of readings is retention's, which owns the tables. A replay notes
how a dead letter ended, and never touches its bytes; old ones go by a function of the owner.
"""
FUNCTIONS = ("gateway_make_partition", "gateway_purge_dead_letters")
"""What the writer has done by functions of the owner."""

READER: Mapping[Name, tuple[str, ...]] = {
    "metadata": ("tenant", "tenant_device_types", "tenant_devices", "tenant_field_mappings"),
    "timeseries": ("tenant_telemetry", "tenant_events", "tenant_metrics"),
}
"""Views, and functions of the same names behind them, that show the tenant of the asking role; no table."""

BINDINGS: Mapping[Name, str] = {"metadata": "registry_readers", "timeseries": "telemetry_readers"}
"""Which log-in reads which tenant."""


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
    """Give the writer and all readers exactly their privileges on what exists.

    The caller's role stays the owner's afterwards, where there is one.
    """
    found = await find(connection)
    await become_owner(connection)
    async with connection.transaction():
        if found is not None:
            await _grant_writer(connection, name, found.writer)
        bound = await bound_roles(connection, name)
        for role in bound:
            await grant_reader(connection, name, role)
        if found is not None and found.reader not in bound:
            await take_back(connection, found.reader)


async def _grant_writer(connection: asyncpg.Connection, name: Name, writer: str) -> None:
    for table, wanted in WRITER[name].items():
        await _grant(connection, writer, table, wanted)
    if name == "metadata":
        await _show_all_tenants(connection, writer)
    for function in FUNCTIONS:
        if await connection.fetchval("SELECT to_regproc($1)", function) is not None:
            await connection.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {writer}")


async def bound_roles(connection: asyncpg.Connection, name: Name) -> list[str]:
    """The log-ins that are bound to a tenant in this database, and are there."""
    if await connection.fetchval("SELECT to_regclass($1)", BINDINGS[name]) is None:
        return []
    query = f"SELECT role::text FROM {BINDINGS[name]} JOIN pg_roles ON rolname = role ORDER BY role"
    return [row["role"] for row in await connection.fetch(query)]


async def grant_reader(connection: asyncpg.Connection, name: Name, role: str) -> None:
    """Exactly what a reader needs, on what exists. To be called as the owner."""
    await take_back(connection, role)
    await connection.execute(_OPEN_THE_DOOR.format(role=role))
    for row in await connection.fetch(_READABLE, list(READER[name])):
        await connection.execute(f"GRANT {row['privilege']} ON {row['thing']} TO {role}")


async def take_back(connection: asyncpg.Connection, role: str) -> None:
    """All privileges of a role on tables, views and functions of this owner."""
    for row in await connection.fetch(_GRANTED, role):
        await connection.execute(f"REVOKE ALL ON {row['thing']} FROM {role}")


async def _grant(connection: asyncpg.Connection, role: str, table: str, privileges: str) -> None:
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return
    # TimescaleDB hands both on to every chunk.
    await connection.execute(f"REVOKE ALL ON {table} FROM {role}")
    await connection.execute(f"GRANT {privileges} ON {table} TO {role}")


async def _show_all_tenants(connection: asyncpg.Connection, writer: str) -> None:
    """Policies for a writer that may not bypass row-level security: managed servers grant that to no role."""
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

# A database that `gateway db init` did not make is open to all, and perhaps not ours to open.
_OPEN_THE_DOOR = """
DO $$ BEGIN
    IF NOT has_database_privilege('{role}', current_database(), 'CONNECT') THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO {role}', current_database());
    END IF;
    IF NOT has_schema_privilege('{role}', 'public', 'USAGE') THEN
        GRANT USAGE ON SCHEMA public TO {role};
    END IF;
END $$
"""

_READABLE = """
SELECT oid::regclass::text AS thing, 'SELECT' AS privilege
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v' AND relname = ANY($1::text[])
UNION ALL
SELECT 'FUNCTION ' || oid::regprocedure::text, 'EXECUTE'
FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef AND proname = ANY($1::text[])
"""

_GRANTED = """
SELECT c.oid::regclass::text AS thing FROM pg_class c, aclexplode(c.relacl) AS a JOIN pg_roles ON oid = a.grantee
WHERE c.relnamespace = 'public'::regnamespace AND pg_get_userbyid(c.relowner) = current_user AND rolname = $1
UNION
SELECT 'FUNCTION ' || p.oid::regprocedure FROM pg_proc p, aclexplode(p.proacl) AS a JOIN pg_roles ON oid = a.grantee
WHERE p.pronamespace = 'public'::regnamespace AND pg_get_userbyid(p.proowner) = current_user AND rolname = $1
"""
