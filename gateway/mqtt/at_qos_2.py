"""Messages at QoS 2, to which we never subscribe: of a subscription that another program left in our session.

They are taken like all others. PUBREC stands where PUBACK would: a broker that has read it never sends the message
again (MQTT 5 §4.3.3). MQTT cannot tell which filter it is, so it cannot be unsubscribed.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.mqtt.packets import puback_packets
from gateway.observability import events


class AtQos2:
    """Those of one connection that are not acknowledged."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._packet_ids: set[int] = set()
        self._told = False

    def came(self, topic: str, packet_id: int) -> None:
        """A message came at QoS 2."""
        if not self._told:
            self._told = True
            events.mqtt_foreign_subscription(client_id=self._client_id, topic=topic)
        self._packet_ids.add(packet_id)

    def acknowledgements(self, packet_ids: Sequence[int]) -> bytearray:
        """PUBACKs in this order, PUBRECs for messages at QoS 2."""
        ours = self._packet_ids
        if not ours:
            return puback_packets(packet_ids)
        acks = bytearray()
        for packet_id in packet_ids:
            acks += (b"\x50\x02" if packet_id in ours else b"\x40\x02") + packet_id.to_bytes(2)
        ours.difference_update(packet_ids)
        return acks


def pubcomp_packet(packet_id: int) -> bytes:
    """PUBCOMP: the answer to PUBREL, also of a message that an earlier connection brought."""
    return b"\x70\x02" + packet_id.to_bytes(2)
