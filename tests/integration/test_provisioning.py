"""Entering tenants, device types and devices into a real registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import asyncpg
import pytest

from gateway import errors, outcomes
from gateway.devices import models, provisioning
from tests.support.databases import Databases

VIBRATION = models.NewDeviceType(
    name="vibration_sensor",
    violations="reject",
    fields=(
        models.NewField.parse("vibration:float:mm/s:0:100:required"),
        models.NewField.parse("door:bool"),
    ),
)


@pytest.fixture
async def registry(postgres_databases: Databases) -> AsyncIterator[asyncpg.Connection]:
    """An empty registry."""
    connection = await asyncpg.connect(postgres_databases.metadata_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def acme(registry: asyncpg.Connection) -> asyncpg.Connection:
    """A registry with one tenant and one type."""
    await provisioning.add_tenant(registry, models.NewTenant(slug="acme", name="Acme Ltd"))
    await provisioning.add_device_type(registry, "acme", VIBRATION)
    return registry


def device(serial_number: str, **values: object) -> models.NewDevice:
    """A device to enter."""
    return models.checked(models.NewDevice, serial_number=serial_number, type="vibration_sensor", **values)


async def test_what_is_entered_is_listed(acme: asyncpg.Connection) -> None:
    """Tenant, type with fields in their order, device with all that was said of it."""
    await provisioning.add_device(
        acme, "acme", device("S1", name="Pump", location="Hall", metadata={"a": [1]})
    )
    (tenant,) = await provisioning.list_tenants(acme)
    assert (tenant.slug, tenant.name, tenant.device_types, tenant.devices) == ("acme", "Acme Ltd", 1, 1)
    (kind,) = await provisioning.list_device_types(acme, "acme")
    assert kind == await provisioning.show_device_type(acme, "acme", "vibration_sensor")
    assert (kind.violations, kind.unknown_fields, kind.version, kind.devices) == ("reject", "keep", 1, 1)
    vibration = models.TypeField(
        name="vibration", data_type="float", unit="mm/s", minimum=0, maximum=100, required=True
    )
    assert kind.fields[0] == vibration
    assert [field.name for field in kind.fields] == ["vibration", "door"]
    (entered,) = await provisioning.list_devices(acme)
    assert entered == await provisioning.show_device(acme, "acme", "S1")
    assert (entered.name, entered.location, entered.metadata) == ("Pump", "Hall", {"a": [1]})
    assert (entered.status, entered.last_seen_at) == ("active", None)


async def test_what_exists_is_not_entered_again(acme: asyncpg.Connection) -> None:
    """The error says what to look at; nothing changes."""
    await provisioning.add_device(acme, "acme", device("S1"))
    with pytest.raises(errors.UsageError, match="tenant 'acme' exists already"):
        await provisioning.add_tenant(acme, models.NewTenant(slug="acme"))
    with pytest.raises(errors.UsageError, match="gateway device-type show vibration_sensor --tenant acme"):
        await provisioning.add_device_type(acme, "acme", models.NewDeviceType(name="vibration_sensor"))
    with pytest.raises(errors.UsageError, match="device 'S1' of tenant 'acme' exists already"):
        await provisioning.add_device(acme, "acme", device("S1", name="other"))
    assert (await provisioning.show_device(acme, "acme", "S1")).name is None
    assert len((await provisioning.show_device_type(acme, "acme", "vibration_sensor")).fields) == 2


async def test_what_is_missing_is_named_with_what_there_is(acme: asyncpg.Connection) -> None:
    """Unknown tenants, types and devices: the error names those that exist and the command that enters one."""
    with pytest.raises(
        errors.UsageError, match=r"no tenant 'acne'; there is acme; .*gateway tenant add acne"
    ):
        await provisioning.add_device(acme, "acne", device("S1"))
    wrong = models.NewDevice(serial_number="S1", type="vibration")
    with pytest.raises(
        errors.UsageError, match=r"no device type 'vibration'; there is vibration_sensor; .*add"
    ):
        await provisioning.add_device(acme, "acme", wrong)
    with pytest.raises(errors.UsageError, match="no device 'S9'; see `gateway device list --tenant acme`"):
        await provisioning.show_device(acme, "acme", "S9")
    with pytest.raises(errors.UsageError, match="no device 'S9'"):
        await provisioning.set_device_status(acme, "acme", "S9", "disabled")


async def test_lists_are_filtered(acme: asyncpg.Connection) -> None:
    """By tenant, type and status, in the order of serial numbers, up to the limit."""
    await provisioning.add_tenant(acme, models.NewTenant(slug="other"))
    await provisioning.add_device_type(acme, "other", VIBRATION)
    for serial in ("S3", "S1", "S2"):
        await provisioning.add_device(acme, "acme", device(serial))
    await provisioning.add_device(acme, "other", device("S1"))
    await provisioning.set_device_status(acme, "acme", "S2", "disabled")

    async def found(**filters: object) -> list[str]:
        listed = await provisioning.list_devices(acme, **filters)  # type: ignore[arg-type]
        return [f"{one.tenant}/{one.serial_number}" for one in listed]

    assert await found() == ["acme/S1", "acme/S2", "acme/S3", "other/S1"]
    assert await found(limit=2) == ["acme/S1", "acme/S2"]
    assert await found(tenant="other") == ["other/S1"]
    assert await found(status="disabled") == ["acme/S2"]
    assert await found(device_type="nothing") == []
    assert await found(tenant="acme", device_type="vibration_sensor", status="active") == [
        "acme/S1",
        "acme/S3",
    ]


async def test_disabling_is_idempotent(acme: asyncpg.Connection) -> None:
    """Twice disabled is disabled, and the time of the change is the first one's; enabling takes it back."""
    await provisioning.add_device(acme, "acme", device("S1"))
    await provisioning.set_device_status(acme, "acme", "S1", "disabled")
    disabled = await provisioning.show_device(acme, "acme", "S1")
    await provisioning.set_device_status(acme, "acme", "S1", "disabled")
    assert disabled == await provisioning.show_device(acme, "acme", "S1")
    await provisioning.set_device_status(acme, "acme", "S1", "active")
    assert (await provisioning.show_device(acme, "acme", "S1")).status == "active"


