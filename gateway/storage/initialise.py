"""What ``gateway db init`` does: roles, databases, privileges, extension. Idempotent.

As a superuser, or as the administrator of a managed server (RDS, Cloud SQL, Azure), who may create roles and databases
and not much more: until PostgreSQL 15 nothing that is a superuser's, from 16 on only with roles that it made itself or
has the ADMIN option for. What the server does not let us do is gathered, and told as statements to run by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from gateway import errors, settings
from gateway.storage import dsn, identifiers, passwords, readers, roles
from gateway.storage.migrate import refuse_pooler, session
from gateway.storage.revisions import Name
from gateway.storage.roles import Roles


async def initialise(
    server: settings.DatabaseSettings,
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
        UsageError: the login may not do this: the text is what to run by hand; or a role of that name is a superuser.
        StoreError: the server cannot be reached.
    """
    work = _Work()
    async with session("server", server, any_encoding=True) as connection:
        refuse_pooler("server", connection)
        login = await _login(connection)
        for role in (wanted.owner, wanted.writer, wanted.reader):
            bypass = role == wanted.writer and login.may_bypass
            limited = role == wanted.reader
            await _make_role(connection, work, login, role, password_folder, bypass=bypass, limited=limited)
        if not login.superuser:
            await _act_for_owner(connection, work, login, wanted)
        for database in databases.values():
            await _make_database(connection, work, database, wanted)
    for name, database in databases.items():
        work.place = database
        if database not in work.unreachable:
            there = dsn.with_database(server, database)
            await _furnish(name, there, work, login, wanted, extension=extension)
    work.tell(login.name)
    return work.done


@dataclass
class _Work:
    """What was done, and what the server did not let us do.

    Attributes:
        place: the database that we are in; empty: any.
        by_hand: database, statement, and why it failed; in the order in which they are to be run.
        unreachable: databases that are still to be made by hand.
    """

    done: list[str] = field(default_factory=list)
    place: str = ""
    by_hand: list[tuple[str, str, str]] = field(default_factory=list)
    unreachable: set[str] = field(default_factory=set)

    async def run(
        self, connection: asyncpg.Connection, statement: str, *, told: str = "", by_hand: str = ""
    ) -> bool:
        """Run a statement; whether it was done.

        Args:
            told: what was done then.
            by_hand: what is to be run by hand otherwise, where it is not the statement itself.
        """
        try:
            await connection.execute(statement)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            self.left(by_hand or statement, str(error))  # with the server's DETAIL and HINT
            return False
        if told:
            self.done.append(told)
        return True

    def left(self, statement: str, why: str) -> None:
        """Something is to be run by hand."""
        self.by_hand.append((self.place, statement, " ".join(why.split())))

    def tell(self, login: str) -> None:
        """Raise what is left, if anything is: a script for psql."""
        if not self.by_hand:
            return
        script, at = [], ""
        for place, statement, why in self.by_hand:
            if place != at:
                script.append(f"\\c {identifiers.quoted(place)}")
                at = place
            script.append(f"{statement};  -- {why}")
        before = f"the server does not let {login} do all of this; run by hand, as a login that may:"
        raise errors.UsageError("\n  ".join([before, *script]) + "\nthen run this again")


@dataclass(frozen=True)
class _Login:
    """As whom we came."""

    name: str
    superuser: bool
    may_bypass: bool
    """Whether it may let a role bypass row-level security; else the writer gets policies (``roles.grant_tables``)."""
    version: int


async def _login(connection: asyncpg.Connection) -> _Login:
    row = await connection.fetchrow(
        "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole AND rolcreatedb AS makes "
        "FROM pg_roles WHERE rolname = current_user"
    )
    if not (row["rolsuper"] or row["makes"]):
        raise errors.UsageError(
            f"{row['rolname']} may not create roles and databases: give a login with CREATEROLE and CREATEDB, a "
            "superuser's or that of a managed server's administrator"
        )
    version = connection.get_server_version().major
    may_bypass = row["rolsuper"] or (version >= _ADMIN_OPTION and row["rolbypassrls"])
    return _Login(row["rolname"], row["rolsuper"], may_bypass, version)


_ADMIN_OPTION = 16
"""From this version on CREATEROLE alone gives no power over roles that another made."""


async def _make_role(
    connection: asyncpg.Connection,
    work: _Work,
    login: _Login,
    role: str,
    folder: Path,
    *,
    bypass: bool,
    limited: bool,
) -> None:
    found = await connection.fetchrow(
        "SELECT rolsuper, rolcanlogin, rolbypassrls FROM pg_roles WHERE rolname = $1", role
    )
    if found is not None and found["rolsuper"]:
        raise errors.UsageError(f"role {role} is a superuser: choose another --prefix")
    password = _password(folder, role, exists=found is not None)
    options = "LOGIN BYPASSRLS" if bypass else "LOGIN"
    if found and not password and found["rolcanlogin"] and (found["rolbypassrls"] or not bypass):
        return
    secret = f" PASSWORD '{passwords.scram_verifier(password)}'" if password else ""
    if found is None:
        options += f" CONNECTION LIMIT {readers.CONNECTIONS}" if limited else ""
        told = f"made role {role}, its password is in {passwords.path(folder, role)}"
        await work.run(connection, f"CREATE ROLE {role} {options}{secret}", told=told)
        return
    admin = (
        f"GRANT {role} TO {identifiers.quoted(login.name)} WITH ADMIN OPTION"
        if login.version >= _ADMIN_OPTION
        else ""
    )
    await work.run(connection, f"ALTER ROLE {role} {options}{secret}", by_hand=admin)


