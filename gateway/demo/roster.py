"""Who lives in the demo: two tenants, three device types, fifty devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from gateway.messages import Field

TENANTS = {"acme": "Acme Works", "verdant": "Verdant Greenhouses"}


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A device type of the demo; ``violations`` as in :class:`gateway.messages.DeviceType`."""

    name: str
    tenant: str
    description: str
    fields: tuple[Field, ...]
    violations: str


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A device of the demo."""

    serial: str
    kind: Kind
    name: str
    location: str

    @property
    def topic(self) -> str:
        """Where it publishes."""
        return f"tenants/{self.kind.tenant}/devices/{self.serial}/telemetry"


CLIMATE = Kind(
    "climate",
    "verdant",
    "Air of a greenhouse; impossible values are rejected",
    (
        Field("temperature", "float", "celsius", -40, 60, required=True),
        Field("humidity", "float", "percent", 0, 100, required=True),
    ),
    violations="reject",
)
MOTOR = Kind(
    "motor",
    "acme",
    "Vibration of a motor's bearing; values beyond the limit are stored and flagged",
    (
        Field("vibration", "float", "mm/s", 0, 11.2, required=True),
        Field("temperature", "float", "celsius", -20, 120, required=True),
    ),
    violations="flag",
)
DOOR = Kind(
    "door",
    "acme",
    "Contact of a gate",
    (
        Field("open", "bool", required=True),
        Field("battery", "float", "volt", 1.5, 3.6, required=True),
    ),
    violations="flag",
)
KINDS = (CLIMATE, MOTOR, DOOR)


def _group(prefix: str, kind: Kind, count: int, place: str, names: Sequence[str]) -> Iterator[Member]:
    for n in range(count):
        name = f"{names[n % len(names)]} {n // len(names) + 1}"
        yield Member(f"{prefix}-{n + 1:03}", kind, name, f"{place} {n % 4 + 1}")


DEVICES: tuple[Member, ...] = (
    *_group("CLI", CLIMATE, 24, "House", ("Tomato", "Pepper", "Basil", "Orchid", "Seedling", "Lettuce")),
    *_group("MOT", MOTOR, 18, "Hall", ("Pump", "Fan", "Conveyor", "Lathe", "Compressor", "Mill")),
    *_group("DOR", DOOR, 8, "Yard", ("Gate",)),
)
WORN = ("MOT-003", "MOT-010")
"""Motors whose bearing wears out during the demo."""
GHOST = "GHO-666"
"""A serial number that nobody provisioned."""
