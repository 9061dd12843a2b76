"""Row-level security of the registry's tables, and the changes that they keep."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.databases import Databases
from tests.support.sql import execute


class Registry:
    """A connection that changes the registry, and what that leaves behind."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection, self._seen = connection, 0

    async def tenant(self, slug: str) -> UUID:
        """A new tenant."""
        found: UUID = await self.connection.fetchval(
            "INSERT INTO tenants (slug) VALUES ($1) RETURNING id", slug
        )
        return found

    async def kind(self, tenant: UUID) -> UUID:
        """A new device type with a field."""
        statement = "INSERT INTO device_types (tenant_id, name) VALUES ($1, 'k') RETURNING id"
        found: UUID = await self.connection.fetchval(statement, tenant)
        await self.connection.execute(
            "INSERT INTO field_mappings (device_type_id, field_name, data_type) VALUES ($1, 'f', 'float')",
            found,
        )
        return found

    async def devices(self, tenant: UUID, kind: UUID, count: int) -> list[UUID]:
        """New devices, by one statement."""
        rows = await self.connection.fetch(
            "INSERT INTO devices (tenant_id, device_type_id, serial_number) "
            "SELECT $1, $2, 'S' || n FROM generate_series(1, $3) n RETURNING id",
            tenant,
            kind,
            count,
        )
        return [row["id"] for row in rows]

    async def changes(self) -> list[dict[str, Any]]:
        """All changes since the last call, which must be few enough to be kept."""
        query = "SELECT version, recent FROM registry_versions"  # one row: there is one session
        row = await self.connection.fetchrow(query)
        count, self._seen = row["version"] - self._seen, row["version"]
        assert count <= len(row["recent"]) <= 8
        return [json.loads(one) for one in row["recent"][len(row["recent"]) - count :]]


@pytest.fixture
async def registry(databases: Databases) -> AsyncIterator[Registry]:
    """A registry with one tenant, type and device, on both engines."""
    connection = await asyncpg.connect(databases.metadata_dsn)
    yield Registry(connection)
    await connection.close()


async def test_each_table_keeps_what_was_entered(registry: Registry) -> None:
    """One change a statement, with table, operation and ids."""
    tenant = await registry.tenant("acme")
    kind = await registry.kind(tenant)
    devices = await registry.devices(tenant, kind, 2)
    told = await registry.changes()
    assert [(one["table"], one["op"]) for one in told] == [
        ("tenants", "INSERT"),
        ("device_types", "INSERT"),
        ("field_mappings", "INSERT"),
        ("devices", "INSERT"),
    ]
    assert [told[0]["ids"], told[1]["ids"]] == [[str(tenant)], [str(kind)]]
    assert sorted(told[3]["ids"]) == sorted(map(str, devices))


@pytest.mark.parametrize(("count", "named"), [(50, 50), (51, None), (5000, None)])
async def test_many_ids_become_null(registry: Registry, count: int, named: int | None) -> None:
    """At most 50 ids are named."""
    tenant = await registry.tenant("acme")
    await registry.devices(tenant, await registry.kind(tenant), count)
    last = (await registry.changes())[-1]
    assert (last["table"], last["op"]) == ("devices", "INSERT")
    assert named == (None if last["ids"] is None else len(last["ids"]))


async def test_only_the_latest_changes_are_kept(registry: Registry) -> None:
    """Eight of a session, counted on; nobody is notified: any role could listen, and fill the queue for all."""
    heard: list[object] = []
    await registry.connection.add_listener("gateway_registry", lambda *told: heard.append(told))
    for n in range(20):
        await registry.tenant(f"t{n}")
    row = await registry.connection.fetchrow("SELECT version, recent FROM registry_versions")
    assert (row["version"], len(row["recent"]), heard) == (20, 8, [])
    last = await registry.connection.fetchval("SELECT id FROM tenants WHERE slug = 't19'")
    assert json.loads(row["recent"][-1])["ids"] == [str(last)]


