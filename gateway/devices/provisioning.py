"""Entering tenants, device types and devices into the registry, and listing them.

Every function takes a connection to the metadata database; the caller, who opened it, translates driver errors. Where
something is entered that exists, or something is named that does not, they raise
:class:`gateway.errors.UsageError`, which says what there is and what to run.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from typing import Any, NamedTuple

from gateway import errors, outcomes
from gateway.devices import models

Connection = Any
"""An asyncpg connection; that name is known to storage only."""

_SHOWN = 20
"""How many of what exists an error names."""


async def add_tenant(connection: Connection, new: models.NewTenant) -> None:
    """Enter a tenant."""
    statement = "INSERT INTO tenants (slug, name) VALUES ($1, $2) ON CONFLICT (slug) DO NOTHING RETURNING id"
    if await connection.fetchval(statement, new.slug, new.name) is None:
        raise errors.UsageError(f"tenant {new.slug!r} exists already; see `gateway tenant list`")


async def list_tenants(connection: Connection) -> list[models.TenantRecord]:
    """All tenants, by slug."""
    return [models.TenantRecord(**row) for row in await connection.fetch(_TENANTS)]


async def tenant_id(connection: Connection, slug: str) -> uuid.UUID:
    """The tenant of this slug."""
    found: uuid.UUID | None = await connection.fetchval("SELECT id FROM tenants WHERE slug = $1", slug)
    if found is not None:
        return found
    slugs = await connection.fetch("SELECT slug FROM tenants ORDER BY slug LIMIT $1", _SHOWN + 1)
    raise errors.UsageError(
        f"there is no tenant {slug!r}; {_named([row['slug'] for row in slugs])}; "
        f"enter it: `gateway tenant add {slug}`"
    )


async def add_device_type(connection: Connection, tenant: str, new: models.NewDeviceType) -> None:
    """Enter a device type with its fields, in one transaction."""
    owner = await tenant_id(connection, tenant)
    async with connection.transaction():
        row = (owner, new.name, new.description, new.violations, new.unknown_fields)
        entered = await connection.fetchval(_ADD_DEVICE_TYPE, *row)
        if entered is None:
            raise errors.UsageError(
                f"device type {new.name!r} of tenant {tenant!r} exists already; "
                f"see `gateway device-type show {new.name} --tenant {tenant}`"
            )
        rows = [
            (entered, place, f.name, f.data_type, f.unit, f.minimum, f.maximum, f.required)
            for place, f in enumerate(new.fields)
        ]
        await connection.executemany(_ADD_FIELD, rows)


async def list_device_types(
    connection: Connection, tenant: str | None = None
) -> list[models.DeviceTypeRecord]:
    """The device types of a tenant, or of all, with their fields."""
    owner = await tenant_id(connection, tenant) if tenant is not None else None
    rows = await connection.fetch(_DEVICE_TYPES, owner, None)
    return [await _with_fields(connection, row) for row in rows]


async def show_device_type(connection: Connection, tenant: str, name: str) -> models.DeviceTypeRecord:
    """One device type, with its fields."""
    owner = await tenant_id(connection, tenant)
    row = await connection.fetchrow(_DEVICE_TYPES, owner, name)
    if row is None:
        raise await _no_device_type(connection, tenant, name)
    return await _with_fields(connection, row)


async def device_type_ids(connection: Connection, tenant: str) -> dict[str, uuid.UUID]:
    """Name to id of all device types of a tenant."""
    owner = await tenant_id(connection, tenant)
    query = "SELECT name, id FROM device_types WHERE tenant_id = $1 ORDER BY name"
    rows = await connection.fetch(query, owner)
    return {row["name"]: row["id"] for row in rows}


async def add_device(connection: Connection, tenant: str, new: models.NewDevice) -> None:
    """Enter a device."""
    owner = await tenant_id(connection, tenant)
    kind = (await device_type_ids(connection, tenant)).get(new.type)
    if kind is None:
        raise await _no_device_type(connection, tenant, new.type)
    row = (owner, kind, new.serial_number, new.name, new.location, json.dumps(new.metadata or {}))
    if await connection.fetchval(_ADD_DEVICE, *row) is None:
        raise errors.UsageError(
            f"device {new.serial_number!r} of tenant {tenant!r} exists already; "
            f"see `gateway device show {new.serial_number} --tenant {tenant}`"
        )


class Ensured(NamedTuple):
    """How many devices were entered, and the serial numbers of those that the hour's limit kept out."""

    entered: int
    beyond: Collection[str]


