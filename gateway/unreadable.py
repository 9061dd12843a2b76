"""Messages of which the MQTT room could make out only parts: they travel the path to the dead letters.

What is wrong stands in a user property, so that it survives a stay in the spool, and is seen beside the dead letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.errors import MessageError
from gateway.messages import Message
from gateway.outcomes import Reason

_PREFIX = "gateway:"
_PROPERTIES = {
    _PREFIX + reason.value: reason for reason in (Reason.BAD_PACKET, Reason.TOO_LARGE, Reason.SET_APART)
}


class Unreadable(NamedTuple):
    r"""A :class:`gateway.messages.Message` of which the bytes are kept that could be told apart.

    Attributes:
        topic: bytes that are not UTF-8 stand in it as ``\xff``; empty when it could not be told.
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
    topic: bytes, payload: bytes, packet_id: int | None, *, duplicate: bool, reason: Reason, detail: str
) -> Unreadable:
    """A message that will end as a dead letter for this reason."""
    text = topic.decode("utf-8", "backslashreplace")
    return Unreadable(text, payload, packet_id, duplicate, ((_PREFIX + reason.value, detail),))


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
