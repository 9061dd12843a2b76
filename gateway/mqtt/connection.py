"""One connection to the broker, from dialling to its end. The source makes a new one whenever it is lost.

The two implementations are the only modules that know an MQTT library; everything that outlives a connection
(numbers, order of acks, back-off, health) is in :mod:`gateway.mqtt.reconnecting`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

from gateway.errors import ConfigurationError, GatewayError
from gateway.messages import Message
from gateway.settings import MqttSettings

T = TypeVar("T")
_FILTERS_AT_ONCE = 8
"""Filters in one packet: what brokers of clouds and of microcontrollers take (AWS IoT: eight)."""
LAST_ACKS_SECONDS = 1.0
"""How long acks may still leave when the broker has sent what cannot be read."""


NOT_SHARED = (
    "run with --workers N --divide streams, which needs none, or without workers and mqtt.share_group"
)
"""The way out where a broker has no shared subscriptions."""


class ConnectionLostError(GatewayError):
    """The connection is gone or could not be made; it should come back by itself."""


class RefusedError(GatewayError):
    """The broker, or its certificate, was refused or refuses us: an operator must mend something."""


class UnsupportedVersionError(RefusedError):
    """The broker does not speak this version of MQTT."""


class Subscription(NamedTuple):
    """What is asked of the broker: a topic filter with its ``$share`` prefix, and the QoS at most."""

    filter: str
    qos: int


class Refusal(NamedTuple):
    """A subscription that the broker did not grant as asked, and why."""

    subscription: Subscription
    reason: str


class Receiver(Protocol):
    """What a connection calls; all calls are synchronous."""

    def connected(self, session_present: bool) -> None:
        """The broker accepted us. Messages may follow at once, before any subscription."""

    def take(self, messages: Sequence[Message], packet_ids: Sequence[int]) -> None:
        """All messages of one socket read, and their packet ids (0 at QoS 0)."""

    def pinged(self) -> None:
        """A PINGREQ goes out now, behind all acks sent so far."""

    def answered(self) -> None:
        """A PINGRESP came; they come in the order of the pings."""

    def idle(self) -> None:
        """The event loop has polled again since the last messages and found nothing to read."""


class Connection(Protocol):
    """One connection. Used once: ``open``, ``subscribe`` any number of times, ``lost``, ``close``.

    Attributes:
        protocol: the version of MQTT, as ``mqtt.protocol`` names it.
        dialled: TCP, and TLS where configured, stood: what went wrong then is the broker's answer to our CONNECT.
        shortcomings: what the broker said at CONNECT that breaks the promise; known after :meth:`open`.
        goodbye_read: after :meth:`close`: the broker has read all our acks and the DISCONNECT.
    """

    protocol: str
    dialled: bool
    shortcomings: Sequence[str]
    goodbye_read: bool

    async def open(self) -> None:
        """Dial and be accepted by the broker.

        Raises:
            ConnectionLostError: no broker, or not now.
            RefusedError: the broker refuses us, or its certificate is not to be trusted.
            UnsupportedVersionError: the broker does not speak this version of MQTT.
        """

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> list[Refusal]:
        """Subscribe, in one packet.

        Raises:
            ConnectionLostError: the connection was lost meanwhile.
            RefusedError: the broker refuses all of it.
        """

    async def unsubscribe(self, filters: Sequence[str]) -> list[str]:
        """Unsubscribe, in one packet; those that the broker refuses to end.

        Raises:
            ConnectionLostError: the connection was lost meanwhile.
        """

    async def lost(self) -> GatewayError:
        """Wait until the connection is gone, and say why: a ConnectionLostError or a RefusedError."""

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Send these acks, in this order."""

    def ping(self) -> None:
        """Send a PINGREQ: its answer says that the broker has read all acks before it."""

    def pause(self) -> None:
        """Stop reading; pings go on. Idempotent."""

    def resume(self) -> None:
        """Read again. Idempotent."""

    async def close(self) -> None:
        """Flush what was written, DISCONNECT if still connected, close. Idempotent; never raises."""


class Phase(enum.Enum):
    """How far a connection has come, and what it mostly means when the broker closes it then without a reason."""

    CONNECTING = (
        " before it accepted us; check the credentials, mqtt.protocol, and whether this port speaks TLS"
    )
    SUBSCRIBING = (
        " instead of answering our SUBSCRIBE; check the broker's access rules and limits for {filters}"
    )
    SUBSCRIBED = "; perhaps another client uses our mqtt.client_id"
    """mosquitto 2.0 gives no reason when a client id is used twice."""


def closed_by(broker: str, phase: Phase, filters: Sequence[str] = ()) -> ConnectionLostError:
    """The broker closed the connection and gave no reason.

    Args:
        filters: what we were subscribing to.
    """
    why = phase.value.format(filters=", ".join(filters))
    return ConnectionLostError(f"{broker} closed the connection{why}")


async def subscribe_to_all(connection: Connection, subscriptions: Sequence[Subscription]) -> list[Refusal]:
    """Subscribe in parts: some brokers hang up on many filters in one packet.

    Raises:
        ConnectionLostError, RefusedError: as :meth:`Connection.subscribe` does.
    """
    refusals: list[Refusal] = []
    for part in parts(subscriptions):
        refusals += await connection.subscribe(part)
    return refusals


def parts(filters: Sequence[T]) -> list[Sequence[T]]:
    """As many at once as fit in one packet."""
    return [filters[first : first + _FILTERS_AT_ONCE] for first in range(0, len(filters), _FILTERS_AT_ONCE)]


def password(mqtt: MqttSettings) -> str | None:
    """The password to connect with.

    Raises:
        RefusedError: its file cannot be read.
    """
    try:
        return mqtt.secret()
    except ConfigurationError as error:
        raise RefusedError(f"password of the broker: {error}") from error


def broker_name(mqtt: MqttSettings) -> str:
    """The broker as an operator knows it."""
    if mqtt.unix_socket is not None:
        return str(mqtt.unix_socket)
    host = f"[{mqtt.host}]" if ":" in mqtt.host else mqtt.host
    return f"{host}:{mqtt.port}"
