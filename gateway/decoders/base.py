"""What a decoder is: bytes to readings, pure."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from typing import Protocol

import msgspec

from gateway.messages import Reading


class Limits(msgspec.Struct, frozen=True):
    """What a decoder believes of a payload. ``zone`` is that of times which name none."""

    max_depth: int = 32
    max_readings: int = 10_000
    zone: zoneinfo.ZoneInfo | None = None


class Decode(Protocol):
    """Turns one payload into its readings, at least one. No I/O, no clock, no state."""

    def __call__(self, payload: bytes) -> list[Reading]:
        """The readings of this payload, in its order.

        Raises:
            MessageError: the payload as a whole becomes a dead letter.
        """


Factory = Callable[[Limits], Decode]
