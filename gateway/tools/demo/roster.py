"""Who lives in the demo: two tenants, three device types, fifty devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from gateway.devices.models import NewDevice, NewDeviceType, NewField, NewTenant

ACME = NewTenant(slug="acme", name="Acme Works")
VERDANT = NewTenant(slug="verdant", name="Verdant Greenhouses")
TENANTS = (ACME, VERDANT)

CLIMATE = NewDeviceType(
    name="climate",
    description="Air of a greenhouse; impossible values are rejected",
    violations="reject",
    fields=(
        NewField.parse("temperature:float:celsius:-40:60:required"),
        NewField.parse("humidity:float:percent:0:100:required"),
    ),
)
MOTOR = NewDeviceType(
    name="motor",
    description="Vibration of a bearing; values beyond the limit are stored and flagged",
    fields=(
        NewField.parse("vibration:float:mm/s:0:11.2:required"),
        NewField.parse("temperature:float:celsius:-20:120:required"),
    ),
)
DOOR = NewDeviceType(
    name="door",
    description="Contact of a gate",
    fields=(NewField.parse("open:bool:required"), NewField.parse("battery:float:volt:1.5:3.6:required")),
)
TYPES = (CLIMATE, MOTOR, DOOR)


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A device of the demo."""

    serial: str
    tenant: NewTenant
    type: NewDeviceType
    name: str
    location: str

    @property
    def topic(self) -> str:
        """Where it publishes."""
        return f"tenants/{self.tenant.slug}/devices/{self.serial}/telemetry"

    def new(self) -> NewDevice:
        """What is entered into the registry."""
        return NewDevice(
            serial_number=self.serial, type=self.type.name, name=self.name, location=self.location
        )


def _group(
    prefix: str, tenant: NewTenant, kind: NewDeviceType, place: str, names: Sequence[str]
) -> Iterator[Member]:
    for n, name in enumerate(names, 1):
        yield Member(f"{prefix}-{n:03}", tenant, kind, name, f"{place} {n % 4 + 1}")


def _numbered(names: Sequence[str], each: int) -> list[str]:
    return [f"{name} {n + 1}" for n in range(each) for name in names]


_CROPS = _numbered(("Tomato", "Pepper", "Basil", "Orchid", "Seedling", "Lettuce"), 4)
_MACHINES = _numbered(("Pump", "Fan", "Conveyor", "Lathe", "Compressor", "Mill"), 3)
_GATES = _numbered(("Gate",), 8)

DEVICES: tuple[Member, ...] = (
    *_group("CLI", VERDANT, CLIMATE, "House", _CROPS),
    *_group("MOT", ACME, MOTOR, "Hall", _MACHINES),
    *_group("DOR", ACME, DOOR, "Yard", _GATES),
)
WORN = ("MOT-003", "MOT-010")
"""Motors whose bearing wears out during the demo."""
GHOST = "GHO-666"
"""A serial number that is not provisioned."""
