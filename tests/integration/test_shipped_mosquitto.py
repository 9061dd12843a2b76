"""config/mosquitto.conf on a real mosquitto: accepted, closed to strangers, and letting through what must pass."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.servers import Mosquitto
from tests.support.waiting import free_port

CONFIG = Path(__file__).parents[2] / "config"
TOPIC = "tenants/acme/devices/VIB-SN-001/telemetry"
DEVICE, OTHER, GATEWAY = ("VIB-SN-001", "two"), ("VIB-SN-002", "three"), ("gateway", "one")
"""Users and their passwords."""
SESSION = "gateway-1"
"""The gateway's client id."""


class Shipped(Mosquitto):
    """The shipped configuration, its paths and its ports moved to where a test may write and listen."""

    def __init__(self) -> None:
        self.inner_port = free_port()
        super().__init__()

    def configure(self, *_lines: str) -> None:
        """Write the shipped file, and the passwords as the composed broker does."""
        text = (CONFIG / "mosquitto.conf").read_text("utf-8")
        for there, here in {
            "listener 1883": f"listener {self.port} 127.0.0.1",
            "listener 1884": f"listener {self.inner_port} 127.0.0.1",
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
        passwords.write_text("".join(f"{user}:{word}\n" for user, word in (GATEWAY, DEVICE, OTHER)), "utf-8")
        passwords.chmod(0o600)
        subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)


@pytest.fixture
def shipped(mosquitto_broker: Mosquitto) -> Iterator[Shipped]:
    """A broker as shipped; skipped, or failing, like all that needs mosquitto."""
    assert mosquitto_broker.running
    with Shipped() as broker:
        yield broker.start()


def client(broker: Shipped, login: tuple[str, str] | None, **options: Any) -> aiomqtt.Client:
    """A client of this user at the devices' port, by MQTT 5."""
    user, password = login or (None, None)
    options = {"port": broker.port, "protocol": aiomqtt.ProtocolVersion.V5, **options}
    return aiomqtt.Client("127.0.0.1", username=user, password=password, timeout=10, **options)


def gateway(broker: Shipped, **options: Any) -> aiomqtt.Client:
    """The gateway, with its session, at its own port."""
    kept = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    kept.SessionExpiryInterval = 3600
    return client(
        broker,
        GATEWAY,
        port=broker.inner_port,
        identifier=SESSION,
        clean_start=False,
        properties=kept,
        **options,
    )


async def received(gateway: aiomqtt.Client, count: int) -> list[tuple[str, object]]:
    """Topic and payload of so many messages."""
    found = [await asyncio.wait_for(anext(gateway.messages), 10) for _ in range(count)]
    return [(str(message.topic), message.payload) for message in found]


@pytest.mark.mosquitto
async def test_devices_write_and_the_gateway_reads(shipped: Shipped) -> None:
    """What a device publishes reaches the gateway, also by a shared subscription."""
    async with gateway(shipped) as reading, client(shipped, DEVICE) as device:
        await reading.subscribe("$share/gateways/tenants/+/devices/+/telemetry", qos=1)
        await device.publish(TOPIC, b"{}", qos=1)
        assert await received(reading, 1) == [(TOPIC, b"{}")]


@pytest.mark.mosquitto
@pytest.mark.parametrize(
    "topic",
    [
        "tenants/acme/devices/VIB-SN-002/telemetry",
        "tenants/acme/devices/VIB-SN-0011/telemetry",
        "tenants/acme/VIB-SN-001",
        "tenants/acme/devices",
        "other/VIB-SN-001",
        "$SYS/broker/uptime",
    ],
)
async def test_a_device_publishes_as_itself_only(shipped: Shipped, topic: str) -> None:
    """Whatever it names instead of itself is refused, and reaches nobody."""
    async with gateway(shipped) as reading, client(shipped, DEVICE) as device:
        await reading.subscribe("#", qos=1)
        await device.publish(topic, b"stolen", qos=1)
        await device.publish(topic, b"stolen and kept", qos=1, retain=True)
        await device.publish(TOPIC, b"own", qos=1)
        assert await received(reading, 1) == [(TOPIC, b"own")]


@pytest.mark.mosquitto
async def test_a_device_reads_nothing(shipped: Shipped) -> None:
    """A subscription of a device brings nothing, and takes nothing from the gateway's."""
    async with (
        gateway(shipped) as reading,
        client(shipped, OTHER) as curious,
        client(shipped, DEVICE) as device,
    ):
        await reading.subscribe("tenants/#", qos=1)
        await curious.subscribe("#", qos=1)
        for number in range(10):
            await device.publish(TOPIC, b"%d" % number, qos=1)
        assert await received(reading, 10) == [(TOPIC, b"%d" % number) for number in range(10)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(curious.messages), 0.5)


@pytest.mark.mosquitto
async def test_a_device_takes_no_session(shipped: Shipped) -> None:
    """A client that asks for the gateway's client id gets its own, and the gateway's messages stay where they are."""
    async with gateway(shipped) as reading:
        await reading.subscribe("tenants/#", qos=1)
    async with client(shipped, DEVICE) as device:
        await device.publish(TOPIC, b"waits", qos=1)
    async with client(shipped, OTHER, identifier=SESSION, clean_start=True):
        pass
    async with (
        gateway(shipped) as reading,
        client(shipped, OTHER, identifier=SESSION, clean_start=True) as thief,
    ):
        assert await received(reading, 1) == [(TOPIC, b"waits")]
        await thief.publish(TOPIC.replace(DEVICE[0], OTHER[0]), b"own", qos=1)
        assert [payload for _, payload in await received(reading, 1)] == [b"own"]


@pytest.mark.mosquitto
async def test_the_gateways_messages_wait_for_it_over_a_restart_of_the_broker(shipped: Shipped) -> None:
    """With two listeners too: what its session holds is not refused to it while it is away."""
    async with gateway(shipped) as reading:
        await reading.subscribe("tenants/#", qos=1)
    async with client(shipped, DEVICE) as device:
        await device.publish(TOPIC, b"before", qos=1)
    shipped.stop()
    shipped.start()
    async with client(shipped, DEVICE) as device:
        await device.publish(TOPIC, b"after", qos=1)
    async with gateway(shipped) as reading:
        assert await received(reading, 2) == [(TOPIC, b"before"), (TOPIC, b"after")]


@pytest.mark.mosquitto
@pytest.mark.parametrize("login", [None, (DEVICE[0], "wrong"), ("stranger", DEVICE[1]), ("device", "two")])
async def test_strangers_are_refused(shipped: Shipped, login: tuple[str, str] | None) -> None:
    """Nobody connects without a user and the password of that user, at either port."""
    for port in (shipped.port, shipped.inner_port):
        with pytest.raises(aiomqtt.MqttError, match=r"(?i)not authori[sz]ed"):
            async with client(shipped, login, port=port):
                pass


@pytest.mark.mosquitto
async def test_the_health_check_is_answered(shipped: Shipped) -> None:
    """The topic that the composed health check waits for reaches the gateway's user."""
    async with client(shipped, GATEWAY, port=shipped.inner_port) as asking:
        await asking.subscribe("$SYS/broker/uptime")
        message = await asyncio.wait_for(anext(asking.messages), 15)
    assert isinstance(message.payload, bytes)
    assert message.payload.endswith(b"seconds")
