"""The MQTT 5 packets that the gateway sends, and what it reads out of the broker's."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from mqtt5 import (
    ConnAckPacket,
    ConnAckReasonCode,
    ConnectPacket,
    DisconnectPacket,
    DisconnectReasonCode,
    QoS,
    RetainHandling,
    SubAckPacket,
    SubAckReasonCode,
    SubscribePacket,
    TopicFilter,
    UnsubAckPacket,
    UnsubAckReasonCode,
    UnsubscribePacket,
)

from gateway.mqtt.connection import NOT_SHARED, RefusedError, Subscription, password
from gateway.mqtt.reasons import BrokerReason
from gateway.settings import MqttSettings

ReasonCode = ConnAckReasonCode | DisconnectReasonCode | SubAckReasonCode | UnsubAckReasonCode
_NEVER_EXPIRES = 0xFFFFFFFF


def connect_packet(mqtt: MqttSettings) -> bytes:
    """CONNECT: a persistent session under the fixed client id, no topic aliases.

    Raises:
        RefusedError: the password's file cannot be read.
    """
    secret = password(mqtt)
    packet = ConnectPacket(
        mqtt.client_id,
        username=mqtt.username,
        password=None if secret is None else secret.encode(),
        clean_start=False,
        keep_alive=math.ceil(mqtt.keepalive),
        session_expiry_interval=min(int(mqtt.session_expiry), _NEVER_EXPIRES),
        request_problem_info=True,
        receive_max=mqtt.receive_maximum,
        max_packet_size=mqtt.max_packet_bytes,
    )
    return packet.write()


def subscribe_packet(packet_id: int, subscriptions: Sequence[Subscription]) -> bytes:
    """SUBSCRIBE. The retain flag then marks replays only, and a resumed subscription replays nothing."""
    filters = [
        TopicFilter(
            subscription.filter,
            max_qos=QoS(subscription.qos),
            retain_as_published=False,
            retain_handling=RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
        )
        for subscription in subscriptions
    ]
    return SubscribePacket(packet_id, filters).write()


def unsubscribe_packet(packet_id: int, filters: Sequence[str]) -> bytes:
    """UNSUBSCRIBE."""
    return UnsubscribePacket(packet_id, list(filters)).write()


def disconnect_packet(code: DisconnectReasonCode) -> bytes:
    """DISCONNECT; the session stays at the broker as long as CONNECT said."""
    return DisconnectPacket(reason_code=code).write()


def puback_packets(packet_ids: Sequence[int]) -> bytearray:
    """PUBACKs of success, joined: four bytes each, packet ids big-endian. Some 20 ns an ack."""
    ids = array("H", packet_ids)
    ids.byteswap()
    raw = ids.tobytes()
    acks = bytearray(b"\x40\x02\0\0" * len(ids))
    acks[2::4], acks[3::4] = raw[0::2], raw[1::2]
    return acks


def reason_of(
    code: ReasonCode, packet: ConnAckPacket | DisconnectPacket | SubAckPacket | UnsubAckPacket
) -> BrokerReason:
    """A reason code with what the packet says about it."""
    server = packet.server_reference if isinstance(packet, (ConnAckPacket, DisconnectPacket)) else None
    return BrokerReason(code.value, code.name, packet.reason_str, server)


def shortcomings(connack: ConnAckPacket, mqtt: MqttSettings) -> list[str]:
    """What CONNACK takes away of what delivery at least once rests on (MQTT 5 §3.2.2.3)."""
    found = []
    if mqtt.session_expiry and session_expiry(connack, mqtt) == 0:
        found.append(
            "keeps no session (session expiry 0): what is published while the gateway is away would be lost; "
            "allow persistent sessions at the broker"
        )
    if connack.max_qos == QoS.AT_MOST_ONCE:
        found.append("offers QoS 0 only: a crash loses what is in flight; allow QoS 1 at the broker")
    return found


def session_expiry(connack: ConnAckPacket, mqtt: MqttSettings) -> float:
    """Seconds for which the broker keeps the session; it need not say so when it is what we asked for."""
    given = connack.session_expiry_interval
    return mqtt.session_expiry if given is None else given


def check_limits(
    connack: ConnAckPacket, subscriptions: Sequence[Subscription], size: int, broker: str
) -> None:
    """Whether the broker can do what a SUBSCRIBE of ``size`` bytes will ask of it.

    Raises:
        RefusedError: CONNACK said that it cannot.
    """
    if connack.max_packet_size is not None and size > connack.max_packet_size:
        raise RefusedError(
            f"{broker} accepts packets of {connack.max_packet_size} bytes; our SUBSCRIBE has {size}: "
            "configure fewer streams, with wildcards"
        )
    for subscription in subscriptions:
        topic_filter = subscription.filter
        if topic_filter.startswith("$share/") and not connack.shared_subscription_available:
            raise RefusedError(f"{broker} has no shared subscriptions: {NOT_SHARED}")
        if ("+" in topic_filter or "#" in topic_filter) and not connack.wildcard_subscription_available:
            raise RefusedError(f"{broker} has no wildcard subscriptions, and {topic_filter} is one")
