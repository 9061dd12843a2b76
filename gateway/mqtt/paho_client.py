"""The client under an MQTT 3.1.1 connection, as the settings ask for it; it has dialled nothing yet."""

from __future__ import annotations

import logging
import math
from typing import Literal

import aiomqtt

from gateway.mqtt import tls
from gateway.mqtt.connection import password
from gateway.mqtt.paho_sockets import NamedContext
from gateway.settings import MqttSettings

_QUIET = logging.getLogger(f"{__name__}.paho")
_QUIET.disabled = True  # what went wrong is told once, in the source's own words


def make_client(mqtt: MqttSettings, context: NamedContext | None) -> aiomqtt.Client:
    """A persistent session under the fixed client id; one that is to be kept for no time ends with the connection.

    Raises:
        RefusedError: the password's file cannot be read.
    """
    if context is not None:
        context.server_name = tls.server_name(mqtt)
    return aiomqtt.Client(
        hostname=str(mqtt.unix_socket or mqtt.host),
        port=mqtt.port,
        username=mqtt.username,
        password=password(mqtt),
        identifier=mqtt.client_id,
        clean_session=mqtt.session_expiry == 0,
        transport=_transport(mqtt),
        timeout=mqtt.connect_timeout,
        keepalive=math.ceil(mqtt.keepalive),
        tls_context=context,
        websocket_path=mqtt.websocket_path,
        logger=_QUIET,
    )


def _transport(mqtt: MqttSettings) -> Literal["tcp", "websockets", "unix"]:
    if mqtt.unix_socket is not None:
        return "unix"
    return "tcp" if mqtt.websocket_path is None else "websockets"
