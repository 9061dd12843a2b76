"""A thousand messages of a thousand devices, and a registry that knows them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import mqtt5
import pytest
from pydantic import SecretStr

from gateway import settings
from gateway.clock import now_us
from gateway.decoders import Limits, build
from gateway.devices.registry import Registry
from gateway.ingest.routes import Preparation, Routes, Stream
from gateway.messages import Device, DeviceType, Field
from gateway.observability.health import Health
from gateway.storage.pools import Pool
from gateway.tools.bench import shape
from gateway.tools.bench.blocks import Blocks

PREFIX = "tenants/acme/devices/"
COUNT = 1000


@pytest.fixture(scope="session")
def received() -> bytes:
    """What a socket read gives: packets of a thousand messages."""
    start_ms = now_us() // 1000 - 3_600_000
    blocks, pieces, count = Blocks(PREFIX, shape.Shape(devices=COUNT), start_ms=start_ms, seed=1), b"", 0
    while count < COUNT:
        piece, taken = blocks.take(COUNT - count)
        pieces += bytes(piece)
        count += taken
    return pieces


@pytest.fixture(scope="session")
def packets(received: bytes) -> Sequence[mqtt5.PublishPacket]:
    """The messages."""
    view, found = memoryview(received), []
    while view:
        packet, size = mqtt5.read(view)
        assert isinstance(packet, mqtt5.PublishPacket)
        found.append(packet)
        view = view[size:]
    return found


@pytest.fixture(scope="session")
def kind() -> DeviceType:
    """A device type that declares three fields with ranges."""
    fields = {shape.metric(n): Field(shape.metric(n), "float", "unit", 0, 100_000) for n in range(3)}
    return DeviceType(uuid.uuid4(), "sensor", fields)


@pytest.fixture(scope="session")
def routes(packets: Sequence[mqtt5.PublishPacket], kind: DeviceType) -> Routes:
    """All topics seen, all devices known."""
    database = settings.DatabaseSettings(dsn=SecretStr("postgresql://nobody@/nothing"))
    prepare = Preparation(settings.ValidationSettings())
    registry = Registry(
        Pool("metadata", database), settings.RegistrySettings(), Health().component("metadata"), prepare
    )
    stream = settings.StreamSettings(name="telemetry", topic="tenants/{tenant}/devices/{device}")
    decode = build("json", Limits(max_depth=32, max_readings=100, zone=None))
    found = Routes([Stream(stream, decode)], registry, max_topics=10 * COUNT)
    tenant = uuid.uuid4()
    for packet in packets:
        entry = found.find(packet.topic).entry
        assert entry is not None
        device = Device(uuid.uuid4(), tenant, entry.serial_number, "acme", kind)
        prepare(device)
        entry.learn(device)
        found.find(packet.topic)
    return found
