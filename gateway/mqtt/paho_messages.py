"""Messages of MQTT 3.1.1, out of the PUBLISH packets that paho has read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.messages import Message
from gateway.mqtt import salvage
from gateway.outcomes import Reason

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


def message_in(
    first: int, body: bytearray, largest: int = 2**28, longest_topic: int = salvage.LONGEST_TOPIC
) -> Message:
    """The message of a PUBLISH with this first byte; what of it can be told, when it is malformed or too large."""
    topic_bytes = int.from_bytes(body[:2])
    if len(body) > largest or topic_bytes > longest_topic:
        return _beyond(first, body, largest, longest_topic)
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
    problem = f"a malformed packet: {problem}"
    return salvage.message_of(first, body, problem, longest_topic=longest_topic, properties=False)


def _beyond(first: int, body: bytearray, largest: int, longest_topic: int) -> Message:
    """It becomes a dead letter; of a packet that is too large the head is kept."""
    topic = int.from_bytes(body[:2])
    problem = f"a topic of {topic} bytes (mqtt.max_topic_bytes = {longest_topic})"
    if len(body) > largest:
        problem = f"a packet of {len(body)} bytes (mqtt.max_packet_bytes = {largest}): of its payload the head is kept"
        body = body[: salvage.HEAD_BYTES]
    return salvage.message_of(
        first, body, problem, longest_topic=longest_topic, reason=Reason.TOO_LARGE, properties=False
    )
