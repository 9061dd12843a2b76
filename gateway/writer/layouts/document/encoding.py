"""Rows of the layout ``document``, encoded; see :mod:`gateway.writer.rows` for what all layouts share.

jsonb is sent as a version byte 1 and UTF-8 text::

    count | 8 time | 16 device_id | 16 tenant_id | n data | n metadata or -1 | 8 received_at or -1
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway import clock
from gateway.writer import rows

COLUMNS = {
    "time": "timestamptz",
    "device_id": "uuid",
    "tenant_id": "uuid",
    "data": "jsonb",
    "metadata": "jsonb",
    "received_at": "timestamptz",
}
"""Name and type, in the order in which rows are encoded."""

_EPOCH_US = clock.POSTGRES_EPOCH_US
_head = struct.Struct(">hiq40sib").pack
_pack_received = struct.Struct(">iq").pack
_length = struct.Struct(">i")
_pack_length = _length.pack


def _received(received_us: int | None) -> bytes:
    """The last field of a row."""
    return rows.NULL if received_us is None else _pack_received(8, received_us - _EPOCH_US)


@functools.lru_cache(maxsize=64)
def _received_alone(received_us: int | None) -> bytes:
    """The last two fields of a row without metadata; all messages of a delivery share them."""
    return rows.NULL + _received(received_us)


def encode(
    time_us: int,
    columns: bytes,
    metrics: dict[str, Any],
    metadata: dict[str, Any] | None,
    received_us: int | None = None,
) -> bytes:
    """One row; see :class:`gateway.writer.layouts.base.Encode`. ``data`` holds all metrics as one JSON object."""
    text = rows.to_json(metrics)
    head = _head(6, 8, time_us - _EPOCH_US, columns, len(text) + 1, 1)
    if metadata is None:
        return b"".join((head, text, _received_alone(received_us)))
    return b"".join((head, text, _jsonb(rows.to_json(metadata)), _received(received_us)))


def _jsonb(text: bytes) -> bytes:
    """A field of a row."""
    return _pack_length(len(text) + 1) + b"\x01" + text


class DocumentRow(msgspec.Struct):
    """See :class:`gateway.writer.rows.Row`."""

    key: bytes
    head: bytes
    data: bytes
    metadata: bytes | None
    received: bytes = rows.NULL

    def joined(self) -> bytes:
        """The row again, encoded."""
        metadata = rows.NULL if self.metadata is None else _jsonb(self.metadata)
        return self.head + _jsonb(self.data) + metadata + self.received

    @property
    def time_us(self) -> int:
        """µs since the Unix epoch."""
        return rows.time_of(self.key)

    def at(self, time_us: int) -> DocumentRow:
        """The same at another time."""
        head = rows.head_at(self.head, time_us)
        return DocumentRow(head[rows.KEY], head, self.data, self.metadata, self.received)


def take_apart(blob: bytes) -> Iterator[DocumentRow]:
    """The rows of a message, from its encoded bytes."""
    at = 0
    while at < len(blob):
        start, at = at, at + rows.HEAD_BYTES
        data, at = _field(blob, at)
        metadata, at = _field(blob, at)
        received, at = _plain_field(blob, at)
        head = blob[start : start + rows.HEAD_BYTES]
        yield DocumentRow(head[rows.KEY], head, data or b"", metadata, received)


def _field(blob: bytes, at: int) -> tuple[bytes | None, int]:
    (length,) = _length.unpack_from(blob, at)
    at += 4
    return (None, at) if length < 0 else (blob[at + 1 : at + length], at + length)


def _plain_field(blob: bytes, at: int) -> tuple[bytes, int]:
    """A field with its length, and where the next begins."""
    (length,) = _length.unpack_from(blob, at)
    end = at + 4 + max(length, 0)
    return blob[at:end], end
