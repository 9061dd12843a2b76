"""What sources do when a broker says what no good broker would say, or says it strangely cut.

A scripted broker stands in: no real one can be made to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import mqtt5
import pytest

from gateway.mqtt import try_broker
from gateway.mqtt.connection import Connection, Receiver
from gateway.mqtt.v5 import V5Connection
from gateway.observability.health import ComponentState
from gateway.settings import MqttSettings, StreamSettings
from tests.contracts.conftest import Options
from tests.support.fake_broker import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    SUBSCRIBE,
    Peer,
    Script,
    fake_broker,
    granted,
    is_mqtt_5,
)
from tests.support.reception import Reception, numbered, receiving
from tests.support.waiting import eventually_async, free_port

STREAM = StreamSettings(name="telemetry", topic="t/{tenant}/{device}")
MALFORMED, PROTOCOL_ERROR, TOO_LARGE = 0x81, 0x82, 0x95


def v5(port: int, **more: Any) -> MqttSettings:
    """An impatient source on MQTT 5."""
    usual = {
        "port": port,
        "client_id": "v5",
        "protocol": "5",
        "reconnect_min": 0.01,
        "reconnect_max": 0.02,
        "refused_retry": 0.05,
        "connect_timeout": 5,
    }
    return MqttSettings(**{**usual, **more})


def publication(at: int, payload: bytes, topic: str = "t/a/d") -> bytes:
    """A PUBLISH at QoS 1."""
    return mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=at % 65_535 + 1).write()


def says(*packets: mqtt5.Packet | bytes) -> Callable[[Peer], Awaitable[None]]:
    """A script: accept, say this on the first connection, and wait for the client to leave."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        if peer.number == 0:
            peer.say(*packets)
        await peer.until_closed()

    return script


def farewell(peer: Peer) -> int | None:
    """The reason code of the client's DISCONNECT; None: it said none."""
    for frame in peer.said:
        if frame.type == DISCONNECT:
            return frame.body[0] if frame.body else 0
    return None


# how the stream is cut -----------------------------------------------------------------------


async def test_one_byte_at_a_time() -> None:
    """Packets are put together however TCP cuts them."""

    async def script(peer: Peer) -> None:
        await peer.until(CONNECT)
        await peer.say_slowly(mqtt5.ConnAckPacket().write())
        await peer.say_slowly(granted(await peer.until(SUBSCRIBE)).write())
        stream = b"".join(publication(at, payload) for at, payload in enumerate(numbered(30)))
        await peer.say_slowly(stream)
        await peer.until_closed()

    async with fake_broker(script) as broker, receiving(v5(broker.port), STREAM) as reception:
        await reception.messages(30)
    assert numbered(30) == reception.payloads


async def test_ten_thousand_messages_in_one_write() -> None:
    """Few deliveries, and everything in them."""
    stream = b"".join(publication(at, payload) for at, payload in enumerate(numbered(10_000)))
    async with fake_broker(says(stream)) as broker, receiving(v5(broker.port), STREAM) as reception:
        await reception.messages(10_000)
        assert len(reception.deliveries) < 100
    assert numbered(10_000) == reception.payloads


async def test_connack_and_messages_in_one_segment() -> None:
    """A resumed session starts at once: the first delivery knows that it is resumed."""

    async def script(peer: Peer) -> None:
        await peer.until(CONNECT)
        peer.say(mqtt5.ConnAckPacket(session_present=True), publication(0, b"x"))
        peer.say(granted(await peer.until(SUBSCRIBE)))
        await peer.until_closed()

    async with fake_broker(script) as broker, receiving(v5(broker.port), STREAM) as reception:
        await reception.messages(1)
        assert reception.deliveries[0].resumed


async def test_a_large_payload_in_small_pieces() -> None:
    """5 MB in 4 KB reads: the cost of putting it together is linear, or this takes minutes."""
    payload = bytes(range(256)) * 20_000

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.say_slowly(publication(0, payload), piece=4096)
        await peer.until_closed()

    async with fake_broker(script) as broker, receiving(v5(broker.port), STREAM) as reception:
        await reception.messages(1)
    assert [payload] == reception.payloads


