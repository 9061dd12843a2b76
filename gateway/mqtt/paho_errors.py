"""What paho, and a broker of MQTT 3.1.1 behind it, refuse or fail at, as errors that say what to do."""

from __future__ import annotations

from paho.mqtt.client import WebsocketConnectionError
from paho.mqtt.reasoncodes import ReasonCode

from gateway.errors import GatewayError
from gateway.mqtt import tls
from gateway.mqtt.connection import ConnectionLostError, broker_name
from gateway.mqtt.reasons import BrokerReason
from gateway.settings import MqttSettings


def explain(cause: BaseException, mqtt: MqttSettings) -> GatewayError:
    """Why a connection could not be made."""
    broker = broker_name(mqtt)
    if isinstance(cause, WebsocketConnectionError):
        where = f"{broker}{mqtt.websocket_path}"
        return ConnectionLostError(f"no WebSocket at {where}: {cause}; check mqtt.websocket_path")
    if isinstance(cause, (OSError, UnicodeError)):
        return tls.explain(cause, mqtt, dialling=True)
    return ConnectionLostError(f"{broker}: {cause}")


def reason(code: int | ReasonCode) -> BrokerReason:
    """A return code, which paho translates to MQTT 5's where it can."""
    if isinstance(code, ReasonCode):
        return BrokerReason(code.value, code.getName())
    return BrokerReason(code, f"code {code}")