async def test_missing_devices_are_ensured(acme: asyncpg.Connection) -> None:
    """Those that are missing are entered; those that exist stay as they are; what no device may be is passed over."""
    await provisioning.add_device(acme, "acme", device("S1", name="Pump"))
    await provisioning.set_device_status(acme, "acme", "S1", "disabled")
    serials = ["S1", "S2", "S2", "a b/c#+", "x" * 256, "", " S", "tab\there"]
    await provisioning.ensure_devices(acme, "acme", "vibration_sensor", serials, per_hour=9)
    listed = await provisioning.list_devices(acme)
    assert {one.serial_number: one.status for one in listed} == {
        "S1": "disabled",
        "S2": "active",
        "a b/c#+": "active",
    }
    await provisioning.ensure_devices(acme, "acme", "vibration_sensor", [], per_hour=9)


async def test_ensuring_needs_tenant_and_type(acme: asyncpg.Connection) -> None:
    """A stream that provisions a type which the tenant lacks is told so."""
    with pytest.raises(errors.UsageError, match="tenant 'acme' has no device type 'pump'"):
        await provisioning.ensure_devices(acme, "acme", "pump", ["S1"], per_hour=9)
    with pytest.raises(errors.UsageError, match="no tenant 'acne'"):
        await provisioning.ensure_devices(acme, "acne", "vibration_sensor", ["S1"], per_hour=9)


async def test_a_type_is_entered_with_all_its_fields_or_not_at_all(acme: asyncpg.Connection) -> None:
    """A field that the database refuses takes the type with it."""
    broken = models.NewField.model_construct(
        name="f",
        data_type=cast("outcomes.DataType", "complex"),
        unit=None,
        minimum=None,
        maximum=None,
        required=False,
    )
    kind = models.NewDeviceType.model_construct(
        name="broken", description="", violations="flag", unknown_fields="keep", fields=(broken,)
    )
    with pytest.raises(asyncpg.CheckViolationError):
        await provisioning.add_device_type(acme, "acme", kind)
    assert [one.name for one in await provisioning.list_device_types(acme)] == ["vibration_sensor"]
