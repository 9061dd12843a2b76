"""What the messages of a load look like, and what the device type that they conform to says. Pure."""

from __future__ import annotations

import msgspec

from gateway.devices.models import NewDeviceType, NewField

LAST = "last-message"
"""Serial number that ends every load: one look at its key shows whether the end has come."""
PROBE = "latency-probe"
"""Serial number of the messages whose way is timed; their time is the moment of publishing."""
COUNTER = "probe_number"
MOST_METRICS = 100
TYPE_NAME = "bench"

_FIRST_METRICS = ("vibration", "temperature", "operating_hours")


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the messages look like.

    Attributes:
        devices: they take turns.
        metrics: in each message.
        timestamps: whether messages carry the device's own time.
        flat: whether the metrics stand beside the time, not in an object of their own.
    """

    devices: int = 1000
    metrics: int = 3
    timestamps: bool = True
    flat: bool = False

    def __str__(self) -> str:
        times = "timestamps" if self.timestamps else "no timestamps"
        flat = ", flat" if self.flat else ""
        return f"{self.devices:,} devices, {self.metrics} metric{'s' * (self.metrics > 1)}, {times}{flat}"


def serial(number: int) -> str:
    """Serial number of a device; all are of one length."""
    return f"bench-{number:06}"


def metric(number: int) -> str:
    """Name of a metric."""
    return _FIRST_METRICS[number] if number < len(_FIRST_METRICS) else f"metric_{number:03}"


def device_type() -> NewDeviceType:
    """The type of all devices of the bench: every field declared, with a range, so that validation is at work."""
    fields = [
        NewField(name=metric(number), data_type="float", unit="unit", minimum=0, maximum=100_000)
        for number in range(MOST_METRICS)
    ]
    counter = NewField(name=COUNTER, data_type="int", minimum=0)
    return NewDeviceType(name=TYPE_NAME, description="made by gateway bench", fields=(*fields, counter))
