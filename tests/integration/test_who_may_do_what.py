"""A device, a reader and a stolen log-in of the writer against another tenant, by every way that is known.

What they try to read, write, slow or stop; beside them the daemon takes an innocent device's readings. Details of each
are in ``test_shipped_mosquitto.py``, ``test_readers.py`` and ``test_roles.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import aiomqtt
import asyncpg
import pytest

from gateway.storage import migrate, passwords
from gateway.storage.revisions import NAMES
from tests.integration.test_shipped_mosquitto import DEVICE, GATEWAY, OTHER, SESSION, TOPIC, Shipped, client
from tests.support.daemon import Daemon
from tests.support.databases import Databases
from tests.support.installation import Installation
from tests.support.servers import Mosquitto, Server
from tests.support.sql import execute, scalar
from tests.support.waiting import eventually, eventually_async

pytestmark = pytest.mark.mosquitto

FOREIGN_TOPICS = (TOPIC, TOPIC.replace("telemetry", "events"), "tenants/acme/devices", "$SYS/broker/uptime")

READS = {
    "metadata": (
        "SELECT * FROM tenants", "SELECT * FROM devices", "SELECT * FROM registry_readers",
        "SELECT * FROM registry_versions", "COPY devices TO STDOUT", "SELECT * FROM pg_statistic",
    ),
    "timeseries": (
        "SELECT * FROM telemetry", "SELECT * FROM dead_letters", "SELECT * FROM telemetry_readers",
        "SELECT * FROM mqtt_sessions", "TABLE redelivery_ledger", "COPY telemetry TO STDOUT",
    ),
}  # fmt: skip
WRITES = {
    "metadata": (
        "UPDATE devices SET status = 'disabled'", "DELETE FROM tenants", "UPDATE registry_versions SET version = 0",
        "INSERT INTO registry_readers VALUES (session_user, '{theirs}')", "CREATE TABLE t ()",
        "CREATE TEMPORARY TABLE t ()", "CREATE SCHEMA s", "ALTER TABLE devices DISABLE ROW LEVEL SECURITY",
        "DROP FUNCTION tenant_devices()",
    ),
    "timeseries": (
        "INSERT INTO telemetry VALUES (now(), '{theirs}', '{theirs}', '{{}}')", "TRUNCATE dead_letters",
        "UPDATE telemetry SET data = '{{}}'", "DELETE FROM dead_letters",
        "INSERT INTO processed_messages VALUES ('{theirs}', 'm')",
        "UPDATE telemetry_readers SET tenant_id = '{theirs}'", "DROP VIEW tenant_telemetry",
    ),
}  # fmt: skip
STOPS = {
    "metadata": (
        "LOCK TABLE devices IN ACCESS SHARE MODE",
        "LOCK TABLE alembic_version_metadata IN SHARE MODE",
    ),
    "timeseries": (
        "LOCK TABLE telemetry IN ACCESS SHARE MODE",
        "LOCK TABLE dead_letters IN SHARE MODE",
    ),
}
"""Refused to readers; what is not is done by :func:`_hinder`."""
WRITERS = {
    "metadata": (
        "DELETE FROM devices",
        "INSERT INTO tenants (slug) VALUES ('x')",
        "UPDATE devices SET status = 'disabled'",
    ),
    "timeseries": (
        "DELETE FROM telemetry",
        "TRUNCATE dead_letters",
        "ALTER TABLE telemetry ADD x int",
        "DROP TABLE events",
    ),
}
"""Refused to the writer too: it destroys nothing."""


@pytest.fixture
def shipped(mosquitto_broker: Mosquitto) -> Iterator[Shipped]:
    """A broker as shipped."""
    assert mosquitto_broker.running
    with Shipped() as broker:
        yield broker.start()


@pytest.fixture
async def tenants(installation: Installation) -> tuple[UUID, UUID]:
    """Of the innocent device and of the reader, whose password is known; each has a type and its device."""
    found = []
    for slug, serial in (("acme", DEVICE[0]), ("mallory", OTHER[0])):
        registry = installation.superuser_dsn("metadata")
        tenant = scalar(registry, "INSERT INTO tenants (slug) VALUES ($1) RETURNING id", slug)
        execute(
            registry,
            f"INSERT INTO device_types (tenant_id, name) VALUES ('{tenant}', 'k'); "
            "INSERT INTO devices (tenant_id, device_type_id, serial_number) "
            f"SELECT tenant_id, id, '{serial}' FROM device_types WHERE tenant_id = '{tenant}'",
        )
        found.append(tenant)
    await installation.bind(installation.roles.reader, found[1])
    return found[0], found[1]


@contextlib.contextmanager
def daemon(installation: Installation, server: Server, broker: Shipped) -> Iterator[Daemon]:
    """As documented: the gateway's user at its own listener, the writer in the databases."""
    writer = installation.roles.writer
    word = passwords.path(installation.folder, writer).read_text().strip()
    dsns = [re.sub(r"//[^@]*@", f"//{writer}:{word}@", installation.superuser_dsn(name)) for name in NAMES]
    secret = Path(broker.folder) / "gateway_password"
    secret.write_text(GATEWAY[1])
    mqtt = {"client_id": SESSION, "username": GATEWAY[0], "password_file": secret}
    with Daemon(broker.inner_port, Databases(server, *dsns), {"mqtt": mqtt}) as made:
        yield made.start()
        assert made.stop() == 0


