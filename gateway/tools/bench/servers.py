"""Servers of the bench's own on this machine: a broker that limits nothing, and two databases made for one bench.

The databases are on a PostgreSQL out of a wheel, made and removed with the bench, or on a server that is given by a
superuser's DSN, on which they, and their roles, are dropped at the end.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gateway import settings
from gateway.storage import dsn, initialise, migrate, passwords
from gateway.storage.revisions import Name
from gateway.storage.roles import Roles
from gateway.tools.bench.installation import BenchInstallation
from gateway.tools.servers import mosquitto
from gateway.tools.servers.mosquitto import MosquittoServer
from gateway.tools.servers.part import Part
from gateway.tools.servers.postgres import SUPERUSER, EmbeddedPostgres

_GIB = 2**30
_WAL_FILES = 64


@contextlib.asynccontextmanager
async def running(
    folder: Path, superuser: settings.DatabaseSettings | None
) -> AsyncIterator[BenchInstallation]:
    """Servers for the block.

    Args:
        folder: what they write goes there.
        superuser: login to a server on which databases may be made; None: one is started.

    Raises:
        StartError: a server does not start, or is not installed.
        StoreError: the databases cannot be made.
    """
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(unlimited(folder))
        parts = [broker.part]
        if superuser is None:
            server, part = await stack.enter_async_context(_embedded(folder))
            parts.append(part)
        else:
            server = superuser
        databases = await stack.enter_async_context(_databases(folder, server))
        yield _installation(broker, databases, tuple(parts))


def unlimited(folder: Path, *, window: int = 0) -> MosquittoServer:
    """A mosquitto that keeps all that comes, in memory; not started.

    Args:
        folder: what it writes goes there.
        window: messages on their way at once to a client; 0: as many as the client takes. Its own default is 20.
    """
    lines = (f"max_inflight_messages {window}", "set_tcp_nodelay true", "sys_interval 0")
    quiet = ("log_type error", "log_type warning")
    name = f"mosquitto-{window}"
    return MosquittoServer(
        folder / f"{name}.conf", folder / f"{name}.log", *mosquitto.IN_MEMORY, *lines, *quiet
    )


def _installation(
    broker: MosquittoServer, databases: Mapping[str, settings.DatabaseSettings], parts: tuple[Part, ...]
) -> BenchInstallation:
    options = settings.Settings(
        mqtt=settings.MqttSettings(port=broker.port, client_id="replaced", protocol="5"),
        databases=settings.DatabasesSettings(
            metadata=databases["metadata_writer"], timeseries=databases["timeseries_writer"]
        ),
        streams=(settings.StreamSettings(name="replaced", topic="replaced", tenant="replaced"),),
    )
    return BenchInstallation(
        configured=options,
        metadata=databases["metadata_owner"],
        timeseries=databases["timeseries_owner"],
        own=True,
        parts=parts,
        broker_pid=broker.part.pid,
    )


@contextlib.asynccontextmanager
async def _embedded(folder: Path) -> AsyncIterator[tuple[settings.DatabaseSettings, Part]]:
    """A cluster of the bench's own, tuned."""
    postgres = EmbeddedPostgres(folder / "postgres", folder / "postgres.log")
    address = SecretStr(postgres.address.dsn(SUPERUSER, SUPERUSER))
    superuser = settings.DatabaseSettings(dsn=address, password_file=postgres.password_file)
    try:
        await postgres.start()
        async with migrate.session("server", superuser) as connection:
            for name, value in tuning().items():
                await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await postgres.stop()
        await postgres.start()
        yield superuser, postgres.part
    finally:
        await postgres.stop()


def tuning() -> dict[str, str]:
    """Settings of a server to be measured: as PostgreSQL's manual advises, and no checkpoint in the midst of a run."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "shared_buffers": f"{min(memory // 4, 2 * _GIB) // 2**20}MB",
        "min_wal_size": "2GB",
        "max_wal_size": "8GB",
        "checkpoint_timeout": "30min",
    }


@contextlib.asynccontextmanager
async def _databases(
    folder: Path, server: settings.DatabaseSettings
) -> AsyncIterator[dict[str, settings.DatabaseSettings]]:
    """Both databases, migrated, as owner and as writer; dropped with their roles at the end."""
    roles = Roles(f"gateway_bench_{secrets.token_hex(4)}")
    names: dict[Name, str] = {
        "metadata": f"{roles.prefix}_metadata",
        "timeseries": f"{roles.prefix}_timeseries",
    }
    secret = folder / "secrets"
    try:
        await initialise.initialise(server, names, roles, secret)
        async with migrate.session("server", server) as connection:
            await connection.execute(f"GRANT pg_checkpoint, pg_signal_backend TO {roles.owner}")
            await _age(connection)
        yield await _migrated(server, names, roles, secret)
    finally:
        await _drop(server, names, roles)


async def _age(connection: Any) -> None:
    """Give the server WAL files to use again, as one has that ran for a while: a new one is zeros first."""
    for _ in range(_WAL_FILES):
        await connection.execute("SELECT pg_logical_emit_message(false, 'gateway', ''), pg_switch_wal()")
    await connection.execute("CHECKPOINT")


async def _migrated(
    server: settings.DatabaseSettings, names: Mapping[Name, str], roles: Roles, secret: Path
) -> dict[str, settings.DatabaseSettings]:
    found: dict[str, settings.DatabaseSettings] = {}
    for logical, name in names.items():
        there = dsn.with_database(server, name)
        owner = dsn.with_user(there, roles.owner, passwords.path(secret, roles.owner))
        await migrate.upgrade(logical, owner)
        found[f"{logical}_owner"] = owner.model_copy(update={"command_timeout": 0})
        found[f"{logical}_writer"] = dsn.with_user(there, roles.writer, passwords.path(secret, roles.writer))
    return found


async def _drop(server: settings.DatabaseSettings, names: Mapping[Name, str], roles: Roles) -> None:
    async with migrate.session("server", server) as connection:
        for name in names.values():
            await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        for role in (roles.reader, roles.writer, roles.owner):
            await connection.execute(f"DROP ROLE IF EXISTS {role}")