def _password(folder: Path, role: str, *, exists: bool) -> str | None:
    """The file's password, else a new one in a new file; None: a role that exists keeps the one it has."""
    found = passwords.read(folder, role)
    if found is None and not exists:
        return passwords.generate(folder, role)
    return found


async def _act_for_owner(connection: asyncpg.Connection, work: _Work, login: _Login, wanted: Roles) -> None:
    """Who is no superuser must be a member to hand databases over, and act for the owner."""
    modern = login.version >= _ADMIN_OPTION
    needed = "SELECT pg_has_role(oid, 'USAGE') AND pg_has_role(oid, $2) FROM pg_roles WHERE rolname = $1"
    if await connection.fetchval(needed, wanted.owner, "SET" if modern else "MEMBER"):
        return
    options = " WITH INHERIT TRUE, SET TRUE" if modern else ""
    await work.run(connection, f"GRANT {wanted.owner} TO {identifiers.quoted(login.name)}{options}")


async def _make_database(connection: asyncpg.Connection, work: _Work, database: str, wanted: Roles) -> None:
    quoted = identifiers.quoted(database)
    owner = await connection.fetchval(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1", database
    )
    if owner is None:
        statement = f"CREATE DATABASE {quoted} OWNER {wanted.owner} ENCODING 'UTF8' TEMPLATE template0"
        if not await work.run(connection, statement, told=f"made database {database}"):
            work.unreachable.add(database)
    elif owner != wanted.owner:
        await work.run(
            connection,
            f"ALTER DATABASE {quoted} OWNER TO {wanted.owner}",
            told=f"database {database} now belongs to {wanted.owner} (it was {owner}'s)",
        )


async def _furnish(
    name: Name,
    database: settings.DatabaseSettings,
    work: _Work,
    login: _Login,
    wanted: Roles,
    *,
    extension: bool,
) -> None:
    try:
        if extension and name == "timeseries":
            await _make_extension(database, work)
        async with session(name, database) as connection:
            await _adopt(connection, work, wanted)
            await _set_privileges(connection, work, login, wanted)
            if not work.by_hand:
                await roles.grant_tables(connection, name)
    except errors.StandingError as error:
        if error.sqlstate != "42501":
            raise
        why = str(error.__cause__ or error)
        work.left(
            f"GRANT CONNECT ON DATABASE {identifiers.quoted(work.place)} TO {identifiers.quoted(login.name)}",
            why,
        )


async def _make_extension(database: settings.DatabaseSettings, work: _Work) -> None:
    """In a session of its own: a server that does not preload the library ends it."""
    async with session("timeseries", database) as connection:
        if await _lacks_timescaledb(connection):
            told = f"made extension timescaledb in {work.place}"
            if not await work.run(connection, "CREATE EXTENSION timescaledb", told=told):
                place, statement, why = work.by_hand.pop()
                why += "; without TimescaleDB: gateway db init --engine postgresql"
                work.by_hand.append((place, statement, why))


async def _lacks_timescaledb(connection: asyncpg.Connection) -> bool:
    """Offered, not there, and no tables yet that were made without it."""
    lacks: bool = await connection.fetchval(
        "SELECT EXISTS "
        "(SELECT FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL)"
    )
    return lacks and await connection.fetchval("SELECT to_regclass('telemetry') IS NULL")


async def _set_privileges(connection: asyncpg.Connection, work: _Work, login: _Login, wanted: Roles) -> None:
    """As the owner, unless we are a superuser: a database and its schema ``public`` are the owner's from now on."""
    database = identifiers.quoted(work.place)
    owner, writer, reader = wanted.owner, wanted.writer, wanted.reader
    if not login.superuser and not await work.run(connection, f"SET ROLE {owner}"):
        return
    future = f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public"
    for statement in (
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {writer}",
        f"GRANT CONNECT ON DATABASE {database} TO {reader}, {identifiers.quoted(login.name)}",
        # Nothing for the reader: a future table may show more than one tenant.
        f"{future} GRANT SELECT, INSERT ON TABLES TO {writer}",
    ):
        await work.run(connection, statement)
    for statement in _schema_privileges(wanted):
        await connection.execute(statement)  # where that is not ours to do, the server only warns
    if not await connection.fetchval(_SCHEMA_AS_WANTED, owner, writer, reader):
        of = await connection.fetchval(
            "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public'"
        )
        for statement in _schema_privileges(wanted):
            work.left(statement, f"the schema public belongs to {of}")


def _schema_privileges(wanted: Roles) -> list[str]:
    return [
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"GRANT CREATE, USAGE ON SCHEMA public TO {wanted.owner}",
        f"GRANT USAGE ON SCHEMA public TO {wanted.writer}, {wanted.reader}",
    ]


_SCHEMA_AS_WANTED = """
SELECT NOT has_schema_privilege('public', 'public', 'CREATE')
   AND has_schema_privilege($1, 'public', 'CREATE') AND has_schema_privilege($1, 'public', 'USAGE')
   AND has_schema_privilege($2, 'public', 'USAGE') AND has_schema_privilege($3, 'public', 'USAGE')
"""


async def _adopt(connection: asyncpg.Connection, work: _Work, wanted: Roles) -> None:
    """Hand over what an earlier ``gateway db upgrade`` made as another role."""
    statements = [row["statement"] for row in await connection.fetch(_FOREIGN, wanted.owner)]
    handed = [await work.run(connection, statement) for statement in statements]
    if any(handed):
        work.done.append(f"{sum(handed)} tables, views and functions now belong to {wanted.owner}")


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
