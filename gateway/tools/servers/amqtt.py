"""amqtt, a broker in Python that comes with the extra ``demo``, on a loopback port: MQTT 3.1.1 only."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from gateway.tools.servers import postgres
from gateway.tools.servers.part import Part
from gateway.tools.servers.ports import answers, free_port

ANYBODY = ("  amqtt.plugins.authentication.AnonymousAuthPlugin:", "    allow_anonymous: true")
"""The plugin that lets in clients without credentials."""


def configuration(port: int, *plugins: str) -> str:
    """The text of its configuration: one listener, and these lines of plugins."""
    listener = ["listeners:", f"  default: {{type: tcp, bind: '127.0.0.1:{port}'}}"]
    return "\n".join([*listener, "plugins:", *plugins]) + "\n"


def command(file: Path) -> list[str]:
    """What runs it, with this configuration."""
    return [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(file)]


class AmqttServer:
    """For clients without credentials.

    Args:
        file: its configuration, which is written at the start.
        log: what it says goes there.
    """

    name = "amqtt"
    mqtt5 = False

    def __init__(self, file: Path, log: Path) -> None:
        self.port = free_port()
        self.part = Part(self.name, log)
        self._file = file

    async def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises:
            StartError: it is not installed, or does not start; the text shows what it said.
        """
        if not importlib.util.find_spec("amqtt"):
            raise postgres.missing_extra("a broker (or mosquitto on the PATH)")
        self._file.write_text(configuration(self.port, *ANYBODY), "utf-8")
        await self.part.start(command(self._file))
        await self.part.until(lambda: answers(self.port), timeout=20)

    async def stop(self) -> None:
        """Stop it. Idempotent."""
        await self.part.stop()
