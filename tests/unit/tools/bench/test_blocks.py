"""Pre-encoded loads: what is patched in is what a codec reads."""

from __future__ import annotations

import json
from typing import Any

import mqtt5
import pytest

from gateway.tools.bench import blocks, shape
from gateway.tools.bench.blocks import Blocks
from gateway.tools.bench.shape import Shape

START_MS = 1_700_000_000_000


def taken(kind: Shape, count: int, portion: int = 700, seed: int = 1) -> list[mqtt5.PublishPacket]:
    """That many messages, taken in portions."""
    source = Blocks("a/b/", kind, start_ms=START_MS, seed=seed)
    packets: list[mqtt5.PublishPacket] = []
    while len(packets) < count:
        piece, number = source.take(min(portion, count - len(packets)))
        packets += read(bytes(piece), number)
    return packets


def read(piece: bytes, number: int) -> list[mqtt5.PublishPacket]:
    """The packets of a piece, which holds exactly that many."""
    view, packets = memoryview(piece), []
    while view:
        packet, size = mqtt5.read(view)
        assert isinstance(packet, mqtt5.PublishPacket)
        packets.append(packet)
        view = view[size:]
    assert len(packets) == number
    return packets


def reading(packet: mqtt5.PublishPacket) -> dict[str, Any]:
    """What the payload says."""
    found: dict[str, Any] = json.loads(packet.payload)
    return found


@pytest.mark.parametrize(
    "kind",
    [
        Shape(),
        Shape(devices=7),
        Shape(devices=2500),
        Shape(metrics=1),
        Shape(metrics=100, devices=150),
        Shape(timestamps=False),
        Shape(flat=True),
        Shape(timestamps=False, flat=True),
    ],
    ids=str,
)
def test_every_reading_has_a_key_of_its_own(kind: Shape) -> None:
    """Devices take turns, and their times rise by one millisecond a round: (device, time) never repeats."""
    count = 3 * kind.devices + 1
    packets = taken(kind, count)
    for number, packet in enumerate(packets):
        turn, device = divmod(number, kind.devices)
        assert packet.topic == "a/b/" + shape.serial(device)
        assert packet.qos == mqtt5.QoS.AT_LEAST_ONCE
        said = reading(packet)
        assert said.get("ts") == (START_MS + turn if kind.timestamps else None)
        said.pop("ts", None)
        metrics = said if kind.flat else said["metrics"]
        assert list(metrics) == [shape.metric(n) for n in range(kind.metrics)]
        assert metrics[shape.metric(0)] == turn / 1000


def test_packet_ids_do_not_repeat_within_a_window() -> None:
    """Of 60 000 messages in a row no two share a packet id, and single packets have others still."""
    ids = [packet.packet_id for packet in taken(Shape(devices=1500), 130_000, portion=20_000)]
    assert all(len(set(ids[at : at + 60_000])) == 60_000 for at in (0, 1, 59_999, 70_000))
    singles = [read(blocks.single("a", b"", number), 1)[0].packet_id for number in range(5535)]
    assert len(set(singles)) == 5535
    assert set(singles).isdisjoint(ids)


def test_the_same_seed_makes_the_same_load() -> None:
    """Byte for byte; another seed makes other values."""
    kind = Shape(devices=50)
    first, again, other = (taken(kind, 120, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_small_portions_are_the_same_messages() -> None:
    """A window of 20 publishes what a wide one does."""
    kind = Shape(devices=33)
    assert taken(kind, 200, portion=20) == taken(kind, 200, portion=10_000)
