"""What a broker may send, of whatever bytes: the message ends, is acknowledged, and the rest goes on.

A scripted broker stands in; mosquitto where it can be made to.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import threading
from collections.abc import Callable

import mqtt5
import pytest

from gateway import unreadable
from gateway.errors import MessageError
from gateway.messages import Message
from gateway.observability.health import ComponentState
from gateway.outcomes import Reason
from gateway.settings import StreamSettings
from tests.contracts.conftest import Options
from tests.contracts.test_sources_protocol import STREAM, farewell, panics, publication, v5
from tests.support.fake_broker import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    SUBSCRIBE,
    ClientGoneError,
    Peer,
    fake_broker,
    granted,
    is_mqtt_5,
)
from tests.support.reception import publish, receiving
from tests.support.servers import Mosquitto
from tests.support.waiting import eventually_async
from tests.support.wire import Wire

ALIAS_INVALID = 0x94


def packet(flags: int, body: bytes) -> bytes:
    """A PUBLISH of these flags and this body, short."""
    assert len(body) < 128
    return bytes((0x30 | flags, len(body))) + body


def body(topic: bytes, packet_id: int, rest: bytes) -> bytes:
    """Topic, packet id, and what follows."""
    return len(topic).to_bytes(2) + topic + packet_id.to_bytes(2) + rest


MALFORMED = {
    "topic: no UTF-8": (body(b"t/a/\xff\xfe", 7, b"\0x"), ("t/a/\\xff\\xfe", b"x")),
    "topic: a surrogate": (body(b"t/a/\xed\xa0\x80", 7, b"\0x"), ("t/a/\\xed\\xa0\\x80", b"x")),
    "topic: overlong NUL": (body(b"t/a/\xc0\x80", 7, b"\0x"), ("t/a/\\xc0\\x80", b"x")),
    "user property: no UTF-8": (body(b"t/a/d", 7, b"\x07\x26\0\1k\0\1\xffx"), ("t/a/d", b"x")),
    "content type: no UTF-8": (body(b"t/a/d", 7, b"\x04\x03\0\1\xffx"), ("t/a/d", b"x")),
    "property: unknown": (body(b"t/a/d", 7, b"\x02\x7f\0x"), ("t/a/d", b"x")),
    "property: twice": (body(b"t/a/d", 7, b"\x04\x01\1\x01\1x"), ("t/a/d", b"x")),
    "property: alias 0": (body(b"t/a/d", 7, b"\x03\x23\0\0x"), ("t/a/d", b"x")),
    "property: subscription 0": (body(b"t/a/d", 7, b"\x02\x0b\0x"), ("t/a/d", b"x")),
    "properties: longer than the packet": (body(b"t/a/d", 7, b"\x70\x01x"), ("t/a/d", b"\x70\x01x")),
    "properties: no length": (body(b"t/a/d", 7, b""), ("t/a/d", b"")),
    "properties: endless length": (body(b"t/a/d", 7, b"\xff\xff\xff\xffx"), ("t/a/d", b"\xff\xff\xff\xffx")),
}


class Story:
    """A broker that redelivers what is not acknowledged, as brokers do: one strange packet among good ones."""

    def __init__(self, strange: bytes, piece: int = 1 << 20) -> None:
        self.strange, self._piece = strange, piece
        self.acked: set[int] = set()

    async def __call__(self, peer: Peer) -> None:
        """The script."""
        await greet(peer)
        left = [(1, good(peer, 1)), (7, self.strange), (2, good(peer, 2))]
        for packet_id, raw in left:
            if packet_id not in self.acked:
                await peer.say_slowly(raw, self._piece)
        while (frame := await peer.hear()) is not None and frame.type != DISCONNECT:
            if frame.type == PUBACK:
                self.acked.add(int.from_bytes(frame.body[:2]))
            if frame.type == PINGREQ:
                peer.say(b"\xd0\x00")


async def greet(peer: Peer) -> None:
    """Accept, in either version."""
    connect = await peer.until(CONNECT)
    if is_mqtt_5(connect):
        peer.say(mqtt5.ConnAckPacket(session_present=peer.number > 0))
        peer.say(granted(await peer.until(SUBSCRIBE)))
    else:
        peer.say(bytes((0x20, 2, peer.number > 0, 0)))
        subscribe = await peer.until(SUBSCRIBE)
        peer.say(b"\x90\x03" + subscribe.body[:2] + b"\x01")


def good(peer: Peer, packet_id: int) -> bytes:
    """A message that nothing is wrong with, in the version of the connection."""
    properties = b"\0" if is_mqtt_5(peer.said[0]) else b""
    return packet(2, body(b"t/a/d", packet_id, properties + b"good"))


def faults(messages: list[Message]) -> list[MessageError]:
    """What was wrong, of all with which something was."""
    return [fault for message in messages if (fault := unreadable.fault(message))]


@panics
@pytest.mark.parametrize(("strange", "kept"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_message_is_handed_on_and_acknowledged(
    strange: bytes, kept: tuple[str, bytes]
) -> None:
    """MQTT 5: one connection, the good messages around it in their order, the bytes kept, and its ack leaves."""
    story = Story(packet(2, strange))
    async with (
        fake_broker(story) as broker,
        receiving(v5(broker.port), STREAM, settle=True) as reception,
    ):
        messages = await reception.messages(3)
        await eventually_async(lambda: story.acked == {1, 2, 7})
        assert len(broker.peers) == 1
    assert (messages[1].topic, messages[1].payload) == kept
    assert messages[1].retain, "or the path would not look at what is wrong"
    assert [fault.reason for fault in faults(messages)] == [Reason.BAD_PACKET]
    assert [message.payload for message in messages[::2]] == [b"good", b"good"]


@panics
@pytest.mark.parametrize(
    ("strange", "topic"),
    [
        (packet(2, body(b"t/a/\xff", 7, b"\0x")), "t/a/\\xff"),
        (packet(2, body(b"t/a/d\xed\xa0\x80", 7, b"\0x")), "t/a/d\\xed\\xa0\\x80"),
        (packet(0, b"\0\7t/a/\xff/d\0x"), "t/a/\\xff/d"),
        (packet(2, b"\0\x70t/a/d\0\7x"), ""),
        (packet(2, b"\0\5t/a/d\0"), ""),
        (packet(2, b"\0"), ""),
        (packet(0, b""), ""),
    ],
    ids=["no UTF-8", "a surrogate", "QoS 0", "too long", "no packet id", "one byte", "nothing"],
)
async def test_a_malformed_message_in_either_version(options: Options, strange: bytes, topic: str) -> None:
    """It costs itself only, and no connection; it is acknowledged where its packet id can be told."""
    story = Story(strange)
    async with (
        fake_broker(story) as broker,
        receiving(options(broker.port), STREAM, settle=True) as reception,
    ):
        messages = await reception.messages(3)
        await eventually_async(lambda: story.acked >= {1, 2} | ({7} if topic and strange[0] & 2 else set()))
        assert len(broker.peers) == 1
    assert messages[1].topic == topic
    assert [fault.reason for fault in faults(messages)] == [Reason.BAD_PACKET]
    assert [message.payload for message in messages[::2]] == [b"good", b"good"]


async def test_topics_that_only_postgresql_cannot_hold(options: Options) -> None:
    """U+0000 is UTF-8: such a message comes as it is, and the path decides."""
    story = Story(packet(2, body(b"t/a\0/d", 7, b"\0{}")))
    async with (
        fake_broker(story) as broker,
        receiving(options(broker.port), STREAM, settle=True) as reception,
    ):
        messages = await reception.messages(3)
        await eventually_async(lambda: story.acked == {1, 2, 7})
    assert messages[1].topic == "t/a\0/d"


@pytest.mark.parametrize("piece", [997, 1 << 20])
async def test_a_packet_that_is_too_large_is_skipped(piece: int) -> None:
    """However it comes: its head is handed on, it is acknowledged, and what follows is read, by the same connection."""
    payload = bytes(range(256)) * 4000
    giant = mqtt5.PublishPacket("t/a/d", payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=7).write()
    story = Story(giant, piece)
    async with (
        fake_broker(story) as broker,
        receiving(v5(broker.port, max_packet_bytes=5000), STREAM, settle=True) as reception,
    ):
        messages = await reception.messages(3)
        await eventually_async(lambda: story.acked == {1, 2, 7})
        assert len(broker.peers) == 1
    assert messages[1].topic == "t/a/d"
    assert payload.startswith(messages[1].payload)
    assert len(messages[1].payload) > 60_000
    (fault,) = faults(messages)
    assert fault.reason is Reason.TOO_LARGE
    assert f"a packet of {len(giant)} bytes" in fault.detail


@pytest.mark.mosquitto
async def test_the_byte_too_much_that_mosquitto_lets_through(mosquitto_broker: Mosquitto) -> None:
    """Mosquitto 2.0 counts a packet of max_packet_bytes + 1 as small enough, and redelivers it at every connection."""
    topic = f"t/{secrets.token_hex(4)}/d"
    mqtt = v5(mosquitto_broker.port, client_id=secrets.token_hex(8), max_packet_bytes=2000)
    stream = StreamSettings(name="telemetry", topic=topic, tenant="acme")
    size = 2000 + 1 - len(publication(0, b"", topic)) - 1  # a length of two bytes
    async with receiving(mqtt, stream, settle=True) as reception:
        await reception.ready()
        await asyncio.to_thread(publish, mosquitto_broker.port, topic, [b"before", bytes(size), b"after"])
        messages = await reception.messages(3)
        await reception.ready()
    assert [len(message.payload) for message in messages] == [6, size, 5]
    assert [fault.reason for fault in faults(messages)] == [Reason.TOO_LARGE]


@pytest.mark.parametrize("topic", ["", "t/a/d"])
async def test_a_topic_alias_that_we_did_not_allow(topic: str) -> None:
    """The connection ends with 0x94 and the text says what to set; no message of topic '' reaches the path."""
    aliased = mqtt5.PublishPacket(topic, b"x", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=7, topic_alias=3)

    async def script(peer: Peer) -> None:
        await peer.accept()
        peer.say(aliased)
        await peer.until_closed()

    async with fake_broker(script) as broker, receiving(v5(broker.port), STREAM, settle=True) as reception:
        await reception.state(ComponentState.FAILED, "a topic alias, which we did not allow")
        await broker.connections(2)
        assert farewell(broker.peers[0]) == ALIAS_INVALID
        assert all(message.topic for _, message in reception.received)


async def test_what_came_before_a_broken_stream_is_acknowledged(options: Options) -> None:
    """Or a broker that redelivers it all in one segment would never get past the break."""
    story = Story(b"\x30\xff\xff\xff\xff\x7f")

    async with (
        fake_broker(story) as broker,
        receiving(options(broker.port), STREAM, settle=True) as reception,
    ):
        await reception.messages(1)
        await eventually_async(lambda: 1 in story.acked)
        await broker.connections(2)


# endings ---------------------------------------------------------------------------------------------


def _goodbye(peer: Peer) -> bytes:
    return b"\xe0\x01\x8e" if is_mqtt_5(peer.said[0]) else b""


ENDINGS: dict[str, Callable[[Peer], bytes]] = {
    "closed": lambda _peer: b"",
    "with a reason": _goodbye,
    "in the middle of a packet": lambda _peer: b"\x32\x40\0\5t/a",
    "with messages": lambda peer: good(peer, 1),
    "with messages and a reason": lambda peer: good(peer, 1) + _goodbye(peer),
}


PLACES = ("before CONNACK", "with CONNACK", "before SUBACK", "with SUBACK", "after")


async def test_wherever_a_connection_ends_the_source_makes_another(options: Options) -> None:
    """run() never ends by what the broker does: by FIN or RST, with or without a reason, at any place."""
    cases = list(itertools.product(ENDINGS.values(), PLACES, (False, True)))

    async def script(peer: Peer) -> None:
        if peer.number >= len(cases):
            await greet(peer)
            await peer.until_closed()
            return
        ending, place, reset = cases[peer.number]
        with contextlib.suppress(ClientGoneError):
            peer.say(await _last_words(peer, ending, place))
        if reset:
            peer.reset()

    async with fake_broker(script) as broker:
        mqtt = options(broker.port, refused_retry=0.002, reconnect_min=0.001, reconnect_max=0.002)
        async with receiving(mqtt, STREAM, settle=True) as reception:
            await broker.connections(len(cases) + 1, timeout=60)
            await reception.ready()


async def _last_words(peer: Peer, ending: Callable[[Peer], bytes], place: str) -> bytes:
    """Say all before this place; what comes in the last write."""
    connect = await peer.until(CONNECT)
    if place == "before CONNACK":
        return b""
    connack = mqtt5.ConnAckPacket().write() if is_mqtt_5(connect) else b"\x20\x02\0\0"
    if place == "with CONNACK":
        return connack + ending(peer)
    peer.say(connack)
    subscribe = await peer.until(SUBSCRIBE)
    suback = granted(subscribe).write() if is_mqtt_5(connect) else b"\x90\x03" + subscribe.body[:2] + b"\1"
    if place == "after":
        peer.say(suback)
        await asyncio.sleep(0.01)
    return (suback if place == "with SUBACK" else b"") + ending(peer)


@pytest.mark.mosquitto
async def test_our_client_id_is_taken_over_at_once(mosquitto_broker: Mosquitto, options: Options) -> None:
    """Another client that connects again and again with our id: thrown out at any moment, we come back each time."""
    mqtt = options(mosquitto_broker.port, reconnect_min=0.001, reconnect_max=0.002, refused_retry=0.001)
    done = threading.Event()

    def intrude() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                Wire(mosquitto_broker.port, client_id=mqtt.client_id, clean_start=False).socket.close()

    async with receiving(mqtt, STREAM, settle=True) as reception:
        intruding = asyncio.create_task(asyncio.to_thread(intrude))
        await asyncio.sleep(2)
        done.set()
        await intruding
        await reception.ready()