async def ensure_devices(
    connection: Connection, tenant: str, device_type: str, serial_numbers: Collection[str], *, per_hour: int
) -> Ensured:
    """Enter those devices that are missing; what a stream's ``unknown_device = "provision"`` asks for.

    Serial numbers that no device may have (too long, control characters) are passed over: one such topic must not
    keep the others out. All who provision for a tenant wait for its count, so that no more than ``per_hour`` are
    entered within an hour, however many gateways do.

    Raises:
        UsageError: the tenant does not exist, or has no such device type.
    """
    kind = (await device_type_ids(connection, tenant)).get(device_type)
    if kind is None:
        raise await _no_device_type(connection, tenant, device_type)
    proper = sorted(serial for serial in set(serial_numbers) if models.is_serial_number(serial))
    async with connection.transaction():
        room = max(0, per_hour - await connection.fetchval(_COUNT_OF_THE_HOUR, kind))
        missing = [row["serial"] for row in await connection.fetch(_MISSING, kind, proper)]
        entered = len(await connection.fetch(_ENSURE_DEVICES, kind, missing[:room])) if missing else 0
        if entered:
            await connection.execute(_COUNT_PROVISIONED, kind, entered)
    return Ensured(entered, missing[room:])


async def list_devices(
    connection: Connection,
    *,
    tenant: str | None = None,
    device_type: str | None = None,
    status: outcomes.DeviceState | None = None,
    limit: int = 100,
) -> list[models.DeviceRecord]:
    """Devices by tenant and serial number, at most ``limit``."""
    owner = await tenant_id(connection, tenant) if tenant is not None else None
    rows = await connection.fetch(_DEVICES, owner, device_type, status, None, limit)
    return [models.DeviceRecord(**row) for row in rows]


async def show_device(connection: Connection, tenant: str, serial_number: str) -> models.DeviceRecord:
    """One device."""
    owner = await tenant_id(connection, tenant)
    row = await connection.fetchrow(_DEVICES, owner, None, None, serial_number, 1)
    if row is None:
        raise _no_device(tenant, serial_number)
    return models.DeviceRecord(**row)


async def set_device_status(
    connection: Connection, tenant: str, serial_number: str, status: outcomes.DeviceState
) -> None:
    """Disable a device (its messages become dead letters) or enable it again. Idempotent."""
    owner = await tenant_id(connection, tenant)
    if await connection.fetchval(_SET_STATUS, owner, serial_number, status) is None:
        raise _no_device(tenant, serial_number)


async def _with_fields(connection: Connection, row: Any) -> models.DeviceTypeRecord:
    fields = await connection.fetch(_FIELDS, row["id"])
    return models.DeviceTypeRecord(**row, fields=tuple(models.TypeField(**field) for field in fields))


async def _no_device_type(connection: Connection, tenant: str, name: str) -> errors.UsageError:
    there = list(await device_type_ids(connection, tenant))
    return errors.UsageError(
        f"tenant {tenant!r} has no device type {name!r}; {_named(there)}; "
        f"enter it: `gateway device-type add {name} --tenant {tenant} --field …`"
    )


def _no_device(tenant: str, serial_number: str) -> errors.UsageError:
    return errors.UsageError(
        f"tenant {tenant!r} has no device {serial_number!r}; see `gateway device list --tenant {tenant}`"
    )


def _named(there: list[str]) -> str:
    if not there:
        return "there is none yet"
    return "there is " + ", ".join(there[:_SHOWN]) + (", …" if len(there) > _SHOWN else "")


