"""config/mosquitto.conf on a real mosquitto: accepted, closed to strangers, and letting through what must pass."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import pytest

from tests.support.servers import Mosquitto

CONFIG = Path(__file__).parents[2] / "config"
TOPIC = "tenants/acme/devices/VIB-SN-001/telemetry"


class Shipped(Mosquitto):
    """The shipped configuration, its paths and its port moved to where a test may write and listen."""

    def configure(self, *_lines: str) -> None:
        """Write the shipped file, and the passwords as the composed broker does."""
        text = (CONFIG / "mosquitto.conf").read_text("utf-8")
        for there, here in {
            "listener 1883": f"listener {self.port} 127.0.0.1",
            "/run/mosquitto/passwords": f"{self.folder}/passwords",
            "/mosquitto/config/": f"{CONFIG}/",
            "/mosquitto/data/": f"{self.folder}/",
        }.items():
            assert there in text
            text = text.replace(there, here)
        # Started by root, mosquitto would change to a user that cannot read our folder.
        user = "user root\n" if os.geteuid() == 0 else ""
        self.configuration.write_text(user + text, "utf-8")
        passwords = self.folder / "passwords"
        passwords.write_text("gateway:one\ndevice:two\n", "utf-8")
        passwords.chmod(0o600)
        subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)


@pytest.fixture
def shipped(mosquitto_broker: Mosquitto) -> Iterator[Shipped]:
    """A broker as shipped; skipped, or failing, like all that needs mosquitto."""
    assert mosquitto_broker.running
    with Shipped() as broker:
        yield broker.start()


def client(broker: Shipped, user: str | None, password: str | None) -> aiomqtt.Client:
    """A client of this user."""
    return aiomqtt.Client("127.0.0.1", broker.port, username=user, password=password, timeout=10)


@pytest.mark.mosquitto
async def test_devices_write_and_the_gateway_reads(shipped: Shipped) -> None:
    """What a device publishes reaches the gateway, also by a shared subscription."""
    async with client(shipped, "gateway", "one") as gateway, client(shipped, "device", "two") as device:
        await gateway.subscribe("$share/gateways/tenants/+/devices/+/telemetry", qos=1)
        await device.publish(TOPIC, b"{}", qos=1)
        message = await asyncio.wait_for(anext(gateway.messages), 10)
    assert (str(message.topic), message.payload) == (TOPIC, b"{}")


@pytest.mark.mosquitto
@pytest.mark.parametrize(("user", "password"), [(None, None), ("device", "wrong"), ("stranger", "two")])
async def test_strangers_are_refused(shipped: Shipped, user: str | None, password: str | None) -> None:
    """Nobody connects without a user and the password of that user."""
    with pytest.raises(aiomqtt.MqttError, match=r"(?i)not authori[sz]ed"):
        async with client(shipped, user, password):
            pass


@pytest.mark.mosquitto
async def test_the_health_check_is_answered(shipped: Shipped) -> None:
    """The topic that the composed health check waits for reaches the gateway's user."""
    async with client(shipped, "gateway", "one") as gateway:
        await gateway.subscribe("$SYS/broker/uptime")
        message = await asyncio.wait_for(anext(gateway.messages), 15)
    assert isinstance(message.payload, bytes)
    assert message.payload.endswith(b"seconds")