# what is no MQTT -------------------------------------------------------------------------------

BROKEN = {
    "type 0": (b"\x00\x00", MALFORMED),
    "length of five bytes": (b"\x30\xff\xff\xff\xff\x7f", MALFORMED),
    "QoS 3": (b"\x36" + publication(0, b"x")[1:], MALFORMED),
    "larger than allowed": (b"\x90\xff\xff\xff\x7f" + bytes(100), TOO_LARGE),
    "unknown reason code": (b"\xe0\x01\x55", MALFORMED),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n" + b"X-Padding: yes\r\n" * 9, None),
}


# mqtt5 0.8.0 panics on text that is not UTF-8, and leaves an error behind that nobody can take
panics = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@panics
@pytest.mark.parametrize(("stream", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_no_mqtt_ends_the_connection(stream: bytes, code: int | None) -> None:
    """The broker is told why, nothing is yielded, and the source comes back."""
    async with fake_broker(says(stream)) as broker, receiving(v5(broker.port), STREAM) as reception:
        await broker.connections(2)
        await reception.ready()
        assert reception.received == []
        assert code in (None, farewell(broker.peers[0]))


UNEXPECTED = [
    mqtt5.ConnectPacket("x"),
    mqtt5.ConnAckPacket(),
    mqtt5.PubAckPacket(1),
    mqtt5.PubRecPacket(1),
    mqtt5.PubCompPacket(1),
    mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("#")]),
    mqtt5.SubAckPacket(7, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]),
    mqtt5.UnsubscribePacket(1, ["#"]),
    mqtt5.UnsubAckPacket(1, [mqtt5.UnsubAckReasonCode.SUCCESS]),
    mqtt5.PingReqPacket(),
    mqtt5.AuthPacket(),
]


@pytest.mark.parametrize("packet", UNEXPECTED, ids=lambda packet: type(packet).__name__)
async def test_an_unexpected_packet_ends_the_connection(packet: mqtt5.Packet) -> None:
    """A packet that no broker may send now is a protocol error; the source comes back."""
    async with fake_broker(says(packet)) as broker, receiving(v5(broker.port), STREAM) as reception:
        await broker.connections(2)
        await reception.ready()
        assert farewell(broker.peers[0]) == PROTOCOL_ERROR


async def test_messages_before_connack() -> None:
    """Nobody may publish before it has introduced itself."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            peer.say(publication(0, b"x"))
            await peer.until_closed()
        else:
            await says()(peer)

    async with fake_broker(script) as broker, receiving(v5(broker.port), STREAM) as reception:
        await reception.ready()
        assert reception.received == []


# refusals and goodbyes ---------------------------------------------------------------------------

REFUSALS = [
    code for code in vars(mqtt5.ConnAckReasonCode).values() if isinstance(code, mqtt5.ConnAckReasonCode)
]
PASSING = ("UNSPECIFIED", "IMPLEMENTATION", "UNAVAILABLE", "BUSY", "QUOTA", "RATE")


@pytest.mark.parametrize("code", [code for code in REFUSALS if code.value], ids=lambda code: code.name)
async def test_every_refusal_is_told_and_tried_again(code: mqtt5.ConnAckReasonCode) -> None:
    """The name of the reason and the broker's own words; failed when somebody must act, else waiting."""

    async def script(peer: Peer) -> None:
        if peer.number < 2:
            await peer.until(CONNECT)
            peer.say(mqtt5.ConnAckPacket(reason_code=code, reason_str="because"))
            await peer.until_closed()
        else:
            await says()(peer)

    async with (
        fake_broker(script) as broker,
        receiving(v5(broker.port, reconnect_min=0.05), STREAM) as reception,
    ):
        passing = any(word in code.name for word in PASSING)
        detail = await reception.state(ComponentState.WAITING if passing else ComponentState.FAILED)
        if code is mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION:
            assert "mqtt.protocol" in detail
        else:
            assert f"{code.name.lower().replace('_', ' ')} (because)" in detail
        await reception.ready()


