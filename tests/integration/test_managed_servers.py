"""``gateway db init`` where nobody is a superuser, as on RDS, Cloud SQL or Azure; PostgreSQL 15, 17 and 18.

From 16 on CREATEROLE means less: what another login made is not to be changed or joined without its ADMIN option.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from gateway import errors
from gateway.settings import DatabaseSettings
from gateway.storage import migrate, privileges
from gateway.storage.initialise import initialise
from tests.conftest import _made
from tests.support.installation import Installation
from tests.support.servers import OldPostgres, Postgres, Server, embedded_programs
from tests.support.sql import execute, scalar


@pytest.fixture(scope="module")
def old_postgres() -> Iterator[Postgres]:
    """The oldest that is served."""
    with _made("postgresql-15", OldPostgres) as server:
        yield server.start()


@pytest.fixture(
    params=["old_postgres", "postgres", pytest.param("timescaledb", marks=pytest.mark.timescaledb)]
)
def managed(request: pytest.FixtureRequest) -> Server:
    """A server of each kind."""
    found: Server = request.getfixturevalue(request.param)
    return found


class Site(NamedTuple):
    """A managed server, and what is to be installed there."""

    installation: Installation
    admin: str

    @property
    def login(self) -> DatabaseSettings:
        """The administrator's."""
        dsn = re.sub(r"//[^@]*@", f"//{self.admin}:none@", self.installation.admin_dsn)
        return DatabaseSettings.model_validate({"dsn": dsn})

    async def init(self) -> list[str]:
        """As the administrator."""
        there = self.installation
        return await initialise(self.login, there.databases, there.roles, there.folder)

    @property
    def version(self) -> int:
        """Of the server."""
        return int(scalar(self.installation.admin_dsn, "SHOW server_version_num")) // 10000

    def superuser(self, statement: str) -> None:
        """As whoever runs the machine."""
        execute(self.installation.admin_dsn, statement)


ADMIN_OPTION = 16


@pytest.fixture(params=[""])
def site(request: pytest.FixtureRequest, managed: Server, tmp_path: Path) -> Iterator[Site]:
    """Its administrator may create roles and databases, whose names need quotes, and no more."""
    made = Installation(managed, tmp_path / "secrets")
    made.databases = {name: f'{found} "Ä"' for name, found in made.databases.items()}
    found = Site(made, f"{made.roles.prefix}_Admin")
    found.superuser(
        f"CREATE ROLE \"{found.admin}\" LOGIN CREATEROLE CREATEDB {request.param} PASSWORD 'none'"
    )
    yield found
    for database in made.databases.values():
        found.superuser('DROP DATABASE IF EXISTS "{}" WITH (FORCE)'.format(database.replace('"', '""')))
    for role in (made.roles.owner, made.roles.writer, made.roles.reader, f'"{found.admin}"', "somebody"):
        found.superuser(f"DROP ROLE IF EXISTS {role}")


@pytest.mark.parametrize("site", ["", "BYPASSRLS", "NOINHERIT"], indirect=True)
async def test_no_superuser_is_needed(site: Site) -> None:
    """Twice, then migrations as the owner, then once more: the second and third time there is nothing to do."""
    assert len(await site.init()) >= 5
    assert await site.init() == []
    await site.installation.upgrade(site.installation.roles.owner)
    assert await site.init() == []


