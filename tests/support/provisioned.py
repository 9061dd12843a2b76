"""Devices in the registry, entered straight into its tables: provisioning has tests of its own."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from tests.support.databases import Databases


def provision(
    databases: Databases, serials: Sequence[str], *, tenant: str = "acme", kind: str = "sensor"
) -> dict[str, uuid.UUID]:
    """Enter these devices of one type without fields; tenant and type are made if need be. Serial to device id."""
    tenant_id = databases.metadata(
        "INSERT INTO tenants (slug) VALUES ($1) ON CONFLICT (slug) DO UPDATE SET name = '' RETURNING id",
        tenant,
    )[0][0]
    type_id = databases.metadata(
        "INSERT INTO device_types (tenant_id, name) VALUES ($1, $2) "
        "ON CONFLICT (tenant_id, name) DO UPDATE SET description = '' RETURNING id",
        tenant_id,
        kind,
    )[0][0]
    rows = databases.metadata(
        "INSERT INTO devices (tenant_id, device_type_id, serial_number) "
        "SELECT $1, $2, unnest($3::text[]) RETURNING serial_number, id",
        tenant_id,
        type_id,
        list(serials),
    )
    return {row["serial_number"]: row["id"] for row in rows}