@pytest.mark.parametrize(
    ("change", "tells"),
    [
        ("status = 'disabled'", True),
        ("serial_number = 'other'", True),
        ("last_seen_at = now()", False),
        ("updated_at = now()", False),
        ("name = 'Pump', location = 'Hall'", False),
        ("metadata = '{\"a\": 1}'", False),
        ("status = status", False),
    ],
)
async def test_only_what_gateways_cache_is_told(registry: Registry, change: str, tells: bool) -> None:
    """Presence and descriptions of devices change all day, and purge no cache."""
    tenant = await registry.tenant("acme")
    (device,) = await registry.devices(tenant, await registry.kind(tenant), 1)
    await registry.changes()
    await registry.connection.execute(f"UPDATE devices SET {change} WHERE id = $1", device)
    expected = [{"table": "devices", "op": "UPDATE", "ids": [str(device)]}] if tells else []
    assert expected == await registry.changes()


async def test_only_devices_that_changed_are_named(registry: Registry) -> None:
    """An update of many rows of which few change names those few."""
    tenant = await registry.tenant("acme")
    devices = await registry.devices(tenant, await registry.kind(tenant), 60)
    await registry.connection.execute("UPDATE devices SET status = 'disabled' WHERE id = $1", devices[0])
    await registry.changes()
    await registry.connection.execute(
        "UPDATE devices SET status = CASE WHEN id = $1 THEN 'active' ELSE status END", devices[0]
    )
    assert await registry.changes() == [{"table": "devices", "op": "UPDATE", "ids": [str(devices[0])]}]


async def test_removal_is_told(registry: Registry) -> None:
    """Deleted rows are named; a TRUNCATE speaks of all; a statement that touches nothing is silent."""
    tenant = await registry.tenant("acme")
    (device,) = await registry.devices(tenant, await registry.kind(tenant), 1)
    await registry.changes()
    await registry.connection.execute("DELETE FROM devices WHERE id = $1", device)
    await registry.connection.execute("DELETE FROM devices")
    await registry.connection.execute("TRUNCATE devices")
    assert await registry.changes() == [
        {"table": "devices", "op": "DELETE", "ids": [str(device)]},
        {"table": "devices", "op": "DELETE", "ids": None},
    ]


async def test_a_changed_type_is_told(registry: Registry) -> None:
    """Changes of types and fields reach every gateway."""
    kind = await registry.kind(await registry.tenant("acme"))
    await registry.changes()
    await registry.connection.execute("UPDATE device_types SET violations = 'reject'")
    await registry.connection.execute("UPDATE field_mappings SET max_value = 5")
    assert [(one["table"], one["op"]) for one in await registry.changes()] == [
        ("device_types", "UPDATE"),
        ("field_mappings", "UPDATE"),
    ]
    await registry.connection.execute("DELETE FROM device_types WHERE id = $1", kind)
    assert {one["table"] for one in await registry.changes()} == {"device_types", "field_mappings"}


@pytest.mark.parametrize("table", ["tenants", "device_types", "field_mappings", "devices"])
async def test_row_level_security_shows_one_tenant(
    databases: Databases, registry: Registry, table: str
) -> None:
    """Who is neither owner nor exempt sees rows of ``app.current_tenant_id``; without it, or with nonsense, none."""
    role = f"peeper_{uuid4().hex[:8]}"
    for slug in ("ours", "theirs"):
        tenant = await registry.tenant(slug)
        await registry.devices(tenant, await registry.kind(tenant), 3)
    ours = await registry.connection.fetchval("SELECT id FROM tenants WHERE slug = 'ours'")
    execute(
        databases.metadata_dsn, f"CREATE ROLE {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    try:
        await registry.connection.execute(f"SET ROLE {role}")
        seen = []
        for setting in (None, "", "nonsense", str(ours)):
            if setting is not None:
                await registry.connection.execute(
                    "SELECT set_config('app.current_tenant_id', $1, false)", setting
                )
            seen.append(await registry.connection.fetchval(f"SELECT count(*) FROM {table}"))
        assert seen == [0, 0, 0, 3 if table == "devices" else 1]
    finally:
        await registry.connection.execute("RESET ROLE")
        execute(databases.metadata_dsn, f"DROP OWNED BY {role}; DROP ROLE {role}")
