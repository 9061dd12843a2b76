"""The demo's broker: mosquitto where it is installed, else amqtt, which comes with the extra ``demo``."""

from __future__ import annotations

from gateway.tools.demo.folder import Folder
from gateway.tools.servers import mosquitto
from gateway.tools.servers.amqtt import AmqttServer
from gateway.tools.servers.mosquitto import MosquittoServer

DemoBroker = MosquittoServer | AmqttServer


def choose(folder: Folder) -> DemoBroker:
    """The one to be started."""
    if mosquitto.program() is None:
        return AmqttServer(folder.path / "amqtt.yaml", folder.log("broker"))
    lines = (*mosquitto.IN_MEMORY, "max_inflight_messages 1000")
    return MosquittoServer(folder.path / "mosquitto.conf", folder.log("broker"), *lines)
