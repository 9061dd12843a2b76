"""Log-ins that read one tenant.

Which one stands in a table (``roles.BINDINGS``) that only the owner may write, and is looked up by ``session_user``,
which no session can change: neither by SET, nor by SET ROLE.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import asyncpg

from gateway import errors
from gateway.storage import migrate, passwords, roles, sessions
from gateway.storage.revisions import Name

ROLE = re.compile(r"[a-z][a-z0-9_]{0,62}")
CONNECTIONS = 10
"""A reader that this gateway makes gets no more: a server has some hundred, and the daemon needs its own."""


async def default_role(connection: asyncpg.Connection, slug: str) -> str:
    """``gateway_reader_acme``, with the prefix of this installation's roles.

    Raises:
        UsageError: the slug does not make a name that needs no quotes, or makes one too long.
    """
    found = await roles.find(connection)
    return checked(f"{found.reader if found else 'gateway_reader'}_{slug}")


def checked(role: str) -> str:
    """The name, if it is one that we give to roles.

    Raises:
        UsageError: it is not.
    """
    if not ROLE.fullmatch(role):
        raise errors.UsageError(f"role {role!r}: give --name, at most 63 of a-z 0-9 _, a letter first")
    return role


async def bind(
    connection: sessions.ServerSession, name: Name, role: str, tenant: uuid.UUID, folder: Path
) -> bool:
    """Have a log-in read this tenant, and make it where there is none; whether it was made.

    Args:
        connection: of a log-in that may act for the owner, and create roles if one is to be made.
        folder: of the password files; a new role has its file's password, or a new one in a new file.

    Raises:
        UsageError: the role may do more than read, or reads another tenant; or the caller may not do this.
    """
    migrate.refuse_pooler(name, connection)
    if await connection.fetchval("SELECT to_regclass($1)", roles.BINDINGS[name]) is None:
        raise errors.UsageError(f"{name}: there are no readers before `gateway db upgrade`")
    made = await _make(connection, role, folder)
    await roles.become_owner(connection)
    async with connection.transaction():
        bound = await connection.fetchval(_BIND.format(table=roles.BINDINGS[name]), role, tenant)
        if bound != tenant:
            raise errors.UsageError(
                f"{role} reads another tenant, {bound}: take another --name, or first "
                f"`gateway tenant reader remove {role}`"
            )
        await roles.grant_reader(connection, name, role)
    return made


async def _make(connection: asyncpg.Connection, role: str, folder: Path) -> bool:
    there = await roles.find(connection)
    found = await connection.fetchrow(_ROLE, role, there and there.writer)
    if found is not None:
        if found["more"]:
            raise errors.UsageError(f"{role} is more than a reader ({found['more']}): take another --name")
        return False
    login = await connection.fetchrow(
        "SELECT rolname, rolsuper OR rolcreaterole AS may FROM pg_roles WHERE rolname = current_user"
    )
    make = f"CREATE ROLE {role} LOGIN CONNECTION LIMIT {CONNECTIONS}"
    if not login["may"]:
        raise errors.UsageError(
            f"{login['rolname']} may not create roles: give --db-user a log-in that may and that may act for the owner "
            f"(the one of `gateway db init`), or run {make} PASSWORD …, as one that may, and this again"
        )
    password = passwords.read(folder, role) or passwords.generate(folder, role)
    await connection.execute(f"{make} PASSWORD '{passwords.scram_verifier(password)}'")
    return True


async def unbind(connection: sessions.ServerSession, name: Name, role: str) -> bool:
    """Show a log-in nothing any more, at once, and take its privileges back; whether it was bound.

    The role stays, and its connections: it may be of use elsewhere.
    """
    migrate.refuse_pooler(name, connection)
    await roles.become_owner(connection)
    if await connection.fetchval("SELECT to_regclass($1)", roles.BINDINGS[name]) is None:
        return False
    async with connection.transaction():
        unbound = await connection.execute(f"DELETE FROM {roles.BINDINGS[name]} WHERE role = $1", role)
        if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
            await roles.take_back(connection, role)
            await connection.execute(_CLOSE_THE_DOOR.format(role=role))
    return bool(unbound != "DELETE 0")


async def bound(connection: asyncpg.Connection, name: Name) -> dict[str, uuid.UUID]:
    """The log-ins that are bound in this database, with their tenants."""
    rows = await connection.fetch(f"SELECT role::text, tenant_id FROM {roles.BINDINGS[name]} ORDER BY role")
    return {row["role"]: row["tenant_id"] for row in rows}


_BIND = """
INSERT INTO {table} AS kept (role, tenant_id) VALUES ($1, $2)
ON CONFLICT (role) DO UPDATE SET role = kept.role RETURNING tenant_id
"""

# Tables are the owner's, the writer's and those of roles with BYPASSRLS or a membership in these.
_ROLE = """
SELECT concat_ws(', ', CASE WHEN r.rolsuper THEN 'a superuser' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
    CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
    (SELECT 'a member of ' || string_agg(m.roleid::regrole::text, ', ') FROM pg_auth_members m WHERE m.member = r.oid),
    (SELECT 'owner of this database' FROM pg_database d WHERE d.datname = current_database() AND d.datdba = r.oid),
    (SELECT 'the writer' WHERE r.rolname = $2::text)) AS more
FROM pg_roles r WHERE r.rolname = $1
"""

# Or the role could not be dropped.
_CLOSE_THE_DOOR = """
DO $$ BEGIN
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM {role}', current_database());
    REVOKE USAGE ON SCHEMA public FROM {role};
END $$
"""
