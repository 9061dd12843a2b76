"""A spooled message, and its frame in a segment file.

::

    frame = length u32 | crc32c u32 | body          little-endian; length is that of the body
    body  = MessagePack array, the attributes of Record in their order

The checksum starts from the number of the segment and the frame's offset in it, so a frame is valid in its own
place only. Bytes of another file in a reused block are not taken for one, nor is a payload in which a publisher
has hidden a frame, when the reader looks for the next frame behind damage.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

import google_crc32c
import msgspec

_HEAD = struct.Struct("<II")
HEAD_BYTES = _HEAD.size
_NUMBER = struct.Struct("<Q")
_MASK = 0xFFFF_FFFF


class Record(msgspec.Struct, gc=False, array_like=True, frozen=True):
    """One message as received, and what is needed to settle it later. It is a :class:`gateway.messages.Message`.

    Attributes:
        received_us: receive time, µs since the Unix epoch.
        resumed: the broker had resumed a session when it came, so DUP may speak of an earlier connection.
        turn: how far the broker's packet ids had come in the session; see :meth:`gateway.messages.Session.position`.
        identity: 16 bytes that are this message's alone, whichever process holds it.
        session: the id of the session; empty: it is not known, and nothing is believed of the packet id.
    """

    stream: str
    topic: str
    payload: bytes
    received_us: int
    packet_id: int | None
    retain: bool
    duplicate: bool
    resumed: bool
    turn: int
    identity: bytes
    user_properties: tuple[tuple[str, str], ...] = ()
    session: bytes = b""


encode = msgspec.msgpack.Encoder().encode
"""The body of a record."""
_decode = msgspec.msgpack.Decoder(Record).decode

LONGEST = 2**28
"""Bytes of a body: more than an MQTT packet can have (MQTT 5 §2.1.4)."""
_FIRST = bytes((0x90 | len(Record.__struct_fields__), 0x90 | 11))
"""First byte of every body: MessagePack's array of so many elements (at most 15), or of 11 as before sessions."""
MARK = re.compile(b"(?=[\\0-\\x10]....[" + _FIRST + b"])", re.DOTALL)
"""The last byte of a length that is not beyond ``LONGEST``, a checksum, and the beginning of a body."""
MARK_AT = 3
"""Of a frame."""


def decode(body: bytes) -> Record | None:
    """The record of a body; None when it is none, whatever its checksum says."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def seed(number: int) -> int:
    """What the checksums of the segment with this number start from."""
    start: int = google_crc32c.value(_NUMBER.pack(number))
    return start


def checksum(start: int, offset: int, body: bytes) -> int:
    """The checksum of a body in the frame at ``offset`` of the segment with the seed ``start``."""
    check: int = google_crc32c.extend((start ^ offset) & _MASK, body)
    return check


def size(bodies: Iterable[bytes]) -> int:
    """Bytes of the frames of these bodies."""
    return sum(HEAD_BYTES + len(body) for body in bodies)


def may_begin(length: int) -> bool:
    """Whether a frame may have a body of this length."""
    return 0 < length <= LONGEST


def frames(bodies: Iterable[bytes], start: int, offset: int) -> list[bytes]:
    """What to write at ``offset`` of the segment with the seed ``start``; to be joined."""
    parts: list[bytes] = []
    for body in bodies:
        parts += _HEAD.pack(len(body), checksum(start, offset, body)), body
        offset += HEAD_BYTES + len(body)
    return parts


def read_head(content: bytes, at: int = 0) -> tuple[int, int]:
    """Length and checksum of the body of the frame that begins ``at`` these bytes."""
    length, check = _HEAD.unpack_from(content, at)
    return length, check


def valid_frames(content: bytes, start: int, offset: int) -> list[tuple[int, bytes]]:
    """Offset and body of the frames at the beginning of these bytes, up to the first that is not whole and valid.

    Args:
        offset: where in the segment the bytes were read.
    """
    found, at, stop = [], 0, len(content)
    while at + HEAD_BYTES < stop:
        length, check = _HEAD.unpack_from(content, at)
        body = content[at + HEAD_BYTES : at + HEAD_BYTES + length]
        if not may_begin(length) or len(body) < length or checksum(start, offset + at, body) != check:
            break
        found.append((offset + at, body))
        at += HEAD_BYTES + length
    return found
