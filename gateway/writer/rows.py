"""What the rows of all layouts have in common: PostgreSQL's binary COPY, and a key at the beginning.

Source: PostgreSQL documentation, COPY, "Binary Format". A row is an int16 count of fields, then for each field an int32
length and the value in its type's send format: timestamptz int64 µs since 2000-01-01, uuid 16 bytes; length -1 is NULL.
Rows of every layout (:mod:`gateway.writer.layouts`) begin alike::

    count | 8 time | 16 device_id | 16 tenant_id | …
"""

from __future__ import annotations

import struct
from typing import Protocol, Self

import msgspec

from gateway import clock
from gateway.messages import Device

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_EPOCH_US = clock.POSTGRES_EPOCH_US
_pack_length = struct.Struct(">i").pack
NULL = _pack_length(-1)
HEAD_BYTES = 54
"""Count, time, device and tenant."""
KEY = slice(6, 34)
"""Of a row: time, and the device with its length between. Equal bytes are an equal (device, time)."""

to_json = msgspec.json.Encoder().encode


class Row(Protocol):
    """A row taken apart, for the rare times that something of it must be known."""

    @property
    def key(self) -> bytes:
        """Time and device, as encoded: :data:`KEY`. Rows of equal keys meet in the table."""

    @property
    def time_us(self) -> int:
        """µs since the Unix epoch."""

    def at(self, time_us: int) -> Self:
        """The same at another time."""

    def joined(self) -> bytes:
        """The row again, encoded."""


def device_columns(device: Device) -> bytes:
    """The two columns that are the same in every row of a device."""
    return b"".join((_pack_length(16), device.id.bytes, _pack_length(16), device.tenant_id.bytes))


def head_at(head: bytes, time_us: int) -> bytes:
    """The beginning of a row, at another time (µs since the Unix epoch)."""
    return head[:6] + (time_us - _EPOCH_US).to_bytes(8, "big", signed=True) + head[14:]


def order(row: Row) -> tuple[int, bytes]:
    """By device and time, as the server sorts them: two transactions that lock in this order never wait in a circle."""
    return row.time_us, row.key


def key_of(time_us: int, device_id: bytes) -> bytes:
    """The key of the row of this device (16 bytes) and time, as :attr:`Row.key` has it."""
    return (time_us - _EPOCH_US).to_bytes(8, "big", signed=True) + _pack_length(16) + device_id


def time_of(key: bytes) -> int:
    """The time of the row with this key, µs since the Unix epoch."""
    return int.from_bytes(key[:8], "big", signed=True) + _EPOCH_US


def device_of(key: bytes) -> bytes:
    """The device of the row with this key, 16 bytes."""
    return key[12:]
