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
)

from gateway.errors import ConfigurationError
from gateway.mqtt.connection import RefusedError, Subscription
from gateway.mqtt.reasons import Reason
from gateway.settings import Mqtt

ReasonCode = ConnAckReasonCode | DisconnectReasonCode | SubAckReasonCode
_NEVER_EXPIRES = 0xFFFFFFFF


def connect_packet(mqtt: Mqtt) -> bytes:
    """CONNECT: a persistent session under the fixed client id, no topic aliases.

    Raises:
        RefusedError: the password's file cannot be read.
    """
    try:
        password = mqtt.secret()
    except ConfigurationError as error:
        raise RefusedError(f"password of the broker: {error}") from error
    packet = ConnectPacket(
        mqtt.client_id,
        username=mqtt.username,
        password=None if password is None else password.encode(),
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


def reason_of(code: ReasonCode, packet: ConnAckPacket | DisconnectPacket | SubAckPacket) -> Reason:
    """A reason code with what the packet says about it."""
    server = None if isinstance(packet, SubAckPacket) else packet.server_reference
    return Reason(code.value, code.name, packet.reason_str, server)


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
            raise RefusedError(f"{broker} has no shared subscriptions: remove mqtt.share_group")
        if ("+" in topic_filter or "#" in topic_filter) and not connack.wildcard_subscription_available:
            raise RefusedError(f"{broker} has no wildcard subscriptions, and {topic_filter} is one")