GOODBYES = [
    code for code in vars(mqtt5.DisconnectReasonCode).values() if isinstance(code, mqtt5.DisconnectReasonCode)
]
FINAL = ("NOT_AUTHORIZED", "SESSION_TAKEN_OVER", "USE_ANOTHER_SERVER", "SERVER_MOVED")


@pytest.mark.parametrize("code", GOODBYES, ids=lambda code: code.name)
async def test_every_goodbye_is_told_and_the_source_comes_back(code: mqtt5.DisconnectReasonCode) -> None:
    """DISCONNECT by the broker: its reason in the health, then another connection."""
    goodbye = mqtt5.DisconnectPacket(reason_code=code, reason_str="because")
    async with (
        fake_broker(says(goodbye)) as broker,
        receiving(v5(broker.port, reconnect_min=0.05), STREAM) as reception,
    ):
        state = ComponentState.FAILED if code.name in FINAL else ComponentState.WAITING
        await reception.state(state, f"{code.name.lower().replace('_', ' ')} (because)")
        await broker.connections(2)
        await reception.ready()


async def test_a_session_taken_over_says_by_whom() -> None:
    """Two gateways with one client id: the text says what to do."""
    goodbye = mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER)
    async with fake_broker(says(goodbye)) as broker, receiving(v5(broker.port), STREAM) as reception:
        await reception.state(ComponentState.FAILED, "another client uses our mqtt.client_id")


