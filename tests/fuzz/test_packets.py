"""Bytes from a broker: MQTT 5 by the codec, MQTT 3.1.1 by paho."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import mqtt5
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.messages import Message
from gateway.mqtt.connection import ConnectionLostError
from gateway.mqtt.frames import BrokenStreamError, PacketReader
from gateway.mqtt.salvage import packet_bytes
from gateway.mqtt.v311 import V311Connection
from gateway.settings import MqttSettings
from tests.support.fuzzing import attempt, fuzzed, spoiled
from tests.unit.mqtt.test_frames import PACKETS

LIMIT = 5000
PAHO_BYTES = 2**14
"""At 3 µs a byte, with packets of two."""
PIECES = st.sampled_from([1, 2, 3, 7, 64, 1000, 65_536])
V5 = [packet.write() for packet in PACKETS] + [b"".join(packet.write() for packet in PACKETS)]
V311 = [
    b"\x20\x02\x00\x00", b"\x20\x02\x01\x00", b"\x20\x02\x00\x01", b"\x90\x03\x00\x01\x01", b"\xb0\x02\x00\x01",
    b"\xd0\x00", b"\x30\x05\x00\x01tab", b"\x32\x09\x00\x03t/a\x00\x01{}", b"\x3b\x07\x00\x01t\x00\x07hi",
    b"\x34\x07\x00\x01t\x00\x07hi", b"\x40\x02\x00\x01", b"\x62\x02\x00\x01", b"\xe0\x00",
]  # fmt: skip
V311.append(b"".join(V311))
TOKENS = [
    b"\0", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\xff\xff", b"\xc3\x28",
    b"\xed\xa0\x80", b"\x30", b"\x32\x80", b"\x3a", b"\x34", b"\x20", b"\x90", b"\xb0", b"\xe0", b"\xf0",
    b"\x26\0\x01k\0\x01v", b"\x26\0\0\0\0", b"\x23\0\x01", b"\x0b\x01", b"\x03\0\0", b"t/a/d",
]  # fmt: skip


def _read(stream: bytes, piece: int) -> tuple[list[Any], list[int], list[Any], str]:
    """Messages, ids and other packets that come of these bytes in pieces, and how they break, if they do."""
    frames = PacketReader(LIMIT)
    messages, ids, others, broken = [], [], [], ""
    for at in range(0, len(stream), piece):
        try:
            found = frames.feed(stream[at : at + piece])
        except BrokenStreamError as error:
            found, broken = error.before, str(error.code)
        messages += found.messages
        ids += found.packet_ids
        others += found.others
        if broken:
            break
    return messages, ids, others, broken


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of mqtt5's panics
@fuzzed
@given(spoiled(V5, TOKENS), PIECES)
def test_version_5(stream: bytes, piece: int) -> None:
    """Packets, the start of one, or a broken stream; the same in whatever pieces the bytes come."""
    whole = attempt("packets 5", lambda: _read(stream, len(stream) or 1))
    assert not isinstance(whole, Exception)
    pieces = _read(stream, piece) if len(stream) < LIMIT else whole
    _fit(whole[0])
    assert list(map(_as_bytes, whole[0])) == list(map(_as_bytes, pieces[0]))
    assert whole[1] == pieces[1]
    assert [packet.write() for packet in whole[2]] == [packet.write() for packet in pieces[2]]
    assert whole[3] == pieces[3]


def _as_bytes(message: Any) -> object:
    return message.write() if isinstance(message, mqtt5.PublishPacket) else message


def _fit(messages: Sequence[Message]) -> None:
    """Topics and properties are text that ledger, spool and database take."""
    for message in messages:
        texts = [message.topic, *(text for pair in message.user_properties for text in pair)]
        assert [text.encode().decode() for text in texts] == texts
        assert message.packet_id is None or 0 <= message.packet_id < 65_536


class Taken:
    """What a connection hands on."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ids: list[int] = []

    def take(self, messages: Sequence[Message], packet_ids: Sequence[int]) -> None:
        """One delivery."""
        self.messages += messages
        self.ids += packet_ids

    def connected(self, resumed: bool) -> None:
        """CONNACK."""

    def answered(self) -> None:
        """PINGRESP."""

    def pinged(self) -> None:
        """PINGREQ."""

    def idle(self) -> None:
        """Nothing is there."""


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs only while something is asked of it."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


async def _read_by_paho(stream: bytes, piece: int) -> tuple[list[Message], list[int], str]:
    """Messages and ids that come of these bytes in pieces, and how the connection ends, if it does."""
    taken = Taken()
    connection = V311Connection(MqttSettings(client_id="fuzz"), taken)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection._paho._sock = ours
        for at in range(0, len(stream), piece):
            if connection._broken or connection._ended.done():
                break
            theirs.sendall(stream[at : at + piece])
            connection._read()
            await asyncio.sleep(0)
        for _ in range(len(stream) // 1000):  # it reads 500 packets at once, of two bytes at least
            await asyncio.sleep(0)
        end = connection._broken or (str(connection._ended.result()) if connection._ended.done() else "")
        connection._end(ConnectionLostError("the end"))
        await asyncio.sleep(0)
    return taken.messages, taken.ids, end


@fuzzed
@given(stream=spoiled(V311, TOKENS).map(lambda stream: stream[:PAHO_BYTES]), piece=PIECES)
@example(stream=b"\xb0\xff\xff\xff\x7f" + bytes(50), piece=65_536)
def test_version_3(loop: asyncio.AbstractEventLoop, stream: bytes, piece: int) -> None:
    """Messages, or the end of the connection with a reason; the same in whatever pieces the bytes come."""

    def read(size: int) -> tuple[list[Message], list[int], str]:
        return loop.run_until_complete(_read_by_paho(stream, size))

    whole = attempt("packets 3.1.1", lambda: read(len(stream) or 1))
    assert not isinstance(whole, Exception)
    _fit(whole[0])
    if len(stream) < LIMIT and not _zero_for_a_packet(stream):
        assert whole == read(piece)


def _zero_for_a_packet(stream: bytes) -> bool:
    """Whether a zero stands where a packet should begin: a lone one paho overlooks, and reads on."""
    at = 0
    while at < len(stream) and stream[at]:
        at += packet_bytes(stream[at : at + 5]) or len(stream)
    return at < len(stream)
