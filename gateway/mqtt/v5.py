"""MQTT 5 over TCP, TLS or a unix socket: an ``asyncio.Protocol`` on the mqtt5 codec.

All messages of one socket read are one delivery, and the codec's own packets are the messages; nothing is
awaited or logged per message.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import ssl
from collections.abc import Callable, Sequence
from typing import Any, cast

from mqtt5 import (
    ConnAckPacket,
    ConnAckReasonCode,
    DisconnectPacket,
    DisconnectReasonCode,
    Packet,
    PingReqPacket,
    PingRespPacket,
    PubRelPacket,
    SubAckPacket,
    UnsubAckPacket,
)

from gateway.errors import GatewayError
from gateway.messages import PACKET_IDS, Message
from gateway.mqtt import packets, reasons, tls
from gateway.mqtt.at_qos_2 import AtQos2, pubcomp_packet
from gateway.mqtt.connection import (
    LAST_ACKS_SECONDS,
    ConnectionLostError,
    Phase,
    Receiver,
    Refusal,
    RefusedError,
    Subscription,
    UnsupportedVersionError,
    broker_name,
    closed_by,
)
from gateway.mqtt.dial import dial
from gateway.mqtt.frames import BrokenStreamError, PacketReader
from gateway.mqtt.idle import IdleWatch
from gateway.mqtt.keepalive import Keepalive
from gateway.mqtt.reasons import BrokerReason
from gateway.mqtt.replies import Ended, answer, either
from gateway.observability import events
from gateway.settings import MqttSettings

_CLOSE_TIMEOUT = 2.0
_PINGREQ = PingReqPacket().write()
_SUBSCRIBE_TRIES = 8
_MQTT_3_CONNACK = b"\x20\x02"
"""A CONNACK of two bytes is MQTT 3's: MQTT 5 has at least three."""