async def test_no_other_tenant_is_read_written_slowed_or_stopped(
    installation: Installation, server: Server, shipped: Shipped, tenants: tuple[UUID, UUID]
) -> None:
    """All that can be is refused; beside all that cannot, an innocent device's readings are stored within a second."""
    stored = "SELECT count(*) FROM telemetry WHERE tenant_id = $1"
    there = installation.superuser_dsn("timeseries")
    with daemon(installation, server, shipped) as running:
        async with _hinder(installation), client(shipped, DEVICE) as innocent:
            await _as_device(shipped)
            for name in NAMES:
                await _refused(
                    installation, installation.roles.reader, name, tenants[0], READS, WRITES, STOPS
                )
                await _refused(installation, installation.roles.writer, name, tenants[0], WRITERS)
            for n in range(5):
                await innocent.publish(TOPIC, b'{"n": %d}' % n, qos=1)
                await eventually_async(lambda n=n: scalar(there, stored, tenants[0]) == n + 1, timeout=1)  # type: ignore[misc]
            assert running.ready()[0] == 200
            execute(installation.superuser_dsn("metadata"), "UPDATE devices SET status = 'disabled'")
            await innocent.publish(TOPIC, b'{"n": 1}', qos=1)  # perhaps before it is noticed
            await asyncio.to_thread(eventually, lambda: _refuses(running, shipped), timeout=5)
            for name in NAMES:
                await migrate.upgrade(
                    name, installation.settings(name, installation.roles.owner), lock_timeout=1
                )
        books = running.settle(1)
    assert books["balance"] == 0
    assert scalar(there, stored, tenants[1]) == 0


def _refuses(running: Daemon, shipped: Shipped) -> bool:
    """A disabled device's message becomes a dead letter: changes of the registry are followed."""

    async def publish() -> None:
        async with client(shipped, DEVICE) as device:
            await device.publish(TOPIC, b'{"n": 2}', qos=1)

    asyncio.run(publish())
    return running.settle(1)["dead_lettered"] > 0


async def _as_device(shipped: Shipped) -> None:
    """Another device speaks for the innocent one, listens, joins a share, and takes the gateway's client id."""
    async with client(shipped, OTHER, identifier=SESSION, clean_start=True) as mallory:
        for topic in FOREIGN_TOPICS:
            await mallory.publish(topic, b'{"n": 666}', qos=1)
        for topic in ("#", "$share/gateway/tenants/#", TOPIC):
            with contextlib.suppress(aiomqtt.MqttError):
                await mallory.subscribe(topic, qos=1)


async def _refused(installation: Installation, role: str, name: Any, theirs: UUID, *attempts: Any) -> None:
    connection = await installation.connect(name, role)
    try:
        await connection.execute("SET lock_timeout = '2s'")  # what waits for a lock was not refused
        for statement in (one.format(theirs=theirs) for group in attempts for one in group[name]):
            transaction = connection.transaction()
            await transaction.start()
            error = await _error(connection, statement)
            assert isinstance(error, asyncpg.InsufficientPrivilegeError), (role, statement, error)
            await transaction.rollback()
    finally:
        await connection.close()


async def _error(connection: asyncpg.Connection, statement: str) -> Exception | None:
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError as error:
        return error  # type: ignore[no-any-return]
    return None


@contextlib.asynccontextmanager
async def _hinder(installation: Installation) -> AsyncIterator[None]:
    """What no server refuses to a reader, while the block runs: NOTIFY, locks, open transactions, connections."""
    opened: list[asyncpg.Connection] = []
    garbage = "pg_notify('gateway_registry', repeat('{', 4000) || n)"
    flood = f"SELECT count({garbage}), pg_sleep(0.2) FROM generate_series(1, 200) n"

    async def notify(connection: asyncpg.Connection) -> None:
        while True:
            await connection.execute(flood)

    floods: list[asyncio.Task[None]] = []
    try:
        for name in NAMES:
            opened += [await installation.connect(name, installation.roles.reader) for _ in range(5)]
            holder, notifier = opened[-2:]
            keys = "unnest(ARRAY['gateway_make_partition', 'gateway', 'migrate']) AS k"
            await holder.execute(f"SELECT pg_advisory_lock(hashtextextended(k, 0)) FROM {keys}")
            await holder.execute(f"SELECT pg_advisory_lock({0x6D69677261746564})")
            view = {"metadata": "tenant_devices", "timeseries": "tenant_telemetry"}[name]
            await holder.execute(f"BEGIN; LISTEN gateway_registry; SELECT count(*) FROM {view}")
            floods.append(asyncio.create_task(notify(notifier)))
        for one in opened[:3]:
            await one.close()
            opened.remove(one)
        more = [installation.connect("timeseries", installation.roles.reader) for _ in range(5)]
        got = await asyncio.gather(*more, return_exceptions=True)
        opened += [one for one in got if isinstance(one, asyncpg.Connection)]
        assert any(isinstance(one, asyncpg.TooManyConnectionsError) for one in got), (
            "its connections are limited"
        )
        for one in opened[-2:]:
            await one.close()
        yield
    finally:
        for task in floods:
            task.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        for one in opened:
            one.terminate()
