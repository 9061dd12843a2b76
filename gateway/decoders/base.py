"""What a decoder is: bytes to readings, pure."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from typing import Protocol

import msgspec

from gateway.messages import Reading


class Limits(msgspec.Struct, frozen=True):
    """What a decoder believes of a payload.

    Attributes:
        zone: of times which name none; None: those are refused.
        time_keys: under which keys of a reading its time may stand, where the format does not say.
    """

    max_depth: int = 32
    max_readings: int = 10_000
    max_values: int = 50_000
    zone: zoneinfo.ZoneInfo | None = None
    time_keys: tuple[str, ...] = ("ts", "timestamp", "time")


class Decode(Protocol):
    """Turns one payload into its readings, at least one. No I/O, no clock, no state."""

    def __call__(self, payload: bytes) -> list[Reading]:
        """The readings of this payload, in its order.

        Raises:
            MessageError: the payload as a whole becomes a dead letter.
        """


class Format(msgspec.Struct, frozen=True):
    """A payload format.

    Attributes:
        make: its decoder, within limits.
        fast_path: plain messages of it may take the fast path, which reads native JSON.
        one_reading: a payload holds one reading, never more.
    """

    make: Callable[[Limits], Decode]
    fast_path: bool = False
    one_reading: bool = False