async def test_the_writer_sees_all_tenants(site: Site) -> None:
    """By policies where nobody may give it BYPASSRLS, which go when it has that; the reader sees none."""
    await site.init()
    there = site.installation
    await there.upgrade(there.roles.owner)
    named = (there.roles.owner, there.roles.writer, there.roles.reader)
    owner, writer, reader = [await there.connect("metadata", role) for role in named]
    policies = "SELECT count(*) FROM pg_policy WHERE polname = 'all_tenants'"
    try:
        for slug in ("acme", "other"):
            await owner.execute("INSERT INTO tenants (slug) VALUES ($1)", slug)
        for attribute, expected in (("NOBYPASSRLS", 4), ("BYPASSRLS", 0), ("NOBYPASSRLS", 4)):
            site.superuser(f"ALTER ROLE {there.roles.writer} {attribute}")
            await migrate.upgrade("metadata", there.settings("metadata", there.roles.owner))
            assert await owner.fetchval(policies) == expected
            count = "SELECT count(*) FROM tenants"
            assert [await one.fetchval(count) for one in (owner, writer)] == [2, 2]
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await reader.fetchval(count)
            told = [await privileges.sees_all_tenants(one) for one in (owner, writer, reader)]
            assert told == [True, True, False]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await writer.execute("INSERT INTO tenants (slug) VALUES ('more')")
    finally:
        for one in (owner, writer, reader):
            await one.close()


IN_THE_WAY = {
    "a role of somebody else": "CREATE ROLE {owner} LOGIN PASSWORD 'none'",
    "a role that may not log in": "CREATE ROLE {writer} NOLOGIN",
    "a database of somebody else": "CREATE ROLE somebody; CREATE DATABASE {metadata} OWNER somebody TEMPLATE template0",
    "a closed database": "CREATE DATABASE {timeseries} TEMPLATE template0; "
    "REVOKE ALL ON DATABASE {timeseries} FROM PUBLIC",
}


@pytest.mark.parametrize("way", IN_THE_WAY)
async def test_what_is_in_the_way_is_told_as_a_script(site: Site, way: str) -> None:
    """With the server's own words; run by a superuser as it stands, it lets the administrator do the rest."""
    there = site.installation
    names = {name: f'"{found.replace(chr(34), chr(34) * 2)}"' for name, found in there.databases.items()}
    for statement in IN_THE_WAY[way].split("; "):
        site.superuser(statement.format(owner=there.roles.owner, writer=there.roles.writer, **names))
    there.folder.mkdir()
    (there.folder / f"{there.roles.owner}.password").write_text("another\n")
    if site.version >= ADMIN_OPTION or "database" in way:
        with pytest.raises(errors.UsageError, match="run this again") as raised:
            await site.init()
        text = str(raised.value)
        assert f"does not let {site.admin} do all of this" in text
        assert "DETAIL" in text or "database" in way
        run(there.admin_dsn, text)
    await site.init()
    await there.upgrade(there.roles.owner)


async def test_tables_of_somebody_else_are_told(site: Site) -> None:
    """Each statement that hands them over, in which database, with the server's words."""
    there = site.installation
    await site.init()
    await there.upgrade(there.roles.owner)
    execute(there.superuser_dsn("metadata"), "ALTER TABLE tenants OWNER TO postgres")
    with pytest.raises(
        errors.UsageError, match=r"ALTER TABLE tenants OWNER TO \w+;  -- must be owner"
    ) as raised:
        await site.init()
    run(there.admin_dsn, str(raised.value))
    assert await site.init() == []


def run(dsn: str, text: str) -> None:
    """What the text says, by psql, which knows the way to another database; errors end it."""
    script = "\n".join(text.splitlines()[1:-1])
    command = [str(embedded_programs() / "psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1", dsn]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{script}\n{done.stderr}"


@pytest.mark.timescaledb
async def test_an_extension_that_cannot_be_made_is_told(
    start_server: Callable[..., Postgres], tmp_path: Path
) -> None:
    """A server that does not preload it ends the session: the server's words, and the way without it."""
    made = Installation(
        start_server("timescaledb", settings={"shared_preload_libraries": ""}), tmp_path / "secrets"
    )
    told = r"(?s)CREATE EXTENSION timescaledb;  -- .*preload.*--engine postgresql"
    with pytest.raises(errors.UsageError, match=told):
        await made.init()
    await initialise(made.server, made.databases, made.roles, made.folder, extension=False)