async def test_the_broker_hangs_up_in_the_middle_of_a_packet() -> None:
    """Half a packet is nothing."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        if peer.number == 0:
            peer.say(publication(0, b"whole"), publication(1, b"half")[:-3])
        else:
            await peer.until_closed()

    async with fake_broker(script) as broker, receiving(v5(broker.port), STREAM) as reception:
        await broker.connections(2)
        await reception.ready()
        assert reception.payloads == [b"whole"]


# what the broker demands -----------------------------------------------------------------------------


async def test_connect_asks_for_what_the_settings_say() -> None:
    """A persistent session, limits, no topic aliases; user and password as configured."""
    async with fake_broker(says()) as broker:
        mqtt = v5(
            broker.port,
            username="user",
            password="secret",
            keepalive=7,
            session_expiry="2h",
            receive_maximum=99,
            max_packet_bytes=5000,
        )
        async with receiving(mqtt, STREAM) as reception:
            await reception.ready()
        frame = broker.peers[0].said[0]
        raw = bytes([frame.type << 4 | frame.flags, len(frame.body)]) + frame.body
        connect, _ = mqtt5.read(memoryview(raw))
        assert isinstance(connect, mqtt5.ConnectPacket)
        assert (connect.client_id, connect.username, connect.password) == ("v5", "user", b"secret")
        assert (connect.clean_start, connect.keep_alive, connect.session_expiry_interval) == (False, 7, 7200)
        assert (connect.receive_max, connect.max_packet_size, connect.topic_alias_max) == (99, 5000, 0)
        assert connect.request_problem_info
        assert broker.peers[0].said[-1].body == b"", "a plain DISCONNECT leaves the session's expiry alone"


async def test_the_servers_keepalive_counts() -> None:
    """A broker may demand more frequent pings than configured."""

    async def script(peer: Peer) -> None:
        await peer.accept(mqtt5.ConnAckPacket(server_keep_alive=1))
        await peer.until(PINGREQ)
        await peer.until_closed()

    async with (
        fake_broker(script) as broker,
        receiving(v5(broker.port, keepalive=600), STREAM),
    ):
        await broker.connections(1)
        await eventually_async(lambda: any(frame.type == PINGREQ for frame in broker.peers[0].said))


LIMITS = {
    "no shared subscriptions": (mqtt5.ConnAckPacket(shared_subscription_available=False), "share_group"),
    "no wildcards": (mqtt5.ConnAckPacket(wildcard_subscription_available=False), "no wildcard subscriptions"),
    "small packets": (mqtt5.ConnAckPacket(max_packet_size=10), "accepts packets of 10 bytes"),
}


@pytest.mark.parametrize(("connack", "text"), LIMITS.values(), ids=LIMITS.keys())
async def test_what_the_broker_cannot_do_is_told(connack: mqtt5.ConnAckPacket, text: str) -> None:
    """The broker said so in CONNACK; asking all the same would end worse."""

    async def script(peer: Peer) -> None:
        await peer.until(CONNECT)
        peer.say(connack)
        await peer.until_closed()

    async with (
        fake_broker(script) as broker,
        receiving(v5(broker.port, share_group="group"), STREAM) as reception,
    ):
        await reception.state(ComponentState.FAILED, text)
        assert not any(frame.type == SUBSCRIBE for frame in broker.peers[0].said)


async def test_a_suback_that_answers_something_else() -> None:
    """A broken broker is left, and asked again."""

    async def script(peer: Peer) -> None:
        if peer.number:
            await says()(peer)
            return
        await peer.until(CONNECT)
        peer.say(mqtt5.ConnAckPacket())
        code = mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE
        peer.say(granted(await peer.until(SUBSCRIBE), code, code))
        await peer.until_closed()

    async with (
        fake_broker(script) as broker,
        receiving(v5(broker.port, reconnect_min=0.1), STREAM) as reception,
    ):
        await reception.state(ComponentState.WAITING, "SUBACK")
        await reception.ready()


async def test_a_downgrade_to_qos_0_is_told() -> None:
    """The promise does not hold at QoS 0, so a broker that grants no more leaves us unready."""

    async def script(peer: Peer) -> None:
        await peer.until(CONNECT)
        peer.say(mqtt5.ConnAckPacket())
        code = mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE
        peer.say(granted(await peer.until(SUBSCRIBE), code))
        await peer.until_closed()

    async with (
        fake_broker(script) as broker,
        receiving(v5(broker.port, refused_retry=60), STREAM) as reception,
    ):
        await reception.state(ComponentState.FAILED, "granted at QoS 0 only")


async def test_a_refused_subscription_is_asked_for_again() -> None:
    """Once the broker's rules are mended the stream comes to life, without a reconnect."""

    async def script(peer: Peer) -> None:
        await peer.until(CONNECT)
        peer.say(mqtt5.ConnAckPacket())
        peer.say(granted(await peer.until(SUBSCRIBE), mqtt5.SubAckReasonCode.NOT_AUTHORIZED))
        peer.say(granted(await peer.until(SUBSCRIBE)))
        await peer.until_closed()

    async with fake_broker(script) as broker, receiving(v5(broker.port), STREAM) as reception:
        await reception.state(ComponentState.FAILED, "t/+/+: not authorized")
        await reception.ready()
        assert len(broker.peers) == 1


# versions --------------------------------------------------------------------------------------------------


def speaks_3_only(refusal: bytes | None) -> Callable[[Peer], Awaitable[None]]:
    """A script: refuses MQTT 5 in this way (None: closes the connection; empty: says nothing), and speaks 3.1.1."""

    async def script(peer: Peer) -> None:
        connect = await peer.until(CONNECT)
        if is_mqtt_5(connect):
            if refusal is not None:
                peer.say(refusal)
            if refusal == b"":
                await peer.until_closed()
            return
        peer.say(b"\x20\x02\x00\x00")
        subscribe = await peer.until(SUBSCRIBE)
        peer.say(b"\x90\x03" + subscribe.body[:2] + b"\x01")
        peer.say(b"\x32\x0a\x00\x05t/a/d\x00\x01x")
        await peer.until_closed()

    return script


UNSUPPORTED = mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION).write()


