"""Packets out of a byte stream."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import mqtt5
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.messages import Message
from gateway.mqtt.frames import BrokenStreamError, PacketReader
from gateway.mqtt.salvage import HEAD_BYTES
from gateway.outcomes import Reason
from gateway.unreadable import fault, is_cut

LARGEST = 2**20


@st.composite
def mutated(draw: st.DrawFn, packets: list[bytes]) -> bytes:
    """Some real packets in a row, with bytes changed, cut out and put in."""
    stream = bytearray(b"".join(draw(st.lists(st.sampled_from(packets), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(stream)))
        stream[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(stream)


publications = st.builds(
    lambda topic, payload, packet_id, properties: mqtt5.PublishPacket(
        topic,
        payload,
        qos=mqtt5.QoS.AT_LEAST_ONCE if packet_id else mqtt5.QoS.AT_MOST_ONCE,
        packet_id=packet_id,
        user_properties=properties,
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=8),
    st.binary(max_size=300),
    st.integers(1, 65_535) | st.none(),
    st.lists(st.tuples(st.just("name"), st.just("value")), max_size=2),
)
others = st.sampled_from([mqtt5.PingRespPacket(), mqtt5.DisconnectPacket(), mqtt5.ConnAckPacket()])


@given(st.lists(publications | others, max_size=12), st.data())
def test_packets_are_the_same_however_the_stream_is_cut(
    packets: list[mqtt5.Packet], data: st.DataObject
) -> None:
    """Nothing is lost, doubled or reordered by cuts at any bytes, and ids belong to their messages."""
    stream = b"".join(packet.write() for packet in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    frames = PacketReader(LARGEST)
    messages, packet_ids, rest = [], [], []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found = frames.feed(stream[start:stop])
        messages += found.messages
        packet_ids += found.packet_ids
        rest += found.others
    expected = [packet for packet in packets if isinstance(packet, mqtt5.PublishPacket)]
    assert [packet.write() for packet in expected] == [
        message.write() for message in messages if isinstance(message, mqtt5.PublishPacket)
    ]
    assert [packet.packet_id or 0 for packet in expected] == packet_ids
    assert [packet.write() for packet in packets if packet not in expected] == [
        packet.write() for packet in rest
    ]


@given(st.integers(1, 5000), st.integers(1, 64))
def test_the_limit_counts_whole_packets(size: int, piece: int) -> None:
    """A packet of the limit passes, of one a byte larger the head does, in whatever pieces it comes."""
    packet = mqtt5.PublishPacket("t", bytes(size), qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=5).write()
    pieces = [(packet * 2)[at : at + piece] for at in range(0, 2 * len(packet), piece)]
    whole = _cut_all(PacketReader(len(packet)), pieces)
    assert [fault(message) for message in whole] == [None, None]
    heads = _cut_all(PacketReader(len(packet) - 1), pieces)
    assert [found.reason for message in heads if (found := fault(message))] == [Reason.TOO_LARGE] * 2
    assert [(head.topic, head.packet_id, head.payload) for head in heads] == [("t", 5, bytes(size))] * 2


def _cut_all(frames: PacketReader, pieces: list[bytes]) -> list[Message]:
    return [message for piece in pieces for message in frames.feed(piece).messages]


def test_a_giant_is_skipped_as_it_comes() -> None:
    """Memory is never spent on more than its head, and the packet after it is read."""
    frames, after = PacketReader(2000), mqtt5.PublishPacket("t", b"after").write()
    frames.feed(b"\x32\x80\x80\x80\x05\x00\x01t\x00\x05\x00")  # 10 MiB
    tracemalloc.start()
    try:
        for _ in range(159):
            assert frames.feed(bytes(65_536)).messages == []
        (head, message) = frames.feed(bytes(65_536 - 6) + after).messages
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert 60_000 < len(head.payload) <= HEAD_BYTES
    assert (head.topic, head.packet_id, message.payload) == ("t", 5, b"after")


def test_only_a_publish_can_be_skipped() -> None:
    """Any other packet that is too large breaks the stream, before it comes."""
    with pytest.raises(BrokenStreamError) as caught:
        PacketReader(LARGEST).feed(b"\x90\xff\xff\xff\x7f")
    assert caught.value.code == mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE


PACKETS: list[Any] = [
    mqtt5.PublishPacket(
        "t/a/d", b"x", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=1, user_properties=[("k", "v")]
    ),
    mqtt5.PublishPacket("t", bytes(200), payload_format_indicator=1, content_type="text", response_topic="r"),
    mqtt5.PublishPacket("", b"x", topic_alias=3, subscription_ids=[1, 300], correlation_data=b"c"),
    mqtt5.ConnAckPacket(reason_str="why", server_keep_alive=5, user_properties=[("k", "v")]),
    mqtt5.SubAckPacket(1, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE], reason_str="why"),
    mqtt5.DisconnectPacket(reason_str="why", server_reference="elsewhere"),
    mqtt5.PingRespPacket(),
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of mqtt5's panics
@given(st.binary(max_size=40) | mutated([packet.write() for packet in PACKETS]), st.integers(1, 60))
def test_no_bytes_do_worse_than_break_the_stream(stream: bytes, piece: int) -> None:
    """Whatever comes is packets, the start of one, or a broken stream; no other error leaves the codec."""
    frames = PacketReader(150)
    with contextlib.suppress(BrokenStreamError):
        for at in range(0, len(stream), piece):
            for message in frames.feed(stream[at : at + piece]).messages:
                assert message.topic.encode().decode() == message.topic, "fit for ledger, spool and database"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(st.binary(max_size=100), st.integers(0, 3))
def test_a_publish_of_any_body_costs_itself_only(body: bytes, flags: int) -> None:
    """Its length is right, so the next one is read; its bytes are kept, unless it is one of an alias."""
    after = mqtt5.PublishPacket("t", b"after").write()
    try:
        found = PacketReader(LARGEST).feed(bytes((0x30 | flags, len(body))) + body + after)
    except BrokenStreamError as error:
        assume(error.code is not mqtt5.DisconnectReasonCode.TOPIC_ALIAS_INVALID)
        raise
    assert len(found.messages) == len(found.packet_ids) == 2
    assert found.messages[1].payload == b"after"
    assert body.endswith(found.messages[0].payload)


@pytest.mark.parametrize("piece", [1, 2, 3, 200])
def test_a_length_that_is_not_written_as_it_should_be(piece: int) -> None:
    """It breaks nothing, in whatever pieces the packet comes: its message is told, and the next one is read."""
    body = b"\x00\x01tpayload"
    stream = bytes((0x30, 0x80 | len(body), 0)) + body + mqtt5.PublishPacket("t", b"after").write()
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    (odd, after) = _cut_all(PacketReader(LARGEST), pieces)
    assert fault(odd) is not None
    assert after.payload == b"after"


@pytest.mark.parametrize("topic", ["t", "t" * 200, "t" * 65_000])
@pytest.mark.parametrize("properties", [0, 1, 40, 100, 190_000])
@pytest.mark.parametrize("piece", [1000, 2**18])
def test_topics_and_properties_without_end(topic: str, properties: int, piece: int) -> None:
    """Beyond the bounds it is refused, with what was wrong; nothing is made of properties that nobody counts."""
    frames = PacketReader(LARGEST, longest_topic=200, most_properties=500)
    packet = mqtt5.PublishPacket(
        topic, b"payload", qos=mqtt5.QoS(1), packet_id=7, user_properties=[("", "")] * properties
    ).write()
    after = mqtt5.PublishPacket("t", b"after").write()
    stream = packet + after
    tracemalloc.start()
    pieces = (stream[start : start + piece] for start in range(0, len(stream), piece))
    found = [message for part in pieces for message in frames.feed(part).messages]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [message.payload for message in found] == [b"payload", b"after"]
    first = found[0]
    assert first.packet_id == 7
    assert first.topic == topic if len(topic) <= 200 else is_cut(first.topic)
    assert len(first.topic) < 300
    wrong = fault(first)
    assert (wrong is not None) == (len(topic) > 200 or properties > 100)
    if wrong is not None:
        assert wrong.reason is Reason.TOO_LARGE
        assert ("mqtt.max_topic_bytes" if len(topic) > 200 else "mqtt.max_property_bytes") in wrong.detail
    assert peak < 8 * 2**20
