"""Acknowledgements counted, nearly for nothing: a load must not be what is measured."""

from __future__ import annotations

import mqtt5

from gateway.mqtt import packets, reasons

_PUBACK, _SHORT = 0x40, 0x02
"""How a PUBACK without a reason code begins; two bytes of packet id follow."""


class Acks:
    """Counts the acknowledgements in what was read.

    Attributes:
        count: all of them.
        refused: those that refuse the message.
        unmatched: those that say that its topic has no subscriber.
    """

    def __init__(self) -> None:
        self.count = self.refused = self.unmatched = 0
        self._rest = b""

    def feed(self, received: bytes) -> None:
        """Take these bytes; more may follow."""
        data = self._rest + received
        whole = len(data) & ~3
        short = data[0:whole:4].count(_PUBACK) + data[1:whole:4].count(_SHORT) == whole // 2
        if short and data[whole : whole + 1] in (b"", b"\x40"):
            self.count += whole // 4
            self._rest = data[whole:]
        else:
            self._rest = self._one_by_one(memoryview(data))

    def _one_by_one(self, view: memoryview) -> bytes:
        try:
            while True:
                packet, size = mqtt5.read(view)
                self._enter(packet)
                view = view[size:]
        except IndexError:
            return bytes(view)

    def _enter(self, packet: mqtt5.Packet) -> None:
        if isinstance(packet, mqtt5.PubAckPacket):
            self.count += 1
            self.unmatched += packet.reason_code == mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS
            self.refused += packet.reason_code.value >= reasons.FAILURE
        elif isinstance(packet, mqtt5.DisconnectPacket):
            raise reasons.disconnected("the broker", packets.reason_of(packet.reason_code, packet))
