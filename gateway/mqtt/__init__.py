"""MQTT: the only package that knows MQTT libraries. :func:`open_source` is the way in."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from gateway.mqtt import attempt as attempts
from gateway.mqtt.connection import Connection, Receiver, Subscription, broker_name
from gateway.mqtt.reconnecting import Connect, ReconnectingSource
from gateway.mqtt.source import DeliveryReceiver, SessionTracker, Source
from gateway.mqtt.v5 import V5Connection
from gateway.observability.health import Component
from gateway.settings import MqttSettings, StreamSettings
from gateway.topics import Template, apart

__all__ = ["DeliveryReceiver", "SessionTracker", "Source", "broker_name", "open_source", "try_broker"]


def open_source(
    mqtt: MqttSettings,
    streams: Sequence[StreamSettings],
    component: Component,
    sessions: SessionTracker,
    *,
    first: int = 0,
) -> Source:
    """The source that the settings ask for; nothing is dialled before ``run``.

    Args:
        first: its first delivery number. Dead letters are known by theirs: two sources of a process share none.
    """
    connect, fallback = _versions(mqtt)
    asked = subscriptions(mqtt, streams)
    return ReconnectingSource(
        mqtt, asked, component, sessions, connect=connect, fallback=fallback, first=first
    )


async def try_broker(mqtt: MqttSettings, streams: Sequence[StreamSettings]) -> tuple[str, list[str]]:
    """Connect and subscribe as a client of its own, whose session ends at once; MQTT version, and what is not granted.

    Not with the share group: as one of it, it would be given messages that others wait for.

    Raises:
        GatewayError: the broker cannot be reached or does not accept us; it says why.
    """
    other = mqtt.model_copy(
        update={"client_id": attempts.client_id(mqtt.client_id), "session_expiry": 0.0, "share_group": None}
    )
    connect, fallback = _versions(other)
    makers = [functools.partial(one, other) for one in (connect, fallback) if one is not None]
    return await attempts.attempt(makers, subscriptions(other, streams))


def subscriptions(mqtt: MqttSettings, streams: Sequence[StreamSettings]) -> list[Subscription]:
    """What to subscribe to, at the highest QoS that a stream asks for: filters that do not overlap.

    So one message comes once, however many streams its topic matches. What a common filter brings beside is ignored.
    """
    prefix = f"$share/{mqtt.share_group}/" if mqtt.share_group else ""
    qos: dict[str, int] = {}
    for stream in streams:
        topic_filter = Template(stream.topic).filter
        qos[topic_filter] = max(stream.qos, qos.get(topic_filter, 0))
    return [Subscription(prefix + topic_filter, asked) for topic_filter, asked in apart(qos).items()]


def _versions(mqtt: MqttSettings) -> tuple[Connect, Connect | None]:
    """What to connect by, and what to fall back upon."""
    if mqtt.protocol == "5":
        return V5Connection, None
    if mqtt.protocol == "3.1.1" or mqtt.websocket_path is not None:
        return _v311, None
    return V5Connection, _v311


def _v311(mqtt: MqttSettings, receiver: Receiver) -> Connection:
    from gateway.mqtt.v311 import V311Connection  # most never need it, and it takes time and memory

    return V311Connection(mqtt, receiver)
