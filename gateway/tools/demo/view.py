"""What the demo has seen so far, ready to be drawn."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.devices.models import NewField
from gateway.tools.demo import roster
from gateway.tools.demo.sparkline import sparkline
from gateway.tools.demo.watch import Snapshot

_KEPT = 240
"""Points kept of a curve; at two a second, a day of the demo."""
_UNITS = {"celsius": "°C", "percent": "%"}
_SCALES: Mapping[str, tuple[float, float | None]] = {
    "temperature": (6, None),
    "humidity": (12, None),
    "vibration": (6, 0),
    "open": (1, 0),
}
"""Least span of a curve, and the value at its bottom; None: the least value seen."""


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """A field of a device that is followed on the screen."""

    member: roster.Member
    field: str

    def text(self, value: Any) -> str:
        """A value for people."""
        if isinstance(value, bool):
            return "open" if value else "closed"
        unit = self._declared.unit or ""
        return f"{value:.2f} {_UNITS.get(unit, unit)}".rstrip()

    def beyond(self, value: Any) -> bool:
        """Whether a value is beyond what the device type allows."""
        limit = self._declared.maximum
        return limit is not None and value > limit

    def line(self, values: Sequence[Any], width: int) -> str:
        """The values as a sparkline, on a scale on which noise looks small."""
        span, low = _SCALES[self.field]
        points = [float(value) for value in values]
        floor = min(points) if low is None else low
        return sparkline(points, width, low=floor, high=max(*points, floor + span))

    @property
    def _declared(self) -> NewField:
        return next(field for field in self.member.type.fields if field.name == self.field)


def _followed() -> tuple[Curve, ...]:
    """In the order in which a small screen should have room for them."""
    by_serial = {member.serial: member for member in roster.DEVICES}
    chosen = (
        ("CLI-001", "temperature"),
        ("CLI-001", "humidity"),
        (roster.WORN[0], "vibration"),
        ("MOT-001", "vibration"),
        ("DOR-001", "open"),
        (roster.WORN[1], "vibration"),
        ("CLI-014", "temperature"),
        ("DOR-006", "open"),
        ("MOT-015", "temperature"),
    )
    return tuple(Curve(by_serial[serial], field) for serial, field in chosen)


CURVES = _followed()


class View:
    """The latest of everything, and the way there.

    Attributes:
        snapshot: the gateway's own figures; None until it answered.
        answering: whether it answered the last time.
        published: messages that the broker took from the fleet.
        wrong: of those, the ones that are wrong on purpose.
        rates: messages per second, oldest first.
        curves: values by what is followed, oldest first.
    """

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.answering = True
        self.published = 0
        self.wrong = 0
        self.rates: collections.deque[float] = collections.deque(maxlen=_KEPT)
        self.curves: dict[Curve, collections.deque[Any]] = {
            c: collections.deque(maxlen=_KEPT) for c in CURVES
        }
        self._began = self._seen_at = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the fleet began."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Messages per second received by the gateway, over the last few seconds."""
        last = list(self.rates)[-4:]
        return sum(last) / len(last) if last else 0.0

    def see(self, snapshot: Snapshot | None, readings: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in the gateway's figures, and the newest metrics by serial number."""
        now = time.monotonic()
        self.answering = snapshot is not None
        if snapshot is not None:
            before = self.snapshot.books["received"] if self.snapshot else 0
            self.rates.append((snapshot.books["received"] - before) / max(now - self._seen_at, 1e-3))
            self.snapshot, self._seen_at = snapshot, now
        for curve, values in self.curves.items():
            if (value := readings.get(curve.member.serial, {}).get(curve.field)) is not None:
                values.append(value)
