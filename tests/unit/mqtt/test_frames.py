"""Packets out of a byte stream."""

from __future__ import annotations

import contextlib

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mqtt.frames import BrokenStreamError, Frames

LARGEST = 2**20

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
    frames = Frames(LARGEST)
    messages, packet_ids, rest = [], [], []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found = frames.cut(stream[start:stop])
        messages += found.messages
        packet_ids += found.packet_ids
        rest += found.others
    expected = [packet for packet in packets if isinstance(packet, mqtt5.PublishPacket)]
    assert [packet.write() for packet in expected] == [packet.write() for packet in messages]
    assert [packet.packet_id or 0 for packet in expected] == packet_ids
    assert [packet.write() for packet in packets if packet not in expected] == [
        packet.write() for packet in rest
    ]


@given(st.integers(1, 5000), st.integers(1, 64))
def test_the_limit_counts_whole_packets(size: int, piece: int) -> None:
    """A packet of the limit passes, a byte more does not, in whatever pieces it comes."""
    packet = mqtt5.PublishPacket("t", bytes(size)).write()
    pieces = [packet[at : at + piece] for at in range(0, len(packet), piece)]
    assert _cut_all(Frames(len(packet)), pieces) == 1
    with pytest.raises(BrokenStreamError) as caught:
        _cut_all(Frames(len(packet) - 1), pieces)
    assert caught.value.code == mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE


def _cut_all(frames: Frames, pieces: list[bytes]) -> int:
    return sum(len(frames.cut(piece).messages) for piece in pieces)


def test_an_announced_giant_is_refused_before_it_comes() -> None:
    """The header is enough: memory is never spent on what will be refused."""
    with pytest.raises(BrokenStreamError):
        Frames(LARGEST).cut(b"\x30\xff\xff\xff\x7f")


@given(st.binary(max_size=40))
def test_no_bytes_do_worse_than_break_the_stream(stream: bytes) -> None:
    """Whatever comes is packets, the start of one, or a broken stream; no other error leaves the codec."""
    with contextlib.suppress(BrokenStreamError):
        Frames(LARGEST).cut(_without_text(stream))


def _without_text(stream: bytes) -> bytes:
    """Bytes that are all UTF-8: for others mqtt5 0.8.0 panics, which the contract suite has a test of."""
    return bytes(byte & 0x7F for byte in stream)
