"""Take apart a PUBLISH that the codec refuses: topic, packet id and payload, as far as they can be told. Pure.

The length of a packet stands before its parts (MQTT 5 §2.1.4), so whatever is wrong with one packet, the next one
begins where it should. Such a message is handed on to become a dead letter and is acknowledged: left at the
broker it would be delivered again at every connection.
"""

from __future__ import annotations

from gateway.outcomes import Reason
from gateway.unreadable import Unreadable, unreadable

LONGEST_TOPIC = 2**16
HEAD_BYTES = 2**17
"""Kept of a packet that is too large: the longest topic, and as much of what follows."""
_SHOWN_BYTES = 500
_DUPLICATE, _QOS = 0x08, 0x06


def packet_bytes(packet: bytes | memoryview) -> int:
    """Bytes of the packet that begins here; 0: its header is not complete."""
    remaining, size = _variable_integer(packet[1:5])
    return 1 + size + remaining if size else 0


def body_of(packet: memoryview) -> memoryview:
    """What follows the length of a packet."""
    return packet[1 + _variable_integer(packet[1:5])[1] :]


def message_of(
    first: int,
    body: memoryview | bytearray,
    problem: str,
    *,
    longest_topic: int,
    reason: Reason = Reason.BAD_PACKET,
    properties: bool = True,
) -> Unreadable:
    """The message in a PUBLISH, or in the head of one.

    Args:
        first: its first byte.
        body: what follows its length.
        longest_topic: bytes; of a longer one the ends are kept.
        properties: MQTT 5: properties stand before the payload.
    """
    body, duplicate = memoryview(body), bool(first & _DUPLICATE)
    at = 2 + int.from_bytes(body[:2])
    numbered = bool(first & _QOS)
    if len(body) < at + 2 * numbered:
        problem += "; its topic is longer than the packet"
        return unreadable(b"", bytes(body), None, duplicate=duplicate, reason=reason, detail=problem)
    topic, packet_id = body[2:at], None
    if numbered:
        packet_id = int.from_bytes(body[at : at + 2]) or None
        at += 2
    if properties:
        at, shown = _payload_start(body, at)
        problem += shown
    return unreadable(
        topic,
        bytes(body[at:]),
        packet_id,
        duplicate=duplicate,
        reason=reason,
        detail=problem,
        longest_topic=longest_topic,
    )


def topic_and_properties(packet: bytes | memoryview) -> tuple[int, int]:
    """Bytes of the topic, and of the properties, of a whole PUBLISH of MQTT 5."""
    at = 1 + _variable_integer(packet[1:5])[1]
    topic = int.from_bytes(packet[at : at + 2])
    at += 2 + topic + 2 * bool(packet[0] & _QOS)
    return topic, _variable_integer(packet[at : at + 4])[0]


def _payload_start(body: memoryview, at: int) -> tuple[int, str]:
    """Where the payload begins, and the properties before it, in words; all is payload when their length is wrong."""
    length, size = _variable_integer(body[at : at + 4])
    start = at + size
    if not size or start + length > len(body):
        return at, "; its properties are longer than the packet, and stand before the payload"
    shown = bytes(body[start : start + length][:_SHOWN_BYTES])
    return start + length, f"; properties {shown!r}" if shown else ""


def _variable_integer(raw: bytes | memoryview) -> tuple[int, int]:
    """Value and bytes of a variable byte integer (MQTT 5 §1.5.5); 0 bytes: it is not complete."""
    value = 0
    for at, byte in enumerate(raw[:4]):
        value |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            return value, at + 1
    return 0, 0
