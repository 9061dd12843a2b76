"""Migrations, by Alembic in process: the same revisions for every engine, see ``migrations/``.

A run holds a lock on the table of its revision, so that two never change one database at once. Alembic keeps the
running context in a module global: within a process, one migration after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import alembic.command
import asyncpg
import sqlalchemy as sa
from alembic import op
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway import errors, settings
from gateway.storage import engines, holders, pools, revisions, roles, sessions, version_tables
from gateway.storage.revisions import Name, Revision

EngineChoice = Literal["auto", "timescaledb", "postgresql"]
"""``auto``: hypertables where the server offers TimescaleDB, else partitions."""

OLDEST_SERVER = 15
LOCK_TIMEOUT = 60.0
"""Seconds to wait for another migration of the same database."""

TABLE_TIMEOUT = 10.0
"""Seconds to wait for a lock on a table: the daemon's statements wait behind us."""

LOCK = "LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"
"""Kept by one run after another: only who may alter the table can take it, and it keeps no reader or writer out. An
advisory lock may be any other program's."""


async def upgrade(
    name: Name,
    database: settings.DatabaseSettings,
    target: str = "head",
    *,
    engine: EngineChoice = "auto",
    lock_timeout: float = LOCK_TIMEOUT,
) -> list[Revision]:
    """Apply revisions up to ``target``; returns those applied, in order.

    Roles that ``gateway db init`` made get their privileges on the new tables.

    Raises:
        UsageError: no such revision, a server too old, or the wanted engine cannot be had here.
        StoreError: the database cannot be reached or refuses a statement; that revision is rolled back.
    """
    async with _locked(name, database, lock_timeout) as connection:
        async with session(name, database) as own:
            hypertables = await _choose_engine(own, name, engine)
        command = functools.partial(alembic.command.upgrade, revision=target)
        applied = await _run(name, database, hypertables, command)
        await roles.grant_tables(connection, name)
        return applied


async def downgrade(
    name: Name, database: settings.DatabaseSettings, target: str, *, lock_timeout: float = LOCK_TIMEOUT
) -> list[Revision]:
    """Undo revisions down to ``target``, which stays applied; ``base`` undoes all. Tables go with their rows.

    Returns those undone, in order. The extension stays: it came with the database.

    Raises:
        UsageError: no such revision.
        StoreError: the database cannot be reached or refuses a statement; that revision stays applied.
    """
    async with _locked(name, database, lock_timeout) as connection:
        command = functools.partial(alembic.command.downgrade, revision=target)
        undone = await _run(name, database, False, command)
        if await _current(connection, name) is None:
            await connection.execute(f"DROP TABLE IF EXISTS {version_tables.NAMES[name]}")
        return undone


async def current(name: Name, database: settings.DatabaseSettings) -> str | None:
    """The revision a database is at; None: none is applied.

    Raises:
        StoreError: the database cannot be reached.
    """
    async with session(name, database) as connection:
        return await _current(connection, name)


def hypertables() -> bool:
    """For revisions: whether the one that runs makes hypertables, or else partitions."""
    return bool(op.get_context().opts["hypertables"])


@contextlib.asynccontextmanager
async def session(
    name: str, database: settings.DatabaseSettings, *, any_encoding: bool = False
) -> AsyncIterator[sessions.ServerSession]:
    """A connection whose statements may take their time: a revision may rewrite a large table."""
    patient = database.model_copy(update={"command_timeout": 0})
    connection = await pools.connect(
        patient, application_name="gateway-migrate", name=name, any_encoding=any_encoding
    )
    try:
        with pools.translate(name):
            yield connection
    finally:
        await connection.close(timeout=5)


@contextlib.asynccontextmanager
async def _locked(
    name: Name, database: settings.DatabaseSettings, timeout: float
) -> AsyncIterator[asyncpg.Connection]:
    """A session in a transaction that keeps the lock; it is the owner's."""
    async with session(name, database) as connection:
        refuse_pooler(name, connection)
        await roles.become_owner(connection)
        await version_tables.make(connection, name)
        async with connection.transaction():
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            await _take_lock(connection, name, timeout)
            yield connection


async def _take_lock(connection: asyncpg.Connection, name: Name, timeout: float) -> None:
    table, deadline = version_tables.NAMES[name], time.monotonic() + timeout
    while True:
        try:
            async with connection.transaction():
                await connection.execute(LOCK.format(table=table))
        except asyncpg.LockNotAvailableError:
            if time.monotonic() > deadline:
                held_by = await holders.of(connection, table, exclusive=True)
                raise errors.TransientError(
                    f"{name}: another migration has been running for over {timeout:g} s ({held_by}); wait for it, or "
                    "end its session: SELECT pg_terminate_backend(PROCESS)"
                ) from None
        else:
            return
        await asyncio.sleep(0.2)


