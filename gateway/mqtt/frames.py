"""MQTT 5 packets out of a byte stream, however it was divided into reads. Sans-I/O."""

from __future__ import annotations

from typing import NamedTuple

from mqtt5 import DisconnectReasonCode, Packet, PublishPacket, read

from gateway.mqtt.salvage import (
    HEAD_BYTES,
    LONGEST_TOPIC,
    body_of,
    message_of,
    packet_bytes,
    topic_and_properties,
)
from gateway.mqtt.window import NO_ID
from gateway.outcomes import Reason
from gateway.unreadable import Unreadable

_QOS_2 = 0x04
_TYPE_AND_QOS = 0xF6
_PUBLISH = (0x30, 0x32, 0x34)
"""At QoS 0, 1 and 2."""
_DEAR = 2**16
"""Bytes: of a larger packet, which came in several reads, the properties are counted before the codec makes objects."""


class BrokenStreamError(Exception):
    """The broker does not keep to MQTT; nothing after this can be read.

    Attributes:
        code: what DISCONNECT should tell the broker.
        standing: the broker would do it again; an operator must mend something.
        before: what the same bytes completed before they broke.
    """

    def __init__(self, code: DisconnectReasonCode, text: str, *, standing: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.standing = standing
        self.before = ReadPackets([], [], [], [])


class ReadPackets(NamedTuple):
    """What one read of the socket completed; ``others`` are all but PUBLISH.

    A PUBLISH that is malformed, or too large, is an :class:`gateway.unreadable.Unreadable`. ``qos_2`` are the packet
    ids of messages at QoS 2.
    """

    messages: list[PublishPacket | Unreadable]
    packet_ids: list[int]
    others: list[Packet]
    qos_2: list[int]


class PacketReader:
    """The stream of one connection.

    Args:
        largest: bytes of the largest packet accepted. A larger PUBLISH is skipped as it comes, but for its head.
        longest_topic, most_properties: bytes of those of a PUBLISH; with more it is not taken either.
    """

    __slots__ = (
        "_head",
        "_judged",
        "_largest",
        "_longest_topic",
        "_most_properties",
        "_need",
        "_skip",
        "_tail",
    )

    def __init__(
        self, largest: int, *, longest_topic: int = LONGEST_TOPIC, most_properties: int = 2**28
    ) -> None:
        self._largest = largest
        self._longest_topic, self._most_properties = longest_topic, most_properties
        self._judged = min(largest, longest_topic, most_properties)  # a packet within it is within all
        self._tail = bytearray()
        self._need = 0  # bytes the packet begun in _tail has, as far as its header tells
        self._head = bytearray()  # of a PUBLISH that is too large
        self._skip = 0  # bytes of it still to come

    def feed(self, received: bytes) -> ReadPackets:
        """All packets that are complete with these bytes, in order.

        Raises:
            BrokenStreamError: they are no MQTT 5.
        """
        found = ReadPackets([], [], [], [])
        try:
            rest = self._read_all(self._with_tail(received, found), found)
            if rest:
                self._keep(rest)
            if found.messages and _alias(found.messages[0]):  # aliases are used from the first message on
                raise _aliased()
        except BrokenStreamError as error:
            error.before = found
            raise
        return found

    def _with_tail(self, received: bytes, found: ReadPackets) -> memoryview:
        """The bytes from the start of a packet on; none while one that has begun is not complete."""
        if self._skip:
            received = self._skip_giant(received, found)
        tail = self._tail
        if tail:
            if len(tail) + len(received) < self._need:
                # Growing in place keeps a 10 MB packet in small reads linear
                tail += received
                return memoryview(b"")
            received = b"".join((tail, received))
            self._tail = bytearray()
        return memoryview(received)

    def _read_all(self, view: memoryview, found: ReadPackets) -> memoryview:
        """The bytes after the last complete packet; a PUBLISH that the codec refuses is taken apart here."""
        view = self._without_dear(view, found)
        while view:
            view, problem = self._read_on(view, found)
            if problem is None:
                break
            size = packet_bytes(view)
            if view[0] & _TYPE_AND_QOS not in _PUBLISH or not size:
                raise _malformed(problem)
            if size > len(view):
                break  # its length is not written as it should be, and the rest is still on its way
            message = self._message_of(view[:size], f"a malformed packet: {problem}", Reason.BAD_PACKET)
            self._add(message, view[0], found)
            view = view[size:]
        return view

    def _without_dear(self, view: memoryview, found: ReadPackets) -> memoryview:
        """The bytes after a first packet with properties without end; all of them, where it has none."""
        size = packet_bytes(view) if len(view) > _DEAR else 0
        if _DEAR < size <= min(len(view), self._largest) and view[0] & _TYPE_AND_QOS in _PUBLISH:
            beyond = self._beyond(view[:size])
            if beyond is not None:
                self._add(beyond, view[0], found)
                return view[size:]
        return view

    def _read_on(self, view: memoryview, found: ReadPackets) -> tuple[memoryview, str | None]:
        """Up to the last complete packet, or to one with a problem: the hot loop of the source, 0.4 µs a message."""
        add, add_id, judged = found.messages.append, found.packet_ids.append, self._judged
        try:
            while True:
                packet, size = read(view)
                if type(packet) is PublishPacket:
                    if size > judged or view[0] & _QOS_2 or not packet.topic:
                        self._add(self._judge(packet, view[:size]), view[0], found)
                    else:
                        add(packet)
                        add_id(packet.packet_id or NO_ID)
                else:
                    found.others.append(packet)
                view = view[size:]
        except IndexError:
            return view, None  # the rest is still on its way
        except ValueError as error:
            return view, str(error)
        except BrokenStreamError:
            raise
        except BaseException as error:
            # mqtt5 0.8.0 panics on text that is not UTF-8, and a panic is no Exception
            if type(error).__name__ != "PanicException":
                raise
            return view, "text that is not UTF-8"

    def _judge(self, packet: PublishPacket, raw: memoryview) -> PublishPacket | Unreadable:
        """What becomes of a PUBLISH that the codec reads, and that should not have been sent."""
        if _alias(packet):
            raise _aliased()
        if len(raw) > self._largest:
            return self._giant(raw[:HEAD_BYTES], len(raw))
        return self._beyond(raw) or packet

    def _beyond(self, raw: memoryview) -> Unreadable | None:
        """What is left of a whole PUBLISH whose topic or properties are too long; None: they are not."""
        topic, properties = topic_and_properties(raw)
        if topic > self._longest_topic:
            problem = f"a topic of {topic} bytes (mqtt.max_topic_bytes = {self._longest_topic})"
        elif properties > self._most_properties:
            problem = f"properties of {properties} bytes (mqtt.max_property_bytes = {self._most_properties})"
        else:
            return None
        return self._message_of(raw, problem, Reason.TOO_LARGE)

    def _message_of(self, packet: memoryview, problem: str, reason: Reason) -> Unreadable:
        return message_of(
            packet[0], body_of(packet), problem, longest_topic=self._longest_topic, reason=reason
        )

    def _add(self, message: PublishPacket | Unreadable, first: int, found: ReadPackets) -> None:
        found.messages.append(message)
        found.packet_ids.append(message.packet_id or NO_ID)
        if first & _QOS_2 and message.packet_id:
            found.qos_2.append(message.packet_id)

    def _keep(self, rest: memoryview) -> None:
        """The start of a packet: until the rest of it comes."""
        self._need = packet_bytes(rest)
        if self._need > self._largest:
            if rest[0] & _TYPE_AND_QOS not in _PUBLISH:
                raise BrokenStreamError(
                    DisconnectReasonCode.PACKET_TOO_LARGE,
                    f"a packet of {self._need} bytes; it was told to stay within mqtt.max_packet_bytes = "
                    f"{self._largest}",
                    standing=True,
                )
            self._head, self._skip = bytearray(rest[:HEAD_BYTES]), self._need - len(rest)
        else:
            self._tail = bytearray(rest)

    def _skip_giant(self, received: bytes, found: ReadPackets) -> bytes:
        """Keep of these bytes what belongs to the head; the bytes after the packet."""
        part = received[: self._skip]
        self._head += part[: HEAD_BYTES - len(self._head)]
        self._skip -= len(part)
        if not self._skip:
            self._add(self._giant(memoryview(self._head), self._need), self._head[0], found)
            self._head = bytearray()
        return received[len(part) :]

    def _giant(self, head: memoryview, size: int) -> Unreadable:
        problem = f"a packet of {size} bytes (mqtt.max_packet_bytes = {self._largest}): of its payload the head is kept"
        return self._message_of(head, problem, Reason.TOO_LARGE)


def _alias(message: PublishPacket | Unreadable) -> bool:
    return isinstance(message, PublishPacket) and message.topic_alias is not None


def _aliased() -> BrokenStreamError:
    return BrokenStreamError(
        DisconnectReasonCode.TOPIC_ALIAS_INVALID,
        "a topic alias, which we did not allow: MQTT 3.1.1 has none (mqtt.protocol = '3.1.1')",
        standing=True,
    )


def _malformed(what: object) -> BrokenStreamError:
    return BrokenStreamError(DisconnectReasonCode.MALFORMED_PACKET, f"a malformed packet: {what}")
