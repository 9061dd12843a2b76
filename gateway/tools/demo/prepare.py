"""Set-up by the gateway's own means: databases, roles, migrations, tenants, device types, devices, configuration."""

from __future__ import annotations

import json
import uuid

from pydantic import SecretStr

from gateway import settings
from gateway.devices import provisioning
from gateway.devices.models import NewTenant
from gateway.storage import initialise, migrate, passwords, pools
from gateway.storage.revisions import Name
from gateway.storage.roles import Roles
from gateway.tools.demo import roster
from gateway.tools.demo.broker import DemoBroker
from gateway.tools.demo.folder import Folder
from gateway.tools.servers.postgres import SUPERUSER, EmbeddedPostgres

DATABASES: dict[Name, str] = {"metadata": "gateway_metadata", "timeseries": "gateway_timeseries"}
ROLES = Roles("gateway")

_CONFIG = """\
# Written by `gateway demo`, anew at each start.

[mqtt]
host = "127.0.0.1"
port = {broker.port}
client_id = "gateway-demo"
protocol = "{protocol}"

[databases.metadata]
dsn = "{metadata}"
password_file = {password_file}

[databases.timeseries]
dsn = "{timeseries}"
password_file = {password_file}

[[streams]]
name = "telemetry"
topic = "tenants/{{tenant}}/devices/{{device}}/telemetry"
decoder = "json"
unknown_device = "dead_letter"

[observability]
port = {health_port}
"""


async def databases(folder: Folder, postgres: EmbeddedPostgres) -> None:
    """Make roles and databases where they are missing, and bring them up to date.

    Raises:
        StoreError: a statement failed.
    """
    dsn = SecretStr(postgres.address.dsn(SUPERUSER, SUPERUSER))
    server = settings.DatabaseSettings(dsn=dsn, password_file=postgres.password_file)
    await initialise.initialise(server, DATABASES, ROLES, folder.secrets)
    for name in DATABASES:
        await migrate.upgrade(name, owned(folder, postgres, name))


async def provision(folder: Folder, postgres: EmbeddedPostgres) -> dict[str, uuid.UUID]:
    """Enter the tenants that are missing, with their device types and devices; ids by serial number.

    Raises:
        StoreError: a statement failed.
    """
    connection = await pools.connect(owned(folder, postgres, "metadata"), application_name="gateway-demo")
    try:
        there = {tenant.slug for tenant in await provisioning.list_tenants(connection)}
        for tenant in roster.TENANTS:
            if tenant.slug not in there:
                async with connection.transaction():
                    await _enter(connection, tenant)
        listed = await provisioning.list_devices(connection, limit=len(roster.DEVICES))
        return {device.serial_number: device.id for device in listed}
    finally:
        await connection.close()


async def _enter(connection: provisioning.Connection, tenant: NewTenant) -> None:
    members = [member for member in roster.DEVICES if member.tenant is tenant]
    await provisioning.add_tenant(connection, tenant)
    for kind in {member.type.name: member.type for member in members}.values():
        await provisioning.add_device_type(connection, tenant.slug, kind)
    for member in members:
        await provisioning.add_device(connection, tenant.slug, member.new())


def configure(folder: Folder, postgres: EmbeddedPostgres, broker: DemoBroker, health_port: int) -> None:
    """Write the configuration of the gateway, which writes as its own role, and the environment of ``psql``."""
    text = _CONFIG.format(
        broker=broker,
        protocol="5" if broker.mqtt5 else "3.1.1",
        password_file=json.dumps(str(passwords.path(folder.secrets, ROLES.writer))),
        health_port=health_port,
        **{name: postgres.address.dsn(ROLES.writer, database) for name, database in DATABASES.items()},
    )
    folder.config.write_text(text, "utf-8")
    folder.psql.write_text(json.dumps(_psql(folder, postgres)), "utf-8")


def _psql(folder: Folder, postgres: EmbeddedPostgres) -> dict[str, str]:
    passfile = folder.secrets / "pgpass"
    passfile.touch(mode=0o600)
    passfile.write_text(f"*:*:*:*:{passwords.read(folder.secrets, ROLES.owner)}\n", "ascii")
    return {
        "PGHOST": postgres.address.host,
        "PGPORT": str(postgres.address.port),
        "PGUSER": ROLES.owner,
        "PGDATABASE": DATABASES["timeseries"],
        "PGPASSFILE": str(passfile),
    }


def owned(folder: Folder, postgres: EmbeddedPostgres, name: Name) -> settings.DatabaseSettings:
    """A database as the owner role sees it."""
    dsn = SecretStr(postgres.address.dsn(ROLES.owner, DATABASES[name]))
    return settings.DatabaseSettings(dsn=dsn, password_file=passwords.path(folder.secrets, ROLES.owner))
