"""Messages of MQTT 3.1.1, out of the PUBLISH packets that paho has read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.messages import Message
from gateway.mqtt import salvage

RETAIN, QOS_1, QOS_2, DUP = 0x01, 0x02, 0x04, 0x08
"""Flags in the first byte of a PUBLISH (MQTT 3.1.1 §3.3.1)."""


class PahoMessage(NamedTuple):
    """A :class:`gateway.messages.Message` of MQTT 3.1.1."""

    topic: str
    payload: bytes
    packet_id: int | None
    retain: bool
    duplicate: bool
    user_properties: Sequence[tuple[str, str]] = ()


def message_in(first: int, body: bytearray) -> Message:
    """The message of a PUBLISH with this first byte; what of it can be told, when it is malformed."""
    end = 2 + int.from_bytes(body[:2])
    start = end + 2 if first & (QOS_1 | QOS_2) else end
    try:
        topic = body[2:end].decode()
        packet_id = int.from_bytes(body[end:start]) or None
        if topic and start <= len(body):
            return PahoMessage(topic, bytes(body[start:]), packet_id, bool(first & RETAIN), bool(first & DUP))
        problem = "no topic"
    except UnicodeDecodeError:
        problem = "text that is not UTF-8"
    return salvage.message_of(first, body, f"a malformed packet: {problem}", properties=False)