@pytest.mark.parametrize(
    "refusal",
    [b"\x20\x02\x00\x01", UNSUPPORTED, None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    ids=["as MQTT 3", "as MQTT 5", "closed", "silent", "garbage"],
)
async def test_auto_comes_to_work_with_a_broker_of_mqtt_3(refusal: bytes | None) -> None:
    """Whatever it answers to a version that it does not know, 3.1.1 is tried next."""
    async with (
        fake_broker(speaks_3_only(refusal)) as broker,
        receiving(v5(broker.port, protocol="auto"), STREAM) as reception,
    ):
        await reception.messages(1)
        await reception.ready()
        assert len(broker.peers) == 2


async def test_auto_keeps_what_was_accepted() -> None:
    """A broker that was spoken to in MQTT 5 and hangs up is not asked for less."""

    async def script(peer: Peer) -> None:
        assert is_mqtt_5(await peer.until(CONNECT))
        if len(broker.peers) == 1:
            peer.say(mqtt5.ConnAckPacket())
            peer.say(granted(await peer.until(SUBSCRIBE)))

    async with fake_broker(script) as broker, receiving(v5(broker.port, protocol="auto"), STREAM):
        await broker.connections(4)
        assert all(is_mqtt_5(peer.said[0]) for peer in broker.peers if peer.said)


async def test_auto_says_what_the_broker_says() -> None:
    """A refusal in MQTT 5 is told, although the same broker does not understand the other version."""

    async def script(peer: Peer) -> None:
        if is_mqtt_5(await peer.until(CONNECT)):
            peer.say(mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD))

    async with (
        fake_broker(script) as broker,
        receiving(v5(broker.port, protocol="auto"), STREAM) as reception,
    ):
        await reception.state(ComponentState.FAILED, "bad user name or password")
        assert len(broker.peers) == 2


async def test_bulk_alone_says_what_to_set() -> None:
    """With protocol = '5' there is no falling back."""
    async with (
        fake_broker(speaks_3_only(b"\x20\x02\x00\x01")) as broker,
        receiving(v5(broker.port), STREAM) as reception,
    ):
        await reception.state(ComponentState.FAILED, "does not speak MQTT 5")


# both sources ---------------------------------------------------------------------------------------------------


async def _accept_any(peer: Peer) -> None:
    connect = await peer.until(CONNECT)
    if is_mqtt_5(connect):
        peer.say(mqtt5.ConnAckPacket())
        peer.say(granted(await peer.until(SUBSCRIBE)))
    else:
        peer.say(b"\x20\x02\x00\x00")
        subscribe = await peer.until(SUBSCRIBE)
        peer.say(b"\x90\x03" + subscribe.body[:2] + b"\x01")


@panics
@pytest.mark.parametrize("garbage", [b"\x00\x00", b"\xff" * 50])
async def test_garbage_never_ends_a_source(options: Options, garbage: bytes) -> None:
    """Whatever the broker says, the source is there again afterwards."""

    async def script(peer: Peer) -> None:
        await _accept_any(peer)
        if peer.number == 0:
            peer.say(garbage)
        await peer.until_closed()

    async with fake_broker(script) as broker, receiving(options(broker.port), STREAM) as reception:
        await broker.connections(2)
        await reception.ready()
        assert reception.received == []


async def test_a_broker_that_never_accepts_is_left(options: Options) -> None:
    """connect_timeout bounds the wait for CONNACK; then it is tried again."""

    async def script(peer: Peer) -> None:
        if peer.number:
            await _accept_any(peer)
        await peer.until_closed()

    async with (
        fake_broker(script) as broker,
        receiving(options(broker.port, connect_timeout=0.5), STREAM) as reception,
    ):
        await reception.state(ComponentState.WAITING, "does not answer within 0.5 s")
        await reception.ready()


