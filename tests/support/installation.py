"""An installation of the gateway as ``gateway db init`` makes it: databases and roles of its own."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import asyncpg

from gateway.settings import DatabaseSettings
from gateway.storage import dsn, migrate, passwords, readers, revisions, roles
from gateway.storage.initialise import initialise
from gateway.storage.revisions import Name
from tests.support.servers import Server
from tests.support.sql import execute


class Installation:
    """Databases and roles of one gateway, on a server that others use too."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = DatabaseSettings.model_validate({"dsn": server.dsn()})
        self.admin_dsn, self.engine = server.dsn(), server.engine
        self.roles = roles.Roles(f"gw{uuid4().hex[:8]}")
        self.databases: dict[Name, str] = {name: f"{self.roles.prefix}_{name}" for name in revisions.NAMES}
        self.folder = folder
        self._made: set[str] = set()

    async def init(self) -> list[str]:
        """What ``gateway db init`` did."""
        return await initialise(self.server, self.databases, self.roles, self.folder)

    def settings(self, name: Name, role: str | None = None) -> DatabaseSettings:
        """One of the databases, as a role; None: as the superuser."""
        there = dsn.with_database(self.server, self.databases[name])
        return there if role is None else dsn.with_user(there, role, passwords.path(self.folder, role))

    def superuser_dsn(self, name: Name) -> str:
        """One of the databases, as the superuser."""
        return self.settings(name).dsn.get_secret_value()

    async def upgrade(self, role: str | None) -> None:
        """Migrate both, as a role."""
        for name in self.databases:
            await migrate.upgrade(name, self.settings(name, role))

    async def bind(self, role: str, tenant: UUID) -> None:
        """What ``gateway tenant reader add`` does, as a superuser."""
        for name in self.databases:
            async with migrate.session(name, self.settings(name)) as connection:
                await readers.bind(connection, name, role, tenant, self.folder)
                self.note(role)

    def note(self, role: str) -> None:
        """One more role to remove."""
        self._made.add(role)

    async def connect(self, name: Name, role: str) -> asyncpg.Connection:
        """A connection as a role, by the password in its file."""
        database = self.settings(name, role)
        return await asyncpg.connect(database.dsn.get_secret_value(), password=database.secret())

    def remove(self) -> None:
        """Leave the server as it was."""
        for database in self.databases.values():
            execute(self.admin_dsn, f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        for role in (self.roles.owner, self.roles.writer, self.roles.reader, *self._made):
            execute(self.admin_dsn, f"DROP ROLE IF EXISTS {role}")
