"""The steps of the path, a thousand messages each, so that a regression can be seen. No time is asserted.

    make test ARGS="tests/benchmarks --benchmark-enable"

Figures are for a thousand messages: ms are µs per message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import mqtt5

from gateway import clock, settings
from gateway.decoders import Limits, build
from gateway.ingest.intake import Intake
from gateway.ingest.new_chunks import NewChunks
from gateway.ingest.routes import Routes, TopicRoute
from gateway.ingest.validation import field_check
from gateway.ingest.waiting import Unresolved
from gateway.messages import Delivery, DeviceType, Message, Reading
from gateway.mqtt.frames import PacketReader
from gateway.mqtt.packets import puback_packets
from gateway.mqtt.window import Window
from gateway.writer.layouts.document import encoding

Benchmark = Callable[..., Any]
Packets = Sequence[mqtt5.PublishPacket]


def resolved(routes: Routes, packets: Packets) -> list[TopicRoute]:
    """The route of each message."""
    known = routes.known
    return [known[packet.topic] for packet in packets]


def test_parse(benchmark: Benchmark, received: bytes) -> None:
    """One read of the socket is cut into its packets."""
    found = benchmark(PacketReader(2**20).feed, received)
    assert len(found.messages) == 1000
    assert found.others == []


def test_resolve(benchmark: Benchmark, routes: Routes, packets: Packets) -> None:
    """From topic to device, by one look-up."""
    found = benchmark(resolved, routes, packets)
    assert {route.entry.serial_number for route in found} == {p.topic.split("/")[-1] for p in packets}


def test_route_of_a_new_topic(benchmark: Benchmark, routes: Routes, packets: Packets) -> None:
    """The first message of a topic matches the templates of the streams."""
    found = benchmark(lambda: [routes.find(packet.topic) for packet in packets])
    assert {route.stream_name for route in found} == {"telemetry"}


def test_decode(benchmark: Benchmark, packets: Packets) -> None:
    """From payload to reading."""
    decode = build("json", Limits(max_depth=32, max_readings=100, zone=None))
    found = benchmark(lambda: [decode(packet.payload) for packet in packets])
    assert all(len(readings) == 1 and len(readings[0].metrics) == 3 for readings in found)


def test_validate(benchmark: Benchmark, kind: DeviceType) -> None:
    """Three fields with ranges."""
    check, reading = field_check(kind), Reading(dict.fromkeys(kind.fields, 5.0), 0)
    assert check is not None
    found = benchmark(lambda: [check(reading) for _ in range(1000)])
    assert set(found) == {None}


def test_encode_row(benchmark: Benchmark) -> None:
    """A reading becomes a row of the binary COPY."""
    metrics = {"vibration": 5.217, "temperature": 45.31, "operating_hours": 12345.6}
    now, columns = time.time_ns() // 1000, bytes(40)
    found = benchmark(lambda: [encoding.encode(now, columns, metrics, None) for _ in range(1000)])
    (row,) = encoding.take_apart(found[0])
    assert row.time_us == now


def encoded_by(intake: Intake, packet: Message, route: TopicRoute, delivery: Delivery) -> bytes:
    """The rows of a message whose device is known."""
    found = intake.encode(packet, route, delivery)
    assert not isinstance(found, Unresolved)
    return found[0]


def test_short_way(benchmark: Benchmark, routes: Routes, packets: Packets) -> None:
    """Plain messages: from the payload to the row in one step."""
    intake, delivery = (
        Intake(settings.ValidationSettings(), routes, NewChunks(30)),
        Delivery(packets, 0, clock.now_us()),
    )
    found = resolved(routes, packets)
    for route in found:
        route.take_fast_path()
    encoded, _ = benchmark(intake.fast_rows, delivery, found)
    assert encoded == [
        encoded_by(intake, p, route, delivery) for p, route in zip(packets, found, strict=True)
    ]


def test_intake(benchmark: Benchmark, routes: Routes, packets: Packets) -> None:
    """All stages before the batch, the general path: from a message to its row."""
    intake, delivery = (
        Intake(settings.ValidationSettings(), routes, NewChunks(30)),
        Delivery(packets, 0, clock.now_us()),
    )
    found = resolved(routes, packets)

    def encode() -> list[bytes]:
        return [encoded_by(intake, p, route, delivery) for p, route in zip(packets, found, strict=True)]

    encoded = benchmark(encode)
    assert len(encoded) == 1000
    assert b"".join(encoded).count(b"vibration") == 1000


def test_settle(benchmark: Benchmark) -> None:
    """Packet ids enter the window, are settled, and leave as acknowledgements."""
    window, ids = Window(), list(range(1, 1001))

    def settle() -> bytearray:
        first = window.register(ids)
        return puback_packets(window.settle(list(range(first, first + 1000))))

    acks = benchmark(settle)
    assert acks == b"".join(mqtt5.PubAckPacket(packet_id).write() for packet_id in ids)