async def test_a_broker_that_never_answers_subscribe_is_left(options: Options) -> None:
    """connect_timeout bounds the wait for SUBACK as well."""

    async def script(peer: Peer) -> None:
        if peer.number:
            await _accept_any(peer)
        else:
            connect = await peer.until(CONNECT)
            peer.say(mqtt5.ConnAckPacket() if is_mqtt_5(connect) else b"\x20\x02\x00\x00")
        await peer.until_closed()

    async with (
        fake_broker(script) as broker,
        receiving(options(broker.port, connect_timeout=0.5), STREAM) as reception,
    ):
        await reception.state(ComponentState.WAITING, "does not answer our SUBSCRIBE")
        await reception.ready()


async def test_close_does_not_wait_for_a_broker_that_hangs(options: Options) -> None:
    """A goodbye that nobody hears is not waited for longer than a few seconds."""
    silent = asyncio.Event()

    async def script(peer: Peer) -> None:
        await _accept_any(peer)
        await silent.wait()

    async with fake_broker(script) as broker:
        async with asyncio.timeout(15), receiving(options(broker.port), STREAM) as reception:
            await reception.ready()
        silent.set()


async def test_a_pause_before_suback_does_not_end_the_connection(options: Options) -> None:
    """A resumed session may fill the sink before SUBACK is read; that is no fault of the broker's."""

    async def script(peer: Peer) -> None:
        connect = await peer.until(CONNECT)
        five = is_mqtt_5(connect)
        peer.say(mqtt5.ConnAckPacket(session_present=True) if five else b"\x20\x02\x01\x00")
        peer.say(publication(0, b"x") if five else b"\x32\x0a\x00\x05t/a/d\x00\x01x")
        subscribe = await peer.until(SUBSCRIBE)
        await paused.wait()
        peer.say(granted(subscribe) if five else b"\x90\x03" + subscribe.body[:2] + b"\x01")
        await peer.until_closed()

    paused = asyncio.Event()
    async with fake_broker(script) as broker:
        async with receiving(options(broker.port, connect_timeout=0.3), STREAM) as reception:
            _pause_at_first_chunk(reception)
            await reception.messages(1)
            paused.set()
            await eventually_async(lambda: sum(f.type == PINGREQ for f in broker.peers[0].said) >= 1)
            assert ComponentState.STARTING is reception.health.state
            reception.source.resume()
            await reception.ready()
        assert len(broker.peers) == 1


async def test_a_suback_behind_a_backlog_is_waited_for(options: Options) -> None:
    """A resumed session sends its backlog before SUBACK; however long that takes, the broker is not to blame."""

    async def script(peer: Peer) -> None:
        connect = await peer.until(CONNECT)
        five = is_mqtt_5(connect)
        peer.say(mqtt5.ConnAckPacket(session_present=True) if five else b"\x20\x02\x01\x00")
        subscribe = await peer.until(SUBSCRIBE)
        for _ in range(12):
            peer.say(publication(0, b"x") if five else b"\x32\x0a\x00\x05t/a/d\x00\x01x")
            await asyncio.sleep(0.1)
        peer.say(granted(subscribe) if five else b"\x90\x03" + subscribe.body[:2] + b"\x01")
        await peer.until_closed()

    async with (
        fake_broker(script) as broker,
        receiving(options(broker.port, connect_timeout=0.4), STREAM) as reception,
    ):
        await reception.ready()
        assert len(broker.peers) == 1
        assert len(reception.received) == 12


def _pause_at_first_chunk(reception: Reception) -> None:
    take = reception.take

    def take_and_pause(delivery: Any) -> None:
        take(delivery)
        reception.source.pause()

    reception.take = take_and_pause  # type: ignore[method-assign]


# subscriptions --------------------------------------------------------------------------------------


def many(count: int) -> list[StreamSettings]:
    """So many streams, none of which overlap."""
    return [StreamSettings(name=f"s{at}", topic=f"t{at}/{{tenant}}/{{device}}") for at in range(count)]


