"""Messages of which the MQTT room could make out only parts: they travel the path to the dead letters.

What is wrong stands in a user property, so that it survives a stay in the spool, and is seen beside the dead letter.
Of a topic that is too long the ends are kept, so that it costs all that follow no more than another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from gateway.errors import MessageError
from gateway.messages import Message
from gateway.outcomes import Reason

_PREFIX = "gateway:"
_PROPERTIES = {
    _PREFIX + reason.value: reason for reason in (Reason.BAD_PACKET, Reason.TOO_LARGE, Reason.SET_APART)
}
_CUT = re.compile(r"\.\.\.\[\d+ bytes, SHA-256 [0-9a-f]{64}\]\.\.\.")
_CUT_BYTES = 95
"""What says that a topic was cut, and its digest, which keeps apart what begins and ends alike."""


class Unreadable(NamedTuple):
    r"""A :class:`gateway.messages.Message` of which the bytes are kept that could be told apart.

    Attributes:
        topic: bytes that are not UTF-8 stand in it as ``\xff``; of one that is too long the ends; empty when it could
            not be told.
        payload: the payload, or what it lies in; of a packet that is too large, the head.
        retain: always set, which sends it the general path, past the one look at :func:`fault`.
    """

    topic: str
    payload: bytes
    packet_id: int | None
    duplicate: bool
    user_properties: Sequence[tuple[str, str]]
    retain: bool = True


def unreadable(
    topic: bytes | memoryview,
    payload: bytes,
    packet_id: int | None,
    *,
    duplicate: bool,
    reason: Reason,
    detail: str,
    longest_topic: int = 2**16,
) -> Unreadable:
    """A message that will end as a dead letter for this reason; its topic is kept whole up to about so many bytes."""
    text = _cut(topic, longest_topic) if len(topic) > longest_topic + _CUT_BYTES else _text(topic)
    return Unreadable(text, payload, packet_id, duplicate, ((_PREFIX + reason.value, detail),))


def _cut(topic: bytes | memoryview, longest: int) -> str:
    """Without its middle: the first levels say whose it is, and by both ends it is still a topic of its stream."""
    half, digest = longest // 2, hashlib.sha256(topic).hexdigest()
    return f"{_text(topic[:half])}...[{len(topic)} bytes, SHA-256 {digest}]...{_text(topic[-half:])}"


def _text(raw: bytes | memoryview) -> str:
    return str(raw, "utf-8", "backslashreplace")


def is_cut(topic: str) -> bool:
    """Whether it is a topic of which only the ends were kept."""
    return _CUT.search(topic) is not None


def set_apart(message: Message) -> Unreadable:
    """The message, to end as a dead letter without a look at its payload."""
    why = (_PREFIX + Reason.SET_APART.value, "it ended the process three times; a replay looks at it again")
    properties = (why, *message.user_properties)
    return Unreadable(message.topic, message.payload, message.packet_id, message.duplicate, properties)


def fault(message: Message) -> MessageError | None:
    """What was wrong with the packet that brought the message; None: nothing."""
    for name, detail in message.user_properties:
        reason = _PROPERTIES.get(name)
        if reason is not None:
            return MessageError(reason, detail)
    return None
