"""Messages at QoS 2: of a subscription that another program left in our session. They end no connection."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

import mqtt5
import pytest
from paho.mqtt.publish import multiple
from structlog.testing import capture_logs

from gateway import unreadable
from gateway.messages import Message
from gateway.outcomes import Reason
from gateway.settings import StreamSettings
from tests.contracts.conftest import Options
from tests.contracts.test_sources_hostile import body, good, greet, packet
from tests.contracts.test_sources_protocol import STREAM, panics
from tests.support.fake_broker import PINGREQ, PUBACK, Peer, fake_broker, proxy_to
from tests.support.reception import numbered, publish, receiving
from tests.support.servers import Mosquitto
from tests.support.waiting import eventually_async
from tests.support.wire import Wire

QOS_2 = mqtt5.QoS.EXACTLY_ONCE
PUBREC, PUBCOMP = 5, 7
ACKS = PUBACK, PUBREC, PUBCOMP


def leave_subscription(port: int, client_id: str, topic_filter: str) -> None:
    """As another program under this client id does."""
    with Wire(port, client_id=client_id, clean_start=False, session_expiry=3600) as wire:
        wire.send(mqtt5.SubscribePacket(1, [mqtt5.TopicFilter(topic_filter, max_qos=QOS_2)]))
        assert isinstance(wire.receive(), mqtt5.SubAckPacket)


def publish_at_qos_2(port: int, topic: str, payloads: list[bytes]) -> None:
    """As another program publishes. Blocks."""
    multiple([(topic, payload, 2, False) for payload in payloads], port=port)


@pytest.mark.mosquitto
async def test_a_foreign_subscription(mosquitto_broker: Mosquitto, options: Options) -> None:
    """Its messages are taken, acknowledged when they are settled and not before, and told of once; ours go on."""
    site = f"site-{secrets.token_hex(6)}"
    port, stream = (
        mosquitto_broker.port,
        StreamSettings(name="telemetry", topic=f"{site}/{{tenant}}/{{device}}"),
    )
    async with proxy_to(port) as proxy:
        asked = options(proxy.port)
        await asyncio.to_thread(leave_subscription, port, asked.client_id, f"foreign-{site}/#")
        with capture_logs() as logs:
            async with receiving(asked, stream) as reception:
                await reception.ready()
                topic = f"foreign-{site}/a/d"
                await asyncio.to_thread(publish_at_qos_2, port, topic, numbered(5))
                await asyncio.to_thread(publish, port, f"{site}/a/d", numbered(5))
                await reception.messages(10)
                (recording,) = proxy.recordings
                assert [recording.count(kind) for kind in ACKS] == [0, 0, 0]
                reception.settle_all()
                await eventually_async(lambda: [recording.count(kind) for kind in ACKS] == [5, 5, 5])
                await asyncio.to_thread(publish_at_qos_2, port, topic, numbered(5))
                await reception.messages(15)
                assert len(proxy.recordings) == 1
    told = [one for one in logs if one["event"] == "mqtt foreign subscription"]
    assert [(one["client_id"], one["topic"]) for one in told] == [(asked.client_id, topic)]


async def test_acknowledgements_keep_their_order(options: Options) -> None:
    """PUBREC stands where PUBACK would: what is settled earlier waits for it, and it for what came earlier."""

    async def script(peer: Peer) -> None:
        await greet(peer)
        peer.say(good(peer, 1), at_qos_2(good(peer, 7)), good(peer, 2))
        await until(peer, 3)

    async with fake_broker(script) as broker, receiving(options(broker.port), STREAM) as reception:
        await reception.messages(3)
        reception.source.settle([1])
        reception.source.settle([2])
        reception.source.settle([0])
        await eventually_async(lambda: len(acks(broker.peers[0])) == 3)
        assert acks(broker.peers[0]) == [(PUBACK, 1), (PUBREC, 7), (PUBACK, 2)]


async def test_a_release_on_the_next_connection(options: Options) -> None:
    """The broker has read PUBREC when the connection breaks: it releases in the next one, and is answered."""

    async def script(peer: Peer) -> None:
        await greet(peer)
        if peer.number == 0:
            peer.say(at_qos_2(good(peer, 7)))
            await until(peer, 1)
        else:
            peer.say(b"\x62\x02\x00\x07")
            await until(peer, 1)

    async with (
        fake_broker(script) as broker,
        receiving(options(broker.port), STREAM, settle=True) as reception,
    ):
        await broker.connections(2)
        await eventually_async(lambda: acks(broker.peers[1]) == [(PUBCOMP, 7)])
        assert len(reception.received) == 1


@panics
async def test_a_malformed_message(options: Options) -> None:
    """It becomes a dead letter, and is acknowledged."""

    async def script(peer: Peer) -> None:
        await greet(peer)
        peer.say(packet(4, body(b"t/a/\xff", 7, b"\0x")), good(peer, 2))
        await until(peer, 2)

    async with (
        fake_broker(script) as broker,
        receiving(options(broker.port), STREAM, settle=True) as reception,
    ):
        await eventually_async(lambda: bool(broker.peers) and len(acks(broker.peers[0])) == 2)
        assert acks(broker.peers[0]) == [(PUBREC, 7), (PUBACK, 2)]
    assert reasons(message for _, message in reception.received) == [Reason.BAD_PACKET, None]


def at_qos_2(publish: bytes) -> bytes:
    """The same packet at QoS 2."""
    return bytes([publish[0] & 0xF9 | 0x04]) + publish[1:]


async def until(peer: Peer, count: int) -> None:
    """Wait for so many acknowledgements."""
    while len(acks(peer)) < count and (frame := await peer.hear()) is not None:
        if frame.type == PINGREQ:
            peer.say(b"\xd0\x00")


def acks(peer: Peer) -> list[tuple[int, int]]:
    """Type and packet id of all that were heard."""
    return [(frame.type, int.from_bytes(frame.body[:2])) for frame in peer.said if frame.type in ACKS]


def reasons(messages: Iterable[Message]) -> list[Reason | None]:
    """What was wrong with each."""
    faults = [unreadable.fault(message) for message in messages]
    return [fault.reason if fault else None for fault in faults]
