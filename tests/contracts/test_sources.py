"""The contract of every source, on a real mosquitto: what the path relies on.

Promises about acknowledgements are read off the wire, by a proxy that records.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from gateway.observability.health import ComponentState
from gateway.settings import StreamSettings
from tests.contracts.conftest import Options
from tests.support.fake_broker import DISCONNECT, PINGREQ, BrokerProxy, Peer, fake_broker, proxy_to
from tests.support.reception import numbered, publish, receiving
from tests.support.servers import Mosquitto
from tests.support.sessions import MemoryStore
from tests.support.silent_address import resolve_to, silent
from tests.support.waiting import eventually_async
from tests.support.wire import Wire, left_in_session

pytestmark = pytest.mark.mosquitto


@pytest.fixture
def site() -> str:
    """A first topic level of this test's own."""
    return f"site-{secrets.token_hex(6)}"


@pytest.fixture
def stream(site: str) -> StreamSettings:
    """A stream of QoS 1 below the site."""
    return StreamSettings(name="telemetry", topic=f"{site}/{{tenant}}/{{device}}")


@pytest.fixture
def wide(start_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A mosquitto without a window of its own."""
    return start_mosquitto(max_inflight=0)


async def publish_to(broker: Mosquitto, topic: str, *payloads: bytes, **more: Any) -> None:
    """Publish without holding up the event loop."""
    await asyncio.to_thread(publish, broker.port, topic, payloads, **more)


# order, numbers, acknowledgements -----------------------------------------------------------


async def test_messages_come_in_order_with_numbers_without_gaps(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """Order of arrival is the broker's; delivery numbers count every message."""
    async with receiving(options(mosquitto_broker.port), stream, settle=True) as reception:
        await reception.ready()
        await publish_to(mosquitto_broker, f"{site}/acme/pump", *numbered(500))
        await reception.messages(500)
    assert numbered(500) == reception.payloads
    assert list(range(500)) == [number for number, _ in reception.received]
    assert {f"{site}/acme/pump"} == {message.topic for _, message in reception.received}


async def test_acks_leave_in_order_though_settled_at_random(
    wide: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """[MQTT-4.6.0-2], whatever number of COPY connections finish in whatever order."""
    async with proxy_to(wide.port) as proxy, receiving(options(proxy.port), stream) as reception:
        await reception.ready()
        await publish_to(wide, f"{site}/acme/pump", *numbered(300))
        await reception.messages(300)
        numbers = list(range(300))
        random.Random(4).shuffle(numbers)
        for at in range(0, 300, 7):
            reception.source.settle(numbers[at : at + 7])
            await asyncio.sleep(0)
        await eventually_async(lambda: len(proxy.recordings[0].acked()) == 300)
        assert proxy.recordings[0].delivered() == proxy.recordings[0].acked()


async def test_nothing_is_acknowledged_before_it_is_settled(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """Not at receipt, not with a ping, not when others are settled: the ack point is the path's alone."""
    async with proxy_to(mosquitto_broker.port) as proxy, receiving(options(proxy.port), stream) as reception:
        await reception.ready()
        await publish_to(mosquitto_broker, f"{site}/acme/pump", *numbered(10))
        await reception.messages(10)
        reception.source.settle([9, 4, 1])
        await pinged(proxy, 2)
        assert proxy.recordings[0].acked() == []
        reception.source.settle([0])
        await eventually_async(lambda: len(proxy.recordings[0].acked()) == 2)
        await pinged(proxy, 2)
        assert proxy.recordings[0].delivered()[:2] == proxy.recordings[0].acked()


async def pinged(proxy: BrokerProxy, times: int) -> None:
    """Wait until the client has sent so many more pings: time enough for a mistake to show."""
    before = proxy.recordings[-1].count(PINGREQ)
    await eventually_async(lambda: proxy.recordings[-1].count(PINGREQ) >= before + times)


async def test_a_settled_number_counts_once(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """To settle again, in part or in whole, sends no second ack."""
    async with proxy_to(mosquitto_broker.port) as proxy, receiving(options(proxy.port), stream) as reception:
        await reception.ready()
        await publish_to(mosquitto_broker, f"{site}/acme/pump", *numbered(4))
        await reception.messages(4)
        for numbers in (range(2), [0, 1], range(4), range(4)):
            reception.source.settle(numbers)
        await pinged(proxy, 2)
        assert proxy.recordings[0].delivered() == proxy.recordings[0].acked()


async def test_qos_0_has_no_packet_id_and_holds_nobody_back(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """QoS 0 messages are yielded and settled like others; acks are for the others only."""
    async with proxy_to(mosquitto_broker.port) as proxy, receiving(options(proxy.port), stream) as reception:
        await reception.ready()
        for qos in (1, 0, 1):
            await publish_to(mosquitto_broker, f"{site}/acme/pump", b"%d" % qos, qos=qos)
        messages = await reception.messages(3)
        assert [message.payload for message in messages] == [b"1", b"0", b"1"]
        assert [message.packet_id is None for message in messages] == [False, True, False]
        reception.source.settle([2, 0])
        await eventually_async(lambda: len(proxy.recordings[0].acked()) == 1)
        reception.source.settle([1])
        await eventually_async(lambda: len(proxy.recordings[0].acked()) == 2)


async def test_a_stream_of_qos_0_is_subscribed_at_qos_0(
    mosquitto_broker: Mosquitto, options: Options, site: str
) -> None:
    """The broker downgrades for a stream that asks for no more."""
    stream = StreamSettings(name="cheap", topic=f"{site}/{{tenant}}/{{device}}", qos=0)
    async with receiving(options(mosquitto_broker.port), stream) as reception:
        await reception.ready()
        await publish_to(mosquitto_broker, f"{site}/acme/pump", b"x", qos=1)
        (message,) = await reception.messages(1)
        assert message.packet_id is None


async def test_ten_thousand_messages_pipelined(
    wide: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """A backlog comes whole, once and in order, and leaves nothing in the session."""
    mqtt = options(wide.port)
    async with receiving(mqtt, stream) as reception:
        await reception.ready()
    await publish_to(wide, f"{site}/acme/pump", *numbered(10_000))
    async with receiving(mqtt, stream, settle=True) as reception:
        await reception.messages(10_000, timeout=60)
    assert numbered(10_000) == reception.payloads
    assert await asyncio.to_thread(left_in_session, wide.port, mqtt.client_id, f"{site}/acme/marker") == []


async def test_payloads_and_topics_come_as_they_were_sent(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """No bytes, every byte, 10 MB; topics in UTF-8."""
    big = random.Random(1).randbytes(10_000_000)
    topics = {
        f"{site}/acme/empty": b"",
        f"{site}/acme/all": bytes(range(256)),
        f"{site}/größe/泵 №1": b"x",
        f"{site}/acme/big": big,
    }
    async with receiving(options(mosquitto_broker.port), stream, settle=True) as reception:
        await reception.ready()
        for topic, payload in topics.items():
            await publish_to(mosquitto_broker, topic, payload)
        messages = await reception.messages(4)
    assert topics == {message.topic: message.payload for message in messages}
    assert all(isinstance(message.payload, bytes) for message in messages)


# redelivery -----------------------------------------------------------------------------------


async def test_what_is_not_settled_comes_again(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """After a lost connection: the same packet ids, marked duplicate, in a resumed session, under new numbers."""
    async with proxy_to(mosquitto_broker.port) as proxy, receiving(options(proxy.port), stream) as reception:
        await reception.ready()
        assert not reception.deliveries
        await publish_to(mosquitto_broker, f"{site}/acme/pump", *numbered(6))
        first = list(await reception.messages(6))
        reception.source.settle([0, 1, 3])
        await eventually_async(lambda: len(proxy.recordings[0].acked()) == 2)
        await pinged(proxy, 1)
        proxy.cut()
        again = (await reception.messages(10))[6:]
        assert numbered(6)[2:] == [message.payload for message in again]
        assert [message.packet_id for message in first[2:]] == [message.packet_id for message in again]
        assert not any(message.duplicate for message in first)
        assert all(message.duplicate for message in again)
        assert sorted({delivery.resumed for delivery in reception.deliveries if delivery.first < 6}) == [
            False
        ]
        repeats = [delivery.repeats for delivery in reception.deliveries if delivery.first >= 6]
        found = {key: number for repeated in repeats for key, number in repeated.items()}
        assert found == {message.packet_id: number for number, message in enumerate(first) if number >= 2}
        assert {6} == {delivery.since for delivery in reception.deliveries if delivery.first >= 6}
        assert {6} == {
            delivery.turn for delivery in reception.deliveries if delivery.first >= 6
        }  # ids have come no further


async def test_late_settles_of_a_lost_connection_acknowledge_nothing(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """Their packet ids now stand for other deliveries; those need a settle of their own."""
    async with proxy_to(mosquitto_broker.port) as proxy, receiving(options(proxy.port), stream) as reception:
        await reception.ready()
        await publish_to(mosquitto_broker, f"{site}/acme/pump", *numbered(3))
        await reception.messages(3)
        proxy.cut()
        await reception.messages(6)
        reception.source.settle(range(3))
        await pinged(proxy, 2)
        assert proxy.recordings[1].acked() == []
        reception.source.settle(range(3, 6))
        await eventually_async(lambda: len(proxy.recordings[1].acked()) == 3)


async def test_a_broker_that_restarts(
    mosquitto: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """The source waits, says so, comes back by itself, and goes on where it was."""
    async with receiving(options(mosquitto.port), stream) as reception:
        await reception.ready()
        await publish_to(mosquitto, f"{site}/acme/pump", b"before")
        await reception.messages(1)
        await asyncio.to_thread(mosquitto.stop)
        await reception.state(ComponentState.WAITING, "nothing listens")
        await asyncio.to_thread(mosquitto.start)
        await reception.ready()
        messages = await reception.messages(2)
        assert messages[1].duplicate
        reception.settle_all()
        await publish_to(mosquitto, f"{site}/acme/pump", b"after")
        assert (await reception.messages(3))[2].payload == b"after"


async def test_a_broker_that_is_killed(
    mosquitto: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """A crash loses what the broker had not saved, its sessions perhaps; the source subscribes again."""
    async with receiving(options(mosquitto.port), stream, settle=True) as reception:
        await reception.ready()
        await asyncio.to_thread(mosquitto.kill)
        await reception.state(ComponentState.WAITING)
        for database in mosquitto.folder.glob("*.db"):
            database.unlink()
        await asyncio.to_thread(mosquitto.start)
        await reception.ready()
        await publish_to(mosquitto, f"{site}/acme/pump", b"after")
        await reception.messages(1)
        assert not reception.deliveries[-1].resumed


async def test_an_absent_broker_is_waited_for(
    mosquitto: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """Absent at start: not ready, says what it waits for, and connects once the broker is there."""
    await asyncio.to_thread(mosquitto.stop)
    async with receiving(options(mosquitto.port), stream) as reception:
        await reception.state(ComponentState.WAITING, f"nothing listens at 127.0.0.1:{mosquitto.port}")
        await asyncio.to_thread(mosquitto.start)
        await reception.ready()


async def test_an_unknown_host_is_named(options: Options, stream: StreamSettings) -> None:
    """DNS failures name the host."""
    async with receiving(options(1883, host="broker.invalid"), stream) as reception:
        await reception.state(ComponentState.WAITING, "cannot resolve the host name 'broker.invalid'")


async def test_a_name_that_cannot_be_a_host_is_named(options: Options, stream: StreamSettings) -> None:
    """Labels that are too long are not even looked up."""
    async with receiving(options(1883, host=f"{'x' * 70}.example.org"), stream) as reception:
        await reception.state(ComponentState.WAITING, "is no host name")


# reading, pausing, idling -----------------------------------------------------------------------


async def test_idle_follows_the_last_message(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """After each burst the sink hears, once, that nothing follows."""
    async with receiving(options(mosquitto_broker.port), stream, settle=True) as reception:
        await reception.ready()
        for count in (1, 2):
            await publish_to(mosquitto_broker, f"{site}/acme/pump", b"x")
            await reception.messages(count)
            await eventually_async(lambda: reception.story[-1] == "idle")
    assert reception.story == ["take", "idle", "take", "idle"]


async def test_a_pause_keeps_the_connection_alive(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """Reading stops for longer than the broker's patience (1.5 keepalives); pings do not."""
    async with proxy_to(mosquitto_broker.port) as proxy, receiving(options(proxy.port), stream) as reception:
        await reception.ready()
        reception.source.pause()
        reception.source.pause()
        await publish_to(mosquitto_broker, f"{site}/acme/pump", *numbered(5))
        await pinged(proxy, 8)  # every half second: twice the broker's patience and more
        assert reception.received == []
        reception.source.resume()
        reception.source.resume()
        await reception.messages(5)
        assert len(proxy.recordings) == 1
        assert ComponentState.READY is reception.health.state


async def test_acks_leave_while_reading_is_paused(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """Back-pressure must not stop what relieves it."""
    async with proxy_to(mosquitto_broker.port) as proxy, receiving(options(proxy.port), stream) as reception:
        await reception.ready()
        await publish_to(mosquitto_broker, f"{site}/acme/pump", *numbered(5))
        await reception.messages(5)
        reception.source.pause()
        reception.settle_all()
        await eventually_async(lambda: len(proxy.recordings[0].acked()) == 5)


async def test_a_pause_outlives_the_connection(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """A sink that is full is not filled again because the broker was away."""
    async with proxy_to(mosquitto_broker.port) as proxy, receiving(options(proxy.port), stream) as reception:
        await reception.ready()
        reception.source.pause()
        proxy.cut()
        await reception.state(ComponentState.WAITING)
        await publish_to(mosquitto_broker, f"{site}/acme/pump", b"x")
        assert reception.received == []
        reception.source.resume()
        await reception.messages(1)


async def test_a_silent_broker_is_left(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings
) -> None:
    """A half-open connection is noticed by the keepalive, and made anew."""
    async with proxy_to(mosquitto_broker.port) as proxy, receiving(options(proxy.port), stream) as reception:
        await reception.ready()
        proxy.silent = True
        await reception.state(ComponentState.WAITING, "silent")
        proxy.silent = False
        await reception.ready()


# subscriptions ------------------------------------------------------------------------------------


async def test_retained_messages_are_flagged(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """A replay is marked, a fresh message is not. MQTT 5 replays at the first subscribe only; 3.1.1 at each.

    A resumed session is subscribed anew on 3.1.1 too: the broker may have lost what it says it has.
    """
    await publish_to(mosquitto_broker, f"{site}/acme/old", b"old", retain=True)
    async with proxy_to(mosquitto_broker.port) as proxy:
        async with receiving(options(proxy.port), stream, settle=True) as reception:
            await reception.messages(1)
            await publish_to(mosquitto_broker, f"{site}/acme/new", b"new", retain=True)
            await reception.messages(2)
            await pinged(proxy, 1)
            proxy.cut()
            await eventually_async(lambda: len(proxy.recordings) == 2)
            await reception.ready()
            await publish_to(mosquitto_broker, f"{site}/acme/pump", b"last")
            await eventually_async(lambda: reception.payloads[-1] == b"last")
        came = [(message.payload, message.retain) for _, message in reception.received]
        again = [(b"new", True), (b"old", True)]
        assert came[:2] == [(b"old", True), (b"new", False)]
        assert sorted(came[2:-1]) == (again if options(1).protocol == "3.1.1" else [])
        assert came[-1] == (b"last", False)


async def test_two_streams_two_subscriptions(
    mosquitto_broker: Mosquitto, options: Options, site: str
) -> None:
    """All streams of the configuration are subscribed to, and what is in none does not come."""
    streams = [
        StreamSettings(name="a", topic=f"{site}/a/{{tenant}}/{{device}}"),
        StreamSettings(name="b", topic=f"{site}/b/{{tenant}}/#"),
    ]
    async with receiving(options(mosquitto_broker.port), *streams, settle=True) as reception:
        await reception.ready()
        for topic in ("c/x/y", "a/x/y", "b/x", "b/x/y/z"):
            await publish_to(mosquitto_broker, f"{site}/{topic}", topic.encode())
        await reception.messages(3)
    assert reception.payloads == [b"a/x/y", b"b/x", b"b/x/y/z"]


@pytest.mark.parametrize(
    "topics",
    [
        ["{site}/{tenant}/{device}", "{site}/#"],
        ["{site}/#", "{site}/{tenant}/{device}"],
        ["{site}/{tenant}/pump", "{site}/acme/{device}"],
    ],
    ids=["the wider last", "the wider first", "in part"],
)
async def test_streams_that_overlap_get_a_message_once(
    mosquitto_broker: Mosquitto, options: Options, site: str, topics: list[str]
) -> None:
    """Brokers send a copy for each subscription that matches; a message is one message."""
    streams = [
        StreamSettings(name=f"s{at}", topic=topic.replace("{site}", site), tenant="t")
        for at, topic in enumerate(topics)
    ]
    async with receiving(options(mosquitto_broker.port), *streams, settle=True) as reception:
        await reception.ready()
        await publish_to(mosquitto_broker, f"{site}/acme/pump", b"once")
        await publish_to(mosquitto_broker, f"{site}/acme/pump", b"last")
        await reception.messages(2)
    assert reception.payloads == [b"once", b"last"]


@pytest.mark.parametrize("options", ["5"], indirect=True)
async def test_a_share_group_divides_the_messages(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """Each message goes to one gateway of the group."""
    group = {"share_group": f"group-{secrets.token_hex(4)}"}
    port = mosquitto_broker.port
    async with (
        receiving(options(port, **group), stream, settle=True) as one,
        receiving(options(port, **group), stream, settle=True) as other,
    ):
        await one.ready()
        await other.ready()
        await publish_to(mosquitto_broker, f"{site}/acme/pump", *numbered(40))
        await eventually_async(lambda: len(one.received) + len(other.received) >= 40)
        assert sorted(numbered(40)) == sorted(one.payloads + other.payloads)
        assert one.received
        assert other.received


@pytest.mark.parametrize("options", ["3.1.1"], indirect=True)
async def test_a_share_group_is_refused_where_mqtt_has_none(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings
) -> None:
    """To many a broker of MQTT 3.1.1 it is an ordinary filter, which no topic matches: ready, and nothing comes."""
    async with receiving(options(mosquitto_broker.port, share_group="group"), stream) as reception:
        await reception.state(ComponentState.FAILED, "--divide streams")


async def test_a_silent_first_address_costs_little(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All addresses of a name share the time: the second answers although the first never does."""
    with silent(mosquitto_broker.port) as address:
        mqtt = options(mosquitto_broker.port, host="broker.test", connect_timeout=4)
        resolve_to(monkeypatch, [address, "127.0.0.1"])
        async with receiving(mqtt, stream) as reception:
            await reception.ready(timeout=3)


async def test_filters_that_an_earlier_configuration_asked_for_are_unsubscribed(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """In the resumed session, after the new ones; twenty of them, in parts."""
    store = MemoryStore()
    mqtt = options(mosquitto_broker.port)
    former = [StreamSettings(name=f"s{at}", topic=f"{site}/{{tenant}}/{at}/{{device}}") for at in range(20)]
    async with receiving(mqtt, *former, store=store) as reception:
        await reception.ready()
    async with receiving(mqtt, stream, store=store, settle=True) as reception:
        await reception.ready()
        await eventually_async(lambda: len(reception.sessions.filters) == 1)
        for at in range(20):
            await publish_to(mosquitto_broker, f"{site}/acme/{at}/pump", b"no more")
        await publish_to(mosquitto_broker, f"{site}/acme/pump", b"last")
        await eventually_async(lambda: b"last" in reception.payloads)
        assert reception.payloads == [b"last"]


# the end ----------------------------------------------------------------------------------------------


async def test_stop_yields_nothing_more_and_lets_acks_leave(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """Stop, settle, close: what was yielded is acknowledged, what was not stays in the session, and a goodbye."""
    mqtt = options(mosquitto_broker.port)
    async with proxy_to(mosquitto_broker.port) as proxy:
        async with receiving(mqtt.model_copy(update={"port": proxy.port}), stream) as reception:
            await reception.ready()
            await publish_to(mosquitto_broker, f"{site}/acme/pump", *numbered(3))
            await reception.messages(3)
            reception.source.stop()
            reception.source.stop()
            reception.source.resume()
            await publish_to(mosquitto_broker, f"{site}/acme/pump", b"later")
            await pinged(proxy, 2)
            reception.settle_all()
        assert len(reception.received) == 3
        assert ComponentState.STOPPED is reception.health.state
        assert len(proxy.recordings[0].acked()) == 3
        assert proxy.recordings[0].count(DISCONNECT) == 1
    left = await asyncio.to_thread(left_in_session, mosquitto_broker.port, mqtt.client_id, f"{site}/a/marker")
    assert [message.payload for message in left] == [b"later"]


async def test_close_while_the_broker_is_away(options: Options, stream: StreamSettings) -> None:
    """Nobody waits for a broker that is not there, nor for the back-off."""
    async with receiving(options(1, reconnect_min=60, reconnect_max=60), stream) as reception:
        await reception.state(ComponentState.WAITING)
    assert ComponentState.STOPPED is reception.health.state


async def test_close_while_the_broker_says_nothing(options: Options, stream: StreamSettings) -> None:
    """A broker that accepts the connection and then hangs does not hold up the stop."""

    async def hang(peer: Peer) -> None:
        await peer.until_closed()

    async with (
        fake_broker(hang) as broker,
        asyncio.timeout(10),
        receiving(options(broker.port, connect_timeout=60), stream),
    ):
        await broker.connections(1)


async def test_close_is_idempotent_and_settle_after_it_harmless(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """The path may still be ending messages while everything goes down."""
    async with receiving(options(mosquitto_broker.port), stream) as reception:
        await reception.ready()
        await publish_to(mosquitto_broker, f"{site}/acme/pump", b"x")
        await reception.messages(1)
    reception.settle_all()
    await reception.source.close()
    reception.source.pause()
    reception.source.resume()


async def test_a_session_outlives_the_daemon(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings, site: str
) -> None:
    """What is published while no gateway runs waits at the broker for the next one."""
    mqtt = options(mosquitto_broker.port)
    async with receiving(mqtt, stream) as reception:
        await reception.ready()
    await publish_to(mosquitto_broker, f"{site}/acme/pump", b"meanwhile")
    async with receiving(mqtt, stream, settle=True) as reception:
        (message,) = await reception.messages(1)
        assert message.payload == b"meanwhile"
        assert not message.duplicate
        assert reception.deliveries[0].resumed


async def test_another_client_with_our_id_is_suspected(
    mosquitto_broker: Mosquitto, options: Options, stream: StreamSettings
) -> None:
    """Clients with one client id throw each other out; mosquitto 2.0 closes without a reason, so the text hints."""
    mqtt = options(mosquitto_broker.port, reconnect_min=0.5, reconnect_max=0.5)
    async with receiving(mqtt, stream) as reception:
        await reception.ready()
        intruder = await asyncio.to_thread(Wire, mosquitto_broker.port, client_id=mqtt.client_id)
        intruder.socket.close()
        await reception.state(ComponentState.WAITING, "perhaps another client uses our mqtt.client_id")
        await reception.ready()
