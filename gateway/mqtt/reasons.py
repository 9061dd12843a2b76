"""MQTT 5 reason codes as errors that say what to do. Codes mean the same in every packet.

MQTT 3.1.1 has fewer; paho translates its return codes to these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.errors import GatewayError
from gateway.mqtt.connection import (
    ConnectionLostError,
    Refusal,
    RefusedError,
    Subscription,
    UnsupportedVersionError,
)

FAILURE = 0x80
"""Codes from here on are failures."""
PACKET_ID_IN_USE = 0x91
_UNSUPPORTED_VERSION = 0x84
_PASSING_REFUSALS = frozenset({0x80, 0x83, 0x88, 0x89, 0x97, 0x9F})
"""Unspecified, implementation specific, unavailable, busy, quota, connection rate."""
_STANDING_DISCONNECTS = frozenset({0x87, 0x8E, 0x9C, 0x9D})
"""Not authorised, session taken over, use another server, server moved."""
_HINTS = {
    0x85: "choose another mqtt.client_id",
    0x86: "check mqtt.username and the password",
    0x87: "check mqtt.username, the password and the broker's access rules",
    0x8E: "another client uses our mqtt.client_id: stop it, or give each gateway its own",
}


class BrokerReason(NamedTuple):
    """Why the broker said no.

    Attributes:
        reason_string: the broker's own words (MQTT 5 §2.2.2.2).
        server: another server that it names.
    """

    code: int
    name: str
    reason_string: str | None = None
    server: str | None = None

    def __str__(self) -> str:
        text = self.name.lower().replace("_", " ")
        text += f" ({self.reason_string})" if self.reason_string else ""
        text += f" [server: {self.server}]" if self.server else ""
        hint = _HINTS.get(self.code)
        return f"{text}; {hint}" if hint else text


def refused_connection(broker: str, reason: BrokerReason) -> GatewayError:
    """What a CONNACK that does not accept us means."""
    if reason.code == _UNSUPPORTED_VERSION:
        return UnsupportedVersionError(f"{broker} does not speak this version of MQTT: set mqtt.protocol")
    text = f"{broker} refuses the connection: {reason}"
    return ConnectionLostError(text) if reason.code in _PASSING_REFUSALS else RefusedError(text)


def disconnected(broker: str, reason: BrokerReason) -> GatewayError:
    """What a DISCONNECT from the broker means."""
    text = f"{broker} disconnected us: {reason}"
    return RefusedError(text) if reason.code in _STANDING_DISCONNECTS else ConnectionLostError(text)


def refusals(subscriptions: Sequence[Subscription], answers: Sequence[BrokerReason]) -> list[Refusal]:
    """The subscriptions that a SUBACK does not grant as asked.

    Raises:
        ConnectionLostError: the SUBACK answers another SUBSCRIBE.
    """
    if len(answers) != len(subscriptions):
        raise ConnectionLostError("the broker's SUBACK does not answer our SUBSCRIBE")
    found = []
    for subscription, answer in zip(subscriptions, answers, strict=True):
        if answer.code >= FAILURE:
            found.append(Refusal(subscription, str(answer)))
        elif answer.code < subscription.qos:
            found.append(Refusal(subscription, "granted at QoS 0 only: a crash loses what is in flight"))
    return found