class V5Connection(asyncio.Protocol):
    """One MQTT 5 connection; see :class:`gateway.mqtt.connection.Connection`."""

    protocol = "5"
    dialled = False
    goodbye_read = False
    shortcomings: Sequence[str] = ()

    def __init__(self, mqtt: MqttSettings, receiver: Receiver) -> None:
        self._mqtt, self._receiver = mqtt, receiver
        self._broker = broker_name(mqtt)
        self._loop = asyncio.get_running_loop()
        self._packet_reader = PacketReader(
            mqtt.max_packet_bytes,
            longest_topic=mqtt.max_topic_bytes,
            most_properties=mqtt.max_property_bytes,
        )
        self._socket: asyncio.Transport | None = None
        self._keepalive: Keepalive | None = None
        self._connack: ConnAckPacket | None = None
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._packet_ids = itertools.cycle(range(PACKET_IDS, PACKET_IDS // 2, -1))
        self._asked: tuple[int, asyncio.Future[SubAckPacket | UnsubAckPacket]] | None = None
        self._phase, self._filters = Phase.CONNECTING, list[str]()
        self._ended: Ended = self._loop.create_future()
        self._gone = asyncio.Event()
        self._torn = False
        self._paused = False
        self._deliveries = 0
        self._at_qos_2 = AtQos2(mqtt.client_id)
        self._broken = False
        self._greeting = b""
        self._idle = IdleWatch(receiver.idle)

    # the connection's life -------------------------------------------------------------

    async def open(self) -> None:
        """Dial, CONNECT, and wait for CONNACK."""
        hello = packets.connect_packet(self._mqtt)
        try:
            async with asyncio.timeout(self._mqtt.connect_timeout):
                await self._dial()
                self.dialled = True
                self._write(hello)
                await either(self._accepted, self._ended)
        except (OSError, UnicodeError) as error:
            raise tls.explain(error, self._mqtt, dialling=True) from error
        if self._ended.done():
            raise self._ended.result()

    async def _dial(self) -> None:
        mqtt = self._mqtt
        secure: dict[str, Any] = {}
        if mqtt.tls is not None:
            secure = {
                "ssl": tls.make_context(mqtt.tls, ssl.SSLContext),
                "server_hostname": tls.server_name(mqtt),
            }
        if mqtt.unix_socket is not None:
            await self._loop.create_unix_connection(lambda: self, str(mqtt.unix_socket), **secure)
        else:
            socket = await dial(mqtt.host, mqtt.port)
            await self._loop.create_connection(lambda: self, sock=socket, **secure)

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> list[Refusal]:
        """SUBSCRIBE, and wait for SUBACK, as long as messages come or reading is paused."""
        assert self._connack is not None
        size = len(packets.subscribe_packet(1, subscriptions))
        packets.check_limits(self._connack, subscriptions, size, self._broker)
        self._phase, self._filters = Phase.SUBSCRIBING, [one.filter for one in subscriptions]
        answers = await self._ask("SUBSCRIBE", functools.partial(_subscribe_packet, subscriptions))
        self._phase = Phase.SUBSCRIBED
        return reasons.refusals(subscriptions, answers)

    async def unsubscribe(self, filters: Sequence[str]) -> list[str]:
        """UNSUBSCRIBE, and wait for UNSUBACK likewise."""
        answers = await self._ask("UNSUBSCRIBE", lambda number: packets.unsubscribe_packet(number, filters))
        return [one for one, code in zip(filters, answers, strict=False) if code.code >= reasons.FAILURE]

    async def _ask(self, name: str, packet: Callable[[int], bytes]) -> list[BrokerReason]:
        """The reason codes of the answer to this packet.

        Some brokers take our packet ids for those of their own messages in flight, and say that one is in use
        (0x91): the next one may not be.
        """
        for number in itertools.islice(self._packet_ids, _SUBSCRIBE_TRIES):
            self._asked = number, self._loop.create_future()
            self._write(packet(number))
            try:
                told = await answer(
                    self._asked[1], self._ended, timeout=self._mqtt.connect_timeout, progress=self._progress
                )
            except TimeoutError:
                raise ConnectionLostError(f"{self._broker} does not answer our {name}") from None
            answers = [packets.reason_of(code, told) for code in told.reason_codes]
            if reasons.PACKET_ID_IN_USE not in {reason.code for reason in answers}:
                break
        return answers

    def _progress(self) -> object:
        return object() if self._paused else self._deliveries

    async def lost(self) -> GatewayError:
        """Wait for the end."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """DISCONNECT, and let the broker close: then it has read our acks. One that does not is cut off.

        To close first, with messages unread, would be an RST, which may overtake the acks.
        """
        leaving = self._connack is not None and not self._ended.done()
        if leaving:
            self._write(packets.disconnect_packet(DisconnectReasonCode.NORMAL_DISCONNECTION))
            self.resume()
            self._stop(ConnectionLostError("closed by us"))
        else:
            self._end(ConnectionLostError("closed by us"))
        if self._socket is not None:
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._gone.wait()
                self.goodbye_read = leaving and not self._torn
            except TimeoutError:
                self._socket.abort()
                await self._gone.wait()

    def _stop(self, error: GatewayError) -> None:
        """Nothing is yielded or pinged from here on."""
        self._ended.set_result(error)
        if self._keepalive is not None:
            self._keepalive.stop()

    def _end(self, error: GatewayError, code: DisconnectReasonCode | None = None) -> None:
        """The connection is over, and ``code`` is said to the broker; only the first reason counts."""
        if self._ended.done():
            return
        self._stop(error)
        if self._socket is not None:
            if code is not None and self._connack is not None:
                self._write(packets.disconnect_packet(code))
            self._socket.close()

    # what the source asks ----------------------------------------------------------------

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """One write; what a slow broker leaves unwritten is bounded by the window: 4 bytes a message."""
        if not self._ended.done():
            self._write(self._at_qos_2.acknowledgements(packet_ids))

    def ping(self) -> None:
        """PINGREQ, behind all acks so far."""
        if not self._ended.done():
            self._receiver.pinged()
            self._write(_PINGREQ)

    def pause(self) -> None:
        """Stop reading. Before CONNACK it takes effect with CONNACK."""
        self._paused = True
        if (socket := self._standing()) is not None and self._keepalive is not None:
            socket.pause_reading()
            self._keepalive.suspend()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if (socket := self._standing()) is not None and self._keepalive is not None:
            self._keepalive.resume()
            socket.resume_reading()

    def _write(self, packet: bytes | bytearray) -> None:
        if self._socket is not None and not self._socket.is_closing():
            self._socket.write(packet)

    def _standing(self) -> asyncio.Transport | None:
        """The socket while it may be used: uvloop raises for one that is closing, before it has told us."""
        socket = self._socket
        return None if socket is None or socket.is_closing() or self._ended.done() else socket

    # what the event loop calls -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP, and TLS where configured, stand."""
        transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._socket = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._gone.set()
        self._torn = exc is not None
        if isinstance(exc, OSError):
            self._end(tls.explain(exc, self._mqtt))
        self._end(closed_by(self._broker, self._phase, self._filters))

    def data_received(self, data: bytes) -> None:
        """One read of the socket: one delivery."""
        if self._ended.done() or self._broken:
            return
        self._idle.read()
        if self._keepalive is None:
            self._check_version(data)
        else:
            self._keepalive.heard()
        broken: BrokenStreamError | None = None
        try:
            packets = self._packet_reader.feed(data)
        except BrokenStreamError as error:
            packets, broken = error.before, error
        try:
            for packet in packets.others:
                self._control(packet)
        except BrokenStreamError as error:
            broken = error
        if packets.messages and not self._ended.done():
            for packet_id in packets.qos_2:
                self._at_qos_2.came(packets.messages[packets.packet_ids.index(packet_id)].topic, packet_id)
            self._yield(packets.messages, packets.packet_ids)
        if broken is not None and not self._ended.done():
            self._break(broken)

    def _break(self, error: BrokenStreamError) -> None:
        """Nothing after this can be read. What came before is acknowledged, or it would come, and break, again."""
        self._broken = True
        kind = RefusedError if error.standing else ConnectionLostError
        end = functools.partial(self._end, kind(f"{self._broker} sent {error}"), error.code)
        self._loop.call_later(LAST_ACKS_SECONDS, end) if self._deliveries else end()

    def _yield(self, messages: Sequence[Message], packet_ids: list[int]) -> None:
        if self._connack is None:
            self._end(ConnectionLostError(f"{self._broker} sent PUBLISH before CONNACK"))
            return
        self._deliveries += 1
        self._receiver.take(messages, packet_ids)
        self._idle.arm()

    # packets other than PUBLISH ------------------------------------------------------------

    def _check_version(self, data: bytes) -> None:
        self._greeting += data[:2]
        if self._greeting.startswith(_MQTT_3_CONNACK):
            self._end(UnsupportedVersionError(f"{self._broker} answers in MQTT 3: it does not speak MQTT 5"))

    def _control(self, packet: Packet) -> None:
        match packet:
            case PingRespPacket() if self._connack is not None:
                self._receiver.answered()
            case PubRelPacket() if self._connack is not None:
                self._write(pubcomp_packet(packet.packet_id))
            case ConnAckPacket() if self._connack is None:
                self._on_connack(packet)
            case SubAckPacket() | UnsubAckPacket() if self._asked is not None:
                self._on_answer(packet, *self._asked)
            case DisconnectPacket() if self._connack is not None:
                reason = packets.reason_of(packet.reason_code, packet)
                self._end(reasons.disconnected(self._broker, reason))
            case _:
                name = type(packet).__name__.removesuffix("Packet").upper()
                raise BrokenStreamError(DisconnectReasonCode.PROTOCOL_ERROR, f"an unexpected {name}")

    def _on_connack(self, packet: ConnAckPacket) -> None:
        if packet.reason_code != ConnAckReasonCode.SUCCESS:
            reason = packets.reason_of(packet.reason_code, packet)
            self._end(reasons.refused_connection(self._broker, reason))
            return
        self._connack = packet
        self.shortcomings = packets.shortcomings(packet, self._mqtt)
        if (given := packets.session_expiry(packet, self._mqtt)) < int(self._mqtt.session_expiry):
            events.mqtt_session_shortened(asked=self._mqtt.session_expiry, given=given)
        keepalive = packet.server_keep_alive or self._mqtt.keepalive
        self._keepalive = Keepalive(keepalive, self.ping, self._on_silence)
        if self._paused:
            self.pause()
        self._receiver.connected(packet.session_present)
        if not self._accepted.done():
            self._accepted.set_result(None)

    def _on_answer(
        self,
        packet: SubAckPacket | UnsubAckPacket,
        number: int,
        asked: asyncio.Future[SubAckPacket | UnsubAckPacket],
    ) -> None:
        if packet.packet_id != number or asked.done():
            raise BrokenStreamError(DisconnectReasonCode.PROTOCOL_ERROR, "an answer to what we did not ask")
        asked.set_result(packet)

    def _on_silence(self) -> None:
        self._end(ConnectionLostError(f"{self._broker} is silent: it does not answer our pings"))
        if self._socket is not None:
            self._socket.abort()  # a dead peer takes no bytes: nothing to flush


def _subscribe_packet(subscriptions: Sequence[Subscription], number: int) -> bytes:
    return packets.subscribe_packet(number, subscriptions)
