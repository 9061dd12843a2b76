"""The MQTT 5 packets that the gateway sends, and the words for the reason codes that it gets."""

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

from gateway.errors import ConfigurationError, GatewayError
from gateway.mqtt.connection import (
    ConnectionLostError,
    Refusal,
    RefusedError,
    Subscription,
    UnsupportedVersionError,
)
from gateway.settings import Mqtt

ReasonCode = ConnAckReasonCode | DisconnectReasonCode | SubAckReasonCode
_NEVER_EXPIRES = 0xFFFFFFFF
# Reason codes mean the same in every packet; those of mqtt5 cannot be hashed.
_FAILURE = 0x80
_UNSUPPORTED_VERSION = 0x84
_PASSING_REFUSALS = (0x80, 0x83, 0x88, 0x89, 0x97, 0x9F)
"""Unspecified, implementation specific, unavailable, busy, quota, connection rate."""
_STANDING_DISCONNECTS = (0x87, 0x8E, 0x9C, 0x9D)
"""Not authorised, session taken over, use another server, server moved."""
_HINTS = {
    0x85: "choose another mqtt.client_id",
    0x86: "check mqtt.username and the password",
    0x87: "check mqtt.username, the password and the broker's access rules",
    0x8E: "another client uses our mqtt.client_id: stop it, or give each gateway its own",
}


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


def refusal(connack: ConnAckPacket, broker: str) -> GatewayError:
    """Why the broker does not accept us, as the error that says what to do."""
    code = connack.reason_code.value
    if code == _UNSUPPORTED_VERSION:
        return UnsupportedVersionError(f"{broker} does not speak MQTT 5")
    reason = words(connack.reason_code, connack.reason_str, connack.server_reference)
    text = f"{broker} refuses the connection: {reason}"
    return ConnectionLostError(text) if code in _PASSING_REFUSALS else RefusedError(text)


def farewell(packet: DisconnectPacket, broker: str) -> GatewayError:
    """Why the broker ended the connection, as the error that says what to do."""
    reason = words(packet.reason_code, packet.reason_str, packet.server_reference)
    text = f"{broker} disconnected us: {reason}"
    standing = packet.reason_code.value in _STANDING_DISCONNECTS
    return RefusedError(text) if standing else ConnectionLostError(text)


def words(code: ReasonCode, reason: str | None = None, server: str | None = None) -> str:
    """A reason code for people: its name, what the broker says, another server that it names, what to do."""
    parts = [code.name.lower().replace("_", " ")]
    if reason:
        parts.append(f"({reason})")
    if server:
        parts.append(f"[server: {server}]")
    hint = _HINTS.get(code.value)
    return " ".join(parts) + (f"; {hint}" if hint else "")


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


def refusals(subscriptions: Sequence[Subscription], suback: SubAckPacket) -> list[Refusal]:
    """The subscriptions that the broker did not grant as asked.

    Raises:
        ConnectionLostError: the SUBACK answers another SUBSCRIBE.
    """
    if len(suback.reason_codes) != len(subscriptions):
        raise ConnectionLostError("the broker's SUBACK does not answer our SUBSCRIBE")
    found = []
    for subscription, code in zip(subscriptions, suback.reason_codes, strict=True):
        if code.value >= _FAILURE:
            found.append(Refusal(subscription, words(code, suback.reason_str)))
        elif code.value < subscription.qos:
            found.append(Refusal(subscription, "granted at QoS 0 only: a crash loses what is in flight"))
    return found
