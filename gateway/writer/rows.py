"""Readings as rows of PostgreSQL's binary COPY.

Source: PostgreSQL documentation, COPY, "Binary Format". A row is an int16 count of fields, then for each field an int32
length and the value in its type's send format: timestamptz int64 µs since 2000-01-01, uuid 16 bytes, jsonb a version
byte 1 and UTF-8 text; length -1 is NULL. All of ``telemetry``'s rows share this layout::

    count | 8 time | 16 device_id | 16 tenant_id | n data | n metadata or -1 | 8 received_at or -1
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway import clock
from gateway.messages import Device

COLUMNS = ("time", "device_id", "tenant_id", "data", "metadata", "received_at")
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_EPOCH_US = clock.POSTGRES_EPOCH_US
_head = struct.Struct(">hiq40sib").pack
_pack_received = struct.Struct(">iq").pack
_length = struct.Struct(">i")
_pack_length = _length.pack
_NULL = _pack_length(-1)
_KEY = slice(6, 34)
"""Of a row: time, and the device with its length between. Equal bytes are an equal (device, time)."""
_DATA_AT = 54

to_json = msgspec.json.Encoder().encode


def device_columns(device: Device) -> bytes:
    """The two columns that are the same in every row of a device."""
    return b"".join((_pack_length(16), device.id.bytes, _pack_length(16), device.tenant_id.bytes))


def _received(received_us: int | None) -> bytes:
    """The last field of a row."""
    return _NULL if received_us is None else _pack_received(8, received_us - _EPOCH_US)


@functools.lru_cache(maxsize=64)
def _received_alone(received_us: int | None) -> bytes:
    """The last two fields of a row without metadata; all messages of a delivery share them."""
    return _NULL + _received(received_us)


def encode(
    time_us: int,
    columns: bytes,
    data: dict[str, Any],
    metadata: dict[str, Any] | None,
    received_us: int | None = None,
) -> bytes:
    """One row.

    Args:
        time_us: µs since the Unix epoch.
        columns: of the device, from :func:`device_columns`.
        data: what the column ``data`` holds; values msgspec can write as JSON.
        metadata: likewise, or None.
        received_us: µs since the Unix epoch; of two readings with one key the later received is the newer.
    """
    text = to_json(data)
    head = _head(6, 8, time_us - _EPOCH_US, columns, len(text) + 1, 1)
    if metadata is None:
        return b"".join((head, text, _received_alone(received_us)))
    return b"".join((head, text, _jsonb(to_json(metadata)), _received(received_us)))


def _jsonb(text: bytes) -> bytes:
    """A field of a row."""
    return _pack_length(len(text) + 1) + b"\x01" + text


class Row(msgspec.Struct):
    """A row taken apart, for the rare times that somebody must look inside."""

    key: bytes
    head: bytes
    data: bytes
    metadata: bytes | None
    received: bytes = _NULL

    def joined(self) -> bytes:
        """The row again, encoded."""
        metadata = _NULL if self.metadata is None else _jsonb(self.metadata)
        return self.head + _jsonb(self.data) + metadata + self.received

    @property
    def time_us(self) -> int:
        """µs since the Unix epoch."""
        return int.from_bytes(self.head[6:14], "big", signed=True) + _EPOCH_US

    def at(self, time_us: int) -> Row:
        """The same at another time."""
        head = self.head[:6] + (time_us - _EPOCH_US).to_bytes(8, "big", signed=True) + self.head[14:]
        return Row(head[_KEY], head, self.data, self.metadata, self.received)


def take_apart(blob: bytes) -> Iterator[Row]:
    """The rows of a message, from its encoded bytes."""
    at = 0
    while at < len(blob):
        start, at = at, at + _DATA_AT
        data, at = _field(blob, at)
        metadata, at = _field(blob, at)
        received, at = _plain_field(blob, at)
        head = blob[start : start + _DATA_AT]
        yield Row(head[_KEY], head, data or b"", metadata, received)


def _field(blob: bytes, at: int) -> tuple[bytes | None, int]:
    (length,) = _length.unpack_from(blob, at)
    at += 4
    return (None, at) if length < 0 else (blob[at + 1 : at + length], at + length)


def _plain_field(blob: bytes, at: int) -> tuple[bytes, int]:
    """A field with its length, and where the next begins."""
    (length,) = _length.unpack_from(blob, at)
    end = at + 4 + max(length, 0)
    return blob[at:end], end


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