_TENANTS = """
SELECT t.id, t.slug, t.name, t.created_at,
       (SELECT count(*) FROM device_types WHERE tenant_id = t.id) AS device_types,
       (SELECT count(*) FROM devices WHERE tenant_id = t.id) AS devices
FROM tenants t ORDER BY t.slug
"""

_ADD_DEVICE_TYPE = """
INSERT INTO device_types (tenant_id, name, description, violations, unknown_fields)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, name) DO NOTHING RETURNING id
"""

_ADD_FIELD = """
INSERT INTO field_mappings
    (device_type_id, position, field_name, data_type, unit, min_value, max_value, is_required)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""

_DEVICE_TYPES = """
SELECT d.id, t.slug AS tenant, d.name, d.description, d.violations, d.unknown_fields, d.version,
       (SELECT count(*) FROM devices WHERE device_type_id = d.id) AS devices, d.created_at, d.updated_at
FROM device_types d JOIN tenants t ON t.id = d.tenant_id
WHERE ($1::uuid IS NULL OR d.tenant_id = $1) AND ($2::text IS NULL OR d.name = $2)
ORDER BY t.slug, d.name
"""

_FIELDS = """
SELECT field_name AS name, data_type, unit, min_value AS minimum, max_value AS maximum,
       is_required AS required
FROM field_mappings WHERE device_type_id = $1 ORDER BY position, field_name
"""

_ADD_DEVICE = """
INSERT INTO devices (tenant_id, device_type_id, serial_number, name, location, metadata)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, serial_number) DO NOTHING RETURNING id
"""

# The hour is that of the moment at which the row is locked: who waited for it may have begun in an earlier one.
_COUNT_OF_THE_HOUR = """
INSERT INTO provisioned_devices AS kept (tenant_id, hour, devices)
SELECT tenant_id, date_trunc('hour', clock_timestamp()), 0 FROM device_types WHERE id = $1
ON CONFLICT (tenant_id) DO UPDATE SET (hour, devices) = (
    SELECT hour, CASE WHEN kept.hour = hour THEN kept.devices ELSE 0 END
    FROM date_trunc('hour', clock_timestamp()) AS hour
)
RETURNING devices
"""

_MISSING = """
SELECT serial FROM device_types k, unnest($2::text[]) WITH ORDINALITY AS u(serial, n)
WHERE k.id = $1 AND NOT EXISTS (
    SELECT FROM devices d WHERE d.tenant_id = k.tenant_id AND d.serial_number = u.serial
)
ORDER BY n
"""

_ENSURE_DEVICES = """
INSERT INTO devices (tenant_id, device_type_id, serial_number)
SELECT d.tenant_id, d.id, s FROM device_types d, unnest($2::text[]) AS s WHERE d.id = $1
ON CONFLICT (tenant_id, serial_number) DO NOTHING
RETURNING 1
"""

_COUNT_PROVISIONED = """
UPDATE provisioned_devices SET devices = devices + $2
WHERE tenant_id = (SELECT tenant_id FROM device_types WHERE id = $1)
"""

_DEVICES = """
SELECT d.id, t.slug AS tenant, d.serial_number, k.name AS type, d.name, d.location, d.status, d.metadata,
       d.last_seen_at, d.created_at, d.updated_at
FROM devices d JOIN tenants t ON t.id = d.tenant_id JOIN device_types k ON k.id = d.device_type_id
WHERE ($1::uuid IS NULL OR d.tenant_id = $1) AND ($2::text IS NULL OR k.name = $2)
  AND ($3::text IS NULL OR d.status = $3) AND ($4::text IS NULL OR d.serial_number = $4)
ORDER BY t.slug, d.serial_number LIMIT $5
"""

_SET_STATUS = """
UPDATE devices SET status = $3, updated_at = CASE WHEN status = $3 THEN updated_at ELSE now() END
WHERE tenant_id = $1 AND serial_number = $2 RETURNING id
"""