def counting(counts: list[int], connack: mqtt5.ConnAckPacket | None = None) -> Script:
    """A script that notes how many filters each SUBSCRIBE has, and grants twenty."""

    async def script(peer: Peer) -> None:
        connect = await peer.until(CONNECT)
        five = is_mqtt_5(connect)
        peer.say(connack or mqtt5.ConnAckPacket() if five else b"\x20\x02\x00\x00")
        while sum(counts) < 20:
            subscribe = await peer.until(SUBSCRIBE)
            counts.append(subscribe.body.count(b"/+/+"))
            codes = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE] * counts[-1]
            body = subscribe.body[:2] + b"\x01" * counts[-1]
            peer.say(granted(subscribe, *codes) if five else bytes([0x90, len(body)]) + body)
        await peer.until_closed()

    return script


async def test_many_filters_are_asked_for_in_parts(options: Options) -> None:
    """Brokers that hang up on more than eight filters in one packet get no more."""
    counts: list[int] = []
    async with (
        fake_broker(counting(counts)) as broker,
        receiving(options(broker.port), *many(20)) as reception,
    ):
        await reception.ready()
    assert counts == [8, 8, 4]


async def test_a_trial_subscribes_as_the_daemon_does(options: Options) -> None:
    """In parts too; that its session ends at once is its own wish, and no fault of the broker."""
    counts: list[int] = []
    async with fake_broker(counting(counts)) as broker:
        assert (await try_broker(options(broker.port), many(20)))[1] == []
    assert counts == [8, 8, 4]


async def test_a_trial_tells_what_the_broker_takes_away() -> None:
    """The daemon would be unready by it."""
    less = mqtt5.ConnAckPacket(max_qos=mqtt5.QoS.AT_MOST_ONCE)
    async with fake_broker(counting([], less)) as broker:
        _, (problem,) = await try_broker(v5(broker.port), many(20))
    assert "QoS 0 only" in problem


async def test_a_broker_that_closes_at_subscribe_is_not_another_client(options: Options) -> None:
    """The text names what was asked for, where the client id has nothing to do with it."""

    async def script(peer: Peer) -> None:
        connect = await peer.until(CONNECT)
        peer.say(mqtt5.ConnAckPacket() if is_mqtt_5(connect) else b"\x20\x02\x00\x00")
        await peer.until(SUBSCRIBE)

    async with fake_broker(script) as broker, receiving(options(broker.port), STREAM) as reception:
        await reception.state(ComponentState.WAITING, "instead of answering our SUBSCRIBE")
        assert "t/+/+" in reception.health.detail
        assert "client_id" not in reception.health.detail


async def test_a_broker_that_closes_before_connack_is_not_another_client(options: Options) -> None:
    """The text names credentials, the version and TLS."""

    async def script(peer: Peer) -> None:
        await peer.until(CONNECT)

    async with fake_broker(script) as broker, receiving(options(broker.port), STREAM) as reception:
        await reception.state(ComponentState.WAITING, "before it accepted us")
        assert "client_id" not in reception.health.detail


async def test_a_packet_id_in_use_is_not_asked_for_again() -> None:
    """0x91 from a broker that takes our packet id for one of its own messages: another one, at once."""
    numbers: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.until(CONNECT)
        peer.say(mqtt5.ConnAckPacket())
        for _ in range(2):
            subscribe = await peer.until(SUBSCRIBE)
            numbers.append(int.from_bytes(subscribe.body[:2], "big"))
            peer.say(granted(subscribe, mqtt5.SubAckReasonCode.PACKET_ID_IN_USE))
        peer.say(granted(await peer.until(SUBSCRIBE)))
        await peer.until_closed()

    async with (
        fake_broker(script) as broker,
        receiving(v5(broker.port, refused_retry=30), STREAM) as reception,
    ):
        await reception.ready(timeout=5)
    assert len(set(numbers)) == 2


BROKEN_PROMISES = {
    "no session": (mqtt5.ConnAckPacket(session_expiry_interval=0), "keeps no session"),
    "no QoS 1": (mqtt5.ConnAckPacket(max_qos=mqtt5.QoS.AT_MOST_ONCE), "QoS 0 only"),
}


