"""The demo's broker: mosquitto where it is installed, else amqtt, which comes with the extra ``demo``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from gateway.tools.demo import embedded, privileges
from gateway.tools.demo.folder import Folder
from gateway.tools.demo.part import Part
from gateway.tools.demo.ports import answers, free_port

_MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
# What the gateway cannot take at once waits here; the default drops beyond 1000.
max_queued_messages 0
max_inflight_messages 1000
log_dest stderr
"""
_AMQTT = """\
listeners:
  default:
    type: tcp
    bind: 127.0.0.1:{port}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin:
    allow_anonymous: true
"""


class DemoBroker:
    """A broker on a loopback port.

    Attributes:
        name: ``mosquitto`` or ``amqtt``.
        mqtt5: whether it speaks MQTT 5.
    """

    def __init__(self, folder: Folder) -> None:
        self.port = free_port()
        self._folder = folder
        self._mosquitto = find_program("mosquitto")
        self.name = "mosquitto" if self._mosquitto else "amqtt"
        self.mqtt5 = self._mosquitto is not None
        self.part = Part(self.name, folder.log("broker"))

    async def start(self) -> None:
        """Start the broker and wait until it takes connections.

        Raises:
            StartError: there is none, or it does not start; the text shows what it said.
        """
        if self._mosquitto is not None:
            run_as = privileges.other_user(self._folder.path, self._mosquitto)
            await self.part.start([self._mosquitto, "-c", self._write("mosquitto.conf", _MOSQUITTO)], run_as)
        elif importlib.util.find_spec("amqtt"):
            config = self._write("amqtt.yaml", _AMQTT)
            await self.part.start([sys.executable, "-m", "amqtt.scripts.broker_script", "-c", config])
        else:
            raise embedded.missing_extra("a broker (or mosquitto on the PATH)")
        await self.part.until(lambda: answers(self.port), timeout=20)

    async def stop(self) -> None:
        """Stop the broker."""
        await self.part.stop()

    def _write(self, name: str, text: str) -> Path:
        path = self._folder.path / name
        path.write_text(text.format(port=self.port), "utf-8")
        return path


def find_program(name: str) -> Path | None:
    """A program on the PATH, or where Debian keeps servers."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which(name, path=path)
    return Path(found) if found else None
