"""Sessions that the broker keeps: begun with a subscription, emptied, ended."""

from __future__ import annotations

import mqtt5

from gateway.mqtt import packets
from gateway.settings import MqttSettings
from gateway.tools.bench.wire import BenchConnection

_KEPT_SECONDS = 6 * 3600
"""How long the broker keeps what a bench that was killed left there."""
_SILENCE = 2.0
"""Seconds without a message, after which a broker is taken to have sent all."""


def hold(mqtt: MqttSettings, client_id: str, topic_filter: str) -> None:
    """Have the broker keep for this client what is published to the topics from now on."""
    with BenchConnection(mqtt, client_id, session_seconds=_KEPT_SECONDS) as wire:
        wire.subscribe(topic_filter)


def end(mqtt: MqttSettings, client_id: str) -> None:
    """Have the broker forget this client, and what it keeps for it."""
    BenchConnection(mqtt, client_id).close()


def take_all(mqtt: MqttSettings, client_id: str) -> int:
    """Take and acknowledge what the broker keeps for this client; how many messages there were."""
    count, rest = 0, b""
    with BenchConnection(mqtt, client_id, session_seconds=_KEPT_SECONDS) as wire:
        while received := wire.received(_SILENCE):
            numbers, rest = _packet_ids(rest + received)
            wire.send(packets.puback_packets(numbers))
            count += len(numbers)
    return count


def _packet_ids(data: bytes) -> tuple[list[int], bytes]:
    """Of all PUBLISH packets that are complete, and what is left."""
    view, found = memoryview(data), []
    try:
        while True:
            packet, size = mqtt5.read(view)
            view = view[size:]
            if isinstance(packet, mqtt5.PublishPacket) and packet.packet_id is not None:
                found.append(packet.packet_id)
    except IndexError:
        return found, bytes(view)