@pytest.mark.parametrize(("connack", "text"), BROKEN_PROMISES.values(), ids=BROKEN_PROMISES.keys())
async def test_a_broker_that_cannot_keep_the_promise_is_unready(
    connack: mqtt5.ConnAckPacket, text: str
) -> None:
    """Messages go on, and an operator learns that a crash would lose some."""

    async def script(peer: Peer) -> None:
        await peer.accept(connack)
        peer.say(publication(0, b"goes on"))
        await peer.until_closed()

    async with fake_broker(script) as broker, receiving(v5(broker.port), STREAM) as reception:
        await reception.state(ComponentState.FAILED, text)
        await reception.messages(1)


async def test_a_shortened_session_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The broker keeps the session for less than was asked: a warning, and ready."""

    async def script(peer: Peer) -> None:
        await peer.accept(mqtt5.ConnAckPacket(session_expiry_interval=300))
        await peer.until_closed()

    async with fake_broker(script) as broker, receiving(v5(broker.port), STREAM) as reception:
        await reception.ready()
    assert "mqtt session shortened" in capsys.readouterr().out


# versions -------------------------------------------------------------------------------------------


async def test_an_unacceptable_version_is_not_redialled_in_another(options: Options) -> None:
    """CONNACK code 1: paho must not come again on its own, in MQTT 3.1, whose CONNECT no broker of ours should see."""
    levels: list[int] = []

    async def script(peer: Peer) -> None:
        connect = await peer.until(CONNECT)
        levels.append(connect.body[2 + connect.body[1]])
        peer.say(b"\x20\x02\x00\x01")
        await peer.until_closed()

    async with (
        fake_broker(script) as broker,
        receiving(options(broker.port, protocol="3.1.1"), STREAM) as reception,
    ):
        await reception.state(ComponentState.FAILED, "does not speak this version")
        await broker.connections(2)
    assert set(levels) == {4}


async def test_a_broker_that_is_replaced_by_one_of_the_other_version() -> None:
    """``auto`` has accepted MQTT 5; the next broker at this address hangs up on it and speaks 3.1.1 only."""
    only_3 = False

    async def script(peer: Peer) -> None:
        nonlocal only_3
        connect = await peer.hear()
        assert connect is not None
        if is_mqtt_5(connect) and only_3:
            return
        peer.say(mqtt5.ConnAckPacket() if is_mqtt_5(connect) else b"\x20\x02\x00\x00")
        subscribe = await peer.until(SUBSCRIBE)
        five = granted(subscribe).write()
        peer.say(five if is_mqtt_5(connect) else b"\x90\x03" + subscribe.body[:2] + b"\x01")
        if not only_3:
            only_3 = True
            return
        await peer.until_closed()

    async with (
        fake_broker(script) as broker,
        receiving(v5(broker.port, protocol="auto"), STREAM) as reception,
    ):
        await broker.connections(7)
        await reception.ready()
        assert not is_mqtt_5(broker.peers[-1].said[0])


async def test_no_broker_is_no_reason_to_doubt_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing listens, ``auto`` goes on to try MQTT 5: a broker that comes up gets the newer version."""
    tried: list[int] = []

    def trying(level: int) -> Callable[[MqttSettings, Receiver], Connection]:
        def connect(mqtt: MqttSettings, receiver: Receiver) -> Connection:
            tried.append(level)
            return V5Connection(mqtt, receiver)

        return connect

    monkeypatch.setattr("gateway.mqtt.V5Connection", trying(5))
    monkeypatch.setattr("gateway.mqtt._v311", trying(4))
    async with receiving(v5(free_port(), protocol="auto"), STREAM) as reception:
        await eventually_async(lambda: len(tried) >= 10)
        await reception.state(ComponentState.WAITING, "nothing listens")
    assert set(tried) == {5}
