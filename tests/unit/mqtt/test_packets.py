"""What the gateway sends in MQTT 5, and what it subscribes to."""

from __future__ import annotations

import mqtt5
from hypothesis import given
from hypothesis import strategies as st

from gateway.mqtt import subscriptions
from gateway.mqtt.connection import Subscription
from gateway.mqtt.packets import puback_packets, subscribe_packet
from gateway.mqtt.reasons import BrokerReason
from gateway.settings import MqttSettings, StreamSettings


@given(st.lists(st.integers(1, 65_535), max_size=50))
def test_joined_acks_are_the_acks(packet_ids: list[int]) -> None:
    """The bytes are those that the codec would write one by one."""
    assert b"".join(mqtt5.PubAckPacket(packet_id).write() for packet_id in packet_ids) == puback_packets(
        packet_ids
    )


def test_subscribe_marks_replays_only_and_asks_for_none_twice() -> None:
    """Retain as published would mark fresh messages as replays; retain handling 1 replays to new subscriptions only."""
    packet, _ = mqtt5.read(memoryview(subscribe_packet(1, [Subscription("a/+", 1), Subscription("b/#", 0)])))
    assert isinstance(packet, mqtt5.SubscribePacket)
    assert [(f.pattern, f.max_qos.value) for f in packet.topic_filters] == [("a/+", 1), ("b/#", 0)]
    assert not any(f.retain_as_published for f in packet.topic_filters)
    assert {1} == {f.retain_handling.value for f in packet.topic_filters}


def test_each_filter_is_subscribed_to_once() -> None:
    """Streams that differ in names only share a subscription, at the higher QoS; a share group comes before."""
    streams = [
        StreamSettings(name="a", topic="t/{tenant}/{device}", qos=0),
        StreamSettings(name="b", topic="t/{tenant}/+", qos=1),
        StreamSettings(name="c", topic="u/{tenant}/#", qos=0),
    ]
    mqtt = MqttSettings(client_id="x")
    assert subscriptions(mqtt, streams) == [("t/+/+", 1), ("u/+/#", 0)]
    shared = subscriptions(mqtt.model_copy(update={"share_group": "g"}), streams)
    assert shared == [("$share/g/t/+/+", 1), ("$share/g/u/+/#", 0)]


def test_a_reason_reads_like_a_sentence() -> None:
    """Name, the broker's words, the server it names, and what to do."""
    assert (
        str(BrokerReason(0x9D, "SERVER_MOVED", "soon", "b.example.org"))
        == "server moved (soon) [server: b.example.org]"
    )
    assert "check mqtt.username and the password" in str(BrokerReason(0x86, "BAD_USER_NAME_OR_PASSWORD"))