def refuse_pooler(name: str, connection: sessions.ServerSession) -> None:
    """Behind a pooler neither a lock nor a role lasts from one statement to the next.

    Raises:
        UsageError: there is one.
    """
    if connection.pooled:
        variable = f"GATEWAY__DATABASES__{name.upper()}__DSN"
        given = "--superuser-dsn" if name == "server" else variable
        raise errors.UsageError(
            f"{name}: the DSN leads to a connection pooler, through which tables cannot be changed: for this command "
            f"point {given} at the server itself"
        )


async def _run(
    name: Name, database: settings.DatabaseSettings, hypertables: bool, command: Callable[[Config], None]
) -> list[Revision]:
    steps: list[Revision] = []

    def note_step(*, step: Any, **_: Any) -> None:
        steps.append(Revision(step.up_revision_id, step.up_revision.doc))

    async with session(name, database) as connection:
        await roles.become_owner(connection)
        await connection.execute(f"SET lock_timeout = '{TABLE_TIMEOUT}s'")
        config = revisions.config(name)
        config.attributes.update(
            hypertables=hypertables, on_step=note_step, version_table=version_tables.NAMES[name]
        )
        try:
            await _in_alchemy(connection, config, command)
        except asyncpg.LockNotAvailableError as error:
            raise await _held_up(name, database, error) from error
    return steps


async def _held_up(name: Name, database: settings.DatabaseSettings, error: Exception) -> errors.StoreError:
    async with session(name, database) as connection:
        held_by = await holders.of(connection)
    return errors.TransientError(
        f"{name}: {error}: others had tables locked for over {TABLE_TIMEOUT:g} s ({held_by or 'gone by now'}). What "
        "was applied stays, the rest is to come: run this again, after SELECT pg_terminate_backend(PROCESS) if need be"
    )


async def _in_alchemy(
    connection: asyncpg.Connection, config: Config, command: Callable[[Config], None]
) -> None:
    """Run an Alembic command on a connection of ours, which SQLAlchemy takes over."""

    async def ours() -> asyncpg.Connection:
        return connection

    def work(alchemy: sa.Connection) -> None:
        config.attributes["connection"] = alchemy
        command(config)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=ours, poolclass=NullPool)
    try:
        async with engine.connect() as alchemy:
            await alchemy.run_sync(work)
    except sa.exc.DBAPIError as error:
        raise _driver_error(error) from error
    except CommandError as error:
        raise errors.UsageError(f"{error}; see `gateway db history`") from error
    finally:
        await engine.dispose()


def _driver_error(error: sa.exc.DBAPIError) -> BaseException:
    """What asyncpg raised, below two layers of wrapping: ``pools.translate`` knows that."""
    return (error.orig and error.orig.__cause__) or error


async def _current(connection: asyncpg.Connection, name: Name) -> str | None:
    if (table := await version_tables.find(connection, name)) is None:
        return None
    found: str | None = await connection.fetchval(f"SELECT version_num FROM {table}")
    return found


async def _choose_engine(connection: asyncpg.Connection, name: Name, choice: EngineChoice) -> bool:
    """Whether the tables are, or are to be, hypertables; makes the extension where wanted and missing."""
    version = connection.get_server_version().major
    if version < OLDEST_SERVER:
        raise errors.UsageError(
            f"{name}: PostgreSQL {version} is too old; {OLDEST_SERVER} is the oldest that does"
        )
    if name != "timeseries":
        return False
    found = await engines.detect(connection)
    if await _current(connection, name) is not None:
        if choice not in ("auto", found.name):
            raise errors.UsageError(f"{name}: the tables were made for {found.name}, and stay so")
        return found.name == "timescaledb"
    if choice == "postgresql":
        return False
    return found.name == "timescaledb" or await _create_extension(connection, name, choice)


async def _create_extension(connection: asyncpg.Connection, name: Name, choice: EngineChoice) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
    if not await connection.fetchval(query):
        if choice == "timescaledb":
            raise errors.UsageError(f"{name}: this server does not offer TimescaleDB; install it there")
        return False
    try:
        await connection.execute("CREATE EXTENSION timescaledb")
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise errors.UsageError(
            f"{name}: this server offers TimescaleDB, but CREATE EXTENSION failed: {error}. Run "
            "`gateway db init --superuser-dsn …`, or `CREATE EXTENSION timescaledb` as a superuser; or pass "
            "`--engine postgresql` for plain partitions, for good"
        ) from error
    return True
