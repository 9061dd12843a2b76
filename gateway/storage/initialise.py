"""What ``gateway db init`` does, as a superuser: roles, databases, privileges, extension. Idempotent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import asyncpg

from gateway import errors, settings
from gateway.storage import dsn, passwords, roles, version_tables
from gateway.storage.migrate import refuse_pooler, session
from gateway.storage.revisions import Name
from gateway.storage.roles import Roles


async def initialise(
    server: settings.Database,
    databases: Mapping[Name, str],
    wanted: Roles,
    password_folder: Path,
    *,
    extension: bool = True,
) -> list[str]:
    """Make what is missing and mend what differs; returns what was done, a sentence each.

    Args:
        server: a login that may create roles and databases, to any database of the server.
        databases: names of the databases to make on this server.
        wanted: the roles.
        password_folder: see :func:`_password`.
        extension: TimescaleDB in the time-series database, where the server offers it.

    Raises:
        UsageError: the login may not do this, or a role of that name is a superuser.
        StoreError: the server cannot be reached or refuses a statement.
    """
    done: list[str] = []
    async with session("server", server, any_encoding=True) as connection:
        refuse_pooler("server", connection)
        await _check_login(connection)
        for role in (wanted.owner, wanted.writer, wanted.reader):
            done += await _make_role(connection, role, password_folder, bypass=role == wanted.writer)
        await _act_for_owner(connection, wanted)
        for database in databases.values():
            done += await _make_database(connection, database, wanted)
    for name, database in databases.items():
        done += await _furnish(name, dsn.with_database(server, database), wanted, extension=extension)
    return done


async def _check_login(connection: asyncpg.Connection) -> None:
    row = await connection.fetchrow(
        "SELECT rolname, rolsuper OR (rolcreaterole AND rolcreatedb) AS may "
        "FROM pg_roles WHERE rolname = current_user"
    )
    if not row["may"]:
        raise errors.UsageError(
            f"{row['rolname']} may not create roles and databases: give a superuser's DSN"
        )


async def _make_role(connection: asyncpg.Connection, role: str, folder: Path, *, bypass: bool) -> list[str]:
    superuser = await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = $1", role)
    if superuser:
        raise errors.UsageError(f"role {role} is a superuser: choose another --prefix")
    exists = superuser is not None
    password = _password(folder, role, exists=exists)
    statement = f"{'ALTER' if exists else 'CREATE'} ROLE {role} LOGIN"
    statement += " BYPASSRLS" if bypass else ""
    statement += f" PASSWORD '{passwords.scram_verifier(password)}'" if password else ""
    await connection.execute(statement)
    if exists:
        return []
    return [f"made role {role}, its password is in {passwords.path(folder, role)}"]


def _password(folder: Path, role: str, *, exists: bool) -> str | None:
    """The file's password, else a new one in a new file; None: a role that exists keeps the one it has."""
    found = passwords.read(folder, role)
    if found is None and not exists:
        return passwords.generate(folder, role)
    return found


async def _act_for_owner(connection: asyncpg.Connection, wanted: Roles) -> None:
    """A superuser may anyway; anyone else must be a member to hand databases over."""
    if not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        await connection.execute(f"GRANT {wanted.owner} TO CURRENT_USER")


async def _make_database(connection: asyncpg.Connection, database: str, wanted: Roles) -> list[str]:
    quoted = _quoted(database)
    owner = await connection.fetchval(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1", database
    )
    if owner is None:
        await connection.execute(
            f"CREATE DATABASE {quoted} OWNER {wanted.owner} ENCODING 'UTF8' TEMPLATE template0"
        )
        return [f"made database {database}"]
    if owner != wanted.owner:
        await connection.execute(f"ALTER DATABASE {quoted} OWNER TO {wanted.owner}")
        return [f"database {database} now belongs to {wanted.owner} (it was {owner}'s)"]
    return []


async def _furnish(name: Name, database: settings.Database, wanted: Roles, *, extension: bool) -> list[str]:
    done: list[str] = []
    async with session(name, database) as connection:
        if extension and name == "timeseries" and await _lacks_timescaledb(connection):
            await connection.execute("CREATE EXTENSION timescaledb")
            done.append(f"made extension timescaledb in {dsn.database_name(database)}")
        for statement in _privileges(_quoted(dsn.database_name(database)), wanted):
            await connection.execute(statement)
        done += await _adopt(connection, wanted)
        await roles.grant_tables(connection, name)
    return done


async def _lacks_timescaledb(connection: asyncpg.Connection) -> bool:
    """Offered, not there, and no tables yet that were made without it."""
    lacks: bool = await connection.fetchval(
        "SELECT EXISTS "
        "(SELECT FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL)"
    )
    return lacks and await version_tables.find(connection, "timeseries") is None


def _privileges(database: str, wanted: Roles) -> list[str]:
    owner, writer, reader = wanted.owner, wanted.writer, wanted.reader
    future = f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public"
    return [
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {writer}",
        f"GRANT CONNECT ON DATABASE {database} TO {reader}",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA public TO {writer}, {reader}",
        # Nothing for the reader: a future table may show more than one tenant.
        f"{future} GRANT SELECT, INSERT ON TABLES TO {writer}",
    ]


async def _adopt(connection: asyncpg.Connection, wanted: Roles) -> list[str]:
    """Hand over what an earlier ``gateway db upgrade`` made as somebody else."""
    statements = [row["statement"] for row in await connection.fetch(_FOREIGN, wanted.owner)]
    async with connection.transaction():
        for statement in statements:
            await connection.execute(statement)
    return (
        [f"{len(statements)} tables, views and functions now belong to {wanted.owner}"] if statements else []
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_FOREIGN = """
SELECT format('ALTER TABLE %s OWNER TO %I', oid::regclass, $1::text) AS statement
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
  AND pg_get_userbyid(relowner) <> $1
  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
UNION ALL
SELECT format('ALTER ROUTINE %s OWNER TO %I', oid::regprocedure, $1::text)
FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND pg_get_userbyid(proowner) <> $1
  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
"""
